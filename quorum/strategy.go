package quorum

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
)

// Profile is what one node can do.
type Profile struct {
	Reads   float64       // reads per second it can serve; default 1
	Writes  float64       // writes per second it can serve; default 1
	Latency time.Duration // until its answer is here
}

// Share is a part of the time in which the workload has a read fraction.
type Share struct {
	ReadFraction float64 // reads among all requests, from 0 to 1
	Weight       float64 // how often, in proportion to the other shares
}

// Objective is what a strategy is the best for.
type Objective uint8

// The objectives of a Model.
const (
	Load    Objective = iota // the least work for the busiest node, so the most throughput
	Network                  // the fewest messages
	Latency                  // the soonest quorum
)

// Model is a workload, the nodes that bear it, and what is wanted of them. The zero Model is writes only, on nodes
// that serve one request a second without delay, for the best load.
type Model struct {
	ReadFraction float64                    // reads among all requests, from 0 to 1
	Mix          []Share                    // instead of ReadFraction: how it varies over time
	Nodes        map[coterie.NodeID]Profile // a node that is not named has the zero Profile
	Failures     int                        // ask so many nodes that a quorum is left when this many of them fail
	Optimize     Objective                  // what to minimize; default Load

	MaxLoad    float64       // limit on the load; 0 is none
	MaxNetwork float64       // limit on the nodes asked per request, on average; 0 is none
	MaxLatency time.Duration // limit on the latency, on average; 0 is none
}

// ErrNoStrategy is returned when no choice of quorums keeps the limits of a Model: relax them, or choose another
// system.
var ErrNoStrategy = errors.New("quorum: no strategy keeps the limits")

// maxCells bounds the tableau of the linear program, 64 MiB.
const maxCells = 1 << 22

// Choice is a set of nodes to ask and how often it is chosen.
type Choice struct {
	Set         Set
	Probability float64
}

// Strategy says at random which nodes to ask: a probability distribution over read quorums and one over write quorums
// (Naor and Wool 1998). It never changes and is safe for concurrent use.
type Strategy struct {
	rw            ReadWrite
	reads, writes []Choice
}

// Reads returns the sets chosen for reads, the likeliest first. The slice is the caller's.
func (s Strategy) Reads() []Choice { return slices.Clone(s.reads) }

// Writes returns the sets chosen for writes, the likeliest first. The slice is the caller's.
func (s Strategy) Writes() []Choice { return slices.Clone(s.writes) }

// System returns the system that the strategy chooses from.
func (s Strategy) System() ReadWrite { return s.rw }

// PickRead draws the nodes to ask for a read; 0 of a zero Strategy.
func (s Strategy) PickRead(r *rand.Rand) Set { return pick(s.reads, r.Float64()) }

// PickWrite draws the nodes to ask for a write; 0 of a zero Strategy.
func (s Strategy) PickWrite(r *rand.Rand) Set { return pick(s.writes, r.Float64()) }

func pick(choices []Choice, at float64) Set {
	for _, c := range choices {
		if at < c.Probability {
			return c.Set
		}
		at -= c.Probability
	}
	if len(choices) == 0 {
		return 0
	}
	return choices[0].Set // the probabilities sum to a little less than 1
}

// NewStrategy makes a strategy of the given sets, whose weights need not sum to 1. Each set must be a quorum.
func (rw ReadWrite) NewStrategy(reads, writes map[Set]float64) (Strategy, error) {
	r, err := normalize("reads", reads, rw.IsRead)
	if err != nil {
		return Strategy{}, err
	}
	w, err := normalize("writes", writes, rw.IsWrite)
	if err != nil {
		return Strategy{}, err
	}
	return Strategy{rw: rw, reads: r, writes: w}, nil
}

func normalize(what string, weights map[Set]float64, isQuorum func(Set) bool) ([]Choice, error) {
	var choices []Choice
	total := 0.0
	for _, set := range slices.Sorted(maps.Keys(weights)) {
		w := weights[set]
		if !isQuorum(set) {
			return nil, fmt.Errorf("quorum: strategy for %s has a set that is no quorum: %b", what, set)
		}
		if !(w >= 0) || w > 1e300 {
			return nil, fmt.Errorf("quorum: strategy for %s has weight %v", what, w)
		}
		total += w
		choices = append(choices, Choice{set, w})
	}
	if !(total > 0) {
		return nil, fmt.Errorf("quorum: strategy for %s has no weight", what)
	}
	for i := range choices {
		choices[i].Probability /= total
	}
	return likeliest(choices), nil
}

// likeliest drops what is never chosen and sorts, ties by set.
func likeliest(choices []Choice) []Choice {
	choices = slices.DeleteFunc(choices, func(c Choice) bool { return c.Probability <= 0 })
	slices.SortStableFunc(choices, func(a, b Choice) int {
		switch {
		case a.Probability > b.Probability:
			return -1
		case a.Probability < b.Probability:
			return 1
		}
		return 0
	})
	return choices
}

// Uniform is the strategy that chooses every minimal set that survives so many failures equally often.
func (rw ReadWrite) Uniform(failures int) (Strategy, error) {
	reads, writes, err := rw.candidates(failures, MaxNodes)
	if err != nil {
		return Strategy{}, err
	}
	even := func(sets []Set) []Choice {
		choices := make([]Choice, len(sets))
		for i, s := range sets {
			choices[i] = Choice{s, 1 / float64(len(sets))}
		}
		return choices
	}
	return Strategy{rw: rw, reads: even(reads), writes: even(writes)}, nil
}

// candidates lists the minimal sets that stay quorums despite failures, as long as a linear program of so many rows
// can hold them.
func (rw ReadWrite) candidates(failures, rows int) (reads, writes []Set, err error) {
	if err := errors.Join(rw.read.Err(), rw.write.Err()); err != nil {
		return nil, nil, err
	}
	if failures < 0 {
		return nil, nil, fmt.Errorf("quorum: Failures is %d", failures)
	}
	collect := func(what string, s *system) ([]Set, error) {
		var sets []Set
		for set := range minimal(s.all(), s.resilientTo(failures)) {
			if sets = append(sets, set); len(sets)*rows > maxCells {
				return nil, fmt.Errorf("quorum: too many minimal %s quorums to analyse: over %d", what, len(sets))
			}
		}
		if len(sets) == 0 {
			return nil, fmt.Errorf("%w: no set of nodes is a %s quorum despite %d failures", ErrNoStrategy, what, failures)
		}
		return sets, nil
	}
	if reads, err = collect("read", rw.read.s); err != nil {
		return nil, nil, err
	}
	if writes, err = collect("write", rw.write.s); err != nil {
		return nil, nil, err
	}
	return reads, writes, nil
}

// Strategy returns the best strategy for the model, by linear programming over the minimal quorums (Whittaker et al.
// 2021, §4). It returns ErrNoStrategy if the limits cannot be kept. The effort grows with the number of minimal
// quorums; some tens of thousands are the limit.
func (rw ReadWrite) Strategy(m Model) (Strategy, error) {
	v, err := m.view(rw)
	if err != nil {
		return Strategy{}, err
	}
	reads, writes, err := rw.candidates(m.Failures, len(v.shares)*len(v.profiles)+5)
	if err != nil {
		return Strategy{}, err
	}
	p := v.program(m, rw, reads, writes)
	x, err := p.solve()
	if errors.Is(err, errInfeasible) {
		return Strategy{}, ErrNoStrategy
	}
	if err != nil {
		return Strategy{}, err
	}
	s := Strategy{rw: rw}
	choose := func(sets []Set, x []float64) []Choice {
		choices, total := make([]Choice, len(sets)), 0.0
		for i, set := range sets {
			if x[i] > 1e-10 { // less is rounding
				choices[i] = Choice{set, x[i]}
				total += x[i]
			}
		}
		for i := range choices {
			choices[i].Probability /= total
		}
		return likeliest(choices)
	}
	s.reads, s.writes = choose(reads, x), choose(writes, x[len(reads):])
	return s, nil
}

// program lays out the linear program. Its variables are the probabilities of the reads, those of the writes, and for
// each share of the workload its load; loads are in units of the slowest node's time for one request.
func (v *view) program(m Model, rw ReadWrite, reads, writes []Set) *program {
	sets, nodes := len(reads)+len(writes), len(v.profiles)
	blank := func() []float64 { return make([]float64, sets+len(v.shares)) }
	load, network, latency := blank(), blank(), blank()
	isRead, isWrite := blank(), blank()
	for i, set := range reads {
		isRead[i] = 1
		network[i] = v.meanReads * float64(set.Len()) / float64(nodes)
		latency[i] = v.meanReads * v.latency(set, rw.IsRead) / v.slowLatency
	}
	for i, set := range writes {
		i += len(reads)
		isWrite[i] = 1
		network[i] = (1 - v.meanReads) * float64(set.Len()) / float64(nodes)
		latency[i] = (1 - v.meanReads) * v.latency(set, rw.IsWrite) / v.slowLatency
	}
	p := &program{equations: 2, rows: [][]float64{isRead, isWrite}, limits: []float64{1, 1}}
	for k, share := range v.shares {
		load[sets+k] = share.Weight
		for node, profile := range v.profiles {
			row := blank()
			fill(row, reads, node, share.ReadFraction*v.slowest/profile.Reads)
			fill(row[len(reads):], writes, node, (1-share.ReadFraction)*v.slowest/profile.Writes)
			row[sets+k] = -1
			p.rows, p.limits = append(p.rows, row), append(p.limits, 0)
		}
	}
	p.begin = func(t *tableau) { // the first read, the first write, and the load of the busiest node
		t.pivot(0, 0)
		t.pivot(1, len(reads))
		for k := range v.shares {
			busiest := 2 + k*nodes
			for i := busiest; i < 2+(k+1)*nodes; i++ {
				if t.rows[i][t.width] < t.rows[busiest][t.width] {
					busiest = i
				}
			}
			t.pivot(busiest, sets+k)
		}
	}
	for _, c := range []limit{
		{load, m.MaxLoad * v.slowest},
		{network, m.MaxNetwork / float64(nodes)},
		{latency, m.MaxLatency.Seconds() / v.slowLatency},
	} {
		if c.at > 0 {
			c.at = c.at*(1+1e-9) + epsilon // room for rounding, so that an optimum can be a limit
			p.caps = append(p.caps, c)
		}
	}
	p.cost = [...][]float64{Load: load, Network: network, Latency: latency}[m.Optimize]
	return p
}

// fill sets the coefficient of each set that the node is in.
func fill(row []float64, sets []Set, node int, coefficient float64) {
	for i, set := range sets {
		if set.Has(node) {
			row[i] = coefficient
		}
	}
}
