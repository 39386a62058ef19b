package consistency

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// dependency is a set of kinds of edges between transactions (Adya 1999, §3.1).
type dependency uint8

const (
	writeWrite    dependency = 1 << iota // the second replaced what the first wrote
	writeRead                            // the second read what the first wrote
	readWrite                            // the second replaced what the first read: an anti-dependency
	session                              // the client did the second after the first
	realTimeOrder                        // the second was called after the first returned
)

// graph is a directed graph of transactions and, from node real on, helpers that stand between many of them; the
// kind of a way through helpers is that of its first edge.
type graph struct {
	nodes, real int32
	from, to    []int32
	kind        []dependency
	key         []int32

	start []int32 // after build: edges of node n are start[n] to start[n+1] of the sorted ones
}

func (g *graph) helper() int32 {
	g.nodes++
	return g.nodes - 1
}

func (g *graph) add(from, to int32, kind dependency, key int32) {
	g.from, g.to = append(g.from, from), append(g.to, to)
	g.kind, g.key = append(g.kind, kind), append(g.key, key)
}

// build sorts the edges by the node they leave, in linear time.
func (g *graph) build() {
	g.start = make([]int32, g.nodes+1)
	for _, n := range g.from {
		g.start[n+1]++
	}
	for n := range g.nodes {
		g.start[n+1] += g.start[n]
	}
	to, kind, key := make([]int32, len(g.to)), make([]dependency, len(g.to)), make([]int32, len(g.to))
	next := slices.Clone(g.start)
	for i, n := range g.from {
		at := next[n]
		next[n]++
		to[at], kind[at], key[at] = g.to[i], g.kind[i], g.key[i]
	}
	g.to, g.kind, g.key, g.from = to, kind, key, nil
}

// A walk's position is a node, doubled: odd if it was reached by an anti-dependency. A rule says where a walk may go.
type rule struct {
	kinds dependency
	apart bool // no two anti-dependencies in a row
}

// steps yields the edges that a walk may take from a position, and where they lead.
func (g *graph) steps(at int32, r rule) iter.Seq2[int32, int32] {
	return func(yield func(edge, to int32) bool) {
		n, anti := at/2, at%2
		for e := g.start[n]; e < g.start[n+1]; e++ {
			if to, ok := g.step(e, n, anti, r); ok && !yield(e, to) {
				return
			}
		}
	}
}

func (g *graph) step(e, n, anti int32, r rule) (to int32, ok bool) {
	kind := g.kind[e]
	switch {
	case kind&r.kinds == 0 && n < g.real:
		return 0, false
	case kind&r.kinds == 0 && kind&(session|realTimeOrder) != 0:
		return 0, false
	case !r.apart:
		return 2 * g.to[e], true
	case n >= g.real: // a helper hands on how it was reached
		return 2*g.to[e] + anti, true
	case kind == readWrite && anti == 1:
		return 0, false
	case kind == readWrite:
		return 2*g.to[e] + 1, true
	}
	return 2 * g.to[e], true
}

// components numbers the strongly connected components that a rule allows (Tarjan 1972), without recursion: component
// of position p is comp[p]. cyclic reports whether one has more than one position.
func (g *graph) components(r rule) (comp []int32, cyclic bool) {
	size := 2 * g.nodes
	comp = make([]int32, size)
	index := make([]int32, size) // order of discovery + 1
	low := make([]int32, size)
	edge := make([]int32, size) // the next edge to look at
	var stack, path []int32
	count, components := int32(0), int32(0)
	discover := func(p int32) {
		count++
		index[p], low[p], edge[p] = count, count, g.start[p/2]
		stack, path = append(stack, p), append(path, p)
	}
	for root := int32(0); root < size; root += 2 {
		if index[root] != 0 {
			continue
		}
		discover(root)
		for len(path) > 0 {
			p := path[len(path)-1]
			n := p / 2
			if e := edge[p]; e < g.start[n+1] {
				edge[p]++
				q, ok := g.step(e, n, p%2, r)
				switch {
				case !ok:
				case index[q] == 0:
					discover(q)
				case comp[q] == 0:
					low[p] = min(low[p], index[q])
				}
				continue
			}
			path = path[:len(path)-1]
			if len(path) > 0 {
				parent := path[len(path)-1]
				low[parent] = min(low[parent], low[p])
			}
			if low[p] != index[p] {
				continue
			}
			components++
			for {
				q := stack[len(stack)-1]
				stack = stack[:len(stack)-1]
				comp[q] = components
				if q == p {
					break
				}
				cyclic = true
			}
		}
	}
	return comp, cyclic
}

// maxTries bounds how many edges of a kind are tried in the search for a short cycle.
const maxTries = 64

// cycle returns a short cycle of a rule with an edge of the given kinds, as edges, or nil.
func (g *graph) cycle(r rule, comp []int32, with dependency) (best []int32) {
	tries := 0
	came := make(map[int32][2]int32) // position: the one before and the edge taken
	for at := range 2 * g.nodes {
		if comp[at] == 0 {
			continue
		}
		for e, to := range g.steps(at, r) {
			if g.kind[e]&with == 0 || comp[to] != comp[at] || at/2 >= g.real {
				continue
			}
			clear(came)
			if way := g.way(to, at, r, comp, came); way != nil || to == at {
				if way = append([]int32{e}, way...); best == nil || len(way) < len(best) {
					best = way
				}
			}
			if tries++; tries >= maxTries {
				return best
			}
		}
	}
	return best
}

// way returns the edges of a shortest walk between two positions of a component.
func (g *graph) way(from, to int32, r rule, comp []int32, came map[int32][2]int32) []int32 {
	queue := []int32{from}
	for i := 0; i < len(queue); i++ {
		at := queue[i]
		for e, next := range g.steps(at, r) {
			if _, seen := came[next]; seen || comp[next] != comp[to] {
				continue
			}
			came[next] = [2]int32{at, e}
			if next != to {
				queue = append(queue, next)
				continue
			}
			var edges []int32
			for p := to; ; {
				step := came[p]
				edges = append(edges, step[1])
				if p = step[0]; p == from {
					slices.Reverse(edges)
					return edges
				}
			}
		}
	}
	return nil
}

// stage is one level's question about cycles.
type stage struct {
	forbids Level
	rule    rule
	with    dependency
	suffix  AnomalyKind
}

// judge asks for cycles of ever more kinds of edges, until there is one or none is left.
func (d *dependencies) judge(ctx context.Context) TxnResult {
	const flow = writeWrite | writeRead
	stages := []stage{
		{ReadUncommitted, rule{kinds: writeWrite}, writeWrite, ""},
		{ReadCommitted, rule{kinds: flow}, writeRead, ""},
		{SnapshotIsolation, rule{kinds: flow | readWrite, apart: true}, readWrite, ""},
		{Serializable, rule{kinds: flow | readWrite}, readWrite, ""},
		{StrongSessionSerializable, rule{kinds: flow | readWrite | session}, session, "-session"},
		{StrictSerializable, rule{kinds: flow | readWrite | session | realTimeOrder}, realTimeOrder, "-realtime"},
	}
	strongest := StrictSerializable
	// Where the strictest question has no answer, none has: a healthy history costs one pass.
	if _, cyclic := d.g.components(stages[len(stages)-1].rule); cyclic {
		for _, s := range stages {
			if ctx.Err() != nil {
				return TxnResult{}
			}
			comp, cyclic := d.g.components(s.rule)
			if !cyclic {
				continue
			}
			strongest = min(strongest, s.forbids-1)
			if edges := d.g.cycle(s.rule, comp, s.with); edges != nil {
				d.reportCycle(edges, s)
			}
		}
	}
	for _, a := range d.anomalies {
		strongest = min(strongest, a.Forbids-1)
	}
	slices.SortStableFunc(d.anomalies, func(a, b Anomaly) int { return int(a.Forbids) - int(b.Forbids) })
	verdict := Holds
	if strongest < StrictSerializable {
		verdict = Violated
	}
	return TxnResult{Verdict: verdict, Strongest: strongest, Anomalies: d.anomalies}
}

// link is an edge of a cycle between transactions, helpers left out.
type link struct {
	from, to int32
	kind     dependency
	key      int32
}

// reportCycle names a cycle, and says why each transaction comes before the next.
func (d *dependencies) reportCycle(edges []int32, s stage) {
	var links []link
	for _, e := range edges {
		from, _ := slices.BinarySearch(d.g.start, e+1)
		l := link{from: int32(from - 1), to: d.g.to[e], kind: d.g.kind[e], key: d.g.key[e]}
		if n := len(links); n > 0 && links[n-1].to >= d.g.real {
			links[n-1].to = l.to
			continue
		}
		links = append(links, l)
	}
	kind := name(links)
	var txns []int32
	var parts []string
	for _, l := range links {
		txns = append(txns, l.from)
		parts = append(parts, d.because(l))
	}
	d.report(kind+s.suffix, s.forbids, txns, "%s", strings.Join(parts, "; "))
}

// name classifies a cycle by its anti-dependencies.
func name(links []link) AnomalyKind {
	anti, adjacent := 0, false
	kinds := dependency(0)
	for i, l := range links {
		kinds |= l.kind
		if l.kind == readWrite {
			anti++
			adjacent = adjacent || links[(i+1)%len(links)].kind == readWrite
		}
	}
	switch {
	case anti == 0 && kinds&writeRead == 0:
		return DirtyWrite
	case anti == 0:
		return CircularFlow
	case len(links) == 2 && links[0].key == links[1].key && kinds&(writeWrite|writeRead|readWrite) == kinds && kinds&writeRead == 0:
		return LostUpdate
	case anti == 1:
		return SingleAnti
	case !adjacent:
		return NonadjacentAnti
	case len(links) == 2:
		return WriteSkew
	}
	return AntiCycle
}

// because says why one transaction comes before another.
func (d *dependencies) because(l link) string {
	key := ""
	if l.key >= 0 {
		key = d.names[l.key]
	}
	switch l.kind {
	case writeWrite:
		return fmt.Sprintf("transaction %d wrote %s, and transaction %d wrote it after that", l.from, key, l.to)
	case writeRead:
		return fmt.Sprintf("transaction %d read what transaction %d wrote to %s", l.to, l.from, key)
	case readWrite:
		return fmt.Sprintf("transaction %d did not see what transaction %d wrote to %s", l.from, l.to, key)
	case session:
		return fmt.Sprintf("client %d began transaction %d after transaction %d", d.h[l.to].Client, l.to, l.from)
	case realTimeOrder:
	}
	return fmt.Sprintf("transaction %d had ended when transaction %d began", l.from, l.to)
}

// sortedMap yields a map's entries in order of keys.
func sortedMap(m map[int64][]int32) iter.Seq2[int64, []int32] {
	return func(yield func(int64, []int32) bool) {
		for _, k := range sortedKeys(m) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}
