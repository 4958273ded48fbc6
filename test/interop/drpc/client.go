package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"storj.io/drpc"
	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcerr"
	"storj.io/drpc/drpcmetadata"
)

func dial(addr string) (*drpcconn.Conn, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return drpcconn.NewWithOptions(conn, drpcconn.Options{Manager: managerOptions()}), nil
}

func echo(ctx context.Context, conn drpc.Conn, rpc string, in []byte) ([]byte, error) {
	var out message
	err := conn.Invoke(ctx, "/test.Peer/"+rpc, encoding{}, &message{in}, &out)
	return out.data, err
}

// call runs each check on the same conn: none may spoil it for the next.
func call(addr string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := dial(addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()

	checks := []struct {
		name string
		run  func(context.Context, *drpcconn.Conn) error
	}{
		{"unary", checkUnary},
		{"metadata", checkMetadata},
		{"error codes", checkErrors},
		{"server stream", checkCount},
		{"client stream", checkCollect},
		{"bidirectional stream", checkChat},
		{"10 MiB both ways", checkBig},
		{"cancel, then call at once", checkCancel},
	}
	for _, check := range checks {
		if err := check.run(ctx, conn); err != nil {
			return fmt.Errorf("%s: %w", check.name, err)
		}
		fmt.Println("ok", check.name)
	}
	return nil
}

func expect(got []byte, err error, want string) error {
	if err != nil {
		return err
	}
	if string(got) != want {
		return fmt.Errorf("got %q, want %q", got, want)
	}
	return nil
}

func checkUnary(ctx context.Context, conn *drpcconn.Conn) error {
	for i := 0; i < 100; i++ {
		got, err := echo(ctx, conn, "Echo", []byte(strconv.Itoa(i)))
		if err := expect(got, err, strconv.Itoa(i)); err != nil {
			return err
		}
	}
	return nil
}

func checkMetadata(ctx context.Context, conn *drpcconn.Conn) error {
	got, err := echo(drpcmetadata.Add(ctx, "who", "gö"), conn, "Metadata", nil)
	return expect(got, err, `{"who":"gö"}`)
}

func checkErrors(ctx context.Context, conn *drpcconn.Conn) error {
	for _, code := range []uint64{0, 5, 1<<64 - 1} {
		_, err := echo(ctx, conn, "Fail", []byte(fmt.Sprintf("%d went wrong", code)))
		if err == nil || err.Error() != "went wrong" || drpcerr.Code(err) != code {
			return fmt.Errorf("code %d: got %v with code %d", code, err, drpcerr.Code(err))
		}
	}
	_, err := echo(ctx, conn, "Nothing", nil)
	if drpcerr.Code(err) != drpcerr.Unimplemented {
		return fmt.Errorf("unknown rpc: got %v with code %d", err, drpcerr.Code(err))
	}
	return nil
}

func checkCount(ctx context.Context, conn *drpcconn.Conn) error {
	stream, err := conn.NewStream(ctx, "/test.Peer/Count", encoding{})
	if err != nil {
		return err
	}
	if err := stream.MsgSend(&message{[]byte("1000")}, encoding{}); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for i := 0; ; i++ {
		var msg message
		err := stream.MsgRecv(&msg, encoding{})
		if errors.Is(err, io.EOF) && i == 1000 {
			return stream.Close()
		}
		if err := expect(msg.data, err, strconv.Itoa(i)); err != nil {
			return err
		}
	}
}

func checkCollect(ctx context.Context, conn *drpcconn.Conn) error {
	stream, err := conn.NewStream(ctx, "/test.Peer/CollectStream", encoding{})
	if err != nil {
		return err
	}
	for i := 0; i < 10; i++ {
		if err := stream.MsgSend(&message{[]byte(strconv.Itoa(i))}, encoding{}); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	var msg message
	err = stream.MsgRecv(&msg, encoding{})
	if err := expect(msg.data, err, "0123456789"); err != nil {
		return err
	}
	return stream.Close()
}

func checkChat(ctx context.Context, conn *drpcconn.Conn) error {
	stream, err := conn.NewStream(ctx, "/test.Peer/ChatStream", encoding{})
	if err != nil {
		return err
	}
	for i := 0; i < 100; i++ {
		if err := stream.MsgSend(&message{[]byte(strconv.Itoa(i))}, encoding{}); err != nil {
			return err
		}
		var msg message
		err := stream.MsgRecv(&msg, encoding{})
		if err := expect(msg.data, err, strconv.Itoa(i)); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if err := stream.MsgRecv(&message{}, encoding{}); !errors.Is(err, io.EOF) {
		return fmt.Errorf("got %v, want EOF", err)
	}
	return stream.Close()
}

func checkBig(ctx context.Context, conn *drpcconn.Conn) error {
	big := bytes.Repeat([]byte("0123456789abcdef"), 10<<20/16)
	got, err := echo(ctx, conn, "Echo", big)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, big) {
		return fmt.Errorf("%d bytes came back, and not the same", len(got))
	}
	return nil
}

func checkCancel(ctx context.Context, conn *drpcconn.Conn) error {
	for i := 0; i < 20; i++ {
		if err := cancelOne(ctx, conn); err != nil {
			return err
		}
		got, err := echo(ctx, conn, "Echo", []byte("next"))
		if err := expect(got, err, "next"); err != nil {
			return err
		}
	}
	got, err := echo(ctx, conn, "Cancelled", nil)
	return expect(got, err, "20")
}

func cancelOne(ctx context.Context, conn *drpcconn.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, "/test.Peer/Hang", encoding{})
	if err != nil {
		return err
	}
	if err := stream.MsgSend(&message{}, encoding{}); err != nil {
		return err
	}
	var msg message
	err = stream.MsgRecv(&msg, encoding{})
	if err := expect(msg.data, err, "hanging"); err != nil {
		return err
	}
	cancel()
	<-stream.Context().Done()
	return nil
}
