// Package lock is the contract of distributed mutual exclusion: a Locker gives a Lease, a Lease has a fencing token, and
// a Fence at the resource refuses tokens that are out of date.
//
// Use it where work on something outside of a process must be done by one process at a time. Where a stale write would
// do harm, guard what is written by a Fence too: no lock service can do that alone. Where all the state fits into a
// replicated state machine, let that decide instead (consensus/kv has compare-and-act transactions), and where copies
// may diverge for a while, see crdt: both need no lock. Within one process a sync.Mutex does.
//
// # What a lease promises
//
// The service gives a name to one holder at a time by the service's clock, and the holder stops believing in it, Lost,
// by its own monotonic clock, earlier than the service does, without being told. That is safe as long as clocks run at
// about the same speed; how far they may differ is a parameter of each Locker.
//
// It does not help a process that does not look. One that is paused (by its garbage collector, by a hypervisor, by
// SIGSTOP) right after it looked, for longer than its lease, wakes up and writes as if it still held the lock; so does a
// packet that it sent in time and that the network delays; and a clock that jumps or runs wild ends a lease for one side
// only. In each case two holders act at once, whatever the service does (Kleppmann, "How to do distributed locking",
// 2016; Jepsen, etcd 3.4.3, 2020). Only the resource can tell them apart: each Lease has a token, larger than that of
// every earlier holder of its name, and the resource refuses a token lower than one it has seen (Gray and Cheriton,
// "Leases", SOSP 1989, have the idea of the first half; Burrows, "The Chubby lock service", OSDI 2006, §2.4, the
// sequencers that are the second). Package lock has that as Fence.
//
// # Which one
//
// n nodes, K the size of a quorum of Maekawa (about the square root of n). Messages are per entry, without faults; the
// delay is between the exit of one holder and the entry of the next, in message delays.
//
//	package          messages              delay      faults survived
//	lock/leased      1 commit each way     1 commit   a minority of the replicas; any crash of a holder, after its TTL
//	lock/ricart      2(n-1)                1          none: a crash of any node blocks until it is back
//	lock/maekawa     3(K-1) to 5(K-1)      2          none in one's own quorum
//	lock/tokenring   0, 1 or 2 to 2(n-1)   up to n-1  a lost token and dead members, by regeneration
//	lock/suzuki      0 or n                1          a lost token and crashed nodes, by regeneration by a majority
//
// Take lock/leased unless there is a reason not to: it alone survives crashes without waiting for anybody to come
// back. The others need no replicated log. Their packages say exactly which faults block them.
package lock
