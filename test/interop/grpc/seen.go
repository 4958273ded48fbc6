package main

import (
	"context"
	"encoding/json"
	"sync"

	"google.golang.org/grpc/stats"
)

// seen counts calls by id, and streams by connection.
type seen struct {
	mu          sync.Mutex
	runs        map[string]int
	connections int
	peak        int
	running     int
	allPeak     int
}

type connection struct{ streams int }

type key struct{}

func newSeen() *seen { return &seen{runs: map[string]int{}} }

func (s *seen) ran(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs[id]++
}

func (s *seen) report() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	twice := []string{}
	for id, count := range s.runs {
		if count > 1 {
			twice = append(twice, id)
		}
	}
	return json.Marshal(map[string]any{
		"ran":         len(s.runs),
		"twice":       twice,
		"connections": s.connections,
		"peak":        s.peak,
		"peakOfAll":   s.allPeak,
	})
}

func (s *seen) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, key{}, &connection{})
}

func (s *seen) HandleConn(_ context.Context, event stats.ConnStats) {
	if _, begun := event.(*stats.ConnBegin); begun {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.connections++
	}
}

func (s *seen) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (s *seen) HandleRPC(ctx context.Context, event stats.RPCStats) {
	on, ok := ctx.Value(key{}).(*connection)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch event.(type) {
	case *stats.Begin:
		on.streams++
		s.running++
		s.peak = max(s.peak, on.streams)
		s.allPeak = max(s.allPeak, s.running)
	case *stats.End:
		on.streams--
		s.running--
	}
}
