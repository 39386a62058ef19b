// Package coterie is the contract that the library's packages share: what a protocol is (Core), what runs one
// (Transport, Journal, Snapshots), and what an application is to a replicated log (StateMachine, Replica).
//
// A coterie is a set of quorums that pairwise intersect (Garcia-Molina and Barbara, 1985). This library holds the
// primitives of distributed systems in small packages that compose through these few interfaces. Start with the package
// you need; come here to write a protocol of your own, or to see how the others fit.
//
// # One idea
//
// A protocol between peers is a Core: a deterministic, single-threaded state machine that does no I/O, starts no
// goroutine and reads no clock. Two worlds run the same Core, unchanged: package transport/host for real, and package
// transport/sim in virtual time, with a whole cluster and every fault following from one seed.
//
//	application
//	    |  typed calls (Propose, Acquire, Join ...)
//	+---v----------------------------------------------+
//	|  Core   Step(now, from, payload)  Tick(now)      |
//	+---+----------------------------------------------+
//	    |  Ready: save records, send messages, events, wake me at
//	+---v--------------------+   +----------------------------------+
//	|  transport/host        |   |  transport/sim                   |
//	|  goroutine, real time, |   |  virtual time, one seed,         |
//	|  Transport + Journal   |   |  every fault, whole cluster      |
//	+------------------------+   +----------------------------------+
//
// What every Core's author may rely on, because the host keeps it: messages and events leave only when what was saved in
// the same batch is durable; a message to oneself comes back after that, so that a node counts its own vote or copy
// exactly when it is safe; one sync serves a whole batch; a restart is a replay of the saved records.
//
// # The floors
//
// Imports only point down:
//
//	7  examples       whole programs
//	6  txn            transactions across nodes
//	5  lock           mutual exclusion, leases and fencing
//	4  consensus      one log on many nodes, and the driver that makes a Replica of it
//	3  replication    logs on disk, copies, anti-entropy, history checkers; membership: who is alive
//	2  transport      networks, the host, the simulator; crdt: types that merge
//	1  clock, hashring, quorum: values and functions
//	0  this package
//
// What orchestrates others without being a protocol among them (a quorum read, a call with retries) is ordinary
// blocking Go: a context first, errors returned, goroutines joined before the call returns.
package coterie
