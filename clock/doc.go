// Package clock tells what happened before what: logical, hybrid and interval clocks, and the sets of events built on
// them.
//
// # Which clock?
//
//	type           size             tells                           cannot tell                  source
//	Lamport        8 B              an order that never puts a      that two events are          Lamport 1978
//	               (+ node id)      cause after its effect          concurrent; wall time
//	Vector         ids + 1-2 B      before, after, concurrent,      wall time; which single      Fidge 1988,
//	               per node         exactly                         writes it lacks              Mattern 1989
//	DotSet         ids + 1-2 B per  exactly which events are        wall time                    Almeida et al. 2018
//	               node and gap     known, gaps included
//	DVVSet         a Vector and     which of the values written     wall time                    Preguica et al. 2010,
//	               the siblings     to a key are concurrent                                      Almeida et al. 2014
//	HLC            8 B              Lamport's order, and wall time  concurrency                  Kulkarni et al. 2014
//	               (+ node id)      within the clocks' skew
//	IntervalClock  16 B             that a time is surely past, to  anything finer than its      Corbett et al. 2012
//	                                nodes that never exchanged      error, without waiting       (Spanner, section 3)
//	                                a message
//
// To number events of a log, take Lamport. To find conflicting writes, take Vector or, per key, DVVSet. To give
// last-writer-wins data or snapshots a time that people can read, take HLC. To order transactions across nodes by real
// time, take an IntervalClock and CommitWait. Package clocksync estimates the offsets that the last needs.
//
// # The textbook steps
//
// A local event or a send is a Tick; the message carries the result. A receipt takes over what the message carries and
// counts as an event itself: Witness of a Lamport clock and Update of an HLC do both, and for a Vector it is Merge, then
// Tick. Without a tick at the receipt a send that follows would have the vector of the receipt.
//
// # Guarantees
//
// Everything is exact for nodes that crash, restart with what they knew, and lose, repeat or reorder messages. Node ids
// must be unique: two nodes of one name, or a node that forgot its count and counts again, void every order. A peer
// that lies can make events look later than they are; values near the end of 64 bits, and an HLC's far future, are
// refused with an error and change nothing. Decoders give errors for malformed bytes and change nothing then.
//
// Steady operations do not allocate. Lamport, HLC and IntervalClock are safe for concurrent use, the others are values
// that one goroutine changes at a time.
package clock
