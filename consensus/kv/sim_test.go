package kv

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/consensus/raft"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
)

const (
	simTTL   = 2 * time.Second
	simDrift = time.Second
)

// plant is what a simulation is to find.
type plant struct {
	store    bug
	careless bool // clients do not look at their own clocks
	sweeping bool // clients release by removing whoever holds the lock
}

// world is three replicas of a store, and clients outside of it that contend for one lock.
type world struct {
	*sim.World
	plant   plant
	nodes   []coterie.NodeID
	stores  map[coterie.NodeID]*Store
	clients []*simClient
	fence   *lock.Fence
	quiet   bool

	held    uint64            // the largest token that was held
	writers map[uint64]string // who wrote with a token
	stale   int
}

func newWorld(seed uint64, trace *sim.Trace, p plant) (*world, error) {
	w, err := sim.New(sim.Config{
		Seed: seed, Trace: trace, Link: sim.Link{Loss: 0.02, Duplicate: 0.02, Reorder: 0.1}, MaxSkew: 100 * time.Millisecond, MaxDrift: 100,
	})
	if err != nil {
		return nil, err
	}
	fence, err := lock.NewFence(lock.FenceConfig{})
	if err != nil {
		return nil, err
	}
	x := &world{
		World: w, plant: p, nodes: []coterie.NodeID{"a", "b", "c"}, stores: map[coterie.NodeID]*Store{}, fence: fence, writers: map[uint64]string{},
	}
	for _, id := range x.nodes {
		if err := w.Add(id, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) { return x.start(id, incarnation) }}); err != nil {
			return nil, err
		}
	}
	for i := range 4 {
		c := &simClient{w: x, name: fmt.Sprint("client", i), node: i % 3, pending: map[uint64]bool{}}
		x.clients = append(x.clients, c)
		w.After(time.Duration(i)*time.Millisecond, c.open)
	}
	w.Invariant("one holder", x.oneHolder)
	return x, nil
}

func (w *world) oneHolder(*sim.World) error {
	var holder *simClient
	for _, c := range w.clients {
		if !c.holding || !w.Now().Before(c.expires) {
			continue
		}
		if holder != nil {
			return fmt.Errorf("%s with token %d and %s with token %d both believe that they hold the lock", holder.name, holder.token, c.name, c.token)
		}
		holder = c
	}
	return nil
}

func (w *world) start(id coterie.NodeID, incarnation uint64) (coterie.Core, sim.App) {
	core, err := raft.NewCore(raft.Config{
		ID: id, Voters: map[coterie.NodeID]string{"a": "", "b": "", "c": ""}, Seed: w.Seed()*1000 + incarnation*10 + uint64(id[0]),
		ElectionTimeout: 150 * time.Millisecond, TrailingEntries: 2,
	})
	if err != nil {
		panic(err)
	}
	s, err := New(Config{HistorySize: 20})
	if err != nil {
		panic(err)
	}
	s.bug = w.plant.store
	w.stores[id] = s
	return core, consensus.NewInline(consensus.InlineConfig{
		ID: id, World: w.World, WriteTime: 3 * time.Millisecond,
		Config: consensus.Config{StateMachine: s, SnapshotEntries: 12, Clock: w.Clock(id).Now},
	})
}

// simClient contends for the lock by the recipe of lock/leased, and writes to a resource behind a Fence. Sometimes it is
// paused, and goes on where it was.
type simClient struct {
	w       *world
	name    string
	node    int
	session uint64
	seq     uint64
	pending map[uint64]bool
	paused  time.Time // until then

	lease   uint64
	expires time.Time // by its own clock
	key     string    // in the queue
	token   uint64
	holding bool
	entries int
	last    error // what was wrong
}

// after runs f later, when the client is not paused.
func (c *simClient) after(d time.Duration, f func()) {
	c.w.After(d, func() {
		if wait := c.paused.Sub(c.w.Now()); wait > 0 {
			c.after(wait, f)
			return
		}
		f()
	})
}

func (c *simClient) alive() bool {
	return c.lease != 0 && (c.w.plant.careless || c.w.Now().Before(c.expires))
}

func (c *simClient) app() *consensus.Inline {
	app, _ := c.w.App(c.w.nodes[c.node]).(*consensus.Inline)
	return app
}

func (c *simClient) open() {
	c.retry(func(app *consensus.Inline, done func(consensus.Outcome)) { app.OpenSession(done) }, func(o consensus.Outcome) {
		c.session = o.Index
		c.grant()
	})
}

// do has a command applied exactly once, and calls done with the answer.
func (c *simClient) do(command []byte, done func(r wire.Reader, revision uint64, err error)) {
	c.seq++
	seq := c.seq
	c.pending[seq] = true
	c.retry(func(app *consensus.Inline, done func(consensus.Outcome)) {
		low := seq
		for s := range c.pending {
			low = min(low, s)
		}
		app.Propose(consensus.Tag{Session: c.session, Seq: seq, Low: low}, command, done)
	}, func(o consensus.Outcome) {
		delete(c.pending, seq)
		done(readAnswer(o.Result))
	})
}

// retry makes a call until it is answered, whichever replica leads.
func (c *simClient) retry(call func(app *consensus.Inline, done func(consensus.Outcome)), done func(consensus.Outcome)) {
	answered := false
	var try func()
	try = func() {
		if answered || c.w.quiet {
			return
		}
		if app := c.app(); app != nil {
			call(app, func(o consensus.Outcome) {
				c.after(time.Duration(c.w.Rand().IntN(2000))*time.Microsecond, func() { // the way back
					if answered {
						return
					}
					if o.Err == nil {
						answered = true
						done(o)
						return
					}
					if not := (*coterie.NotLeaderError)(nil); errors.As(o.Err, &not) && not.Leader != "" {
						c.node = slices.Index(c.w.nodes, not.Leader)
					} else {
						c.node = c.w.Rand().IntN(3)
					}
				})
			})
		}
		c.after(time.Duration(50+c.w.Rand().IntN(50))*time.Millisecond, func() {
			if !answered && c.w.Rand().IntN(3) == 0 {
				c.node = c.w.Rand().IntN(3)
			}
			try()
		})
	}
	try()
}

// grant begins anew, with a new lease.
func (c *simClient) grant() {
	c.lease, c.holding = 0, false
	sent := c.w.Now()
	c.do(wire.AppendVarint(start(cmdGrant), int64(simTTL)), func(r wire.Reader, _ uint64, err error) {
		if err != nil {
			c.last = err
			return
		}
		c.lease, c.expires = r.Uvarint(), sent.Add(simTTL-simDrift)
		c.after(200*time.Millisecond, c.renewer(c.lease))
		c.enter()
	})
}

func (c *simClient) renewer(lease uint64) func() {
	return func() {
		if c.lease != lease {
			return
		}
		sent := c.w.Now()
		c.do(wire.AppendUvarint(start(cmdKeepAlive), lease), func(_ wire.Reader, _ uint64, err error) {
			switch {
			case c.lease != lease:
			case err == nil && c.alive():
				c.expires = sent.Add(simTTL - simDrift)
				c.after(200*time.Millisecond, c.renewer(lease))
			default:
				c.lease, c.holding = 0, false // whoever waits for something finds out
			}
		})
	}
}

func (c *simClient) enter() {
	if !c.alive() {
		c.grant()
		return
	}
	txn := Txn{Then: []Op{Get{Span: Prefix("q/"), CountOnly: true}, Put{Key: "q/", Lease: c.lease, Sequential: true}}}
	c.do(txn.encode(), func(r wire.Reader, revision uint64, err error) {
		if errors.Is(err, ErrNoLease) {
			c.grant()
			return
		}
		res, err := readTxnResult(&r, revision)
		if err != nil {
			c.last = err
			return
		}
		c.key, c.token = res.Results[1].Key, revision
		c.wait()
	})
}

// wait asks any one replica, which answers from what it has applied.
func (c *simClient) wait() {
	if !c.alive() {
		c.grant()
		return
	}
	s := c.w.stores[c.w.nodes[c.w.Rand().IntN(3)]]
	q := query{kind: queryTurn, turn: Turn{Key: c.key, Spans: []Span{{"q/", c.key}}, Revision: c.token}}
	b, err := s.Query(q.encode())
	if err != nil {
		c.last = err
		return
	}
	r, _, err := readAnswer(b)
	there, turn := r.Bool(), r.Bool()
	if err != nil || c.w.Rand().IntN(50) == 0 {
		c.pause()
	}
	switch {
	case there && !turn:
		c.after(time.Duration(5+c.w.Rand().IntN(20))*time.Millisecond, c.wait)
	case !there:
		c.enter()
	default:
		c.after(0, c.hold)
	}
}

func (c *simClient) pause() {
	c.paused = c.w.Now().Add(time.Duration(c.w.Rand().IntN(4000)) * time.Millisecond)
}

func (c *simClient) hold() {
	if !c.alive() {
		c.grant()
		return
	}
	if c.token <= c.w.held {
		c.last = fmt.Errorf("%s holds the lock with token %d after token %d", c.name, c.token, c.w.held)
	}
	c.w.held = c.token
	c.holding = true
	c.entries++
	c.write(c.w.Rand().IntN(4))
}

// write writes without looking at the clock: that is what the Fence is for.
func (c *simClient) write(more int) {
	err := c.w.fence.Guard("x", c.token, func() error {
		if who := c.w.writers[c.token]; who != "" && who != c.key+c.name {
			return fmt.Errorf("token %d was accepted from %s and from %s", c.token, who, c.key+c.name)
		}
		c.w.writers[c.token] = c.key + c.name
		return nil
	})
	switch {
	case errors.Is(err, lock.ErrStale):
		c.w.stale++
	case err != nil:
		c.last = err
	}
	if c.w.Rand().IntN(8) == 0 {
		c.pause()
	}
	c.after(time.Duration(c.w.Rand().IntN(100))*time.Millisecond, func() {
		if more > 0 {
			c.write(more - 1)
		} else {
			c.release()
		}
	})
}

func (c *simClient) release() {
	c.holding = false
	d := Delete{Span: Key(c.key)}
	if c.w.plant.sweeping {
		q := Prefix("q/")
		for k := range c.w.stores[c.w.nodes[c.node]].View().All(q) {
			d.Span = Key(k.Key)
			break
		}
	}
	txn := Txn{Then: []Op{d}}
	c.do(txn.encode(), func(wire.Reader, uint64, error) { c.enter() })
}

// run plays faults, then asks for progress of every client, and compares the replicas.
func (w *world) run(length time.Duration) error {
	kinds := slices.DeleteFunc(sim.FaultKinds(), func(k sim.FaultKind) bool { return k == sim.FaultJump })
	s := sim.DrawSchedule(w.Seed(), sim.Limits{Nodes: w.nodes, Length: length, MaxFor: length / 4, Kinds: kinds})
	if err := w.Play(s); err != nil {
		return err
	}
	w.HealAll()
	before := make([]int, len(w.clients))
	for i, c := range w.clients {
		before[i] = c.entries
	}
	progress := func() bool {
		for i, c := range w.clients {
			if c.entries == before[i] && c.last == nil {
				return false
			}
		}
		return true
	}
	if err := w.RunUntil(progress, 2*time.Minute); err != nil {
		return fmt.Errorf("after the faults: %w", err)
	}
	for _, c := range w.clients {
		if c.last != nil {
			return c.last
		}
	}
	w.quiet = true
	_ = w.Run(simTTL + time.Second)
	return w.RunUntil(w.level, 10*time.Second)
}

// level reports whether all replicas have the same state.
func (w *world) level() bool {
	var first []byte
	for _, id := range w.nodes {
		write, err := w.stores[id].Snapshot()
		if err != nil {
			panic(err)
		}
		var b bytes.Buffer
		_ = write(&b)
		if first == nil {
			first = b.Bytes()
		} else if !bytes.Equal(first, b.Bytes()) {
			return false
		}
	}
	return true
}

// Replicas crash, are cut off, and have clocks that differ; clients are paused. Never two holders, tokens strictly
// increase, everyone enters.
func TestSimLocks(t *testing.T) {
	entries, stale := 0, 0
	simtest.Seeds(t, testsize.N(60, 3000), func(t *testing.T, seed uint64) {
		w, err := newWorld(seed, nil, plant{})
		require.NoError(t, err)
		require.NoError(t, w.run(5*time.Second))
		for _, c := range w.clients {
			entries += c.entries
		}
		stale += w.stale
	})
	t.Logf("%d entries, %d stale writes refused", entries, stale)
	require.NotZero(t, entries)
	if !testsize.Race() {
		require.NotZero(t, stale, "no pause was long enough")
	}
}

func TestSimFindsPlantedBugs(t *testing.T) {
	for name, p := range map[string]plant{
		"a lease renewed after its expiry":        {store: bugLateRenewal, careless: true},
		"a token reused after leader change":      {store: bugForgetfulSnapshot},
		"a waiter granted after its session died": {store: bugGrantDead, careless: true},
		"a release by a former holder":            {sweeping: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(1); seed <= 500; seed++ {
				w, err := newWorld(seed, nil, p)
				require.NoError(t, err)
				if err := w.run(5 * time.Second); err != nil {
					t.Logf("seed %d: %.300v", seed, err)
					return
				}
			}
			t.Fatal("not found in 500 seeds")
		})
	}
}

func TestSimIsDeterministic(t *testing.T) {
	simtest.RequireDeterministic(t, func(trace *sim.Trace) {
		w, err := newWorld(3, trace, plant{})
		require.NoError(t, err)
		require.NoError(t, w.run(2*time.Second))
	})
}
