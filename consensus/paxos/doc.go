// Package paxos is Paxos: single-decree, with its three roles apart, and Multi-Paxos, a replicated log behind
// coterie.Replica.
//
// Synod chooses one value, once; Proposer, Acceptor and Learner are its roles as plain values, for a protocol of one's
// own. Core and Node are Multi-Paxos: one instance of Paxos for each slot of a log, and one phase 1 for all of them.
// Use it where raft would do, and the quorums shall not be majorities: by Config.Quorums any quorum.ReadWrite elects by
// its reads and replicates to its writes, a small phase 2 in the common case for a large phase 1 in the rare one. Else
// prefer raft, which has more around it (learners, witnesses, transfer of leadership). Nodes that may lie need pbft.
//
// Papers: Lamport, The Part-Time Parliament, 1998; Lamport, Paxos Made Simple, 2001; Howard, Malkhi and Spiegelman,
// Flexible Paxos, 2016; Chandra, Griesemer and Redstone, Paxos Made Live, 2007 (leases, snapshots).
//
// # Guarantees
//
// What is chosen stays chosen, is one proposed value, and is applied by every node in the order of its slots, whatever
// messages, pauses, crashes and clocks do, as long as no phase 1 quorum loses its disks. Reads are linearizable; with
// Config.LeaseReads only while no clock gains or loses more than Config.ClockDrift. There is progress while a node can
// talk to a phase 1 and a phase 2 quorum in less than Config.ElectionTimeout.
//
// # What differs from raft
//
// Slots are accepted and chosen in any order, so that a lost message holds up no later vote; a new leader takes over
// the log of nobody, but proposes again what a phase 1 quorum has accepted; gaps get no-ops; a node that lacks
// something asks any other for what is chosen. A new configuration is a value like others, and comes into force
// Config.Alpha slots later, in one step from any members to any others.
//
// # Fault model
//
// Nodes crash and come back with what their Journal made durable, links lose, repeat, delay and reorder, clocks drift.
// Nobody lies. A node that has lost its disk is another node and needs another ID.
package paxos
