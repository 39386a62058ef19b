// Package election holds what the classic leader elections share: package bully (Garcia-Molina 1982) and package ring
// (Chang and Roberts 1979).
//
// # Which one?
//
//	bully              any node asks all greater ones; at most n(n-1) messages; a leader within 1.5 Timeouts of a crash
//	ring               the greatest id goes round; 2n to n(n+1)/2+n messages and an acknowledgement for each
//	ring with Collect  one list goes round; 2n+1 messages for one starter, whatever the order of ids
//
// All elect the greatest live id, and after each change that is so again in time if links work. None asks a quorum:
// while a network is split, EACH SIDE ELECTS A LEADER OF ITS OWN, so that two lead at once. That suits work that may be
// done twice, or whose effects are guarded by the Epoch. Where two leaders do harm, use consensus/raft or a lock of
// package lock/leased, which elect by a majority.
package election

import "github.com/coterie-go/coterie"

// Elected is the event of a Core: whom the node follows from now on.
//
// An Epoch belongs to one leader alone and to one time that it took office: it takes a greater one each time, also
// after a restart if its Journal is kept. At one node epochs never go back. Where two
// lead at once, a resource that refuses every Epoch smaller than the greatest it has seen obeys one at a time.
type Elected struct {
	Leader coterie.NodeID // empty: the leader is silent, and an election begins
	Epoch  uint64         // with an empty Leader, that of the one before
}
