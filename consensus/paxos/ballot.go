package paxos

import (
	"cmp"
	"fmt"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// Ballot numbers a proposal. "Different proposers choose their numbers from disjoint sets" (Lamport 2001, §2.2): a
// proposer's own name is part of it. The zero Ballot is less than any that is used.
type Ballot struct {
	Round uint64
	Node  coterie.NodeID
}

// Compare orders ballots by round, then by node: -1, 0 or +1.
func (b Ballot) Compare(other Ballot) int {
	if b.Round != other.Round {
		return cmp.Compare(b.Round, other.Round)
	}
	return cmp.Compare(b.Node, other.Node)
}

// Less reports whether b comes before other.
func (b Ballot) Less(other Ballot) bool { return b.Compare(other) < 0 }

// IsZero reports whether b is the zero Ballot, which nobody proposes in.
func (b Ballot) IsZero() bool { return b == Ballot{} }

// String is like "7.a".
func (b Ballot) String() string { return fmt.Sprintf("%d.%s", b.Round, b.Node) }

func appendBallot(b []byte, v Ballot) []byte {
	return wire.AppendString(wire.AppendUvarint(b, v.Round), v.Node)
}

// readBallot reads a ballot; one whose node is that of like shares its string, so that the common case does not
// allocate.
func readBallot(r *wire.Reader, like Ballot) Ballot {
	round := readNumber(r)
	node := r.Bytes()
	if string(node) == string(like.Node) {
		return Ballot{round, like.Node}
	}
	return Ballot{round, coterie.NodeID(node)}
}

// maxNumber bounds every slot and round from outside, so that no sum of two overflows.
const maxNumber = 1 << 62

func readNumber(r *wire.Reader) uint64 {
	v := r.Uvarint()
	if v > maxNumber {
		r.Fail("number %d out of range", v)
	}
	return v
}
