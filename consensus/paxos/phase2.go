package paxos

import (
	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/quorum"
)

// propose is the leader's end of a batch: commands get slots, and what is new goes out as phase 2a. The message is the
// record, and leaves before it is durable here: it promises nothing that rests on this node's disk.
func (c *Core) propose() {
	l := c.lead
	c.answerReads()
	first := l.next
	c.fill()
	if l.next > first || l.beat {
		c.newRound()
	}
	for i := first; i < l.next; {
		i = c.accept(i, l.next-1)
	}
	if l.next > first {
		own := message{kind: kindAccepted, ballot: c.bid.ballot, round: l.round, spans: []span{{first, l.next - 1}}}
		c.send(c.cfg.ID, &own)
		if n := len(l.sent); n > 0 && c.now-l.sent[n-1].at < c.cfg.HeartbeatInterval/8 {
			l.sent[n-1].last = l.next - 1
		} else {
			l.sent = append(l.sent, sent{l.next - 1, c.now})
		}
		l.told, l.beat = c.chosen, false
	}
	if l.beat {
		c.beat()
	}
	if l.told < c.chosen {
		// The next proposals would tell the others what is chosen; if there are none, a heartbeat tells them soon.
		l.beatDue = min(l.beatDue, c.now+c.cfg.HeartbeatInterval/8)
	}
	if l.alone && l.confirmed < l.round {
		c.confirm() // nobody else would
	}
}

// fill gives slots to values, in order, within Alpha of what is chosen and where phase 1 is done: first what phase 1
// found, and no-ops in its gaps, then the commands that wait, then no-ops up to where a new configuration begins.
func (c *Core) fill() {
	l := c.lead
	for {
		limit := c.proposable()
		switch {
		case l.next > limit:
			return
		case l.next <= max(c.bid.last, c.log.last()):
			v := c.recover(l.next)
			delete(c.bid.values, l.next)
			v.state, v.ballot = accepted, c.bid.ballot
			c.put(l.next, &v)
			l.next++
		case len(l.queue) > 0:
			n := int(min(uint64(len(l.queue)), limit-l.next+1))
			c.fillQueued(l.queue[:n])
			c.unqueue(n)
		case l.next <= c.fillTo():
			v := c.noop()
			c.put(l.next, &v)
			l.next++
		default:
			return
		}
	}
}

// proposable returns the last slot that may be proposed now, of those with the configuration of the next one.
func (c *Core) proposable() uint64 {
	l := c.lead
	limit := c.chosen + uint64(c.cfg.Alpha)
	conf := c.configAt(l.next)
	if conf != l.free {
		if !c.phase1Done(conf) {
			return 0
		}
		l.free = conf
	}
	for _, other := range c.confs {
		if other.from > l.next {
			return min(limit, other.from-1)
		}
	}
	return limit
}

// fillQueued gives the next slots, of which nothing is known, to commands.
func (c *Core) fillQueued(entries []consensus.Entry) {
	l := c.lead
	if ch := l.change; ch != nil && ch.slot == 0 {
		for i := range entries {
			if entries[i].Internal {
				ch.slot = l.next + uint64(i)
			}
		}
	}
	c.log.extend(entries, c.log.era(c.bid.ballot))
	l.next += uint64(len(entries))
}

func (c *Core) unqueue(n int) {
	l := c.lead
	if n == len(l.queue) {
		clear(l.queue)
		l.queue = l.queue[:0]
		return
	}
	l.queue = l.queue[n:]
}

// accept sends phase 2a for a run of slots to all acceptors, as many as a message holds, and saves it. It returns the
// next slot.
func (c *Core) accept(first, last uint64) uint64 {
	payload, next := c.encodeAccept(first, last)
	c.save(payload, next-1)
	c.toPeers(payload)
	return next
}

func (c *Core) toPeers(payload []byte) {
	for _, p := range c.lead.peers {
		if p != c.lead.self {
			c.out.SendEarly(p.id, payload)
		}
	}
}

// encodeAccept encodes the values of a run of slots that this leader has proposed, as many as a message holds.
func (c *Core) encodeAccept(first, last uint64) (payload []byte, next uint64) {
	return c.encodeRun(kindAccept, c.bid.ballot, first, last)
}

func (c *Core) encodeRun(k kind, ballot Ballot, first, last uint64) (payload []byte, next uint64) {
	next = first
	bytes, size := 0, 0
	of := c.log.era(ballot)
	for next <= last {
		s, e := c.log.at(next)
		if next > first && bytes+len(e.Command) > c.cfg.MaxMessageBytes {
			break
		}
		bytes += len(e.Command)
		size += len(e.Command) + 5
		if s.origin != of {
			size += len(c.log.ballot(s.origin).Node) + 11
		}
		next++
	}
	m := message{kind: k, ballot: ballot, first: first, chosen: c.chosen, count: int(next - first)}
	if c.lead != nil {
		m.round = c.lead.round
	}
	b := m.appendRunHeader(header(make([]byte, 0, size+64+len(ballot.Node)), k, ballot))
	for i := first; i < next; i++ {
		s, e := c.log.at(i)
		if s.origin == of {
			b = appendOwn(b, e)
		} else {
			b = appendOlder(b, e, c.log.ballot(s.origin))
		}
	}
	return b, next
}

// beat sends every acceptor a heartbeat: what is chosen, and the round.
func (c *Core) beat() {
	l := c.lead
	m := message{kind: kindAccept, ballot: c.bid.ballot, first: l.next, chosen: c.chosen, round: l.round}
	c.toPeers(c.encode(&m))
	l.beat, l.told = false, c.chosen
	l.beatDue = c.now + c.cfg.HeartbeatInterval
}

// resend proposes again what some acceptor has not accepted for long: as long as a slot is not chosen, votes that were
// lost are needed. What is chosen the others ask for themselves.
func (c *Core) resend() {
	l := c.lead
	n := 0
	for n < len(l.sent) && l.sent[n].last <= c.chosen {
		n++
	}
	l.sent = append(l.sent[:0], l.sent[n:]...)
	limit := uint64(0)
	for _, s := range l.sent {
		if s.at <= c.now-2*c.cfg.HeartbeatInterval {
			limit = s.last
		}
	}
	for i := c.chosen + 1; i <= limit; {
		s, _ := c.log.at(i)
		if s.state == chosen {
			i++
			continue
		}
		payload, next := c.encodeAccept(i, c.runOf(i, limit))
		conf := c.configAt(i)
		for _, p := range l.peers {
			if p != l.self && s.votes&conf.accepts.Set(p.id) == 0 {
				c.metrics.Resent++
				c.out.SendEarly(p.id, payload)
			}
		}
		i = next
	}
}

// runOf returns the last slot of the run that begins with one and is alike: not chosen, voted for by the same.
func (c *Core) runOf(first, limit uint64) uint64 {
	s, _ := c.log.at(first)
	last := first
	for last < limit {
		t, _ := c.log.at(last + 1)
		if t.state != s.state || t.votes != s.votes {
			break
		}
		last++
	}
	return last
}

// handleAccepted counts an acceptor's votes: a slot is chosen when a phase 2 quorum of its configuration has accepted it
// in this ballot.
func (c *Core) handleAccepted(from coterie.NodeID, m *message) {
	l := c.lead
	if l == nil || m.ballot != c.bid.ballot {
		return
	}
	if p := l.find(from); p != nil {
		p.knows = max(p.knows, m.chosen)
		if m.round > p.round && m.round <= l.round {
			p.round = m.round
			c.confirm()
		}
	}
	before := c.chosen
	for _, s := range m.spans {
		c.vote(from, max(s.first, c.chosen+1), min(s.last, l.next-1))
	}
	if c.advance(); c.chosen > before && c.lead != nil {
		c.answerReads()
	}
	if c.lead != nil && l.unsettled {
		c.settle()
	}
}

func (c *Core) vote(from coterie.NodeID, first, last uint64) {
	var conf *configuration
	var bit, own quorum.Set
	for i := first; i <= last; i++ {
		if of := c.configAt(i); of != conf {
			conf, bit = of, of.accepts.Set(from)
			if c.bugs.countUnsaved {
				own = of.accepts.Set(c.cfg.ID)
			}
		}
		s, _ := c.log.at(i)
		s.votes |= bit | own
		if s.state != chosen && conf.chooses(s.votes) {
			s.state = chosen
		}
	}
}

// advance finds out how far all slots are chosen.
func (c *Core) advance() {
	before := c.chosen
	for c.chosen < c.log.last() {
		s, e := c.log.at(c.chosen + 1)
		if s.state != chosen {
			break
		}
		c.chosen++
		c.adoptChosen(c.chosen, e)
	}
	if c.chosen == before {
		return
	}
	for _, conf := range c.confs {
		if conf.from > before+1 && conf.from <= c.chosen+1 {
			c.rebuildPeers() // an older one decides no more
			break
		}
	}
	if c.behind.through <= c.chosen {
		c.behind.due = never
	}
	if l := c.lead; l != nil {
		l.next = max(l.next, c.chosen+1)
		c.settle()
	}
}
