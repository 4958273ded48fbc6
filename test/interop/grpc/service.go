package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
)

// ask is what a call of Unary wants: its answer after a while. Calls with the same id are the same call.
type ask struct {
	ID      string `json:"id"`
	DelayMs int    `json:"delayMs"`
}

var service = grpc.ServiceDesc{
	ServiceName: "test.Interop",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		{MethodName: "Unary", Handler: unary},
		{MethodName: "Report", Handler: report},
		{MethodName: "Echo", Handler: echo},
	},
	Streams: []grpc.StreamDesc{
		{StreamName: "Chat", Handler: chat, ServerStreams: true, ClientStreams: true},
		{StreamName: "Flood", Handler: flood, ServerStreams: true},
	},
}

func unary(server any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var bytes []byte
	if err := decode(&bytes); err != nil {
		return nil, err
	}
	var asked ask
	if err := json.Unmarshal(bytes, &asked); err != nil {
		return nil, err
	}
	server.(*seen).ran(asked.ID)
	time.Sleep(time.Duration(asked.DelayMs) * time.Millisecond)
	return bytes, ctx.Err()
}

// chat answers each message with itself. The first names the call.
func chat(server any, stream grpc.ServerStream) error {
	for first := true; ; first = false {
		var bytes []byte
		if err := stream.RecvMsg(&bytes); err != nil {
			if err.Error() == "EOF" {
				return nil
			}
			return err
		}
		var asked ask
		if err := json.Unmarshal(bytes, &asked); err != nil {
			return err
		}
		if first {
			server.(*seen).ran(asked.ID)
		}
		if err := stream.SendMsg(bytes); err != nil {
			return err
		}
	}
}

func report(server any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var bytes []byte
	if err := decode(&bytes); err != nil {
		return nil, err
	}
	return server.(*seen).report()
}

// echo answers with what it got, and remembers nothing.
func echo(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var bytes []byte
	err := decode(&bytes)
	return bytes, err
}

// flood answers with as many messages of a size as the request says, in two numbers of four bytes.
func flood(_ any, stream grpc.ServerStream) error {
	var asked []byte
	if err := stream.RecvMsg(&asked); err != nil {
		return err
	}
	if len(asked) != 8 {
		return fmt.Errorf("expected 8 bytes, got %d", len(asked))
	}
	message := make([]byte, binary.LittleEndian.Uint32(asked[4:]))
	for count := binary.LittleEndian.Uint32(asked); count > 0; count-- {
		if err := stream.SendMsg(message); err != nil {
			return err
		}
	}
	return nil
}

// raw passes messages on as they are: both sides here write JSON.
type raw struct{}

func (raw) Name() string { return "raw" }

func (raw) Marshal(message any) (mem.BufferSlice, error) {
	bytes, ok := message.([]byte)
	if !ok {
		return nil, fmt.Errorf("expected bytes, got %T", message)
	}
	return mem.BufferSlice{mem.SliceBuffer(bytes)}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, message any) error {
	bytes, ok := message.(*[]byte)
	if !ok {
		return fmt.Errorf("expected a slice of bytes, got %T", message)
	}
	*bytes = data.Materialize()
	return nil
}
