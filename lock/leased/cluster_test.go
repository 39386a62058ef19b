package leased

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/consensus/kv"
	"github.com/coterie-go/coterie/consensus/raft"
	"github.com/coterie-go/coterie/replication/wal"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

// cluster is replicas of a store on the in-memory network, within a bubble of synctest.
type cluster struct {
	t        testing.TB
	network  *transport.Network
	ids      []coterie.NodeID
	journals map[coterie.NodeID]*host.MemoryJournal
	folders  map[coterie.NodeID]coterie.Snapshots

	mu     sync.Mutex // guards what follows
	nodes  map[coterie.NodeID]*raft.Node
	stores map[coterie.NodeID]*kv.Store
	joined map[coterie.NodeID]coterie.Transport
}

// bubble runs f with a cluster of n nodes within a bubble.
func bubble(t *testing.T, n int, f func(t *testing.T, c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{
			t: t, network: transport.NewNetwork(transport.NetworkConfig{}), journals: map[coterie.NodeID]*host.MemoryJournal{},
			folders: map[coterie.NodeID]coterie.Snapshots{}, nodes: map[coterie.NodeID]*raft.Node{}, stores: map[coterie.NodeID]*kv.Store{},
			joined: map[coterie.NodeID]coterie.Transport{},
		}
		for i := range n {
			id := coterie.NodeID(rune('a' + i))
			folder, err := wal.OpenSnapshots(t.TempDir())
			require.NoError(t, err)
			c.ids, c.journals[id], c.folders[id] = append(c.ids, id), &host.MemoryJournal{}, folder
		}
		for _, id := range c.ids {
			c.start(id)
		}
		defer func() {
			for _, id := range c.ids {
				c.stop(id)
			}
		}()
		f(t, c)
	})
}

func (c *cluster) start(id coterie.NodeID) {
	c.t.Helper()
	store, err := kv.New(kv.Config{})
	require.NoError(c.t, err)
	voters := map[coterie.NodeID]string{}
	for _, id := range c.ids {
		voters[id] = ""
	}
	joined := c.network.Join(id)
	node, err := raft.Start(raft.Config{
		ID: id, Voters: voters, StateMachine: store, Transport: joined, Journal: c.journals[id], Snapshots: c.folders[id],
		ElectionTimeout: 300 * time.Millisecond, Driver: consensus.Config{SnapshotEntries: 20},
	})
	require.NoError(c.t, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[id], c.stores[id], c.joined[id] = node, store, joined
}

// stop ends a node; its disk stays.
func (c *cluster) stop(id coterie.NodeID) {
	c.mu.Lock()
	node := c.nodes[id]
	delete(c.nodes, id)
	c.mu.Unlock()
	if node != nil {
		require.NoError(c.t, node.Close())
		require.NoError(c.t, c.joined[id].Close())
	}
}

// leader waits for one.
func (c *cluster) leader() coterie.NodeID {
	for {
		if node, _ := c.leading(); node != nil {
			return node.Status().ID
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (c *cluster) leading() (*raft.Node, *kv.Store) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var best *raft.Node
	for _, n := range c.nodes {
		if s := n.Status(); s.Leader == s.ID && (best == nil || s.Term > best.Status().Term) {
			best = n
		}
	}
	if best == nil {
		return nil, nil
	}
	return best, c.stores[best.Status().ID]
}

// follower is what consensus.Dial is over a network: a replica that asks whoever leads, and that can be cut off.
type follower struct {
	c    *cluster
	cut  atomic.Bool
	asks atomic.Int64 // proposals

	mu    sync.Mutex
	delay func() // of the answer to the next proposal
}

// tryTimeout is how long a try waits for a replica.
const tryTimeout = 2 * time.Second

func (f *follower) silence(ctx context.Context) error {
	select {
	case <-time.After(tryTimeout):
		return coterie.ErrUnknownOutcome
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", coterie.ErrUnknownOutcome, ctx.Err())
	}
}

func (f *follower) reach(ctx context.Context) (consensus.Replica, error) {
	if f.cut.Load() {
		return nil, f.silence(ctx)
	}
	node, store := f.c.leading()
	if node == nil {
		return nil, &coterie.NotLeaderError{}
	}
	return kv.Watchable(node, store), nil
}

func (f *follower) answer(ctx context.Context, b []byte, err error) ([]byte, error) {
	f.mu.Lock()
	delay := f.delay
	f.delay = nil
	f.mu.Unlock()
	if delay != nil {
		delay()
	}
	if f.cut.Load() {
		return nil, f.silence(ctx)
	}
	return b, open(err)
}

func (f *follower) Propose(ctx context.Context, command []byte) ([]byte, error) {
	r, err := f.reach(ctx)
	if err != nil {
		return nil, err
	}
	f.asks.Add(1)
	b, err := r.Propose(ctx, command)
	return f.answer(ctx, b, err)
}

func (f *follower) ProposeAs(ctx context.Context, tag consensus.Tag, command []byte) ([]byte, error) {
	r, err := f.reach(ctx)
	if err != nil {
		return nil, err
	}
	f.asks.Add(1)
	b, err := r.ProposeAs(ctx, tag, command)
	return f.answer(ctx, b, err)
}

func (f *follower) Read(ctx context.Context, query []byte) ([]byte, error) {
	r, err := f.reach(ctx)
	if err != nil {
		return nil, err
	}
	b, err := r.Read(ctx, query)
	return b, open(err)
}

// open is the error of a node that is not there any more: another one will be.
func open(err error) error {
	switch {
	case errors.Is(err, coterie.ErrClosed) && errors.Is(err, coterie.ErrUnknownOutcome):
		return coterie.ErrUnknownOutcome
	case errors.Is(err, coterie.ErrClosed):
		return &coterie.NotLeaderError{}
	}
	return err
}

func (f *follower) OpenSession(ctx context.Context) (uint64, error) {
	r, err := f.reach(ctx)
	if err != nil {
		return 0, err
	}
	id, err := r.OpenSession(ctx)
	return id, open(err)
}

func (f *follower) EndSession(ctx context.Context, id uint64) error {
	r, err := f.reach(ctx)
	if err != nil {
		return err
	}
	return open(r.EndSession(ctx, id))
}

func (f *follower) Status() coterie.Status { return coterie.Status{} }
func (f *follower) Close() error           { return nil }

// client makes a Client, which is closed at the end of the test, and what it reaches the cluster by.
func (c *cluster) client(cfg Config) (*Client, *follower) {
	c.t.Helper()
	f := &follower{c: c}
	cfg.Replica = f
	client, err := New(cfg)
	require.NoError(c.t, err)
	return client, f
}
