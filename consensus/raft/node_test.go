package raft_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/consensus/raft"
	"github.com/coterie-go/coterie/transport"
)

// counter is a state machine that counts what it is told to add.
type counter struct {
	mu  sync.Mutex
	sum int
}

func (c *counter) Apply(e coterie.Entry) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, _ := strconv.Atoi(strings.TrimSpace(string(e.Command)))
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

// nodes is a cluster on loopback TCP and real disks.
type nodes struct {
	t       *testing.T
	dir     string
	ca      *transport.ThrowawayCA
	address map[coterie.NodeID]string
	running map[coterie.NodeID]*raft.Node
	change  func(*raft.Config)
}

func newNodes(t *testing.T, ids ...coterie.NodeID) *nodes {
	t.Helper()
	ca, err := transport.NewThrowawayCA()
	require.NoError(t, err)
	c := &nodes{t: t, dir: t.TempDir(), ca: ca, address: map[coterie.NodeID]string{}, running: map[coterie.NodeID]*raft.Node{}}
	for _, id := range ids {
		c.address[id] = freeAddress(t)
	}
	t.Cleanup(func() {
		for _, n := range c.running {
			_ = n.Close()
		}
	})
	return c
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func (c *nodes) config(id coterie.NodeID, voters ...coterie.NodeID) raft.Config {
	identity, err := c.ca.Identity(id)
	require.NoError(c.t, err)
	cfg := raft.Config{
		ID: id, Voters: map[coterie.NodeID]string{}, Dir: filepath.Join(c.dir, string(id)), TLS: identity,
		StateMachine: &counter{}, Listen: c.address[id],
		ElectionTimeout: 400 * time.Millisecond, HeartbeatInterval: 40 * time.Millisecond,
	}
	for _, v := range voters {
		cfg.Voters[v] = c.address[v]
	}
	if c.change != nil {
		c.change(&cfg)
	}
	return cfg
}

func (c *nodes) start(cfg raft.Config) *raft.Node {
	c.t.Helper()
	n, err := raft.Start(cfg)
	require.NoError(c.t, err)
	c.running[cfg.ID] = n
	return n
}

func (c *nodes) stop(id coterie.NodeID) {
	c.t.Helper()
	require.NoError(c.t, c.running[id].Close())
	delete(c.running, id)
}

// add adds to the counter through whichever node leads, and tries until it is done.
func (c *nodes) add(ctx context.Context, n int) string {
	c.t.Helper()
	result, err := c.onLeader(ctx, func(l *raft.Node) ([]byte, error) { return l.Propose(ctx, []byte(strconv.Itoa(n))) })
	require.NoError(c.t, err)
	return string(result)
}

func (c *nodes) onLeader(ctx context.Context, f func(*raft.Node) ([]byte, error)) ([]byte, error) {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		for _, n := range c.running {
			if s := n.Status(); s.Leader == s.ID {
				result, err := f(n)
				if !errors.Is(err, coterie.ErrNotLeader) && !errors.Is(err, raft.ErrBusy) && !errors.Is(err, raft.ErrNotCaughtUp) {
					return result, err
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ticker.C:
		}
	}
}

func (c *nodes) admin(ctx context.Context, f func(*raft.Node) error) {
	c.t.Helper()
	_, err := c.onLeader(ctx, func(n *raft.Node) ([]byte, error) { return nil, f(n) })
	require.NoError(c.t, err)
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// TestNodeLosesNothingWhenTheLeaderGoes stops the leader of three real nodes, goes on, and starts it again.
func TestNodeLosesNothingWhenTheLeaderGoes(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := newNodes(t, "a", "b", "c")
	for _, id := range []coterie.NodeID{"a", "b", "c"} {
		c.start(c.config(id, "a", "b", "c"))
	}
	sum := 0
	for i := 1; i <= 20; i++ {
		sum += i
		require.Equal(t, strconv.Itoa(sum), c.add(ctx, i))
	}
	var leader coterie.NodeID
	_, err := c.onLeader(ctx, func(n *raft.Node) ([]byte, error) { leader = n.Status().ID; return nil, nil })
	require.NoError(t, err)
	c.stop(leader)
	for i := 1; i <= 20; i++ {
		sum += i
		require.Equal(t, strconv.Itoa(sum), c.add(ctx, i))
	}
	c.admin(ctx, func(n *raft.Node) error { return n.Snapshot(ctx) })
	n := c.start(c.config(leader, "a", "b", "c"))
	got, err := retryRead(ctx, n)
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(sum), got, "a read on a follower sees all that was acknowledged")
}

func retryRead(ctx context.Context, n *raft.Node) (string, error) {
	for {
		b, err := n.Read(ctx, nil)
		if err == nil || ctx.Err() != nil || !errors.Is(err, coterie.ErrNotLeader) {
			return string(b), err
		}
	}
}

// TestNodeMembersComeAndGo grows one node to three and replaces the first, over real TCP and disks.
func TestNodeMembersComeAndGo(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := newNodes(t, "a", "b", "c")
	a := c.start(c.config("a", "a"))
	c.add(ctx, 1)
	events := a.Events(ctx)
	for _, id := range []coterie.NodeID{"b", "c"} {
		cfg := c.config(id, "a")
		cfg.Join = true
		c.start(cfg)
		c.admin(ctx, func(n *raft.Node) error { return n.AddLearner(ctx, id, c.address[id]) })
		c.admin(ctx, func(n *raft.Node) error { return n.Promote(ctx, id) }) // waits until it has caught up
	}
	require.Equal(t, "3", c.add(ctx, 2))
	require.ErrorIs(t, a.Remove(ctx, "x"), raft.ErrInvalidChange)
	c.admin(ctx, func(n *raft.Node) error { return n.TransferLeadership(ctx, "b") })
	c.admin(ctx, func(n *raft.Node) error { return n.Remove(ctx, "a") })
	c.stop("a")
	require.Equal(t, "6", c.add(ctx, 3))
	c.stop("b")
	again := c.config("b", "a") // its journal knows better who the members are
	again.Join = true
	c.start(again)
	require.Equal(t, "10", c.add(ctx, 4))
	require.Equal(t, "b c", c.running["c"].Metrics().Members.String())
	configs := 0
	for e := range events {
		if change, ok := e.(raft.ConfigChanged); ok && change.Committed {
			configs++
		}
	}
	require.GreaterOrEqual(t, configs, 4)
}

// TestNodeSessionAppliesOnce repeats a command after its answer was lost, to another leader, when all nodes have been
// restarted from snapshots: the table of sessions is among what they hold (CurvineIO/curvine#676).
func TestNodeSessionAppliesOnce(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := newNodes(t, "a", "b", "c")
	ids := []coterie.NodeID{"a", "b", "c"}
	for _, id := range ids {
		c.start(c.config(id, ids...))
	}
	c.add(ctx, 10)
	var tag consensus.Tag
	propose := func(n *raft.Node) ([]byte, error) { return n.ProposeAs(ctx, tag, []byte("1")) }
	session, err := c.onLeader(ctx, func(n *raft.Node) ([]byte, error) {
		id, err := n.OpenSession(ctx)
		return strconv.AppendUint(nil, id, 10), err
	})
	require.NoError(t, err)
	tag.Session, err = strconv.ParseUint(string(session), 10, 64)
	require.NoError(t, err)
	tag.Seq, tag.Low = 1, 1
	_, err = c.onLeader(ctx, propose) // and nobody hears the answer
	require.NoError(t, err)
	for _, id := range ids {
		require.NoError(t, c.running[id].Snapshot(ctx))
	}
	for _, id := range ids {
		c.stop(id)
	}
	for _, id := range ids {
		c.start(c.config(id, ids...))
	}
	result, err := c.onLeader(ctx, propose)
	require.NoError(t, err)
	require.Equal(t, "11", string(result))
	require.Equal(t, "12", c.add(ctx, 1))
}

// TestNodeRestartsAtAnotherAddress moves a node to another address: the leader is told, and the node counts again.
func TestNodeRestartsAtAnotherAddress(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := newNodes(t, "a", "b", "c")
	ids := []coterie.NodeID{"a", "b", "c"}
	for _, id := range ids {
		c.start(c.config(id, ids...))
	}
	c.add(ctx, 1)
	c.admin(ctx, func(n *raft.Node) error {
		if n.Status().ID == "a" {
			return nil
		}
		return n.TransferLeadership(ctx, "a")
	})
	c.stop("c")
	c.address["c"] = freeAddress(t)
	c.start(c.config("c", ids...))
	c.admin(ctx, func(n *raft.Node) error {
		return n.Reconfigure(ctx, raft.Change{Set: []raft.Member{{ID: "c", Address: c.address["c"]}}})
	})
	c.stop("b")
	require.Equal(t, "3", c.add(ctx, 2), "with c at its new address")
}

// TestStartNamesTheField checks that a bad Config is refused and that the error says why.
func TestStartNamesTheField(t *testing.T) {
	good := raft.Config{
		ID: "a", Voters: map[coterie.NodeID]string{"a": "127.0.0.1:0"}, Dir: t.TempDir(), StateMachine: &counter{},
	}
	for field, spoil := range map[string]func(*raft.Config){
		"ID":                func(c *raft.Config) { c.ID = "" },
		"Voters":            func(c *raft.Config) { c.Voters = nil },
		"StateMachine":      func(c *raft.Config) { c.StateMachine = nil },
		"Dir":               func(c *raft.Config) { c.Dir = "" },
		"Listen":            func(c *raft.Config) { c.Voters = map[coterie.NodeID]string{"a": ""} },
		"Witnesses":         func(c *raft.Config) { c.Witnesses = map[coterie.NodeID]string{"a": ""} },
		"ClockDrift":        func(c *raft.Config) { c.ClockDrift = 0.7 },
		"HeartbeatInterval": func(c *raft.Config) { c.HeartbeatInterval = time.Minute },
		"MaxMessageBytes":   func(c *raft.Config) { c.MaxMessageBytes = -1 },
		"QuiesceAfter":      func(c *raft.Config) { c.QuiesceAfter = -1 },
	} {
		cfg := good
		spoil(&cfg)
		_, err := raft.Start(cfg)
		require.ErrorContains(t, err, field)
	}
}

// TestNodeEventsAreBounded: a reader that does not read misses the oldest events, and is told how many.
func TestNodeEventsAreBounded(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := newNodes(t, "a")
	c.change = func(cfg *raft.Config) {
		cfg.ElectionTimeout, cfg.HeartbeatInterval = 100*time.Millisecond, 10*time.Millisecond
	}
	a := c.start(c.config("a", "a"))
	c.add(ctx, 1)
	events := a.Events(ctx)
	const changes = 200 // each is told when it is appended and when it is committed
	for i := range changes {
		require.NoError(t, a.Reconfigure(ctx, raft.Change{Set: []raft.Member{{ID: "a", Priority: i + 1}}}))
	}
	require.NoError(t, a.Close())
	seen, missed := 0, 0
	for e := range events {
		switch e := e.(type) {
		case raft.Lagged:
			require.Zero(t, seen, "told first")
			missed += e.Missed
		case raft.ConfigChanged:
			seen++
			if e.Committed {
				require.Equal(t, (seen+missed)/2, e.Members.Members[0].Priority)
			}
		}
	}
	require.Equal(t, 2*changes, seen+missed)
	require.Equal(t, 256, seen)
}
