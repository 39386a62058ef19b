package consistency

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Sequential judges whether there is one order of all operations that the model allows and that keeps each client's
// program order, whatever the clock says (Lamport 1979). After an operation of unknown outcome its client's next ones
// may come before it: it may happen late.
//
// Keys cannot be judged alone (the model is not local), so that the search is harder than Linearizable's: it is meant
// for histories of some hundreds of operations, and for shrunk ones. Of registers with unique writes most violations
// are found without it.
func Sequential[S, In, Out any](ctx context.Context, h History[In, Out], m Model[S, In, Out]) (Result, error) {
	name := strings.TrimSpace("sequential " + m.Name)
	if err := m.check(); err != nil {
		return Result{Model: name}, err
	}
	if err := h.Validate(); err != nil {
		return Result{Model: name}, err
	}
	if m.refute != nil {
		if f, ok := m.refute(h); ok {
			return f.result(name), nil
		}
	}
	// What is linearizable is sequential, and the checker for that is fast.
	if f := linearizable(ctx, h, m.withDefaults()); f.verdict == Holds {
		return f.result(name), nil
	}
	s := newInterleaving(h, m.withDefaults())
	return s.run(ctx).result(name), nil
}

// interleaving looks for an order of all operations that keeps the threads: one for each client, and one for each
// operation of unknown outcome, which may come after what its client did before it. A node is how far each thread is,
// and the states of all keys.
type interleaving[S, In, Out any] struct {
	m       *Model[S, In, Out]
	h       History[In, Out]
	threads []thread
	keys    []int32 // of each operation: its key's number
	nkeys   int

	seen    memory[[]S]
	nodes   int
	deepest int // operations placed, at most
	blocked []int32
}

// thread is a line of operations; those of a lost one may be left out.
type thread struct {
	ops    []int32
	after  int  // the thread and ...
	behind int  // ... how many of its operations come before this one's
	lost   bool // holds one operation of unknown outcome
}

// place is a node.
type place[S any] struct {
	at     []int32 // of each thread: how many of its operations are placed
	states []S     // of each key
	next   []int   // threads to try, the best last
}

func newInterleaving[S, In, Out any](h History[In, Out], m *Model[S, In, Out]) *interleaving[S, In, Out] {
	s := &interleaving[S, In, Out]{m: m, h: h, keys: make([]int32, len(h))}
	numbers := make(map[string]int32)
	for i := range h {
		if m.Key == nil {
			continue
		}
		key := m.Key(h[i].In)
		n, ok := numbers[key]
		if !ok {
			n = int32(len(numbers))
			numbers[key] = n
		}
		s.keys[i] = n
	}
	s.nkeys = max(1, len(numbers))
	sessions := h.sessions()
	for _, client := range sortedKeys(sessions) {
		own := len(s.threads)
		s.threads = append(s.threads, thread{})
		for _, i := range sessions[client] {
			if !h[i].Unknown {
				s.threads[own].ops = append(s.threads[own].ops, i)
				continue
			}
			if m.ReadOnly(h[i].In, nil) {
				continue
			}
			s.threads = append(s.threads, thread{ops: []int32{i}, after: own, behind: len(s.threads[own].ops), lost: true})
		}
	}
	return s
}

func (s *interleaving[S, In, Out]) run(ctx context.Context) finding {
	words := (len(s.threads) + 1) / 2
	equal := func(a, b []S) bool { return slices.EqualFunc(a, b, s.m.Equal) }
	s.seen.init(words, equal, nil)
	first := place[S]{at: make([]int32, len(s.threads)), states: make([]S, s.nkeys)}
	for i := range first.states {
		first.states[i] = s.m.Init()
	}
	if s.absorb(&first) {
		return finding{verdict: Holds}
	}
	s.candidates(&first)
	stack := []place[S]{first}
	packed := make([]uint64, words)
	for len(stack) > 0 {
		if s.nodes++; s.nodes%256 == 0 && ctx.Err() != nil {
			return finding{reason: fmt.Sprintf("not decided in time: %d states of the search seen", s.nodes)}
		}
		top := &stack[len(stack)-1]
		if len(top.next) == 0 {
			stack = stack[:len(stack)-1]
			continue
		}
		t := top.next[len(top.next)-1]
		top.next = top.next[:len(top.next)-1]
		from := *top
		for _, next := range s.step(&from, t) {
			if s.absorb(&next) {
				return finding{verdict: Holds}
			}
			clear(packed)
			for i, at := range next.at {
				packed[i/2] |= uint64(at) << (i % 2 * 32)
			}
			if s.seen.add(0, packed, next.states) {
				s.candidates(&next)
				stack = append(stack, next)
			}
		}
	}
	return s.explain()
}

// step returns the nodes to which a thread's next operation leads.
func (s *interleaving[S, In, Out]) step(p *place[S], t int) (next []place[S]) {
	i := s.threads[t].ops[p.at[t]]
	op, key := &s.h[i], s.keys[i]
	var states []S
	if s.m.Step != nil {
		state, ok := s.m.Step(p.states[key], op.In, op.out())
		if !ok || op.Unknown && s.m.Equal(state, p.states[key]) {
			return nil
		}
		states = []S{state}
	} else {
		states = s.m.Choices(p.states[key], op.In, op.out())
	}
	for _, state := range states {
		q := place[S]{at: slices.Clone(p.at), states: slices.Clone(p.states)}
		q.at[t]++
		q.states[key] = state
		next = append(next, q)
	}
	return next
}

// absorb places every operation that can come next and changes nothing, and reports whether all are placed.
func (s *interleaving[S, In, Out]) absorb(p *place[S]) bool {
	for again := true; again; {
		again = false
		for t := range s.threads {
			th := &s.threads[t]
			for !th.lost && int(p.at[t]) < len(th.ops) {
				i := th.ops[p.at[t]]
				op := &s.h[i]
				if !s.m.ReadOnly(op.In, &op.Out) || !s.allows(p.states[s.keys[i]], op) {
					break
				}
				p.at[t]++
				again = true
			}
		}
	}
	placed, done := 0, true
	for t := range s.threads {
		placed += int(p.at[t])
		done = done && (s.threads[t].lost || int(p.at[t]) == len(s.threads[t].ops))
	}
	if placed > s.deepest || s.blocked == nil {
		s.deepest = placed
		s.blocked = slices.Clone(p.at)
	}
	return done
}

func (s *interleaving[S, In, Out]) allows(state S, op *Operation[In, Out]) bool {
	if s.m.Step != nil {
		_, ok := s.m.Step(state, op.In, &op.Out)
		return ok
	}
	return len(s.m.Choices(state, op.In, &op.Out)) > 0
}

// candidates lists the threads whose next operation may come now, those called first last, to be tried first: real
// time is a good guess.
func (s *interleaving[S, In, Out]) candidates(p *place[S]) {
	for t := range s.threads {
		th := &s.threads[t]
		if int(p.at[t]) == len(th.ops) || th.lost && int(p.at[th.after]) < th.behind {
			continue
		}
		if op := &s.h[th.ops[p.at[t]]]; !op.Unknown && s.m.ReadOnly(op.In, &op.Out) {
			continue // absorb would have placed it
		}
		p.next = append(p.next, t)
	}
	slices.SortFunc(p.next, func(a, b int) int {
		return int(s.h[s.threads[b].ops[p.at[b]]].Call - s.h[s.threads[a].ops[p.at[a]]].Call)
	})
}

// explain names the operations at which the search that came farthest stood.
func (s *interleaving[S, In, Out]) explain() finding {
	var heads []string
	var ops []int32
	for t, at := range s.blocked {
		th := &s.threads[t]
		ops = append(ops, th.ops...)
		if !th.lost && int(at) < len(th.ops) {
			heads = append(heads, sentence(s.h, th.ops[at], s.m))
		}
	}
	return violated("no order of the operations keeps each client's own; at best it ends before "+strings.Join(heads, " and "), ops...)
}
