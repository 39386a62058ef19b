package quorum

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"

	"github.com/coterie-go/coterie"
)

// SearchConfig says which system Search looks for.
type SearchConfig struct {
	Nodes      []coterie.NodeID // required
	Model      Model            // the workload, what to minimize, and the limits
	Resilience int              // how many failures reads and writes must each survive
	Depth      int              // how deep And, Or and Choose may nest; default 2
}

// Found is what Search found.
type Found struct {
	System   ReadWrite
	Strategy Strategy
	Report   Report
	Tried    int  // systems whose best strategy was computed
	Complete bool // whether all were tried; else the context ended first
}

// Search tries all systems whose read quorums are an expression that names each node at most once, with the best
// writes for them, and returns the best under the model; of equals the first, and it begins with the simplest
// (Whittaker et al. 2021, §5). Their number grows fast, from hundreds for 5 nodes to tens of thousands for 7: give it a
// context with a deadline, and it returns the best so far, or the context's error if there is none. Systems that
// differ only by nodes of equal Profile are tried once. ErrNoStrategy means that no system keeps the limits.
func Search(ctx context.Context, cfg SearchConfig) (Found, error) {
	if err := cfg.validate(); err != nil {
		return Found{}, err
	}
	if cfg.Depth == 0 {
		cfg.Depth = 2
	}
	s := &searcher{cfg: cfg, seen: map[string]bool{}, kinds: kinds(cfg)}
	var found Found
	best := math.Inf(1)
	found.Complete = true
	for reads := range s.expressions() {
		if ctx.Err() != nil {
			found.Complete = false
			break
		}
		rw, err := FromReads(reads)
		if err != nil {
			return Found{}, err
		}
		if rw.Resilience() < cfg.Resilience {
			continue
		}
		strategy, report, err := rw.Analyse(cfg.Model)
		if errors.Is(err, ErrNoStrategy) {
			continue
		}
		if err != nil {
			return Found{}, err
		}
		found.Tried++
		if cost := cfg.Model.objective(report); cost < best*(1-1e-9) {
			best = cost
			found.System, found.Strategy, found.Report = rw, strategy, report
		}
	}
	switch {
	case !math.IsInf(best, 1):
		return found, nil
	case !found.Complete:
		return Found{}, ctx.Err()
	}
	return Found{}, fmt.Errorf("%w: none of %d nodes with resilience %d", ErrNoStrategy, len(cfg.Nodes), cfg.Resilience)
}

func (cfg SearchConfig) validate() error {
	if len(cfg.Nodes) == 0 || len(cfg.Nodes) > MaxNodes {
		return fmt.Errorf("quorum: SearchConfig.Nodes has %d nodes; from 1 to %d", len(cfg.Nodes), MaxNodes)
	}
	if cfg.Resilience < 0 || cfg.Depth < 0 {
		return fmt.Errorf("quorum: SearchConfig has Resilience %d and Depth %d; neither may be negative", cfg.Resilience, cfg.Depth)
	}
	if err := distinct("SearchConfig.Nodes", cfg.Nodes); err != nil {
		return err
	}
	all, err := FromReads(Threshold(1, cfg.Nodes...))
	if err != nil {
		return err
	}
	_, err = cfg.Model.view(all)
	return err
}

func (m Model) objective(r Report) float64 {
	switch m.Optimize {
	case Network:
		return r.Network
	case Latency:
		return max(r.Latency.Seconds(), 1e-12) // zero latency would leave nothing to compare by
	default:
		return r.Load
	}
}

// searcher enumerates expressions.
type searcher struct {
	cfg   SearchConfig
	kinds []string        // by node: nodes of one profile share a kind
	seen  map[string]bool // expressions by kind
}

// shape is an expression and its form: the expression with nodes named by kind and inputs in order, which is equal for
// expressions that differ only by the exchange of equal nodes.
type shape struct {
	system System
	form   string
	need   int // of the top gate; 0 for a node
	inputs int
}

// kinds names the classes of nodes with one profile.
func kinds(cfg SearchConfig) []string {
	names := make([]string, len(cfg.Nodes))
	for i, id := range cfg.Nodes {
		j := slices.IndexFunc(cfg.Nodes, func(other coterie.NodeID) bool { return cfg.Model.Nodes[other] == cfg.Model.Nodes[id] })
		names[i] = fmt.Sprint("n", j)
	}
	return names
}

// expressions yields each form once, flat ones first.
func (s *searcher) expressions() iter.Seq[System] {
	return func(yield func(System) bool) {
		for depth := 1; depth <= s.cfg.Depth; depth++ {
			for all := first(len(s.cfg.Nodes)); all != 0; all = (all - 1) & first(len(s.cfg.Nodes)) {
				for e := range s.over(all, depth) {
					if s.seen[e.form] {
						continue
					}
					s.seen[e.form] = true
					if !yield(e.system) {
						return
					}
				}
			}
		}
	}
}

// over yields the expressions that name exactly the nodes of the set, with gates nested at most so deep.
func (s *searcher) over(set Set, depth int) iter.Seq[shape] {
	return func(yield func(shape) bool) {
		if set.Len() == 1 {
			i := lowest(set)
			yield(shape{system: Node(s.cfg.Nodes[i]), form: s.kinds[i]})
			return
		}
		if depth == 0 {
			return
		}
		s.partitions(set, nil, func(parts []Set) bool {
			return len(parts) < 2 || s.inputs(parts, nil, depth-1, yield)
		})
	}
}

// partitions calls f with every partition of the set; the first part holds its lowest node, and so on.
func (s *searcher) partitions(set Set, parts []Set, f func([]Set) bool) bool {
	if set == 0 {
		return f(parts)
	}
	head := Set(0).With(lowest(set))
	rest := set &^ head
	for others := Set(0); ; others = (others - rest) & rest {
		if !s.partitions(rest&^others, append(parts, head|others), f) {
			return false
		}
		if others == rest {
			return true
		}
	}
}

// inputs chooses an expression for each part and yields all gates over them.
func (s *searcher) inputs(parts []Set, chosen []shape, depth int, yield func(shape) bool) bool {
	if len(parts) > 0 {
		for e := range s.over(parts[0], depth) {
			if !s.inputs(parts[1:], append(chosen, e), depth, yield) {
				return false
			}
		}
		return true
	}
	systems, forms := make([]System, len(chosen)), make([]string, len(chosen))
	for i, e := range chosen {
		systems[i], forms[i] = e.system, e.form
	}
	slices.Sort(forms)
	for k := 1; k <= len(chosen); k++ {
		same := func(e shape) bool { // or of ors and and of ands are flat gates in disguise
			return e.need > 0 && (k == 1 && e.need == 1 || k == len(chosen) && e.need == e.inputs)
		}
		if slices.ContainsFunc(chosen, same) {
			continue
		}
		form := fmt.Sprintf("%d(%s)", k, strings.Join(forms, " "))
		if !yield(shape{Choose(k, systems...), form, k, len(chosen)}) {
			return false
		}
	}
	return true
}
