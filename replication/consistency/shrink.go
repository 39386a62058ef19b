package consistency

import (
	"context"
	"slices"
	"strings"
)

// Shrink judges as Linearizable does and, of a violation, finds few operations that alone show it: Ops cannot do
// without any one of them, and Reason is about them. Operations left out are not taken to be undone, which would
// make a violation out of nothing when a read's write goes: they may have happened in their time, with any answer, or
// not. Registers with unique writes lose a write together with all its reads.
//
// When ctx ends first the result holds what was reached by then.
func Shrink[S, In, Out any](ctx context.Context, h History[In, Out], m Model[S, In, Out]) (Result, error) {
	r, err := Linearizable(ctx, h, m)
	if err != nil || r.Verdict != Violated {
		return r, err
	}
	r.Ops = slices.Sorted(slices.Values(r.Ops))
	model := m.withDefaults()
	var kept []int
	var reason string
	if units := clusters(h, r.Ops, model); units != nil {
		judge := func(keep []int) finding { return linearizableKey(ctx, h, narrow(keep), model) }
		kept = minimize(ctx, r.Ops, units, func(keep []int) bool { return judge(keep).verdict == Violated })
		reason = judge(kept).reason
	} else {
		violated := func(keep []int) bool {
			found, why := violatedEvenIf(ctx, h, keep, r.Ops, model)
			if found {
				reason = why
			}
			return found
		}
		kept = minimize(ctx, r.Ops, nil, violated)
	}
	if reason != "" {
		r.Reason = reason
	}
	slices.Sort(kept)
	r.Ops = kept
	return r, nil
}

// shrinkWork bounds a check in Shrink, in operations looked at: one that takes longer counts as no violation.
const shrinkWork = 1 << 20

// violatedEvenIf reports whether the kept operations contradict each other, whether the others happened in their time
// or not at all, and why.
func violatedEvenIf[S, In, Out any](ctx context.Context, h History[In, Out], keep, all []int, m *Model[S, In, Out]) (bool, string) {
	maybe := make([]bool, len(h))
	for _, i := range all {
		maybe[i] = true
	}
	for _, i := range keep {
		maybe[i] = false
	}
	ops := narrow(all)
	h.sortByCall(ops)
	s := newSearch(h, ops, m, maybe)
	s.limit = shrinkWork / (len(s.at) + 1)
	if s.run(ctx) != Violated {
		return false, ""
	}
	return true, s.explain()
}

// clusters returns, for registers with unique writes, what may go together: each write with its reads, and each read
// alone. It returns nil for other models.
func clusters[S, In, Out any](h History[In, Out], ops []int, m *Model[S, In, Out]) [][]int {
	if m.clusters == nil {
		return nil
	}
	return m.clusters(h, ops)
}

// registerClusters is Model.clusters of registers.
func registerClusters[V comparable](h History[Access[V], Answer[V]], ops []int) [][]int {
	of := make(map[version[V]]int)
	var units [][]int
	for _, i := range ops {
		op := &h[i]
		switch op.In.Kind {
		case Read:
			continue
		case Write:
		case CompareAndSet, Append:
			return nil
		}
		v := version[V]{op.In.Key, op.In.Value}
		if _, ok := of[v]; ok {
			return nil
		}
		of[v] = len(units)
		units = append(units, []int{i})
	}
	for _, i := range ops {
		op := &h[i]
		if op.In.Kind != Read {
			continue
		}
		if u, ok := of[version[V]{op.In.Key, op.Out.Value}]; ok && !op.Unknown {
			units[u] = append(units[u], i)
		}
		units = append(units, []int{i})
	}
	return units
}

// ShrinkBy returns the indices of few operations for which violated still reports true, as it must for all of h: it
// reports false if any one more is left out. See ShrinkAccesses for registers.
func ShrinkBy[In, Out any](ctx context.Context, h History[In, Out], violated func(History[In, Out]) bool) []int {
	return minimize(ctx, allOps(len(h)), nil, func(keep []int) bool { return violated(h.Pick(keep)) })
}

// ShrinkAccesses judges registers with unique writes by a check such as Causal and, of a violation, finds few
// operations that alone show it, as Shrink does: a write is left out with all its reads, so that no read is left of
// what then nobody wrote. Where writes are not unique, or there are other operations, nothing is left out.
func ShrinkAccesses[V comparable](ctx context.Context, h History[Access[V], Answer[V]], initial V, check Check[V]) (Result, error) {
	result, err := check(ctx, h, initial)
	if err != nil || result.Verdict != Violated || registerClusters(h, allOps(len(h))) == nil {
		return result, err
	}
	violated := func(keep []int) bool {
		r, err := check(ctx, only(h, keep), initial)
		if err != nil || r.Verdict != Violated {
			return false
		}
		result = r
		return true
	}
	all := allOps(len(h))
	if first := result.Ops; violated(first) { // the culprits are most of the way
		all = first
	}
	kept := minimize(ctx, all, registerClusters(h, all), violated)
	slices.Sort(kept)
	result.Ops = kept
	return result, nil
}

// ShrinkTxns judges transactions by ListAppend or ReadWrite and, unless they are strictly serializable, finds few that
// alone show the first anomaly and no others of the rest: their indices, and the result about them.
func ShrinkTxns(ctx context.Context, h TxnHistory,
	judge func(context.Context, TxnHistory) (TxnResult, error),
) (TxnResult, []int, error) {
	result, err := judge(ctx, h)
	if err != nil || len(result.Anomalies) == 0 {
		return result, nil, err
	}
	first, kinds := result.Anomalies[0].Kind, make(map[AnomalyKind]bool)
	for _, a := range result.Anomalies {
		kinds[a.Kind] = true
	}
	kept := minimize(ctx, allOps(len(h)), nil, func(keep []int) bool {
		some := make(TxnHistory, len(h)) // the others are empty and of unknown outcome, which says nothing
		for i := range h {
			some[i] = Operation[[]TxnOp, TxnOut]{Client: h[i].Client, Call: h[i].Call, Unknown: true}
		}
		for _, i := range keep {
			some[i] = h[i]
		}
		r, err := judge(ctx, some)
		if err != nil || len(r.Anomalies) == 0 || r.Anomalies[0].Kind != first {
			return false
		}
		for _, a := range r.Anomalies {
			if !kinds[a.Kind] {
				return false // such as a read of what nobody then wrote
			}
		}
		result = r
		return true
	})
	return result, kept, nil
}

// only returns a history in which all operations but some are reads of unknown outcome, which say nothing: so every
// operation keeps its index.
func only[V comparable](h History[Access[V], Answer[V]], ops []int) History[Access[V], Answer[V]] {
	some := make(History[Access[V], Answer[V]], len(h))
	for i := range h {
		some[i] = Operation[Access[V], Answer[V]]{Client: h[i].Client, Call: h[i].Call, Unknown: true}
	}
	for _, i := range ops {
		some[i] = h[i]
	}
	return some
}

// allOps returns the numbers below n.
func allOps(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// minimize leaves out units of all, many at once and then one by one, as long as test holds for the rest (Zeller and
// Hildebrandt 2002, without its complements: the last round makes it minimal all the same). Units nil is each alone.
func minimize(ctx context.Context, all []int, units [][]int, test func(keep []int) bool) []int {
	if units == nil {
		for _, i := range all {
			units = append(units, []int{i})
		}
	}
	keep := slices.Clone(all)
	for size := max(1, len(units)/2); ; {
		removed := false
		for at := 0; at < len(units) && ctx.Err() == nil; {
			chunk := units[at:min(at+size, len(units))]
			without := remove(keep, chunk)
			if len(without) == len(keep) || !test(without) {
				at += size
				continue
			}
			keep, removed = without, true
			units = slices.Delete(units, at, min(at+size, len(units)))
		}
		switch {
		case ctx.Err() != nil || size == 1 && !removed:
			return keep
		case size > 1:
			size /= 2
		}
	}
}

// remove returns keep without the members of units.
func remove(keep []int, units [][]int) []int {
	gone := make(map[int]bool)
	for _, unit := range units {
		for _, i := range unit {
			gone[i] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(keep), func(i int) bool { return gone[i] })
}

func narrow(ops []int) []int32 {
	n := make([]int32, len(ops))
	for i, op := range ops {
		n[i] = int32(op)
	}
	return n
}

// Lines lists operations, one on a line, numbered by their indices.
func Lines[S, In, Out any](h History[In, Out], ops []int, m Model[S, In, Out]) string {
	model := m.withDefaults()
	var b strings.Builder
	for _, i := range ops {
		b.WriteString(line(h, i, model))
		b.WriteByte('\n')
	}
	return b.String()
}
