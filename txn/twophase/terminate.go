package twophase

import (
	"fmt"
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/txn"
)

// inquire asks for the fate of a part that has no news: first the coordinator, then, if that does not answer and the
// part is in doubt, all others too (cooperative termination).
func (c *Core) inquire(p *part) {
	c.out.Send(p.coordinator, (&message{kind: kindInquire, id: p.id}).encode())
	if p.phase == Prepared && p.tries > 0 {
		payload := (&message{kind: kindInquire, id: p.id, peer: true}).encode()
		for _, n := range p.members {
			if n != c.cfg.ID {
				c.out.Send(n, payload)
			}
		}
	}
	c.timers.set(&p.timer, c.now.Add(backoff(c.cfg.InquireAfter, p.tries)))
	p.tries++
}

func (c *Core) onInquire(from coterie.NodeID, m *message) error {
	if m.peer {
		return c.onPeerInquiry(from, m)
	}
	node, at, _ := parseID(m.id)
	if err := c.checkMine(node, at); err != nil {
		return err
	}
	t, o := c.coord[m.id], aborted // presumed
	switch {
	case t == nil:
	case t.phase == Committing:
		o = committed
	default:
		o = pending
	}
	c.answer(from, m.id, o)
	return nil
}

// onPeerInquiry answers another participant with what is certain. A part that has not voted can make it so, by never
// voting yes; that it will not must be durable before another aborts on its word.
func (c *Core) onPeerInquiry(from coterie.NodeID, m *message) error {
	p := c.part[m.id]
	if p == nil {
		// Not known is not aborted: a participant forgets what it has committed.
		if o, ok := c.recent.outcome[m.id]; ok && o != readOnly {
			c.answer(from, m.id, o)
		}
		return nil
	}
	switch p.phase {
	case Working, Voting:
		if !p.doomed {
			c.refuse(p)
		}
		c.answer(from, m.id, aborted)
	case Refused:
		c.answer(from, m.id, aborted)
	case Aborting:
		if p.certain {
			c.answer(from, m.id, aborted)
		}
	case Committing, Committed:
		c.answer(from, m.id, committed)
	case Prepared: // in doubt too
	}
	return nil
}

// refuse ends a part that has not voted.
func (c *Core) refuse(p *part) {
	c.save(&record{kind: recordRefused, openTxn: openTxn{id: p.id}})
	p.logged = true
	if p.phase == Voting {
		p.doomed = true // the resource is told when it has answered
	} else {
		c.out.Emit(AbortAsked{p.id})
	}
	p.phase, p.tries = Refused, 0
	c.vote(p.coordinator, p.id, txn.No, "another participant asked for the end of it")
	c.timers.set(&p.timer, c.now.Add(c.cfg.InquireAfter))
}

func (c *Core) answer(to coterie.NodeID, id txn.ID, o outcome) {
	c.send(to, &message{kind: kindAnswer, id: id, outcome: o})
}

// onAnswer takes the answer to an inquiry. It may be out of date, and then concerns a part that is no longer in doubt.
func (c *Core) onAnswer(from coterie.NodeID, m *message) error {
	p := c.part[m.id]
	if p == nil {
		return nil
	}
	if from != p.coordinator && !slices.Contains(p.members, from) {
		return fmt.Errorf("an answer of no member")
	}
	switch {
	case m.outcome == pending:
		if from == p.coordinator && p.timer.slot > 0 {
			p.tries = 0
			c.timers.set(&p.timer, c.now.Add(c.cfg.InquireAfter))
		}
	case p.phase == Prepared && m.outcome == committed:
		c.commitPart(p)
	case m.outcome == aborted && (p.phase == Prepared || p.phase == Working || p.phase == Refused && from == p.coordinator):
		c.abortPart(p)
	}
	return nil
}
