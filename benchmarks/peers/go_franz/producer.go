package main

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	linger = time.Millisecond
	// Once this many records are under way, connections wait before they read on.
	bufferedRecords = 50_000
	startTimeout    = 30 * time.Second
)

// producer counts the delivery reports of what it sends.
type producer struct {
	client    *kgo.Client
	delivered atomic.Int64
	failed    atomic.Int64
	stopping  atomic.Bool
}

// newProducer returns once a broker answers. The client is idempotent by default.
func newProducer(ctx context.Context, brokers string) (*producer, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(brokers, ",")...),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(linger),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		// Keys are hashed with murmur2 as by Java's client.
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.MaxBufferedRecords(bufferedRecords),
	)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := client.Ping(ctx); err != nil {
		client.Close()
		return nil, err
	}
	return &producer{client: client}, nil
}

// send hands a record over and waits only while too many are under way; false once the server is to end.
func (p *producer) send(topic string, key, value []byte) bool {
	if p.stopping.Load() {
		return false
	}
	p.client.Produce(context.Background(), &kgo.Record{Topic: topic, Key: key, Value: value}, p.report)
	return true
}

func (p *producer) report(_ *kgo.Record, err error) {
	if err != nil {
		p.failed.Add(1)
	} else {
		p.delivered.Add(1)
	}
}

// close waits for what is under way, at most as long as ctx allows, and drops the rest.
func (p *producer) close(ctx context.Context) error {
	p.stopping.Store(true)
	err := p.client.Flush(ctx)
	p.client.Close()
	return err
}
