package paxos

import (
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
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
