package ricart_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/lock/ricart"
	"github.com/coterie-go/coterie/transport"
)

var abc = []coterie.NodeID{"a", "b", "c"}

// memory is a Journal that outlives the node which uses it.
type memory struct{ records [][]byte }

func (m *memory) Replay(f func([]byte) error) error {
	for _, record := range m.records {
		if err := f(record); err != nil {
			return err
		}
	}
	return nil
}
func (m *memory) Append(records ...[]byte) error {
	m.records = append(m.records, records...)
	return nil
}
func (m *memory) Keep(n int) error { m.records = m.records[len(m.records)-n:]; return nil }
func (m *memory) Close() error     { return nil }

type cluster struct {
	t        *testing.T
	network  *transport.Network
	journals map[coterie.NodeID]*memory
	nodes    map[coterie.NodeID]*ricart.Node
	links    map[coterie.NodeID]coterie.Transport
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{
		t: t, network: transport.NewNetwork(transport.NetworkConfig{}), journals: map[coterie.NodeID]*memory{},
		nodes: map[coterie.NodeID]*ricart.Node{}, links: map[coterie.NodeID]coterie.Transport{},
	}
	for _, id := range abc {
		c.journals[id] = &memory{}
		c.start(id)
	}
	return c
}

func (c *cluster) start(id coterie.NodeID) {
	c.t.Helper()
	c.links[id] = c.network.Join(id)
	node, err := ricart.Start(ricart.Config{ID: id, Peers: abc, Transport: c.links[id], Journal: c.journals[id]})
	require.NoError(c.t, err)
	c.nodes[id] = node
}

func (c *cluster) stop(id coterie.NodeID) {
	c.t.Helper()
	require.NoError(c.t, c.nodes[id].Close())
	require.NoError(c.t, c.nodes[id].Close()) // twice is harmless
	require.NoError(c.t, c.links[id].Close())
}

func (c *cluster) close() {
	c.t.Helper()
	for _, id := range abc {
		c.stop(id)
	}
}

// Workers on all nodes, several on each, count without losing one.
func TestWorkersExcludeEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		fence, err := lock.NewFence(lock.FenceConfig{})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		const workers, rounds = 6, 10
		count, inside := 0, 0
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for range rounds {
					err := lock.Do(ctx, c.nodes[abc[w%3]], "count", lock.Options{}, func(_ context.Context, token uint64) error {
						if inside++; inside != 1 {
							return errors.New("not alone")
						}
						read := count
						time.Sleep(time.Millisecond)
						count = read + 1
						inside--
						return fence.Check("count", token)
					})
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		require.Equal(t, workers*rounds, count)
	})
}

func TestBusyGivenUpAndClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		held, err := c.nodes["a"].Acquire(ctx, "x", lock.Options{})
		require.NoError(t, err)
		_, err = c.nodes["b"].TryAcquire(ctx, "x", lock.Options{})
		require.ErrorIs(t, err, lock.ErrBusy)
		short, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		_, err = c.nodes["b"].Acquire(short, "x", lock.Options{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = c.nodes["b"].Acquire(ctx, "x", lock.Options{Mode: lock.Shared})
		require.ErrorIs(t, err, errors.ErrUnsupported)
		other, err := c.nodes["b"].TryAcquire(ctx, "y", lock.Options{}) // names do not touch each other
		require.NoError(t, err)
		require.NoError(t, other.Release(ctx))
		require.NoError(t, held.Release(ctx))
		next, err := c.nodes["c"].TryAcquire(ctx, "x", lock.Options{})
		require.NoError(t, err)
		require.Greater(t, next.Token(), held.Token())
		c.stop("c")
		<-next.Lost()
		_, err = c.nodes["c"].Acquire(ctx, "x", lock.Options{})
		require.ErrorIs(t, err, coterie.ErrClosed)
	})
}

// A holder that went down and came back is overtaken, and what it still writes is refused.
func TestHolderThatCrashedIsFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		fence, err := lock.NewFence(lock.FenceConfig{})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		first, err := c.nodes["a"].Acquire(ctx, "x", lock.Options{})
		require.NoError(t, err)
		require.NoError(t, fence.Check("x", first.Token()))
		c.stop("a")
		short, stop := context.WithTimeout(ctx, 10*time.Second)
		defer stop()
		_, err = c.nodes["b"].Acquire(short, "x", lock.Options{})
		require.ErrorIs(t, err, context.DeadlineExceeded) // blocked, for as long as a is down
		granted := make(chan *lock.Lease)
		go func() {
			lease, err := c.nodes["b"].Acquire(ctx, "x", lock.Options{})
			if err != nil {
				t.Error(err)
			}
			granted <- lease
		}()
		synctest.Wait()
		c.start("a")
		second := <-granted
		require.NotNil(t, second)
		require.NoError(t, fence.Check("x", second.Token()))
		require.ErrorIs(t, fence.Check("x", first.Token()), lock.ErrStale)
		require.NoError(t, second.Release(ctx))
		third, err := c.nodes["a"].Acquire(ctx, "x", lock.Options{})
		require.NoError(t, err)
		require.NoError(t, fence.Check("x", third.Token()))
	})
}

func TestConfigErrorsNameTheField(t *testing.T) {
	link := transport.NewNetwork(transport.NetworkConfig{}).Join("a")
	defer link.Close()
	for want, change := range map[string]func(*ricart.Config){
		"Config.ID is required":        func(c *ricart.Config) { c.ID = "" },
		"Config.Peers lacks":           func(c *ricart.Config) { c.Peers = abc[1:] },
		"Config.Peers names":           func(c *ricart.Config) { c.Peers = []coterie.NodeID{"a", "b", "a"} },
		"Config.Peers has an empty":    func(c *ricart.Config) { c.Peers = []coterie.NodeID{"a", ""} },
		"Config.Peers has 1026 nodes":  func(c *ricart.Config) { c.Peers = append(make([]coterie.NodeID, 1025), "a") },
		"Config.Resend -1ns":           func(c *ricart.Config) { c.Resend = -1 },
		"Config.Resend 1000h0m0.0":     func(c *ricart.Config) { c.Resend = 1000*time.Hour + 1 },
		"Config.MaxNames -1":           func(c *ricart.Config) { c.MaxNames = -1 },
		"Config.TryWait -1ns":          func(c *ricart.Config) { c.TryWait = -1 },
		"Config.Transport is required": func(c *ricart.Config) { c.Transport = nil },
		"Config.Transport is of":       func(c *ricart.Config) { c.ID = "b" },
		"Config.Journal is required":   func(c *ricart.Config) { c.Journal = nil },
		"malformed":                    func(c *ricart.Config) { c.Journal = &memory{records: [][]byte{{1, 9}}} },
	} {
		cfg := ricart.Config{ID: "a", Peers: abc, Transport: link, Journal: &memory{}}
		change(&cfg)
		_, err := ricart.Start(cfg)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "ricart: ")
	}
}
