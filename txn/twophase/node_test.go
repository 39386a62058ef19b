package twophase_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/replication/wal"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
	"github.com/coterie-go/coterie/txn"
	"github.com/coterie-go/coterie/txn/twophase"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// slowJournal takes a millisecond for each sync, and counts them.
type slowJournal struct {
	host.MemoryJournal
	syncs atomic.Int64
	fail  atomic.Bool
}

func (j *slowJournal) Append(records ...[]byte) error {
	j.syncs.Add(1)
	time.Sleep(time.Millisecond)
	if j.fail.Load() {
		return errors.New("disk gone")
	}
	return j.MemoryJournal.Append(records...)
}

// cluster is nodes over an in-memory network, each with a bank.
type cluster struct {
	t        *testing.T
	net      *transport.Network
	ids      []coterie.NodeID
	nodes    map[coterie.NodeID]*twophase.Node
	ports    map[coterie.NodeID]coterie.Transport
	journals map[coterie.NodeID]*slowJournal
	banks    map[coterie.NodeID]*bank
	resource func(coterie.NodeID, *bank) txn.Participant // nil is the bank itself
}

func newCluster(t *testing.T, n int, resource func(coterie.NodeID, *bank) txn.Participant) *cluster {
	t.Helper()
	c := &cluster{t: t, net: transport.NewNetwork(transport.NetworkConfig{}), resource: resource,
		nodes: map[coterie.NodeID]*twophase.Node{}, ports: map[coterie.NodeID]coterie.Transport{},
		journals: map[coterie.NodeID]*slowJournal{}, banks: map[coterie.NodeID]*bank{}}
	for i := range n {
		id := coterie.NodeID(rune('a' + i))
		c.ids = append(c.ids, id)
		c.journals[id] = &slowJournal{}
		c.banks[id] = newBank(map[string]int{"x": 100, "y": 100})
		c.start(id)
	}
	time.Sleep(100 * time.Millisecond) // until each has noted its start
	return c
}

func (c *cluster) start(id coterie.NodeID) {
	c.t.Helper()
	c.ports[id] = c.net.Join(id)
	var r txn.Participant = c.banks[id]
	if c.resource != nil {
		r = c.resource(id, c.banks[id])
	}
	n, err := twophase.Start(twophase.Config{ID: id, Transport: c.ports[id], Journal: c.journals[id], Resource: r})
	require.NoError(c.t, err)
	c.nodes[id] = n
}

// crash stops a node, and takes from its bank what was not prepared.
func (c *cluster) crash(id coterie.NodeID) {
	_ = c.nodes[id].Close()
	_ = c.ports[id].Close()
	c.banks[id].crash()
}

func (c *cluster) close() {
	for _, id := range c.ids {
		_ = c.nodes[id].Close()
		_ = c.ports[id].Close()
	}
}

// transfer moves an amount from a's account x to that of another node.
func (c *cluster) transfer(ctx context.Context, by, to coterie.NodeID, amount int) error {
	return c.nodes[by].Run(ctx, []coterie.NodeID{"a", to}, func(_ context.Context, id txn.ID) error {
		return errors.Join(c.banks["a"].Add(id, "x", -amount), c.banks[to].Add(id, "x", amount))
	})
}

func inBubble(t *testing.T, n int, resource func(coterie.NodeID, *bank) txn.Participant, f func(t *testing.T, c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, n, resource)
		defer c.close()
		f(t, c)
	})
}

func TestRun(t *testing.T) {
	inBubble(t, 3, nil, func(t *testing.T, c *cluster) {
		ctx := t.Context()
		require.NoError(t, c.transfer(ctx, "c", "b", 30))
		require.NoError(t, c.nodes["c"].Settle(ctx))
		require.Equal(t, []int{170, 230, 200}, []int{c.banks["a"].total(), c.banks["b"].total(), c.banks["c"].total()})

		err := c.transfer(ctx, "b", "c", 1000) // b coordinates and takes no part
		var aborted *twophase.AbortedError
		require.ErrorAs(t, err, &aborted)
		require.ErrorIs(t, err, txn.ErrAborted)
		require.Equal(t, coterie.NodeID("a"), aborted.By)
		require.Contains(t, err.Error(), "overdrawn")

		seen := 0
		time.Sleep(100 * time.Millisecond) // until all have heard of the abort
		require.NoError(t, c.nodes["a"].Run(ctx, c.ids, func(_ context.Context, id txn.ID) error {
			for _, b := range c.banks {
				sum, err := b.Sum(id)
				if err != nil {
					return err
				}
				seen += sum
			}
			return nil
		}))
		require.Equal(t, 600, seen)
		for _, b := range c.banks {
			synctest.Wait()
			require.Zero(t, b.held())
		}
		require.Equal(t, uint64(1), c.nodes["c"].Metrics().Committed)
		require.Equal(t, uint64(1), c.nodes["b"].Metrics().Aborted)
	})
}

func TestRunAbortsWhenTheWorkFails(t *testing.T) {
	inBubble(t, 2, nil, func(t *testing.T, c *cluster) {
		failed := errors.New("no such customer")
		err := c.nodes["a"].Run(t.Context(), c.ids, func(_ context.Context, id txn.ID) error {
			return errors.Join(c.banks["b"].Add(id, "x", 1), failed)
		})
		require.ErrorIs(t, err, failed)
		require.ErrorIs(t, err, txn.ErrAborted)
		require.Panics(t, func() {
			_ = c.nodes["a"].Run(t.Context(), c.ids, func(_ context.Context, id txn.ID) error {
				_ = c.banks["b"].Add(id, "y", 1)
				panic("a bug of the user's")
			})
		})
		ctx, cancel := context.WithCancel(t.Context())
		err = c.nodes["a"].Run(ctx, c.ids, func(_ context.Context, id txn.ID) error {
			cancel()
			return c.banks["a"].Add(id, "x", 1)
		})
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, txn.ErrAborted)
		time.Sleep(time.Second)
		require.Zero(t, c.banks["a"].held()+c.banks["b"].held())
		s, err := c.nodes["a"].Status(t.Context())
		require.NoError(t, err)
		require.Empty(t, s.Coordinating)
		require.Empty(t, s.Taking)
	})
}

func TestRunRefusesBadInput(t *testing.T) {
	inBubble(t, 1, nil, func(t *testing.T, c *cluster) {
		many := make([]coterie.NodeID, 20)
		for i := range many {
			many[i] = coterie.NodeID(fmt.Sprint(i % 19))
		}
		for _, members := range [][]coterie.NodeID{nil, {""}, {"a", "a"}, many} {
			require.Error(t, c.nodes["a"].Run(t.Context(), members, nil), "%q", members)
		}
		require.ErrorIs(t, c.nodes["a"].Enlist(t.Context(), "what?"), txn.ErrUnknown)
		require.NoError(t, c.nodes["a"].Close())
		require.ErrorIs(t, c.nodes["a"].Run(t.Context(), c.ids, nil), coterie.ErrClosed)
		_, err := c.nodes["a"].Status(t.Context())
		require.ErrorIs(t, err, coterie.ErrClosed)
	})
}

func TestStartRefusesBadConfig(t *testing.T) {
	net := transport.NewNetwork(transport.NetworkConfig{})
	port := net.Join("a")
	defer port.Close()
	good := twophase.Config{ID: "a", Transport: port, Journal: &host.MemoryJournal{}}
	for field, spoil := range map[string]func(*twophase.Config){
		"ID":             func(c *twophase.Config) { c.ID = "" },
		"ID ":            func(c *twophase.Config) { c.ID = "b" },
		"Transport":      func(c *twophase.Config) { c.Transport = nil },
		"Journal":        func(c *twophase.Config) { c.Journal = nil },
		"PrepareTimeout": func(c *twophase.Config) { c.PrepareTimeout = -1 },
		"Resend":         func(c *twophase.Config) { c.Resend = -1 },
		"InquireAfter":   func(c *twophase.Config) { c.InquireAfter = -1 },
		"MaxOpen":        func(c *twophase.Config) { c.MaxOpen = -1 },
	} {
		cfg := good
		spoil(&cfg)
		_, err := twophase.Start(cfg)
		require.ErrorContains(t, err, "Config."+field)
	}
}

func TestJournalOfAnotherNodeIsRefused(t *testing.T) {
	inBubble(t, 1, nil, func(t *testing.T, c *cluster) {
		require.NoError(t, c.nodes["a"].Run(t.Context(), c.ids, func(_ context.Context, id txn.ID) error {
			return c.banks["a"].Add(id, "x", 1)
		}))
		port := c.net.Join("b")
		defer port.Close()
		_, err := twophase.Start(twophase.Config{ID: "b", Transport: port, Journal: c.journals["a"]})
		require.ErrorContains(t, err, `that of "a"`)
	})
}

// A participant that never answers: the transaction aborts, Status tells of whom it waits for.
func TestSilentParticipant(t *testing.T) {
	inBubble(t, 3, nil, func(t *testing.T, c *cluster) {
		c.net.Cut("a", "c")
		result := make(chan error, 1)
		go func() { result <- c.transfer(t.Context(), "a", "c", 1) }()
		time.Sleep(time.Second)
		s, err := c.nodes["a"].Status(t.Context())
		require.NoError(t, err)
		require.Len(t, s.Coordinating, 1)
		require.Equal(t, twophase.Voting, s.Coordinating[0].Phase)
		require.Equal(t, []coterie.NodeID{"c"}, s.Coordinating[0].Waiting)
		require.Equal(t, 1, s.InDoubt, "a has voted yes")
		err = <-result
		require.ErrorIs(t, err, txn.ErrAborted)
		require.ErrorContains(t, err, "aborted by c: no vote within 5s")
		synctest.Wait()
		require.Zero(t, c.banks["a"].held())
	})
}

// gate is a bank that holds its Prepare back.
type gate struct {
	*bank
	open chan struct{}
}

func (g gate) Prepare(ctx context.Context, id txn.ID) (txn.Vote, error) {
	select {
	case <-g.open:
	case <-ctx.Done():
		return txn.No, ctx.Err()
	}
	return g.bank.Prepare(ctx, id)
}

// The coordinator goes away while b and c are in doubt. They ask each other in vain, and are freed when it is back.
func TestInDoubtUntilTheCoordinatorIsBack(t *testing.T) {
	inBubble(t, 3, nil, func(t *testing.T, c *cluster) {
		c.journals["a"].fail.Store(true) // the decision cannot be made durable
		err := c.nodes["a"].Run(t.Context(), []coterie.NodeID{"b", "c"}, func(_ context.Context, id txn.ID) error {
			return errors.Join(c.banks["b"].Add(id, "x", -1), c.banks["c"].Add(id, "x", 1))
		})
		require.ErrorIs(t, err, coterie.ErrUnknownOutcome)
		time.Sleep(time.Minute)
		s, err := c.nodes["b"].Status(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, s.InDoubt)
		require.NotZero(t, c.banks["b"].held())

		c.crash("a")
		c.journals["a"].fail.Store(false)
		c.start("a")
		time.Sleep(20 * time.Second)
		for _, id := range c.ids {
			s, err := c.nodes[id].Status(t.Context())
			require.NoError(t, err)
			require.Zero(t, len(s.Taking)+len(s.Coordinating), "%s: %+v", id, s)
			require.Zero(t, c.banks[id].held())
		}
		require.Equal(t, c.banks["b"].ends(), c.banks["c"].ends())
	})
}

// c learns the decision from b although the coordinator is gone.
func TestCooperativeTermination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		c := newCluster(t, 3, func(id coterie.NodeID, b *bank) txn.Participant {
			if id == "b" {
				return gate{b, open}
			}
			return b
		})
		defer c.close()
		result := make(chan error, 1)
		var id txn.ID
		go func() {
			result <- c.nodes["a"].Run(t.Context(), []coterie.NodeID{"b", "c"}, func(_ context.Context, its txn.ID) error {
				id = its
				return errors.Join(c.banks["b"].Add(id, "x", -1), c.banks["c"].Add(id, "x", 1))
			})
		}()
		time.Sleep(100 * time.Millisecond) // c has voted
		c.net.Cut("a", "c")
		close(open)
		require.NoError(t, <-result)
		time.Sleep(100 * time.Millisecond)
		c.crash("a")
		s, err := c.nodes["c"].Status(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, s.InDoubt)
		time.Sleep(10 * time.Second)
		require.True(t, c.banks["c"].ends()[id])
	})
}

// Work whose coordinator died before it spoke of an end is let go.
func TestEnlistedWorkOfADeadCoordinator(t *testing.T) {
	inBubble(t, 2, nil, func(t *testing.T, c *cluster) {
		begun := make(chan struct{})
		go func() {
			_ = c.nodes["a"].Run(t.Context(), []coterie.NodeID{"b"}, func(ctx context.Context, id txn.ID) error {
				defer close(begun)
				return errors.Join(c.nodes["b"].Enlist(ctx, id), c.banks["b"].Add(id, "x", 1), c.nodes["a"].Close())
			})
		}()
		<-begun
		time.Sleep(10 * time.Second)
		require.NotZero(t, c.banks["b"].held(), "nobody can tell yet")
		c.crash("a")
		c.start("a")
		time.Sleep(20 * time.Second)
		require.Zero(t, c.banks["b"].held())
	})
}

// reluctant is a bank whose first calls of Commit and Abort fail.
type reluctant struct {
	*bank
	left *atomic.Int64
}

func (r reluctant) Commit(ctx context.Context, id txn.ID) error {
	if r.left.Add(-1) >= 0 {
		return errors.New("not now")
	}
	return r.bank.Commit(ctx, id)
}

func TestCommitIsRetriedUntilTheResourceObeys(t *testing.T) {
	var left atomic.Int64
	left.Store(5)
	inBubble(t, 2, func(_ coterie.NodeID, b *bank) txn.Participant { return reluctant{b, &left} }, func(t *testing.T, c *cluster) {
		require.NoError(t, c.transfer(t.Context(), "a", "b", 1))
		require.NoError(t, c.nodes["a"].Settle(t.Context()))
		require.Equal(t, 201, c.banks["b"].total())
		require.Equal(t, uint64(5), c.nodes["a"].Metrics().Retries+c.nodes["b"].Metrics().Retries)
	})
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		c := newCluster(t, 2, func(_ coterie.NodeID, b *bank) txn.Participant { return gate{b, open} })
		defer c.close()
		result := make(chan error, 1)
		go func() { result <- c.transfer(t.Context(), "a", "b", 1) }()
		synctest.Wait()
		require.NoError(t, c.nodes["a"].Close())
		require.ErrorIs(t, <-result, coterie.ErrUnknownOutcome)
	})
}

// Transactions that run at the same time share syncs: the time that 512 take is that of a few.
func TestConcurrentTransactionsShareSyncs(t *testing.T) {
	const clients = 512
	elapsed := func(n int, together bool) (took time.Duration, syncs int64) {
		inBubble(t, 3, nil, func(t *testing.T, c *cluster) {
			for _, b := range c.banks {
				for k := range n {
					b.balances[fmt.Sprint(k)] = 1
				}
			}
			before := c.journals["c"].syncs.Load()
			begun := time.Now()
			var g errgroup.Group
			if !together {
				g.SetLimit(1)
			}
			for k := range n {
				g.Go(func() error {
					return c.nodes["c"].Run(t.Context(), []coterie.NodeID{"a", "b"}, func(_ context.Context, id txn.ID) error {
						return errors.Join(c.banks["a"].Add(id, fmt.Sprint(k), -1), c.banks["b"].Add(id, fmt.Sprint(k), 1))
					})
				})
			}
			require.NoError(t, g.Wait())
			took, syncs = time.Since(begun), c.journals["c"].syncs.Load()-before
		})
		return took, syncs
	}
	one, oneSyncs := elapsed(clients/8, false)
	all, allSyncs := elapsed(clients, true)
	require.Equal(t, int64(clients/8), oneSyncs, "one forced write each at the coordinator")
	t.Logf("alone %v each with a sync each; %d together %v with %d syncs", one/(clients/8), clients, all, allSyncs)
	require.Less(t, 10*all, 8*one, "512 at once are at least ten times as fast as one at a time")
}

// The real journal: what was promised and decided outlives the process's memory.
func TestOnDisk(t *testing.T) {
	dir := t.TempDir()
	banks := map[coterie.NodeID]*bank{"a": newBank(map[string]int{"x": 10}), "b": newBank(map[string]int{"x": 10})}
	for life := 1; life <= 3; life++ {
		log, err := wal.Open(wal.Config{Dir: dir})
		require.NoError(t, err)
		net := transport.NewNetwork(transport.NetworkConfig{})
		nodes := map[coterie.NodeID]*twophase.Node{}
		for id, b := range banks {
			b.crash()
			nodes[id], err = twophase.Start(twophase.Config{ID: id, Transport: net.Join(id), Journal: log.Stream(string(id)), Resource: b})
			require.NoError(t, err)
		}
		require.NoError(t, nodes["a"].Run(t.Context(), []coterie.NodeID{"a", "b"}, func(_ context.Context, id txn.ID) error {
			return errors.Join(banks["a"].Add(id, "x", -1), banks["b"].Add(id, "x", 1))
		}))
		require.NoError(t, nodes["a"].Settle(t.Context()))
		s, err := nodes["a"].Status(t.Context())
		require.NoError(t, err)
		require.Equal(t, uint64(life), s.Epoch)
		for _, n := range nodes {
			require.NoError(t, n.Close())
		}
		require.NoError(t, log.Close())
	}
	require.Equal(t, []int{7, 13}, []int{banks["a"].total(), banks["b"].total()})
}
