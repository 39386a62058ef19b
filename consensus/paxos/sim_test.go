package paxos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/replication/consistency"
	"github.com/coterie-go/coterie/transport/sim"
)

// simOptions are one run's.
type simOptions struct {
	nodes    int
	seed     uint64
	bugs     bugs
	length   time.Duration // of the phase with faults
	rate     float64       // commands per second
	readRate float64
	link     *sim.Link
	disk     *sim.Disk
	drift    float64
	config   func(*Config)
	changes  bool // members change
	noFaults bool
	script   func(*simCluster) // more that goes wrong
	trace    *sim.Trace
}

type (
	registerLog = consistency.Recorder[consistency.Access[string], consistency.Answer[string]]
	counterLog  = consistency.Recorder[consistency.CounterIn, int64]
)

// simCluster is a world of Multi-Paxos nodes with clients, and what must hold of consensus at every event: agreement,
// validity and integrity.
type simCluster struct {
	o     simOptions
	w     *sim.World
	rand  *rand.Rand
	ids   []coterie.NodeID
	nodes map[coterie.NodeID]*simNode
	cfg   Config
	fail  error

	decided []decision // by slot, 0 for the beginning
	applied map[string]uint64
	issued  map[string]bool
	nextOp  int
	acked   int
	keys    map[string]*registerLog
	counter *counterLog
	counted int // operations on it
}

// maxCounted is how many operations the counter gets: to find an order of those whose outcome nobody knows takes long.
const maxCounted = 60

// decision is what is known of a slot.
type decision struct {
	origin  Ballot
	content uint64
}

// simNode is one node in its present incarnation.
type simNode struct {
	*consensus.Inline
	s       *simCluster
	id      coterie.NodeID
	core    *Core
	machine *tables
	emitted uint64
	seen    uint64 // of core.chosen, by the invariant
}

// tables is the state machine: registers and a counter.
type tables struct {
	s     *simCluster
	Index uint64
	Regs  map[string]string
	Sum   int64
}

func (m *tables) Apply(e coterie.Entry) []byte {
	command := string(e.Command)
	switch at, known := m.s.applied[command]; {
	case e.Index <= m.Index:
		m.s.broken("integrity: %d is applied after %d", e.Index, m.Index)
	case !m.s.issued[command]:
		m.s.broken("validity: nobody proposed %q", command)
	case known && at != e.Index:
		m.s.broken("integrity: %q is applied at %d and at %d", command, at, e.Index)
	}
	m.s.applied[command] = e.Index
	m.Index = e.Index
	words := strings.Fields(command)
	if words[0] == "add" {
		m.Sum++
		return fmt.Append(nil, m.Sum)
	}
	m.Regs[words[1]] = words[2]
	return nil
}

func (m *tables) Query(query []byte) ([]byte, error) {
	if string(query) == "sum" {
		return fmt.Append(nil, m.Sum), nil
	}
	return []byte(m.Regs[string(query)]), nil
}

func (m *tables) Snapshot() (func(io.Writer) error, error) {
	frozen, err := json.Marshal(m)
	return func(w io.Writer) error {
		_, err := w.Write(frozen)
		return err
	}, err
}

func (m *tables) Restore(r io.Reader) error {
	m.Regs = nil
	return json.NewDecoder(r).Decode(m)
}

func newSimCluster(o simOptions) *simCluster {
	s := &simCluster{
		o: o, rand: rand.New(rand.NewPCG(o.seed, 77)), nodes: map[coterie.NodeID]*simNode{}, decided: make([]decision, 1),
		applied: map[string]uint64{}, issued: map[string]bool{}, keys: map[string]*registerLog{},
	}
	cfg := sim.Config{Seed: o.seed, Trace: o.trace, MaxDrift: o.drift}
	if o.link != nil {
		cfg.Link = *o.link
	}
	if o.disk != nil {
		cfg.Disk = *o.disk
	}
	w, err := sim.New(cfg)
	if err != nil {
		panic(err)
	}
	s.w = w
	s.counter = &counterLog{Now: w.Now}
	s.cfg = Config{
		Voters: map[coterie.NodeID]string{}, ElectionTimeout: 150 * time.Millisecond, HeartbeatInterval: 30 * time.Millisecond,
		TrailingEntries: 8, SnapshotChunkBytes: 100, MaxMessageBytes: 256, Alpha: 32,
	}
	for i := range o.nodes {
		s.ids = append(s.ids, coterie.NodeID(rune('a'+i)))
		s.cfg.Voters[s.ids[i]] = ""
	}
	if o.config != nil {
		o.config(&s.cfg)
	}
	for _, id := range s.ids {
		if err := w.Add(id, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) { return s.start(id, incarnation) }}); err != nil {
			panic(err)
		}
	}
	w.Invariant("agreement", func(*sim.World) error { return s.check() })
	return s
}

func (s *simCluster) start(id coterie.NodeID, incarnation uint64) (coterie.Core, sim.App) {
	cfg := s.cfg
	cfg.ID = id
	cfg.Seed = s.o.seed*1000003 + incarnation*7919 + xxhash.Sum64String(string(id))
	core, err := NewCore(cfg)
	if err != nil {
		panic(err)
	}
	core.bugs = s.o.bugs
	n := &simNode{s: s, id: id, core: core, machine: &tables{s: s, Regs: map[string]string{}}}
	n.Inline = consensus.NewInline(consensus.InlineConfig{
		ID: id, World: s.w, WriteTime: 2 * time.Millisecond,
		Config: consensus.Config{StateMachine: n.machine, SnapshotEntries: 20 + s.rand.IntN(60), Clock: s.w.Clock(id).Now},
	})
	s.nodes[id] = n
	return core, n
}

// Event checks what a node says is decided, then lets its application have it.
func (n *simNode) Event(now time.Time, event any) {
	switch e := event.(type) {
	case consensus.Committed:
		if e.Index != n.emitted+1 {
			n.s.broken("integrity: %s emits %d after %d", n.id, e.Index, n.emitted)
			return
		}
		for _, entry := range e.Entries {
			n.emitted++
			n.s.decide(n, n.emitted, decision{content: contentOf(&entry)})
		}
	case consensus.Installed:
		if e.Index < n.emitted {
			n.s.broken("%s is thrown back from %d to %d", n.id, n.emitted, e.Index)
		}
		n.emitted = e.Index
	}
	if n.s.fail == nil {
		n.Inline.Event(now, event)
	}
}

func contentOf(e *consensus.Entry) uint64 {
	return xxhash.Sum64String(fmt.Sprint(e.Term, e.Internal, string(e.Command)))
}

// decide compares what a node takes for decided in a slot with what others did.
func (s *simCluster) decide(n *simNode, slot uint64, d decision) {
	for uint64(len(s.decided)) <= slot {
		s.decided = append(s.decided, decision{})
	}
	old := &s.decided[slot]
	if d.origin != (Ballot{}) && old.origin != (Ballot{}) && d.origin != old.origin || old.content != 0 && d.content != old.content {
		s.broken("agreement: slot %d is %v for %s, and was %v", slot, d, n.id, *old)
		return
	}
	old.content = d.content
	if d.origin != (Ballot{}) {
		old.origin = d.origin
	}
}

// check looks at every node that has come to know more.
func (s *simCluster) check() error {
	for _, id := range s.ids {
		n := s.nodes[id]
		if c := n.core; c.chosen > n.seen && s.w.Up(id) {
			for i := max(n.seen, c.log.start) + 1; i <= c.chosen; i++ {
				slot, e := c.log.at(i)
				s.decide(n, i, decision{c.log.ballot(slot.origin), contentOf(e)})
			}
			n.seen = c.chosen
		}
	}
	return s.fail
}

func (s *simCluster) broken(format string, args ...any) {
	if s.fail == nil {
		s.fail = fmt.Errorf(format, args...)
	}
}

// target is the node that a client turns to: mostly one that believes to lead.
func (s *simCluster) target() *simNode {
	if s.rand.IntN(10) > 0 {
		for _, i := range s.rand.Perm(len(s.ids)) {
			if n := s.nodes[s.ids[i]]; s.w.Up(n.id) && n.core.lead != nil {
				return n
			}
		}
	}
	return s.nodes[s.ids[s.rand.IntN(len(s.ids))]]
}

func (s *simCluster) register() (string, *registerLog) {
	k := string(rune('p' + s.rand.IntN(3)))
	if s.keys[k] == nil {
		s.keys[k] = &registerLog{Now: s.w.Now}
	}
	return k, s.keys[k]
}

// write proposes a new value of a register, or adds one to the counter.
func (s *simCluster) write() {
	n := s.target()
	if !s.w.Up(n.id) {
		return
	}
	s.nextOp++
	value := fmt.Sprint(s.nextOp)
	if s.rand.IntN(4) == 0 && s.counted < maxCounted {
		s.counted++
		op := s.counter.Invoke(s.nextOp, consistency.CounterIn{Kind: consistency.CounterAddGet, Delta: 1})
		s.issue(n, "add "+value, func(o consensus.Outcome) {
			var sum int64
			_, _ = fmt.Sscan(string(o.Result), &sum)
			s.counter.Return(op, sum)
		}, func() { s.counter.Fail(op) }, func() { s.counter.Unknown(op) })
		return
	}
	key, log := s.register()
	op := log.Invoke(s.nextOp, consistency.Access[string]{Kind: consistency.Write, Value: value})
	s.issue(n, "set "+key+" "+value, func(consensus.Outcome) { log.Return(op, consistency.Answer[string]{}) },
		func() { log.Fail(op) }, func() { log.Unknown(op) })
}

func (s *simCluster) issue(n *simNode, command string, done func(consensus.Outcome), failed, unknown func()) {
	s.issued[command] = true
	answered := false
	n.Propose(consensus.Tag{}, []byte(command), func(o consensus.Outcome) {
		if answered {
			s.broken("%q was answered twice", command)
		}
		answered = true
		switch {
		case o.Err == nil:
			s.acked++
			done(o)
		case errors.Is(o.Err, coterie.ErrUnknownOutcome):
			unknown()
		default:
			failed()
		}
	})
}

func (s *simCluster) read() {
	n := s.nodes[s.ids[s.rand.IntN(len(s.ids))]]
	if s.rand.IntN(2) == 0 {
		n = s.target()
	}
	if !s.w.Up(n.id) {
		return
	}
	s.nextOp++
	if s.rand.IntN(4) == 0 && s.counted < maxCounted {
		s.counted++
		op := s.counter.Invoke(s.nextOp, consistency.CounterIn{Kind: consistency.CounterRead})
		n.Read([]byte("sum"), func(o consensus.Outcome) {
			var sum int64
			if _, err := fmt.Sscan(string(o.Result), &sum); o.Err != nil || err != nil {
				s.counter.Fail(op)
				return
			}
			s.counter.Return(op, sum)
		})
		return
	}
	key, log := s.register()
	op := log.Invoke(s.nextOp, consistency.Access[string]{Kind: consistency.Read})
	n.Read([]byte(key), func(o consensus.Outcome) {
		if o.Err != nil {
			log.Fail(op)
			return
		}
		log.Return(op, consistency.Answer[string]{Value: string(o.Result)})
	})
}

// change asks a leader for other members.
func (s *simCluster) change() {
	n := s.target()
	var members []Member
	for _, i := range s.rand.Perm(len(s.ids))[:1+s.rand.IntN(len(s.ids))] {
		members = append(members, Member{ID: s.ids[i]})
	}
	_ = s.w.Do(n.id, func(now time.Time, core coterie.Core) { core.(*Core).Reconfigure(now, 1, members) })
}

// every calls f again and again, at random intervals of the mean given, until the phase with faults is over.
func (s *simCluster) every(mean time.Duration, f func()) {
	var again func()
	again = func() {
		if s.w.Elapsed() < s.o.length {
			f()
			s.w.After(time.Duration(s.rand.ExpFloat64()*float64(mean)), again)
		}
	}
	s.w.After(time.Duration(s.rand.ExpFloat64()*float64(mean)), again)
}

// run is one simulation: faults for a while, then the cluster must get to work again, and every client must have seen
// one history.
func (s *simCluster) run() error {
	o := &s.o
	if o.rate > 0 {
		s.every(time.Duration(float64(time.Second)/o.rate), s.write)
	}
	if o.readRate > 0 {
		s.every(time.Duration(float64(time.Second)/o.readRate), s.read)
	}
	if o.changes {
		s.every(500*time.Millisecond, s.change)
	}
	if o.script != nil {
		o.script(s)
	}
	if !o.noFaults {
		if err := s.w.Apply(sim.DrawSchedule(o.seed, sim.Limits{Nodes: s.ids, Length: o.length, MaxDrift: o.drift})); err != nil {
			return err
		}
	}
	if err := s.w.Run(o.length); err != nil {
		return err
	}
	s.w.HealAll()
	if err := s.recovers(); err != nil {
		return err
	}
	if n := s.w.Stats().Rejected; n > 0 {
		return fmt.Errorf("%d messages of correct nodes were refused as malformed", n)
	}
	return s.linearizable()
}

// recovers waits for progress within 20 election timeouts of the end of all faults, and for every member to have it all.
func (s *simCluster) recovers() error {
	limit := 20 * s.cfg.ElectionTimeout
	if s.o.link != nil || s.o.disk != nil {
		limit *= 2 // losses and slow disks go on
	}
	before := s.acked
	var again func()
	again = func() {
		if s.acked == before {
			s.write()
			s.w.After(s.cfg.ElectionTimeout/3, again)
		}
	}
	s.w.After(0, again)
	err := s.w.RunUntil(func() bool { return s.acked > before }, limit)
	if errors.Is(err, sim.ErrLimit) {
		return fmt.Errorf("no progress within %v of the end of all faults: %s", limit, s.describe())
	}
	if err != nil {
		return err
	}
	err = s.w.RunUntil(func() bool {
		last := uint64(len(s.decided) - 1)
		for _, id := range s.ids {
			if n := s.nodes[id]; n.emitted < last && n.core.member() {
				return false
			}
		}
		return true
	}, 2*limit)
	if errors.Is(err, sim.ErrLimit) {
		return fmt.Errorf("not everybody caught up within %v: %s", 2*limit, s.describe())
	}
	return err
}

func (s *simCluster) describe() string {
	text := fmt.Sprint("decided ", len(s.decided)-1)
	for _, id := range s.ids {
		c := s.nodes[id].core
		text += fmt.Sprintf("\n%s: promised %v leader %q log %d..%d base %d chosen %d emitted %d behind %+v", id, c.promised, c.leader,
			c.log.start, c.log.last(), c.base.slot, c.chosen, c.emitted, c.behind)
		if c.bid != nil {
			text += fmt.Sprintf("\n   bid %v poll %t last %d promises %v", c.bid.ballot, c.bid.poll, c.bid.last, c.bid.promises)
		}
		if c.lead != nil {
			text += fmt.Sprintf("\n   next %d inherited %d queue %d", c.lead.next, c.lead.inherited, len(c.lead.queue))
		}
		for _, conf := range c.confs {
			text += fmt.Sprintf("\n   from %d %v", conf.from, conf.members)
		}
	}
	return text
}

func (s *simCluster) linearizable() error {
	for _, k := range slices.Sorted(maps.Keys(s.keys)) {
		r, err := consistency.Linearizable(context.Background(), s.keys[k].History(), consistency.Register(""))
		if err == nil && r.Verdict != consistency.Holds {
			err = fmt.Errorf("register %s is not linearizable: %v", k, r)
		}
		if err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	r, err := consistency.Linearizable(ctx, s.counter.History(), consistency.Counter())
	if err == nil && r.Verdict == consistency.Violated {
		err = fmt.Errorf("the counter is not linearizable: %v", r)
	}
	return err
}
