package paxos

import "fmt"

// bugs are planted by tests, to show that they would be found. The zero value is the correct protocol.
type bugs struct {
	forgetPromise   bool // the promise is told, not saved
	acceptLower     bool // proposals of lower ballots than the promised one are accepted
	ignoreReports   bool // the leader proposes its own whatever phase 1 reported
	lowestReport    bool // the value of the lowest ballot reported is taken
	countAnyPromise bool // promises of other ballots count
	countUnsaved    bool // the leader counts its own vote before it is durable
	learnReports    bool // what phase 1 reported is taken for chosen
	hearAny         bool // what was accepted in another ballot than the leader's is taken for chosen
	readEarly       bool // reads are answered before what phase 1 found is chosen
	oldRound        bool // a read is confirmed by a round that began before it
	leaseForever    bool // the lease does not end
	noLease         bool // acceptors take part in another's ballot during the lease
	configAtOnce    bool // a configuration is in force from the next slot on
}

// checkInvariants panics if what Core's comment promises does not hold. It runs at the end of every input in tests and
// under the race detector.
func (c *Core) checkInvariants() {
	if !checked || c.bugs != (bugs{}) {
		return
	}
	if c.applied > c.emitted || c.emitted > c.chosen || c.chosen > max(c.log.last(), c.base.slot) || c.base.slot > c.chosen ||
		c.log.start > c.base.slot {
		panic(fmt.Sprintf("paxos: start %d, base %d, applied %d, emitted %d, chosen %d, last %d out of order",
			c.log.start, c.base.slot, c.applied, c.emitted, c.chosen, c.log.last()))
	}
	if l := c.lead; l != nil {
		if c.bid == nil || c.bid.ballot != c.promised {
			panic(fmt.Sprintf("paxos: leads, but promised %v", c.promised))
		}
		if l.next > c.chosen+uint64(c.cfg.Alpha)+1 || l.next <= c.chosen {
			panic(fmt.Sprintf("paxos: proposes %d with %d chosen", l.next, c.chosen))
		}
	}
	if n := c.log.last(); n > c.log.start {
		if s, _ := c.log.at(n); s.state == accepted && c.promised.Less(c.log.ballot(s.ballot)) {
			panic(fmt.Sprintf("paxos: slot %d accepted in %v, promised %v", n, c.log.ballot(s.ballot), c.promised))
		}
	}
	if c.pending < 0 || c.waiting < 0 {
		panic(fmt.Sprintf("paxos: %d bytes pending, %d unapplied", c.pending, c.waiting))
	}
}
