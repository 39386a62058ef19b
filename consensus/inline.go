package consensus

import (
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
)

// World is what an Inline needs of the *sim.World it is in.
type World interface {
	Do(id coterie.NodeID, f func(now time.Time, core coterie.Core)) error
	After(d time.Duration, f func())
	Up(id coterie.NodeID) bool
	Incarnation(id coterie.NodeID) uint64
	Snapshots(id coterie.NodeID) coterie.Snapshots
}

// InlineConfig tells an Inline what to do its work with.
type InlineConfig struct {
	ID        coterie.NodeID // required
	World     World          // required
	WriteTime time.Duration  // how long a snapshot is being written while the log goes on; default 0
	// Config is a Driver's. StateMachine and Clock, the World's, are required; Snapshots are the World's by default;
	// Transport, Journal, Check and Log are not used.
	Config
}

// Inline is a Driver without goroutines: it does the same work, by the same code, within the calls of whoever runs it.
// It is the application of a node of transport/sim (a sim.App, made anew for each incarnation). What stops a Driver is
// a panic of an Inline. It is not safe for concurrent use.
type Inline struct {
	cfg     InlineConfig
	life    uint64 // the incarnation
	machine *Machine
	desk    *desk[func(Outcome)]
	clerk   clerk
	done    batch[func(Outcome)]
	status  coterie.Status

	orphans   []string // what stood in Snapshots at first, until it is known what the journal names
	newest    uint64
	capturing bool
	telling   bool
	ticking   bool
	ticked    time.Time
	armed     time.Time
}

// NewInline makes the application of the node's present incarnation: call it in sim.Node's New. It panics if the config
// lacks what is required.
func NewInline(cfg InlineConfig) *Inline {
	if cfg.ID == "" || cfg.World == nil || cfg.StateMachine == nil || cfg.Clock == nil {
		panic("consensus: NewInline without ID, World, StateMachine or Clock")
	}
	cfg.Config = cfg.withDefaults()
	if cfg.Snapshots == nil {
		cfg.Snapshots = cfg.World.Snapshots(cfg.ID)
	}
	names, err := cfg.Snapshots.Names()
	if err != nil {
		panic(fmt.Errorf("consensus: snapshots: %w", err))
	}
	return &Inline{
		cfg:  cfg,
		life: cfg.World.Incarnation(cfg.ID),
		machine: NewMachine(MachineConfig{
			StateMachine: cfg.StateMachine, SnapshotBytes: cfg.SnapshotBytes, SnapshotEntries: cfg.SnapshotEntries, bug: cfg.bug,
		}),
		desk:    newDesk[func(Outcome)](cfg.MaxPending, cfg.MaxPendingBytes),
		clerk:   clerk{store: cfg.Snapshots},
		status:  coterie.Status{ID: cfg.ID},
		orphans: names,
	}
}

// do runs f with the core soon, unless the node crashes before.
func (n *Inline) do(f func(now time.Time, core Core)) {
	_ = n.cfg.World.Do(n.cfg.ID, func(now time.Time, core coterie.Core) { f(now, core.(Core)) }) // down: f is lost with it
}

// after runs f once, a duration from now, unless the node crashes before.
func (n *Inline) after(d time.Duration, f func()) {
	n.cfg.World.After(d, func() {
		if n.cfg.World.Up(n.cfg.ID) && n.cfg.World.Incarnation(n.cfg.ID) == n.life {
			f()
		}
	})
}

// Machine is the replicated state machine.
func (n *Inline) Machine() *Machine { return n.machine }

// Status is that of a Driver.
func (n *Inline) Status() coterie.Status { return n.status }

// Propose replicates a command, as that of a session's if tag is not zero, and calls done with what became of it; the
// command must not change until then. A crash is no answer.
func (n *Inline) Propose(tag Tag, command []byte, done func(Outcome)) {
	e := envelope{kind: kindPlain, body: command}
	if tag != (Tag{}) {
		e.kind, e.tag = kindOf, tag
	}
	n.propose(&e, done)
}

// OpenSession opens a session; Outcome.Index is its id.
func (n *Inline) OpenSession(done func(Outcome)) {
	n.propose(&envelope{kind: kindOpen, limits: n.cfg.limits()}, done)
}

// EndSession makes the replicas forget a session.
func (n *Inline) EndSession(id uint64, done func(Outcome)) {
	n.propose(&envelope{kind: kindEnd, tag: Tag{Session: id}}, done)
}

func (n *Inline) propose(e *envelope, done func(Outcome)) {
	if err := n.desk.room(len(e.body) + maxHeader); err != nil {
		done(Outcome{Err: err})
		return
	}
	first := n.desk.empty()
	n.desk.propose(e, done)
	if first {
		n.do(n.drain)
	}
}

// Read answers a query linearizably by calling done.
func (n *Inline) Read(query []byte, done func(Outcome)) {
	if err := n.desk.room(len(query)); err != nil {
		done(Outcome{Err: err})
		return
	}
	first := n.desk.empty()
	n.desk.read(query, done)
	if first {
		n.do(n.drain)
	}
}

func (n *Inline) drain(now time.Time, core Core) {
	b := n.desk.take(stampOf(n.cfg.Clock()), n.done)
	for _, p := range b.proposals {
		core.Propose(now, p.id, b.buf[p.begin:p.end:p.end])
	}
	if b.readID != 0 {
		core.Read(now, b.readID)
	}
	n.done = batch[func(Outcome)]{proposals: b.proposals}
}

// Event takes an event of the core.
func (n *Inline) Event(now time.Time, event any) {
	switch e := event.(type) {
	case Committed:
		n.removeOrphans("")
		n.status.Committed = e.Index + uint64(len(e.Entries)) - 1
		n.apply(e)
	case ReadAt:
		n.machine.ReadAt(e)
	case Rejected:
		n.reject(e)
	case Installed:
		n.removeOrphans(e.Snapshot.Name)
		n.must(load(n.cfg.Snapshots, n.machine, e))
		n.newest = e.Index
		n.status.Committed = max(n.status.Committed, e.Index)
		n.tellCore()
	case SnapshotDue:
		n.machine.due = !n.capturing // it is captured below
	case Superseded:
		n.must(n.clerk.remove(e.Name))
	case ReadChunk:
		data, err := n.clerk.read(e)
		n.do(func(now time.Time, core Core) { core.ChunkRead(now, e.ID, data, err) })
	case WriteChunk:
		err := n.clerk.write(e)
		n.do(func(now time.Time, core Core) { core.ChunkWritten(now, e.ID, err) })
	case Leader:
		n.status.Leader, n.status.Term = e.ID, e.Term
	}
	n.machine.Readable(n.answerRead)
	n.capture()
	n.tick()
	if n.cfg.Event != nil {
		n.cfg.Event(now, event)
	}
}

func (n *Inline) must(err error) {
	if err != nil {
		panic(err)
	}
}

func (n *Inline) removeOrphans(named string) {
	n.must(removeOrphans(n.cfg.Snapshots, n.orphans, named))
	n.orphans = nil
}

func (n *Inline) apply(c Committed) {
	outcomes, err := n.machine.Apply(c)
	n.must(err)
	n.tellCore()
	for _, o := range outcomes {
		if done, ok := n.desk.answered(o.ID); ok {
			done(o)
		}
	}
}

func (n *Inline) tellCore() {
	n.status.Applied = n.machine.Index()
	if n.telling {
		return
	}
	n.telling = true
	n.do(func(now time.Time, core Core) {
		n.telling = false
		core.Applied(now, n.machine.Index())
	})
}

func (n *Inline) reject(e Rejected) {
	if done, ok := n.desk.answered(e.ID); ok {
		done(Outcome{ID: e.ID, Err: e.Err})
	}
	for _, r := range n.desk.answeredRead(e.ID) {
		r.who(Outcome{Err: e.Err})
	}
}

func (n *Inline) answerRead(id uint64) {
	for _, r := range n.desk.answeredRead(id) {
		result, err := n.machine.Query(r.query)
		r.who(Outcome{Result: result, Err: err})
	}
}

func (n *Inline) capture() {
	if n.capturing || !n.machine.SnapshotDue() {
		return
	}
	c, err := n.machine.Capture()
	n.must(err)
	n.capturing = true
	n.after(n.cfg.WriteTime, func() { n.write(c) })
}

func (n *Inline) write(c *Capture) {
	n.capturing = false
	s, err := save(n.cfg.Snapshots, snapshotName(n.cfg.ID, c.Index), c, nil)
	switch {
	case err != nil: // a Driver logs it and goes on
	case c.Index <= n.newest:
		n.must(n.clerk.remove(s.Name))
	default:
		n.newest = c.Index
		n.machine.Written(s.Size)
		n.do(func(now time.Time, core Core) { core.Compact(now, c.Index, s) })
	}
}

func (n *Inline) tick() {
	at := n.machine.TickAt(n.ticked)
	if at.IsZero() || n.ticking || n.status.Leader != n.cfg.ID || at.Equal(n.armed) {
		return
	}
	now := n.cfg.Clock()
	if wait := at.Sub(now); wait > 0 {
		n.armed = at
		n.after(min(wait, longestTimer), func() {
			n.armed = time.Time{}
			n.tick()
		})
		return
	}
	n.ticked, n.ticking = now, true
	n.propose(&envelope{kind: kindTick}, func(Outcome) { n.ticking = false })
}
