package paxos

import (
	"math/rand/v2"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

// pendingRead is a read that a leader answers once a quorum has answered the round.
type pendingRead struct {
	round uint64
	id    uint64         // of this node's application, or
	from  coterie.NodeID // the node that asked,
	epoch uint64         // its incarnation
	ask   uint64         // and the number of its question
}

// asking is how a node puts reads to the leader, all of a batch as one question.
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

// Read asks for a slot fit for a linearizable read. A leader confirms by a round of messages that it leads, or knows it
// by its lease; another node asks the leader.
func (c *Core) Read(now time.Time, id uint64) {
	c.enter(now)
	defer c.checkInvariants()
	switch {
	case c.lead != nil:
		c.metrics.Reads++
		c.leadRead(pendingRead{id: id})
	case c.leader == "":
		c.reject(id, c.notLeader())
	default:
		c.metrics.Reads++
		if !c.ask.fresh {
			c.ask.last++
			c.ask.fresh = true
		}
		c.ask.reads = append(c.ask.reads, askedRead{id, c.ask.last, c.now + 2*c.cfg.ElectionTimeout})
	}
}

// current reports whether the leader knows all that was chosen before its ballot: all that phase 1 has found, for all
// configurations in force, is chosen now.
func (c *Core) current() bool {
	l := c.lead
	return c.chosen >= max(l.inherited, c.bid.last) && c.phase1DoneAll() || c.bugs.readEarly
}

func (c *Core) leadRead(r pendingRead) {
	l := c.lead
	if c.cfg.LeaseReads && len(l.reads) == 0 && c.current() && (c.leased() || c.bugs.leaseForever) {
		c.metrics.LeaseReads++
		c.serveRead(r)
		return
	}
	// The round must begin after the question.
	r.round = l.round + 1
	if c.bugs.oldRound {
		r.round = l.confirmed
	}
	l.reads = append(l.reads, r)
	l.beat = true
}

// answerReads serves the reads whose rounds are confirmed.
func (c *Core) answerReads() {
	l := c.lead
	if len(l.reads) == 0 || l.reads[0].round > l.confirmed || !c.current() {
		return
	}
	n := 0
	for n < len(l.reads) && l.reads[n].round <= l.confirmed {
		c.serveRead(l.reads[n])
		n++
	}
	l.reads = append(l.reads[:0], l.reads[n:]...)
}

func (c *Core) serveRead(r pendingRead) {
	if r.from == "" {
		c.out.Emit(consensus.ReadAt{ID: r.id, Index: c.chosen})
		return
	}
	c.send(r.from, &message{kind: kindReadReply, ballot: c.bid.ballot, willing: true, epoch: r.epoch, round: r.ask, chosen: c.chosen})
}

// handleRead takes another node's question.
func (c *Core) handleRead(from coterie.NodeID, m *message) {
	if c.lead == nil {
		c.send(from, &message{kind: kindReadReply, ballot: c.promised, epoch: m.epoch, round: m.round})
		return
	}
	c.leadRead(pendingRead{from: from, epoch: m.epoch, ask: m.round})
}

// handleReadReply answers every read that was asked for by this question or an earlier one.
func (c *Core) handleReadReply(m *message) {
	a := &c.ask
	if m.epoch != a.epoch || !m.willing {
		return // of one that leads no more; it is asked again, or its successor
	}
	if c.lead == nil && m.ballot == c.promised {
		c.hear(m.ballot.Node, m.ballot, m.chosen)
	}
	n := 0
	for n < len(a.reads) && a.reads[n].ask <= m.round {
		c.out.Emit(consensus.ReadAt{ID: a.reads[n].id, Index: m.chosen})
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
	if a.fresh {
		a.fresh = false
		c.askLeader()
	}
}

func (c *Core) askLeader() {
	a := &c.ask
	if len(a.reads) == 0 {
		return
	}
	a.due = c.now + c.cfg.HeartbeatInterval
	if c.leader != "" && c.lead == nil {
		c.send(c.leader, &message{kind: kindRead, ballot: c.promised, epoch: a.epoch, round: a.reads[len(a.reads)-1].ask})
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
	c.askLeader()
}
