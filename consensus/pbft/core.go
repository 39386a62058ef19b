package pbft

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

// Core is one replica: a consensus.Core. It trusts that its messages have passed Verifier.Verify. Its invariants, held
// between calls:
//   - for one view and sequence number it signs at most one pre-prepare or prepare, and it is saved before it is sent
//   - it signs a commit only for what has prepared, and the proof is saved before it is sent (§4.2)
//   - it executes in the order of sequence numbers, each when a quorum has committed it
//   - stable <= the number of every slot it votes in <= stable + L (the watermarks, §4.2)
//   - a request is executed once, after all earlier ones of its replica's life
//
// A Core is not safe for concurrent use.
type Core struct {
	cfg   Config
	group *group
	me    int
	rand  rand.PCG
	out   coterie.Outbox
	bugs  bugs // planted by tests

	// Persistent state, in records.
	view   uint64
	active bool // in view: not waiting for its NEW-VIEW
	life   uint64
	base   base
	slots  map[uint64]*slot
	stable checkpoint
	lazy   [][]byte // records that nothing rests on; they go with the next that must be saved

	// What execution has made of it.
	state   state
	log     []logged // the newest batches executed, for replicas that are late
	batches map[digest]*held
	next    uint64 // sequence number that a primary assigns next

	booted    bool
	now       time.Time
	applied   uint64
	unapplied []span
	waiting   int // bytes emitted beyond applied

	own    ownRequests
	pools  []pool
	change changing
	peers  []peer

	votes      map[uint64]certificate // checkpoint votes above the stable one
	checks     []vote                 // this replica's own checkpoints, to be repeated
	statusAt   time.Time
	statusWant bool // say at once how far this is
	asked      int  // who is to help next
	snap       snapshots

	lastLeader consensus.Leader
	in         message
	metrics    Metrics
}

// bugs are planted by tests to see that they are found.
type bugs struct {
	noSaveAccepted bool // prepares without a record of it
	noSavePrepared bool // commits without a record of what prepared
	smallQuorum    bool // a quorum is f+1
	noTimer        bool // the primary is never suspected
	newViewEmpty   bool // a new view begins without what prepared before
	helpFromFirst  bool // the same replica is always asked for help
	executeTwice   bool // requests are not numbered
	trustSnapshots bool // a snapshot's content is not compared with what is vouched for
	countAny       bool // votes count whatever they are on
}

// Metrics counts what a replica has done since it started.
type Metrics struct {
	Executed    uint64 // batches
	Requests    uint64 // in them, without repeated ones
	Repeated    uint64 // requests that were not executed, for they were not the next of their replica
	ViewChanges uint64 // begun here
	NewViews    uint64 // entered
	Checkpoints uint64 // that became stable
	Installs    uint64 // snapshots taken from others
	Vouched     uint64 // snapshots of this replica's that it vouched for
	Caught      uint64 // batches learned from another replica's log
	BadChunks   uint64 // snapshots given up because what came was not what is vouched for
}

// base is the state that stands before the log, and its snapshot.
type base struct {
	state    state
	snapshot consensus.Snapshot // Name is empty if there is none yet
}

// slot is one sequence number above what is both stable and executed.
type slot struct {
	pre       vote // accepted, in the view it names; seq is 0 if none is
	since     time.Time
	prepares  []vote      // by replica, the pre-prepare at the primary's place
	commits   []vote      // by replica
	prepared  certificate // of the highest view in which it prepared here
	decided   certificate
	durable   bool // a record says what is decided
	committed bool // this replica has sent its commit in the view of pre
}

// held is a batch that may be needed, and the highest number it was accepted for.
type held struct {
	*batch
	seq uint64
	pre vote // with which it came; seq is 0 if it came otherwise
}

// logged is an executed batch with the proof that it was committed.
type logged struct {
	decided
	index uint64 // the log's last entry after it
}

// span is a run of emitted entries.
type span struct {
	last  uint64
	bytes int
}

// ownRequests is what this replica wants executed.
type ownRequests struct {
	fresh    proposal // not yet numbered
	sent     []outgoing
	num      uint64 // of the last request
	pending  int    // bytes of commands without an answer
	resendAt time.Time
}

// proposal is commands and reads, with the ids that name their answers.
type proposal struct {
	ids      []uint64
	commands [][]byte
	reads    []uint64
	bytes    int
}

// outgoing is a request that is under way.
type outgoing struct {
	proposal
	request *request
}

// peer is what is known of another replica.
type peer struct {
	executed uint64 // in its last status
	answered time.Time
	change   *viewChange // the newest
}

// pool holds the requests of one replica that are not executed.
type pool struct {
	life     uint64
	requests map[uint64]*request
	since    time.Time // when the one that is next came; zero if it has not
}

const (
	poolWindow  = 32 // how many requests of one replica may wait
	ownInflight = 2  // how many of its own a replica sends at a time: fewer carry more, and each costs a signature
)

// NewCore returns the Core of one replica, to be given its records by Replay and then its first Tick.
func NewCore(cfg Config) (*Core, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	g := newGroup(&cfg)
	n := len(g.ids)
	c := &Core{
		cfg: cfg, group: g, slots: map[uint64]*slot{}, batches: map[digest]*held{}, votes: map[uint64]certificate{},
		state: newState(n), active: true, next: 1, pools: make([]pool, n), peers: make([]peer, n),
	}
	c.me, _ = g.find(cfg.ID)
	c.base.state = c.state.clone()
	c.rand.Seed(cfg.Seed, 0x70626674)
	c.hold(newBatch(nil), 0)
	return c, nil
}

func (s *state) clone() state {
	c := *s
	c.origins = append([]origin(nil), s.origins...)
	return c
}

// boot is the first Tick.
func (c *Core) boot() {
	c.booted = true
	c.life++
	c.save(kindLife, c.life, false)
	c.state = c.base.state.clone()
	c.applied = c.state.index
	c.dropSettled() // of what came before the base
	c.next = c.state.seq + 1
	for n := range c.slots {
		c.next = max(c.next, n+1)
	}
	c.next = max(c.next, c.stable.seq+1)
	c.statusAt = c.now.Add(time.Duration(c.rand.Uint64() % uint64(c.cfg.StatusInterval)))
	c.statusWant = c.life > 1
	if c.base.snapshot.Name != "" {
		c.out.Emit(consensus.Installed{Index: c.state.index, Snapshot: c.base.snapshot})
		c.beginHashing()
	}
	c.restartTimers()
	c.tellLeader()
	if !c.active {
		c.sendViewChange()
	}
	for n := c.state.seq + 1; n < c.next; n++ {
		if s := c.slots[n]; s != nil {
			c.repeatVotes(s, -1)
		}
	}
}

func (c *Core) enter(now time.Time) {
	if now.After(c.now) {
		c.now = now
	}
	if !c.booted {
		c.boot()
	}
}

// Step takes one message. What it needs of proof, Verifier.Verify has checked.
func (c *Core) Step(now time.Time, from coterie.NodeID, payload []byte) error {
	i, ok := c.group.find(from)
	if !ok {
		return fmt.Errorf("pbft: %q is not a replica", from)
	}
	m := &c.in
	if err := m.decode(payload); err != nil {
		return err
	}
	if err := c.sound(m); err != nil {
		return err
	}
	if m.kind >= kindBase {
		return fmt.Errorf("pbft: %v is no message", m.kind)
	}
	c.enter(now)
	switch m.kind {
	case kindRequest:
		c.handleRequest(i, m.request)
	case kindPrePrepare:
		c.handlePrePrepare(&m.vote, m.batch)
	case kindPrepare:
		c.handlePrepare(&m.vote)
	case kindCommit:
		c.handleCommit(&m.vote)
	case kindCheckpoint:
		c.handleCheckpoint(&m.vote)
	case kindViewChange:
		c.handleViewChange(m.change)
	case kindNewView:
		c.handleNewView(m.newView)
	case kindStatus:
		c.handleStatus(i, &m.status)
	case kindDecided:
		c.handleDecided(m.decided)
	case kindStable:
		c.becomeStable(m.proof)
	case kindVouch:
		c.handleVouch(m.vouches[0])
	case kindOffer:
		c.handleOffer(i, m)
	case kindAskChunk:
		c.handleAskChunk(i, m.seq, m.offset)
	case kindChunk:
		c.handleChunk(i, m.seq, m.offset, m.data)
	default:
	}
	c.execute()
	return nil
}

// sound refuses what names replicas that there are not, so that a Core that is fed unchecked bytes does not fall over
// them.
func (c *Core) sound(m *message) error {
	n := len(c.group.ids)
	ok := m.vote.from < n
	inside := func(votes certificate) {
		for i := range votes {
			ok = ok && votes[i].from < n
		}
	}
	inside(m.proof)
	requests := func(b *batch) {
		for _, q := range b.requests {
			ok = ok && q.from < n
		}
	}
	if m.batch != nil {
		requests(m.batch)
	}
	if m.request != nil {
		ok = ok && m.request.from < n
	}
	change := func(vc *viewChange) {
		ok = ok && vc.from < n
		inside(vc.proof)
		for _, p := range vc.prepared {
			inside(p)
		}
	}
	if m.change != nil {
		change(m.change)
	}
	if m.newView != nil {
		ok = ok && m.newView.from == c.group.primary(m.newView.view)
		inside(m.newView.prePrepares)
		for _, vc := range m.newView.changes {
			change(vc)
		}
	}
	for i := range m.decided {
		requests(m.decided[i].batch)
		inside(m.decided[i].proof)
	}
	for i := range m.vouches {
		ok = ok && m.vouches[i].from < n
	}
	ok = ok && m.status.helper < n && (m.kind != kindOffer || len(m.state.origins) == n && len(m.vouches) > 0)
	if !ok {
		return fmt.Errorf("pbft: %v of a group of another size", m.kind)
	}
	return nil
}

// Tick lets time pass.
func (c *Core) Tick(now time.Time) {
	c.enter(now)
	if at := c.deadline(); !at.IsZero() && !c.now.Before(at) && !c.bugs.noTimer {
		c.startViewChange(c.view + 1)
	}
	if !c.now.Before(c.statusAt) {
		c.statusAt = c.now.Add(c.cfg.StatusInterval)
		c.statusWant = true
		c.rotateHelper()
		c.resendOwn()
		c.snapshotTick()
	}
	c.execute()
}

// Ready ends a batch of calls: new requests and pre-prepares are made here, of all that the batch brought.
func (c *Core) Ready() coterie.Ready {
	if c.booted {
		c.sendOwn()
		c.order()
		c.execute()
		if c.statusWant {
			c.statusWant = false
			c.sendStatus()
		}
		c.out.Wake(c.statusAt)
		if !c.bugs.noTimer {
			c.out.Wake(c.deadline())
		}
	}
	return c.out.Take()
}

// Metrics returns the counters.
func (c *Core) Metrics() Metrics { return c.metrics }

// View returns the view this replica is in and whether it is active, that is, not waiting for its NEW-VIEW.
func (c *Core) View() (view uint64, active bool) { return c.view, c.active }

// payloadOf is the message of a body.
func payloadOf(body []byte) []byte { return append([]byte{format}, body...) }

// broadcast sends to all, this replica included: its own vote counts when it has come back.
func (c *Core) broadcast(payload []byte) {
	for _, id := range c.group.ids {
		c.out.Send(id, payload)
	}
}

func (c *Core) broadcastOthers(payload []byte) {
	for i, id := range c.group.ids {
		if i != c.me {
			c.out.Send(id, payload)
		}
	}
}

func (c *Core) signVote(k kind, view, seq uint64, d digest) vote {
	v := vote{kind: k, view: view, seq: seq, digest: d, from: c.me}
	v.sig = c.group.sign(c.cfg.Key, v.appendUnsigned(nil))
	return v
}

func (c *Core) isPrimary() bool { return c.group.primary(c.view) == c.me }

func (c *Core) quorum() int {
	if c.bugs.smallQuorum {
		return c.group.faulty + 1
	}
	return c.group.quorum
}

// tellLeader tells the driver who leads.
func (c *Core) tellLeader() {
	l := consensus.Leader{Term: c.view}
	if c.active {
		l.ID = c.group.ids[c.group.primary(c.view)]
	}
	if l != c.lastLeader || c.view == 0 {
		c.lastLeader = l
		c.out.Emit(l)
	}
}

// hold keeps a batch that has been accepted for a number.
func (c *Core) hold(b *batch, seq uint64) *batch {
	h := c.batches[b.digest]
	if h == nil {
		h = &held{batch: b}
		c.batches[b.digest] = h
	}
	h.seq = max(h.seq, seq)
	return h.batch
}

func (c *Core) find(d digest) *batch {
	if h := c.batches[d]; h != nil {
		return h.batch
	}
	return nil
}

func (c *Core) slot(seq uint64) *slot {
	s := c.slots[seq]
	if s == nil {
		n := len(c.group.ids)
		s = &slot{prepares: make([]vote, n), commits: make([]vote, n)}
		c.slots[seq] = s
	}
	return s
}

// inWindow reports whether a number is between the watermarks (§4.2).
func (c *Core) inWindow(seq uint64) bool {
	return seq > c.stable.seq && seq <= c.stable.seq+c.group.window
}

// chainOf adds a batch to the digest of a history.
func chainOf(before, batch digest) digest {
	return sha256.Sum256(append(before[:], batch[:]...))
}
