package kv

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
	"github.com/coterie-go/coterie/consensus/raft"
	"github.com/coterie-go/coterie/replication/wal"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

// bubble runs f within a bubble of synctest with a replica that leads itself.
func bubble(t *testing.T, f func(t *testing.T, node *raft.Node, s *Store)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{HistorySize: 100})
		require.NoError(t, err)
		folder, err := wal.OpenSnapshots(t.TempDir())
		require.NoError(t, err)
		joined := transport.NewNetwork(transport.NetworkConfig{}).Join("a")
		node, err := raft.Start(raft.Config{
			ID: "a", Voters: map[coterie.NodeID]string{"a": ""}, StateMachine: s, Transport: joined,
			Journal: &host.MemoryJournal{}, Snapshots: folder, ElectionTimeout: 200 * time.Millisecond,
		})
		require.NoError(t, err)
		f(t, node, s)
		require.NoError(t, node.Close())
		require.NoError(t, joined.Close())
	})
}

func newClient(t *testing.T, r coterie.Replica) *Client {
	t.Helper()
	c, err := NewClient(ClientConfig{Replica: r})
	require.NoError(t, err)
	return c
}

func TestConfigsNameTheField(t *testing.T) {
	_, err := NewClient(ClientConfig{})
	require.ErrorContains(t, err, "ClientConfig.Replica")
	for field, cfg := range map[string]Config{"MaxBytes": {MaxBytes: -1}, "HistorySize": {HistorySize: -1}, "HistoryBytes": {HistoryBytes: -1}} {
		_, err := New(cfg)
		require.ErrorContains(t, err, "Config."+field)
	}
	c := newClient(t, plain{})
	_, err = c.KeepAlive(t.Context(), LeaseConfig{TTL: -1})
	require.ErrorContains(t, err, "LeaseConfig.TTL")
	_, err = c.KeepAlive(t.Context(), LeaseConfig{TTL: time.Second, Drift: time.Second})
	require.ErrorContains(t, err, "LeaseConfig.Drift")
	_, err = c.Grant(t.Context(), 0)
	require.ErrorIs(t, err, ErrBadCommand)
}

func TestClient(t *testing.T) {
	bubble(t, func(t *testing.T, node *raft.Node, s *Store) {
		ctx := t.Context()
		c := newClient(t, Watchable(node, s))
		require.True(t, c.ExactlyOnce())
		_, err := c.Get(ctx, "a")
		require.ErrorIs(t, err, ErrNotFound)
		revision, err := c.Put(ctx, "a", []byte("1"))
		require.NoError(t, err)
		require.EqualValues(t, 1, revision)
		k, err := c.Get(ctx, "a")
		require.NoError(t, err)
		require.Equal(t, KV{Key: "a", Value: []byte("1"), Create: 1, Mod: 1, Version: 1}, k)
		res, err := c.Txn(ctx, Txn{If: []Compare{Unchanged("a", 2)}, Then: []Op{Put{Key: "a"}}, Else: []Op{Get{Span: Key("a")}}})
		require.NoError(t, err)
		require.Equal(t, TxnResult{Revision: 1, Results: []Result{{Count: 1, KVs: []KV{k}}}}, res)
		_, err = c.Put(ctx, "a", []byte("2"))
		require.NoError(t, err)
		n, err := c.Rollback(ctx, Prefix(""), 1)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		n, err = c.Delete(ctx, Prefix("a"))
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.NoError(t, c.Compact(ctx, 3))
		_, _, err = c.Range(ctx, Get{Revision: 2})
		require.ErrorIs(t, err, ErrCompacted)
		_, _, err = c.Range(ctx, Get{Span: Key(string(make([]byte, MaxKeyBytes)))})
		require.ErrorIs(t, err, ErrBadCommand)
		id, err := c.Grant(ctx, time.Minute)
		require.NoError(t, err)
		require.NoError(t, c.Renew(ctx, id))
		info, err := c.Lease(ctx, id)
		require.NoError(t, err)
		require.Equal(t, LeaseInfo{TTL: time.Minute, Left: time.Minute}, info)
		status, err := c.Status(ctx)
		require.NoError(t, err)
		require.Equal(t, Status{Revision: 4, Oldest: 3, Leases: 1}, status)
		require.NoError(t, c.Revoke(ctx, id))
		require.ErrorIs(t, c.Revoke(ctx, id), ErrNoLease)
		require.NoError(t, c.Close(ctx))
		require.NoError(t, c.Close(ctx))
	})
}

// More than fits into one answer is read as one state.
func TestAllReadsOneRevision(t *testing.T) {
	bubble(t, func(t *testing.T, node *raft.Node, _ *Store) {
		c := newClient(t, node)
		value := make([]byte, maxAnswer/3)
		for i := range 8 {
			_, err := c.Put(t.Context(), fmt.Sprint("k", i), value)
			require.NoError(t, err)
		}
		n := 0
		for k, err := range c.All(t.Context(), Prefix("k"), 0) {
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint("k", n), k.Key)
			n++
			_, err = c.Delete(t.Context(), Prefix("k")) // others write meanwhile
			require.NoError(t, err)
		}
		require.Equal(t, 8, n)
	})
}

// A watch yields all that changes, from wherever it begins, once and in order, by a replica that waits and by one that
// has to be polled.
func TestWatch(t *testing.T) {
	for _, waits := range []bool{true, false} {
		bubble(t, func(t *testing.T, node *raft.Node, s *Store) {
			var r coterie.Replica = node
			if waits {
				r = Watchable(node, s)
			}
			c := newClient(t, r)
			put := func(i int) {
				_, err := c.Txn(t.Context(), Txn{Then: []Op{Put{Key: fmt.Sprint("k", i)}, Put{Key: "x"}, Put{Key: "k"}}})
				require.NoError(t, err)
			}
			var wg sync.WaitGroup
			for from := range 50 {
				wg.Go(func() {
					next := from
					half := 0
					for e, err := range c.Watch(t.Context(), Prefix("k"), uint64(from+1)) {
						require.NoError(t, err)
						require.EqualValues(t, next+1, e.Revision())
						want := fmt.Sprint("k", next)
						if half == 1 {
							want = "k"
							next++
						}
						half = 1 - half
						require.Equal(t, want, e.KV.Key)
						if next == 50 {
							return
						}
					}
				})
			}
			for i := range 50 {
				put(i)
				time.Sleep(time.Duration(i) * time.Millisecond)
			}
			wg.Wait()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			begin := time.Now()
			time.AfterFunc(time.Minute, func() { put(99) })
			for e, err := range c.Watch(ctx, Key("k99"), 0) {
				if err != nil {
					require.ErrorIs(t, err, context.Canceled)
					break
				}
				require.Equal(t, "k99", e.KV.Key)
				if waits {
					require.Less(t, time.Since(begin)-time.Minute, 10*time.Millisecond, "a watcher is told at once")
				}
				cancel()
			}
			require.Error(t, ctx.Err())
			require.NoError(t, c.Compact(t.Context(), 10))
			for _, err := range c.Watch(t.Context(), Prefix(""), 10) {
				require.ErrorIs(t, err, ErrCompacted)
			}
		})
	}
}

// A release in a queue wakes the next waiter and no other, however many there are; and nobody is left registered.
func TestAwaitWakesOne(t *testing.T) {
	bubble(t, func(t *testing.T, node *raft.Node, s *Store) {
		var reads atomic.Int64
		c := newClient(t, &counting{Watchable(node, s).(*watchable), &reads})
		const n = 50
		keys := make([]string, n)
		for i := range keys {
			res, err := c.Txn(t.Context(), Txn{Then: []Op{Put{Key: "q/", Sequential: true}}})
			require.NoError(t, err)
			keys[i] = res.Results[0].Key
		}
		entered := make(chan string, n)
		var wg sync.WaitGroup
		for _, key := range keys {
			wg.Go(func() {
				there, err := c.Await(t.Context(), Turn{Key: key, Spans: []Span{{"q/", key}}})
				require.NoError(t, err)
				if there {
					entered <- key
				} else {
					entered <- "gone " + key
				}
			})
		}
		synctest.Wait()
		require.Equal(t, keys[0], <-entered)
		_, err := c.Delete(t.Context(), Key(keys[7]))
		require.NoError(t, err)
		require.Equal(t, "gone "+keys[7], <-entered)
		for i := range keys[:n-1] {
			if i == 7 {
				continue
			}
			next := i + 1
			if next == 7 {
				next = 8
			}
			before := reads.Load()
			_, err := c.Delete(t.Context(), Key(keys[i]))
			require.NoError(t, err)
			require.Equal(t, keys[next], <-entered)
			synctest.Wait()
			require.Equal(t, before, reads.Load(), "others were woken")
			require.Empty(t, entered)
		}
		wg.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		require.Empty(t, s.waiting.keys)
		require.Empty(t, s.waiting.spans)
	})
}

// counting counts reads, each of which is a message if the client is far away.
type counting struct {
	*watchable
	reads *atomic.Int64
}

func (c *counting) Read(ctx context.Context, b []byte) ([]byte, error) {
	c.reads.Add(1)
	return c.watchable.Read(ctx, b)
}

// A watch on a replica that is cut off from the others, and hears of nothing, does not wait for ever.
func TestQuietWatchAsksTheReplica(t *testing.T) {
	bubble(t, func(t *testing.T, node *raft.Node, s *Store) {
		silent := errors.New("cut off")
		w := Watchable(&failing{Replica: node, err: silent}, s)
		c := newClient(t, w)
		begin := time.Now()
		for _, err := range c.Watch(t.Context(), Prefix(""), 1) {
			require.ErrorIs(t, err, silent)
		}
		require.Equal(t, watchWait, time.Since(begin))
	})
}

type failing struct {
	consensus.Replica
	err error
}

func (f *failing) Read(context.Context, []byte) ([]byte, error) { return nil, f.err }

// plain is a replica without sessions.
type plain struct{ coterie.Replica }

func TestClientWithoutSessions(t *testing.T) {
	bubble(t, func(t *testing.T, node *raft.Node, _ *Store) {
		c := newClient(t, plain{node})
		require.False(t, c.ExactlyOnce())
		for {
			_, err := c.Put(t.Context(), "a", nil)
			if err == nil {
				break
			}
			require.ErrorIs(t, err, coterie.ErrNotLeader, "it is not tried again")
			time.Sleep(10 * time.Millisecond)
		}
		_, err := c.Get(t.Context(), "a")
		require.NoError(t, err)
		require.NoError(t, c.Close(t.Context()))
	})
}

// A client whose session the cluster has forgotten opens another one.
func TestClientOpensAnotherSession(t *testing.T) {
	bubble(t, func(t *testing.T, node *raft.Node, _ *Store) {
		c := newClient(t, node)
		_, err := c.Put(t.Context(), "a", nil)
		require.NoError(t, err)
		time.Sleep(2 * time.Hour)
		_, err = c.Put(t.Context(), "a", nil)
		require.NoError(t, err)
		k, err := c.Get(t.Context(), "a")
		require.NoError(t, err)
		require.EqualValues(t, 2, k.Version)
	})
}

func TestKeepAlive(t *testing.T) {
	bubble(t, func(t *testing.T, node *raft.Node, _ *Store) {
		ctx := t.Context()
		c := newClient(t, node)
		var renewals, ends atomic.Int64
		l, err := c.KeepAlive(ctx, LeaseConfig{Renewed: func(time.Time) { renewals.Add(1) }, Ended: func() { ends.Add(1) }})
		require.NoError(t, err)
		_, err = c.Txn(ctx, Txn{Then: []Op{Put{Key: "a", Lease: l.ID()}}})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.NoError(t, l.Err())
		require.InDelta(t, 60*3/8, renewals.Load(), 2, "three times as often as is needed")
		require.True(t, l.Expires().After(time.Now().Add(5*time.Second)))
		require.Zero(t, ends.Load())
		require.NoError(t, l.Close(ctx))
		require.EqualValues(t, 1, ends.Load())
		require.ErrorIs(t, l.Err(), ErrNoLease)
		require.ErrorIs(t, l.Close(ctx), ErrNoLease)
		_, err = c.Get(ctx, "a")
		require.ErrorIs(t, err, ErrNotFound)
		select {
		case <-l.Lost():
			t.Fatal("lost by Close")
		default:
		}
	})
}

// Keys of a lease that nobody renews go on an idle log too, because the leader proposes a tick.
func TestLeaseEndsOnAnIdleLog(t *testing.T) {
	bubble(t, func(t *testing.T, node *raft.Node, s *Store) {
		c := newClient(t, Watchable(node, s))
		id, err := c.Grant(t.Context(), 10*time.Second)
		require.NoError(t, err)
		_, err = c.Txn(t.Context(), Txn{Then: []Op{Put{Key: "a", Lease: id}}})
		require.NoError(t, err)
		begin := time.Now()
		for e, err := range c.Watch(t.Context(), Prefix(""), 2) {
			require.NoError(t, err)
			require.True(t, e.Deleted())
			break
		}
		require.InDelta(t, 10, time.Since(begin).Seconds(), 0.1)
	})
}

// gate lets proposals through until it is shut; then they wait for their ctx, or for the gate to open.
type gate struct {
	consensus.Replica
	mu   sync.Mutex
	shut chan struct{}
}

func (g *gate) ProposeAs(ctx context.Context, tag consensus.Tag, command []byte) ([]byte, error) {
	b, err := g.Replica.ProposeAs(ctx, tag, command)
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		<-shut // the answer comes late, also after its ctx: the process was paused
	}
	return b, err
}

// The answer to a renewal that comes after the end does not bring the lease back.
func TestRenewalThatIsAnsweredTooLate(t *testing.T) {
	bubble(t, func(t *testing.T, node *raft.Node, _ *Store) {
		g := &gate{Replica: node}
		c := newClient(t, g)
		_, err := c.Put(t.Context(), "a", nil) // there is a leader
		require.NoError(t, err)
		l, err := c.KeepAlive(t.Context(), LeaseConfig{TTL: 10 * time.Second})
		require.NoError(t, err)
		g.mu.Lock()
		g.shut = make(chan struct{})
		g.mu.Unlock()
		begin := time.Now()
		<-l.Lost()
		require.Equal(t, 8*time.Second, time.Since(begin).Round(100*time.Millisecond))
		g.mu.Lock()
		close(g.shut)
		g.shut = nil
		g.mu.Unlock()
		synctest.Wait()
		require.ErrorIs(t, l.Err(), ErrNoLease)
		require.False(t, l.Expires().After(begin.Add(8*time.Second)))
		_ = l.Close(t.Context())
	})
}
