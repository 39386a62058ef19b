package clock

import (
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/coterie-go/coterie"
)

// DotSet is a set of events, a causal context (Almeida, Shoker and Baquero, "Delta State Replicated Data Types", 2018,
// §7.2): for each node a contiguous part 1..n, as in a Vector, and a cloud of runs beyond it. A dot that closes a gap
// joins the contiguous part at once, so that a context without gaps is no larger than a Vector.
//
// The zero value is the empty set, ready to use. Reading is safe from many goroutines, changing is not. A copy made by
// assignment shares memory, as that of a map does: Clone copies.
//
//nolint:recvcheck // what reads has a value receiver, to work on results and map elements, as with time.Time
type DotSet struct {
	nodes []dots // by id, none empty
}

// dots is the events of one node: 1..upto, and runs beyond. Invariants: runs are sorted, none is empty, none touches
// its neighbour or upto.
type dots struct {
	id   coterie.NodeID
	upto uint64
	runs []run
}

// run is the events from..to, both included.
type run struct{ from, to uint64 }

// DotSetOf returns the set of all events that v knows.
func DotSetOf(v Vector) DotSet {
	s := DotSet{nodes: make([]dots, len(v.entries))}
	for i, e := range v.entries {
		s.nodes[i] = dots{id: e.id, upto: e.n}
	}
	return s
}

// Contains reports whether the set has d.
func (s DotSet) Contains(d Dot) bool {
	i, found := s.find(d.Node)
	return found && s.nodes[i].contains(d.Seq)
}

// Contiguous returns the greatest n for which the set has the events 1..n of a node.
func (s DotSet) Contiguous(id coterie.NodeID) uint64 {
	if i, found := s.find(id); found {
		return s.nodes[i].upto
	}
	return 0
}

// Max returns the greatest event of a node in the set, 0 if there is none.
func (s DotSet) Max(id coterie.NodeID) uint64 {
	if i, found := s.find(id); found {
		return s.nodes[i].last()
	}
	return 0
}

// Vector returns the contiguous part of the set.
func (s DotSet) Vector() Vector {
	v := Vector{entries: make([]entry, 0, len(s.nodes))}
	for i := range s.nodes {
		if n := s.nodes[i].upto; n > 0 {
			v.entries = append(v.entries, entry{s.nodes[i].id, n})
		}
	}
	return v
}

// IsEmpty reports whether the set has no event.
func (s DotSet) IsEmpty() bool { return len(s.nodes) == 0 }

// IsContiguous reports whether the set has no gaps, so that it is equal to a Vector.
func (s DotSet) IsContiguous() bool {
	for i := range s.nodes {
		if len(s.nodes[i].runs) > 0 {
			return false
		}
	}
	return true
}

// Len returns the number of events in the set.
func (s DotSet) Len() (n uint64) {
	for i := range s.nodes {
		n += s.nodes[i].upto
		for _, r := range s.nodes[i].runs {
			n += r.to - r.from + 1
		}
	}
	return n
}

// All yields the events by node, then number. Of a long history that is many: Runs is as long as the set's encoding.
// The set must not change meanwhile.
func (s DotSet) All() iter.Seq[Dot] {
	return func(yield func(Dot) bool) {
		for first, last := range s.Runs() {
			for seq := first.Seq; ; seq++ {
				if !yield(Dot{first.Node, seq}) {
					return
				}
				if seq == last {
					break
				}
			}
		}
	}
}

// Runs yields the events as runs without gaps, by node, then number: the first event and the number of the last. The
// set must not change meanwhile.
func (s DotSet) Runs() iter.Seq2[Dot, uint64] {
	return func(yield func(Dot, uint64) bool) {
		for i := range s.nodes {
			n := &s.nodes[i]
			if n.upto > 0 && !yield(Dot{n.id, 1}, n.upto) {
				return
			}
			for _, r := range n.runs {
				if !yield(Dot{n.id, r.from}, r.to) {
					return
				}
			}
		}
	}
}

// Compare tells how s stands to o as sets: Before if s is a proper subset of o.
func (s DotSet) Compare(o DotSet) Ordering {
	a, b := s.nodes, o.nodes
	less, greater := false, false
	for len(a) > 0 && len(b) > 0 {
		switch x, y := &a[0], &b[0]; {
		case x.id == y.id:
			if len(x.runs) == 0 && len(y.runs) == 0 {
				less = less || x.upto < y.upto
				greater = greater || x.upto > y.upto
			} else {
				less = less || !x.covers(y)
				greater = greater || !y.covers(x)
			}
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

// Covers reports whether s has all events of o.
func (s DotSet) Covers(o DotSet) bool {
	a, b := s.nodes, o.nodes
	for len(b) > 0 {
		for len(a) > 0 && a[0].id != b[0].id && a[0].id < b[0].id {
			a = a[1:]
		}
		if len(a) == 0 || a[0].id != b[0].id || !a[0].covers(&b[0]) {
			return false
		}
		a, b = a[1:], b[1:]
	}
	return true
}

// Clone returns a copy that shares nothing with s.
func (s DotSet) Clone() DotSet {
	c := DotSet{nodes: slices.Clone(s.nodes)}
	for i := range c.nodes {
		c.nodes[i].runs = slices.Clone(c.nodes[i].runs)
	}
	return c
}

// String returns "{a:1-5,7 b:2}".
func (s DotSet) String() string {
	var b strings.Builder
	b.WriteByte('{')
	var node coterie.NodeID
	empty := true
	for first, last := range s.Runs() {
		switch {
		case !empty && first.Node == node:
			b.WriteByte(',')
		case !empty:
			b.WriteByte(' ')
		}
		if empty || first.Node != node {
			b.WriteString(string(first.Node))
			b.WriteByte(':')
		}
		node, empty = first.Node, false
		b.WriteString(strconv.FormatUint(first.Seq, 10))
		if last > first.Seq {
			b.WriteByte('-')
			b.WriteString(strconv.FormatUint(last, 10))
		}
	}
	b.WriteByte('}')
	return b.String()
}

// find returns where the events of a node are, or belong.
func (s DotSet) find(id coterie.NodeID) (int, bool) {
	lo, hi := 0, len(s.nodes)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch e := s.nodes[mid].id; {
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

// last returns the greatest event.
func (d *dots) last() uint64 {
	if n := len(d.runs); n > 0 {
		return d.runs[n-1].to
	}
	return d.upto
}

// contains reports whether the node's event seq is there.
func (d *dots) contains(seq uint64) bool {
	if seq <= d.upto {
		return seq > 0
	}
	i := d.search(seq)
	return i < len(d.runs) && d.runs[i].from <= seq
}

// search returns the first run that ends at seq or after.
func (d *dots) search(seq uint64) int {
	lo, hi := 0, len(d.runs)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if d.runs[mid].to < seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// covers reports whether every event of o is in d. A run of o, having no gap, must lie within one run of d.
func (d *dots) covers(o *dots) bool {
	if o.upto > d.upto {
		return false
	}
	for _, r := range o.runs {
		if r.to <= d.upto {
			continue
		}
		if i := d.search(r.to); i == len(d.runs) || d.runs[i].from > r.from {
			return false
		}
	}
	return true
}
