package quorum

// gate is a compiled expression: it opens for a set of nodes when what the set brings counts need or more. And, Or and
// Choose, with weights or without, are all gates; they differ in need alone.
type gate struct {
	need  int
	terms []term // nodes, grouped by what they count
	gates []gate // each counts 1 when open; one that is repeated counts as often
}

// term is a group of nodes that each count the same.
type term struct {
	nodes  Set
	weight int
}

// opens reports whether the set is a quorum.
func (g *gate) opens(s Set) bool {
	missing := g.need
	for i := range g.terms {
		missing -= (s & g.terms[i].nodes).Len() * g.terms[i].weight
	}
	if missing <= 0 {
		return true
	}
	for i := range g.gates {
		if len(g.gates)-i < missing {
			return false
		}
		if g.gates[i].opens(s) {
			missing--
			if missing == 0 {
				return true
			}
		}
	}
	return false
}

// total returns what all nodes together count.
func (g *gate) total() int {
	sum := len(g.gates)
	for _, t := range g.terms {
		sum += t.nodes.Len() * t.weight
	}
	return sum
}

// dual returns the gate that opens for exactly the sets whose complement does not open g: the nodes outside such a set
// bring less than need, so those inside bring more than the rest, total - need.
func (g *gate) dual() gate {
	d := gate{need: g.total() - g.need + 1, terms: g.terms}
	for i := range g.gates {
		d.gates = append(d.gates, g.gates[i].dual())
	}
	return d
}

// remap returns the gate with node i renamed to node to[i].
func (g *gate) remap(to []int) gate {
	r := gate{need: g.need}
	for _, t := range g.terms {
		var nodes Set
		for i := range t.nodes.All() {
			nodes = nodes.With(to[i])
		}
		r.terms = append(r.terms, term{nodes, t.weight})
	}
	for i := range g.gates {
		r.gates = append(r.gates, g.gates[i].remap(to))
	}
	return r
}

// single returns the node of a gate that stands for one node alone.
func (g *gate) single() (node Set, ok bool) {
	if len(g.gates) > 0 || len(g.terms) != 1 || g.terms[0].nodes.Len() != 1 || g.need > g.terms[0].weight {
		return 0, false
	}
	return g.terms[0].nodes, true
}

// level returns the highest level that a quorum has reached, given the level of each node: of what its inputs reach,
// sorted from the highest, the one at which need is counted. The set of those at or above a level shrinks as the level
// rises, so this is exact for every expression.
func (g *gate) level(levels *[MaxNodes]uint64) uint64 {
	var sorted [MaxNodes]weighted
	n, rest := 0, sorted[:]
	for _, t := range g.terms {
		for s := t.nodes; s != 0; s &= s - 1 {
			rest, n = insert(rest, n, weighted{levels[lowest(s)], t.weight})
		}
	}
	for i := range g.gates {
		rest, n = insert(rest, n, weighted{g.gates[i].level(levels), 1})
	}
	missing := g.need
	for _, w := range rest[:n] {
		if missing -= w.weight; missing <= 0 {
			return w.level
		}
	}
	return 0
}

type weighted struct {
	level  uint64
	weight int
}

// insert puts w into the first n elements of a slice sorted from the highest level; the slice grows only when an
// expression repeats so much that it has more inputs than there are nodes.
func insert(s []weighted, n int, w weighted) ([]weighted, int) {
	if n == len(s) {
		s = append(s, weighted{})
	}
	i := n
	for ; i > 0 && s[i-1].level < w.level; i-- {
		s[i] = s[i-1]
	}
	s[i] = w
	return s, n + 1
}
