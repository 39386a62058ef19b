// Package leased is locks on a replicated store: mutexes, locks of readers and writers, semaphores and the election of
// a leader among processes, with waiters in the order in which they came, over consensus/kv.
//
// Use it as the lock service of a system that has a cluster of three or five replicas, or that can afford one: it is
// the one Locker of this library that goes on when anything crashes, without waiting for it to come back. A process
// uses it through a Client, over a replica of its own or one far away (consensus.Dial). Where the nodes that compete are
// few and there is no replicated log, see lock/ricart and its neighbours; where the state itself can be kept in
// consensus/kv, a transaction of it needs no lock.
//
// # How it works
//
// Each acquisition is one key, sequential and ephemeral, in the folder of its name (Hunt et al., "ZooKeeper: Wait-free
// coordination for Internet-scale systems", USENIX ATC 2010, §2.4): who has no key ahead of it that excludes it holds
// the lock. To acquire is one command of the log, and to release is one, which by itself makes the next waiter the
// holder: that one is told by its replica and tells nobody. So a hand-over costs one commit and wakes one waiter,
// however long the queue is. The key belongs to a lease of the store that the Client keeps alive, one for each TTL in
// use, and goes with it. The fencing token is the revision that created the key.
//
// # Guarantees
//
//   - As long as clocks keep within Config.Drift, no two holders believe at once that they hold what excludes the
//     other. Beyond it tokens tell them apart: see lock.Fence.
//   - Tokens of a name strictly increase in the order of acquisitions that exclude each other, across failovers,
//     restarts and snapshots.
//   - Waiters of a name enter in the order in which their commands were decided; a reader does not overtake a writer
//     that waits. One whose Client lost its lease while waiting is put in again, last.
//   - An Acquire that failed does not hold the lock and will not: what it may have left behind is removed. Retries never
//     acquire twice.
//   - While a majority of replicas is up and connected, and so is the Client, a waiter enters as soon as those ahead
//     have released or their TTL has passed.
//
// Fault model: that of the replicas' consensus for them; clients may crash, pause, and be cut off. A clock of a replica
// that runs ahead of the others by more than Config.Drift ends leases before their holders know; one that runs behind
// keeps those of the dead for longer.
package leased
