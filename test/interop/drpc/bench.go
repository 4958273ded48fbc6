package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"storj.io/drpc/drpcconn"
)

// bench opens conns, then makes unary calls on all of them for each line of its input: so many milliseconds. It prints
// calls per second each time, and ends when the input ends.
func bench(addr, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	conns := make([]*drpcconn.Conn, n)
	for i := range conns {
		if conns[i], err = dial(addr); err != nil {
			return err
		}
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		ms, err := strconv.Atoi(lines.Text())
		if err != nil {
			return err
		}
		rate, err := callsPerSecond(conns, time.Duration(ms)*time.Millisecond)
		if err != nil {
			return err
		}
		fmt.Printf("%.0f\n", rate)
	}
	return lines.Err()
}

func callsPerSecond(conns []*drpcconn.Conn, length time.Duration) (float64, error) {
	in := bytes.Repeat([]byte("x"), 64)
	counts := make([]int, len(conns))
	errs := make([]error, len(conns))
	var wg sync.WaitGroup
	start := time.Now()
	for i, conn := range conns {
		wg.Add(1)
		go func(i int, conn *drpcconn.Conn) {
			defer wg.Done()
			calls := 0
			for errs[i] == nil && time.Since(start) < length {
				_, errs[i] = echo(context.Background(), conn, "Echo", in)
				calls++
			}
			counts[i] = calls
		}(i, conn)
	}
	wg.Wait()
	took := time.Since(start)
	calls := 0
	for i, count := range counts {
		if errs[i] != nil {
			return 0, errs[i]
		}
		calls += count
	}
	return float64(calls) / took.Seconds(), nil
}
