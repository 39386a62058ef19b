package paxos_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/paxos"
	"github.com/coterie-go/coterie/quorum"
	"github.com/coterie-go/coterie/replication/wal"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

// counter is a state machine that counts what it is told to add.
type counter struct {
	mu  sync.Mutex
	sum int
}

func (c *counter) Apply(e coterie.Entry) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, _ := strconv.Atoi(string(e.Command))
	c.sum += n
	return strconv.AppendInt(nil, int64(c.sum), 10)
}

func (c *counter) Query([]byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strconv.AppendInt(nil, int64(c.sum), 10), nil
}

func (c *counter) Snapshot() (func(io.Writer) error, error) {
	b, _ := c.Query(nil)
	return func(w io.Writer) error { _, err := w.Write(b); return err }, nil
}

func (c *counter) Restore(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sum, err = strconv.Atoi(string(b))
	return err
}

// leaderOf waits until a node has committed something, and returns it.
func leaderOf(t *testing.T, nodes ...*paxos.Node) *paxos.Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		for _, n := range nodes {
			_, err := n.Propose(ctx, []byte("0"))
			if err == nil {
				return n
			}
			require.NoError(t, ctx.Err(), "no leader")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestNodeSurvivesRestartsOnDisk runs three nodes over TLS, restarts each from its disk, and makes others the members.
func TestNodeSurvivesRestartsOnDisk(t *testing.T) {
	ca, err := transport.NewThrowawayCA()
	require.NoError(t, err)
	dir := t.TempDir()
	address := map[coterie.NodeID]string{}
	for _, id := range []coterie.NodeID{"a", "b", "c", "d"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		address[id] = l.Addr().String()
		require.NoError(t, l.Close())
	}
	start := func(id coterie.NodeID, join bool) *paxos.Node {
		identity, err := ca.Identity(id)
		require.NoError(t, err)
		n, err := paxos.Start(paxos.Config{
			ID: id, Voters: map[coterie.NodeID]string{"a": address["a"], "b": address["b"], "c": address["c"]}, Join: join,
			Listen: address[id], Dir: filepath.Join(dir, string(id)), TLS: identity, StateMachine: &counter{}, Alpha: 64,
			ElectionTimeout: 400 * time.Millisecond, TrailingEntries: -1,
		})
		require.NoError(t, err)
		t.Cleanup(func() { _ = n.Close() })
		return n
	}
	a, b, c := start("a", false), start("b", false), start("c", false)
	ctx := t.Context()
	session, err := leaderOf(t, a, b, c).NewSession(ctx)
	require.NoError(t, err)
	for i := range 20 {
		result, err := session.Propose(ctx, []byte("1"))
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i+1), string(result))
	}
	require.NoError(t, a.Snapshot(ctx))
	for _, n := range []*paxos.Node{a, b, c} {
		require.NoError(t, n.Close())
		require.NoError(t, n.Close())
	}
	a, b, c = start("a", false), start("b", false), start("c", false)
	leader := leaderOf(t, a, b, c)
	for _, n := range []*paxos.Node{a, b, c} {
		_, err := n.Read(ctx, nil) // it has applied all
		require.NoError(t, err)
		require.NoError(t, n.Snapshot(ctx))
	}
	d := start("d", true)
	members := []paxos.Member{{ID: "b", Address: address["b"]}, {ID: "c", Address: address["c"]}, {ID: "d", Address: address["d"]}}
	for {
		err := leader.Reconfigure(ctx, members...)
		if err == nil {
			break
		}
		if errors.Is(err, coterie.ErrNotLeader) || errors.Is(err, coterie.ErrUnknownOutcome) {
			leader = leaderOf(t, a, b, c)
		}
		require.NotErrorIs(t, err, paxos.ErrInvalidChange)
	}
	require.NoError(t, a.Close())
	require.NoError(t, b.Close())
	leader = leaderOf(t, c, d) // c and d are a majority of the new members, not of the old
	sum, err := leader.Read(ctx, nil)
	require.NoError(t, err)
	require.Equal(t, "20", string(sum))
	sum, err = d.Read(ctx, nil)
	require.NoError(t, err)
	require.Equal(t, "20", string(sum))
	m, err := d.Metrics(ctx)
	require.NoError(t, err)
	require.Len(t, m.Members, 3)
	require.NotZero(t, m.Installs, "a snapshot took the place of the slots that were gone")
}

// TestNodeInBubble commits, reads anywhere, loses its leader and goes on, on in-memory parts and virtual time; with
// flexible quorums two of five are enough to replicate.
func TestNodeInBubble(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		network := transport.NewNetwork(transport.NetworkConfig{})
		voters := map[coterie.NodeID]string{"a": "", "b": "", "c": "", "d": "", "e": ""}
		var nodes []*paxos.Node
		for _, id := range []coterie.NodeID{"a", "b", "c", "d", "e"} {
			snapshots, err := wal.OpenSnapshots(filepath.Join(dir, string(id)))
			require.NoError(t, err)
			n, err := paxos.Start(paxos.Config{
				ID: id, Voters: voters, Transport: network.Join(id), Journal: &host.MemoryJournal{}, Snapshots: snapshots,
				StateMachine: &counter{},
				Quorums: func(members []coterie.NodeID) (quorum.ReadWrite, error) {
					return quorum.FlexiblePaxos(2, members...)
				},
			})
			require.NoError(t, err)
			defer n.Close()
			nodes = append(nodes, n)
		}
		ctx := t.Context()
		leader := leaderOf(t, nodes...)
		for range 10 {
			_, err := leader.Propose(ctx, []byte("1"))
			require.NoError(t, err)
		}
		for _, n := range nodes {
			sum, err := n.Read(ctx, nil)
			require.NoError(t, err)
			require.Equal(t, "10", string(sum))
		}
		require.NoError(t, leader.Close())
		rest := nodes[:0]
		for _, n := range nodes {
			if n != leader {
				rest = append(rest, n)
			}
		}
		next := leaderOf(t, rest...)
		sum, err := next.Read(ctx, nil)
		require.NoError(t, err)
		require.Equal(t, "10", string(sum))
		_, err = leader.Propose(ctx, []byte("1"))
		require.ErrorIs(t, err, coterie.ErrClosed)
	})
}

func TestStartNamesTheField(t *testing.T) {
	_, err := paxos.Start(paxos.Config{Alpha: -1, ElectionTimeout: time.Second, HeartbeatInterval: time.Second, ClockDrift: 1})
	for _, field := range []string{"ID", "Voters", "Alpha", "ElectionTimeout", "ClockDrift", "StateMachine", "Dir", "Listen"} {
		require.ErrorContains(t, err, "paxos: Config."+field)
	}
	_, err = paxos.Start(paxos.Config{ID: "a", Voters: map[coterie.NodeID]string{"b": ""}})
	require.ErrorContains(t, err, "does not name the node itself")
	_, err = paxos.NewCore(paxos.Config{ID: "a", Voters: map[coterie.NodeID]string{"a": ""}})
	require.ErrorContains(t, err, "paxos: Config.Seed")
	_, err = paxos.NewCore(paxos.Config{
		ID: "a", Seed: 1, Voters: map[coterie.NodeID]string{"a": "", "b": "", "c": ""},
		Quorums: func(members []coterie.NodeID) (quorum.ReadWrite, error) { return quorum.NRW(members, 1, 2) },
	})
	var disjoint *quorum.DisjointError
	require.ErrorAs(t, err, &disjoint)
}
