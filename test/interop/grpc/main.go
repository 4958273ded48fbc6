// gRPC servers: two that retire their connections by age, one that allows ten streams on each, and one that does nothing
// of the kind. All but that one tell what they have seen: which calls ran how often, and how many streams ran on one
// connection at once.
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
	serve("plain", newSeen())
	serveWatched("aging", grpc.KeepaliveParams(keepalive.ServerParameters{
		MaxConnectionAge:      time.Second,
		MaxConnectionAgeGrace: 2 * time.Second,
	}))
	serveWatched("cutting", grpc.KeepaliveParams(keepalive.ServerParameters{
		MaxConnectionAge:      time.Second,
		MaxConnectionAgeGrace: 50 * time.Millisecond,
	}))
	serveWatched("narrow", grpc.MaxConcurrentStreams(10))
	// The server ends with the process that started it, whatever becomes of that.
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func serveWatched(name string, option grpc.ServerOption) {
	seen := newSeen()
	serve(name, seen, option, grpc.StatsHandler(seen))
}

func serve(name string, seen *seen, options ...grpc.ServerOption) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(append(options, grpc.ForceServerCodecV2(raw{}))...)
	server.RegisterService(&service, seen)
	go func() { log.Fatal(server.Serve(listener)) }()
	fmt.Println(name, listener.Addr())
}
