// Package mvcc is a multi-version key-value store with transactions: every transaction reads the state as of its begin,
// readers wait for nobody, and writers fail only by a conflict that would be seen.
//
// Use it as the transactional state of one node: in memory, or durable through a Journal. Update and View run a function
// in a transaction and try again on conflict; Begin gives the transaction itself. Join and the methods of
// txn.Participant make a store one of the resources of a transaction across nodes (package txn/twophase). Not for data
// larger than memory: all of it is held there, also with a Journal.
//
// # Guarantees
//
//	Level         forbids                                                               source
//	Snapshot      dirty and lost writes, dirty and fuzzy reads, read skew, phantoms      Berenson et al. 1995
//	Serializable  all of these, and write skew, also through ranges and missing keys,    Cahill, Roehm and Fekete 2008
//	              and the read-only anomaly: as if one transaction ran after another     Fekete, O'Neil and O'Neil 2004
//
// Serializable is serializable snapshot isolation: it remembers what concurrent transactions read, finds the
// antidependencies (one read what another overwrote), and refuses the last transaction that would complete a structure of
// two in a row, which every execution that is not serializable contains (section 3.2). It may refuse one that would have
// been harmless. The antidependencies of a transaction are looked for when it ends, so that reads cost nothing but the
// note of what was read.
//
// With a Journal, nothing is visible or acknowledged before it is durable; commits that wait share one Append. A crash
// loses open transactions and keeps committed and prepared ones. A prepared transaction holds its keys, and what it has
// read, until its decision: others that conflict with it fail and are tried again. The journal is kept short by
// checkpoints, which commits pass by.
//
// Fault model: crash and restart; an error of the Journal stops the store for good (Err). Time comes from a clock.HLC:
// commits are ordered by it within the store, whatever the wall clock does.
//
// Get, Tx.Get and Tx.Scan take no lock. Old versions are dropped as keys are written, down to what the oldest open
// transaction can see: end every transaction.
package mvcc
