package twophase

import (
	"fmt"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/txn"
)

// Phase is how far a transaction is, in either role.
type Phase byte

// The phases. A participant that is Prepared is in doubt.
const (
	Working    Phase = iota + 1 // both: the application does its work
	Voting                      // coordinator: votes are being gathered; participant: the resource is asked
	Prepared                    // participant: voted yes, in doubt
	Committing                  // coordinator: decided, not acknowledged by all; participant: the resource is told
	Committed                   // participant: the resource has done it, the record and the acknowledgement wait
	Aborting                    // participant: the resource is told
	Refused                     // participant: will never vote yes, and the coordinator has not said that it knows
)

// String returns the phase's name in lower case.
func (p Phase) String() string {
	names := [...]string{"none", "working", "voting", "prepared", "committing", "committed", "aborting", "refused"}
	if int(p) < len(names) {
		return names[p]
	}
	return fmt.Sprintf("phase(%d)", byte(p))
}

// said is what a member has answered.
type said byte

const (
	saidNothing said = iota
	saidYes
	saidReadOnly
	saidNo
	saidAck
)

type member struct {
	node coterie.NodeID
	said said
}

// coord is a transaction that this node coordinates.
type coord struct {
	id      txn.ID
	phase   Phase
	members []member
	left    int // members whose answer is awaited
	since   time.Time
	tries   int
	timer   timer
	prepare []byte // the message, for those who have not answered
}

func (t *coord) member(n coterie.NodeID) *member {
	for i := range t.members {
		if t.members[i].node == n {
			return &t.members[i]
		}
	}
	return nil
}

// waiting lists the members that have last said s.
func (t *coord) waiting(s said) (nodes []coterie.NodeID) {
	for _, m := range t.members {
		if m.said == s {
			nodes = append(nodes, m.node)
		}
	}
	return nodes
}

// Begin starts a transaction over the members, whose work the application does next, under the ID returned. Prepare or
// Abort must follow. Errors: a list that is empty or names a node twice; coterie.ErrOverloaded.
func (c *Core) Begin(now time.Time, members []coterie.NodeID) (txn.ID, error) {
	c.now = now
	if len(members) == 0 {
		return "", fmt.Errorf("twophase: no participants")
	}
	if err := checkNodes(members); err != nil {
		return "", fmt.Errorf("twophase: participants: %w", err)
	}
	if !c.started || len(c.coord) >= c.cfg.MaxOpen {
		return "", fmt.Errorf("twophase: %d transactions are open: %w", len(c.coord), coterie.ErrOverloaded)
	}
	return c.open(c.next, members).id, nil
}

// open begins the transaction of a number, which must be the next one: participants are told that all before the oldest
// one known are over.
func (c *Core) open(seq uint64, members []coterie.NodeID) *coord {
	if seq != c.next {
		panic(fmt.Sprintf("twophase: transaction %d begun, where %d is next", seq, c.next))
	}
	t := &coord{id: makeID(c.cfg.ID, position{c.epoch, seq}), phase: Working, since: c.now, members: make([]member, len(members))}
	for i, n := range members {
		t.members[i].node = n
	}
	c.next++
	c.coord[t.id] = t
	return t
}

// Prepare asks the members for their votes; Decided follows, at the latest after Config.PrepareTimeout. The error is
// txn.ErrUnknown.
func (c *Core) Prepare(now time.Time, id txn.ID) error {
	c.now = now
	t := c.coord[id]
	if t == nil {
		return fmt.Errorf("twophase: prepare %s: %w", id, txn.ErrUnknown)
	}
	if t.phase != Working {
		return fmt.Errorf("twophase: prepare %s: it is %v", id, t.phase)
	}
	t.phase, t.since, t.left = Voting, now, len(t.members)
	nodes := make([]coterie.NodeID, len(t.members))
	for i, m := range t.members {
		nodes[i] = m.node
	}
	m := message{kind: kindPrepare, id: id, low: position{c.epoch, c.oldest()}, members: nodes}
	t.prepare = m.encode()
	t.timer.fire = func(time.Time) { c.remind(t) }
	c.sendPrepare(t)
	return nil
}

// oldest is the first transaction of this epoch that may still ask for votes.
func (c *Core) oldest() uint64 {
	for ; c.low < c.next; c.low++ {
		if t := c.coord[makeID(c.cfg.ID, position{c.epoch, c.low})]; t != nil && t.phase <= Voting {
			break
		}
	}
	return c.low
}

// sendPrepare asks those who have not answered. It may overtake a save under way: a question promises nothing, and the
// epoch in the ID is durable.
func (c *Core) sendPrepare(t *coord) {
	for _, m := range t.members {
		if m.said == saidNothing {
			c.out.SendEarly(m.node, t.prepare)
		}
	}
	next := c.now.Add(backoff(c.cfg.Resend, t.tries))
	if deadline := t.since.Add(c.cfg.PrepareTimeout); next.After(deadline) {
		next = deadline
	}
	c.timers.set(&t.timer, next)
	t.tries++
}

// remind repeats the question, or gives up.
func (c *Core) remind(t *coord) {
	if c.now.Before(t.since.Add(c.cfg.PrepareTimeout)) {
		c.sendPrepare(t)
		return
	}
	c.decideAbort(t, t.waiting(saidNothing)[0], fmt.Sprintf("no vote within %v", c.cfg.PrepareTimeout))
}

// Abort aborts a transaction that is not decided; Decided follows. The error is txn.ErrUnknown, also if it is decided.
func (c *Core) Abort(now time.Time, id txn.ID, reason string) error {
	c.now = now
	t := c.coord[id]
	if t == nil || t.phase == Committing {
		return fmt.Errorf("twophase: abort %s: %w", id, txn.ErrUnknown)
	}
	c.decideAbort(t, c.cfg.ID, reason)
	return nil
}

func (c *Core) onVote(from coterie.NodeID, m *message) error {
	node, at, _ := parseID(m.id)
	if err := c.checkMine(node, at); err != nil {
		return err
	}
	t := c.coord[m.id]
	if t == nil {
		if m.vote == txn.Yes { // presumed abort: of what is not known, nothing was ever committed that is not finished
			c.out.SendEarly(from, (&message{kind: kindAnswer, id: m.id, outcome: aborted}).encode())
		}
		return nil
	}
	mem := t.member(from)
	switch {
	case t.phase == Committing && (mem == nil || m.vote == txn.Yes):
		return nil // repeated; who voted read-only is no longer a member
	case mem == nil:
		return fmt.Errorf("a vote of no member")
	case t.phase == Working:
		return fmt.Errorf("a vote that was not asked for")
	case t.phase == Voting && (mem.said == saidOf(m.vote) || mem.said == saidReadOnly):
		return nil // repeated; a read-only voter that has crashed since knows nothing of the transaction when asked again
	case mem.said != saidNothing:
		return fmt.Errorf("a second vote, the first was another: %w", txn.ErrContradiction)
	case m.vote == txn.No:
		mem.said = saidNo
		c.decideAbort(t, from, m.reason)
		return nil
	}
	mem.said = saidOf(m.vote)
	t.left--
	if t.left == 0 {
		c.decideCommit(t)
	}
	return nil
}

func saidOf(v txn.Vote) said {
	switch v {
	case txn.Yes:
		return saidYes
	case txn.ReadOnly:
		return saidReadOnly
	default:
		return saidNo
	}
}

// decideCommit: the record is saved before the messages and the event leave, since they stand in its batch.
func (c *Core) decideCommit(t *coord) {
	c.out.Emit(Decided{ID: t.id, Committed: true})
	yes := t.waiting(saidYes)
	if len(yes) == 0 { // nobody needs the decision (section 3)
		c.dropCoord(t)
		return
	}
	c.save(&record{kind: recordCommit, openTxn: openTxn{t.id, yes}})
	t.members = slices.DeleteFunc(t.members, func(m member) bool { return m.said != saidYes })
	t.phase, t.left, t.tries, t.prepare = Committing, len(yes), 0, nil
	t.timer.fire = func(time.Time) { c.repeat(t) }
	c.repeat(t)
}

// repeat tells the decision to those who have not acknowledged it.
func (c *Core) repeat(t *coord) {
	payload := (&message{kind: kindDecision, id: t.id, outcome: committed}).encode()
	for _, m := range t.members {
		if m.said == saidYes {
			c.out.Send(m.node, payload)
		}
	}
	c.timers.set(&t.timer, c.now.Add(backoff(c.cfg.Resend, t.tries)))
	t.tries++
}

// decideAbort forgets the transaction at once: who asks later is told that it was aborted.
func (c *Core) decideAbort(t *coord, by coterie.NodeID, reason string) {
	payload := (&message{kind: kindDecision, id: t.id, outcome: aborted}).encode()
	for _, m := range t.members {
		if m.said == saidNothing || m.said == saidYes {
			c.out.SendEarly(m.node, payload)
		}
	}
	c.out.Emit(Decided{ID: t.id, By: by, Reason: reason})
	c.dropCoord(t)
}

func (c *Core) dropCoord(t *coord) {
	c.timers.set(&t.timer, time.Time{})
	delete(c.coord, t.id)
}

func (c *Core) onAck(from coterie.NodeID, m *message) error {
	node, at, _ := parseID(m.id)
	if err := c.checkMine(node, at); err != nil {
		return err
	}
	t := c.coord[m.id]
	if t == nil {
		return nil
	}
	mem := t.member(from)
	if mem == nil || t.phase != Committing || mem.said != saidYes && mem.said != saidAck {
		return fmt.Errorf("an acknowledgement of what was not decided: %w", txn.ErrContradiction)
	}
	if mem.said == saidYes {
		mem.said = saidAck
		t.left--
	}
	if t.left == 0 {
		c.saveLazily(recordEnd, t.id)
		c.dropCoord(t)
	}
	return nil
}

// checkMine refuses what this node did not begin. A number that it has not reached yet tells that its journal is lost:
// it then knows nothing of its decisions, and must not answer for them.
func (c *Core) checkMine(node coterie.NodeID, at position) error {
	if node != c.cfg.ID {
		return fmt.Errorf("%s coordinates it: %w", node, txn.ErrUnknown)
	}
	if !at.before(position{c.epoch, c.next}) {
		return fmt.Errorf("it was not begun yet, is the journal of %s lost: %w", c.cfg.ID, txn.ErrUnknown)
	}
	return nil
}
