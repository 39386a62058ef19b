// Package kv is a replicated key-value store for coordination: revisions, watches, leases, compare-and-act transactions
// and ephemeral and sequential keys, as a state machine for any coterie.Replica, with a typed client.
//
// Use it for what processes must agree on: configuration, registries of services, locks (lock/leased is built on it),
// elections, small metadata. All keys are in the memory of every replica, and every write goes through its log: data of
// many gigabytes, or writes that need no order among them, belong elsewhere. It is about the subset of etcd and
// ZooKeeper that their recipes use.
//
// Give a Store to each replica, raft.Start for one, and a Client to whoever uses it:
//
//	store, err := kv.New(kv.Config{})
//	node, err := raft.Start(raft.Config{..., StateMachine: store})
//	client, err := kv.NewClient(kv.ClientConfig{Replica: kv.Watchable(node, store)})
//
// Every change makes a revision, a number that grows by one. A Txn changes any number of keys at one revision, under
// conditions. The newest revisions are remembered, within bounds: keys can be read as they were, a span can be rolled
// back, and a watch can begin in the past.
//
// # Guarantees, on top of those of the Replica
//
//   - Transactions are serializable in the order of their revisions, and linearizable, as reads are. Config.Validate
//     sees each and may refuse it.
//   - A Client on a consensus.Replica writes exactly once, however its tries fare.
//   - A watch yields every change from its revision on, in order, once, across failovers and restarts; a reader too slow
//     for the history is told so, ErrCompacted.
//   - A lease ends when the log's clock, which is the wall clock of the leaders and never goes back, has passed its TTL
//     since it was last renewed, at one place in the log: its keys go, and no renewal brings it back. No other clock
//     decides, also on an idle log.
//   - What is malformed, over a bound or refused changes nothing.
//
// The owner of a lease cannot see the log's clock. It counts by its own, and gives up early (Lease): that is safe while
// clocks keep within LeaseConfig.Drift.
//
// Fault model: that of the Replica, for nodes, disks and networks. A leader whose clock is ahead ends leases early; one
// whose clock is behind keeps them for longer.
package kv
