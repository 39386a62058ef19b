package deadlock

import (
	"fmt"
	"iter"
	"slices"
	"time"
)

// Cycle is a circle of waits: the holder of each edge is the waiter of the next, that of the last the waiter of the
// first. No process is in it twice.
type Cycle []Edge

// Processes lists who waits, in the cycle's order.
func (c Cycle) Processes() []Process {
	ps := make([]Process, len(c))
	for i, e := range c {
		ps[i] = e.Waiter
	}
	return ps
}

// Choose picks the process of a cycle that is to be aborted. It should depend on nothing but the cycle's processes, so
// that all who find the cycle agree.
type Choose func(Cycle) Process

// Youngest chooses the process that was born last, of several the last by Process.Compare: what it has done is least
// lost, and who is old gets done in the end, if an aborted process keeps its time of birth when it tries again.
func Youngest(born func(Process) time.Time) Choose {
	return best(func(p, q Process) int { return born(p).Compare(born(q)) })
}

// Cheapest chooses the process that costs least to abort, of several the last by Process.Compare.
func Cheapest(cost func(Process) float64) Choose {
	return best(func(p, q Process) int {
		a, b := cost(p), cost(q)
		switch {
		case a < b:
			return 1
		case a > b:
			return -1
		}
		return 0
	})
}

func best(compare func(p, q Process) int) Choose {
	return func(c Cycle) Process {
		return slices.MaxFunc(c.Processes(), func(p, q Process) int {
			if d := compare(p, q); d != 0 {
				return d
			}
			return p.Compare(q)
		})
	}
}

// Victims chooses processes until no cycle is left without them: none if there is no deadlock. Each choice is from a
// cycle of those that earlier choices left. It takes O(processes * edges), however many cycles there are. A choice of a
// process that is not on the cycle is an error.
func (g *Graph) Victims(choose Choose) ([]Process, error) {
	var victims []Process
	edges := g.live()
	for {
		net := newNet(edges)
		cycle := net.anyCycle()
		if cycle == nil {
			return victims, nil
		}
		v := choose(cycle)
		if !slices.Contains(cycle.Processes(), v) {
			return nil, fmt.Errorf("deadlock: chosen victim %v is not on the cycle", v)
		}
		victims = append(victims, v)
		edges = slices.DeleteFunc(edges, func(e Edge) bool { return e.Waiter == v || e.Holder == v })
	}
}

// Cycles yields every elementary cycle once, each beginning with its least process by Process.Compare, in time
// O((processes + edges) per cycle). There may be exponentially many: take what is needed, or use Victims.
//
// Source: Johnson, Finding All the Elementary Circuits of a Directed Graph, SIAM J. Comput. 4(1), 1975.
func (g *Graph) Cycles() iter.Seq[Cycle] {
	return func(yield func(Cycle) bool) {
		net := newNet(g.live())
		for root := range net.out {
			component := net.components(root)
			s := search{net: net, root: root, component: component, yield: yield,
				blocked: make([]bool, len(net.out)), waiting: make(map[int][]int)}
			s.circuit(root)
			if s.stopped {
				return
			}
		}
	}
}

// net is a graph with small integers for processes, in their order.
type net struct {
	out [][]arc
}

type arc struct {
	to   int
	edge Edge
}

func newNet(edges []Edge) net {
	var ps []Process
	for _, e := range edges {
		ps = append(ps, e.Waiter, e.Holder)
	}
	slices.SortFunc(ps, Process.Compare)
	ps = slices.Compact(ps)
	index := make(map[Process]int, len(ps))
	for i, p := range ps {
		index[p] = i
	}
	n := net{out: make([][]arc, len(ps))}
	for _, e := range edges {
		i := index[e.Waiter]
		n.out[i] = append(n.out[i], arc{to: index[e.Holder], edge: e})
	}
	return n
}

// components numbers the strongly connected components of the processes from least on; those before have 0 (Tarjan,
// SIAM J. Comput. 1(2), 1972).
func (n net) components(least int) []int {
	t := tarjan{net: n, least: least, component: make([]int, len(n.out)),
		index: make([]int, len(n.out)), low: make([]int, len(n.out))}
	for v := least; v < len(n.out); v++ {
		if t.index[v] == 0 {
			t.visit(v)
		}
	}
	return t.component
}

type tarjan struct {
	net
	least, count, found   int
	component, index, low []int
	stack                 []int
}

func (t *tarjan) visit(v int) {
	t.count++
	t.index[v], t.low[v] = t.count, t.count
	t.stack = append(t.stack, v)
	for _, a := range t.out[v] {
		switch {
		case a.to < t.least:
		case t.index[a.to] == 0:
			t.visit(a.to)
			t.low[v] = min(t.low[v], t.low[a.to])
		case t.component[a.to] == 0: // on the stack
			t.low[v] = min(t.low[v], t.index[a.to])
		}
	}
	if t.low[v] != t.index[v] {
		return
	}
	t.found++
	for {
		last := t.stack[len(t.stack)-1]
		t.stack = t.stack[:len(t.stack)-1]
		t.component[last] = t.found
		if last == v {
			return
		}
	}
}

// anyCycle returns one cycle, nil if there is none: from a process of a component it follows edges within until it
// comes by a second time.
func (n net) anyCycle() Cycle {
	component := n.components(0)
	for v := range n.out {
		at := make(map[int]int)
		var path Cycle
		for {
			if first, ok := at[v]; ok {
				return path[first:]
			}
			i := slices.IndexFunc(n.out[v], func(a arc) bool { return component[a.to] == component[v] })
			if i < 0 {
				break // a component of one
			}
			at[v] = len(path)
			path = append(path, n.out[v][i].edge)
			v = n.out[v][i].to
		}
	}
	return nil
}

// search is Johnson's search for the cycles through root within its component.
type search struct {
	net
	root      int
	component []int
	path      Cycle
	blocked   []bool        // no way from there to root beside the path
	waiting   map[int][]int // unblocked together with the key
	yield     func(Cycle) bool
	stopped   bool
}

func (s *search) circuit(v int) (found bool) {
	s.blocked[v] = true
	for _, a := range s.out[v] {
		if s.stopped || s.component[a.to] != s.component[s.root] {
			continue
		}
		s.path = append(s.path, a.edge)
		switch {
		case a.to == s.root:
			found = true
			s.stopped = !s.yield(slices.Clone(s.path))
		case !s.blocked[a.to]:
			found = s.circuit(a.to) || found
		}
		s.path = s.path[:len(s.path)-1]
	}
	if found {
		s.unblock(v)
		return true
	}
	for _, a := range s.out[v] {
		if s.component[a.to] == s.component[s.root] && !slices.Contains(s.waiting[a.to], v) {
			s.waiting[a.to] = append(s.waiting[a.to], v)
		}
	}
	return false
}

func (s *search) unblock(v int) {
	s.blocked[v] = false
	for _, w := range s.waiting[v] {
		if s.blocked[w] {
			s.unblock(w)
		}
	}
	delete(s.waiting, v)
}
