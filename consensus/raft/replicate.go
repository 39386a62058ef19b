package raft

import (
	"math/bits"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

// replicate is the leader's end of a batch: new entries become records and messages of the same bytes, peers that lag
// get what they lack, and every peer that is owed a message gets one.
func (c *Core) replicate() {
	l := c.lead
	l.batches = l.batches[:0]
	c.answerReads()
	if l.saved < c.log.last() {
		c.stir()
	}
	if l.beat || l.saved < c.log.last() || c.someLag() {
		c.newRound()
	}
	c.saveNew()
	for _, p := range l.peers {
		p.told = false
		if p != l.self {
			c.feed(p)
		}
	}
	if l.beat {
		for _, p := range l.peers {
			if p != l.self && !p.told {
				c.heartbeat(p)
			}
		}
		l.beat = false
		l.beatDue = c.nextBeat()
	}
	if !l.calm {
		c.hurryCommit()
	}
	clear(l.batches)
	l.confirmAlone(c)
}

// nextBeat returns when the next heartbeat is due: at a multiple of the interval, the same for all groups of a process,
// so that their heartbeats to one peer go out together.
func (c *Core) nextBeat() instant {
	interval := c.cfg.HeartbeatInterval
	if c.lead.calm {
		interval *= calmFactor
	}
	at := c.now + interval
	return at - instant(c.origin.Add(at).UnixNano()%int64(interval))
}

// confirmAlone lets a leader that is a quorum by itself answer its reads: nobody else would confirm its round.
func (l *leadership) confirmAlone(c *Core) {
	if l.alone && l.confirmed < l.round {
		c.confirm()
	}
}

// someLag reports whether some peer would be sent entries now.
func (c *Core) someLag() bool {
	for _, p := range c.lead.peers {
		if p != c.lead.self && p.next <= c.lead.saved && c.maySend(p) {
			return true
		}
	}
	return false
}

// hurryCommit sees to it that peers hear soon of what has been committed since the last message to them: the next
// entries would tell them, a heartbeat tells them when there are none.
func (c *Core) hurryCommit() {
	l := c.lead
	for _, p := range l.peers {
		if p != l.self && p.committed < c.committed && p.match > p.committed {
			l.beatDue = min(l.beatDue, c.now+c.cfg.HeartbeatInterval/8)
			return
		}
	}
}

// saveNew makes records of the entries that have none, and sends itself how far they will be durable.
func (c *Core) saveNew() {
	l := c.lead
	if l.saved == c.log.last() {
		return
	}
	for l.saved < c.log.last() {
		b := c.encodeAppend(l.saved, false)
		c.save(b.payload, b.last)
		l.saved = b.last
	}
	own := message{kind: kindAppendReply, term: c.term, index: l.saved, round: l.round, epoch: c.conf.index}
	c.send(c.cfg.ID, &own)
}

// maySend reports whether the limits let another message of entries go to a peer.
func (c *Core) maySend(p *peer) bool {
	switch p.mode {
	case probing:
		return !p.asked
	case replicating:
		n := len(p.inflight) - p.inflight0
		return n == 0 || n < c.cfg.MaxInflightMessages && p.inflightBytes < c.cfg.MaxInflightBytes
	case installing:
	}
	return false
}

// feed sends a peer the entries it lacks, ahead of its answers. They promise nothing that rests on this node's disk,
// so that they leave before they are durable here (thesis §10.2.1).
func (c *Core) feed(p *peer) {
	l := c.lead
	for p.next <= l.saved && c.maySend(p) {
		if p.next <= c.log.start {
			c.beginTransfer(p)
			return
		}
		b := c.encodeAppend(p.next-1, p.witness)
		c.traceAppend(b.payload, p.id)
		c.out.SendEarly(p.id, b.payload)
		p.told, p.committed = true, min(c.committed, b.last)
		if p.mode == probing {
			p.asked = true
			return
		}
		p.next = b.last + 1
		p.inflight = append(p.inflight, span{b.last, b.bytes})
		p.inflightBytes += b.bytes
	}
}

// heartbeat sends an append without entries. It says what precedes the next entry, so that a peer that lost some
// refuses it. A peer that needs a snapshot is asked for nothing.
func (c *Core) heartbeat(p *peer) {
	prev := p.next - 1
	if p.mode == installing || prev < c.log.start {
		if p.mode != installing {
			c.beginTransfer(p)
		}
		c.resend(p)
		prev = 0
	}
	if p.match == 0 {
		c.introduce(p)
	}
	l := c.lead
	p.told, p.asked = true, true
	p.committed = min(c.committed, prev)
	for i := range l.batches {
		if b := &l.batches[i]; b.prev == prev && b.last == prev {
			c.traceAppend(b.payload, p.id)
			c.out.SendEarly(p.id, b.payload)
			return
		}
	}
	m := c.appendMessage(prev)
	b := batch{prev: prev, last: prev, payload: c.encode(&m)}
	l.batches = append(l.batches, b)
	c.traceAppend(b.payload, p.id)
	c.out.SendEarly(p.id, b.payload)
}

// appendMessage returns an AppendEntries without its entries.
func (c *Core) appendMessage(prev uint64) message {
	m := message{
		kind: kindAppend, term: c.term, index: prev, commit: c.committed, round: c.lead.round, epoch: c.conf.index,
		calm: c.lead.calm,
	}
	if prev > 0 {
		m.at, _ = c.log.term(prev)
	}
	return m
}

// strippedSize is what an entry without its command counts for, at least, in the bounds of messages and of what is in
// flight.
const strippedSize = 8

// encodeAppend returns an append of the entries after prev, as many as a message holds. What was encoded in this
// Ready already is taken from there: peers in step, and the journal, get the same bytes. A witness gets entries
// without their commands.
func (c *Core) encodeAppend(prev uint64, stripped bool) batch {
	l := c.lead
	for i := range l.batches {
		if b := &l.batches[i]; b.prev == prev && b.last > prev && b.stripped == stripped {
			return *b
		}
	}
	last, bytes, size := prev, 0, 0
	for last < c.log.last() {
		e := c.log.at(last + 1)
		n := len(e.Command)
		counted := n
		if stripped && !e.Internal {
			n, counted = 0, strippedSize
		}
		if last > prev && bytes+counted > c.cfg.MaxMessageBytes {
			break
		}
		last++
		bytes += counted
		size += n + uvarintLen((c.term-e.Term)<<1) + uvarintLen(uint64(n))
	}
	m := c.appendMessage(prev)
	m.count = int(last - prev)
	payload := appendHeader(header(make([]byte, 0, m.headerLen()+size), kindAppend, c.term), &m)
	entries := c.log.slice(prev, last)
	for i := range entries {
		if stripped && !entries[i].Internal {
			payload = appendEntry(payload, &consensus.Entry{Term: entries[i].Term}, c.term)
			continue
		}
		payload = appendEntry(payload, &entries[i], c.term)
	}
	b := batch{prev, last, bytes, stripped, payload}
	l.batches = append(l.batches, b)
	return b
}

func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// headerLen is how many bytes an append has before its entries.
func (m *message) headerLen() int {
	n := 3 // format, kind and calm
	for _, v := range [...]uint64{m.term, m.index, m.at, m.commit, m.round, m.epoch, uint64(m.count)} {
		n += uvarintLen(v)
	}
	return n
}

// handleAppendReply is a peer's answer, or the leader's own from its disk.
func (c *Core) handleAppendReply(from coterie.NodeID, m *message) {
	l := c.lead
	if l == nil {
		return
	}
	p := l.find(from)
	if p == nil || m.epoch < p.since && !c.bugs.oldSession {
		return // of a former membership: what it says was true of another disk
	}
	p.heard = c.now
	if m.round > p.round && m.round <= l.round {
		p.round = m.round
		c.confirm()
	}
	if m.refused {
		c.handleRefusal(p, m)
		return
	}
	if m.index > c.log.last() {
		return // cannot be: its term is this leader's, whose log only grows
	}
	p.asked = false
	if m.index > p.match {
		p.match = m.index
		if c.advance(p); c.lead == nil {
			return // the entry that was committed is the configuration without this node
		}
	}
	if p.next <= p.match {
		p.next = p.match + 1
	}
	if p.mode == installing && (p.match >= p.transfer.base.index || p.match >= c.log.start) {
		c.endSending(p, p.match+1)
	}
	if p.mode == probing && p.match+1 >= p.next {
		p.mode = replicating
	}
	p.acknowledge()
	if l.transfer.target == p.id {
		c.tryTransfer()
	}
	if p.leaving && p.match >= c.conf.index && c.committed >= c.conf.index && p.committed >= c.conf.index {
		c.dropPeer(p)
	}
}

// acknowledge takes the messages that have been answered out of flight.
func (p *peer) acknowledge() {
	for p.inflight0 < len(p.inflight) && p.inflight[p.inflight0].last <= p.match {
		p.inflightBytes -= p.inflight[p.inflight0].bytes
		p.inflight0++
	}
	if p.inflight0 == len(p.inflight) {
		p.inflight, p.inflight0 = p.inflight[:0], 0
	} else if p.inflight0 >= 64 && p.inflight0 >= len(p.inflight)/2 {
		p.inflight = append(p.inflight[:0], p.inflight[p.inflight0:]...)
		p.inflight0 = 0
	}
}

// forgetInflight takes everything out of flight: it was lost, or will be sent again.
func (p *peer) forgetInflight() {
	p.inflight, p.inflight0, p.inflightBytes = p.inflight[:0], 0, 0
}

// handleRefusal finds where the logs part (§5.3): the follower names the last place where they can agree.
func (c *Core) handleRefusal(p *peer, m *message) {
	if m.index <= p.match || m.index >= p.next || p.mode == installing {
		return // late: answered since, or never asked
	}
	if p.mode == probing && m.index != p.next-1 {
		return
	}
	c.metrics.Refusals++
	// Of the leader's entries, none of a later term than the follower's at the hint can agree with it.
	agree := min(m.hint, m.index-1)
	for agree > p.match && agree > c.log.start {
		if term, ok := c.log.term(agree); ok && term <= m.at {
			break
		}
		agree--
	}
	p.next = max(agree, p.match) + 1
	p.mode, p.asked = probing, false
	p.forgetInflight()
}

// advance commits what a quorum holds, if that includes an entry of this term (§5.4.2).
func (c *Core) advance(p *peer) {
	if !p.voter && !p.outgoing {
		return
	}
	l := c.lead
	if c.bugs.countUnsaved && l.self != nil {
		l.self.match = l.saved
	}
	index := l.quorumOf(matchOf, c.conf.Joint())
	if index <= c.committed || index < l.begin && !c.bugs.commitOldTerm {
		return
	}
	c.committed = index
	c.trace(TraceCommit, nil, "")
	c.afterCommit()
	if c.lead != nil {
		c.answerReads()
	}
}
