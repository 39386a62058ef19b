package raft_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/consensus/raft"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/replication/wal"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
	"github.com/coterie-go/coterie/transport/tcp"
)

// TestManyGroupsShareTransportAndLog runs many groups on three nodes, each with one transport and one log: every group
// commits, their syncs are shared, and all is there again after a restart.
func TestManyGroupsShareTransportAndLog(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	groups := max(testsize.N(40, 1000), 20)
	voters := map[coterie.NodeID]string{"a": "", "b": "", "c": ""}
	dir := t.TempDir()
	var batches, records uint64
	for life := range 2 {
		network := transport.NewNetwork(transport.NetworkConfig{})
		members := make([]map[coterie.NodeID]*raft.Node, groups)
		var closers []func() error
		logs := map[coterie.NodeID]*wal.Log{}
		for id := range voters {
			log, err := wal.Open(wal.Config{Dir: filepath.Join(dir, string(id), "log"), Owner: id})
			require.NoError(t, err)
			mux := transport.NewMux(network.Join(id))
			logs[id] = log
			for g := range groups {
				files, err := wal.OpenSnapshots(filepath.Join(dir, string(id), fmt.Sprint("snapshots-", g)))
				require.NoError(t, err)
				n, err := raft.Start(raft.Config{
					ID: id, Voters: voters, StateMachine: &counter{}, Transport: mux.Channel(uint64(g)),
					Journal: log.Stream(fmt.Sprint("group-", g)), Snapshots: files,
					ElectionTimeout: 500 * time.Millisecond, QuiesceAfter: time.Second,
				})
				require.NoError(t, err)
				if members[g] == nil {
					members[g] = map[coterie.NodeID]*raft.Node{}
				}
				members[g][id] = n
				closers = append(closers, n.Close)
			}
			closers = append(closers, mux.Close, log.Close)
		}
		var wg sync.WaitGroup
		for g := range groups {
			c := &nodes{t: t, running: members[g]}
			wg.Go(func() {
				for i := range 5 {
					got, err := c.onLeader(ctx, func(n *raft.Node) ([]byte, error) { return n.Propose(ctx, []byte("1")) })
					if err != nil || string(got) != fmt.Sprint(life*5+i+1) {
						t.Errorf("group %d: %q, %v; want %d", g, got, err, life*5+i+1)
						return
					}
				}
			})
		}
		wg.Wait()
		for _, log := range logs {
			m := log.Metrics()
			batches, records = batches+m.Batches, records+m.Records
		}
		for _, c := range closers {
			require.NoError(t, c())
		}
	}
	if groups > 10 { // a few may happen to save one after another
		require.Less(t, batches, records, "appends of many groups share a sync")
	}
}

// TestSoakMemoryIsFlat proposes 10,000 commands a second for ten minutes, with compaction: neither memory nor
// goroutines grow.
func TestSoakMemoryIsFlat(t *testing.T) {
	if !testsize.Soak() {
		t.Skip("takes ten minutes; COTERIE_SOAK=1 runs it")
	}
	ctx := t.Context()
	c := newNodes(t, "a", "b", "c")
	c.change = func(cfg *raft.Config) {
		cfg.Driver = consensus.Config{SnapshotBytes: 8 << 20}
		cfg.ElectionTimeout, cfg.HeartbeatInterval = 3*time.Second, 300*time.Millisecond
	}
	ids := []coterie.NodeID{"a", "b", "c"}
	for _, id := range ids {
		c.start(c.config(id, ids...))
	}
	c.add(ctx, 1)
	var leader *raft.Node
	c.admin(ctx, func(n *raft.Node) error { leader = n; return nil })
	measure := func() (heap uint64, goroutines int) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc, runtime.NumGoroutine()
	}
	var firstHeap uint64
	var firstGoroutines int
	const perTick = 100
	length := 10 * time.Minute
	if text := os.Getenv("COTERIE_SOAK_LENGTH"); text != "" {
		var err error
		length, err = time.ParseDuration(text)
		require.NoError(t, err)
	}
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	begin := time.Now()
	var done atomic.Int64
	for time.Since(begin) < length {
		<-ticker.C
		var wg sync.WaitGroup
		for range perTick {
			wg.Go(func() {
				if _, err := leader.Propose(ctx, []byte("1")); err == nil {
					done.Add(1)
				}
			})
		}
		wg.Wait()
		if s := leader.Status(); s.Leader != s.ID { // the machine stood still
			c.admin(ctx, func(n *raft.Node) error { leader = n; return nil })
		}
		if firstHeap == 0 && time.Since(begin) > length/5 {
			firstHeap, firstGoroutines = measure()
		}
	}
	heap, goroutines := measure()
	require.Greater(t, done.Load(), int64(length.Seconds()*1000))
	t.Logf("%d commands; heap %d then %d bytes, goroutines %d then %d", done.Load(), firstHeap, heap, firstGoroutines, goroutines)
	require.Less(t, heap, firstHeap*3/2+16<<20)
	require.Less(t, goroutines, firstGoroutines+20)
}

// TestHeartbeatsOfManyGroupsShareWrites: the beats of groups on one connection come at the same moments, for hosts wake
// on one grid, and go out together: a peer gets one write for many of them.
func TestHeartbeatsOfManyGroupsShareWrites(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	const groups = 40
	voters := map[coterie.NodeID]string{"a": "", "b": ""}
	address := map[coterie.NodeID]string{"a": freeAddress(t), "b": freeAddress(t)}
	wires := map[coterie.NodeID]*tcp.Transport{}
	members := make([]*nodes, groups)
	for id, peer := range map[coterie.NodeID]coterie.NodeID{"a": "b", "b": "a"} {
		wire, err := tcp.Start(tcp.Config{ID: id, Listen: address[id], Peers: map[coterie.NodeID]string{peer: address[peer]}})
		require.NoError(t, err)
		wires[id] = wire
		mux := transport.NewMux(wire)
		t.Cleanup(func() { _ = mux.Close() })
		for g := range groups {
			files, err := wal.OpenSnapshots(t.TempDir())
			require.NoError(t, err)
			if members[g] == nil {
				members[g] = &nodes{t: t, running: map[coterie.NodeID]*raft.Node{}}
			}
			n := members[g].start(raft.Config{
				ID: id, Voters: voters, StateMachine: &counter{}, Transport: mux.Channel(uint64(g)), Journal: &host.MemoryJournal{},
				Snapshots: files, ElectionTimeout: 500 * time.Millisecond,
			})
			t.Cleanup(func() { _ = n.Close() })
		}
	}
	for _, c := range members {
		c.add(ctx, 1)
	}
	count := func() (sent, writes uint64) {
		for _, w := range wires {
			m := w.Metrics()
			sent, writes = sent+m.Sent, writes+m.Writes
		}
		return sent, writes
	}
	sent, writes := count()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		nowSent, nowWrites := count()
		if nowSent-sent > 20*groups {
			require.Greater(t, nowSent-sent, 2*(nowWrites-writes))
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatal("no heartbeats")
		}
	}
}
