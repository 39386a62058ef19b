package raft_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/raft"
	"github.com/coterie-go/coterie/replication/wal"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

// TestNodeDoesNotStartOnADamagedLog flips a bit in the middle of what was synced: the node says where, and neither votes
// nor leads. What a crash leaves, a torn tail, is no damage.
func TestNodeDoesNotStartOnADamagedLog(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := newNodes(t, "a")
	c.start(c.config("a", "a"))
	for i := range 20 {
		c.add(ctx, i)
	}
	c.stop("a")
	files, err := filepath.Glob(filepath.Join(c.dir, "a", "log", "*"))
	require.NoError(t, err)
	segment := slices.MaxFunc(files, func(a, b string) int {
		x, err := os.Stat(a)
		require.NoError(t, err)
		y, err := os.Stat(b)
		require.NoError(t, err)
		return int(x.Size() - y.Size())
	})
	data, err := os.ReadFile(segment)
	require.NoError(t, err)
	data[300] ^= 1
	require.NoError(t, os.WriteFile(segment, data, 0o600))
	_, err = raft.Start(c.config("a", "a"))
	var damage *wal.CorruptionError
	require.ErrorAs(t, err, &damage)
	require.Equal(t, segment, damage.Segment)
}

// TestNodeRefusesAnotherNodesLog: a folder is open once, and belongs to one node.
func TestNodeRefusesAnotherNodesLog(t *testing.T) {
	t.Parallel()
	c := newNodes(t, "a", "b")
	c.start(c.config("a", "a"))
	twice := c.config("a", "a")
	twice.Listen = freeAddress(t)
	_, err := raft.Start(twice)
	require.ErrorIs(t, err, wal.ErrLocked)
	c.stop("a")
	other := c.config("b", "b")
	other.Dir = filepath.Join(c.dir, "a")
	_, err = raft.Start(other)
	var owner *wal.OwnerError
	require.ErrorAs(t, err, &owner)
}

// hangingJournal is a disk whose sync hangs as long as hung is locked.
type hangingJournal struct {
	host.MemoryJournal
	hung sync.Mutex
}

func (j *hangingJournal) Append(records ...[]byte) error {
	j.hung.Lock()
	defer j.hung.Unlock()
	return j.MemoryJournal.Append(records...)
}

// TestSyncThatHangsCostsTheLeadership hangs the leader's disk for as long as it takes: who waits there is let go by its
// ctx, the others elect another leader and go on, and what the old one had under way does no harm when the disk wakes
// (hashicorp/raft#503, etcd-io/etcd#15247).
func TestSyncThatHangsCostsTheLeadership(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	network := transport.NewNetwork(transport.NetworkConfig{})
	voters := map[coterie.NodeID]string{"a": "", "b": "", "c": ""}
	journals := map[coterie.NodeID]*hangingJournal{}
	c := &nodes{t: t, running: map[coterie.NodeID]*raft.Node{}}
	for id := range voters {
		folder, err := wal.OpenSnapshots(t.TempDir())
		require.NoError(t, err)
		journals[id] = &hangingJournal{}
		n := c.start(raft.Config{
			ID: id, Voters: voters, StateMachine: &counter{}, Transport: network.Join(id), Journal: journals[id], Snapshots: folder,
			ElectionTimeout: 200 * time.Millisecond,
		})
		t.Cleanup(func() { _ = n.Close() })
	}
	require.Equal(t, "1", c.add(ctx, 1))
	var old *raft.Node
	c.admin(ctx, func(n *raft.Node) error { old = n; return nil })
	disk := journals[old.Status().ID]
	disk.hung.Lock()
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err := old.Propose(short, []byte("10"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, coterie.ErrUnknownOutcome)
	delete(c.running, old.Status().ID)
	got := c.add(ctx, 2)
	require.Contains(t, []string{"3", "13"}, got, "what left early may have been committed by the next leader")
	disk.hung.Unlock()
	c.running[old.Status().ID] = old
	sum := c.add(ctx, 0)
	require.Equal(t, got, sum)
	for _, n := range c.running {
		b, err := retryRead(ctx, n)
		require.NoError(t, err)
		require.Equal(t, sum, b)
	}
}

// failingJournal is a disk whose syncs fail from some time on.
type failingJournal struct {
	host.MemoryJournal
	mu    sync.Mutex
	fails bool
}

var errDisk = errors.New("input/output error")

func (j *failingJournal) Append(records ...[]byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fails {
		return errDisk
	}
	return j.MemoryJournal.Append(records...)
}

// TestSyncThatFailsStopsTheNode: it acknowledges nothing more, and says why.
func TestSyncThatFailsStopsTheNode(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	network := transport.NewNetwork(transport.NetworkConfig{})
	folder, err := wal.OpenSnapshots(t.TempDir())
	require.NoError(t, err)
	disk := &failingJournal{}
	c := &nodes{t: t, running: map[coterie.NodeID]*raft.Node{}}
	n := c.start(raft.Config{
		ID: "a", Voters: map[coterie.NodeID]string{"a": ""}, StateMachine: &counter{}, Transport: network.Join("a"),
		Journal: disk, Snapshots: folder, ElectionTimeout: 100 * time.Millisecond,
	})
	c.add(ctx, 1)
	disk.mu.Lock()
	disk.fails = true
	disk.mu.Unlock()
	_, err = n.Propose(ctx, []byte("2"))
	require.ErrorIs(t, err, coterie.ErrUnknownOutcome)
	<-n.Done()
	require.ErrorIs(t, n.Err(), errDisk)
	require.ErrorIs(t, n.Close(), errDisk)
	_, err = n.Propose(ctx, []byte("3"))
	require.ErrorIs(t, err, coterie.ErrClosed)
}
