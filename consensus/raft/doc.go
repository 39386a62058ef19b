// Package raft is the Raft consensus protocol: a replicated log that survives crashes and partitions, with everything
// a production cluster needs around it.
//
// Use it where every copy must be the same and none may be lost: configuration, metadata, queues, locks, whole
// databases. Start runs a node on disk and TCP; many groups in one process share a transport (transport.Mux) and a log
// (the streams of wal.Log). Do not use it where a minority must go on writing (crdt), or where nodes may lie
// (consensus/pbft).
//
// Papers: Ongaro and Ousterhout, In Search of an Understandable Consensus Algorithm (Extended Version), 2014, whose
// sections are cited as §; Ongaro, Consensus: Bridging Theory and Practice, 2014, cited as thesis §.
//
// # Guarantees
//
// A committed entry is never lost, and all state machines apply the same entries in the same order, as long as fewer
// than half of the voters lose their disks; whatever messages, pauses, crashes and clocks do. Reads are linearizable;
// with Config.LeaseReads only while no clock gains or loses more than Config.ClockDrift. There is progress while a
// majority of the voters can talk to each other in less than Config.ElectionTimeout.
//
// # Fault model
//
// Nodes crash and come back with what their Journal made durable, links lose, repeat, delay and reorder, clocks drift.
// Nobody lies. A node that has lost its disk is another node and needs another ID.
//
// # Features, and the test that holds each
//
//	pre-vote and check-quorum          TestRejoiningNodeDoesNotDisturb, TestLeaderWithoutQuorumResigns
//	leadership transfer                TestTransferMovesLeadership
//	learners, promotion                TestLearnerIsPromotedWhenCaughtUp
//	witnesses                          TestWitnessVotesWithoutData
//	joint consensus, single steps      TestJointChangeNeedsBothMajorities, TestSingleStepChange
//	ReadIndex, lease and follower reads TestReadWaitsForItsRound, TestLeaseEndsInTime, TestFollowerReads
//	batches, pipelining, flow control  TestReplicationStaysWithinLimits
//	early appends                      TestPaper53LeaderCountsItselfWhenDurable
//	snapshots in chunks, with resume   TestSnapshotResumesAfterLoss, TestSnapshotAgainstLogSuffix
//	compaction with a trailing tail    TestCompactionKeepsATail
//	quiet groups                       TestQuietGroupSleepsAndWakes
//	limits, ErrOverloaded              TestLimitsRefuseInTime
//	priority                           TestPriorityDecidesWhoLeads
//	a leader whose disk hangs          TestLeaderWithHungDiskLosesItsPlace
//	recovery without a majority        TestUnsafeRecoverWithoutMajority
//	growth, changed addresses          TestNodeMembersComeAndGo, TestNodeRestartsAtAnotherAddress
//	trace of every event               TestTraceTellsEveryEvent
//	exactly-once sessions              TestNodeSessionAppliesOnce
//
// A running cluster's invariants (figure 3) are checked after every event of thousands of simulated ones by TestSwarm.
package raft
