// Package abd keeps registers that many nodes read and write and that stay available, and linearizable, while any
// minority of them is down: without a leader, an election or a log.
//
// Use it for state that is overwritten as a whole: configuration, leases read by their holders, the metadata of
// objects. Each key is a register of its own. It cannot do what depends on the value read, a counter or a
// compare-and-set: no algorithm can with registers alone (Herlihy 1991), that takes consensus.
//
// Algorithm: Attiya, Bar-Noy and Dolev, Sharing Memory Robustly in Message-Passing Systems, 1995, for many writers as by
// Lynch and Shvartsman 1997, over any read-write quorum system. A write asks a read quorum for the newest timestamp and
// stores its value with a greater one at a write quorum. A read asks a read quorum for the newest value and stores it
// at a write quorum before it returns it, unless one holds it already: so no later read returns an older value. Each
// takes two round trips, a read of a value that is at rest takes one.
//
// Guarantees, by Config.Form: Atomic registers are linearizable. Regular ones save a read's second round: a read
// returns the last value written before it or one being written, but two reads may see a new value and then the old.
// Safe ones are for nodes that lie (Malkhi and Reiter, Byzantine Quorum Systems, 1998, §4), with a masking quorum
// system: a read that no write overlaps returns the last value written, whatever Config.Faulty servers answer; one that
// a write overlaps may find no value vouched for and returns ErrConcurrent.
//
// Fault model: nodes crash and restart with their journal, which holds what they stored before they said so; messages
// are lost, repeated, delayed and reordered. An operation waits until a quorum answers or its context ends. A write whose
// context ended may have happened or may happen later, when a read finds it. With Faulty > 0 so many servers may
// answer anything; writers must be honest.
package abd
