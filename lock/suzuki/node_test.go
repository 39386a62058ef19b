package suzuki_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/lock/suzuki"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// Callers on three nodes count up without any other guard.
func TestNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := transport.NewNetwork(transport.NetworkConfig{})
		peers := []coterie.NodeID{"a", "b", "c"}
		var nodes []*suzuki.Node
		for _, id := range peers {
			port := net.Join(id)
			defer port.Close()
			n, err := suzuki.Start(suzuki.Config{ID: id, Peers: peers, Transport: port, Journal: &host.MemoryJournal{}})
			require.NoError(t, err)
			defer n.Close()
			nodes = append(nodes, n)
		}
		count, last := 0, uint64(0)
		var group errgroup.Group
		for _, n := range nodes {
			for range 3 {
				group.Go(func() error {
					for range 10 {
						l, err := n.Acquire(t.Context(), "x", lock.Options{})
						if err != nil {
							return err
						}
						if l.Token() <= last {
							return errors.New("tokens do not rise")
						}
						last = l.Token()
						count++
						time.Sleep(time.Millisecond)
						if err := l.Release(t.Context()); err != nil {
							return err
						}
					}
					return nil
				})
			}
		}
		require.NoError(t, group.Wait())
		require.Equal(t, 90, count)

		l, err := nodes[0].Acquire(t.Context(), "x", lock.Options{})
		require.NoError(t, err)
		_, err = nodes[1].TryAcquire(t.Context(), "x", lock.Options{})
		require.ErrorIs(t, err, lock.ErrBusy)
		_, err = nodes[0].Acquire(t.Context(), "x", lock.Options{Mode: lock.Shared})
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.NoError(t, l.Release(context.Background()))
	})
}
