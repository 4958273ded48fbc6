//go:build go1.25

//go:debug asynctimerchan=0

package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"storj.io/drpc"
	"storj.io/drpc/drpcpool"
)

// TestModel does to the real drpcpool what its input says, a line for each operation, and says what came of each: the
// milliseconds that it took, its result, and the conns that the pool has closed since. Time is simulated.
//
//	new CAPACITY KEYCAPACITY EXPIRATION_MS    put KEY CONN    take KEY    stream KEY CONN_IF_DIALED    end CONN
//	die CONN    block CONN    unblock CONN    slow CONN    wait MS    keys    close
func TestModel(t *testing.T) {
	if os.Getenv("DRPCPOOL_MODEL") == "" {
		t.Skip("driven by a test of another language")
	}
	synctest.Test(t, func(*testing.T) {
		in := bufio.NewScanner(os.Stdin)
		out := bufio.NewWriterSize(os.Stdout, 1<<16)
		m := &model{}
		for in.Scan() {
			start := time.Now()
			result := m.do(strings.Fields(in.Text()))
			took := time.Since(start).Milliseconds()
			synctest.Wait()
			_, _ = fmt.Fprintf(out, "= %d %d %s\n", took, result, m.log.take())
		}
		_ = out.Flush()
		m.end()
	})
}

type model struct {
	pool    *drpcpool.Pool[string, *modelConn]
	conns   map[string]*modelConn
	streams map[string]drpc.Stream
	log     *closeLog
}

// closeLog has the conns that one pool has closed.
type closeLog struct {
	mu     sync.Mutex // timers close conns side by side
	closed []int
}

func (l *closeLog) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	sort.Ints(l.closed)
	closed := strings.Trim(fmt.Sprint(l.closed), "[]")
	l.closed = nil
	return closed
}

func (m *model) do(op []string) int {
	number := func(i int) int {
		n, _ := strconv.Atoi(op[i])
		return n
	}
	switch op[0] {
	case "new":
		m.end()
		m.log = &closeLog{}
		m.conns, m.streams = map[string]*modelConn{}, map[string]drpc.Stream{}
		m.pool = drpcpool.New[string, *modelConn](drpcpool.Options{
			Capacity: number(1), KeyCapacity: number(2), Expiration: time.Duration(number(3)) * time.Millisecond,
		})
	case "put":
		m.pool.Put(op[1], m.conn(op[2]))
	case "take":
		if conn, ok := m.pool.Take(op[1]); ok {
			return conn.number()
		}
		return -1
	case "stream":
		used := -1
		dial := func(context.Context, string) (*modelConn, error) { return m.conn(op[2]), nil }
		stream, err := m.pool.Get(context.Background(), op[1], dial).NewStream(
			context.WithValue(context.Background(), usedKey{}, &used), "", encoding{})
		if err == nil {
			m.streams[strconv.Itoa(used)] = stream
		}
		return used
	case "end":
		stream := m.streams[op[1]]
		delete(m.streams, op[1])
		_ = stream.Close()
		<-stream.Context().Done()
	case "die":
		m.conn(op[1]).die()
	case "block":
		m.conn(op[1]).unblocked = make(chan struct{})
	case "unblock":
		m.conn(op[1]).unblock()
	case "slow":
		m.conn(op[1]).slow = true
	case "wait":
		time.Sleep(time.Duration(number(1)) * time.Millisecond)
	case "keys":
		return reflect.ValueOf(m.pool).Elem().FieldByName("entries").Len()
	case "close":
		_ = m.pool.Close()
	}
	return 0
}

// end leaves nothing running of a pool. It caches what is put after its close, so it is closed again and again: two conns
// that are put into a pool of capacity 1 make the third put crash.
func (m *model) end() {
	if m.pool == nil {
		return
	}
	_ = m.pool.Close()
	for _, stream := range m.streams {
		_ = stream.Close()
		<-stream.Context().Done()
		_ = m.pool.Close()
	}
}

func (m *model) conn(name string) *modelConn {
	conn := m.conns[name]
	if conn == nil {
		conn = &modelConn{name: name, closed: make(chan struct{}), unblocked: make(chan struct{}), log: m.log}
		close(conn.unblocked)
		m.conns[name] = conn
	}
	return conn
}

type usedKey struct{}

// modelConn does what the input says, and notes what the pool does to it.
type modelConn struct {
	name      string
	closed    chan struct{}
	unblocked chan struct{}
	dead      bool
	slow      bool
	log       *closeLog
}

func (c *modelConn) number() int {
	n, _ := strconv.Atoi(c.name)
	return n
}

func (c *modelConn) die() {
	if !c.dead {
		c.dead = true
		close(c.closed)
	}
	c.unblock()
}

func (c *modelConn) unblock() {
	select {
	case <-c.unblocked:
	default:
		close(c.unblocked)
	}
}

func (c *modelConn) Close() error {
	if c.slow {
		time.Sleep(10 * time.Millisecond)
	}
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	if !c.dead {
		c.log.closed = append(c.log.closed, c.number())
	}
	c.die()
	return nil
}

func (c *modelConn) Closed() <-chan struct{} { return c.closed }

func (c *modelConn) Unblocked() <-chan struct{} { return c.unblocked }

func (c *modelConn) Invoke(context.Context, string, drpc.Encoding, drpc.Message, drpc.Message) error {
	return nil
}

func (c *modelConn) NewStream(ctx context.Context, _ string, _ drpc.Encoding) (drpc.Stream, error) {
	if used, ok := ctx.Value(usedKey{}).(*int); ok {
		*used = c.number()
	}
	ctx, cancel := context.WithCancel(ctx)
	return &noopStream{ctx, cancel}, nil
}
