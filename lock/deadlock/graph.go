package deadlock

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// Process is what waits and is waited for.
type Process struct {
	Node coterie.NodeID // the node that knows what it waits for
	Name string         // on that node; of a process that is gone it should not be used again
}

// String is like "name@node".
func (p Process) String() string { return p.Name + "@" + string(p.Node) }

// Compare orders processes by name, then by node.
func (p Process) Compare(q Process) int {
	return cmp.Or(cmp.Compare(p.Name, q.Name), cmp.Compare(p.Node, q.Node))
}

// Edge is one wait: the waiter goes on only when the holder has let go.
type Edge struct {
	Waiter, Holder Process
	Version        uint64 // of this wait: larger than that of any earlier wait of the two, and never 0
}

// String is like "name@node -> name@node #version".
func (e Edge) String() string { return fmt.Sprintf("%v -> %v #%d", e.Waiter, e.Holder, e.Version) }

func (e Edge) compare(f Edge) int {
	return cmp.Or(e.Waiter.Compare(f.Waiter), e.Holder.Compare(f.Holder), cmp.Compare(e.Version, f.Version))
}

// Graph is a wait-for graph, put together from what nodes said in any order. Of each pair of processes it knows the
// newest wait and the newest one that ended, so that news that is late brings nothing back; Merge is the join of a
// semilattice. The zero value is an empty graph ready to use. A Graph is not safe for concurrent use.
type Graph struct {
	pairs map[pair]versions // nil until the first change
}

// versions is what is known of a pair: it waits if added > removed.
type versions struct{ added, removed uint64 }

// Add says that an edge's wait began.
func (g *Graph) Add(e Edge) {
	g.join(pair{e.Waiter, e.Holder}, versions{added: e.Version})
}

// Remove says that an edge's wait, or an older one of the two, ended, or that the holder granted it.
func (g *Graph) Remove(e Edge) {
	g.join(pair{e.Waiter, e.Holder}, versions{removed: e.Version})
}

func (g *Graph) join(p pair, v versions) {
	if g.pairs == nil {
		g.pairs = make(map[pair]versions)
	}
	old := g.pairs[p]
	g.pairs[p] = versions{max(old.added, v.added), max(old.removed, v.removed)}
}

// Merge adds all that another graph knows.
func (g *Graph) Merge(other *Graph) {
	for p, v := range other.pairs {
		g.join(p, v)
	}
}

// Forget drops all that is known of a process that is gone for good; late news of it would be believed.
func (g *Graph) Forget(p Process) {
	maps.DeleteFunc(g.pairs, func(q pair, _ versions) bool { return q.waiter == p || q.holder == p })
}

// Edges yields the waits that are there, ordered by waiter and holder.
func (g *Graph) Edges() iter.Seq[Edge] { return slices.Values(g.live()) }

func (g *Graph) live() []Edge {
	var edges []Edge
	for p, v := range g.pairs {
		if v.added > v.removed {
			edges = append(edges, Edge{Waiter: p.waiter, Holder: p.holder, Version: v.added})
		}
	}
	slices.SortFunc(edges, Edge.compare)
	return edges
}

// Confirmed returns the graph of the waits that are in both, with the same version, and that neither knows to have
// ended. If g was collected from all nodes first, and later from all nodes after that was complete, each node telling
// all that was true of its processes when it was asked, then all these waits were there at the moment between: a cycle
// of them is a deadlock, not a phantom. A cycle that was there during both collections is in it.
func (g *Graph) Confirmed(later *Graph) *Graph {
	both := &Graph{}
	for p, v := range g.pairs {
		w := later.pairs[p]
		if v.added == w.added && v.added > max(v.removed, w.removed) {
			both.join(p, versions{added: v.added})
		}
	}
	return both
}

// graphFormat is the format byte of a marshalled Graph.
const graphFormat = 1

// AppendBinary appends the marshalled graph. Equal graphs give equal bytes. It never fails.
func (g *Graph) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, graphFormat)
	b = wire.AppendUvarint(b, uint64(len(g.pairs)))
	for _, p := range slices.SortedFunc(maps.Keys(g.pairs), pair.compare) {
		v := g.pairs[p]
		b = appendProcess(appendProcess(b, p.waiter), p.holder)
		b = wire.AppendUvarint(wire.AppendUvarint(b, v.added), v.removed)
	}
	return b, nil
}

// MarshalBinary returns what AppendBinary appends.
func (g *Graph) MarshalBinary() ([]byte, error) { return g.AppendBinary(nil) }

// UnmarshalBinary replaces the graph by a marshalled one. On an error it is unchanged; a format newer than this
// version knows is a *coterie.FormatError.
func (g *Graph) UnmarshalBinary(data []byte) error {
	r := wire.NewReader(data)
	if err := checkFormat(&r, "wait-for graph", graphFormat); err != nil {
		return err
	}
	n := r.Count(10)
	pairs := make(map[pair]versions, n)
	var last pair
	for i := range n {
		p := pair{readProcess(&r), readProcess(&r)}
		v := versions{r.Uvarint(), r.Uvarint()}
		if i > 0 && last.compare(p) >= 0 {
			r.Fail("pairs out of order")
		}
		pairs[p], last = v, p
	}
	if err := r.Done(); err != nil {
		return fmt.Errorf("deadlock: graph: %w", err)
	}
	g.pairs = pairs
	return nil
}

func (p pair) compare(q pair) int {
	return cmp.Or(p.waiter.Compare(q.waiter), p.holder.Compare(q.holder))
}
