package raft

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/replication/consistency"
	"github.com/coterie-go/coterie/transport/sim"
)

// simNode is one node of a simulated cluster in its present incarnation, and its application: registers, and a hash of
// everything applied.
type simNode struct {
	s    *simCluster
	id   coterie.NodeID
	core *Core

	index   uint64
	chain   uint64
	regs    map[string]string
	reads   map[uint64]simRead // by read id, until the state is new enough
	queued  []simRead
	dead    bool // a broken file stops the node, as a driver would
	partial struct {
		name string
		w    io.WriteCloser
		sum  *xxhash.Digest
	}
	snapshots int
	lastSnap  uint64
}

type simRead struct {
	op    int
	key   string
	index uint64
}

// simOptions are one run's.
type simOptions struct {
	nodes    int
	seed     uint64
	bugs     bugs
	length   time.Duration // of the phase with faults
	rate     float64       // proposals per second
	fewer    func(*sim.Limits)
	config   func(*Config)
	link     *sim.Link
	disk     *sim.Disk
	drift    float64
	witness  bool
	changes  bool // members change
	noFaults bool
	trace    *sim.Trace
	readRate float64
	script   func(*simCluster) // more that goes wrong
}

type recorder = consistency.Recorder[consistency.Access[string], consistency.Answer[string]]

type simOp struct {
	key string
	op  int
}

// simCluster is a world of Raft nodes with clients and the invariants of the paper's figure 3.
type simCluster struct {
	o     simOptions
	w     *sim.World
	rand  *rand.Rand
	ids   []coterie.NodeID
	nodes map[coterie.NodeID]*simNode
	order []*simNode
	cfg   Config

	inv  invariants
	fail error // what an application found

	nextOp uint64
	ops    map[uint64]simOp // proposals under way
	acked  int
	keys   map[string]*recorder
}

func newSimCluster(o simOptions) *simCluster {
	r := rand.New(rand.NewPCG(o.seed, 77))
	s := &simCluster{
		o: o, rand: r, nodes: map[coterie.NodeID]*simNode{}, ops: map[uint64]simOp{}, keys: map[string]*recorder{},
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
	s.cfg = Config{
		Voters: map[coterie.NodeID]string{}, ElectionTimeout: 150 * time.Millisecond,
		HeartbeatInterval: 30 * time.Millisecond, TrailingEntries: 8, SnapshotChunkBytes: 64, MaxMessageBytes: 256,
		MaxInflightBytes: 1024,
	}
	for i := range o.nodes {
		id := coterie.NodeID(rune('a' + i))
		s.ids = append(s.ids, id)
		if o.witness && i == o.nodes-1 {
			s.cfg.Witnesses = map[coterie.NodeID]string{id: ""}
		} else {
			s.cfg.Voters[id] = ""
		}
	}
	if o.config != nil {
		o.config(&s.cfg)
	}
	s.inv.init(s)
	for _, id := range s.ids {
		s.add(id, false)
	}
	w.Invariant("figure 3", func(*sim.World) error { return s.inv.check() })
	return s
}

// add starts a node; one that joins waits to be added to the configuration.
func (s *simCluster) add(id coterie.NodeID, join bool) {
	err := s.w.Add(id, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) {
		cfg := s.cfg
		cfg.ID, cfg.Join = id, join
		cfg.Seed = s.o.seed*1000003 + incarnation*7919 + xxhash.Sum64String(string(id))
		core, err := NewCore(cfg)
		if err != nil {
			panic(err)
		}
		core.bugs = s.o.bugs
		n := &simNode{s: s, id: id, core: core, regs: map[string]string{}, reads: map[uint64]simRead{}}
		s.nodes[id] = n
		s.order = slices.Collect(func(yield func(*simNode) bool) {
			for _, id := range slices.Sorted(maps.Keys(s.nodes)) {
				if !yield(s.nodes[id]) {
					return
				}
			}
		})
		s.inv.restarted(id)
		return core, n
	}})
	if err != nil {
		panic(err)
	}
}

// Event is the application.
func (n *simNode) Event(_ time.Time, event any) {
	if n.dead {
		return
	}
	switch e := event.(type) {
	case consensus.Committed:
		n.apply(e)
	case consensus.Installed:
		n.restore(e)
	case consensus.ReadAt:
		if r, ok := n.reads[e.ID]; ok {
			delete(n.reads, e.ID)
			r.index = e.Index
			n.queued = append(n.queued, r)
			n.answer()
		}
	case consensus.Rejected:
		n.s.rejected(n, e)
	case consensus.ReadChunk:
		data, err := n.readChunk(e)
		n.do(func(now time.Time, c *Core) { c.ChunkRead(now, e.ID, data, err) })
	case consensus.WriteChunk:
		err := n.writeChunk(e)
		n.do(func(now time.Time, c *Core) { c.ChunkWritten(now, e.ID, err) })
	case consensus.Superseded:
		if e.Name != "" {
			_ = n.s.w.Snapshots(n.id).Remove(e.Name)
		}
	}
}

func (n *simNode) do(f func(time.Time, *Core)) {
	_ = n.s.w.Do(n.id, func(now time.Time, core coterie.Core) { f(now, core.(*Core)) })
}

func (n *simNode) apply(e consensus.Committed) {
	if e.Index != n.index+1 {
		n.s.broken("%s applies %d after %d", n.id, e.Index, n.index)
		return
	}
	for _, entry := range e.Entries {
		n.index++
		n.chain = chainOf(n.chain, entry)
		if entry.Internal {
			continue
		}
		r := bytes.SplitN(entry.Command, []byte("="), 2)
		n.regs[string(r[0])] = string(r[1])
		if entry.ID != 0 {
			n.s.committed(entry.ID)
		}
	}
	if want, ok := n.s.inv.chainAt(n.index); ok && want != n.chain {
		n.s.broken("%s has applied another history through %d", n.id, n.index)
	}
	index := n.index
	n.do(func(now time.Time, c *Core) { c.Applied(now, index) })
	n.answer()
	if n.index-n.lastSnap >= uint64(20+n.s.rand.IntN(60)) {
		n.snapshot()
	}
}

func chainOf(chain uint64, e consensus.Entry) uint64 {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], chain)
	d := xxhash.New()
	_, _ = d.Write(b[:])
	if !e.Internal {
		_, _ = d.Write(e.Command)
	}
	return d.Sum64()
}

func (n *simNode) answer() {
	kept := n.queued[:0]
	for _, r := range n.queued {
		if r.index > n.index {
			kept = append(kept, r)
			continue
		}
		n.s.keys[r.key].Return(r.op, consistency.Answer[string]{Value: n.regs[r.key]})
	}
	n.queued = kept
}

func (n *simNode) snapshot() {
	n.lastSnap = n.index
	n.snapshots++
	b := binary.BigEndian.AppendUint64(nil, n.chain)
	for _, k := range slices.Sorted(maps.Keys(n.regs)) {
		b = append(b, k...)
		b = append(b, '=')
		b = append(b, n.regs[k]...)
		b = append(b, '\n')
	}
	name := fmt.Sprintf("own-%d-%d", n.index, n.s.w.Incarnation(n.id))
	f, err := n.s.w.Snapshots(n.id).Create(name)
	if err != nil {
		return
	}
	if _, err = f.Write(b); err != nil {
		return
	}
	if f.Close() != nil {
		return
	}
	snap := consensus.Snapshot{Name: name, Size: int64(len(b)), Checksum: xxhash.Sum64(b)}
	index := n.index
	n.do(func(now time.Time, c *Core) { c.Compact(now, index, snap) })
}

func (n *simNode) restore(e consensus.Installed) {
	f, err := n.s.w.Snapshots(n.id).Open(e.Snapshot.Name)
	if err != nil {
		n.s.broken("%s: installed snapshot: %v", n.id, err)
		return
	}
	b, _ := io.ReadAll(f)
	if xxhash.Sum64(b) != e.Snapshot.Checksum || int64(len(b)) != e.Snapshot.Size {
		n.s.broken("%s: installed snapshot is broken", n.id)
		return
	}
	if e.Index < n.index {
		n.s.broken("%s is thrown back from %d to %d", n.id, n.index, e.Index)
		return
	}
	n.index, n.lastSnap = e.Index, e.Index
	n.chain = binary.BigEndian.Uint64(b)
	clear(n.regs)
	for line := range bytes.Lines(b[8:]) {
		r := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte("="), 2)
		n.regs[string(r[0])] = string(r[1])
	}
	if want, ok := n.s.inv.chainAt(n.index); ok && want != n.chain {
		n.s.broken("%s was restored to another history at %d", n.id, n.index)
	}
	index := n.index
	n.do(func(now time.Time, c *Core) { c.Applied(now, index) })
	n.answer()
}

func (n *simNode) readChunk(e consensus.ReadChunk) ([]byte, error) {
	f, err := n.s.w.Snapshots(n.id).Open(e.Name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	if err != nil || int64(len(b)) < e.Offset+int64(e.Limit) {
		return nil, errors.New("short")
	}
	return b[e.Offset : e.Offset+int64(e.Limit)], nil
}

func (n *simNode) writeChunk(e consensus.WriteChunk) error {
	p := &n.partial
	if e.Offset == 0 {
		f, err := n.s.w.Snapshots(n.id).Create(e.Snapshot.Name)
		if err != nil {
			return err
		}
		p.name, p.w, p.sum = e.Snapshot.Name, f, xxhash.New()
	}
	if p.w == nil || p.name != e.Snapshot.Name {
		return errors.New("not the snapshot under way")
	}
	if _, err := p.w.Write(e.Data); err != nil {
		return err
	}
	_, _ = p.sum.Write(e.Data)
	if e.Offset+int64(len(e.Data)) < e.Snapshot.Size {
		return nil
	}
	w := p.w
	p.w = nil
	if p.sum.Sum64() != e.Snapshot.Checksum {
		return errors.New("checksum")
	}
	return w.Close()
}

func (s *simCluster) broken(format string, args ...any) {
	if s.fail == nil {
		s.fail = fmt.Errorf(format, args...)
	}
}

// Clients: registers written with unique values, and read.

func (s *simCluster) key() string {
	k := string(rune('p' + s.rand.IntN(3)))
	if s.keys[k] == nil {
		s.keys[k] = &recorder{Now: s.w.Now}
	}
	return k
}

// target is the node that a client turns to: mostly one that believes to lead.
func (s *simCluster) target() *simNode {
	if s.rand.IntN(10) > 0 {
		for _, i := range s.rand.Perm(len(s.order)) {
			if n := s.order[i]; s.w.Up(n.id) && n.core.role == Leader {
				return n
			}
		}
	}
	return s.order[s.rand.IntN(len(s.order))]
}

func (s *simCluster) write() {
	s.nextOp++
	id, key := s.nextOp, s.key()
	value := fmt.Sprintf("%d", id)
	op := s.keys[key].Invoke(int(id), consistency.Access[string]{Kind: consistency.Write, Value: value})
	s.ops[id] = simOp{key, op}
	command := []byte(key + "=" + value)
	if err := s.w.Do(s.target().id, func(now time.Time, core coterie.Core) { core.(*Core).Propose(now, id, command) }); err != nil {
		delete(s.ops, id)
		s.keys[key].Fail(op)
	}
}

func (s *simCluster) read() {
	s.nextOp++
	id, key := s.nextOp, s.key()
	op := s.keys[key].Invoke(int(id), consistency.Access[string]{Kind: consistency.Read})
	n := s.order[s.rand.IntN(len(s.order))]
	if s.rand.IntN(2) == 0 {
		n = s.target()
	}
	n.reads[id] = simRead{op: op, key: key}
	if s.w.Do(n.id, func(now time.Time, core coterie.Core) { core.(*Core).Read(now, id) }) != nil {
		s.keys[key].Fail(op)
		delete(n.reads, id)
	}
}

// committed is told by the proposer's application, which has applied the entry.
func (s *simCluster) committed(id uint64) {
	o, ok := s.ops[id]
	if !ok {
		s.broken("proposal %d was answered twice", id)
		return
	}
	delete(s.ops, id)
	s.acked++
	s.keys[o.key].Return(o.op, consistency.Answer[string]{})
}

func (s *simCluster) rejected(n *simNode, e consensus.Rejected) {
	if r, ok := n.reads[e.ID]; ok {
		delete(n.reads, e.ID)
		s.keys[r.key].Fail(r.op)
		return
	}
	o, ok := s.ops[e.ID]
	if !ok {
		s.broken("proposal %d was answered twice", e.ID)
		return
	}
	delete(s.ops, e.ID)
	if errors.Is(e.Err, coterie.ErrUnknownOutcome) {
		s.keys[o.key].Unknown(o.op)
	} else {
		s.keys[o.key].Fail(o.op)
	}
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
		s.every(400*time.Millisecond, s.change)
		s.every(700*time.Millisecond, s.transfer)
	}
	if o.script != nil {
		o.script(s)
	}
	if !o.noFaults {
		limits := sim.Limits{Nodes: s.ids, Length: o.length, MaxDrift: o.drift}
		if o.fewer != nil {
			o.fewer(&limits)
		}
		if err := s.w.Apply(sim.DrawSchedule(o.seed, limits)); err != nil {
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
	return s.linearizable()
}

// recovers waits for progress within 20 election timeouts of the end of all faults.
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
	// And every member gets all of it.
	all := func() bool {
		last := s.inv.decidedThrough()
		for _, n := range s.order {
			if m, ok := s.inv.members().Find(n.id); ok && m.Role != Witness && n.index < last {
				return false
			}
		}
		return true
	}
	err = s.w.RunUntil(all, 2*limit)
	if errors.Is(err, sim.ErrLimit) {
		return fmt.Errorf("not everybody caught up within %v: %s", 2*limit, s.describe())
	}
	return err
}

func (s *simCluster) describe() string {
	text := ""
	for _, n := range s.order {
		c := n.core
		text += fmt.Sprintf("\n%s: %v term %d leader %q vote %q log %d..%d committed %d applied %d base %d members %v @%d", n.id, c.role,
			c.term, c.leader, c.vote, c.log.start, c.log.last(), c.committed, n.index, c.base.index, c.conf.Membership, c.conf.index)
		for _, p := range c.Metrics().Peers {
			text += fmt.Sprintf("\n   %+v", p)
		}
	}
	return text + "\n" + fmt.Sprint("decided ", s.inv.decidedThrough(), " members ", s.inv.members())
}

func (s *simCluster) linearizable() error {
	for _, k := range slices.Sorted(maps.Keys(s.keys)) {
		r, err := consistency.Linearizable(context.Background(), s.keys[k].History(), consistency.Register(""))
		if err != nil {
			return err
		}
		if r.Verdict != consistency.Holds {
			return fmt.Errorf("register %s is not linearizable: %v", k, r)
		}
	}
	return nil
}

// change asks a leader for other members: some of the nodes come and go.
func (s *simCluster) change() {
	n := s.target()
	var c Change
	conf := n.core.conf.Membership
	for range 1 + s.rand.IntN(2) {
		id := s.ids[s.rand.IntN(len(s.ids))]
		m, ok := conf.Find(id)
		switch {
		case slices.Contains(c.Remove, id) || slices.ContainsFunc(c.Set, func(m Member) bool { return m.ID == id }):
		case ok && m.Role == Witness:
		case ok && s.rand.IntN(2) == 0 && len(conf.Voters()) > 2:
			c.Remove = append(c.Remove, id)
		default:
			role := Voter
			if s.rand.IntN(3) == 0 {
				role = Learner
			}
			c.Set = append(c.Set, Member{ID: id, Role: role, AutoPromote: role == Learner && s.rand.IntN(2) == 0, Priority: s.rand.IntN(2)})
		}
	}
	_ = s.w.Do(n.id, func(now time.Time, core coterie.Core) { core.(*Core).Reconfigure(now, 1, c) })
}

func (s *simCluster) transfer() {
	n := s.target()
	to := s.ids[s.rand.IntN(len(s.ids))]
	_ = s.w.Do(n.id, func(now time.Time, core coterie.Core) { core.(*Core).Transfer(now, 2, to) })
}
