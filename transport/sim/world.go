package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/coterie-go/coterie"
)

// World is a simulated cluster: nodes, links, disks, clocks and one queue of events. It is not safe for concurrent use.
type World struct {
	cfg        Config
	now        int64 // nanoseconds since Config.Start
	queue      queue
	nodes      []*node
	index      map[coterie.NodeID]int32
	splits     []split
	rng        *rand.Rand
	invariants []invariant
	err        error // final once set
	stats      Stats
	trace      *Trace
	messages   uint64 // ids given to messages so far
	faults     uint64 // ids given to faults of schedules so far
	healed     uint64 // how often HealAll was called
	depth      int    // events under way
	still      int    // events since time last moved
}

type invariant struct {
	name  string
	check func(*World) error
}

// maxStill is how many events may happen at one instant before the world is taken to be stuck in a circle.
const maxStill = 1_000_000

// Errors of a World.
var (
	// ErrDown is returned by Do on a node that is not running. Restart it, or wait for its restart.
	ErrDown = errors.New("sim: node is down")
	// ErrUnknownNode is returned for an id that was never added.
	ErrUnknownNode = errors.New("sim: unknown node")
	// ErrLimit is returned by RunUntil when the condition did not come true in time.
	ErrLimit = errors.New("sim: condition not met in time")

	errNoWorld = errors.New("sim: the trace belongs to no world: put it into Config.Trace")
)

// ViolationError is a broken invariant, a panic or a broken contract: what a simulation is run to find.
type ViolationError struct {
	Seed    uint64        // of the Config
	Time    time.Time     // virtual time at which it was seen
	Elapsed time.Duration // since Config.Start
	Event   uint64        // number of the event after which it was seen
	Name    string        // the invariant's name; "panic", "replay", "immutable" or "livelock" are the world's own
	Err     error         // what the invariant returned
}

// Error says what broke, when, and how to see it again.
func (e *ViolationError) Error() string {
	return fmt.Sprintf("sim: %s violated at %v, event %d, seed %d: %v (replay it with Config.Seed %d, or COTERIE_SEED=%d under simtest.Seeds)",
		e.Name, e.Elapsed, e.Event, e.Seed, e.Err, e.Seed, e.Seed)
}

// Unwrap returns the invariant's error.
func (e *ViolationError) Unwrap() error { return e.Err }

// PanicError is the Err of a violation by a core or an application that panicked.
type PanicError struct {
	Node  coterie.NodeID
	Value any
	Stack []byte
}

// Error gives the value and the stack.
func (e *PanicError) Error() string {
	return fmt.Sprintf("%s panicked: %v\n%s", e.Node, e.Value, e.Stack)
}

// New makes an empty world. The error names the field of Config that is wrong.
func New(cfg Config) (*World, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := newSource(cfg.Seed, "test", "", "")
	w := &World{cfg: cfg, index: map[coterie.NodeID]int32{}, rng: rand.New(&s.pcg), trace: cfg.Trace}
	if w.trace != nil {
		w.trace.begin(w)
	}
	return w, nil
}

// Add starts a node. Its Core exists when Add returns, its first Tick comes with the first event.
func (w *World) Add(id coterie.NodeID, spec Node) error {
	if _, ok := w.index[id]; ok || id == "" {
		return fmt.Errorf("sim: node %q is empty or already there", id)
	}
	if spec.New == nil {
		return fmt.Errorf("sim: Node.New of %s is nil", id)
	}
	n := newNode(w, id, spec)
	w.index[id] = n.index
	w.nodes = append(w.nodes, n)
	n.start()
	return w.err
}

// Now is the virtual time.
func (w *World) Now() time.Time { return w.cfg.Start.Add(time.Duration(w.now)) }

// Elapsed is the virtual time since Config.Start.
func (w *World) Elapsed() time.Duration { return time.Duration(w.now) }

// Seed is that of the Config.
func (w *World) Seed() uint64 { return w.cfg.Seed }

// Rand is for the test's own draws: a stream that the world itself never uses.
func (w *World) Rand() *rand.Rand { return w.rng }

// Nodes lists all nodes, up or down, in the order in which they were added.
func (w *World) Nodes() []coterie.NodeID {
	ids := make([]coterie.NodeID, len(w.nodes))
	for i, n := range w.nodes {
		ids[i] = n.id
	}
	return ids
}

// Up reports whether the node runs; a paused node does. An unknown one does not.
func (w *World) Up(id coterie.NodeID) bool {
	i, ok := w.index[id]
	return ok && w.nodes[i].up
}

// Core is the node's core, nil while it is down or unknown. A core that wraps another and tells so by
// Unwrap() coterie.Core, as the Byzantine ones of this package do, is looked through.
func (w *World) Core(id coterie.NodeID) coterie.Core {
	if i, ok := w.index[id]; ok && w.nodes[i].up {
		return w.nodes[i].inner
	}
	return nil
}

// App is the node's application, nil while it is down, unknown or has none.
func (w *World) App(id coterie.NodeID) App {
	if i, ok := w.index[id]; ok && w.nodes[i].up {
		return w.nodes[i].app
	}
	return nil
}

// Incarnation is how often the node has been started; 0 if it is unknown.
func (w *World) Incarnation(id coterie.NodeID) uint64 {
	if i, ok := w.index[id]; ok {
		return w.nodes[i].incarnation
	}
	return 0
}

// Clock is the node's wall clock, which lives on across its crashes. It panics if the node is unknown.
func (w *World) Clock(id coterie.NodeID) *Clock { return &w.must(id).clock }

// Do makes a typed call: f gets the node's core (see Core) within the node's loop, and the batch's Ready follows. f
// has run when Do returns, unless the node is paused, its disk hangs or the call comes from within that node's own
// batch (from its App or another f): then it runs in the node's next batch, or never if the node crashes before.
//
// The error is ErrDown, ErrUnknownNode, or the violation that stopped the world.
func (w *World) Do(id coterie.NodeID, f func(now time.Time, core coterie.Core)) error {
	i, ok := w.index[id]
	switch {
	case w.err != nil:
		return w.err
	case !ok:
		return fmt.Errorf("do on %s: %w", id, ErrUnknownNode)
	case !w.nodes[i].up:
		return fmt.Errorf("do on %s: %w", id, ErrDown)
	}
	n := w.nodes[i]
	n.inbox = append(n.inbox, mail{call: f})
	if n.inLoop || n.blocked() {
		return nil
	}
	w.depth++
	n.batch()
	n.kick()
	w.depth--
	if w.depth == 0 {
		w.check()
	}
	return w.err
}

// After runs f once, a duration from now: for clients, scripts and whatever else is not a node.
func (w *World) After(d time.Duration, f func()) {
	w.queue.push(w.in(d)).call(f)
}

// in is the time a duration from now, bounded against overflow.
func (w *World) in(d time.Duration) int64 { return w.now + min(max(int64(d), 0), never-w.now) }

func (e *event) call(f func()) { e.kind, e.fn = evCall, f }

// Invariant adds a check that runs after every event. The first error stops the world with a *ViolationError.
func (w *World) Invariant(name string, check func(*World) error) {
	w.invariants = append(w.invariants, invariant{name, check})
}

// Err is the violation that stopped the world, nil while there is none.
func (w *World) Err() error { return w.err }

// Step performs one event, and reports false if there was none left or the world has stopped.
func (w *World) Step() (bool, error) {
	if w.err != nil || w.queue.len() == 0 {
		return false, w.err
	}
	at, ev := w.queue.pop()
	if at > w.now {
		w.now, w.still = at, 0
	}
	w.depth++
	did := w.perform(&ev)
	w.depth--
	if did {
		w.stats.Events++
		if w.still++; w.still > maxStill {
			w.fail("livelock", fmt.Errorf("%d events without time passing", w.still))
		}
		w.check()
	}
	return true, w.err
}

// Run lets a duration of virtual time pass. It returns the violation that stopped the world, if any.
func (w *World) Run(d time.Duration) error {
	end := w.in(d)
	for w.err == nil && w.queue.len() > 0 && w.queue.next() <= end {
		if _, err := w.Step(); err != nil {
			return err
		}
	}
	if w.err == nil {
		w.now = max(w.now, end)
	}
	return w.err
}

// RunUntil lets virtual time pass until the condition holds, which is asked at first and after every event. If it does
// not within the limit, the error is ErrLimit.
func (w *World) RunUntil(cond func() bool, limit time.Duration) error {
	end := w.in(limit)
	for w.err == nil && !cond() {
		if w.queue.len() == 0 || w.queue.next() > end {
			w.now = max(w.now, end)
			return fmt.Errorf("%w: %v passed, seed %d", ErrLimit, limit, w.cfg.Seed)
		}
		if _, err := w.Step(); err != nil {
			return err
		}
	}
	return w.err
}

// perform reports whether the event did anything; one of an earlier incarnation does not.
func (w *World) perform(ev *event) bool {
	switch ev.kind {
	case evCall:
		ev.fn()
	case evMessage:
		w.nodes[ev.node].arrive(ev)
	case evRestart:
		n := w.nodes[ev.node]
		if n.up || ev.gen != n.gen() || w.now < n.downUntil {
			return false
		}
		n.start()
		n.kick()
	case evRun, evWake, evSynced, evCrash:
		n := w.nodes[ev.node]
		return n.up && ev.gen == n.gen() && n.perform(ev.kind)
	}
	return true
}

func (w *World) check() {
	for i := range w.invariants {
		if w.err != nil {
			return
		}
		if err := w.invariants[i].check(w); err != nil {
			w.fail(w.invariants[i].name, err)
		}
	}
}

// fail stops the world at its first violation.
func (w *World) fail(name string, err error) {
	if w.err != nil {
		return
	}
	w.err = &ViolationError{Seed: w.cfg.Seed, Time: w.Now(), Elapsed: w.Elapsed(), Event: w.stats.Events, Name: name, Err: err}
	if w.trace != nil {
		w.trace.add(entry{at: w.now, kind: traceViolation, node: -1, peer: -1, text: name + ": " + err.Error()})
	}
}

// caught turns a panic of a core or an application into a violation. A panic with another value than a string or an
// error is how a test framework leaves a test (rapid does), and goes on.
func (n *node) caught() {
	switch v := recover().(type) {
	case nil:
	case string, error:
		n.w.fail("panic", &PanicError{Node: n.id, Value: v, Stack: debug.Stack()})
	default:
		panic(v)
	}
}

func (w *World) must(id coterie.NodeID) *node {
	i, ok := w.index[id]
	if !ok {
		panic(fmt.Sprintf("sim: no node %q", id))
	}
	return w.nodes[i]
}
