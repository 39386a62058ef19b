package pbft

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/replication/consistency"
	"github.com/coterie-go/coterie/transport/sim"
)

// testConfig returns what a group of n replicas a, b, c ... shares, and their keys.
func testConfig(n int) (Config, map[coterie.NodeID]ed25519.PrivateKey) {
	cfg := Config{Voters: map[coterie.NodeID]string{}, Keys: map[coterie.NodeID]ed25519.PublicKey{}, Seed: 1}
	keys := map[coterie.NodeID]ed25519.PrivateKey{}
	for i := range n {
		id := coterie.NodeID(rune('a' + i))
		seed := sha256.Sum256([]byte(id))
		keys[id] = ed25519.NewKeyFromSeed(seed[:])
		cfg.Voters[id] = ""
		cfg.Keys[id] = keys[id].Public().(ed25519.PublicKey)
	}
	return cfg, keys
}

// ledger is the state machine of the simulations: registers, a counter, and how often each command was applied.
type ledger struct {
	Regs  map[string]string
	Count int64
	Times map[string]int
}

func newLedger() *ledger { return &ledger{Regs: map[string]string{}, Times: map[string]int{}} }

// Apply takes "id add", "id get", "id write key value" and "id read key".
func (l *ledger) Apply(e coterie.Entry) []byte {
	f := strings.Fields(string(e.Command))
	if len(f) < 2 {
		return nil
	}
	l.Times[f[0]]++
	switch {
	case f[1] == "add":
		l.Count++
		return fmt.Append(nil, l.Count)
	case f[1] == "write" && len(f) == 4:
		l.Regs[f[2]] = f[3]
	}
	return nil
}

func (l *ledger) Query(q []byte) ([]byte, error) {
	if string(q) == "count" {
		return fmt.Append(nil, l.Count), nil
	}
	return []byte(l.Regs[string(q)]), nil
}

func (l *ledger) Snapshot() (func(io.Writer) error, error) {
	frozen, err := json.Marshal(l)
	return func(w io.Writer) error {
		_, err := w.Write(frozen)
		return err
	}, err
}

func (l *ledger) Restore(r io.Reader) error {
	*l = *newLedger()
	return json.NewDecoder(r).Decode(l)
}

// options are one run's.
type options struct {
	nodes     int
	seed      uint64
	bugs      bugs
	length    time.Duration // of the phase with faults
	think     time.Duration // mean time between the operations of a client
	link      sim.Link
	disk      sim.Disk
	faults    bool // drawn from the seed
	byzantine map[coterie.NodeID]func(c *cluster, core *Core) coterie.Core
	config    func(*Config)
	script    func(*cluster)
	trace     *sim.Trace
}

// cluster is a world of replicas, some of them perhaps Byzantine, with clients and invariants.
type cluster struct {
	o      options
	w      *sim.World
	rand   *rand.Rand
	ids    []coterie.NodeID
	honest []coterie.NodeID
	cfg    Config
	keys   map[coterie.NodeID]ed25519.PrivateKey
	cores  map[coterie.NodeID]*Core
	apps   map[coterie.NodeID]*ledger
	runs   map[coterie.NodeID]*consensus.Inline

	fail    error
	decided map[uint64]string    // by index
	signed  map[[4]uint64]digest // what honest replicas signed, by kind, replica, view and number
	issued  map[string]bool      // commands
	alt     map[digest]digest    // what liars say instead
	altRaw  map[digest][]byte    // batches of those
	counter consistency.Recorder[consistency.CounterIn, int64]
	regs    map[string]*consistency.Recorder[consistency.Access[string], consistency.Answer[string]]
	nextOp  int
	acked   int
	quiet   bool
}

func newCluster(o options) *cluster {
	if o.length == 0 {
		o.length = 4 * time.Second
	}
	if o.think == 0 {
		o.think = 30 * time.Millisecond
	}
	c := &cluster{
		o: o, rand: rand.New(rand.NewPCG(o.seed, 99)), cores: map[coterie.NodeID]*Core{}, apps: map[coterie.NodeID]*ledger{},
		runs: map[coterie.NodeID]*consensus.Inline{}, decided: map[uint64]string{}, signed: map[[4]uint64]digest{},
		issued: map[string]bool{}, alt: map[digest]digest{}, altRaw: map[digest][]byte{},
		regs: map[string]*consistency.Recorder[consistency.Access[string], consistency.Answer[string]]{},
	}
	c.cfg, c.keys = testConfig(o.nodes)
	c.cfg.ViewTimeout, c.cfg.CheckpointInterval, c.cfg.SnapshotBytes = 200*time.Millisecond, 8, 2000
	c.cfg.SnapshotChunkBytes, c.cfg.hashed = 300, true
	if o.config != nil {
		o.config(&c.cfg)
	}
	w, err := sim.New(sim.Config{Seed: o.seed, Link: o.link, Disk: o.disk, Trace: o.trace})
	must(err)
	c.w = w
	c.counter.Now = w.Now
	for i := range o.nodes {
		id := coterie.NodeID(rune('a' + i))
		c.ids = append(c.ids, id)
		if o.byzantine[id] == nil {
			c.honest = append(c.honest, id)
		}
	}
	verifier, err := NewVerifier(c.cfg)
	must(err)
	for _, id := range c.ids {
		must(w.Add(id, sim.Node{
			New: func(incarnation uint64) (coterie.Core, sim.App) { return c.start(id, incarnation) },
			Check: func(from coterie.NodeID, payload []byte) error {
				if err := verifier.Verify(from, payload); err != nil {
					return err
				}
				c.witness(payload)
				return nil
			},
		}))
	}
	w.Invariant("agreement", func(*sim.World) error { return c.fail })
	return c
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (c *cluster) start(id coterie.NodeID, incarnation uint64) (coterie.Core, sim.App) {
	cfg := c.cfg
	cfg.ID, cfg.Key, cfg.Seed = id, c.keys[id], c.o.seed*1000+incarnation*10+1
	core, err := NewCore(cfg)
	must(err)
	c.cores[id] = core
	c.apps[id] = newLedger()
	lies := c.o.byzantine[id]
	in := consensus.InlineConfig{ID: id, World: c.w, WriteTime: 2 * time.Millisecond, Config: consensus.Config{
		StateMachine: c.apps[id], SnapshotBytes: -1, Clock: c.w.Clock(id).Now,
		Event: func(_ time.Time, event any) {
			if e, ok := event.(consensus.Committed); ok && lies == nil {
				c.agree(id, e)
			}
		},
	}}
	c.runs[id] = consensus.NewInline(in)
	if lies != nil {
		return lies(c, core), c.runs[id]
	}
	core.bugs = c.o.bugs
	return core, c.runs[id]
}

func (c *cluster) broken(format string, args ...any) {
	if c.fail == nil {
		c.fail = fmt.Errorf(format, args...)
	}
}

// agree checks agreement, integrity and validity of what an honest replica commits.
func (c *cluster) agree(id coterie.NodeID, e consensus.Committed) {
	for i, entry := range e.Entries {
		index := e.Index + uint64(i)
		command := string(entry.Command)
		if was, ok := c.decided[index]; !ok {
			c.decided[index] = command
		} else if was != command {
			c.broken("agreement: %s commits %q at %d, another %q", id, command, index, was)
		}
	}
	for op, n := range c.apps[id].Times {
		if n > 1 {
			c.broken("integrity: %s has applied %s %d times", id, op, n)
		}
		if !c.issued[op] {
			c.broken("validity: %s has applied %s, which nobody asked for", id, op)
		}
	}
}

// witness checks that no honest replica signs two different things for one view and number.
func (c *cluster) witness(payload []byte) {
	var m message
	must(m.decode(payload))
	see := func(v *vote) {
		if c.o.byzantine[c.ids[v.from]] != nil {
			return
		}
		k := v.kind
		if k == kindPrePrepare {
			k = kindPrepare
		}
		key := [4]uint64{uint64(k), uint64(v.from), v.view, v.seq}
		if was, ok := c.signed[key]; !ok {
			c.signed[key] = v.digest
		} else if was != v.digest {
			c.broken("%s has signed two %v of view %d, number %d", c.ids[v.from], v.kind, v.view, v.seq)
		}
	}
	if m.vote.seq > 0 {
		see(&m.vote)
	}
	if m.newView != nil {
		for i := range m.newView.prePrepares {
			see(&m.newView.prePrepares[i])
		}
	}
}

// client makes one operation after the other, each on some honest replica, until the run is quiet.
func (c *cluster) client(process int) {
	if c.quiet {
		return
	}
	id := c.honest[c.rand.IntN(len(c.honest))]
	if !c.w.Up(id) {
		c.w.After(20*time.Millisecond, func() { c.client(process) })
		return
	}
	over := false
	finish := func(unknown func()) func(consensus.Outcome, func()) {
		return func(o consensus.Outcome, returned func()) {
			if over {
				return
			}
			over = true
			if o.Err != nil {
				unknown()
				process = -1
			} else {
				c.acked++
				returned()
			}
			if process < 0 {
				c.nextOp++
				process = 1000 + c.nextOp // an operation whose end is unknown ends its process
			}
			p := process
			c.w.After(time.Duration(c.rand.ExpFloat64()*float64(c.o.think)), func() { c.client(p) })
		}
	}
	var answered func(consensus.Outcome, func())
	c.nextOp++
	name := fmt.Sprint("op", c.nextOp)
	switch c.rand.IntN(4) {
	case 0:
		op := c.counter.Invoke(process, consistency.CounterIn{Kind: consistency.CounterAddGet, Delta: 1})
		answered = finish(func() { c.counter.Unknown(op) })
		c.issued[name] = true
		c.runs[id].Propose(consensus.Tag{}, []byte(name+" add"), func(o consensus.Outcome) {
			answered(o, func() { c.counter.Return(op, number(o.Result)) })
		})
	case 1:
		op := c.counter.Invoke(process, consistency.CounterIn{})
		answered = finish(func() { c.counter.Fail(op) })
		c.runs[id].Read([]byte("count"), func(o consensus.Outcome) {
			answered(o, func() { c.counter.Return(op, number(o.Result)) })
		})
	case 2:
		r := c.register()
		op := r.Invoke(process, consistency.Access[string]{Kind: consistency.Write, Value: name})
		answered = finish(func() { r.Unknown(op) })
		c.issued[name] = true
		c.runs[id].Propose(consensus.Tag{}, []byte(name+" write r "+name), func(o consensus.Outcome) {
			answered(o, func() { r.Return(op, consistency.Answer[string]{}) })
		})
	default:
		r := c.register()
		op := r.Invoke(process, consistency.Access[string]{Kind: consistency.Read})
		answered = finish(func() { r.Fail(op) })
		c.runs[id].Read([]byte("r"), func(o consensus.Outcome) {
			answered(o, func() { r.Return(op, consistency.Answer[string]{Value: string(o.Result)}) })
		})
	}
	c.w.After(2*time.Second, func() { answered(consensus.Outcome{Err: coterie.ErrUnknownOutcome}, nil) })
}

func number(b []byte) int64 {
	var n int64
	_, _ = fmt.Sscan(string(b), &n)
	return n
}

func (c *cluster) register() *consistency.Recorder[consistency.Access[string], consistency.Answer[string]] {
	if c.regs["r"] == nil {
		c.regs["r"] = &consistency.Recorder[consistency.Access[string], consistency.Answer[string]]{Now: c.w.Now}
	}
	return c.regs["r"]
}

// run is one simulation: faults for a while, then progress, then the clients must have seen one history.
func (c *cluster) run() error {
	for i := range 3 {
		c.w.After(0, func() { c.client(i) })
	}
	if c.o.faults {
		limits := sim.Limits{Nodes: c.ids, Length: c.o.length}
		if err := c.w.Apply(sim.DrawSchedule(c.o.seed, limits)); err != nil {
			return err
		}
	}
	if c.o.script != nil {
		c.o.script(c)
	}
	if err := c.w.Run(c.o.length); err != nil {
		return err
	}
	c.quiet = true
	c.w.HealAll()
	if err := c.recovers(); err != nil {
		return err
	}
	return c.linearizable()
}

// recovers waits until an operation at each honest replica is answered, within 20 timeouts, and all agree.
func (c *cluster) recovers() error {
	limit := 20 * c.cfg.ViewTimeout
	if c.o.link.Loss > 0 || c.o.disk.Crash > 0 {
		limit *= 2 // losses and slow disks go on
	}
	done := map[coterie.NodeID]bool{}
	var ask func(id coterie.NodeID)
	ask = func(id coterie.NodeID) {
		c.nextOp++
		name := fmt.Sprint("last", c.nextOp)
		c.issued[name] = true
		life := c.w.Incarnation(id)
		c.runs[id].Propose(consensus.Tag{}, []byte(name+" noop"), func(o consensus.Outcome) {
			if o.Err == nil {
				done[id] = true
			} else {
				ask(id) // a snapshot has hidden what became of it
			}
		})
		var again func()
		again = func() {
			switch {
			case c.w.Incarnation(id) != life && c.w.Up(id) && !done[id]:
				ask(id) // a crash that was under way has swallowed it
			case !done[id]:
				c.w.After(c.cfg.ViewTimeout/2, again)
			}
		}
		c.w.After(c.cfg.ViewTimeout/2, again)
	}
	for _, id := range c.honest {
		ask(id)
	}
	err := c.w.RunUntil(func() bool { return len(done) == len(c.honest) }, limit)
	if errors.Is(err, sim.ErrLimit) {
		return fmt.Errorf("no progress within %v of the end of all faults: %s", limit, c.describe())
	}
	if err != nil {
		return err
	}
	same := func() bool {
		for _, id := range c.honest {
			if c.runs[id].Machine().Index() < uint64(len(c.decided)) {
				return false
			}
		}
		return true
	}
	err = c.w.RunUntil(same, limit)
	if errors.Is(err, sim.ErrLimit) {
		return fmt.Errorf("not everybody caught up within %v: %s", limit, c.describe())
	}
	return err
}

func (c *cluster) describe() string {
	text := fmt.Sprint("decided ", len(c.decided))
	for _, id := range c.ids {
		k := c.cores[id]
		text += fmt.Sprintf("\n%s: view %d active %v executed %d index %d applied %d stable %d base %d log %d next %d slots %d waiting %d pools",
			id, k.view, k.active, k.state.seq, k.state.index, k.applied, k.stable.seq, k.base.state.seq, len(k.log), k.next, len(k.slots), k.waiting)
		for i := range k.pools {
			text += fmt.Sprintf(" %d", len(k.pools[i].requests))
		}
		text += fmt.Sprintf(" origins %v life %d own %d offered %d recv %v %+v", k.state.origins, k.life, len(k.own.sent), k.snap.offered, k.snap.recv != nil, k.metrics)
	}
	return text
}

func (c *cluster) linearizable() error {
	ctx := context.Background()
	r, err := consistency.Linearizable(ctx, c.counter.History(), consistency.Counter())
	if err != nil {
		return err
	}
	if r.Verdict != consistency.Holds {
		return fmt.Errorf("the counter is not linearizable: %v", r)
	}
	r, err = consistency.Linearizable(ctx, c.register().History(), consistency.Register(""))
	if err != nil {
		return err
	}
	if r.Verdict != consistency.Holds {
		return fmt.Errorf("the register is not linearizable: %v", r)
	}
	return nil
}

// Byzantine replicas. They know their own keys, and what they agreed on beforehand.

// resign signs a vote anew.
func resign(core *Core, v vote) []byte {
	v.sig = core.group.sign(core.cfg.Key, v.appendUnsigned(nil))
	return payloadOf(v.append(nil))
}

// other is what liars say instead of a batch: the null request, or the batch backwards.
func (c *cluster) other(d digest, raw []byte) (digest, []byte) {
	if alt, ok := c.alt[d]; ok {
		return alt, c.altRaw[alt]
	}
	if raw == nil {
		return d, nil
	}
	var turned []byte // the null request
	if b, err := readBatch(raw); err == nil && len(b.requests) > 1 {
		slices.Reverse(b.requests)
		turned = newBatch(b.requests).raw
	}
	alt := digest(sha256.Sum256(turned))
	c.alt[d], c.altRaw[alt] = alt, turned
	return alt, turned
}

// equivocating tells the replicas of the second half other things than those of the first: other batches as primary,
// other votes as backup. All that do so tell the same.
func equivocating(c *cluster, core *Core) coterie.Core {
	self := core.cfg.ID
	return sim.Equivocate(core, self, func(to coterie.NodeID, payload []byte) []byte {
		i, _ := core.group.find(to)
		if i < (len(c.ids)+1)/2 && len(c.ids) > 4 || len(c.ids) == 4 && i != 3 {
			return payload
		}
		var m message
		if m.decode(payload) != nil {
			return payload
		}
		switch m.kind {
		case kindPrePrepare:
			v := m.vote
			var raw []byte
			v.digest, raw = c.other(v.digest, m.batch.raw)
			return append(resign(core, v), raw...)
		case kindPrepare, kindCommit:
			v := m.vote
			v.digest, _ = c.other(v.digest, nil)
			return resign(core, v)
		default:
			return payload
		}
	})
}

// lying tells of checkpoints, snapshots and how far it is what is not so.
func lying(c *cluster, core *Core) coterie.Core {
	return sim.Tamper(core, core.cfg.ID, func(env coterie.Envelope) []coterie.Envelope {
		var m message
		if m.decode(env.Payload) != nil {
			return []coterie.Envelope{env}
		}
		switch m.kind {
		case kindCheckpoint:
			v := m.vote
			v.digest[0]++
			env.Payload = resign(core, v)
		case kindVouch:
			v := m.vouches[0]
			v.content[0]++
			v.sig = core.group.sign(core.cfg.Key, v.appendUnsigned(nil))
			env.Payload = payloadOf(v.append(nil))
		case kindChunk:
			data := slices.Clone(m.data)
			data[len(data)/2]++
			env.Payload = appendChunk(m.seq, m.offset, data)
		case kindStatus:
			s := m.status
			s.executed += 1000
			s.view += uint64(c.rand.IntN(2))
			env.Payload = payloadOf(s.encode())
		case kindViewChange:
			vc := *m.change
			vc.prepared = nil
			raw := vc.unsigned()
			env.Payload = payloadOf(append(raw, core.group.sign(core.cfg.Key, raw)...))
		default:
		}
		return []coterie.Envelope{env}
	})
}

func silent(_ *cluster, core *Core) coterie.Core { return sim.Silent(core, core.cfg.ID) }

func replaying(c *cluster, core *Core) coterie.Core {
	return sim.Replay(core, sim.ReplayConfig{Self: core.cfg.ID, Nodes: c.ids, Seed: c.o.seed})
}

// hurrying wants a new view all the time.
func hurrying(_ *cluster, core *Core) coterie.Core {
	return sim.Tamper(core, core.cfg.ID, func(env coterie.Envelope) []coterie.Envelope {
		var m message
		if m.decode(env.Payload) != nil || m.kind != kindStatus {
			return []coterie.Envelope{env}
		}
		vc := viewChange{view: core.view + 1, from: core.me, stable: core.stable.seq, proof: core.stable.proof}
		raw := vc.unsigned()
		return []coterie.Envelope{env, {To: env.To, Payload: payloadOf(append(raw, core.group.sign(core.cfg.Key, raw)...))}}
	})
}

var behaviours = map[string]func(*cluster, *Core) coterie.Core{
	"equivocating": equivocating, "lying": lying, "silent": silent, "replaying": replaying, "hurrying": hurrying,
}

func seedOf(parts ...uint64) uint64 {
	b := make([]byte, 0, 64)
	for _, p := range parts {
		b = binary.BigEndian.AppendUint64(b, p)
	}
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:]) | 1
}

type writer []byte

func (w *writer) Write(p []byte) (int, error) {
	*w = append(*w, p...)
	return len(p), nil
}

type reader struct{ left []byte }

func (r *reader) Read(p []byte) (int, error) {
	if len(r.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

var testStart = time.Unix(1000, 0)
