package raft

import (
	"math/rand/v2"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

// pendingRead is a read that a leader answers once a quorum has answered the round, and it has committed in its term.
type pendingRead struct {
	round uint64
	id    uint64         // of this node's application, or
	from  coterie.NodeID // the follower that asked,
	epoch uint64         // its incarnation
	ask   uint64         // and the number of its question
}

// asking is a follower's side of reads: it puts them to the leader, all of a batch as one question.
type asking struct {
	epoch uint64 // drawn anew in every incarnation: an answer to a former one is none
	last  uint64 // number of the newest question
	reads []askedRead
	due   instant // when to ask again
	fresh bool    // there are reads that have not been asked for yet
}

type askedRead struct {
	id, ask uint64
	giveUp  instant
}

func (a *asking) boot(r *rand.PCG) { a.epoch, a.due = r.Uint64(), never }

// Read asks for a read index (§8, thesis §6.4). A leader confirms by a round of messages that it leads, or knows it by
// its lease; a follower asks the leader.
func (c *Core) Read(now time.Time, id uint64) {
	c.enter(now)
	defer c.checkInvariants()
	switch {
	case c.witness: // it has no state to read
		c.reject(id, c.notLeader())
	case c.lead != nil:
		c.metrics.Reads++
		c.leadRead(pendingRead{id: id})
	case c.leader == "":
		c.rouse()
		c.reject(id, c.notLeader())
	default:
		c.metrics.Reads++
		c.metrics.ReadsForwarded++
		if !c.ask.fresh {
			c.ask.last++
			c.ask.fresh = true
		}
		c.ask.reads = append(c.ask.reads, askedRead{id, c.ask.last, c.now + 2*c.cfg.ElectionTimeout})
	}
}

// leadRead serves a read as the leader.
func (c *Core) leadRead(r pendingRead) {
	l := c.lead
	c.stir()
	if c.cfg.LeaseReads && c.committed >= l.begin && (c.leased() || c.bugs.leaseForever) && len(l.reads) == 0 {
		c.metrics.LeaseReads++
		c.serveRead(r)
		return
	}
	// The round must begin after the question. Answers to it that follow with others still in flight are later ones.
	r.round = l.round + 1
	if c.bugs.oldRound {
		r.round = l.round
	}
	l.reads = append(l.reads, r)
	l.beat = true
}

// answerReads serves the reads whose rounds are confirmed. Before the first entry of its term is committed a leader
// does not know what is (§8).
func (c *Core) answerReads() {
	l := c.lead
	if len(l.reads) == 0 || c.committed < l.begin && !c.bugs.readEarly {
		return
	}
	n := 0
	for n < len(l.reads) && l.reads[n].round <= l.confirmed {
		c.serveRead(l.reads[n])
		n++
	}
	if n > 0 {
		l.reads = append(l.reads[:0], l.reads[n:]...)
	}
}

func (c *Core) serveRead(r pendingRead) {
	if r.from == "" {
		c.out.Emit(consensus.ReadAt{ID: r.id, Index: c.committed})
		return
	}
	term, _ := c.log.term(c.committed)
	c.send(r.from, &message{kind: kindReadReply, term: c.term, epoch: r.epoch, round: r.ask, index: c.committed, at: term})
}

// refuseRead answers a read of a leader that leads no more.
func (c *Core) refuseRead(r pendingRead) {
	if r.from == "" {
		c.reject(r.id, c.notLeader())
	}
	// A follower asks the next leader of its own accord.
}

// handleRead takes a follower's question. Question 0 only wakes the leader of a quiet group.
func (c *Core) handleRead(from coterie.NodeID, m *message) {
	switch {
	case c.lead == nil:
		c.send(from, &message{kind: kindReadReply, term: c.term, epoch: m.epoch, round: m.round, refused: true})
	case m.round == 0:
		c.stir()
	default:
		c.leadRead(pendingRead{from: from, epoch: m.epoch, ask: m.round})
	}
}

// handleReadReply answers every read that was asked for by this question or an earlier one.
func (c *Core) handleReadReply(_ coterie.NodeID, m *message) {
	a := &c.ask
	if m.epoch != a.epoch || m.refused || m.round > a.last || m.round == a.last && a.fresh {
		return // refused: by one that leads no more; it is asked again, or its successor
	}
	if c.lead == nil && c.log.matches(m.index, m.at) {
		// The entry at that index is the committed one, so that this node need not wait to be told.
		c.commitTo(m.index)
	}
	n := 0
	for n < len(a.reads) && a.reads[n].ask <= m.round {
		c.out.Emit(consensus.ReadAt{ID: a.reads[n].id, Index: m.index})
		n++
	}
	a.reads = append(a.reads[:0], a.reads[n:]...)
	if len(a.reads) == 0 {
		a.due = never
	}
}

// flushAsked puts the reads of the batch to the leader.
func (c *Core) flushAsked() {
	a := &c.ask
	if !a.fresh || c.lead != nil && len(a.reads) == 0 {
		return
	}
	a.fresh = false
	c.askLeader()
}

func (c *Core) askLeader() {
	a := &c.ask
	a.due = c.now + c.cfg.HeartbeatInterval
	if c.leader != "" && c.lead == nil {
		c.calm = false
		c.send(c.leader, &message{kind: kindRead, term: c.term, epoch: a.epoch, round: a.reads[len(a.reads)-1].ask})
	}
}

// tickReads asks again, for messages are lost and leaders change, and gives up in the end.
func (c *Core) tickReads() {
	a := &c.ask
	if c.now < a.due {
		return
	}
	n := 0
	for n < len(a.reads) && (c.lead != nil || a.reads[n].giveUp <= c.now) {
		if c.lead != nil {
			c.leadRead(pendingRead{id: a.reads[n].id})
		} else {
			c.reject(a.reads[n].id, c.notLeader())
		}
		n++
	}
	a.reads = append(a.reads[:0], a.reads[n:]...)
	a.due = never
	if len(a.reads) > 0 {
		c.askLeader()
	}
}
