package raft

import (
	"fmt"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

// pendingChange is a change of members that somebody waits for.
type pendingChange struct {
	id    uint64
	index uint64 // of the configuration that ends it; 0 until that is appended
}

// ConfigChanged is an event: the configuration that this node uses has changed, as it does when its entry is appended
// (§6), or that configuration has been committed.
type ConfigChanged struct {
	Index     uint64 // of its entry; the snapshot's if it came with one
	Members   Membership
	Committed bool
}

// Introduced is an event: the leader has said who and where the members are, before this node's own log says it. They
// are to be reached, no more.
type Introduced struct {
	Members Membership
}

// introduce tells a peer that has not answered in this term where the members are: it may have joined with an empty
// log, or its log may not know this leader, and then it could not answer.
func (c *Core) introduce(p *peer) {
	for i := range c.conf.Members {
		if c.conf.Members[i].Address != "" {
			c.send(p.id, &message{kind: kindIntroduce, term: c.term, members: c.conf.Membership})
			return
		}
	}
}

func (c *Core) handleIntroduce(m *message) {
	if c.lead == nil && !c.introduced.Equal(m.members) {
		c.introduced = m.members
		c.out.Emit(Introduced{Members: m.members.clone()})
	}
}

// Reconfigure changes the members. The answer is a Done with the id, when the new configuration is committed. One
// change is made at a time, and none before the leader has committed an entry of its term: else two majorities that do
// not meet could come about (raft-dev, "bug in single-server membership changes", 2015).
func (c *Core) Reconfigure(now time.Time, id uint64, change Change) {
	c.enter(now)
	defer c.checkInvariants()
	l := c.lead
	switch {
	case l == nil:
		c.finish(id, c.notLeader())
		return
	case l.transfer.target != "", c.conf.Joint(), c.conf.index > c.committed, l.change.id != 0,
		c.committed < l.begin && !c.bugs.changeEarly:
		c.finish(id, ErrBusy)
		return
	}
	next, err := change.apply(c.conf.Membership)
	if err != nil {
		c.finish(id, err)
		return
	}
	if next.Equal(c.conf.Membership) {
		c.finish(id, nil)
		return
	}
	c.stir()
	l.change = pendingChange{id: id}
	c.appendMembers(c.conf.stepTo(next))
}

// Promote makes a learner that has caught up a voter. The answer is a Done with the id.
func (c *Core) Promote(now time.Time, id uint64, learner coterie.NodeID) {
	c.enter(now)
	m, ok := c.conf.Find(learner)
	if c.lead != nil {
		if !ok || m.Role != Learner {
			c.finish(id, fmt.Errorf("%w: %s is no learner", ErrInvalidChange, learner))
			return
		}
		if p := c.lead.find(learner); p.mode != replicating || p.match < c.committed {
			c.finish(id, ErrNotCaughtUp)
			return
		}
	}
	m.ID, m.Role, m.AutoPromote = learner, Voter, false
	c.Reconfigure(now, id, Change{Set: []Member{m}})
}

// appendMembers appends a configuration and uses it from then on.
func (c *Core) appendMembers(m Membership) {
	e := consensus.Entry{Term: c.term, Internal: true, Command: encodeMembership(m)}
	c.log.append(e)
	c.pending += len(e.Command)
	c.metrics.ConfigChanges++
	c.adopt(c.log.last())
	if !m.Joint() {
		c.lead.change.index = c.log.last()
	}
}

// adopt uses the configuration that the entry at an index holds, which has been checked.
func (c *Core) adopt(index uint64) {
	members, err := decodeMembership(c.log.at(index).Command)
	if err != nil {
		panic(fmt.Sprintf("raft: configuration entry %d in the log: %v", index, err))
	}
	c.confs = append(c.confs, configuration{index, members})
	c.adoptNewest()
}

// adoptNewest uses the newest configuration in the log.
func (c *Core) adoptNewest() {
	c.replayConf()
	c.findSelf()
	c.announce()
	if c.lead != nil {
		c.rebuildPeers()
	} else if c.booted && (c.electionDue == never) == c.mayLead {
		c.resetTimeout()
	}
}

// findSelf finds out what this node is in its configuration. One that a configuration removes may be the only one that
// holds that configuration: until it is committed, the node must still be able to lead (thesis §4.2.2).
func (c *Core) findSelf() {
	me, member := c.conf.Find(c.cfg.ID)
	switch {
	case member:
		c.witness = me.Role == Witness
	case c.base.index > 0 && c.base.snapshot.Name == "":
		c.witness = true // one that was removed still has no state to apply entries to
	}
	c.mayLead = c.conf.elects(c.cfg.ID)
	if c.conf.index > c.committed && !c.mayLead {
		before := c.base.members
		if n := len(c.confs); n > 1 {
			before = c.confs[n-2].Membership
		}
		c.mayLead = before.elects(c.cfg.ID)
	}
}

// announce tells the application of a configuration that it has not heard of.
func (c *Core) announce() {
	if c.booted && !c.announced.Equal(c.conf.Membership) {
		c.announced = c.conf.Membership
		c.trace(TraceConfig, nil, "")
		c.out.Emit(ConfigChanged{Index: c.conf.index, Members: c.conf.clone(), Committed: c.conf.index <= c.committed})
	}
}

// rebuildPeers makes the leader's peers the members of the configuration. A member that is new, or back, is a new
// session: what an answer says of a former one does not count. One that is gone gets the log until it knows.
func (c *Core) rebuildPeers() {
	l := c.lead
	old := l.peers
	l.peers, l.self = nil, nil
	add := func(m Member, outgoing bool) {
		p := l.find(m.ID)
		if p == nil {
			i := slices.IndexFunc(old, func(p *peer) bool { return p.id == m.ID && (!p.leaving || c.bugs.oldSession) })
			if i >= 0 {
				p = old[i]
				p.voter, p.outgoing, p.witness, p.leaving = false, false, false, false
			} else {
				p = &peer{id: m.ID, next: c.log.last() + 1, since: c.conf.index, heard: c.now}
			}
			l.peers = append(l.peers, p)
		}
		p.voter = p.voter || !outgoing && m.votes()
		p.outgoing = p.outgoing || outgoing && m.votes()
		p.witness = p.witness || m.Role == Witness
		if m.ID == c.cfg.ID {
			l.self = p
			p.round = l.round
		}
	}
	for _, m := range c.conf.Members {
		add(m, false)
	}
	for _, m := range c.conf.Outgoing {
		add(m, true)
	}
	for _, p := range old {
		if l.find(p.id) == nil && p.id != c.cfg.ID {
			if !p.leaving {
				p.leaving, p.until = true, c.now+4*c.cfg.ElectionTimeout
				p.voter, p.outgoing = false, false
			}
			l.peers = append(l.peers, p)
		}
	}
	for _, p := range old {
		if p.transfer != nil && l.find(p.id) != p { // back in a new session, the snapshot of the old one need not wait
			c.release(p.transfer.base.snapshot.Name)
		}
	}
	voters := c.conf.System().Nodes()
	l.alone = len(voters) == 1 && voters[0] == c.cfg.ID
	c.extend()
}

// dropPeer ends what is done for a former member.
func (c *Core) dropPeer(p *peer) {
	c.lead.peers = slices.DeleteFunc(c.lead.peers, func(q *peer) bool { return q == p })
	if p.transfer != nil {
		c.release(p.transfer.base.snapshot.Name)
	}
}

// afterCommit does what waits for a configuration to be committed: a joint one is followed by the new one alone (§6),
// whoever leads by then; a leader that is no voter any more steps down.
func (c *Core) afterCommit() {
	if c.conf.index > c.committed {
		return
	}
	if c.settled < c.conf.index {
		c.settled = c.conf.index
		c.findSelf()
		c.out.Emit(ConfigChanged{Index: c.conf.index, Members: c.conf.clone(), Committed: true})
	}
	l := c.lead
	if l == nil {
		return
	}
	if c.conf.Joint() {
		if c.committed >= l.begin {
			c.appendMembers(Membership{Members: c.conf.Members})
		}
		return
	}
	if l.change.id != 0 && l.change.index != 0 && l.change.index <= c.committed {
		c.finish(l.change.id, nil)
		l.change = pendingChange{}
	}
	if !c.mayLead && c.committed >= l.begin {
		// The others need not wait for an election timeout: the furthest campaigns at once.
		if next := c.furthest(); next != "" {
			c.send(next, &message{kind: kindTimeoutNow, term: c.term})
		}
		c.becomeFollower(c.term, "")
		c.forsakeProposals()
	}
}

// forsakeProposals answers for what is not committed when a node leaves: it will not learn what becomes of it.
func (c *Core) forsakeProposals() {
	for i := c.committed; i < c.log.last(); i++ {
		if e := c.log.at(i + 1); e.ID != 0 {
			c.reject(e.ID, coterie.ErrUnknownOutcome)
			e.ID = 0
		}
	}
}

// promote makes a learner that asks for it a voter once it has caught up: in this term it holds all that is committed
// and answers in time.
func (c *Core) promote() {
	l := c.lead
	if c.conf.Joint() || c.conf.index > c.committed || c.committed < l.begin || l.change.id != 0 || l.transfer.target != "" {
		return
	}
	for _, p := range l.peers {
		m, ok := c.conf.Find(p.id)
		if !ok || m.Role != Learner || !m.AutoPromote || p.mode != replicating || p.match < c.committed ||
			c.now-p.heard > c.cfg.ElectionTimeout {
			continue
		}
		m.Role, m.AutoPromote = Voter, false
		next, err := Change{Set: []Member{m}}.apply(c.conf.Membership)
		if err == nil {
			c.metrics.Promotions++
			c.appendMembers(c.conf.stepTo(next))
			return
		}
	}
}

// UnsafeRecover makes the given voters the whole cluster, without asking anybody: for a cluster that has lost its
// majority for good. Entries that only the lost nodes held are lost, and if some of them are not dead the cluster is
// split in two that both believe to be it. Call it on one node only, the one with the longest log, and only when the
// lost nodes can never come back. The answer is a Done with the id.
func (c *Core) UnsafeRecover(now time.Time, id uint64, voters []coterie.NodeID) {
	c.enter(now)
	defer c.checkInvariants()
	var next Membership
	for _, v := range voters {
		m, ok := c.conf.Find(v)
		if !ok {
			m, ok = Membership{Members: c.conf.Outgoing}.Find(v)
		}
		if !ok || m.Role == Witness {
			c.finish(id, fmt.Errorf("%w: %s is no member that holds data", ErrInvalidChange, v))
			return
		}
		m.Role = Voter
		next.Members = append(next.Members, m)
	}
	sortMembers(next.Members)
	if _, ok := next.Find(c.cfg.ID); !ok {
		c.finish(id, fmt.Errorf("%w: the node itself, %s, is not among the voters", ErrInvalidChange, c.cfg.ID))
		return
	}
	if err := next.System().Err(); err != nil {
		c.finish(id, fmt.Errorf("%w: %w", ErrInvalidChange, err))
		return
	}
	if c.lead != nil && !c.lead.alone && c.now < c.lead.contact+c.cfg.ElectionTimeout {
		c.finish(id, ErrBusy) // there is a majority
		return
	}
	// A term that no lost node has reached, so that none of its entries is taken for one of this.
	c.becomeFollower(c.term+recoveryTerms, "")
	e := consensus.Entry{Term: c.term, Internal: true, Command: encodeMembership(next)}
	m := c.looseAppend(e)
	c.log.append(e)
	c.pending += len(e.Command)
	c.adopt(c.log.last())
	c.save(m, c.log.last())
	c.heard = long
	c.elect(true)
	c.finish(id, nil)
}

// recoveryTerms is how far UnsafeRecover jumps ahead.
const recoveryTerms = 1 << 20

// looseAppend encodes the record of one entry at the end of the log of a node that does not lead.
func (c *Core) looseAppend(e consensus.Entry) []byte {
	m := message{kind: kindAppend, term: c.term, index: c.log.last(), at: c.log.lastTerm(), count: 1}
	m.body = appendEntry(nil, &e, c.term)
	return m.encode(nil)
}
