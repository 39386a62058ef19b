package consistency

import (
	"context"
	"fmt"
	"math/bits"
)

// Check is one of the models of what clients of registers see: Causal, PRAM, ReadYourWrites and so on.
type Check[V comparable] func(ctx context.Context, h History[Access[V], Answer[V]], initial V) (Result, error)

// PRAM judges whether each client sees the writes of every other in the order in which they were made (Lipton and
// Sandberg 1988): for each client there is one order of all writes and its own reads that keeps every client's
// program order and in which each read returns the latest write. Two clients may see two orders.
//
// It and the other models of what clients see need registers whose writes are unique, else the verdict is Unknown.
// They take memory of n²/8 bytes for n operations: 12 MB for 10,000.
func PRAM[V comparable](ctx context.Context, h History[Access[V], Answer[V]], initial V) (Result, error) {
	return judgeViews(ctx, "PRAM", h, initial, func(a *accesses[V], me int) *order {
		o := newOrder(len(a.op))
		a.chainWrites(o)
		o.chain(a.sessions[me])
		for _, lost := range a.lost {
			if lost[1] != none && a.sameClient(lost[1], a.sessions[me][0]) {
				o.add(lost[1], lost[0], byClient, none)
			}
		}
		a.linkReads(o, me)
		return o
	})
}

// Causal judges causal memory (Ahamad et al. 1995): for each client there is one order of all writes and its own
// reads that keeps causality, in which each read returns the latest write. One operation causes another if it comes
// before it at the same client, or was read by it, or through others.
//
// Its test is Bouajjani et al. 2017, On Verifying Causal Consistency, §6: the model they call CM. See PRAM for what
// it needs.
func Causal[V comparable](ctx context.Context, h History[Access[V], Answer[V]], initial V) (Result, error) {
	return judgeViews(ctx, "causal", h, initial, func(a *accesses[V], _ int) *order { return a.causality() })
}

// ReadYourWrites judges whether each client's reads see its own writes before them (Terry et al. 1994).
//
// The session guarantees are judged by views too: for each client there must be an order of all writes and its own
// reads in which each read returns the latest write. In all of them a client's writes of one key stay in its order;
// this one also keeps the client's reads after its own writes.
func ReadYourWrites[V comparable](ctx context.Context, h History[Access[V], Answer[V]], initial V) (Result, error) {
	return judgeViews(ctx, "read your writes", h, initial, func(a *accesses[V], me int) *order {
		o := newOrder(len(a.op))
		a.chainKeys(o)
		last := none
		for _, n := range a.sessions[me] {
			if last != none {
				o.add(last, n, byClient, none)
			}
			if !a.isRead(n) {
				last = n
			}
		}
		a.linkReads(o, me)
		return o
	})
}

// MonotonicReads judges whether each client's reads never go back to an older version (Terry et al. 1994): the view
// keeps the client's reads in order. See ReadYourWrites for what a view is.
func MonotonicReads[V comparable](ctx context.Context, h History[Access[V], Answer[V]], initial V) (Result, error) {
	return judgeViews(ctx, "monotonic reads", h, initial, func(a *accesses[V], me int) *order {
		o := newOrder(len(a.op))
		a.chainKeys(o)
		o.chain(a.readsOf(me))
		a.linkReads(o, me)
		return o
	})
}

// MonotonicWrites judges whether the writes of each client are seen in its order, also on different keys (Terry et
// al. 1994), by clients whose reads are monotonic. See ReadYourWrites for what a view is.
func MonotonicWrites[V comparable](ctx context.Context, h History[Access[V], Answer[V]], initial V) (Result, error) {
	return judgeViews(ctx, "monotonic writes", h, initial, func(a *accesses[V], me int) *order {
		o := newOrder(len(a.op))
		a.chainWrites(o)
		o.chain(a.readsOf(me))
		a.linkReads(o, me)
		return o
	})
}

// WritesFollowReads judges whether a write is seen after the writes that its client had read before it made it
// (Terry et al. 1994), by clients whose reads are monotonic. See ReadYourWrites for what a view is.
func WritesFollowReads[V comparable](ctx context.Context, h History[Access[V], Answer[V]], initial V) (Result, error) {
	return judgeViews(ctx, "writes follow reads", h, initial, func(a *accesses[V], me int) *order {
		// Node n+i stands for what the client had read when it came to node i.
		n := int32(len(a.op))
		o := newOrder(int(2 * n))
		a.chainKeys(o)
		o.chain(a.readsOf(me))
		a.linkReads(o, me)
		follow := func(before, node int32) {
			if before != none {
				o.add(n+before, n+node, byFollow, none)
			}
			if from := a.from[node]; from >= 0 {
				o.add(from, n+node, byFollow, node)
			} else if from == none {
				o.add(n+node, node, byFollow, none)
			}
		}
		for _, session := range a.sessions {
			before := none
			for _, node := range session {
				follow(before, node)
				before = node
			}
		}
		for _, lost := range a.lost {
			follow(lost[1], lost[0])
		}
		return o
	})
}

// chainWrites keeps each client's writes in order.
func (a *accesses[V]) chainWrites(o *order) {
	for _, session := range a.sessions {
		last := none
		for _, n := range session {
			if a.isRead(n) {
				continue
			}
			if last != none {
				o.add(last, n, byClient, none)
			}
			last = n
		}
	}
	for _, lost := range a.lost {
		if w := a.writeBefore(lost); w != none {
			o.add(w, lost[0], byClient, none)
		}
	}
}

// chainKeys keeps each client's writes of one key in order.
func (a *accesses[V]) chainKeys(o *order) {
	for _, session := range a.sessions {
		last := make(map[string]int32)
		for _, n := range session {
			if a.isRead(n) {
				continue
			}
			key := a.h[a.op[n]].In.Key
			if before, ok := last[key]; ok {
				o.add(before, n, byClient, none)
			}
			last[key] = n
		}
	}
	for _, lost := range a.lost {
		key := a.h[a.op[lost[0]]].In.Key
		for n := lost[1]; n != none && a.sameClient(n, lost[0]); n-- {
			if !a.isRead(n) && a.h[a.op[n]].In.Key == key && !a.h[a.op[n]].Unknown {
				o.add(n, lost[0], byClient, none)
				break
			}
		}
	}
}

// writeBefore returns the newest write of a lost write's client before it.
func (a *accesses[V]) writeBefore(lost [2]int32) int32 {
	for n := lost[1]; n >= 0 && a.sameClient(n, lost[0]); n-- {
		if !a.isRead(n) && !a.h[a.op[n]].Unknown {
			return n
		}
	}
	return none
}

func (a *accesses[V]) sameClient(m, n int32) bool { return a.h[a.op[m]].Client == a.h[a.op[n]].Client }

// linkReads puts each of a client's reads after the write it read.
func (a *accesses[V]) linkReads(o *order, client int) {
	for _, n := range a.sessions[client] {
		if a.from[n] >= 0 {
			o.add(a.from[n], n, byRead, none)
		}
	}
}

func (a *accesses[V]) readsOf(client int) (reads []int32) {
	for _, n := range a.sessions[client] {
		if a.isRead(n) {
			reads = append(reads, n)
		}
	}
	return reads
}

// causality is program order and who read whom.
func (a *accesses[V]) causality() *order {
	o := newOrder(len(a.op))
	for client, session := range a.sessions {
		o.chain(session)
		a.linkReads(o, client)
	}
	for _, lost := range a.lost {
		if lost[1] != none {
			o.add(lost[1], lost[0], byClient, none)
		}
	}
	return o
}

// judgeViews judges each client by the order that a view of it must keep.
func judgeViews[V comparable](ctx context.Context, name string, h History[Access[V], Answer[V]], initial V,
	base func(a *accesses[V], client int) *order,
) (Result, error) {
	if err := h.Validate(); err != nil {
		return Result{Model: name}, err
	}
	a, f := newAccesses(h, initial)
	if f != nil {
		return f.result(name), nil
	}
	for client := range a.sessions {
		if ctx.Err() != nil {
			return Result{Model: name, Reason: "not decided in time"}, nil
		}
		if len(a.readsOf(client)) == 0 {
			continue // it saw nothing
		}
		if f := a.view(base(a, client), client); f.verdict != Holds {
			return f.result(name), nil
		}
	}
	return Result{Model: name, Verdict: Holds}, nil
}

// view judges whether there is an order of all writes and a client's reads that keeps o, in which each read returns
// the latest write. A write that comes before a read must come before the write that it read: what follows from this
// is added to o until nothing more does. Then a view exists unless there is a cycle (Bouajjani et al. 2017, Lemma 3):
// for the reads are in a line or, in ReadYourWrites, come before nothing.
func (a *accesses[V]) view(o *order, client int) finding {
	reads := a.readsOf(client)
	for {
		if !o.close() {
			nodes, edges := o.cycle()
			return a.explainCycle(o, client, nodes, edges)
		}
		grown := false
		for _, r := range reads {
			from := a.from[r]
			writes := a.writes[a.h[a.op[r]].In.Key]
			for i, w := range writes {
				if w &= o.before[r][i]; from >= 0 {
					w &^= o.before[from][i]
				}
				for ; w != 0; w &= w - 1 {
					other := int32(i<<6 + bits.TrailingZeros64(w))
					if other == from {
						continue
					}
					if from == initially {
						nodes, edges := o.path(other, r, o.round)
						return a.explainInitial(o, r, nodes, edges)
					}
					o.add(other, from, byView, r)
					grown = true
				}
			}
		}
		if !grown {
			return finding{verdict: Holds}
		}
	}
}

// explainCycle says why no view exists: each operation of the cycle had to come before the next.
func (a *accesses[V]) explainCycle(o *order, client int, nodes []int32, edges []edge) finding {
	who := a.h[a.op[a.sessions[client][0]]].Client
	return violated(fmt.Sprintf("client %d cannot have seen the writes in one order: %s", who, a.chainOf(nodes, edges)),
		a.culprits(o, nodes, edges)...)
}

// explainInitial says why a read should not have returned the initial value.
func (a *accesses[V]) explainInitial(o *order, read int32, nodes []int32, edges []edge) finding {
	return violated(fmt.Sprintf("%s, the initial value, though a write of %s had happened before it: %s",
		opName(a.h, a.op[read]), a.keyName(read), a.chainOf(nodes, edges)), a.culprits(o, nodes, edges)...)
}

func (a *accesses[V]) keyName(n int32) string {
	if key := a.h[a.op[n]].In.Key; key != "" {
		return key
	}
	return "the register"
}

// real maps a node of what a client had read to the operation it stands for.
func (a *accesses[V]) real(n int32) int32 { return n % int32(len(a.op)) }

// culprits are the operations of a chain and those from which its links follow.
func (a *accesses[V]) culprits(o *order, nodes []int32, edges []edge) (ops []int32) {
	type link struct {
		from int32
		edge edge
	}
	done := make(map[link]bool)
	var collect func(nodes []int32, edges []edge)
	collect = func(nodes []int32, edges []edge) {
		for i, n := range nodes {
			e := edges[i]
			if done[link{n, e}] {
				continue
			}
			done[link{n, e}] = true
			ops = append(ops, a.op[a.real(n)], a.op[a.real(e.to)])
			if e.read >= 0 {
				ops = append(ops, a.op[e.read])
			}
			switch e.why {
			case byView:
				collect(o.path(n, e.read, e.round))
			case byOverwrite:
				collect(o.path(e.read, e.to, e.round))
			case byClient, byRead, byFollow, byInitial:
			}
		}
	}
	collect(nodes, edges)
	return a.withWrites(ops)
}

// withWrites adds the writes that reads among the operations have read: without them the reads would be of nothing.
func (a *accesses[V]) withWrites(ops []int32) []int32 {
	some := make(map[int32]bool, len(ops))
	for _, i := range ops {
		some[i] = true
	}
	for n, i := range a.op {
		if some[i] && a.from[n] >= 0 {
			ops = append(ops, a.op[a.from[n]])
		}
	}
	return ops
}

// because says why one operation comes before another.
func (a *accesses[V]) because(from int32, e edge) string {
	to := a.real(e.to)
	first, second := a.short(from), a.short(to)
	switch {
	case from == to:
		return ""
	case e.why == byClient:
		return fmt.Sprintf("%s before %s, as client %d did them", first, second, a.h[a.op[to]].Client)
	case e.why == byRead:
		return fmt.Sprintf("%s before %s, which read it", first, second)
	case e.why == byInitial:
		return fmt.Sprintf("%s, the initial value, before %s", first, second)
	case e.why == byOverwrite:
		return fmt.Sprintf("%s before %s, which replaced what it read", first, second)
	case e.why == byFollow && e.read >= 0:
		return fmt.Sprintf("client %d had read %s in %s", a.h[a.op[to]].Client, first, a.short(e.read))
	case e.why == byFollow:
		return fmt.Sprintf("%s before %s, at the same client", first, second)
	}
	return fmt.Sprintf("%s before %s, for it had happened when %s did not return it", first, second, a.short(e.read))
}

// short names an operation: "read 3 of x=1".
func (a *accesses[V]) short(n int32) string {
	op := &a.h[a.op[n]]
	if a.isRead(n) {
		return fmt.Sprintf("read %d of %s", a.op[n], assign(op.In.Key, op.Out.Value))
	}
	return fmt.Sprintf("write %d of %s", a.op[n], assign(op.In.Key, op.In.Value))
}
