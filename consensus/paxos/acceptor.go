package paxos

import (
	"github.com/coterie-go/coterie"
)

// ack is the answer to the leader that a batch of Accepts comes to.
type ack struct {
	due    bool
	ballot Ballot
	round  uint64
	spans  []span
}

// handleAccept is phase 2b: the acceptor accepts unless it has promised a higher ballot.
func (c *Core) handleAccept(from coterie.NodeID, m *message, payload []byte) {
	if m.ballot.Less(c.promised) && !c.bugs.acceptLower {
		c.refuse(from)
		return
	}
	if c.promised.Less(m.ballot) {
		c.promised, c.dirty = m.ballot, true
		c.becomeFollower(from)
	}
	c.heardLeader(from)
	if !c.ack.due || c.ack.ballot != m.ballot {
		c.ack = ack{due: true, ballot: m.ballot, spans: c.ack.spans[:0]}
	}
	c.ack.round = max(c.ack.round, m.round)
	if m.count > 0 {
		c.acceptRun(m, payload)
	}
	c.hear(from, m.ballot, m.chosen)
}

// acceptRun accepts a run of slots. One that lies too far ahead is as good as lost, so that a node that is far behind
// holds no more than the others; so is one of a deposed leader that proposes otherwise than what is known to be chosen.
func (c *Core) acceptRun(m *message, payload []byte) {
	last := m.first + uint64(m.count) - 1
	if last > c.chosen+2*uint64(c.cfg.Alpha) {
		return
	}
	news := m.first == c.log.last()+1 && len(m.metas) == 0
	if news {
		c.log.extend(m.entries, c.log.era(m.ballot))
		for i := range m.entries {
			c.pending += len(m.entries[i].Command)
		}
		for i := m.first; i <= min(last, c.told) && c.toldBallot == m.ballot; i++ {
			s, _ := c.log.at(i)
			s.state = chosen
		}
	} else {
		var ok bool
		if news, ok = c.acceptOver(m); !ok {
			return
		}
	}
	if news {
		c.save(payload, last)
		if m.ballot == c.promised {
			c.dirty = false // the record is one of the promise too
		}
	}
	if n := len(c.ack.spans); n > 0 && c.ack.spans[n-1].last+1 == m.first {
		c.ack.spans[n-1].last = last
		return
	}
	c.ack.spans = append(c.ack.spans, span{m.first, last})
}

// acceptOver accepts a run of slots of which something may be known.
func (c *Core) acceptOver(m *message) (news, ok bool) {
	of := c.log.era(m.ballot)
	for i := range m.entries {
		n := m.first + uint64(i)
		s, _ := c.log.get(n)
		if s == nil {
			news = news || n > c.log.last()
			continue
		}
		if s.state == chosen && c.log.ballot(s.origin) != m.meta(i).origin {
			return false, false
		}
		news = news || s.state == empty || s.ballot != of
	}
	for i := range m.entries {
		if n := m.first + uint64(i); news && n > c.log.start {
			v := m.value(i)
			c.put(n, &v)
		}
	}
	return news, true
}

// put makes a value that was accepted or is chosen that of a slot after the log's start.
func (c *Core) put(i uint64, v *value) {
	c.log.grow(i)
	s, e := c.log.at(i)
	s.votes = 0
	if s.state == chosen {
		s.ballot = c.log.era(v.ballot) // its value stays
		return
	}
	if origin := c.log.era(v.origin); s.state == empty || s.origin != origin {
		if e.ID != 0 {
			// Another value was proposed in its place. A later ballot may still come back to it.
			c.reject(e.ID, coterie.ErrUnknownOutcome)
		}
		c.pending += len(v.entry.Command) - len(e.Command)
		*e = v.entry
		s.origin = origin
	}
	s.state, s.ballot = v.state, c.log.era(v.ballot)
	if i <= c.told && v.ballot == c.toldBallot {
		s.state = chosen
	}
}

// flushAck answers the leader at the end of a batch, when all that was accepted is being saved.
func (c *Core) flushAck() {
	if !c.ack.due {
		return
	}
	c.ack.due = false
	if c.ack.ballot == c.promised || c.bugs.acceptLower {
		c.send(c.ack.ballot.Node, &message{kind: kindAccepted, ballot: c.ack.ballot, round: c.ack.round, chosen: c.chosen, spans: c.ack.spans})
	}
}
