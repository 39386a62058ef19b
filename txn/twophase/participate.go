package twophase

import (
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/txn"
)

// part is a transaction in which this node takes part.
type part struct {
	id          txn.ID
	coordinator coterie.NodeID
	members     []coterie.NodeID
	phase       Phase
	logged      bool // the journal speaks of it
	doomed      bool // voting: the coordinator has aborted it, so the resource is told when it has answered
	certain     bool // aborting: the coordinator has decided so
	settled     bool // refused: the resource has aborted it
	since       time.Time
	tries       int
	timer       timer
}

func (c *Core) newPart(id txn.ID, phase Phase) *part {
	node, _, _ := parseID(id)
	p := &part{id: id, coordinator: node, phase: phase, since: c.now}
	p.timer.fire = func(time.Time) { c.inquire(p) }
	c.part[id] = p
	return p
}

func (c *Core) dropPart(p *part) {
	c.timers.set(&p.timer, time.Time{})
	delete(c.part, p.id)
}

// Enlist tells the node that its resource has begun work under an ID. Without it the node hears of a transaction first
// when it is asked to prepare; with it, it asks the coordinator for the fate of work whose end it is not told of, so
// that what the work holds is let go in the end. Errors: txn.ErrUnknown for an ID that is not of this package;
// coterie.ErrOverloaded.
func (c *Core) Enlist(now time.Time, id txn.ID) error {
	c.now = now
	if _, _, err := parseID(id); err != nil {
		return err
	}
	if c.part[id] != nil {
		return nil
	}
	if _, over := c.recent.outcome[id]; over {
		return fmt.Errorf("twophase: enlist %s: it is over: %w", id, txn.ErrUnknown)
	}
	if len(c.part) >= c.cfg.MaxOpen {
		return fmt.Errorf("twophase: %d transactions are open: %w", len(c.part), coterie.ErrOverloaded)
	}
	p := c.newPart(id, Working)
	c.timers.set(&p.timer, now.Add(c.cfg.InquireAfter))
	return nil
}

// Recover tells what the resource found prepared after a restart. What the node knows nothing of is aborted: it never
// sent a vote for it.
func (c *Core) Recover(now time.Time, prepared []txn.ID) {
	c.now = now
	for _, id := range prepared {
		if _, _, err := parseID(id); err == nil && c.part[id] == nil {
			c.newPart(id, Aborting)
			c.out.Emit(AbortAsked{id})
		}
	}
}

func (c *Core) onPrepare(from coterie.NodeID, m *message) error {
	node, at, _ := parseID(m.id)
	if from != node {
		return fmt.Errorf("%s coordinates it", node)
	}
	if c.lows[node].before(m.low) {
		c.lows[node] = m.low
	}
	before, over := c.recent.outcome[m.id]
	if before == readOnly {
		c.vote(node, m.id, txn.ReadOnly, "")
		return nil
	}
	if over || at.before(c.lows[node]) {
		return nil // so late that its coordinator does not wait for an answer
	}
	p := c.part[m.id]
	switch {
	case p == nil && len(c.part) >= 2*c.cfg.MaxOpen: // no room even for a refusal
	case p == nil && len(c.part) >= c.cfg.MaxOpen:
		c.newPart(m.id, Aborting)
		c.out.Emit(AbortAsked{m.id})
		c.vote(node, m.id, txn.No, fmt.Sprintf("%d transactions are open", c.cfg.MaxOpen))
	case p == nil:
		p = c.newPart(m.id, Working)
		fallthrough
	case p.phase == Working:
		p.phase, p.members, p.tries = Voting, m.members, 0
		c.timers.set(&p.timer, time.Time{}) // until the resource has answered there is nothing to ask for
		c.out.Emit(PrepareAsked{m.id})
	case p.phase == Prepared:
		c.vote(node, m.id, txn.Yes, "")
	case p.phase == Refused:
		c.vote(node, m.id, txn.No, "another participant asked for the end of it")
	}
	return nil
}

func (c *Core) vote(to coterie.NodeID, id txn.ID, v txn.Vote, reason string) {
	c.send(to, &message{kind: kindVote, id: id, vote: v, reason: reason[:min(len(reason), maxReason)]})
}

// Voted gives the resource's answer to PrepareAsked. The error is txn.ErrUnknown for an ID that was not asked, or was
// answered.
func (c *Core) Voted(now time.Time, id txn.ID, v txn.Vote, reason string) error {
	c.now = now
	p := c.part[id]
	if p == nil || p.phase != Voting && (p.phase != Refused || !p.doomed) {
		return fmt.Errorf("twophase: a vote on %s that was not asked for: %w", id, txn.ErrUnknown)
	}
	if v > txn.ReadOnly {
		v = txn.No
	}
	if p.doomed {
		p.doomed = false
		if p.phase == Voting {
			p.phase, p.certain = Aborting, true
		}
		c.out.Emit(AbortAsked{id})
		return nil
	}
	switch v {
	case txn.Yes:
		p.phase, p.logged = Prepared, true
		c.save(&record{kind: recordPrepared, openTxn: openTxn{id, p.members}})
		c.timers.set(&p.timer, now.Add(c.cfg.InquireAfter))
	case txn.ReadOnly:
		c.recent.add(id, readOnly)
		c.dropPart(p)
	default:
		p.phase = Aborting
		c.out.Emit(AbortAsked{id})
	}
	c.vote(p.coordinator, id, v, reason)
	return nil
}

func (c *Core) onDecision(from coterie.NodeID, m *message) error {
	node, _, _ := parseID(m.id)
	if from != node {
		return fmt.Errorf("%s coordinates it", node)
	}
	p := c.part[m.id]
	if p == nil {
		return c.decisionOnUnknown(from, m)
	}
	if m.outcome == committed {
		switch p.phase {
		case Prepared:
			c.commitPart(p)
		case Committing, Committed: // the acknowledgement is on its way
		default:
			return fmt.Errorf("the part is %v: %w", p.phase, txn.ErrContradiction)
		}
		return nil
	}
	if p.phase == Committing || p.phase == Committed {
		return fmt.Errorf("the part is %v: %w", p.phase, txn.ErrContradiction)
	}
	c.abortPart(p)
	return nil
}

// decisionOnUnknown: a commit was done and forgotten, or it would stand in the log. An abort may be of work that the
// node was never told of.
func (c *Core) decisionOnUnknown(from coterie.NodeID, m *message) error {
	before, known := c.recent.outcome[m.id]
	switch {
	case before == readOnly && m.outcome == aborted: // the vote has not arrived
	case known && before != m.outcome:
		return fmt.Errorf("it was %v here: %w", before, txn.ErrContradiction)
	case m.outcome == committed:
		c.send(from, &message{kind: kindAck, id: m.id})
	case !known && len(c.part) < 2*c.cfg.MaxOpen:
		c.newPart(m.id, Aborting).certain = true
		c.out.Emit(AbortAsked{m.id})
	}
	return nil
}

// commitPart obeys the decision to commit.
func (c *Core) commitPart(p *part) {
	p.phase = Committing
	c.timers.set(&p.timer, time.Time{})
	c.out.Emit(CommitAsked{p.id})
}

// abortPart obeys the decision to abort.
func (c *Core) abortPart(p *part) {
	c.timers.set(&p.timer, time.Time{})
	switch p.phase {
	case Voting:
		p.doomed = true
	case Working, Prepared:
		p.phase, p.certain = Aborting, true
		c.out.Emit(AbortAsked{p.id})
	case Aborting:
		p.certain = true
	case Refused:
		p.phase, p.certain = Aborting, true
		if p.doomed { // the resource has not answered Prepare yet
			p.phase = Voting
		} else if p.settled {
			c.finishAborted(p)
		}
	default: // the callers know that it is not committing
	}
}

// Settled tells that the resource has done what CommitAsked or AbortAsked asked. The error is txn.ErrUnknown for an ID of
// which nothing was asked.
func (c *Core) Settled(now time.Time, id txn.ID) error {
	c.now = now
	p := c.part[id]
	switch {
	case p != nil && p.phase == Committing:
		// The part stays until the record is saved: a repeated decision must not be acknowledged before that.
		p.phase = Committed
		c.recent.add(id, committed)
		c.saveLazily(recordFinished, id)
		c.done = append(c.done, p)
		if c.lazyBy.IsZero() {
			c.lazyBy = now.Add(linger)
		}
	case p != nil && p.phase == Aborting:
		c.finishAborted(p)
	case p != nil && p.phase == Refused:
		p.settled = true
	default:
		return fmt.Errorf("twophase: settled %s, of which nothing was asked: %w", id, txn.ErrUnknown)
	}
	return nil
}

// finishAborted forgets a part whose resource is done. If the note of that is lost in a crash the part is in doubt
// again, and asks: what the coordinator does not know was aborted.
func (c *Core) finishAborted(p *part) {
	if p.certain {
		c.recent.add(p.id, aborted)
	}
	if p.logged {
		c.saveLazily(recordFinished, p.id)
	}
	c.dropPart(p)
}
