package consistency

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// CausalConvergence judges whether clients see causality and would all come to the same state: there is one order of
// all writes, the same for everyone, that keeps causality, and each read returns the last write, by this order, of
// those that happened before it (Burckhardt 2014; the model CCv of Bouajjani et al. 2017, §5). It and Causal do not
// imply one another. See PRAM for what it needs.
func CausalConvergence[V comparable](ctx context.Context, h History[Access[V], Answer[V]], initial V) (Result, error) {
	const name = "causal convergence"
	if err := h.Validate(); err != nil {
		return Result{Model: name}, err
	}
	a, f := newAccesses(h, initial)
	if f != nil {
		return f.result(name), nil
	}
	if ctx.Err() != nil {
		return Result{Model: name, Reason: "not decided in time"}, nil
	}
	return a.converge().result(name), nil
}

// converge adds to causality what every read says about the order of the writes it saw: all come before the one it
// returned. Causality itself does not grow by it.
func (a *accesses[V]) converge() finding {
	o := a.causality()
	if !o.close() {
		nodes, edges := o.cycle()
		return a.explainOrder(o, nodes, edges)
	}
	agreed := newOrder(len(a.op))
	agreed.round = o.round
	for n := range o.next {
		agreed.next[n] = append(agreed.next[n], o.next[n]...)
	}
	for r := range a.op {
		from := a.from[r]
		if from == none {
			continue
		}
		for w := range a.writes[a.h[a.op[r]].In.Key].all() {
			switch {
			case w == from || !o.before[r].has(w):
			case from == initially:
				nodes, edges := o.path(w, int32(r), o.round)
				return a.explainInitial(o, int32(r), nodes, edges)
			default:
				agreed.add(w, from, byView, int32(r))
			}
		}
	}
	if !agreed.close() {
		nodes, edges := agreed.cycle()
		return a.explainOrder(agreed, nodes, edges)
	}
	return finding{verdict: Holds}
}

// explainOrder says why there is no one order of the writes for all.
func (a *accesses[V]) explainOrder(o *order, nodes []int32, edges []edge) finding {
	return violated("no one order of the operations fits all: "+a.chainOf(nodes, edges), a.culprits(o, nodes, edges)...)
}

// refuteSequential looks for a contradiction in what program order and the reads say about one order of everything:
// a write that comes before a read of another comes before that other, and one that comes after what a read returned
// comes after the read. It finds most violations without a search, but not all: to decide is NP-complete (Gibbons and
// Korach 1997, Theorem 4.9).
func refuteSequential[V comparable](h History[Access[V], Answer[V]], initial V) (finding, bool) {
	a, f := newAccesses(h, initial)
	if f != nil {
		return *f, f.verdict == Violated
	}
	o := a.causality()
	for r := range a.op {
		if a.from[r] != initially {
			continue
		}
		for w := range a.writes[a.h[a.op[r]].In.Key].all() {
			o.add(int32(r), w, byInitial, none)
		}
	}
	for {
		if !o.close() {
			nodes, edges := o.cycle()
			return a.explainOrder(o, nodes, edges), true
		}
		if !a.saturate(o) {
			return finding{}, false
		}
	}
}

// saturate adds what the reads say about the order of the writes, given what is known of it.
func (a *accesses[V]) saturate(o *order) (grown bool) {
	for n := range a.op {
		r, from := int32(n), a.from[n]
		if from < 0 {
			continue
		}
		for w := range a.writes[a.h[a.op[r]].In.Key].all() {
			switch {
			case w == from:
			case o.before[r].has(w) && !o.before[from].has(w):
				o.add(w, from, byView, r)
				grown = true
			case o.before[w].has(from) && !o.before[w].has(r):
				o.add(r, w, byOverwrite, from)
				grown = true
			}
		}
	}
	return grown
}

// Staleness bounds how old an answer may be; the zero value allows no staleness: linearizability.
type Staleness struct {
	Versions int           // how many newer versions a read may have missed
	Age      time.Duration // how long before the read's call its answer may have been replaced
}

// BoundedStaleness judges whether the registers are linearizable but for reads that return one of the newest
// Versions+1 values (k-atomicity, Aiyer, Alvisi and Bazzi 2005) or were answered as if they had been called Age
// earlier (Δ-atomicity, Golab, Li and Shah 2011). With unique writes and Versions 0 it takes O(n log n), else it
// searches as Linearizable does.
func BoundedStaleness[V comparable](ctx context.Context, h History[Access[V], Answer[V]], initial V, s Staleness) (Result, error) {
	name := fmt.Sprintf("staleness within %d versions and %v", s.Versions, s.Age)
	if s.Versions < 0 || s.Age < 0 {
		return Result{Model: name}, fmt.Errorf("consistency: Staleness %+v is negative", s)
	}
	if err := h.Validate(); err != nil {
		return Result{Model: name}, err
	}
	if s.Age > 0 {
		early := make(History[Access[V], Answer[V]], len(h))
		for i, op := range h {
			if op.In.Kind == Read {
				op.Call -= s.Age
			}
			op.Client = i // a read called so early overlaps its client's other operations
			early[i] = op
		}
		h = early
	}
	if s.Versions == 0 {
		m := CASRegister(initial)
		return linearizable(ctx, h, m.withDefaults()).result(name), nil
	}
	m := staleRegister(initial, s.Versions+1)
	return linearizable(ctx, h, m.withDefaults()).result(name), nil
}

// staleRegister is a register for each key whose state is its newest values, oldest first.
func staleRegister[V comparable](initial V, keep int) Model[[]V, Access[V], Answer[V]] {
	return Model[[]V, Access[V], Answer[V]]{
		Init:     func() []V { return []V{initial} },
		Equal:    slices.Equal[[]V],
		Key:      func(in Access[V]) string { return in.Key },
		ReadOnly: func(in Access[V], _ *Answer[V]) bool { return in.Kind == Read },
		Describe: describeAccess[V],
		Step: func(state []V, in Access[V], out *Answer[V]) ([]V, bool) {
			switch in.Kind {
			case Read:
				return state, out == nil || slices.Contains(state, out.Value)
			case Write:
				return pushNewest(state, in.Value, keep), true
			case CompareAndSet:
				// A compare-and-set reads the newest value: it writes, and writers know what they replace.
				swap := state[len(state)-1] == in.Old
				if out != nil && out.OK != swap {
					return state, false
				}
				if swap {
					return pushNewest(state, in.Value, keep), true
				}
				return state, true
			case Append:
			}
			return state, false
		},
	}
}

// pushNewest adds a value and forgets those beyond keep.
func pushNewest[V comparable](state []V, value V, keep int) []V {
	next := append(slices.Clone(state), value)
	return next[max(0, len(next)-keep):]
}

// EventualConvergence judges whether, for each key, all reads called at least settle after the last write had
// returned agree, on a value that was written (Vogels 2009). Writes of unknown outcome are not waited for, and may
// have happened. A history without such reads holds: it says nothing.
func EventualConvergence[V comparable](h History[Access[V], Answer[V]], initial V, settle time.Duration) (Result, error) {
	const name = "eventual convergence"
	if err := h.Validate(); err != nil {
		return Result{Model: name}, err
	}
	last := make(map[string]time.Duration)
	written := make(map[string]map[V]bool)
	for i := range h {
		op := &h[i]
		if op.In.Kind == Read {
			continue
		}
		if written[op.In.Key] == nil {
			written[op.In.Key] = make(map[V]bool)
		}
		written[op.In.Key][op.In.Value] = true
		if at, ok := last[op.In.Key]; !op.Unknown && (!ok || op.Return > at) {
			last[op.In.Key] = op.Return
		}
	}
	agreed := make(map[string]int32)
	for i := range h {
		op := &h[i]
		at, ok := last[op.In.Key]
		if op.In.Kind != Read || op.Unknown || ok && op.Call < at+settle {
			continue
		}
		if !written[op.In.Key][op.Out.Value] && (ok || op.Out.Value != initial) {
			return violated(fmt.Sprintf("%s, which was never written", opName(h, int32(i))), int32(i)).result(name), nil
		}
		first, seen := agreed[op.In.Key]
		if !seen {
			agreed[op.In.Key] = int32(i)
			continue
		}
		if h[first].Out.Value != op.Out.Value {
			return violated(fmt.Sprintf("%s, %s, and all writes had ended %v before", opName(h, first),
				opName(h, int32(i)), settle), first, int32(i)).result(name), nil
		}
	}
	return Result{Model: name, Verdict: Holds}, nil
}

// chainOf puts the reasons of a chain in one sentence.
func (a *accesses[V]) chainOf(nodes []int32, edges []edge) string {
	var parts []string
	for i, e := range edges {
		if text := a.because(a.real(nodes[i]), e); text != "" {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, "; ")
}
