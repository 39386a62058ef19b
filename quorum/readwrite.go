package quorum

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/coterie-go/coterie"
)

// ReadWrite is a read-write quorum system (a bicoterie): two Systems over the same nodes of which every read quorum
// meets every write quorum. Consensus protocols call them otherwise: phase 1 and phase 2, election and replication.
// Write quorums need not meet one another. It never changes and is safe for concurrent use; the zero ReadWrite has no
// quorums.
type ReadWrite struct {
	read, write System
}

// DisjointError is returned when two quorums that must meet do not.
type DisjointError struct {
	Read, Write []coterie.NodeID // a minimal read quorum and a minimal write quorum without a common node, sorted
}

// Error names both quorums.
func (e *DisjointError) Error() string {
	return fmt.Sprintf("quorum: read quorum {%s} and write quorum {%s} have no node in common", list(e.Read), list(e.Write))
}

func list(ids []coterie.NodeID) string {
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(string(id))
	}
	return b.String()
}

// NewReadWrite pairs read and write quorums. It returns a *DisjointError if there are two that do not meet, and the
// error of either System if it has one.
func NewReadWrite(read, write System) (ReadWrite, error) {
	if err := errors.Join(read.Err(), write.Err()); err != nil {
		return ReadWrite{}, err
	}
	ids := slices.Concat(read.s.ids, write.s.ids)
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(ids) > MaxNodes {
		return ReadWrite{}, fmt.Errorf("quorum: reads and writes speak of %d nodes; at most %d", len(ids), MaxNodes)
	}
	rw := ReadWrite{
		read:  newSystem(ids, read.s.over(ids)),
		write: newSystem(ids, write.s.over(ids)),
	}
	r, w, err := disjoint(&rw.read.s.root, &rw.write.s.root, first(len(ids)))
	if err != nil {
		return ReadWrite{}, err
	}
	if r != 0 {
		return ReadWrite{}, &DisjointError{Read: rw.read.IDs(r), Write: rw.write.IDs(w)}
	}
	return rw, nil
}

// Symmetric uses one System for reads and writes alike, as for mutual exclusion and for leader election; its quorums
// must meet one another: a coterie (Garcia-Molina and Barbara 1985).
func Symmetric(s System) (ReadWrite, error) { return NewReadWrite(s, s) }

// FromReads pairs read quorums with the best write quorums that go with them, which are those of the Dual.
func FromReads(read System) (ReadWrite, error) {
	if err := read.Err(); err != nil {
		return ReadWrite{}, err
	}
	return ReadWrite{read: read, write: read.Dual()}, nil
}

// FromWrites pairs write quorums with the best read quorums that go with them, which are those of the Dual.
func FromWrites(write System) (ReadWrite, error) {
	if err := write.Err(); err != nil {
		return ReadWrite{}, err
	}
	return ReadWrite{read: write.Dual(), write: write}, nil
}

// Dual is the System whose quorums are the sets that meet every quorum of this one. No larger family does, and its
// Dual has the quorums of this one again.
func (q System) Dual() System {
	if q.Err() != nil {
		return q
	}
	return newSystem(q.s.ids, q.s.root.dual())
}

// Read returns the read quorums.
func (rw ReadWrite) Read() System { return rw.read }

// Write returns the write quorums.
func (rw ReadWrite) Write() System { return rw.write }

// Nodes returns the nodes that reads and writes speak of, sorted; node i of a Set is Nodes()[i].
func (rw ReadWrite) Nodes() []coterie.NodeID { return rw.read.Nodes() }

// Set returns the nodes as a Set, for IsRead and IsWrite; those that the system does not speak of are left out.
func (rw ReadWrite) Set(ids ...coterie.NodeID) Set { return rw.read.Set(ids...) }

// IDs returns the nodes of a Set, sorted.
func (rw ReadWrite) IDs(set Set) []coterie.NodeID { return rw.read.IDs(set) }

// IsRead reports whether the set is a read quorum.
func (rw ReadWrite) IsRead(set Set) bool { return rw.read.IsQuorum(set) }

// IsWrite reports whether the set is a write quorum.
func (rw ReadWrite) IsWrite(set Set) bool { return rw.write.IsQuorum(set) }

// String shows both expressions.
func (rw ReadWrite) String() string {
	return "reads " + rw.read.String() + ", writes " + rw.write.String()
}

// maxSteps bounds the search for disjoint quorums: some tens of milliseconds.
const maxSteps = 1 << 20

// disjoint finds a minimal r-quorum and a minimal w-quorum without a common node, or returns empty sets.
func disjoint(r, w *gate, all Set) (Set, Set, error) {
	if dual := r.dual(); implies(w, &dual) {
		return 0, 0, nil // each w-quorum meets every r-quorum, as the expressions show at once
	}
	steps := maxSteps
	var split func(left, right, rest Set) (Set, Set, bool)
	split = func(left, right, rest Set) (Set, Set, bool) {
		steps--
		if steps < 0 || !r.opens(left|rest) || !w.opens(right|rest) {
			return 0, 0, false
		}
		if r.opens(left) {
			return left, right | rest, true
		}
		if w.opens(right) {
			return left | rest, right, true
		}
		next := Set(0).With(lowest(rest))
		if a, b, ok := split(left|next, right, rest&^next); ok {
			return a, b, true
		}
		return split(left, right|next, rest&^next)
	}
	a, b, found := split(0, 0, all)
	if found {
		return shrink(a, r.opens), shrink(b, w.opens), nil
	}
	if steps < 0 {
		return 0, 0, errors.New("quorum: cannot tell in reasonable time whether all reads meet all writes; use the Dual")
	}
	return 0, 0, nil
}

// implies reports whether every set that opens g opens h, as far as their shape shows it.
func implies(g, h *gate) bool {
	if g.need < h.need || len(g.gates) != len(h.gates) || !slices.Equal(g.terms, h.terms) {
		return false
	}
	for i := range g.gates {
		if !implies(&g.gates[i], &h.gates[i]) {
			return false
		}
	}
	return true
}

// shrink takes nodes out of a set as long as it holds; what is left is minimal.
func shrink(s Set, holds func(Set) bool) Set {
	for i := range s.All() {
		if holds(s.Without(i)) {
			s = s.Without(i)
		}
	}
	return s
}
