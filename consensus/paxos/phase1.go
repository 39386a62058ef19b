package paxos

import (
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/quorum"
)

// bid is a ballot of this node: at first the question who would promise, then phase 1 for all slots from one on, and as
// long as the node leads what phase 1 has found.
type bid struct {
	ballot   Ballot
	poll     bool
	tally    quorum.Tally // of the poll
	from     uint64
	promises []promise
	values   map[uint64]value // the highest ones reported, by slot
	last     uint64           // the last slot of which anything was reported
	retry    instant
}

// promise is how far an acceptor's answer to phase 1 has come in; a long one comes in parts.
type promise struct {
	id   coterie.NodeID
	next uint64 // the slot with which the next part begins
	done bool
}

func (b *bid) promiseOf(id coterie.NodeID) *promise {
	for i := range b.promises {
		if b.promises[i].id == id {
			return &b.promises[i]
		}
	}
	b.promises = append(b.promises, promise{id: id, next: b.from})
	return &b.promises[len(b.promises)-1]
}

// becomeFollower gives up whatever ballot this node had. Proposals that were never sent are taken back; of those that
// were, only their fate tells.
func (c *Core) becomeFollower(leader coterie.NodeID) {
	l := c.lead
	c.lead, c.bid, c.leader = nil, nil, leader
	if l != nil {
		c.stepDown(l)
	}
	c.resetTimeout()
}

func (c *Core) stepDown(l *leadership) {
	for i := range l.queue {
		c.pending -= len(l.queue[i].Command)
		if l.queue[i].ID != 0 {
			c.reject(l.queue[i].ID, c.notLeader())
		}
	}
	for _, r := range l.reads {
		if r.from == "" {
			c.reject(r.id, c.notLeader())
		}
		// Another node asks the next leader of its own accord.
	}
	if l.change != nil {
		c.out.Emit(Done{l.change.id, coterie.ErrUnknownOutcome})
	}
}

// resetTimeout draws the silence after which this node begins a ballot.
func (c *Core) resetTimeout() {
	c.timeout = c.cfg.ElectionTimeout + time.Duration(c.rand.Uint64()%uint64(c.cfg.ElectionTimeout))
	c.electionDue = c.now + c.timeout
}

// heardLeader notes a sign of life of the leader.
func (c *Core) heardLeader(from coterie.NodeID) {
	if c.leader != from || c.bid != nil {
		c.becomeFollower(from)
	}
	c.heard = c.now
	c.electionDue = c.now + c.timeout
}

// sticky reports whether the node has promised to take part in nobody else's ballot now: it has heard from its leader
// within the least election timeout, or leads. Leases rest on it (Chandra, Griesemer and Redstone, Paxos Made Live,
// 2007, §5.2), and nodes that come back do no harm by it.
func (c *Core) sticky(from coterie.NodeID) bool {
	return from != c.leader && (c.lead != nil || c.now < c.heard+c.cfg.ElectionTimeout) && !c.bugs.noLease
}

// campaign begins a ballot by asking who would promise: no ballot is spent, and no leader disturbed, by a node that
// could not win.
func (c *Core) campaign() {
	c.becomeFollower("")
	if !c.member() {
		c.inquire()
		return
	}
	c.metrics.Polls++
	c.round = max(c.round, c.promised.Round)
	conf := c.configAt(c.chosen + 1)
	b := &bid{ballot: Ballot{c.round + 1, c.cfg.ID}, poll: true, tally: quorum.NewTally(conf.quorums.Read(), 1), retry: never}
	c.bid = b
	c.toMembers(&message{kind: kindPrepare, poll: true, ballot: b.ballot, first: c.chosen + 1, chosen: c.chosen})
	// The answer promises nothing, so that the node may count its own without a save.
	if b.tally.Add(c.cfg.ID, true) == quorum.Won {
		c.prepare()
	}
}

// inquire asks all nodes that this one knows of for what is chosen. A node that joins learns so before it is added, and
// one that was made a member, by others that are gone by now, that it is.
func (c *Core) inquire() {
	ids := slices.Clone(c.contacts)
	for _, conf := range c.confs {
		for _, m := range conf.members {
			ids = append(ids, m.ID)
		}
	}
	slices.Sort(ids)
	m := message{kind: kindLearn, ballot: c.promised, first: c.chosen + 1}
	for _, id := range slices.Compact(ids) {
		if id != c.cfg.ID {
			c.send(id, &m)
		}
	}
}

// toMembers sends a message to all other members of the configurations in force.
func (c *Core) toMembers(m *message) {
	payload := c.encode(m)
	for _, id := range c.memberIDs() {
		if id != c.cfg.ID {
			c.out.Send(id, payload)
		}
	}
}

// memberIDs returns the members of the configurations in force, each once.
func (c *Core) memberIDs() []coterie.NodeID {
	var ids []coterie.NodeID
	for _, conf := range c.active() {
		for _, m := range conf.members {
			if !slices.Contains(ids, m.ID) {
				ids = append(ids, m.ID)
			}
		}
	}
	return ids
}

// prepare is phase 1a, for all slots that this node does not know to be chosen: "A newly chosen leader executes phase 1
// for infinitely many instances" (Lamport 2001, §3). The ballot is promised by this node, durably, before anybody hears
// of it, so that it is never used again.
func (c *Core) prepare() {
	c.becomeFollower("")
	c.round++
	c.promised, c.dirty = Ballot{c.round, c.cfg.ID}, true
	c.bid = &bid{ballot: c.promised, from: c.chosen + 1, values: map[uint64]value{}, retry: c.now + c.cfg.HeartbeatInterval}
	c.metrics.Ballots++
	c.toMembers(&message{kind: kindPrepare, ballot: c.promised, first: c.bid.from, chosen: c.chosen})
	// Its own promise it counts like any other, when it is durable. What it has accepted stands in its log.
	c.send(c.cfg.ID, &message{kind: kindPromise, ballot: c.promised, willing: true, first: c.bid.from})
}

// repeatPrepare asks those again who have not answered.
func (c *Core) repeatPrepare() {
	b := c.bid
	b.retry = c.now + c.cfg.HeartbeatInterval
	for _, id := range c.memberIDs() {
		if p := b.promiseOf(id); !p.done && id != c.cfg.ID {
			// What is chosen by now, or proposed, needs no phase 1; its values may even be gone there.
			p.next = max(p.next, c.chosen+1)
			if c.lead != nil {
				p.next = max(p.next, c.lead.next)
			}
			c.send(id, &message{kind: kindPrepare, ballot: b.ballot, first: p.next, chosen: c.chosen})
		}
	}
}

// handlePrepare is phase 1b: the acceptor promises unless it has promised a higher ballot, and reports what it has
// accepted from the slot on.
func (c *Core) handlePrepare(from coterie.NodeID, m *message) {
	if m.poll {
		// One that lacks what is gone from this log, or much else, had better catch up first.
		willing := c.promised.Less(m.ballot) && !c.sticky(from) && c.log.start <= m.chosen &&
			c.chosen <= m.chosen+uint64(c.cfg.Alpha)
		if !willing && c.lead != nil {
			c.lead.beat = true // the leader shows itself to one that it does not seem to reach
		}
		c.send(from, &message{kind: kindPromise, poll: true, willing: willing, ballot: m.ballot, first: m.first, chosen: c.chosen})
		return
	}
	switch {
	case m.ballot.Less(c.promised):
		c.refuse(from)
		return
	case c.promised.Less(m.ballot):
		if c.sticky(from) {
			c.metrics.Ignored++
			return
		}
		c.promised, c.dirty = m.ballot, true
		c.becomeFollower("")
	}
	c.report(from, m.first)
}

// report answers phase 1 with the slots from one on, as many as a message holds.
func (c *Core) report(to coterie.NodeID, first uint64) {
	m := message{kind: kindPromise, willing: true, ballot: c.promised, first: first, chosen: c.chosen, start: c.log.start}
	if first > c.log.start {
		bytes := 0
		for i := first; i <= c.log.last(); i++ {
			s, e := c.log.at(i)
			if m.count > 0 && bytes+len(e.Command) > c.cfg.MaxMessageBytes || m.count >= 1<<16 {
				m.round = i
				break
			}
			bytes += len(e.Command)
			m.body = c.log.appendReport(m.body, s, e)
			m.count++
		}
	}
	c.out.Send(to, m.encode(make([]byte, 0, len(m.body)+128)))
}

// handlePromise counts a promise, or an answer to the poll.
func (c *Core) handlePromise(from coterie.NodeID, m *message) {
	b := c.bid
	if from != c.cfg.ID && m.chosen > c.chosen {
		c.lag(from, m.chosen)
	}
	if b == nil || b.ballot != m.ballot && (!c.bugs.countAnyPromise || m.poll) || b.poll != m.poll {
		return // an answer to a ballot that is over
	}
	if m.poll {
		if b.tally.Add(from, m.willing) == quorum.Won {
			c.prepare()
		}
		return
	}
	p := b.promiseOf(from)
	if p.done || m.first != p.next && !c.bugs.countAnyPromise {
		return
	}
	if m.start >= m.first {
		c.gone(m.start)
		return
	}
	for i := range m.entries {
		v := m.value(i)
		c.heedReport(m.first+uint64(i), &v)
	}
	if m.round != 0 {
		p.next = m.round
		c.send(from, &message{kind: kindPrepare, ballot: b.ballot, first: p.next, chosen: c.chosen})
		return
	}
	p.done = true
	if c.lead == nil && c.phase1Done(c.configAt(c.chosen+1)) {
		c.becomeLeader()
	}
}

// gone is what becomes of a ballot when an acceptor has let go of slots that phase 1 asked for. If they are not proposed
// yet, this node must catch up before it can lead: others have chosen them, under a configuration it did not know of.
func (c *Core) gone(through uint64) {
	if c.lead == nil || through >= c.lead.next {
		c.becomeFollower("")
	} // else the acceptor is asked again, for the slots that are left
}

// heedReport keeps the value of the highest ballot that is reported of a slot (P2c).
func (c *Core) heedReport(i uint64, v *value) {
	b := c.bid
	if v.state == empty || i <= c.chosen || c.lead != nil && i < c.lead.next {
		return
	}
	b.last = max(b.last, i)
	old, ok := b.values[i]
	better := !ok || old.state != chosen && (v.state == chosen || old.ballot.Less(v.ballot))
	if c.bugs.lowestReport {
		better = !ok || old.state != chosen && (v.state == chosen || v.ballot.Less(old.ballot))
	}
	if better {
		b.values[i] = *v
	}
}

// phase1Done reports whether a phase 1 quorum of a configuration has promised this node's ballot.
func (c *Core) phase1Done(conf *configuration) bool {
	if len(conf.members) == 0 {
		return false
	}
	read := conf.quorums.Read()
	var promised quorum.Set
	for i := range c.bid.promises {
		if p := &c.bid.promises[i]; p.done {
			promised |= read.Set(p.id)
		}
	}
	return read.IsQuorum(promised)
}

// recover returns the value for a slot from phase 1: what this node or a promise knows of the highest ballot; a no-op if
// nothing is known, for then the slot is free, and nobody waits for it (Lamport 2001, §3).
func (c *Core) recover(i uint64) value {
	var v value
	if s, e := c.log.get(i); s != nil && s.state != empty {
		v = value{meta{s.state, c.log.ballot(s.ballot), c.log.ballot(s.origin)}, *e}
	}
	if r, ok := c.bid.values[i]; ok && v.state != chosen && (r.state == chosen || v.state == empty || v.ballot.Less(r.ballot)) {
		v = r
	}
	if v.state == empty || c.bugs.ignoreReports && v.state != chosen {
		v = c.noop()
	}
	return v
}

// noop is the value of a slot that nobody needs.
func (c *Core) noop() value {
	b := c.bid.ballot
	return value{meta{accepted, b, b}, consensus.Entry{Term: b.Round, Internal: true}}
}

// refuse tells that a higher ballot was promised.
func (c *Core) refuse(to coterie.NodeID) {
	c.send(to, &message{kind: kindRefused, ballot: c.promised, chosen: c.chosen})
}

// handleRefused ends this node's ballot if a higher one was promised.
func (c *Core) handleRefused(from coterie.NodeID, m *message) {
	if m.chosen > c.chosen {
		c.lag(from, m.chosen)
	}
	if c.bid != nil && !c.bid.poll && c.bid.ballot.Less(m.ballot) {
		c.becomeFollower("")
	}
}
