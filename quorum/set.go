package quorum

import (
	"iter"
	"math/bits"
)

// MaxNodes is how many nodes a System may speak of: as many as fit a Set.
const MaxNodes = 64

// Set is a set of nodes as bits: bit i is node i of the Nodes of the System that it was made for.
type Set uint64

// Len returns how many nodes are in the set.
func (s Set) Len() int { return bits.OnesCount64(uint64(s)) }

// Has reports whether node i is in the set.
func (s Set) Has(i int) bool { return s>>uint(i)&1 == 1 }

// With returns the set and node i, which must be below MaxNodes.
func (s Set) With(i int) Set { return s | 1<<uint(i) }

// Without returns the set without node i.
func (s Set) Without(i int) Set { return s &^ (1 << uint(i)) }

// All yields the nodes of the set, lowest first.
func (s Set) All() iter.Seq[int] {
	return func(yield func(int) bool) {
		for ; s != 0; s &= s - 1 {
			if !yield(bits.TrailingZeros64(uint64(s))) {
				return
			}
		}
	}
}

// first returns the set of nodes 0 to n-1.
func first(n int) Set {
	if n >= MaxNodes {
		return ^Set(0)
	}
	return 1<<uint(n) - 1
}
