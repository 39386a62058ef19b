package raft

import "fmt"

// bugs are planted by tests, to show that they would be found. The zero value is the correct protocol.
type bugs struct {
	forgetVote    bool // the vote is told, not saved
	commitOldTerm bool // entries of an old term are committed by counting replicas
	countUnsaved  bool // the leader counts its own copy before it is durable
	anyCandidate  bool // no election restriction
	keepConflict  bool // a log is not cut where it contradicts the leader's
	installOld    bool // a snapshot is installed over newer entries
	oldSession    bool // answers of a former membership count
	leaseForever  bool // the lease does not end
	keepLease     bool // the lease outlives the beginning of a transfer
	oldRound      bool // a read is confirmed by a round that began before it
	readEarly     bool // reads are answered before the leader has committed in its term
	changeEarly   bool // members are changed before the leader has committed in its term
}

// checkInvariants panics if what Core's comment promises does not hold. It runs at the end of every input in tests and
// under the race detector.
func (c *Core) checkInvariants() {
	if !checked || c.bugs != (bugs{}) {
		return
	}
	if c.applied > c.emitted || c.emitted > c.committed || c.committed > c.log.last() || c.base.index > c.committed ||
		c.log.start > c.base.index {
		panic(fmt.Sprintf("raft: start %d, base %d, applied %d, emitted %d, committed %d, last %d out of order",
			c.log.start, c.base.index, c.applied, c.emitted, c.committed, c.log.last()))
	}
	if c.log.lastTerm() > c.term {
		panic(fmt.Sprintf("raft: log ends in term %d, the node is in %d", c.log.lastTerm(), c.term))
	}
	if (c.lead != nil) != (c.role == Leader) {
		panic(fmt.Sprintf("raft: %v with leadership %t", c.role, c.lead != nil))
	}
	if c.lead == nil {
		return
	}
	if c.vote != c.cfg.ID {
		panic(fmt.Sprintf("raft: leads term %d, but voted for %q", c.term, c.vote))
	}
	for _, p := range c.lead.peers {
		if p.match >= p.next || p.match > c.log.last() || p.next > c.log.last()+1 {
			panic(fmt.Sprintf("raft: peer %s: match %d, next %d, last %d", p.id, p.match, p.next, c.log.last()))
		}
	}
}
