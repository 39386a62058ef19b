package consistency

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math/bits"
	"slices"
)

// accesses is a history of registers made ready for the models that weigh whom each read has read from. Nodes number
// the operations that count, client by client in program order: no read of unknown outcome, no write of unknown
// outcome that nobody read.
type accesses[V comparable] struct {
	h        History[Access[V], Answer[V]]
	op       []int32        // of each node: index into h
	from     []int32        // of each node: the write it read, initially for the initial value, none for a write
	sessions [][]int32      // nodes of each client in program order; a write of unknown outcome is in none
	lost     [][2]int32     // a write of unknown outcome, and the node before it in its client's order, or none
	writes   map[string]set // writes of each key, as nodes
}

const (
	none      int32 = -1
	initially int32 = -2
)

// version is one value of one key.
type version[V comparable] struct {
	key   string
	value V
}

// newAccesses links reads to writes. If that cannot be done it returns a finding instead: a value written twice
// leaves open whom a read has read from, a value never written is a violation of every model.
func newAccesses[V comparable](h History[Access[V], Answer[V]], initial V) (*accesses[V], *finding) {
	written, read := make(map[version[V]]int32), make(map[version[V]]bool)
	for i := range h {
		op := &h[i]
		switch op.In.Kind {
		case Read:
			if !op.Unknown {
				read[version[V]{op.In.Key, op.Out.Value}] = true
			}
			continue
		case Write:
		case CompareAndSet, Append:
			return nil, &finding{reason: fmt.Sprintf("operation %d is neither a read nor a write", i)}
		}
		v := version[V]{op.In.Key, op.In.Value}
		if other, ok := written[v]; ok {
			return nil, &finding{reason: fmt.Sprintf(
				"%s was written by operations %d and %d: which of them a read saw is not known", assign(v.key, v.value), other, i)}
		}
		if v.value == initial {
			return nil, &finding{reason: fmt.Sprintf("operation %d writes the initial value: what a read saw is not known", i)}
		}
		written[v] = int32(i)
	}
	a := &accesses[V]{h: h, writes: make(map[string]set)}
	node := a.number(read)
	a.from = make([]int32, len(a.op))
	for n, i := range a.op {
		op := &h[i]
		a.from[n] = none
		if op.In.Kind == Write {
			if a.writes[op.In.Key] == nil {
				a.writes[op.In.Key] = newSet(len(a.op))
			}
			a.writes[op.In.Key].add(int32(n))
			continue
		}
		w, ok := written[version[V]{op.In.Key, op.Out.Value}]
		switch {
		case ok:
			a.from[n] = node[w]
		case op.Out.Value == initial:
			a.from[n] = initially
		default:
			f := violated(opName(h, i)+", which was never written", i)
			return nil, &f
		}
	}
	return a, nil
}

// number gives the operations that count their nodes, and returns the node of each.
func (a *accesses[V]) number(read map[version[V]]bool) map[int32]int32 {
	node := make(map[int32]int32, len(a.h))
	sessions := a.h.sessions()
	for _, client := range sortedKeys(sessions) {
		var session []int32
		before := none
		for _, i := range sessions[client] {
			op := &a.h[i]
			if op.Unknown && (op.In.Kind == Read || !read[version[V]{op.In.Key, op.In.Value}]) {
				continue
			}
			n := int32(len(a.op))
			node[i] = n
			a.op = append(a.op, i)
			if op.Unknown {
				a.lost = append(a.lost, [2]int32{n, before})
				continue
			}
			session = append(session, n)
			before = n
		}
		a.sessions = append(a.sessions, session)
	}
	return node
}

func (a *accesses[V]) isRead(n int32) bool { return a.from[n] != none }

// why says what puts one node before another.
type why uint8

const (
	byClient    why = iota // its client did them in this order
	byRead                 // the second read the first
	byFollow               // a client wrote the second after it had read the first
	byView                 // a read saw the second, and the first had happened before it
	byInitial              // the first read the initial value, the second replaced it
	byOverwrite            // the first read a value, the second replaced it
)

// edge leads to a node that comes later.
type edge struct {
	to    int32
	why   why
	read  int32 // for byView and byFollow the read, for byOverwrite the write that was read
	round int32 // it follows from edges of earlier rounds
}

// order is a relation between nodes, and its transitive closure.
type order struct {
	next   [][]edge
	before []set // before[n]: all nodes that come before n; valid after close
	round  int32 // of edges added now: how often close was called
}

func newOrder(n int) *order { return &order{next: make([][]edge, n)} }

func (o *order) add(from, to int32, w why, read int32) {
	o.next[from] = append(o.next[from], edge{to: to, why: w, read: read, round: o.round})
}

// chain puts nodes one after the other.
func (o *order) chain(nodes []int32) {
	for i := 1; i < len(nodes); i++ {
		o.add(nodes[i-1], nodes[i], byClient, none)
	}
}

// close computes the closure, and returns false if the relation has a cycle.
func (o *order) close() bool {
	n := len(o.next)
	o.round++
	if o.before == nil {
		o.before = make([]set, n)
		for i := range o.before {
			o.before[i] = newSet(n)
		}
	}
	waits := make([]int32, n)
	for _, edges := range o.next {
		for _, e := range edges {
			waits[e.to]++
		}
	}
	ready := make([]int32, 0, n)
	for i, w := range waits {
		if w == 0 {
			ready = append(ready, int32(i))
		}
	}
	for i := 0; i < len(ready); i++ {
		u := ready[i]
		for _, e := range o.next[u] {
			o.before[e.to].union(o.before[u])
			o.before[e.to].add(u)
			if waits[e.to]--; waits[e.to] == 0 {
				ready = append(ready, e.to)
			}
		}
	}
	return len(ready) == n
}

// path returns a shortest way from one node to another by edges of rounds before a given one: its edges, and the
// nodes that they leave; nil if there is none.
func (o *order) path(from, to, before int32) (nodes []int32, edges []edge) {
	type step struct {
		node int32
		edge int32
	}
	came := make([]step, len(o.next))
	for i := range came {
		came[i].node = none
	}
	queue := []int32{from}
	for i := 0; i < len(queue); i++ {
		u := queue[i]
		for j, e := range o.next[u] {
			if e.round >= before || came[e.to].node != none {
				continue
			}
			came[e.to] = step{u, int32(j)}
			if e.to != to {
				queue = append(queue, e.to)
				continue
			}
			for at := to; ; {
				s := came[at]
				nodes, edges = append(nodes, s.node), append(edges, o.next[s.node][s.edge])
				if at = s.node; at == from {
					slices.Reverse(nodes)
					slices.Reverse(edges)
					return nodes, edges
				}
			}
		}
	}
	return nil, nil
}

// cycle returns a shortest cycle through some node that is on one.
func (o *order) cycle() (nodes []int32, edges []edge) {
	for n := range o.next {
		if found, way := o.path(int32(n), int32(n), o.round); found != nil && (nodes == nil || len(found) < len(nodes)) {
			nodes, edges = found, way
			if len(nodes) == 2 {
				break
			}
		}
	}
	return nodes, edges
}

// set is a set of small numbers.
type set []uint64

func newSet(n int) set         { return make(set, (n+63)/64) }
func (s set) add(i int32)      { s[i>>6] |= 1 << (i & 63) }
func (s set) has(i int32) bool { return s[i>>6]>>(i&63)&1 != 0 }
func (s set) union(t set) {
	for i, w := range t {
		s[i] |= w
	}
}

// all yields the members in order; a nil set has none.
func (s set) all() iter.Seq[int32] {
	return func(yield func(int32) bool) {
		for i, w := range s {
			for ; w != 0; w &= w - 1 {
				if !yield(int32(i<<6 + bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}

// sortedKeys returns a map's keys in order, so that reports do not change from run to run.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
