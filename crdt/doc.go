// Package crdt holds data that many replicas change at once, without asking each other, and that end equal when they
// have heard of each other's changes: counters, sets, flags, registers, maps and lists; package text is the one for
// collaborative editing.
//
// Every type is state-based with deltas (Almeida, Shoker and Baquero, "Delta State Replicated Data Types", 2018): a
// mutator changes the replica's state and returns a delta, which is a small state of the same type. Merge takes a state
// or a delta alike; it is idempotent, commutative and associative, so that deltas may come late, twice, in any order or
// joined into groups, and a lost one is repaired by any later state. A loop of use is
//
//	delta := set.Add("a", "x") // at replica a
//	... send delta ...
//	set.Merge(delta)           // at every other replica
//
// Take a CRDT where replicas must stay writable while they are cut off from each other. Take consensus (or package
// quorum) where an operation must be refused that conflicts with another's: uniqueness, a balance that must be exact, a
// lock. BoundedCounter is the exception, for it splits a limit among replicas beforehand.
//
// # Which type?
//
//	type            concurrent operations                       memory beyond the value            source
//	GCounter        all count                                   a count per replica                Shapiro et al. 2011
//	PNCounter       all count                                   two counts per replica             Shapiro et al. 2011
//	CausalCounter   all count; a reset takes what it has seen   a dot per replica                  Baquero et al. 2016
//	BoundedCounter  all count, and never below 0                rights between pairs of replicas   Balegas et al. 2015
//	GSet            all are added                               none                               Shapiro et al. 2011
//	TwoPhaseSet     removed wins, for ever                      every removed element              Shapiro et al. 2011
//	LWWSet          the later one wins                          a time per element, removed ones   Shapiro et al. 2011
//	                                                            until Stable
//	ORSet           add wins over remove                        a dot per element                  Bieniusa et al. 2012
//	RWSet           remove wins over add                        a dot per element, removed ones    Baquero et al. 2017
//	                                                            until Stable
//	EWFlag          on wins                                     a dot                              Almeida et al. 2018
//	DWFlag          off wins                                    a dot                              Almeida et al. 2018
//	LWWRegister     the later one wins, others are lost         a time                             Johnson, Thomas 1975
//	MVRegister      all values are kept                         a dot per value                    Almeida et al. 2018
//	LWWMap          the later one wins, per key                 a time per key, deleted ones       Shapiro et al. 2011
//	                                                            until Stable
//	ORMap           values join; an update wins over a remove   a dot per dot of the values        Almeida et al. 2018
//	List            all are inserted, runs stay together        a node per element                 Weidner, Kleppmann 2023
//	text.Text       all are inserted, runs stay together        20 bytes and less per character    Weidner, Kleppmann 2023
//
// Types with dots also have the causal context, which is the events seen: a number per replica and one per gap.
//
// # Identity
//
// A replica's id names the author of its operations. Two replicas of one id, or a replica that lost its state and goes
// on under its old id, make two operations with one name, and the states diverge for good: a replica that restarts
// from nothing takes a new id.
//
// # Guarantees
//
// Replicas that have merged the same deltas, in whatever order, have equal values and equal encodings. After a merge
// the two sides share no memory but what elements themselves refer to. A decoder gives an error for malformed bytes and
// changes nothing then; elements encode as their bytes if they are strings or []byte, as varints if they are integers,
// by their own BinaryAppender or BinaryMarshaler, and else as JSON.
//
// Replicas are trusted: one that lies can remove or forge what it likes. Reading is safe from many goroutines, changing
// is not.
package crdt
