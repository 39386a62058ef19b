package bully

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/election"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
	"github.com/stretchr/testify/require"
)

func TestNodeTellsWhomItFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transport.NewNetwork(transport.NetworkConfig{})
		journals, transports := map[coterie.NodeID]*host.MemoryJournal{}, map[coterie.NodeID]coterie.Transport{}
		begin := func(id coterie.NodeID) *Node {
			if journals[id] == nil {
				journals[id], transports[id] = &host.MemoryJournal{}, network.Join(id)
			}
			n, err := Start(Config{ID: id, Peers: ids(3), Transport: transports[id], Journal: journals[id]})
			require.NoError(t, err)
			return n
		}
		a, b, c := begin("n00"), begin("n01"), begin("n02")
		defer a.Close()
		defer b.Close()
		settle := func(want coterie.NodeID) (epoch uint64) {
			time.Sleep(10 * time.Second)
			synctest.Wait()
			leader, epoch := a.Leader()
			require.Equal(t, want, leader)
			return epoch
		}
		first := settle("n02")
		var seen, stopped []election.Elected
		cancel := a.Watch(func(e election.Elected) { seen = append(seen, e) })
		a.Watch(func(e election.Elected) { stopped = append(stopped, e) })()
		require.NoError(t, c.Close())
		second := settle("n01")
		c = begin("n02")
		defer c.Close()
		third := settle("n02")
		require.NoError(t, a.Elect(t.Context()))
		cancel()
		require.Equal(t, election.Elected{Leader: "n02", Epoch: first}, seen[0])
		require.Equal(t, election.Elected{Epoch: first}, seen[1])
		require.Equal(t, election.Elected{Leader: "n02", Epoch: third}, seen[len(seen)-1])
		require.True(t, first < second && second < third)
		require.Len(t, stopped, 1)
		require.NoError(t, a.Err())
		require.NoError(t, a.Close())
		require.NoError(t, a.Close())
		require.ErrorIs(t, a.Elect(t.Context()), coterie.ErrClosed)
	})
}

func TestStartNamesTheField(t *testing.T) {
	network := transport.NewNetwork(transport.NetworkConfig{})
	cfg := Config{ID: "n00", Peers: ids(3)}
	_, err := Start(cfg)
	require.ErrorContains(t, err, "Transport is required")
	cfg.Transport = network.Join("n01")
	_, err = Start(cfg)
	require.ErrorContains(t, err, "that of")
	cfg.Transport = network.Join("n00")
	_, err = Start(cfg)
	require.ErrorContains(t, err, "Journal")
}
