package raft

import "github.com/coterie-go/coterie"

// Metrics says where a node is, and counts what it has done since it started.
type Metrics struct {
	Role           StateRole
	Term           uint64
	Leader         coterie.NodeID
	LastIndex      uint64 // of the log
	FirstIndex     uint64 // of the log in memory
	CommitIndex    uint64
	AppliedIndex   uint64
	PendingBytes   int // of commands beyond what was emitted
	UnappliedBytes int // of commands emitted, not applied
	Members        Membership
	Peers          []PeerMetrics // of a leader; empty elsewhere

	Counters
}

// Counters count what a node has done since it started. They never decrease.
type Counters struct {
	Proposals      uint64 // appended to the log of this node as leader
	Committed      uint64 // entries emitted
	Rejected       uint64 // proposals and reads refused
	Reads          uint64
	ReadsForwarded uint64 // reads put to the leader
	LeaseReads     uint64 // reads answered by lease
	PreCampaigns   uint64
	Campaigns      uint64
	Elections      uint64 // won
	Resigned       uint64 // for want of a quorum
	VotesIgnored   uint64 // asked for while a leader was alive
	Truncated      uint64 // entries replaced by another leader's
	Refusals       uint64 // by followers whose log was another
	SnapshotsSent  uint64 // transfers begun
	Installs       uint64 // snapshots received and installed
	Compactions    uint64
	ChunkErrors    uint64
	Transfers      uint64 // of leadership, begun
	ConfigChanges  uint64 // appended by this node as leader
	Promotions     uint64 // of learners, by the leader itself
}

// PeerMetrics is what a leader knows of another member.
type PeerMetrics struct {
	ID             coterie.NodeID
	Mode           string // "probe", "replicate" or "snapshot"
	Match, Next    uint64
	InflightBytes  int
	SnapshotOffset int64 // bytes of the snapshot that have arrived
}

// Metrics returns a copy of the node's counters.
func (c *Core) Metrics() Metrics {
	m := Metrics{Counters: c.metrics}
	m.Role, m.Term, m.Leader = c.role, c.term, c.leader
	m.LastIndex, m.FirstIndex, m.CommitIndex, m.AppliedIndex = c.log.last(), c.log.start+1, c.committed, c.applied
	m.PendingBytes, m.UnappliedBytes = c.pending, c.waiting
	m.Members = c.conf.clone()
	if c.lead != nil {
		for _, p := range c.lead.peers {
			if p != c.lead.self {
				pm := PeerMetrics{ID: p.id, Mode: p.mode.String(), Match: p.match, Next: p.next, InflightBytes: p.inflightBytes}
				if p.transfer != nil {
					pm.SnapshotOffset = p.transfer.offset
				}
				m.Peers = append(m.Peers, pm)
			}
		}
	}
	return m
}
