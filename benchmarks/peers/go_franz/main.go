// A peer in Go: gorilla/websocket and franz-go do for each frame what the other peers do. Room: benchmarks.
//
// Package gatewaypb is generated; `go generate` writes it again with protoc and protoc-gen-go on the PATH.
package main

//go:generate protoc -I ../../.. --go_out=. --go_opt=module=trading-gateway/benchmarks/go_franz --go_opt=Mproto/gateway/v1/envelope.proto=trading-gateway/benchmarks/go_franz/gatewaypb --go_opt=Mproto/gateway/v1/payloads.proto=trading-gateway/benchmarks/go_franz/gatewaypb proto/gateway/v1/envelope.proto proto/gateway/v1/payloads.proto

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// How long the end may take: what is under way to Kafka is waited for no longer than this.
const stopTimeout = 2 * time.Second

func main() {
	port := flag.Int("port", 0, "port of the loopback address")
	flag.Parse()
	if *port == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*port); err != nil {
		log.Fatal(err)
	}
}

// run serves until SIGTERM or SIGINT.
func run(port int) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	out, err := newProducer(ctx, os.Getenv("BENCH_KAFKA"))
	if err != nil {
		return err
	}
	work := newWork(os.Getenv("BENCH_ROUTES"), os.Getenv("BENCH_SYMBOLS"))

	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	mux.HandleFunc("/ws/mt5", func(w http.ResponseWriter, r *http.Request) { accept(w, r, work, out) })
	server := &http.Server{
		Addr:              fmt.Sprintf("127.0.0.1:%d", port),
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err = errors.Join(server.Shutdown(limit), out.close(limit))
	log.Printf("delivered %d, failed %d", out.delivered.Load(), out.failed.Load())
	return err
}
