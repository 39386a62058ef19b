package clock

import (
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/coterie-go/coterie"
)

// Vector is a vector clock, or version vector: for each node, how many of its events are known (Fidge, 1988; Mattern,
// "Virtual Time and Global States of Distributed Systems", 1989; Parker et al., 1983). Event a happened before event
// b exactly if the vector of a is Before the vector of b.
//
// The textbook steps map thus: before a local event or a send, Tick(self) and send a Clone along; on receipt of a
// message with vector m, Merge(m), then Tick(self). A version vector that counts writes and not receipts leaves out
// the second.
//
// It is a slice of entries sorted by node id, without zeros: a node without an entry is at 0, and a zero from
// elsewhere is as if absent. The zero value is the vector without events, ready to use. Reading is safe from many
// goroutines, changing is not. A copy made by assignment shares the entries, as that of a map does: Clone copies.
//
//nolint:recvcheck // what reads has a value receiver, to work on results and map elements, as with time.Time
type Vector struct {
	entries []entry
}

// entry is one node's count, never 0.
type entry struct {
	id coterie.NodeID
	n  uint64
}

// VectorOf returns the vector with the given counts; zeros are as if absent.
func VectorOf(counts map[coterie.NodeID]uint64) Vector {
	v := Vector{entries: make([]entry, 0, len(counts))}
	for _, id := range slices.Sorted(maps.Keys(counts)) {
		if n := counts[id]; n > 0 {
			v.entries = append(v.entries, entry{id, n})
		}
	}
	return v
}

// Get returns how many events of a node are known, 0 for a node never heard of.
func (v Vector) Get(id coterie.NodeID) uint64 {
	if i, found := v.find(id); found {
		return v.entries[i].n
	}
	return 0
}

// Len returns the number of nodes with events.
func (v Vector) Len() int { return len(v.entries) }

// All yields each node with events and their number, in the order of node ids. The vector must not change meanwhile.
func (v Vector) All() iter.Seq2[coterie.NodeID, uint64] {
	return func(yield func(coterie.NodeID, uint64) bool) {
		for i := range v.entries {
			if !yield(v.entries[i].id, v.entries[i].n) {
				return
			}
		}
	}
}

// Compare tells how v stands to o: Before if o knows all that v knows and more. It is one pass over both without
// allocation.
func (v Vector) Compare(o Vector) Ordering {
	a, b := v.entries, o.entries
	less, greater := false, false
	for len(a) > 0 && len(b) > 0 {
		// Two vectors of one system mostly have the same ids, and equality is much cheaper than order.
		switch x, y := &a[0], &b[0]; {
		case x.id == y.id:
			less = less || x.n < y.n
			greater = greater || x.n > y.n
			a, b = a[1:], b[1:]
		case x.id < y.id:
			greater = true
			a = a[1:]
		default:
			less = true
			b = b[1:]
		}
		if less && greater {
			return Concurrent
		}
	}
	return ordering(less || len(b) > 0, greater || len(a) > 0)
}

// Covers reports whether v knows all that o knows: v.Compare(o) is Equal or After.
func (v Vector) Covers(o Vector) bool {
	a, b := v.entries, o.entries
	for len(b) > 0 {
		for len(a) > 0 && a[0].id != b[0].id && a[0].id < b[0].id {
			a = a[1:]
		}
		if len(a) == 0 || a[0].id != b[0].id || a[0].n < b[0].n {
			return false
		}
		a, b = a[1:], b[1:]
	}
	return true
}

// Contains reports whether v knows the event d.
func (v Vector) Contains(d Dot) bool { return d.Seq > 0 && d.Seq <= v.Get(d.Node) }

// Clone returns a copy that shares nothing with v.
func (v Vector) Clone() Vector { return Vector{entries: slices.Clone(v.entries)} }

// Merged returns the least vector that covers v and o, and leaves both as they are.
func (v Vector) Merged(o Vector) Vector {
	m := Vector{entries: make([]entry, len(v.entries), len(v.entries)+o.extra(v))}
	copy(m.entries, v.entries)
	m.Merge(o)
	return m
}

// Ticked returns v with one more event of a node, and leaves v as it is.
func (v Vector) Ticked(id coterie.NodeID) Vector {
	t := Vector{entries: make([]entry, len(v.entries), len(v.entries)+1)}
	copy(t.entries, v.entries)
	t.Tick(id)
	return t
}

// String returns "{a:1 b:2}".
func (v Vector) String() string {
	var s strings.Builder
	s.WriteByte('{')
	for i, e := range v.entries {
		if i > 0 {
			s.WriteByte(' ')
		}
		s.WriteString(string(e.id))
		s.WriteByte(':')
		s.WriteString(strconv.FormatUint(e.n, 10))
	}
	s.WriteByte('}')
	return s.String()
}

// Tick counts one more event of a node and returns its number. It allocates only for a node that v did not have. It
// panics at the end of 64 bits, where only Set can bring it: no input or merge of decoded vectors does.
func (v *Vector) Tick(id coterie.NodeID) uint64 {
	i, found := v.find(id)
	if !found {
		v.entries = slices.Insert(v.entries, i, entry{id: id})
	}
	e := &v.entries[i]
	if e.n++; e.n == 0 {
		panic("clock: Tick of a Vector entry at the maximum of 64 bits")
	}
	return e.n
}

// Set makes n the number of known events of a node; 0 removes the node.
func (v *Vector) Set(id coterie.NodeID, n uint64) {
	i, found := v.find(id)
	switch {
	case found && n == 0:
		v.entries = slices.Delete(v.entries, i, i+1)
	case found:
		v.entries[i].n = n
	case n > 0:
		v.entries = slices.Insert(v.entries, i, entry{id, n})
	}
}

// Merge adds to v what o knows: v becomes the least vector that covers both. It leaves o as it is, shares nothing
// with it, and allocates only if o has nodes that v lacks and v has no room for.
func (v *Vector) Merge(o Vector) {
	a, b := v.entries, o.entries
	// The common case first: wherever the ids agree, only counts move.
	i := 0
	for i < len(a) && i < len(b) && a[i].id == b[i].id {
		a[i].n = max(a[i].n, b[i].n)
		i++
	}
	if i < len(b) {
		v.mergeUnion(i, b)
	}
}

// mergeUnion merges b from entry i on, where the ids begin to differ. It makes room at the end and merges from the
// back, so that no entry is overwritten before it is read.
func (v *Vector) mergeUnion(i int, b []entry) {
	old := len(v.entries)
	grown := Vector{entries: b[i:]}.extra(Vector{entries: v.entries[i:]})
	v.entries = slices.Grow(v.entries, grown)[:old+grown]
	a := v.entries
	x, y, w := old-1, len(b)-1, len(a)-1
	for y >= i {
		switch {
		case x >= i && a[x].id == b[y].id:
			a[w] = entry{a[x].id, max(a[x].n, b[y].n)}
			x--
			y--
		case x >= i && a[x].id > b[y].id:
			a[w] = a[x]
			x--
		default:
			a[w] = b[y]
			y--
		}
		w--
	}
}

// extra returns how many ids of v are not in o.
func (v Vector) extra(o Vector) (n int) {
	a, b := v.entries, o.entries
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0].id == b[0].id:
			a, b = a[1:], b[1:]
		case a[0].id < b[0].id:
			n++
			a = a[1:]
		default:
			b = b[1:]
		}
	}
	return n + len(a)
}

// CopyFrom makes v equal to o, in v's own memory where that suffices.
func (v *Vector) CopyFrom(o Vector) { v.entries = append(v.entries[:0], o.entries...) }

// find returns where the entry of id is, or belongs.
func (v Vector) find(id coterie.NodeID) (int, bool) {
	lo, hi := 0, len(v.entries)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch e := v.entries[mid].id; {
		case e == id:
			return mid, true
		case e < id:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}
