//go:build !unix

package main

import "time"

var started = time.Now()

// processorTime is the time on the wall, where the system does not tell how much of it this process has used.
func processorTime() (time.Duration, error) { return time.Since(started), nil }
