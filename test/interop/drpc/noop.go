package main

import (
	"context"

	"storj.io/drpc"
)

// noopConn does nothing, so that what is measured is the pool.
type noopConn struct{ closed chan struct{} }

// free is closed: no noopConn is ever blocked.
var free = func() chan struct{} {
	free := make(chan struct{})
	close(free)
	return free
}()

func newNoopConn() *noopConn { return &noopConn{closed: make(chan struct{})} }

func (c *noopConn) Close() error { close(c.closed); return nil }

func (c *noopConn) Closed() <-chan struct{} { return c.closed }

func (c *noopConn) Unblocked() <-chan struct{} { return free }

func (c *noopConn) Invoke(context.Context, string, drpc.Encoding, drpc.Message, drpc.Message) error {
	return nil
}

func (c *noopConn) NewStream(ctx context.Context, _ string, _ drpc.Encoding) (drpc.Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	return &noopStream{ctx, cancel}, nil
}

type noopStream struct {
	ctx    context.Context
	cancel context.CancelFunc
}

func (s *noopStream) Context() context.Context { return s.ctx }

func (s *noopStream) MsgSend(drpc.Message, drpc.Encoding) error { return nil }

func (s *noopStream) MsgRecv(drpc.Message, drpc.Encoding) error { return nil }

func (s *noopStream) CloseSend() error { return nil }

func (s *noopStream) Close() error { s.cancel(); return nil }
