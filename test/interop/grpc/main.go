// A gRPC server that retires its connections by age, and one that allows ten streams on each. Both tell what they have
// seen: which calls ran how often, and how many streams ran on one connection at once.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

func main() {
	log.SetFlags(0)
	serve("aging", grpc.KeepaliveParams(keepalive.ServerParameters{
		MaxConnectionAge:      time.Second,
		MaxConnectionAgeGrace: 2 * time.Second,
	}))
	serve("cutting", grpc.KeepaliveParams(keepalive.ServerParameters{
		MaxConnectionAge:      time.Second,
		MaxConnectionAgeGrace: 50 * time.Millisecond,
	}))
	serve("narrow", grpc.MaxConcurrentStreams(10))
	// The server ends with the process that started it, whatever becomes of that.
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func serve(name string, option grpc.ServerOption) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	seen := newSeen()
	server := grpc.NewServer(option, grpc.ForceServerCodecV2(raw{}), grpc.StatsHandler(seen))
	server.RegisterService(&service, seen)
	go func() { log.Fatal(server.Serve(listener)) }()
	fmt.Println(name, listener.Addr())
}
