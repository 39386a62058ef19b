package transport_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
	"github.com/stretchr/testify/require"
)

// both runs a test on a network that queues and on one that calls handlers directly.
func both(t *testing.T, f func(t *testing.T, net *transport.Network)) {
	t.Helper()
	for _, direct := range []bool{false, true} {
		t.Run(fmt.Sprintf("direct=%v", direct), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, transport.NewNetwork(transport.NetworkConfig{Direct: direct})) })
		})
	}
}

func TestNetworkDeliversInOrder(t *testing.T) {
	both(t, func(t *testing.T, net *transport.Network) {
		a, b := net.Join("a"), net.Join("b")
		defer a.Close()
		defer b.Close()
		var got []string
		b.Receive(func(from coterie.NodeID, payload []byte) { got = append(got, string(from)+string(payload)) })
		for i := range 100 {
			require.NoError(t, a.Send("b", []byte(fmt.Sprint(i))))
		}
		synctest.Wait()
		require.Len(t, got, 100)
		for i := range got {
			require.Equal(t, fmt.Sprint("a", i), got[i])
		}
	})
}

// Handlers that answer each other must not recurse without end, nor keep Send from returning, nor wait for each other.
func TestNetworkHandlersMaySend(t *testing.T) {
	both(t, func(t *testing.T, net *transport.Network) {
		const rounds = 100_000
		a, b := net.Join("a"), net.Join("b")
		defer a.Close()
		defer b.Close()
		n := 0 // one ball is in the game, so that nothing else guards it
		bounce := func(self coterie.Transport) func(coterie.NodeID, []byte) {
			return func(from coterie.NodeID, payload []byte) {
				if n++; n < rounds {
					_ = self.Send(from, payload)
				}
			}
		}
		a.Receive(bounce(a))
		b.Receive(bounce(b))
		require.NoError(t, a.Send("b", []byte("ball")))
		synctest.Wait()
		require.Equal(t, rounds, n)
	})
}

func TestNetworkToItself(t *testing.T) {
	both(t, func(t *testing.T, net *transport.Network) {
		a := net.Join("a")
		defer a.Close()
		n := 0
		a.Receive(func(_ coterie.NodeID, payload []byte) {
			if n++; n < 1000 {
				_ = a.Send("a", payload)
			}
		})
		require.NoError(t, a.Send("a", nil))
		synctest.Wait()
		require.Equal(t, 1000, n)
	})
}

func TestNetworkCutAndHeal(t *testing.T) {
	both(t, func(t *testing.T, net *transport.Network) {
		a, b, c := net.Join("a"), net.Join("b"), net.Join("c")
		defer a.Close()
		defer b.Close()
		defer c.Close()
		var mu sync.Mutex
		var got []string
		for _, node := range []coterie.Transport{a, b, c} {
			node.Receive(func(from coterie.NodeID, _ []byte) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, string(from+">"+node.LocalID()))
			})
		}
		sendAll := func() []string {
			got = nil
			for _, from := range []coterie.Transport{a, b, c} {
				for _, to := range []coterie.NodeID{"a", "b", "c"} {
					if to != from.LocalID() {
						require.NoError(t, from.Send(to, nil))
					}
				}
			}
			synctest.Wait()
			return got
		}
		net.Cut("a", "b")
		require.ElementsMatch(t, []string{"a>c", "b>c", "c>a", "c>b"}, sendAll())
		require.Equal(t, transport.NetworkMetrics{Sent: 6, Delivered: 4, Lost: 2}, net.Metrics())
		net.Heal("a", "b")
		require.Len(t, sendAll(), 6)
	})
}

func TestNetworkMayBeLeftAndJoinedAgain(t *testing.T) {
	both(t, func(t *testing.T, net *transport.Network) {
		a, b := net.Join("a"), net.Join("b")
		defer a.Close()
		n := 0
		count := func(coterie.NodeID, []byte) { n++ }
		b.Receive(count)
		require.NoError(t, a.Send("b", nil))
		synctest.Wait()
		require.NoError(t, b.Close())
		require.NoError(t, a.Send("b", nil), "a node that left is known, and may come back")
		b = net.Join("b")
		defer b.Close()
		b.Receive(count)
		require.NoError(t, a.Send("b", nil))
		synctest.Wait()
		require.Equal(t, 2, n)
		require.ErrorIs(t, a.Send("stranger", nil), transport.ErrUnknownPeer)
		require.Panics(t, func() { net.Join("b") })
		require.Panics(t, func() { net.Join("") })
	})
}

// A receiver that does not keep up costs its queue, and not without bound; nobody else waits for it.
func TestNetworkDropsWhenAQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := transport.NewNetwork(transport.NetworkConfig{QueueBytes: 1000})
		a, b, c := net.Join("a"), net.Join("b"), net.Join("c")
		defer a.Close()
		defer b.Close()
		defer c.Close()
		release, n := make(chan struct{}), 0
		b.Receive(func(from coterie.NodeID, _ []byte) {
			if from == "a" {
				<-release // what no handler should do
			}
			n++
		})
		require.NoError(t, a.Send("b", nil))
		synctest.Wait()
		for range 100 {
			require.NoError(t, a.Send("b", make([]byte, 36))) // counted as 100
		}
		require.Equal(t, uint64(90), net.Metrics().Dropped)
		require.NoError(t, c.Send("b", nil))
		synctest.Wait()
		require.Equal(t, 1, n, "c does not wait for a")
		close(release)
		synctest.Wait()
		require.Equal(t, 12, n)
	})
}
