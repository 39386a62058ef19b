// Package coterie is the contract that the library's packages share: what a protocol is (Core), what runs one
// (Transport, Journal, Snapshots), and what an application is to a replicated log (StateMachine, Replica).
//
// A coterie is a set of quorums that pairwise intersect (Garcia-Molina and Barbara, 1985). This library holds the
// primitives of distributed systems in small packages that compose through these few interfaces.
package coterie
