package maekawa_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/lock/maekawa"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

func TestNodeRestartsWithoutItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		network := transport.NewNetwork(transport.NetworkConfig{})
		peers := []coterie.NodeID{"a", "b", "c"}
		journals := map[coterie.NodeID]*host.MemoryJournal{"a": {}, "b": {}, "c": {}}
		start := func(id coterie.NodeID) (*maekawa.Node, coterie.Transport) {
			port := network.Join(id)
			n, err := maekawa.Start(maekawa.Config{ID: id, Peers: peers, Transport: port, Journal: journals[id]})
			require.NoError(t, err)
			return n, port
		}
		a, portA := start("a")
		b, portB := start("b")
		c, portC := start("c")
		first, err := a.Acquire(ctx, "n", lock.Options{})
		require.NoError(t, err)
		_, err = b.TryAcquire(ctx, "n", lock.Options{})
		require.ErrorIs(t, err, lock.ErrBusy)
		require.NoError(t, a.Close())
		require.NoError(t, portA.Close())
		<-first.Lost()
		short, cancel := context.WithTimeout(ctx, time.Second)
		_, err = c.Acquire(short, "n", lock.Options{})
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded, "a holder that is down blocks")
		a, portA = start("a")
		second, err := c.Acquire(ctx, "n", lock.Options{})
		require.NoError(t, err)
		require.Greater(t, second.Token(), first.Token())
		require.NoError(t, second.Release(ctx))
		for _, close := range []func() error{a.Close, b.Close, c.Close, portA.Close, portB.Close, portC.Close} {
			require.NoError(t, close())
		}
	})
}

func TestStartErrors(t *testing.T) {
	network := transport.NewNetwork(transport.NetworkConfig{})
	port := network.Join("a")
	defer port.Close()
	_, err := maekawa.Start(maekawa.Config{ID: "b", Peers: []coterie.NodeID{"b"}, Transport: port, Journal: &host.MemoryJournal{}})
	require.ErrorContains(t, err, "Config.Transport")
	_, err = maekawa.Start(maekawa.Config{ID: "a", Peers: []coterie.NodeID{"a"}, Transport: port})
	require.ErrorContains(t, err, "Config.Journal")
}
