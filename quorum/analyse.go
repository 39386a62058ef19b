package quorum

import (
	"iter"

	"github.com/coterie-go/coterie"
)

// Quorums yields the minimal quorums, each once, in the order of their lowest nodes. There may be very many: a
// majority of 21 nodes has 352,716.
func (q System) Quorums() iter.Seq[Set] {
	s := q.impl()
	return minimal(s.all(), s.root.opens)
}

// minimal yields the minimal sets for which a monotone predicate holds.
func minimal(all Set, holds func(Set) bool) iter.Seq[Set] {
	return func(yield func(Set) bool) {
		// taken is kept irredundant as far as can be told: as soon as it holds, it is a candidate, and no superset is.
		var walk func(taken, rest Set) bool
		walk = func(taken, rest Set) bool {
			if holds(taken) {
				for i := range taken.All() {
					if holds(taken.Without(i)) {
						return true
					}
				}
				return yield(taken)
			}
			if !holds(taken | rest) {
				return true
			}
			next := Set(0).With(lowest(rest))
			return walk(taken|next, rest&^next) && walk(taken, rest&^next)
		}
		walk(0, all)
	}
}

// resilientTo returns the predicate of sets that contain a quorum whatever f of their nodes fail.
func (s *system) resilientTo(f int) func(Set) bool {
	if f == 0 {
		return s.root.opens
	}
	var survives func(set, candidates Set, f int) bool
	survives = func(set, candidates Set, f int) bool {
		if !s.root.opens(set) {
			return false
		}
		if f == 0 {
			return true
		}
		for i := range candidates.All() {
			candidates = candidates.Without(i)
			if !survives(set.Without(i), candidates, f-1) {
				return false
			}
		}
		return true
	}
	return func(set Set) bool { return survives(set, set, f) }
}

// Smallest returns how many nodes the smallest quorum has; 0 if there is none.
func (q System) Smallest() int {
	s := q.impl()
	if s.err != nil {
		return 0
	}
	return s.cheapest(&s.root, 0)
}

// Resilience returns the largest f such that a quorum is left whatever f nodes fail; -1 if there is none even now.
func (q System) Resilience() int {
	s := q.impl()
	if s.err != nil {
		return -1
	}
	dual := s.root.dual() // the sets that meet every quorum: the smallest kills them all
	return s.cheapest(&dual, 0) - 1
}

// Resilience returns the smaller of the read and the write resilience.
func (rw ReadWrite) Resilience() int { return min(rw.read.Resilience(), rw.write.Resilience()) }

// Availability returns the probability that a quorum is alive when each node has failed with probability p,
// independently of the others. It is exact, by counting where each node occurs once in the expression and by cases for
// the nodes that occur more often, in time exponential in how many of those there are.
func (q System) Availability(p float64) float64 {
	return q.AvailabilityFunc(func(coterie.NodeID) float64 { return p })
}

// AvailabilityFunc is Availability with a probability of failure for each node.
func (q System) AvailabilityFunc(failure func(coterie.NodeID) float64) float64 {
	s := q.impl()
	if s.err != nil {
		return 0
	}
	var up [MaxNodes]float64
	for i, id := range s.ids {
		up[i] = min(max(1-failure(id), 0), 1)
	}
	return s.available(repeated(&s.root), &up)
}

// available sums over the states of the cases, the nodes that occur more than once.
func (s *system) available(cases Set, up *[MaxNodes]float64) float64 {
	if cases == 0 {
		return s.root.chance(up)
	}
	next := lowest(cases)
	p := up[next]
	sum := 0.0
	if p > 0 {
		up[next] = 1
		sum += p * s.available(cases.Without(next), up)
	}
	if p < 1 {
		up[next] = 0
		sum += (1 - p) * s.available(cases.Without(next), up)
	}
	up[next] = p
	return sum
}

// chance returns the probability that the gate opens if its inputs are independent, by the distribution of what they
// count together.
func (g *gate) chance(up *[MaxNodes]float64) float64 {
	sums := []counted{{0, 1}}
	for _, t := range g.terms {
		for i := range t.nodes.All() {
			sums = convolve(sums, up[i], t.weight, g.need)
		}
	}
	for i := range g.gates {
		sums = convolve(sums, g.gates[i].chance(up), 1, g.need)
	}
	if last := sums[len(sums)-1]; last.count == g.need {
		return last.p
	}
	return 0
}

// counted is the probability p that the inputs so far count so much; all that is need or more counts as need.
type counted struct {
	count int
	p     float64
}

// convolve returns the distribution with one more input, which adds weight with probability p: a merge of the sorted
// sums without it and those with it, so that the order of additions, and with it the rounding, is always the same.
func convolve(sums []counted, p float64, weight, need int) []counted {
	next := make([]counted, 0, 2*len(sums))
	add := func(count int, p float64) {
		if n := len(next); n > 0 && next[n-1].count == count {
			next[n-1].p += p
		} else {
			next = append(next, counted{count, p})
		}
	}
	j := 0
	for i := range sums {
		for ; j < len(sums) && min(sums[j].count+weight, need) < sums[i].count; j++ {
			add(sums[j].count+weight, sums[j].p*p)
		}
		add(sums[i].count, sums[i].p*(1-p))
	}
	for ; j < len(sums); j++ {
		add(min(sums[j].count+weight, need), sums[j].p*p)
	}
	return next
}

// repeated returns the nodes that occur in more than one input of the expression.
func repeated(g *gate) Set {
	var seen, twice Set
	var walk func(g *gate)
	walk = func(g *gate) {
		for _, t := range g.terms {
			twice |= seen & t.nodes
			seen |= t.nodes
		}
		for i := range g.gates {
			walk(&g.gates[i])
		}
	}
	walk(g)
	return twice
}

// cheapest returns the size of the smallest set that opens the gate, not counting free nodes, by cases for the nodes that
// occur more than once.
func (s *system) cheapest(g *gate, free Set) int {
	cases := repeated(g) &^ free
	best := len(s.ids) + 1
	var try func(rest, taken, left Set)
	try = func(rest, taken, left Set) {
		if taken.Len() >= best || !g.opens(s.all()&^left) {
			return
		}
		if rest == 0 {
			best = min(best, taken.Len()+g.cost(taken|free, cases|free))
			return
		}
		next := lowest(rest)
		try(rest.Without(next), taken, left.With(next))
		try(rest.Without(next), taken.With(next), left)
	}
	try(cases, 0, 0)
	return best
}

// unreachable is a cost that nothing pays.
const unreachable = 1 << 20

// cost returns how many nodes outside cases open the gate together with those of cases that are taken. Each of the
// others occurs once, so gates are bought independently, the cheapest first, and for every number of them the missing
// weight is made up by the heaviest nodes.
func (g *gate) cost(taken, cases Set) int {
	have := 0
	for _, t := range g.terms {
		have += (taken & t.nodes).Len() * t.weight
	}
	costs := make([]int, 0, len(g.gates))
	for i := range g.gates {
		c := g.gates[i].cost(taken, cases)
		at := len(costs)
		costs = append(costs, c)
		for ; at > 0 && costs[at-1] > c; at-- {
			costs[at] = costs[at-1]
		}
		costs[at] = c
	}
	best, paid := unreachable, 0
	for n := 0; ; n++ {
		best = min(best, paid+g.nodesFor(g.need-have-n, cases))
		if n == len(costs) {
			return best
		}
		paid = min(paid+costs[n], unreachable)
	}
}

// nodesFor returns how many nodes outside cases it takes to count missing, the heaviest first.
func (g *gate) nodesFor(missing int, cases Set) int {
	n := 0
	for i := len(g.terms) - 1; i >= 0 && missing > 0; i-- {
		t := g.terms[i]
		free := (t.nodes &^ cases).Len()
		use := min(free, (missing+t.weight-1)/t.weight)
		n += use
		missing -= use * t.weight
	}
	if missing > 0 {
		return unreachable
	}
	return n
}

// Overlap returns how many nodes every read quorum and every write quorum have in common at least: 1 or more by
// construction, 2f+1 where f lying nodes are to be masked (Malkhi and Reiter 1998). It looks at every minimal read
// quorum.
func (rw ReadWrite) Overlap() int {
	if rw.read.Err() != nil || rw.write.Err() != nil {
		return 0
	}
	write, least := rw.write.s, rw.read.Len()
	for q := range rw.read.Quorums() {
		least = min(least, write.cheapest(&write.root, write.all()&^q))
	}
	return least
}
