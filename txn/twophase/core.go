package twophase

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/txn"
)

// linger is how long a participant's note of a commit, and so its acknowledgement, waits for a forced write to ride on.
const linger = 20 * time.Millisecond

// maxLazy is how many records may wait for one.
const maxLazy = 1024

// checkpointAfter is how many records the journal takes, beside four for each open transaction, before a checkpoint.
const checkpointAfter = 4096

// maxRecent is how many outcomes a participant remembers to tell to others.
const maxRecent = 4096

// Events of a Core. The first three ask for a call of the resource, which the application makes outside the core and
// answers by a call of the core.
type (
	// PrepareAsked asks for Participant.Prepare; the answer is Core.Voted.
	PrepareAsked struct{ ID txn.ID }
	// CommitAsked asks for Participant.Commit until it succeeds; the answer is Core.Settled.
	CommitAsked struct{ ID txn.ID }
	// AbortAsked asks for Participant.Abort until it succeeds; the answer is Core.Settled.
	AbortAsked struct{ ID txn.ID }
	// Decided tells the outcome of a transaction that this node coordinates, durable if it is a commit.
	Decided struct {
		ID        txn.ID
		Committed bool
		By        coterie.NodeID // if aborted: who refused or did not answer, this node's own if it was asked to abort
		Reason    string         // and why
	}
)

// Core is one node's part of two-phase commit, in both roles. Invariants, held between calls:
//   - a transaction that it coordinates is committing only if a commit record precedes every message and event of it;
//   - it forgets such a one only after every member that voted yes has acknowledged;
//   - a part that is prepared leaves that state only by a decision of the coordinator, told by it or by another part;
//   - a part that told another "aborted" without such a decision has logged that it will never vote yes.
//
// A Core is not safe for concurrent use.
type Core struct {
	cfg Config
	out coterie.Outbox
	now time.Time

	epoch   uint64 // number of this start; the checkpoint that holds it begins the start's records
	started bool   // that checkpoint is durable
	next    uint64 // number of the next transaction
	low     uint64 // every transaction of this epoch before it has its votes or is over
	coord   map[txn.ID]*coord
	part    map[txn.ID]*part
	lows    map[coterie.NodeID]position // newest low of each coordinator
	recent  recent

	timers  timers
	lazy    []*record // records that need no sync of their own
	done    []*part   // committed by the resource, acknowledged and forgotten when lazy is saved
	lazyBy  time.Time // when they may wait no longer; zero if they may for ever
	forced  bool      // this batch saves a record that must be durable
	records int       // since the last checkpoint
}

// NewCore returns the core of a node that has not replayed its journal. The error names the field of Config that is
// wrong.
func NewCore(cfg Config) (*Core, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Core{
		cfg:   cfg.withDefaults(),
		coord: map[txn.ID]*coord{},
		part:  map[txn.ID]*part{},
		lows:  map[coterie.NodeID]position{},
	}, nil
}

// Step takes one message. One that is malformed, from a node that has no business with the transaction or against what
// the log holds (txn.ErrContradiction) is an error and changes nothing.
func (c *Core) Step(now time.Time, from coterie.NodeID, payload []byte) error {
	c.now = now
	m, err := decodeMessage(payload)
	if err != nil {
		return fmt.Errorf("twophase: message from %s: %w", from, err)
	}
	switch m.kind {
	case kindStarted:
		if from != c.cfg.ID {
			return fmt.Errorf("twophase: %s tells %s that it has started", from, c.cfg.ID)
		}
		c.started = c.started || m.epoch == c.epoch
	case kindPrepare:
		err = c.onPrepare(from, &m)
	case kindVote:
		err = c.onVote(from, &m)
	case kindDecision:
		err = c.onDecision(from, &m)
	case kindAck:
		err = c.onAck(from, &m)
	case kindInquire:
		err = c.onInquire(from, &m)
	case kindAnswer:
		err = c.onAnswer(from, &m)
	}
	if err != nil {
		return fmt.Errorf("twophase: %v from %s: %w", &m, from, err)
	}
	return nil
}

// Tick begins the node's work at first: it notes a new epoch, so that no ID is used twice, and takes up what the
// journal held. Later it repeats what was not answered.
func (c *Core) Tick(now time.Time) {
	c.now = now
	if c.next == 0 {
		c.begin()
	}
	c.timers.run(now)
}

func (c *Core) begin() {
	c.epoch++
	c.next, c.low = 1, 1
	c.out.Save(c.checkpoint().encode())
	c.out.Keep(1)
	c.records = 0
	c.out.Send(c.cfg.ID, (&message{kind: kindStarted, epoch: c.epoch}).encode())
	for _, id := range slices.Sorted(maps.Keys(c.coord)) {
		t := c.coord[id]
		t.timer.fire = func(time.Time) { c.repeat(t) }
		c.repeat(t)
	}
	for _, id := range slices.Sorted(maps.Keys(c.part)) {
		p := c.part[id]
		p.timer.fire = func(time.Time) { c.inquire(p) }
		if p.phase == Refused {
			c.out.Emit(AbortAsked{id}) // it may not have been done
		}
		c.inquire(p)
	}
}

// Ready ends a batch. Records that need no sync of their own go with those that do, or when their time has come.
func (c *Core) Ready() coterie.Ready {
	due := !c.lazyBy.IsZero() && !c.now.Before(c.lazyBy)
	full := c.records > checkpointAfter+4*(len(c.coord)+len(c.part))
	if c.forced || due || full || len(c.lazy) > maxLazy {
		c.flush()
	}
	if full {
		c.out.Save(c.checkpoint().encode())
		c.out.Keep(1)
		c.records = 0
	}
	c.forced = false
	c.out.Wake(c.timers.next())
	c.out.Wake(c.lazyBy)
	return c.out.Take()
}

// flush saves what has waited, and lets go what waited for that.
func (c *Core) flush() {
	for i, rec := range c.lazy {
		c.write(rec)
		c.lazy[i] = nil
	}
	for i, p := range c.done {
		c.send(p.coordinator, &message{kind: kindAck, id: p.id})
		c.dropPart(p)
		c.done[i] = nil
	}
	c.lazy, c.done, c.lazyBy = c.lazy[:0], c.done[:0], time.Time{}
}

// save makes a record durable before anything that follows leaves.
func (c *Core) save(rec *record) {
	c.write(rec)
	c.forced = true
}

func (c *Core) write(rec *record) {
	c.out.Save(rec.encode())
	c.records++
}

// saveLazily leaves a record to the next sync.
func (c *Core) saveLazily(kind recordKind, id txn.ID) {
	c.lazy = append(c.lazy, &record{kind: kind, openTxn: openTxn{id: id}})
}

func (c *Core) send(to coterie.NodeID, m *message) { c.out.Send(to, m.encode()) }

// Describe says what a payload or a record is, for traces.
func (c *Core) Describe(payload []byte) string {
	if m, err := decodeMessage(payload); err == nil {
		return m.String()
	}
	return fmt.Sprintf("%d bytes", len(payload))
}

// backoff is how long to wait for the tries-th time: base, twice, four times, up to 16 times.
func backoff(base time.Duration, tries int) time.Duration { return base << min(tries, 4) }

// recent remembers the newest outcomes, to tell them to other participants and to know a late message for what it is.
type recent struct {
	outcome map[txn.ID]outcome
	ring    []txn.ID
	at      int
}

func (r *recent) add(id txn.ID, o outcome) {
	if r.outcome == nil {
		r.outcome = map[txn.ID]outcome{}
	}
	if _, ok := r.outcome[id]; ok {
		return
	}
	r.outcome[id] = o
	if len(r.ring) < maxRecent {
		r.ring = append(r.ring, id)
		return
	}
	delete(r.outcome, r.ring[r.at])
	r.ring[r.at] = id
	r.at = (r.at + 1) % maxRecent
}
