package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"time"

	"storj.io/drpc/drpcpool"
)

type connPool = drpcpool.Pool[string, *noopConn]

// pool prints a line of JSON for each workload: the nanoseconds of one operation of drpcpool, the median of the rounds.
func pool(rounds string) error {
	count, err := strconv.Atoi(rounds)
	if err != nil {
		return err
	}
	samples := map[string][]float64{}
	for round := 0; round < count; round++ {
		for _, work := range workloads {
			ns, err := work.measure()
			if err != nil {
				return fmt.Errorf("%s: %w", work.name, err)
			}
			samples[work.name] = append(samples[work.name], ns)
		}
	}
	out := json.NewEncoder(os.Stdout)
	for _, work := range workloads {
		if err := out.Encode(map[string]any{"name": work.name, "ns": median(samples[work.name])}); err != nil {
			return err
		}
	}
	return nil
}

// measure returns nanoseconds of processor time, the garbage collector's included, as the bench counts its own.
func (w workload) measure() (float64, error) {
	p := drpcpool.New[string, *noopConn](drpcpool.Options{Expiration: w.expiration})
	conns := make([]*noopConn, len(w.keys))
	for i := range conns {
		conns[i] = newNoopConn()
	}
	if w.full {
		for i, key := range w.keys {
			p.Put(key, conns[i])
		}
	}
	runtime.GC()
	start, err := processorTime()
	if err != nil {
		return 0, err
	}
	if err := w.run(w, p, conns); err != nil {
		return 0, err
	}
	end, err := processorTime()
	if err != nil {
		return 0, err
	}
	return float64(end-start) / float64(time.Nanosecond) / float64(w.turns*len(w.keys)), p.Close()
}

func median(samples []float64) float64 {
	sort.Float64s(samples)
	half := len(samples) / 2
	if len(samples)%2 == 1 {
		return samples[half]
	}
	return (samples[half-1] + samples[half]) / 2
}
