package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"storj.io/drpc"
	"storj.io/drpc/drpcerr"
	"storj.io/drpc/drpcmanager"
	"storj.io/drpc/drpcmetadata"
	"storj.io/drpc/drpcmigrate"
	"storj.io/drpc/drpcserver"
	"storj.io/drpc/drpcstream"
	"storj.io/drpc/drpcwire"
)

func managerOptions() drpcmanager.Options {
	return drpcmanager.Options{
		SoftCancel: true,
		Reader:     drpcwire.ReaderOptions{MaximumBufferSize: 16 << 20},
		Stream:     drpcstream.Options{MaximumBufferSize: 16 << 20},
	}
}

// serve listens on three ports until its standard input ends, as it does when the test that started it is gone.
func serve(cert, key, ca string) error {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return err
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(pem)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	server := drpcserver.NewWithOptions(&handler{}, drpcserver.Options{Manager: managerOptions()})

	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	shared, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := drpcmigrate.NewListenMux(shared, len(drpcmigrate.DRPCHeader))
	secure, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    clients,
	})
	if err != nil {
		return err
	}
	go func() { _ = mux.Run(ctx) }()
	go func() { _ = server.Serve(ctx, plain) }()
	go func() { _ = server.Serve(ctx, mux.Route(drpcmigrate.DRPCHeader)) }()
	go func() { _ = server.Serve(ctx, secure) }()
	fmt.Printf("plain %s\nheader %s\ntls %s\n", plain.Addr(), shared.Addr(), secure.Addr())

	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

type handler struct{ cancelled atomic.Int64 }

func (h *handler) HandleRPC(stream drpc.Stream, rpc string) error {
	send := func(data []byte) error { return stream.MsgSend(&message{data}, encoding{}) }
	recv := func() ([]byte, error) {
		var msg message
		err := stream.MsgRecv(&msg, encoding{})
		return msg.data, err
	}

	first := []byte(nil)
	if !strings.HasSuffix(rpc, "Stream") {
		var err error
		if first, err = recv(); err != nil {
			return err
		}
	}
	switch rpc {
	case "/test.Peer/Echo":
		return send(first)

	case "/test.Peer/Metadata":
		metadata, _ := drpcmetadata.Get(stream.Context())
		data, err := json.Marshal(metadata)
		if err != nil {
			return err
		}
		return send(data)

	case "/test.Peer/Fail": // request: CODE MESSAGE
		digits, text, _ := strings.Cut(string(first), " ")
		code, err := strconv.ParseUint(digits, 10, 64)
		if err != nil {
			return err
		}
		return drpcerr.WithCode(errors.New(text), code)

	case "/test.Peer/Count": // request: how many responses
		n, err := strconv.Atoi(string(first))
		if err != nil {
			return err
		}
		for i := 0; i < n; i++ {
			if err := send([]byte(strconv.Itoa(i))); err != nil {
				return err
			}
		}
		return nil

	case "/test.Peer/CollectStream":
		var all []byte
		for {
			data, err := recv()
			if errors.Is(err, io.EOF) {
				return send(all)
			} else if err != nil {
				return err
			}
			all = append(all, data...)
		}

	case "/test.Peer/ChatStream":
		for {
			data, err := recv()
			if errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := send(data); err != nil {
				return err
			}
		}

	case "/test.Peer/Hang": // answers once, then waits until it is cancelled
		defer h.cancelled.Add(1)
		if err := send([]byte("hanging")); err != nil {
			return err // the cancel can come before this has returned
		}
		<-stream.Context().Done()
		return stream.Context().Err()

	case "/test.Peer/Cancelled":
		return send([]byte(strconv.FormatInt(h.cancelled.Load(), 10)))

	default:
		return drpcerr.WithCode(fmt.Errorf("unknown rpc: %q", rpc), drpcerr.Unimplemented)
	}
}
