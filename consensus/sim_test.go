package consensus_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/consensus/raft"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
)

// ledger is a state machine that counts how often each command is applied.
type ledger struct {
	Counts map[string]int
	Total  int
}

func (l *ledger) Apply(e coterie.Entry) []byte {
	l.Total++
	l.Counts[string(e.Command)]++
	return fmt.Append(nil, l.Total)
}

func (l *ledger) Query(query []byte) ([]byte, error) {
	return fmt.Append(nil, l.Counts[string(query)]), nil
}

func (l *ledger) Snapshot() (func(io.Writer) error, error) {
	frozen, err := json.Marshal(l)
	return func(w io.Writer) error {
		_, err := w.Write(frozen)
		return err
	}, err
}

func (l *ledger) Restore(r io.Reader) error { return json.NewDecoder(r).Decode(l) }

// cluster is three Raft nodes with clients that retry.
type cluster struct {
	*sim.World
	nodes   []coterie.NodeID
	ledgers map[coterie.NodeID]*ledger
	clients []*client
	plant   func(*consensus.Config)
	quiet   bool // clients begin nothing more
}

type client struct {
	c       *cluster
	name    string
	session uint64
	seq     uint64
	attempt int
	node    int
	acked   []string
	stale   []string // reads that missed an acknowledged command
}

func newCluster(seed uint64, trace *sim.Trace, plant func(*consensus.Config)) (*cluster, error) {
	w, err := sim.New(sim.Config{Seed: seed, Trace: trace, Link: sim.Link{Loss: 0.02, Duplicate: 0.02, Reorder: 0.1}})
	if err != nil {
		return nil, err
	}
	c := &cluster{World: w, nodes: []coterie.NodeID{"a", "b", "c"}, ledgers: map[coterie.NodeID]*ledger{}, plant: plant}
	for _, id := range c.nodes {
		if err := w.Add(id, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) { return c.start(id, incarnation) }}); err != nil {
			return nil, err
		}
	}
	for i := range 3 {
		cl := &client{c: c, name: fmt.Sprint("client", i), node: i}
		c.clients = append(c.clients, cl)
		w.After(0, cl.try)
	}
	w.Invariant("applied once", func(*sim.World) error {
		for _, id := range c.nodes {
			if l := c.ledgers[id]; l.Total != len(l.Counts) {
				return fmt.Errorf("%s has applied %d commands, %d of them different", id, l.Total, len(l.Counts))
			}
		}
		return nil
	})
	return c, nil
}

func (c *cluster) start(id coterie.NodeID, incarnation uint64) (coterie.Core, sim.App) {
	core, err := raft.NewCore(raft.Config{
		ID: id, Voters: map[coterie.NodeID]string{"a": "", "b": "", "c": ""}, Seed: c.Seed()*1000 + incarnation*10 + uint64(id[0]),
		ElectionTimeout: 150 * time.Millisecond, TrailingEntries: 2, SnapshotChunkBytes: 2000,
	})
	if err != nil {
		panic(err)
	}
	c.ledgers[id] = &ledger{Counts: map[string]int{}}
	cfg := consensus.InlineConfig{
		ID: id, World: c.World, WriteTime: 3 * time.Millisecond,
		Config: consensus.Config{StateMachine: c.ledgers[id], SnapshotEntries: 8, Clock: c.Clock(id).Now},
	}
	if c.plant != nil {
		c.plant(&cfg.Config)
	}
	return core, consensus.NewInline(cfg)
}

// try sends the client's present command, or opens its session, or reads its last command.
func (cl *client) try() {
	if cl.c.quiet {
		return
	}
	cl.attempt++
	attempt := cl.attempt
	answer := func(o consensus.Outcome) {
		if attempt == cl.attempt {
			cl.answered(o)
		}
	}
	app, _ := cl.c.App(cl.c.nodes[cl.node]).(*consensus.Inline)
	switch {
	case app == nil:
	case cl.session == 0:
		app.OpenSession(answer)
	default:
		app.Propose(consensus.Tag{Session: cl.session, Seq: cl.seq, Low: cl.seq}, []byte(cl.command()), answer)
	}
	cl.c.After(150*time.Millisecond, func() {
		if attempt == cl.attempt { // no answer: crashed, cut off or slow
			cl.node = (cl.node + 1) % len(cl.c.nodes)
			cl.try()
		}
	})
}

func (cl *client) command() string { return fmt.Sprint(cl.name, "/", cl.seq) }

func (cl *client) answered(o consensus.Outcome) {
	var not *coterie.NotLeaderError
	switch {
	case o.Err == nil && cl.session == 0:
		cl.session = o.Index
		cl.seq = 1
	case o.Err == nil:
		cl.acked = append(cl.acked, cl.command())
		cl.read(cl.command())
		cl.seq++
	case errors.As(o.Err, &not) && not.Leader != "":
		cl.node = slices.Index(cl.c.nodes, not.Leader)
	case errors.Is(o.Err, consensus.ErrSessionExpired):
		panic(o.Err)
	default:
		cl.node = (cl.node + 1) % len(cl.c.nodes)
	}
	cl.attempt++ // the time-out is void
	cl.c.After(time.Duration(1+cl.c.Rand().IntN(20))*time.Millisecond, cl.try)
}

func (cl *client) read(command string) {
	app, _ := cl.c.App(cl.c.nodes[cl.node]).(*consensus.Inline)
	if app == nil {
		return
	}
	app.Read([]byte(command), func(o consensus.Outcome) {
		if o.Err == nil && string(o.Result) != "1" {
			cl.stale = append(cl.stale, fmt.Sprintf("%s: %s", command, o.Result))
		}
	})
}

func (c *cluster) run(length time.Duration) error {
	s := sim.DrawSchedule(c.Seed(), sim.Limits{Nodes: c.nodes, Length: length, MaxFor: length / 4})
	if err := c.Play(s); err != nil {
		return err
	}
	c.HealAll()
	before := len(c.clients[0].acked)
	if err := c.RunUntil(func() bool { return len(c.clients[0].acked) > before }, 20*300*time.Millisecond); err != nil {
		return fmt.Errorf("after the faults: %w", err)
	}
	c.quiet = true
	_ = c.Run(time.Second) // proposals on their way
	if err := c.RunUntil(c.level, 10*time.Second); err != nil {
		return fmt.Errorf("replicas are not level after the faults: %w", err)
	}
	return nil
}

// level reports whether every replica has applied all that any has.
func (c *cluster) level() bool {
	first := c.App(c.nodes[0]).(*consensus.Inline).Machine().Index()
	return !slices.ContainsFunc(c.nodes, func(id coterie.NodeID) bool {
		return c.App(id).(*consensus.Inline).Machine().Index() != first
	})
}

// check compares what clients know with what replicas have.
func (c *cluster) check() error {
	states := map[uint64][]byte{}
	for _, id := range c.nodes {
		m := c.App(id).(*consensus.Inline).Machine()
		frozen, err := m.Capture()
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if _, err := frozen.WriteTo(&b); err != nil {
			return err
		}
		if other, ok := states[m.Index()]; ok && !bytes.Equal(b.Bytes(), other) {
			return fmt.Errorf("states at %d differ:\n%q\n%q", m.Index(), other, b.Bytes())
		}
		states[m.Index()] = b.Bytes()
	}
	for _, cl := range c.clients {
		if len(cl.stale) > 0 {
			return fmt.Errorf("stale reads: %v", cl.stale)
		}
		for _, command := range cl.acked {
			found := 0
			for _, id := range c.nodes {
				found += c.ledgers[id].Counts[command]
			}
			if found != len(c.nodes) {
				return fmt.Errorf("%s is on %d replicas", command, found)
			}
		}
	}
	return nil
}

func TestSimExactlyOnce(t *testing.T) {
	commands, snapshots := 0, 0
	simtest.Seeds(t, testsize.N(60, 2000), func(t *testing.T, seed uint64) {
		c, err := newCluster(seed, nil, nil)
		require.NoError(t, err)
		require.NoError(t, c.run(4*time.Second))
		require.NoError(t, c.check())
		for _, cl := range c.clients {
			commands += len(cl.acked)
		}
		names, err := c.Snapshots("a").Names()
		require.NoError(t, err)
		require.LessOrEqual(t, len(names), 2, "snapshots that nobody names stay")
		snapshots += len(names)
	})
	require.NotZero(t, commands)
	require.NotZero(t, snapshots)
}

// A table of sessions that is not in the snapshots makes retries apply twice, or clients lose their sessions
// (CurvineIO/curvine#676, fluree/db#1839).
func TestSimFindsSessionsLostInSnapshots(t *testing.T) {
	for seed := uint64(1); seed <= 1000; seed++ {
		c, err := newCluster(seed, nil, consensus.LoseSessions)
		require.NoError(t, err)
		err = c.run(4 * time.Second)
		if err == nil {
			err = c.check()
		}
		if err != nil {
			t.Logf("seed %d: %.300v", seed, err)
			return
		}
	}
	t.Fatal("not found in 1000 seeds")
}

func TestSimIsDeterministic(t *testing.T) {
	simtest.RequireDeterministic(t, func(trace *sim.Trace) {
		c, err := newCluster(7, trace, nil)
		require.NoError(t, err)
		require.NoError(t, c.run(time.Second))
	})
}
