package paxos

import (
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

// instant is a point of the node's monotonic clock, counted from its first Tick.
type instant = time.Duration

// never is an instant that does not come; long is one that was long ago.
const (
	never instant = 1<<63 - 1
	long  instant = -1 << 62
)

// Core is one node of Multi-Paxos, proposer, acceptor and learner in one: a consensus.Core. Its invariants, held
// between calls:
//   - applied <= emitted <= chosen, and every slot through chosen is (Lamport 2001, §3)
//   - the ballot promised never goes back, and no slot was accepted in a higher one (P1a)
//   - the value of a chosen slot never changes (P2)
//   - a leader leads the ballot that it has promised; it proposes one value per slot and ballot, the one of the highest
//     ballot that a phase 1 quorum reported, if any (P2c), and in no slot beyond chosen + Alpha
//   - votes are counted by node, slot and ballot, and its own by its own mail, after the sync
//
// A Core is not safe for concurrent use.
type Core struct {
	cfg  Config
	rand rand.PCG
	out  coterie.Outbox
	bugs bugs // planted by tests

	// The acceptor, in records.
	promised Ballot
	log      slotLog
	base     base
	dirty    bool   // the promise is not in a record yet
	saves    uint64 // records so far, replayed or saved
	marks    []mark // the records that hold slots or a base, oldest first

	// The learner.
	chosen     uint64 // every slot through it is chosen
	told       uint64 // the leader of toldBallot said that all slots through it are
	toldBallot Ballot
	emitted    uint64 // the entries through it went out as Committed or in an Installed
	applied    uint64
	unapplied  []emission
	waiting    int // bytes emitted beyond applied
	pending    int // bytes queued, or in the log beyond emitted
	behind     pull
	recv       receiving  // the snapshot that is coming in
	served     []serving  // former snapshots that still travel
	chunks     []chunkAsk // pieces that are being read for others
	baseUntil  instant    // somebody is fetching the base's snapshot, until then
	confs      []*configuration
	contacts   []coterie.NodeID // nodes named in the Config, sorted

	// The proposer.
	round       uint64 // the highest heard of
	bid         *bid   // the ballot under way; nil unless candidate or leader
	lead        *leadership
	leader      coterie.NodeID // "" if none is known
	heard       instant        // from the leader; nobody else is promised anything soon after
	timeout     instant
	electionDue instant

	booted bool
	origin time.Time
	now    instant

	ask        asking // reads put to the leader
	ack        ack    // to the leader, one a batch
	lastLeader consensus.Leader
	in         message // under Step
	arena      []byte  // where small messages are encoded
	nextID     uint64  // of pieces of snapshots
	metrics    Counters
}

// base is what stands before the log: a snapshot and the slot it ends with.
type base struct {
	slot     uint64
	snapshot consensus.Snapshot // Name is empty if there is none
	known    bool               // a record says so
}

// emission is a run of emitted entries.
type emission struct {
	last  uint64
	bytes int
}

// NewCore returns the Core of one node, to be given its records by Replay and then its first Tick.
func NewCore(cfg Config) (*Core, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	conf, err := newConfiguration(0, cfg.members(), cfg.Quorums)
	if err != nil {
		return nil, err
	}
	contacts := slices.Sorted(maps.Keys(cfg.Voters))
	cfg.StateMachine, cfg.Transport, cfg.Journal, cfg.Snapshots, cfg.Voters = nil, nil, nil, nil, nil
	cfg.TLS, cfg.Log, cfg.Driver = nil, nil, consensus.Config{}
	c := &Core{cfg: cfg, electionDue: never, heard: long, confs: []*configuration{conf}, contacts: contacts}
	c.rand.Seed(cfg.Seed, 0x7061786f73)
	return c, nil
}

// boot is the first Tick: the journal has been read.
func (c *Core) boot(now time.Time) {
	c.booted, c.origin = true, now
	c.chosen, c.emitted, c.applied = c.base.slot, c.base.slot, c.base.slot
	c.trimReplayed()
	if c.log.start > c.base.slot {
		panic("paxos: the journal lacks the slots between the snapshot and the log")
	}
	if !c.base.known {
		c.base.known = true
		c.saveBase()
	}
	if !c.promised.IsZero() && !c.bugs.forgetPromise {
		// Whether it has heard from a leader just before it went down it does not know; it keeps the longest promise
		// to take part in nobody else's ballot that it may have made.
		c.heard = 0
	}
	if c.base.snapshot.Name != "" {
		c.out.Emit(consensus.Installed{Index: c.base.slot, Snapshot: c.base.snapshot})
	}
	c.behind.due = never
	c.ask.boot(&c.rand)
	c.configured()
	c.advance()
	for i := c.emitted; i < c.log.last(); i++ {
		_, e := c.log.at(i + 1)
		c.pending += len(e.Command)
	}
	c.becomeFollower("")
}

// enter begins every input: time goes on, and a leader that a quorum may have left is none any more, before it does
// anything else.
func (c *Core) enter(now time.Time) {
	if !c.booted {
		c.boot(now)
	}
	if at := now.Sub(c.origin); at > c.now {
		c.now = at
	}
	if c.lead != nil && c.now >= c.lead.resignAt && !c.bugs.leaseForever {
		c.metrics.Resigned++
		c.becomeFollower("")
	}
}

// Step takes one message from another node, or from itself: answers of its own are how it counts itself.
func (c *Core) Step(now time.Time, from coterie.NodeID, payload []byte) error {
	m := &c.in
	if err := m.decode(payload, c.promised); err != nil {
		return err
	}
	if err := c.check(from, m); err != nil {
		return err
	}
	c.enter(now)
	defer c.checkInvariants()
	c.round = max(c.round, m.ballot.Round)
	switch m.kind {
	case kindPrepare:
		c.handlePrepare(from, m)
	case kindPromise:
		c.handlePromise(from, m)
	case kindAccept:
		c.handleAccept(from, m, payload)
	case kindAccepted:
		c.handleAccepted(from, m)
	case kindRefused:
		c.handleRefused(from, m)
	case kindLearn:
		c.handleLearn(from, m)
	case kindChosen:
		c.handleChosen(from, m, payload)
	case kindSnapshot:
		c.handleSnapshot(from, m)
	case kindRead:
		c.handleRead(from, m)
	case kindReadReply:
		c.handleReadReply(m)
	case kindState, kindBase:
	}
	return nil
}

// check refuses what no correct node sends, before anything has changed.
func (c *Core) check(from coterie.NodeID, m *message) error {
	switch m.kind {
	case kindState, kindBase:
		return m.wrong("is a record, not a message")
	case kindPrepare, kindAccept:
		switch {
		case m.ballot.Node != from:
			return m.wrong("is from " + string(from))
		case from == c.cfg.ID:
			return m.wrong("is from the node itself")
		case m.first == 0 || m.ballot.Round == 0:
			return m.wrong("has no slot or no round")
		}
	case kindSnapshot:
		if len(m.confs) == 0 || from == c.cfg.ID {
			return m.wrong("makes no sense")
		}
	case kindPromise, kindAccepted, kindRefused, kindLearn, kindChosen, kindRead, kindReadReply:
	}
	switch m.kind {
	case kindPromise, kindAccept, kindChosen:
		if err := m.readValues(); err != nil {
			return err
		}
		return c.contradicts(m)
	default:
		return nil
	}
}

// contradicts returns an error for a message by which a chosen value would change: somebody has lost its disk, or lies.
func (c *Core) contradicts(m *message) error {
	for i := range m.metas {
		s, _ := c.log.get(m.first + uint64(i))
		// Else it may be legitimate: acceptors hold what was never chosen, and deposed leaders propose it.
		if v := &m.metas[i]; s != nil && s.state == chosen && v.state == chosen && c.log.ballot(s.origin) != v.origin {
			return m.wrong("contradicts what is chosen")
		}
	}
	return nil
}

// Tick lets time pass: heartbeats, ballots and every time-out.
func (c *Core) Tick(now time.Time) {
	c.enter(now)
	defer c.checkInvariants()
	switch {
	case c.lead != nil:
		c.tickLeader()
	case c.now >= c.electionDue:
		c.campaign()
	case c.bid != nil && c.now >= c.bid.retry:
		c.repeatPrepare()
	}
	c.tickLearner()
	c.tickReads()
}

// Propose queues a command if this node leads.
func (c *Core) Propose(now time.Time, id uint64, command []byte) {
	c.enter(now)
	switch {
	case c.lead == nil:
		c.reject(id, c.notLeader())
	case len(command) > c.cfg.MaxCommandBytes:
		c.reject(id, ErrTooLarge)
	case c.pending > 0 && c.pending+len(command) > c.cfg.MaxPendingBytes:
		c.reject(id, coterie.ErrOverloaded)
	default:
		c.metrics.Proposals++
		c.lead.queue = append(c.lead.queue, consensus.Entry{ID: id, Term: c.bid.ballot.Round, Command: command})
		c.pending += len(command)
	}
}

// Applied says how far the state machine is.
func (c *Core) Applied(now time.Time, index uint64) {
	c.enter(now)
	if index <= c.applied || index > c.emitted {
		return
	}
	c.applied = index
	n := 0
	for n < len(c.unapplied) && c.unapplied[n].last <= index {
		c.waiting -= c.unapplied[n].bytes
		n++
	}
	c.unapplied = append(c.unapplied[:0], c.unapplied[n:]...)
}

// Ready ends a batch: what it made is encoded here, once for all acceptors.
func (c *Core) Ready() coterie.Ready {
	if c.booted {
		if c.lead != nil {
			c.propose()
		}
		c.flushAck()
		c.flushAsked()
		if c.dirty && !c.bugs.forgetPromise {
			c.saveState()
		}
		c.emitChosen()
		if now := (consensus.Leader{ID: c.leader, Term: c.promised.Round}); now != c.lastLeader {
			c.lastLeader = now
			c.out.Emit(now)
		}
		c.wake()
	}
	return c.out.Take()
}

// wake asks for the next Tick.
func (c *Core) wake() {
	at := c.electionDue
	switch {
	case c.lead != nil:
		at = min(c.lead.beatDue, c.lead.resignAt)
	case c.bid != nil:
		at = min(at, c.bid.retry)
	}
	at = min(at, c.ask.due, c.behind.due)
	if len(c.served) > 0 {
		at = min(at, c.served[0].until)
	}
	if at != never {
		c.out.Wake(c.origin.Add(at))
	}
}

// emitChosen gives out what is chosen, as far as the application keeps up.
func (c *Core) emitChosen() {
	through, bytes := c.emitted, 0
	for through < c.chosen {
		_, e := c.log.at(through + 1)
		n := len(e.Command)
		if c.waiting+bytes > 0 && c.waiting+bytes+n > c.cfg.MaxUnapplied {
			break
		}
		through++
		bytes += n
	}
	if through == c.emitted {
		return
	}
	c.out.Emit(consensus.Committed{Index: c.emitted + 1, Entries: c.log.slice(c.emitted, through)})
	c.pending -= bytes
	c.waiting += bytes
	c.unapplied = append(c.unapplied, emission{through, bytes})
	c.metrics.Committed += through - c.emitted
	c.emitted = through
}

func (c *Core) reject(id uint64, err error) {
	c.metrics.Rejected++
	c.out.Emit(consensus.Rejected{ID: id, Err: err})
}

func (c *Core) notLeader() error { return &coterie.NotLeaderError{Leader: c.leader} }

// send encodes a message that leaves when the batch is durable.
func (c *Core) send(to coterie.NodeID, m *message) { c.out.Send(to, c.encode(m)) }

// arenaSize is the piece of memory that small messages share.
const arenaSize = 4096

// encode puts a small message into memory that it shares with others, never used twice.
func (c *Core) encode(m *message) []byte {
	if cap(c.arena)-len(c.arena) < 128 {
		c.arena = make([]byte, 0, arenaSize)
	}
	begin := len(c.arena)
	b := m.encode(c.arena)
	if cap(b) == cap(c.arena) {
		c.arena = b
	} // else it was too long for it, and has memory of its own
	return b[begin:len(b):len(b)]
}
