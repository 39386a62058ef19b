package consensus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/rpc"
)

// serveRPC serves a replica on the loopback, by a listener that wrap may put around the real one.
func serveRPC(t *testing.T, r Replica, cfg rpc.ServerConfig, wrap func(net.Listener) net.Listener) (addr string, server *rpc.Server) {
	t.Helper()
	server, err := rpc.NewServer(cfg)
	require.NoError(t, err)
	Serve(server, r)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr = l.Addr().String()
	if wrap != nil {
		l = wrap(l)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return addr, server
}

func TestRPCClientFindsTheLeader(t *testing.T) {
	r := newRig(t, Config{})
	leader, _ := serveRPC(t, r, rpc.ServerConfig{}, nil)
	follower, asked := serveRPC(t, scripted{fmt.Errorf("wrapped: %w", &coterie.NotLeaderError{Leader: "c"})}, rpc.ServerConfig{}, nil)
	c := mustDial(t, ClientConfig{Addrs: map[coterie.NodeID]string{"a": closedPort(t)[len("http://"):], "b": follower, "c": leader}})
	result, err := c.Propose(t.Context(), []byte("3"))
	require.NoError(t, err)
	assert.Equal(t, "3", string(result))
	result, err = c.Read(t.Context(), nil)
	require.NoError(t, err)
	assert.Equal(t, "3", string(result))
	calls := uint64(0)
	for _, m := range asked.Metrics().Methods {
		calls += m.Calls
	}
	assert.Equal(t, uint64(2), calls, "Dial and the first call ask it; then the client stays with the leader")
	assert.Equal(t, coterie.NodeID("a"), c.Status().ID, "what the leader calls itself")
	_, err = c.Read(t.Context(), []byte("?"))
	assert.ErrorContains(t, err, `query "?"`)

	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	_, err = c.Propose(t.Context(), []byte("1"))
	assert.ErrorIs(t, err, coterie.ErrClosed)
	require.NoError(t, r.Do(t.Context(), func(time.Time, *solo) {}))
}

// lossyListener cuts a connection at every third write of the server's, so that its answers are lost.
type lossyListener struct {
	net.Listener
	writes *atomic.Int64
}

func (l lossyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return lossyConn{c, l.writes}, err
}

type lossyConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c lossyConn) Write(b []byte) (int, error) {
	if c.writes.Add(1)%3 == 0 {
		_ = c.Close()
		return 0, errors.New("cut")
	}
	return c.Conn.Write(b)
}

// Answers that are lost do not make commands apply twice (vesoft-inc/nebula#3109, cockroachdb/cockroach#111564).
func TestRPCClientIsExactlyOnceWhenAnswersAreLost(t *testing.T) {
	r := newRig(t, Config{})
	var writes atomic.Int64
	addr, server := serveRPC(t, r, rpc.ServerConfig{}, func(l net.Listener) net.Listener { return lossyListener{l, &writes} })
	c := mustDial(t, ClientConfig{Addrs: map[coterie.NodeID]string{"a": addr}})
	const callers, each = 8, 10
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				_, err := c.Propose(t.Context(), []byte("1"))
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	result, err := c.Read(t.Context(), nil)
	require.NoError(t, err)
	assert.Equal(t, strconv.Itoa(callers*each), string(result))
	assert.Greater(t, server.Metrics().Methods["consensus/propose"].Calls, uint64(callers*each))
}

func TestRPCClientLeavesAHangingReplica(t *testing.T) {
	r := newRig(t, Config{})
	leader, _ := serveRPC(t, r, rpc.ServerConfig{}, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0") // a process that is stopped: the kernel accepts, nobody answers
	require.NoError(t, err)
	defer l.Close()
	c := mustDial(t, ClientConfig{Addrs: map[coterie.NodeID]string{"a": l.Addr().String(), "b": leader}, TryTimeout: 100 * time.Millisecond})
	result, err := c.Propose(t.Context(), []byte("3"))
	require.NoError(t, err)
	assert.Equal(t, "3", string(result))
}

func TestRPCErrorsKeepTheirMeaning(t *testing.T) {
	for _, f := range faults {
		addr, _ := serveRPC(t, scripted{fmt.Errorf("wrapped: %w", f.err)}, rpc.ServerConfig{}, nil)
		c := mustDial(t, ClientConfig{Addrs: map[coterie.NodeID]string{"a": addr}})
		_, err := c.ProposeAs(t.Context(), Tag{1, 1, 1}, []byte("1"))
		if f.name == "closed" {
			assert.ErrorIs(t, err, errUnreachable, "a closed replica is one that another may stand in for")
			assert.NotErrorIs(t, err, coterie.ErrClosed)
			continue
		}
		assert.ErrorIs(t, err, f.err)
	}
}

func TestServeRefusesBadRequests(t *testing.T) {
	r := newRig(t, Config{})
	addr, _ := serveRPC(t, r, rpc.ServerConfig{}, nil)
	c, err := rpc.NewClient(rpc.ClientConfig{Addr: addr})
	require.NoError(t, err)
	defer c.Close()
	for _, each := range []struct {
		method string
		body   []byte
		want   error
	}{
		{"consensus/propose", nil, rpc.ErrBadRequest},
		{"consensus/propose", []byte{0, 0, 0, 0}, rpc.ErrBadRequest},
		{"consensus/propose", []byte{2, 0, 0, 0}, rpc.ErrBadRequest},
		{"consensus/propose", []byte{1, 1, 0, 0, '1'}, rpc.ErrBadRequest},
		{"consensus/propose", []byte{1, 1, 1, 2, '1'}, rpc.ErrBadRequest},
		{"consensus/propose", make([]byte, 5<<20), rpc.ErrTooLarge},
		{"consensus/end", []byte("x"), rpc.ErrBadRequest},
		{"consensus/nothing", nil, rpc.ErrUnknownMethod},
	} {
		_, err := rpc.Call[[]byte, []byte](t.Context(), c, each.method, each.body)
		assert.ErrorIs(t, err, each.want, "%s %.10x", each.method, each.body)
	}
	_, err = rpc.Call[[]byte, []byte](t.Context(), c, "consensus/propose", []byte{1, 0, 0, 0, '1'})
	require.NoError(t, err)
	assert.Equal(t, 2, r.mustPropose(t, 1), "a refused request changed the state")
}

func TestDialOverMutualTLS(t *testing.T) {
	ca, err := transport.NewThrowawayCA()
	require.NoError(t, err)
	identity := func(id coterie.NodeID) *transport.Identity {
		i, err := ca.Identity(id)
		require.NoError(t, err)
		return i
	}
	r := newRig(t, Config{})
	addr, _ := serveRPC(t, r, rpc.ServerConfig{ID: "a", Identity: identity("a")}, nil)
	addrs := map[coterie.NodeID]string{"a": addr}
	c := mustDial(t, ClientConfig{Addrs: addrs, ID: "client", Identity: identity("client")})
	result, err := c.Propose(t.Context(), []byte("3"))
	require.NoError(t, err)
	assert.Equal(t, "3", string(result))

	try := func(cfg ClientConfig) error {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := Dial(ctx, cfg)
		return err
	}
	require.ErrorIs(t, try(ClientConfig{Addrs: addrs}), errUnreachable, "without a certificate")
	err = try(ClientConfig{Addrs: map[coterie.NodeID]string{"b": addr}, ID: "client", Identity: identity("client")})
	require.ErrorIs(t, err, errUnreachable, "another node than was looked for")
	err = try(ClientConfig{Addrs: addrs, ID: "other", Identity: identity("client")})
	require.ErrorIs(t, err, transport.ErrIdentity)
}

func TestProposalFormat(t *testing.T) {
	require.Equal(t, []byte{1, 5, 3, 2, 'x'}, appendProposal(nil, Tag{Session: 5, Seq: 3, Low: 2}, []byte("x")))
}

func FuzzProposal(f *testing.F) {
	f.Add(appendProposal(nil, Tag{Session: 5, Seq: 3, Low: 2}, []byte("x")))
	f.Add([]byte{1, 0, 0, 0})
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, b []byte) {
		tag, command, err := decodeProposal(b)
		if err != nil {
			var format *coterie.FormatError
			require.True(t, errors.Is(err, wire.ErrMalformed) || errors.As(err, &format))
			return
		}
		again, same, err := decodeProposal(appendProposal(nil, tag, command))
		require.NoError(t, err)
		require.Equal(t, tag, again)
		require.Equal(t, string(command), string(same))
	})
}
