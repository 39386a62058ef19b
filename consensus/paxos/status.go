package paxos

import (
	"slices"

	"github.com/coterie-go/coterie"
)

// Metrics says where a node is, and counts what it has done since it started.
type Metrics struct {
	Ballot         Ballot         // promised
	Leader         coterie.NodeID // that it knows of
	Leads          bool
	LastSlot       uint64 // of the log
	FirstSlot      uint64 // of the log in memory
	Chosen         uint64 // every slot through it is
	Applied        uint64
	PendingBytes   int      // of commands beyond what was emitted
	UnappliedBytes int      // of commands emitted, not applied
	Members        []Member // of the newest configuration
	MembersFrom    uint64   // the slot from which they decide

	Counters
}

// Counters count what a node has done since it started. They never decrease.
type Counters struct {
	Proposals     uint64 // commands taken by this node as leader
	Committed     uint64 // entries emitted
	Rejected      uint64 // proposals and reads refused
	Reads         uint64
	LeaseReads    uint64 // reads answered by lease
	Polls         uint64 // questions who would promise
	Ballots       uint64 // begun
	Elections     uint64 // ballots whose phase 1 was done
	Resigned      uint64 // for want of a quorum
	Ignored       uint64 // Prepares that came while a leader was alive
	Resent        uint64 // Accepts sent again
	Learns        uint64 // questions for what is chosen
	Learned       uint64 // slots learned by them
	ChunksSent    uint64 // pieces of snapshots
	ChunkErrors   uint64
	Installs      uint64 // snapshots received and installed
	Compactions   uint64
	ConfigChanges uint64
}

// Metrics returns a copy of the node's counters.
func (c *Core) Metrics() Metrics {
	conf := c.confs[len(c.confs)-1]
	return Metrics{
		Ballot: c.promised, Leader: c.leader, Leads: c.lead != nil, LastSlot: c.log.last(), FirstSlot: c.log.start + 1,
		Chosen: c.chosen, Applied: c.applied, PendingBytes: c.pending, UnappliedBytes: c.waiting,
		Members: slices.Clone(conf.members), MembersFrom: conf.from, Counters: c.metrics,
	}
}
