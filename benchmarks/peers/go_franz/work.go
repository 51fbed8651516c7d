package main

import (
	"errors"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	pb "trading-gateway/benchmarks/go_franz/gatewaypb"
)

// errRefused is a frame that is not passed on.
var errRefused = errors.New("refused")

// work is what is done with each frame, the same as in work.py; read-only once it is made.
type work struct {
	routes  map[string]string
	symbols map[string]struct{}
}

// newWork reads routes as in "tick_data=a,trading_signal=b" and symbols separated by commas.
func newWork(routes, symbols string) *work {
	w := &work{routes: map[string]string{}, symbols: map[string]struct{}{}}
	for _, pair := range strings.Split(routes, ",") {
		if kind, topic, found := strings.Cut(pair, "="); found {
			w.routes[kind] = topic
		}
	}
	for _, symbol := range strings.Split(symbols, ",") {
		w.symbols[symbol] = struct{}{}
	}
	return w
}

// prepare gives the topic and the record value of one frame; nothing of the frame itself is kept.
func (w *work) prepare(frame []byte, user, company string) (string, []byte, error) {
	var envelope pb.MessageEnvelope
	if err := proto.Unmarshal(frame, &envelope); err != nil {
		return "", nil, err
	}
	topic, found := w.routes[envelope.MessageType]
	if !found {
		return "", nil, errRefused
	}
	switch envelope.MessageType {
	case "tick_data":
		if err := w.filterTicks(&envelope); err != nil {
			return "", nil, err
		}
	case "trading_signal":
		var signal pb.TradingSignal
		if err := proto.Unmarshal(envelope.Payload, &signal); err != nil {
			return "", nil, err
		}
		if !w.active(signal.Symbol) {
			return "", nil, errRefused
		}
	}
	envelope.UserId = user
	envelope.CompanyId = company
	envelope.ReceivedAt = time.Now().UnixMicro()
	value, err := proto.Marshal(&envelope)
	return topic, value, err
}

// filterTicks leaves the ticks of active pairs and serialises the payload again only when one was dropped.
func (w *work) filterTicks(envelope *pb.MessageEnvelope) error {
	var batch pb.BatchTickData
	if err := proto.Unmarshal(envelope.Payload, &batch); err != nil {
		return err
	}
	all := len(batch.Ticks)
	kept := batch.Ticks[:0]
	for _, tick := range batch.Ticks {
		if w.active(tick.Symbol) {
			kept = append(kept, tick)
		}
	}
	if len(kept) == 0 {
		return errRefused
	}
	if len(kept) == all {
		return nil
	}
	payload, err := proto.Marshal(&pb.BatchTickData{Ticks: kept, Account: batch.Account})
	envelope.Payload = payload
	return err
}

func (w *work) active(symbol string) bool {
	_, found := w.symbols[symbol]
	return found
}
