package rpc

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func mustServer(t testing.TB, cfg ServerConfig) *Server {
	t.Helper()
	s, err := NewServer(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func mustClient(t testing.TB, cfg ClientConfig) *Client {
	t.Helper()
	c, err := NewClient(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// mustListen serves on the loopback.
func mustListen(t testing.TB, s *Server) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = s.Serve(l) }()
	return l.Addr().String()
}

func echo(_ context.Context, req []byte) ([]byte, error) { return req, nil }

func TestEchoOverTCP(t *testing.T) {
	s := mustServer(t, ServerConfig{})
	Handle(s, "echo", echo)
	c := mustClient(t, ClientConfig{Addr: mustListen(t, s)})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for range 100 {
		got, err := Call[[]byte, []byte](ctx, c, "echo", []byte("hello"))
		require.NoError(t, err)
		require.Equal(t, "hello", string(got))
	}
}
