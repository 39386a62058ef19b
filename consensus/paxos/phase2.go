package paxos

import (
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/quorum"
)

// peer is what a leader knows of one member, itself included.
type peer struct {
	id    coterie.NodeID
	round uint64 // the newest of the leader's rounds that it has answered
	knows uint64 // the slot through which it knows all to be chosen
}

// stamp is when a round began.
type stamp struct {
	round uint64
	at    instant
}

// sent is when the slots through one went out.
type sent struct {
	last uint64
	at   instant
}

// leadership is what a leader has beside its ballot.
type leadership struct {
	peers     []*peer
	self      *peer             // nil if it is no member
	next      uint64            // the first slot that is not proposed yet in this ballot
	free      *configuration    // the last one for which phase 1 was found to be done
	inherited uint64            // the last slot of which anything was known when the leadership began
	queue     []consensus.Entry // commands without a slot
	change    *change
	unsettled bool   // a configuration is new, and its members may not know so
	sent      []sent // what may have to be sent again, oldest first
	told      uint64 // the slot that all acceptors were last told to be chosen

	// A round is a number that every Accept carries and every answer echoes: that a phase 2 quorum has answered a round
	// shows that no phase 1 quorum had promised a higher ballot when it began.
	round     uint64
	confirmed uint64
	stamps    []stamp // when rounds began, oldest first
	contact   instant // the beginning of the newest confirmed round whose beginning is known
	alone     bool    // the leader is a quorum
	resignAt  instant // it leads no longer if no quorum has answered by then
	rounds    func(coterie.NodeID) uint64
	knows     func(coterie.NodeID) uint64

	beat    bool // everybody is owed a message
	beatDue instant
	reads   []pendingRead // in the order of their rounds
}

// becomeLeader begins phase 2.
func (c *Core) becomeLeader() {
	l := &leadership{
		next: c.chosen + 1, inherited: max(c.log.last(), c.bid.last, c.chosen), contact: long, beat: true, beatDue: c.now,
		resignAt: c.now + c.cfg.ElectionTimeout,
	}
	l.rounds = func(id coterie.NodeID) uint64 {
		if p := l.find(id); p != nil {
			return p.round
		}
		return 0
	}
	l.knows = func(id coterie.NodeID) uint64 {
		switch p := l.find(id); p {
		case nil:
			return 0
		case l.self:
			return c.chosen
		default:
			return p.knows
		}
	}
	l.unsettled = true // its predecessor may have begun a change
	c.lead, c.leader = l, c.cfg.ID
	c.electionDue = never
	c.recv = receiving{}
	c.metrics.Elections++
	c.rebuildPeers()
	if c.bugs.learnReports {
		for i := range c.bid.values {
			v := c.bid.values[i]
			v.state = chosen
			c.put(i, &v)
		}
		c.advance()
	}
}

func (l *leadership) find(id coterie.NodeID) *peer {
	for _, p := range l.peers {
		if p.id == id {
			return p
		}
	}
	return nil
}

// rebuildPeers makes the leader's peers the members of the configurations in force.
func (c *Core) rebuildPeers() {
	l := c.lead
	if l == nil {
		return
	}
	old := l.peers
	l.peers, l.self = nil, nil
	for _, id := range c.memberIDs() {
		p := &peer{id: id}
		for _, o := range old {
			if o.id == id {
				p = o
			}
		}
		l.peers = append(l.peers, p)
		if id == c.cfg.ID {
			l.self, p.round = p, l.round
		}
	}
	l.alone = true
	for _, conf := range c.active() {
		l.alone = l.alone && conf.accepts.Len() > 0 && conf.accepts.IsQuorum(conf.accepts.Set(c.cfg.ID))
	}
	c.extend()
}

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

// tickLeader does what has become due.
func (c *Core) tickLeader() {
	l := c.lead
	if c.now < l.beatDue {
		return
	}
	l.beat = true
	l.beatDue = c.now + c.cfg.HeartbeatInterval
	if !c.phase1DoneAll() {
		c.repeatPrepare()
	}
	c.resend()
}

// phase1DoneAll reports whether phase 1 is done for all configurations in force.
func (c *Core) phase1DoneAll() bool {
	for _, conf := range c.active() {
		if conf != c.lead.free && !c.phase1Done(conf) {
			return false
		}
	}
	return true
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

// newRound begins a round. Few rounds get a stamp, so that as many as one election timeout needs are kept.
func (c *Core) newRound() {
	l := c.lead
	l.round++
	if l.self != nil {
		l.self.round = l.round
	}
	if n := len(l.stamps); n > 0 && c.now-l.stamps[n-1].at < c.cfg.ElectionTimeout/64 {
		return
	}
	l.stamps = append(l.stamps, stamp{l.round, c.now})
}

// confirm takes notice of the newest round that a phase 2 quorum has answered: nobody else had been promised a higher
// ballot by a phase 1 quorum when it began, for the two would meet. So reads asked before it may be answered, and the
// lease and the right to lead run from its beginning.
func (c *Core) confirm() {
	l := c.lead
	round := l.round
	for _, conf := range c.active() {
		round = min(round, conf.accepts.Committed(l.rounds))
	}
	if round <= l.confirmed {
		return
	}
	l.confirmed = round
	n := 0
	for n < len(l.stamps) && l.stamps[n].round <= round {
		l.contact = l.stamps[n].at
		n++
	}
	if n > 0 {
		l.stamps = append(l.stamps[:0], l.stamps[n:]...)
	}
	c.extend()
	c.answerReads()
}

// extend sets when the leader must resign, from its last contact with a quorum.
func (c *Core) extend() {
	l := c.lead
	if l.alone {
		l.resignAt = never
		return
	}
	if l.resignAt == never {
		l.resignAt = c.now + c.cfg.ElectionTimeout
	}
	l.resignAt = max(l.resignAt, l.contact+c.cfg.ElectionTimeout)
}

// leased reports whether nobody else can lead yet: a phase 2 quorum has promised so, for one election timeout of its own
// clocks from when it heard the round, which is after the round began.
func (c *Core) leased() bool {
	l := c.lead
	drift := c.cfg.ClockDrift
	length := time.Duration(float64(c.cfg.ElectionTimeout) * (1 - drift) / (1 + drift))
	return l.alone || c.now < l.contact+length
}
