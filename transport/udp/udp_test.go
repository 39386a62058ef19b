package udp_test

import (
	"maps"
	"net"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/tcp"
	"github.com/coterie-go/coterie/transport/transporttest"
	"github.com/coterie-go/coterie/transport/udp"
	"github.com/stretchr/testify/require"
)

// start opens a node's socket, and a stream of the same port number if it is to have one.
func start(t *testing.T, stream bool, cfg udp.Config) *udp.Transport {
	t.Helper()
	for attempt := 0; ; attempt++ {
		cfg.Listen = "127.0.0.1:0"
		if stream {
			s, err := tcp.Start(tcp.Config{ID: cfg.ID, Listen: cfg.Listen, MaxPayload: 1 << 20, AcceptUnknown: true})
			require.NoError(t, err)
			cfg.Stream, cfg.Listen = s, s.Addr().String()
		}
		node, err := udp.Start(cfg)
		if err == nil {
			return node
		}
		if cfg.Stream != nil {
			require.NoError(t, cfg.Stream.Close())
		}
		require.Less(t, attempt, 20, "no port that is free for both: %v", err)
	}
}

func conformance(stream bool, limit int, idle time.Duration) transporttest.Factory {
	return func(t *testing.T, ids ...coterie.NodeID) *transporttest.Cluster {
		addresses := make(map[coterie.NodeID]string)
		nodes := make([]*udp.Transport, len(ids))
		begin := func(i int) {
			nodes[i] = start(t, stream, udp.Config{ID: ids[i], Peers: maps.Clone(addresses), StreamIdle: idle})
			addresses[ids[i]] = nodes[i].Addr().String()
			for _, node := range nodes {
				for id, address := range addresses {
					if node != nil {
						_ = node.SetPeer(id, address)
					}
				}
			}
		}
		c := &transporttest.Cluster{MaxPayload: limit}
		for i := range ids {
			begin(i)
			c.Nodes = append(c.Nodes, nodes[i])
		}
		c.Move = func(_ *testing.T, index int) coterie.Transport {
			begin(index)
			return nodes[index]
		}
		c.Garbage = func(t *testing.T, index int, data []byte) {
			conn, err := net.Dial("udp", nodes[index].Addr().String())
			require.NoError(t, err)
			defer conn.Close()
			_, _ = conn.Write(data)
		}
		return c
	}
}

func TestConforms(t *testing.T) { transporttest.Run(t, conformance(false, 1400, 0)) }

func TestConformsWithStream(t *testing.T) { transporttest.Run(t, conformance(true, 1<<20, 0)) }

// Streams that close while they are used make payloads be lost, nothing worse.
func TestConformsWithIdleStreams(t *testing.T) {
	transporttest.Run(t, conformance(true, 1<<20, 20*time.Millisecond))
}

// eventually polls until a condition holds, on a machine that has other things to do.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !condition(); <-tick.C {
		require.True(t, time.Now().Before(end), what)
	}
}

func TestConfigNamesTheField(t *testing.T) {
	stream := transport.NewNetwork(transport.NetworkConfig{})
	other := stream.Join("other")
	good := udp.Config{ID: "a", Listen: "127.0.0.1:0"}
	for field, change := range map[string]func(c *udp.Config){
		"ID is required":  func(c *udp.Config) { c.ID = "" },
		"ID is longer":    func(c *udp.Config) { c.ID = coterie.NodeID(make([]byte, 2000)) },
		"Listen":          func(c *udp.Config) { c.Listen = "" },
		"Config.Listen: ": func(c *udp.Config) { c.Listen = "nonsense" },
		"MaxDatagram":     func(c *udp.Config) { c.MaxDatagram = 70_000 },
		"ReadBuffer":      func(c *udp.Config) { c.ReadBuffer = -1 },
		"StreamIdle is":   func(c *udp.Config) { c.StreamIdle = -1 },
		"Peers":           func(c *udp.Config) { c.Peers = map[coterie.NodeID]string{"b": "no port"} },
		"empty node id":   func(c *udp.Config) { c.Peers = map[coterie.NodeID]string{"": "host:1"} },
		"Stream is that":  func(c *udp.Config) { c.Stream = other },
		"Conn":            func(c *udp.Config) { c.Conn = struct{ net.PacketConn }{} },
	} {
		cfg := good
		change(&cfg)
		_, err := udp.Start(cfg)
		require.ErrorContains(t, err, field)
	}
	node, err := udp.Start(good)
	require.NoError(t, err)
	require.ErrorContains(t, node.SetPeer("", "host:1"), "empty")
	require.ErrorContains(t, node.SetPeer("b", "host"), "port")
	require.NoError(t, node.Close())
	require.ErrorIs(t, node.SetPeer("b", "host:1"), coterie.ErrClosed)
}

// A host name is resolved aside; what is sent meanwhile is lost, and counted.
func TestHostNames(t *testing.T) {
	a, b := start(t, false, udp.Config{ID: "a"}), start(t, false, udp.Config{ID: "b"})
	defer a.Close()
	defer b.Close()
	_, port, err := net.SplitHostPort(b.Addr().String())
	require.NoError(t, err)
	require.NoError(t, a.SetPeer("b", net.JoinHostPort("localhost", port)))
	arrived := make(chan struct{}, 1)
	b.Receive(func(coterie.NodeID, []byte) {
		select {
		case arrived <- struct{}{}:
		default:
		}
	})
	eventually(t, "nothing arrives at a host given by name", func() bool {
		require.NoError(t, a.Send("b", []byte("hello")))
		return len(arrived) > 0
	})
	require.Positive(t, a.Metrics().Unresolved)
}

// A datagram for the node that had the address before is not for this one.
func TestMisdirected(t *testing.T) {
	a, b := start(t, false, udp.Config{ID: "a"}), start(t, false, udp.Config{ID: "b"})
	defer a.Close()
	defer b.Close()
	b.Receive(func(_ coterie.NodeID, payload []byte) { t.Errorf("got %q", payload) })
	require.NoError(t, a.SetPeer("c", b.Addr().String()))
	eventually(t, "b gets nothing", func() bool {
		require.NoError(t, a.Send("c", []byte("for c")))
		return b.Metrics().Misdirected > 0
	})
}

func TestRefuseUnknown(t *testing.T) {
	a, b := start(t, false, udp.Config{ID: "a"}), start(t, false, udp.Config{ID: "b", RefuseUnknown: true})
	defer a.Close()
	defer b.Close()
	b.Receive(func(_ coterie.NodeID, payload []byte) { t.Errorf("got %q", payload) })
	require.NoError(t, a.SetPeer("b", b.Addr().String()))
	eventually(t, "b gets nothing", func() bool {
		require.NoError(t, a.Send("b", []byte("who are you?")))
		return b.Metrics().Strangers > 0
	})
}

// Large payloads open a stream, which closes when it is idle and opens again when it is needed.
func TestIdleStreamCloses(t *testing.T) {
	a := start(t, true, udp.Config{ID: "a", StreamIdle: 50 * time.Millisecond})
	b := start(t, true, udp.Config{ID: "b", StreamIdle: 50 * time.Millisecond})
	defer a.Close()
	defer b.Close()
	require.NoError(t, a.SetPeer("b", b.Addr().String()))
	got := make(chan int, 100)
	b.Receive(func(_ coterie.NodeID, payload []byte) { got <- len(payload) })
	for round := uint64(1); round <= 3; round++ {
		require.NoError(t, a.Send("b", make([]byte, 10_000)))
		select {
		case n := <-got:
			require.Equal(t, 10_000, n)
		case <-time.After(30 * time.Second):
			t.Fatal("a large payload does not arrive")
		}
		eventually(t, "the stream stays open", func() bool { return a.Metrics().IdleStreams >= round })
	}
	require.Zero(t, a.Metrics().Sent)
}

// A datagram costs the sender no allocation.
func TestSendAllocatesNothing(t *testing.T) {
	if testsize.Race() {
		t.Skip("the race detector empties pools at random")
	}
	a, b := start(t, false, udp.Config{ID: "a"}), start(t, false, udp.Config{ID: "b"})
	defer a.Close()
	require.NoError(t, a.SetPeer("b", b.Addr().String()))
	require.NoError(t, b.Close()) // else what it allocates on arrival would count
	payload := make([]byte, 1000)
	allocs := testing.AllocsPerRun(1000, func() { _ = a.Send("b", payload) })
	require.Less(t, allocs, 1.0)
}
