package swim_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/membership"
	"github.com/coterie-go/coterie/membership/swim"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/tcp"
	"github.com/coterie-go/coterie/transport/udp"
	"github.com/stretchr/testify/require"
)

// startReal starts a member over UDP and TCP on loopback.
func startReal(t *testing.T, id coterie.NodeID, seeds map[coterie.NodeID]string, shape func(*swim.Config)) (*swim.Node, *udp.Transport) {
	t.Helper()
	var network *udp.Transport
	for attempt := 0; network == nil; attempt++ {
		stream, err := tcp.Start(tcp.Config{ID: id, Listen: "127.0.0.1:0", AcceptUnknown: true})
		require.NoError(t, err)
		network, err = udp.Start(udp.Config{
			ID: id, Listen: stream.Addr().String(), Peers: seeds, Stream: stream, StreamIdle: time.Second,
		})
		if err != nil {
			require.NoError(t, stream.Close())
			require.Less(t, attempt, 20, err)
		}
	}
	cfg := swim.Config{ID: id, Transport: network}
	for seed := range seeds {
		cfg.Seeds = append(cfg.Seeds, seed)
	}
	if shape != nil {
		shape(&cfg)
	}
	node, err := swim.Start(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, node.Close())
		require.NoError(t, network.Close())
	})
	return node, network
}

// eventually polls until a condition holds, on a machine that has other things to do.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(60 * time.Second); !condition(); <-tick.C {
		require.True(t, time.Now().Before(end), what)
	}
}

func alive(n *swim.Node) (count int) {
	for _, m := range n.Members() {
		if m.State == membership.Alive && m.Err == nil {
			count++
		}
	}
	return count
}

// Real sockets: members find each other by one seed, with metadata that is small and large; goroutines are few; one
// that closes without a goodbye is found out, one that leaves is not taken for failed.
func TestOverUDPAndTCP(t *testing.T) {
	const n = 6
	before := runtime.NumGoroutine()
	key := []byte("0123456789abcdef")
	nodes := make([]*swim.Node, n)
	seeds := map[coterie.NodeID]string{}
	for i := range nodes {
		id := coterie.NodeID(fmt.Sprint("m", i))
		var network *udp.Transport
		nodes[i], network = startReal(t, id, seeds, func(c *swim.Config) {
			c.Keys = [][]byte{key}
			c.ProbeInterval = 100 * time.Millisecond
			c.SuspicionMult = 10
			if c.Meta = []byte("small"); i == 1 {
				c.Meta = make([]byte, 50_000)
			}
		})
		if i == 0 {
			seeds = map[coterie.NodeID]string{id: network.Addr().String()}
		}
	}
	for _, node := range nodes {
		eventually(t, "not all see all", func() bool { return alive(node) == n })
	}
	m, ok := nodes[5].Member("m1")
	require.True(t, ok)
	require.Len(t, m.Meta, 50_000)
	eventually(t, "more than 4 goroutines each", func() bool { return runtime.NumGoroutine()-before <= 4*n })

	require.NoError(t, nodes[4].Leave(t.Context()))
	require.NoError(t, nodes[4].Leave(t.Context()))
	require.NoError(t, nodes[4].Close())
	require.NoError(t, nodes[3].Close())
	for _, node := range nodes[:3] {
		eventually(t, "the end of m3 is not noticed", func() bool {
			left, _ := node.Member("m4")
			gone, _ := node.Member("m3")
			return left.State == membership.Left && gone.State == membership.Unreachable
		})
	}
	require.ErrorIs(t, nodes[3].Broadcast(t.Context(), nil), coterie.ErrClosed)
	require.ErrorIs(t, nodes[3].Join(t.Context(), "m0"), coterie.ErrClosed)
}

// In a bubble a node's whole life takes no time.
func TestNodesInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transport.NewNetwork(transport.NetworkConfig{})
		nodes := map[coterie.NodeID]*swim.Node{}
		for _, id := range []coterie.NodeID{"a", "b", "c", "d", "e"} {
			node, err := swim.Start(swim.Config{ID: id, Transport: network.Join(id), Meta: []byte(`{"zone":1}`)})
			require.NoError(t, err)
			nodes[id] = node
			defer node.Close()
			if id != "a" {
				require.NoError(t, node.Join(t.Context(), "a"))
			}
		}
		time.Sleep(5 * time.Second)
		for id, node := range nodes {
			require.Equal(t, 5, alive(node), id)
		}

		// A watcher hears of everyone, then of changes.
		var mu sync.Mutex
		said := map[coterie.NodeID]coterie.Liveness{}
		cancel := nodes["a"].Watch(func(id coterie.NodeID, l coterie.Liveness) {
			mu.Lock()
			defer mu.Unlock()
			said[id] = l
		})
		require.Len(t, said, 5)

		// Typed metadata and events, ended by break.
		type meta struct{ Zone int }
		group := membership.As(nodes["a"], membership.JSON[meta]())
		require.Equal(t, 1, group.Members()[3].Meta.Zone)
		require.NoError(t, membership.As(nodes["d"], membership.JSON[meta]()).Update(t.Context(), meta{Zone: 2}))
		for e := range group.Events() {
			if e.Member.ID == "d" && e.Member.Meta.Zone == 2 {
				break
			}
		}

		heard := make(chan swim.Message, 10)
		nodes["c"].Receive(func(m swim.Message) { heard <- m })
		require.NoError(t, nodes["b"].Broadcast(t.Context(), []byte("hello")))
		require.Equal(t, swim.Message{From: "b", Payload: []byte("hello")}, <-heard)
		nodes["c"].Receive(nil)

		kept := nodes["a"].Members()
		require.NoError(t, nodes["e"].Close())
		time.Sleep(time.Minute)
		require.Equal(t, membership.Alive, kept[4].State, "a snapshot does not change")
		mu.Lock()
		require.Equal(t, coterie.Dead, said["e"])
		mu.Unlock()
		cancel()
		require.NoError(t, nodes["a"].Remove(t.Context(), "e"))
		m, _ := nodes["a"].Member("e")
		require.Equal(t, membership.Dead, m.State)
		require.NoError(t, nodes["a"].SetKeys(t.Context()))
		require.Error(t, nodes["a"].SetKeys(t.Context(), []byte("short")))
		require.Positive(t, nodes["a"].Metrics().Probes)

		done := make(chan struct{})
		go func() {
			defer close(done)
			for range nodes["a"].Events() {
			}
		}()
		synctest.Wait()
		require.NoError(t, nodes["a"].Close())
		<-done
		require.NoError(t, nodes["a"].Err())
		<-nodes["a"].Done()

		ctx, cancelJoin := context.WithTimeout(t.Context(), time.Second)
		defer cancelJoin()
		require.ErrorIs(t, nodes["b"].Join(ctx, "nobody"), context.DeadlineExceeded)
	})
}

func TestStartChecksTheTransport(t *testing.T) {
	network := transport.NewNetwork(transport.NetworkConfig{})
	_, err := swim.Start(swim.Config{ID: "a", Transport: network.Join("b")})
	require.ErrorContains(t, err, "Config.ID")
	everywhere, err := udp.Start(udp.Config{ID: "a", Listen: "0.0.0.0:0"})
	require.NoError(t, err)
	defer everywhere.Close()
	_, err = swim.Start(swim.Config{ID: "a", Transport: everywhere})
	require.ErrorContains(t, err, "Config.Address")
}
