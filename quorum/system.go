package quorum

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/coterie-go/coterie"
)

// System says which sets of nodes are quorums. A set that contains a quorum is a quorum. It is built from nodes by
// And, Or and Choose, or by Majority, Weighted and their like, and never changes: copies share it, and every method is
// safe for concurrent use.
//
// A System alone does not promise that its quorums meet; NewReadWrite and Symmetric check that they do.
//
// A System built from bad arguments, and the zero System, has no quorum: nothing ever wins in it. Err tells why.
type System struct {
	s *system
}

// system is what a System points to. Nodes are numbered in the order of their ids.
type system struct {
	ids  []coterie.NodeID // sorted
	root gate
	err  error // set: no quorums, no nodes

	hints []uint32 // of each id, to find it by
	tail  int      // bytes at the end that all ids share, which say nothing
}

func newSystem(ids []coterie.NodeID, root gate) System {
	s := &system{ids: ids, root: root, hints: make([]uint32, len(ids)), tail: len(ids[0])}
	for _, id := range ids[1:] {
		n := 0
		for n < min(s.tail, len(id)) && id[len(id)-1-n] == ids[0][len(ids[0])-1-n] {
			n++
		}
		s.tail = n
	}
	for i, id := range ids {
		s.hints[i] = s.hint(id)
	}
	return System{s}
}

var errZero = errors.New("quorum: zero System")

// none is what the zero System stands for.
var none = &system{root: gate{need: 1}, err: errZero}

// impl returns what the System points to, never nil.
func (q System) impl() *system {
	if q.s == nil {
		return none
	}
	return q.s
}

func invalid(format string, args ...any) System {
	return broken(fmt.Errorf("quorum: "+format, args...))
}

func broken(err error) System { return System{&system{root: gate{need: 1}, err: err}} }

// Err returns nil, or what was wrong with the arguments that the System was built from.
func (q System) Err() error { return q.impl().err }

// Nodes returns the nodes that the System speaks of, sorted; node i of a Set is Nodes()[i]. The slice is the caller's.
func (q System) Nodes() []coterie.NodeID { return slices.Clone(q.impl().ids) }

// Len returns how many nodes the System speaks of.
func (q System) Len() int { return len(q.impl().ids) }

// Has reports whether the System speaks of the node.
func (q System) Has(id coterie.NodeID) bool { return q.impl().index(id) >= 0 }

// Set returns the nodes as a Set of this System; those it does not speak of are left out.
func (q System) Set(ids ...coterie.NodeID) Set {
	var s Set
	for _, id := range ids {
		if i := q.impl().index(id); i >= 0 {
			s = s.With(i)
		}
	}
	return s
}

// IDs returns the nodes of a Set of this System, sorted.
func (q System) IDs(set Set) []coterie.NodeID {
	ids := make([]coterie.NodeID, 0, set.Len())
	for i := range (set & q.impl().all()).All() {
		ids = append(ids, q.impl().ids[i])
	}
	return ids
}

// IsQuorum reports whether the set is a quorum.
func (q System) IsQuorum(set Set) bool { return q.impl().root.opens(set) }

// Committed returns the highest level, an index of a log say, that all nodes of some quorum have reached, given how
// far each has. It is Raft's rule of commitment (Ongaro and Ousterhout 2014, §5.3), for joint configurations and for
// any other System too; 0 if no quorum has reached more. It calls acked once for each node and does not allocate.
func (q System) Committed(acked func(coterie.NodeID) uint64) uint64 {
	sys := q.impl()
	var levels [MaxNodes]uint64
	for i, id := range sys.ids {
		levels[i] = acked(id)
	}
	return sys.root.level(&levels)
}

// Node is the System whose one quorum is that node.
func Node(id coterie.NodeID) System {
	return newSystem([]coterie.NodeID{id}, gate{need: 1, terms: []term{{nodes: 1, weight: 1}}})
}

// And is the System whose quorums are quorums in every one of the given Systems. And of the majorities of two
// configurations is Raft's joint consensus (Ongaro and Ousterhout 2014, §6).
func And(systems ...System) System { return choose("And", len(systems), systems) }

// Or is the System whose quorums are quorums in at least one of the given Systems.
func Or(systems ...System) System { return choose("Or", 1, systems) }

// Choose is the System whose quorums are quorums in at least k of the given Systems. One that is given repeatedly
// counts as often: repetition is weight. And is Choose of all and Or is Choose of one.
func Choose(k int, systems ...System) System { return choose("Choose", k, systems) }

// Majority is the System of all sets of more than half of the nodes (Thomas 1979), each of which must be named once.
func Majority(nodes ...coterie.NodeID) System { return threshold("Majority", len(nodes)/2+1, nodes) }

// threshold is the System of any k of the nodes.
func threshold(what string, k int, nodes []coterie.NodeID) System {
	ids := slices.Clone(nodes)
	slices.Sort(ids)
	for i := range ids {
		if i > 0 && ids[i] == ids[i-1] {
			return invalid("%s names node %q twice; give weights by Weighted", what, ids[i])
		}
	}
	switch {
	case len(ids) == 0:
		return invalid("%s of no nodes", what)
	case len(ids) > MaxNodes:
		return invalid("%s of %d nodes; at most %d", what, len(ids), MaxNodes)
	case k < 1 || k > len(ids):
		return invalid("%s needs %d of %d nodes", what, k, len(ids))
	}
	return newSystem(ids, gate{need: k, terms: []term{{first(len(ids)), 1}}})
}

func choose(what string, k int, systems []System) System {
	if len(systems) == 0 {
		return invalid("%s of nothing", what)
	}
	if k < 1 || k > len(systems) {
		return invalid("%s needs %d of %d", what, k, len(systems))
	}
	var ids []coterie.NodeID
	for _, q := range systems {
		if err := q.Err(); err != nil {
			return broken(err)
		}
		ids = append(ids, q.s.ids...)
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(ids) > MaxNodes {
		return invalid("%s speaks of %d nodes; at most %d", what, len(ids), MaxNodes)
	}
	if len(systems) == 1 {
		return systems[0]
	}
	root := gate{need: k}
	var weights [MaxNodes]int
	for _, q := range systems {
		child := q.s.over(ids)
		if node, ok := child.single(); ok {
			weights[lowest(node)]++
		} else {
			root.gates = append(root.gates, child)
		}
	}
	root.terms = group(weights[:])
	return newSystem(ids, root)
}

// group makes terms of the weights of nodes, lightest first; a weight of 0 is no term.
func group(weights []int) []term {
	var terms []term
	for i, w := range weights {
		if w == 0 {
			continue
		}
		at, found := slices.BinarySearchFunc(terms, w, func(t term, w int) int { return t.weight - w })
		if !found {
			terms = slices.Insert(terms, at, term{weight: w})
		}
		terms[at].nodes = terms[at].nodes.With(i)
	}
	return terms
}

// over returns the expression with nodes numbered by the sorted ids, which contain the System's own.
func (s *system) over(ids []coterie.NodeID) gate {
	to := make([]int, len(s.ids))
	for i, id := range s.ids {
		to[i], _ = slices.BinarySearch(ids, id)
	}
	return s.root.remap(to)
}

// all returns the set of all nodes.
func (s *system) all() Set { return first(len(s.ids)) }

// index returns the number of a node, -1 if the System does not speak of it. Few nodes are compared in turn, by hints:
// comparing strings costs a call each.
func (s *system) index(id coterie.NodeID) int {
	if len(s.ids) > 16 {
		if i, ok := slices.BinarySearch(s.ids, id); ok {
			return i
		}
		return -1
	}
	hint := s.hint(id)
	for i, h := range s.hints {
		if h == hint && s.ids[i] == id {
			return i
		}
	}
	return -1
}

// hint is made of an id's length and of the last bytes before the common tail, which is where the ids of a cluster
// mostly differ: node-1 and node-2, 10.0.0.1:7000 and 10.0.0.2:7000.
func (s *system) hint(id coterie.NodeID) uint32 {
	n := len(id) - s.tail
	if n < 2 {
		if n == 1 {
			return uint32(len(id))<<16 | uint32(id[0])
		}
		return uint32(len(id)) << 16
	}
	return uint32(len(id))<<16 | uint32(id[n-2])<<8 | uint32(id[n-1])
}

// lowest returns the lowest node of a set that is not empty.
func lowest(s Set) int { return bits.TrailingZeros64(uint64(s)) }
