package raft

import (
	"math/rand/v2"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/quorum"
)

// StateRole is what a node is in its term (§5.1).
type StateRole uint8

// The roles of a node. A PreCandidate asks whether it could win before it disturbs anybody (thesis §9.6).
const (
	Follower StateRole = iota
	PreCandidate
	Candidate
	Leader
)

// String returns "follower", "pre-candidate", "candidate" or "leader".
func (r StateRole) String() string {
	return [...]string{"follower", "pre-candidate", "candidate", "leader"}[r]
}

// instant is a point of the node's monotonic clock, counted from its first Tick.
type instant = time.Duration

// never is an instant that does not come; long is one that was long ago.
const (
	never instant = 1<<63 - 1
	long  instant = -1 << 62
)

// Core is one node's Raft state: a consensus.Core. Its invariants, held between calls:
//   - applied <= emitted <= committed <= last log index (§5.3)
//   - terms of the log never decrease, and none exceeds the node's (§5.3)
//   - at most one vote per term, saved before it is told (§5.2, Election Safety)
//   - a leader's log grows only (§5.3, Leader Append-Only), and it counts itself by its own mail after the sync
//   - the configuration is the last one in the log, committed or not (§6)
//   - of a peer, match < next; match is 0 in every new term and every new membership of the peer
//
// A Core is not safe for concurrent use.
type Core struct {
	cfg  settings
	rand rand.PCG
	out  coterie.Outbox
	bugs bugs // planted by tests

	// Persistent state (figure 2), in records.
	term  uint64
	vote  coterie.NodeID
	log   entryLog
	base  base
	dirty bool   // term or vote are not in a record yet
	saves uint64 // records so far, replayed or saved
	marks []mark // the records that hold entries, oldest first

	// Volatile state (figure 2).
	role      StateRole
	leader    coterie.NodeID // "" if none is known
	committed uint64
	emitted   uint64 // the entries through it went out as Committed or in an Installed
	applied   uint64
	unapplied []span // what was emitted beyond applied
	waiting   int    // bytes emitted beyond applied
	pending   int    // bytes in the log beyond emitted

	conf       configuration
	confs      []configuration // those after the base's, oldest first; the last is conf
	mayLead    bool            // this node is a voter of conf, on either side
	witness    bool            // this node holds no data
	announced  Membership      // what the last ConfigChanged said
	introduced Membership      // what the last Introduced said
	settled    uint64          // index of the configuration that was last announced as committed

	// Time.
	booted      bool
	origin      time.Time
	now         instant
	heard       instant // from the leader; nobody else is voted for soon after (thesis §4.2.3)
	timeout     instant // this node's election time-out, drawn anew at every change
	electionDue instant
	calm        bool // the leader has said that it will be silent for long

	ballots quorum.Tally
	lead    *leadership // nil unless leader
	ask     asking      // reads forwarded to the leader
	recv    receiving   // the snapshot that is coming in
	ack     reply       // to the leader, one a batch
	retired []string    // snapshots that no record names, but that still travel

	lastLeader consensus.Leader // what the last Leader event said
	in         message          // under Step
	arena      []byte           // where small messages are encoded
	arenaSince instant
	nextID     uint64 // of chunks
	metrics    Counters
}

// base is what stands before the log: the snapshot, the entry it ends with and the configuration there.
type base struct {
	index, term uint64
	members     Membership
	snapshot    consensus.Snapshot // Name is empty if there is none: a new cluster, a witness
	known       bool               // a record says so
}

// configuration is a Membership and the index of the entry that made it so.
type configuration struct {
	index uint64
	Membership
}

// span is a run of emitted entries.
type span struct {
	last  uint64
	bytes int
}

// NewCore returns the Core of one node, to be given its records by Replay and then its first Tick.
func NewCore(cfg Config) (*Core, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &Core{cfg: cfg.settings(), electionDue: never, heard: long}
	c.base.members = cfg.bootstrap() // unless a record says otherwise
	c.rand.Seed(cfg.Seed, 0x72616674)
	return c, nil
}

// boot is the first Tick: the log is whole now.
func (c *Core) boot(now time.Time) {
	c.booted, c.origin = true, now
	if !c.base.known {
		c.base.known = true
		c.conf = configuration{Membership: c.base.members}
		c.saveBase()
	}
	if c.log.start > c.base.index {
		panic("raft: the journal lacks the entries between the snapshot and the log")
	}
	if c.term > 0 && !c.bugs.forgetVote {
		// What this node promised before it went down it does not know; so it keeps the longest promise it may have
		// made, to elect nobody within an election timeout of hearing from a leader.
		c.heard = 0
	}
	c.committed, c.emitted, c.applied = c.base.index, c.base.index, c.base.index
	for i := c.committed; i < c.log.last(); i++ {
		c.pending += len(c.log.at(i + 1).Command)
	}
	c.ask.boot(&c.rand)
	if c.base.snapshot.Name != "" {
		c.out.Emit(consensus.Installed{Index: c.base.index, Snapshot: c.base.snapshot})
	}
	c.adoptNewest()
	c.becomeFollower(c.term, "")
	c.trace(TraceInit, nil, "")
}

// enter begins every input: time goes on, and a leader that a quorum may have left is none any more, before it does
// anything else. So a process that was paused, or whose disk hung, acts no more on what it knew before.
func (c *Core) enter(now time.Time) {
	if !c.booted {
		c.boot(now)
	}
	if at := now.Sub(c.origin); at > c.now {
		c.now = at
	}
	if c.lead != nil && c.now >= c.lead.resignAt && !c.bugs.leaseForever {
		c.metrics.Resigned++
		c.becomeFollower(c.term, "")
	}
}

// Step takes one message from another node, or from itself: replies of its own are how it counts itself.
func (c *Core) Step(now time.Time, from coterie.NodeID, payload []byte) error {
	m := &c.in
	if err := m.decode(payload); err != nil {
		return err
	}
	if err := c.check(from, m); err != nil {
		return err
	}
	c.enter(now)
	defer c.checkInvariants()
	c.trace(TraceReceive, m, from)
	if !c.admit(from, m) {
		return nil
	}
	switch m.kind {
	case kindAppend:
		c.handleAppend(from, m, payload)
	case kindAppendReply:
		c.handleAppendReply(from, m)
	case kindVote:
		c.handleVote(from, m)
	case kindVoteReply:
		c.handleVoteReply(from, m)
	case kindSnapshot:
		c.handleSnapshot(from, m)
	case kindSnapshotReply:
		c.handleSnapshotReply(from, m)
	case kindTimeoutNow:
		c.handleTimeoutNow(from)
	case kindRead:
		c.handleRead(from, m)
	case kindReadReply:
		c.handleReadReply(from, m)
	case kindIntroduce:
		c.handleIntroduce(m)
	case kindState, kindBase:
	}
	return nil
}

// check refuses what no correct node sends, before anything has changed. The entries of an append are decoded into
// the room behind the log, where the common case needs them.
func (c *Core) check(from coterie.NodeID, m *message) error {
	switch m.kind {
	case kindState, kindBase:
		return m.wrong("is a record, not a message")
	case kindAppend, kindSnapshot:
		switch {
		case from == c.cfg.ID:
			return m.wrong("from the node itself")
		case m.term == 0:
			return m.wrong("of term 0")
		case m.term == c.term && c.role == Leader:
			return m.wrong("from a second leader of the term")
		}
	case kindVote:
		if from == c.cfg.ID {
			return m.wrong("from the node itself")
		}
	case kindAppendReply, kindVoteReply, kindSnapshotReply, kindTimeoutNow, kindRead, kindReadReply,
		kindIntroduce:
	}
	if m.kind == kindAppend {
		m.entries = c.log.room(m.count)
		return m.readEntries(m.entries)
	}
	return nil
}

// admit compares terms (§5.1): it brings the node up to the message's, answers a message from the past and reports
// whether the message counts.
func (c *Core) admit(from coterie.NodeID, m *message) bool {
	switch {
	case m.kind == kindReadReply:
		return true // a read index that a leader has confirmed stays right
	case m.kind == kindVote && m.pre, m.kind == kindVoteReply && m.pre && !m.refused:
		return true // speaks of a term that has not begun
	case m.term > c.term:
		if m.kind == kindVote && !m.forced && c.sticky() {
			c.metrics.VotesIgnored++
			return false
		}
		leader := coterie.NodeID("")
		if m.kind == kindAppend || m.kind == kindSnapshot {
			leader = from
		}
		c.becomeFollower(m.term, leader)
	case m.term < c.term:
		// Silence would be safe, but a deposed leader, or one that is behind this node's term, must learn of it: else a
		// node that campaigned while it was cut off could never rejoin.
		switch m.kind {
		case kindAppend, kindSnapshot:
			c.send(from, &message{kind: kindAppendReply, term: c.term, refused: true})
			return false
		case kindVote:
			c.send(from, &message{kind: kindVoteReply, term: c.term, refused: true})
			return false
		case kindRead:
			return true
		default:
			return false
		}
	}
	return true
}

// Tick lets time pass: heartbeats, elections and every time-out.
func (c *Core) Tick(now time.Time) {
	c.enter(now)
	defer c.checkInvariants()
	switch {
	case c.lead != nil:
		c.tickLeader()
	case c.now >= c.electionDue:
		c.campaign()
	}
	c.tickReads()
}

// Propose appends a command to the log if this node leads.
func (c *Core) Propose(now time.Time, id uint64, command []byte) {
	c.enter(now)
	switch {
	case c.lead == nil:
		c.rouse()
		c.reject(id, c.notLeader())
	case c.lead.transfer.target != "":
		c.reject(id, &coterie.NotLeaderError{Leader: c.lead.transfer.target})
	case len(command) > c.cfg.MaxCommandBytes:
		c.reject(id, ErrTooLarge)
	case c.pending > 0 && c.pending+len(command) > c.cfg.MaxPendingBytes:
		c.reject(id, coterie.ErrOverloaded)
	default:
		c.metrics.Proposals++
		c.log.append(consensus.Entry{ID: id, Term: c.term, Command: command})
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

// Ready ends a batch: what it made is encoded here, once for all peers.
func (c *Core) Ready() coterie.Ready {
	if c.booted {
		if c.lead != nil {
			c.replicate()
		}
		c.flushReply()
		c.flushAsked()
		if c.dirty && !c.bugs.forgetVote {
			c.saveState()
		}
		c.emitCommitted()
		if now := (consensus.Leader{ID: c.leader, Term: c.term}); now != c.lastLeader {
			c.lastLeader = now
			c.out.Emit(now)
		}
		c.wake()
		c.trace(TraceReady, nil, "")
	}
	return c.out.Take()
}

// wake asks for the next Tick.
func (c *Core) wake() {
	at := c.electionDue
	if c.lead != nil {
		at = c.lead.due()
	}
	at = min(at, c.ask.due)
	if at != never {
		c.out.Wake(c.origin.Add(at))
	}
}

// emitCommitted gives out what is committed, as far as the application keeps up.
func (c *Core) emitCommitted() {
	if c.emitted == c.committed {
		return
	}
	through, bytes := c.emitted, 0
	for through < c.committed {
		n := len(c.log.at(through + 1).Command)
		if c.waiting+bytes > 0 && c.waiting+bytes+n > c.cfg.MaxUnapplied {
			break
		}
		through++
		bytes += n
	}
	if through == c.emitted {
		return
	}
	c.pending -= bytes
	if c.witness {
		c.emitted, c.applied = through, through
		c.compactWitness()
		return
	}
	c.out.Emit(consensus.Committed{Index: c.emitted + 1, Entries: c.log.slice(c.emitted, through)})
	c.waiting += bytes
	c.unapplied = append(c.unapplied, span{through, bytes})
	c.metrics.Committed += through - c.emitted
	c.emitted = through
}

func (c *Core) reject(id uint64, err error) {
	c.metrics.Rejected++
	c.out.Emit(consensus.Rejected{ID: id, Err: err})
}

func (c *Core) notLeader() error { return &coterie.NotLeaderError{Leader: c.leader} }

// send encodes a message that leaves when the batch is durable.
func (c *Core) send(to coterie.NodeID, m *message) {
	c.trace(TraceSend, m, to)
	c.out.Send(to, c.encode(m))
}

// The pieces of memory that small messages share grow with the traffic, and shrink with it: a thousand idle groups
// hold little.
const (
	arenaMin  = 256
	arenaMax  = 16 << 10
	arenaBusy = 20 * time.Millisecond // one that is used up sooner is followed by a larger one
)

// encode puts a small message into memory that it shares with others, never used twice.
func (c *Core) encode(m *message) []byte {
	if cap(c.arena)-len(c.arena) < 64 {
		size := cap(c.arena) / 2
		if c.now-c.arenaSince < arenaBusy {
			size = 2 * cap(c.arena)
		}
		c.arena = make([]byte, 0, min(max(size, arenaMin), arenaMax))
		c.arenaSince = c.now
	}
	begin := len(c.arena)
	c.arena = m.encode(c.arena)
	return c.arena[begin:len(c.arena):len(c.arena)]
}
