package consistency

import (
	"context"
	"fmt"
	"strings"
)

// Linearizable judges whether every operation can have taken effect at one moment between its call and its return,
// in one order that the model allows (Herlihy and Wing 1990). An operation of unknown outcome may have taken effect
// at any moment after its call, or never.
//
// Each key of the model is judged alone. A register whose writes are unique takes O(n log n) (Gibbons and Korach
// 1997); the rest is searched, in the worst case in time exponential in the number of operations under way at once.
// When ctx ends first the verdict is Unknown. The error is about a malformed history or model.
func Linearizable[S, In, Out any](ctx context.Context, h History[In, Out], m Model[S, In, Out]) (Result, error) {
	name := strings.TrimSpace("linearizable " + m.Name)
	if err := m.check(); err != nil {
		return Result{Model: name}, err
	}
	if err := h.Validate(); err != nil {
		return Result{Model: name}, err
	}
	return linearizable(ctx, h, m.withDefaults()).result(name), nil
}

// linearizable judges a valid history by a model with its defaults set.
func linearizable[S, In, Out any](ctx context.Context, h History[In, Out], m *Model[S, In, Out]) finding {
	undecided := finding{verdict: Holds}
	for _, ops := range partition(h, m) {
		f := linearizableKey(ctx, h, ops, m)
		switch f.verdict {
		case Violated:
			return f
		case Unknown:
			undecided = f // another key may still be found violated
		case Holds:
		}
	}
	return undecided
}

// linearizableKey judges the operations of one key.
func linearizableKey[S, In, Out any](ctx context.Context, h History[In, Out], ops []int32, m *Model[S, In, Out]) finding {
	h.sortByCall(ops)
	if m.decide != nil {
		if f, ok := m.decide(h, ops); ok {
			return f
		}
	}
	s := newSearch(h, ops, m, nil)
	switch s.run(ctx) {
	case Holds:
		return finding{verdict: Holds}
	case Violated:
		return finding{verdict: Violated, ops: s.culprits(), reason: s.explain()}
	case Unknown:
	}
	return finding{reason: fmt.Sprintf("not decided in time: %d states of the search seen, %d of %d answers explained",
		s.nodes, s.deepest, len(s.returns))}
}

// partition splits the operations by the model's key, in order of each key's first appearance.
func partition[S, In, Out any](h History[In, Out], m *Model[S, In, Out]) [][]int32 {
	if m.Key == nil {
		all := make([]int32, len(h))
		for i := range all {
			all[i] = int32(i)
		}
		return [][]int32{all}
	}
	index := make(map[string]int)
	var parts [][]int32
	for i := range h {
		key := m.Key(h[i].In)
		p, ok := index[key]
		if !ok {
			p = len(parts)
			index[key] = p
			parts = append(parts, nil)
		}
		parts[p] = append(parts[p], int32(i))
	}
	return parts
}
