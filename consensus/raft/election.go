package raft

import (
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/quorum"
)

// calmFactor is how much longer everything takes in a quiet group.
const calmFactor = 32

// becomeFollower enters a term, or stays in it, without leading. A new term forgets the vote.
func (c *Core) becomeFollower(term uint64, leader coterie.NodeID) {
	if term > c.term {
		c.term, c.vote, c.dirty = term, "", true
	}
	wasLeading := c.lead != nil
	c.role, c.leader = Follower, leader
	if wasLeading {
		c.stepDown()
	}
	c.calm = false
	c.resetTimeout()
	c.trace(TraceBecome, nil, leader)
}

// resetTimeout draws a new election time-out (§5.2): between one and two of the configured one, and half of one more
// for every voter that is preferred to this node.
func (c *Core) resetTimeout() {
	et := c.cfg.ElectionTimeout
	c.timeout = et + time.Duration(c.rand.Uint64()%uint64(et))
	if me, ok := c.conf.Find(c.cfg.ID); ok {
		for i := range c.conf.Members {
			if m := &c.conf.Members[i]; m.Role == Voter && m.Priority > me.Priority {
				c.timeout += et / 2
			}
		}
	}
	c.electionDue = never
	if c.mayLead {
		c.electionDue = c.now + c.timeout
	}
}

// sticky reports whether the node must not help to depose its leader: it has heard from it within the least election
// timeout (thesis §4.2.3), or leads itself. Lease reads rest on this, and nodes that come back do no harm by it.
func (c *Core) sticky() bool {
	if c.lead != nil {
		return true
	}
	stick := c.cfg.ElectionTimeout
	if c.calm {
		stick *= calmFactor
	}
	return c.now < c.heard+stick
}

// heardLeader notes a sign of life of the leader. Silence begins anew, in a quiet group a long one.
func (c *Core) heardLeader(calm bool) {
	c.heard, c.calm = c.now, calm
	if c.electionDue == never {
		return
	}
	c.electionDue = c.now + c.timeout
	if calm {
		c.electionDue = c.now + c.timeout*calmFactor
	}
}

// rouse makes a follower of a quiet group look whether its leader lives.
func (c *Core) rouse() {
	if !c.calm {
		return
	}
	c.calm, c.heard = false, c.now
	c.resetTimeout()
	if c.leader != "" {
		c.send(c.leader, &message{kind: kindRead, term: c.term, epoch: c.ask.epoch})
	}
}

// Liveness tells what a failure detector thinks of a node. A follower of a quiet group whose leader is suspected
// expects to hear from it at once; a quiet leader wakes.
func (c *Core) Liveness(now time.Time, id coterie.NodeID, l coterie.Liveness) {
	c.enter(now)
	switch {
	case c.lead != nil:
		c.stir()
	case id == c.leader && l != coterie.Alive:
		c.rouse()
	}
}

// campaign begins an election by asking who would vote (thesis §9.6): no term is spent on an election that cannot be
// won.
func (c *Core) campaign() {
	if !c.mayLead {
		c.electionDue = never
		return
	}
	c.becomeFollower(c.term, "")
	c.role = PreCandidate
	c.metrics.PreCampaigns++
	c.trace(TraceBecome, nil, "")
	c.poll(&message{kind: kindVote, term: c.term + 1, pre: true})
	// A pre-vote promises nothing, so that the node may count its own without a save.
	c.count(c.ballots.Add(c.cfg.ID, true))
}

// elect is the election itself (§5.2). forced is set if the leader asked for it.
func (c *Core) elect(forced bool) {
	c.becomeFollower(c.term+1, "")
	c.role, c.vote, c.dirty = Candidate, c.cfg.ID, true
	c.metrics.Campaigns++
	c.trace(TraceBecome, nil, "")
	c.poll(&message{kind: kindVote, term: c.term, forced: forced})
	// Its own vote it counts like any other, when it is durable.
	c.send(c.cfg.ID, &message{kind: kindVoteReply, term: c.term})
}

// poll puts the question to every voter of both configurations.
func (c *Core) poll(m *message) {
	m.index, m.at = c.log.last(), c.log.lastTerm()
	c.ballots = quorum.NewTally(c.conf.System(), m.term)
	for _, id := range c.conf.System().Nodes() {
		if id != c.cfg.ID {
			c.send(id, m)
		}
	}
}

// handleVote answers RequestVote (figure 2) and its pre-form.
func (c *Core) handleVote(from coterie.NodeID, m *message) {
	reply := message{kind: kindVoteReply, term: c.term, pre: m.pre}
	upToDate := m.at > c.log.lastTerm() || m.at == c.log.lastTerm() && m.index >= c.log.last() || c.bugs.anyCandidate
	switch {
	case !upToDate:
		reply.refused = true
	case m.pre:
		reply.refused = m.term <= c.term || c.sticky()
		if !reply.refused {
			reply.term = m.term
		}
	default:
		reply.refused = c.vote != "" && c.vote != from || c.lead != nil
		if !reply.refused {
			c.dirty = c.dirty || c.vote == ""
			c.vote = from
			c.resetTimeout()
		}
	}
	if m.pre && reply.refused {
		// One that a live leader does not reach asks: the leader shows itself, a quiet follower looks for it.
		if c.lead != nil {
			c.stir()
		}
		c.rouse()
	}
	c.send(from, &reply)
}

// handleVoteReply counts one node's answer in the election under way.
func (c *Core) handleVoteReply(from coterie.NodeID, m *message) {
	switch {
	case m.pre && c.role == PreCandidate && (m.term == c.term+1 || m.refused):
	case !m.pre && c.role == Candidate && m.term == c.term:
	default:
		return // an answer to an election that is over
	}
	c.count(c.ballots.Add(from, !m.refused))
}

// count acts on what the election has come to. A lost one is tried again after the time-out.
func (c *Core) count(outcome quorum.Outcome) {
	switch {
	case outcome == quorum.Lost:
		c.role = Follower
	case outcome == quorum.Won && c.role == PreCandidate:
		c.elect(false)
	case outcome == quorum.Won && c.role == Candidate:
		c.becomeLeader()
	}
}

// becomeLeader begins to lead (§5.2, §8): an entry of its own term tells the leader what is committed.
func (c *Core) becomeLeader() {
	c.role, c.leader = Leader, c.cfg.ID
	c.electionDue = never
	c.recv = receiving{} // a leader has every committed entry already (§5.4.1)
	c.metrics.Elections++
	c.lead = newLeadership(c)
	c.trace(TraceBecome, nil, c.cfg.ID)
	c.log.append(consensus.Entry{Term: c.term, Internal: true})
}

// stepDown gives up what only a leader has. Entries that were never sent are taken back; of those that were, only
// their fate tells.
func (c *Core) stepDown() {
	l := c.lead
	c.lead = nil
	c.cutTail(l.saved, c.notLeader())
	for _, r := range l.reads {
		c.refuseRead(r)
	}
	if l.change.id != 0 {
		c.finish(l.change.id, coterie.ErrUnknownOutcome)
	}
	if l.transfer.id != 0 {
		// The term is over. Whether the target leads is not known yet, but that this node does not is what was asked.
		c.finish(l.transfer.id, nil)
	}
	c.dropTransfers()
}

// cutTail removes the entries after an index from the log and tells whoever proposed one of them.
func (c *Core) cutTail(last uint64, err error) {
	for i := last; i < c.log.last(); i++ {
		e := c.log.at(i + 1)
		c.pending -= len(e.Command)
		if e.ID != 0 {
			c.reject(e.ID, err)
		}
	}
	c.log.truncate(last)
	for len(c.confs) > 0 && c.confs[len(c.confs)-1].index > last {
		c.confs = c.confs[:len(c.confs)-1]
	}
	c.adoptNewest()
}

// handleTimeoutNow is the end of a leadership transfer (thesis §3.10): the leader of this term wants this node to
// campaign at once.
func (c *Core) handleTimeoutNow(from coterie.NodeID) {
	if from == c.leader && c.lead == nil && c.mayLead {
		c.elect(true)
	}
}
