// Package consensus is the contract of consensus protocols and the one driver that makes a coterie.Replica of any of
// them.
//
// A protocol implements Core: it agrees with its peers on a log of commands, and says what is decided by events. Start
// runs one on a transport, a journal and a folder of snapshots, and gives what every protocol owes its users: proposals
// and linearizable reads with a context, batches, sessions, snapshots, a clock for the log, and bounds on what waits.
// Users of a protocol start its Node instead, raft.Start for one, which wraps a Driver. Write a Core to bring your own
// protocol; write a coterie.StateMachine to have one replicated. For many small writes without order among them, or
// for data larger than a disk, other packages of this library do better.
//
// # Which one?
//
// Of n replicas f may be faulty. A quorum is what a commit waits for; messages are those of one commit without batches,
// round trips those until its proposer at the leader has the answer.
//
//	                 raft                     paxos                       pbft
//	fault model      crash, loss of messages  crash, loss of messages     f of n lie, in any way
//	replicas         2f+1                     2f+1, or any quorum system  3f+1
//	quorum           majority                 majority, or any phase 2    2f+1
//	messages         2(n-1)                   2(n-1)                      about 2n(n-1), signed
//	round trips      1                        1                           1.5
//	leader           one a term, elected      one a ballot, elected       one a view, by turns
//	survives         f crashes                f crashes, or what the      f liars and crashes together
//	                                          quorums leave
//	members change   yes, with learners,      yes, in one step, Alpha     no
//	                 witnesses, hand-over     slots later
//	paper            Ongaro and Ousterhout    Lamport 1998, 2001;         Castro and Liskov 1999
//	                 2014                     Howard et al. 2016
//
// Take raft unless something speaks against it: it has the most around it. Take paxos for quorums that are not
// majorities, a small one for commits and a large one for elections, say. Take pbft where replicas belong to people who
// do not trust each other, and pay with messages, signatures and half as many replicas again. examples/consensus
// measures all of them on the same networks.
//
// # Guarantees
//
// On a Core that keeps the contract:
//   - Every replica applies the same commands in the same order, each once, with the same Entry.Time, which never goes
//     back.
//   - A proposal that returned nil has been applied, and every later Read, on whichever replica, sees it. One that
//     returned coterie.ErrUnknownOutcome may have been or may yet be.
//   - A command of a Session is applied exactly once while its session lives, however often it is sent, across leaders,
//     restarts and snapshots (Ongaro, Consensus: Bridging Theory and Practice, 2014, §6.3). A session that was forgotten
//     gives ErrSessionExpired, never a second application.
//   - What waits is bounded, by Config.MaxPending and MaxPendingBytes here and by the Core's own limits; what the table
//     of sessions keeps, by Config.MaxSessions and MaxSessionBytes.
//
// Fault model: that of the Core, for what nodes and networks may do. A journal that fails, a snapshot whose checksum is
// wrong and a log of a newer version stop the replica, told by Done and Err; a snapshot that cannot be written is logged
// and tried again later. The wall clocks of leaders may be wrong: then what expires by the log's clock expires early or
// late, and nothing else.
//
// The driver's decisions (the table of sessions, what is applied when, when to take a snapshot, the log's clock, who
// waits for which answer) are pure: Driver runs them on its goroutines, Inline within the calls of transport/sim.
//
// Serve gives a replica to clients over package transport/rpc, Handler over HTTP, and Dial makes one replica of them all.
package consensus
