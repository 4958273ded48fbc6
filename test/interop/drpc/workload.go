package main

import (
	"context"
	"errors"
	"strconv"
	"time"
)

// workload does an operation once for each of its keys, in each turn.
type workload struct {
	name       string
	keys       []string
	turns      int
	expiration time.Duration
	// full: the pool has a conn of each key at the start.
	full bool
	run  func(w workload, p *connPool, conns []*noopConn) error
}

var (
	one  = keys(1)
	many = keys(100_000)

	workloads = []workload{
		{"take_put", one, 50_000, 0, true, takePut},
		{"take_put_expiring", one, 50_000, time.Minute, true, takePut},
		{"put_100k", many, 1, time.Minute, false, put},
		{"take_100k", many, 1, time.Minute, true, take},
		{"cycle_100k", many, 1, time.Minute, true, takePut},
		{"invoke", one, 50_000, 0, true, invoke},
		{"stream", one, 50_000, 0, true, stream},
	}

	errEmpty = errors.New("the pool had no conn")
)

func keys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = "peer:" + strconv.Itoa(i)
	}
	return keys
}

func put(w workload, p *connPool, conns []*noopConn) error {
	for turn := 0; turn < w.turns; turn++ {
		for i, key := range w.keys {
			p.Put(key, conns[i])
		}
	}
	return nil
}

func take(w workload, p *connPool, _ []*noopConn) error {
	for turn := 0; turn < w.turns; turn++ {
		for _, key := range w.keys {
			if _, ok := p.Take(key); !ok {
				return errEmpty
			}
		}
	}
	return nil
}

func takePut(w workload, p *connPool, _ []*noopConn) error {
	for turn := 0; turn < w.turns; turn++ {
		for _, key := range w.keys {
			conn, ok := p.Take(key)
			if !ok {
				return errEmpty
			}
			p.Put(key, conn)
		}
	}
	return nil
}

func invoke(w workload, p *connPool, _ []*noopConn) error {
	ctx := context.Background()
	conn := p.Get(ctx, w.keys[0], noDial)
	in, out := &message{}, &message{}
	for turn := 0; turn < w.turns; turn++ {
		if err := conn.Invoke(ctx, "/test.Peer/Echo", encoding{}, in, out); err != nil {
			return err
		}
	}
	return nil
}

// stream waits for each stream's end: only then is its conn back.
func stream(w workload, p *connPool, _ []*noopConn) error {
	ctx := context.Background()
	conn := p.Get(ctx, w.keys[0], noDial)
	for turn := 0; turn < w.turns; turn++ {
		stream, err := conn.NewStream(ctx, "/test.Peer/Chat", encoding{})
		if err != nil {
			return err
		}
		if err := stream.Close(); err != nil {
			return err
		}
		<-stream.Context().Done()
	}
	return nil
}

func noDial(context.Context, string) (*noopConn, error) { return nil, errEmpty }
