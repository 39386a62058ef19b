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
// Guarantees, on a Core that keeps the contract:
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
