// Package crdttest is the law suite of state-based CRDTs: what must hold for a type so that its replicas converge.
//
// Give Run a type, a few operations and what a reader sees, and it checks that merging is idempotent, commutative and
// associative; that a delta does what the whole state would do; that deltas which come late, twice, joined with others
// or lost and repaired end in the same state; that encodings round-trip; and that a merge leaves no memory shared. With
// a model, the slow and obvious definition of the type by its causal history (Burckhardt et al., "Replicated Data
// Types: Specification, Verification, Optimality", 2014), every state is also compared with what it should be, for
// every history of three replicas and four operations and for random longer ones.
//
// The types of package crdt pass it; use it for types of your own. It checks many cases, not all: it proves nothing.
package crdttest

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
)

// State is what a type must have: its pointer merges, copies and encodes. Equal states must have equal encodings.
type State[T any] interface {
	*T
	Merge(other T)
	Clone() T
	AppendBinary(b []byte) ([]byte, error)
	UnmarshalBinary(b []byte) error
}

// Op is one operation, with fixed arguments.
type Op[T any] struct {
	Name string
	// Do performs the operation at a replica and returns its delta. n is unique and grows with every operation in a
	// history: types that need timestamps make them of n and by.
	Do func(state *T, by coterie.NodeID, n int) (delta T)
}

// Event is one operation in a history.
type Event struct {
	N  int            // number in the order in which the operations were made, from 0
	By coterie.NodeID // the replica
	Op string         // its name
	// Past is what the replica had merged when it made this one. Deltas may come in any order, so that an event of
	// the past may be there without the past of its own.
	Past []Event
}

// Alive returns the events of a history that no other has overwritten. An event overwrites those that kills says it
// does and that were alive in its past: what a replica does not know, or knows to be gone, it does not touch.
func Alive(history []Event, kills func(by, victim Event) bool) (alive []Event) {
	for _, victim := range history {
		if isAlive(history, victim, kills) {
			alive = append(alive, victim)
		}
	}
	return alive
}

func isAlive(history []Event, victim Event, kills func(by, victim Event) bool) bool {
	for _, e := range history {
		if e.N <= victim.N || !kills(e, victim) {
			continue
		}
		for _, p := range e.Past {
			if p.N == victim.N && isAlive(e.Past, victim, kills) {
				return false
			}
		}
	}
	return true
}

// Suite describes a type. Ops and Value are required.
type Suite[T any] struct {
	Ops []Op[T]
	// Value is what a reader sees, compared by reflect.DeepEqual.
	Value func(state T) any
	// Model returns the Value that a replica must have that has merged exactly these events, in whatever order; they
	// are ordered by N. nil checks no such thing.
	Model func(history []Event) any
	// Small is how many of the Ops, the first ones, are used in the exhaustive test; default all, at most 3.
	Small int
}

var replicas = [...]coterie.NodeID{"a", "b", "c"}

// Run checks the laws. It makes at least 1,000 random checks, 100,000 if COTERIE_SOAK=1 is set, a tenth under the race
// detector.
func Run[T any, P State[T]](t *testing.T, s Suite[T]) {
	t.Helper()
	t.Run("random", func(t *testing.T) {
		testsize.Checks(t, 1000, 100_000)
		rapid.Check(t, func(t *rapid.T) {
			r := &run[T, P]{t: t, suite: s}
			r.play(rapid.IntRange(1, 12).Draw(t, "steps"))
			r.checkLaws()
			r.checkDelivery()
			r.checkEncoding()
			r.checkDiff()
		})
	})
	t.Run("aliasing", func(t *testing.T) {
		testsize.Checks(t, 200, 20_000)
		rapid.Check(t, func(t *rapid.T) {
			r := &run[T, P]{t: t, suite: s}
			r.play(rapid.IntRange(1, 8).Draw(t, "steps"))
			r.checkAliasing()
		})
	})
	if s.Model != nil {
		t.Run("exhaustive", func(t *testing.T) { exhaust[T, P](t, s) })
	}
}

// replica is a state and which events it has merged.
type replica[T any] struct {
	state  T
	merged []bool
}

// tester is what both testing.T and rapid.T are, as far as needed.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// run is one random history.
type run[T any, P State[T]] struct {
	t        *rapid.T
	suite    Suite[T]
	replicas [len(replicas)]replica[T]
	events   []Event
	deltas   []T
	states   []T // copies of states and deltas at random moments
}

func (r *run[T, P]) play(steps int) {
	for range steps {
		at := rapid.IntRange(0, len(replicas)-1).Draw(r.t, "replica")
		switch what := rapid.IntRange(0, 5).Draw(r.t, "step"); {
		case what < 3 || len(r.events) == 0:
			r.operate(at, rapid.IntRange(0, len(r.suite.Ops)-1).Draw(r.t, "op"))
		case what < 5:
			n := rapid.IntRange(0, len(r.events)-1).Draw(r.t, "delta")
			P(&r.replicas[at].state).Merge(r.deltas[n])
			mark(&r.replicas[at].merged, n)
		default:
			from := rapid.IntRange(0, len(replicas)-1).Draw(r.t, "from")
			P(&r.replicas[at].state).Merge(r.replicas[from].state)
			for n, merged := range r.replicas[from].merged {
				if merged {
					mark(&r.replicas[at].merged, n)
				}
			}
		}
		r.states = append(r.states, P(&r.replicas[at].state).Clone())
		r.checkModel(&r.replicas[at])
	}
}

func mark(set *[]bool, n int) {
	for len(*set) <= n {
		*set = append(*set, false)
	}
	(*set)[n] = true
}

// operate makes one operation, and checks that its delta does to the state before what the operation did.
func (r *run[T, P]) operate(at, op int) {
	n := len(r.events)
	to := &r.replicas[at]
	before := P(&to.state).Clone()
	delta := r.suite.Ops[op].Do(&to.state, replicas[at], n)
	P(&before).Merge(delta)
	r.equal("the state before merged with the delta, and the state after", before, to.state)
	r.events = append(r.events, Event{n, replicas[at], r.suite.Ops[op].Name, of(r.events, to.merged)})
	r.deltas = append(r.deltas, delta)
	r.states = append(r.states, P(&delta).Clone())
	mark(&to.merged, n)
}

func (r *run[T, P]) checkModel(at *replica[T]) {
	r.t.Helper()
	if r.suite.Model == nil {
		return
	}
	checkModel(r.t, r.suite, r.events, at.merged, at.state)
}

func checkModel[T any](t tester, s Suite[T], events []Event, merged []bool, state T) {
	t.Helper()
	history := of(events, merged)
	if got, want := s.Value(state), s.Model(history); !reflect.DeepEqual(got, want) {
		t.Fatalf("the value is %v, by the model %v\n%s", got, want, describe(history))
	}
}

// of returns the events that were merged.
func of(events []Event, merged []bool) (history []Event) {
	for n, e := range events {
		if n < len(merged) && merged[n] {
			history = append(history, e)
		}
	}
	return history
}

func describe(history []Event) string {
	var b bytes.Buffer
	for _, e := range history {
		fmt.Fprintf(&b, "  %d: %s at %s, which had merged", e.N, e.Op, e.By)
		for _, p := range e.Past {
			fmt.Fprintf(&b, " %d", p.N)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (r *run[T, P]) equal(what string, a, b T) {
	r.t.Helper()
	if x, y := encode[T, P](r.t, a), encode[T, P](r.t, b); !bytes.Equal(x, y) {
		r.t.Fatalf("%s differ: %v and %v\n%x\n%x\n%s", what, r.suite.Value(a), r.suite.Value(b), x, y, describe(r.events))
	}
}

func encode[T any, P State[T]](t tester, s T) []byte {
	t.Helper()
	b, err := P(&s).AppendBinary(nil)
	if err != nil {
		t.Fatalf("encoding: %v", err)
	}
	return b
}

func join[T any, P State[T]](states ...T) T {
	var s T
	for _, o := range states {
		P(&s).Merge(o)
	}
	return s
}

// checkLaws checks the laws of a semilattice.
func (r *run[T, P]) checkLaws() {
	pick := func(name string) T { return r.states[rapid.IntRange(0, len(r.states)-1).Draw(r.t, name)] }
	a, b, c := pick("a"), pick("b"), pick("c")
	r.equal("a and a merged with a", a, join[T, P](a, a, a))
	r.equal("a merged with b, and b with a", join[T, P](a, b), join[T, P](b, a))
	r.equal("(a b) c and a (b c)", join[T, P](join[T, P](a, b), c), join[T, P](a, join[T, P](b, c)))
	r.equal("a b and (a b) a", join[T, P](a, b), join[T, P](a, b, a))
}

// checkDelivery checks that every way of delivering the deltas ends in the same state.
func (r *run[T, P]) checkDelivery() {
	if len(r.deltas) == 0 {
		return
	}
	var all T
	for i := range r.replicas {
		P(&all).Merge(r.replicas[i].state)
	}
	var late, group T
	for i, n := range rapid.Permutation(indexes(len(r.deltas))).Draw(r.t, "order") {
		P(&late).Merge(r.deltas[n])
		if i%3 == 0 {
			P(&late).Merge(r.deltas[n]) // again
		}
		P(&group).Merge(r.deltas[n])
	}
	r.equal("all states, and all deltas in any order", all, late)
	r.equal("all states, and all deltas as one group", all, join[T, P](group))
	lost := rapid.IntRange(0, len(r.deltas)-1).Draw(r.t, "lost")
	var gap T
	for n, d := range r.deltas {
		if n != lost {
			P(&gap).Merge(d)
		}
	}
	P(&gap).Merge(r.deltas[lost])
	r.equal("all states, and all deltas with one repaired", all, gap)
	everything := make([]bool, len(r.events))
	for i := range everything {
		everything[i] = true
	}
	r.checkModel(&replica[T]{all, everything})
}

func indexes(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// checkEncoding checks that what was decoded is and behaves as what was encoded.
func (r *run[T, P]) checkEncoding() {
	a := r.states[rapid.IntRange(0, len(r.states)-1).Draw(r.t, "encoded")]
	b := r.states[rapid.IntRange(0, len(r.states)-1).Draw(r.t, "other")]
	wire := encode[T, P](r.t, a)
	var read T
	if err := P(&read).UnmarshalBinary(wire); err != nil {
		r.t.Fatalf("decoding what was encoded: %v", err)
	}
	for i := range wire {
		wire[i] ^= 0xff // what was decoded must not rest on the input
	}
	r.equal("a state and what was decoded of its encoding", a, read)
	r.equal("merging a state and what was decoded of it", join[T, P](b, a), join[T, P](b, read))
	r.equal("merging into a state and into what was decoded", join[T, P](a, b), join[T, P](read, b))
}

// differ is what a type has that tells by a digest what another state lacks.
type differ[T any] interface {
	AppendDigest(b []byte) ([]byte, error)
	Diff(digest []byte) (T, error)
}

// checkDiff checks, for a type with digests, that the difference does what the whole state would.
func (r *run[T, P]) checkDiff() {
	a := r.states[rapid.IntRange(0, len(r.states)-1).Draw(r.t, "digested")]
	b := r.states[rapid.IntRange(0, len(r.states)-1).Draw(r.t, "differing")]
	from, ok := any(&b).(differ[T])
	if !ok {
		return
	}
	digest, err := any(&a).(differ[T]).AppendDigest(nil)
	if err != nil {
		r.t.Fatalf("digest: %v", err)
	}
	diff, err := from.Diff(digest)
	if err != nil {
		r.t.Fatalf("difference: %v", err)
	}
	r.equal("a merged with b, and with what it lacks of b", join[T, P](a, b), join[T, P](a, diff))
}

// checkAliasing checks that after a merge, changes of one side are not seen in the other, nor in deltas or copies.
func (r *run[T, P]) checkAliasing() {
	before := make([][]byte, 0, len(r.deltas)+len(r.states)+1)
	kept := append(append([]T(nil), r.deltas...), r.states...)
	var into T
	for _, s := range kept {
		P(&into).Merge(s)
	}
	into = P(&into).Clone()
	other := join[T, P](into)
	kept = append(kept, into)
	for _, s := range kept {
		before = append(before, encode[T, P](r.t, s))
	}
	n := len(r.events)
	for i := range r.replicas {
		r.replicas[i].state = join[T, P](r.replicas[i].state, into)
	}
	for i := range 2 * len(r.suite.Ops) {
		op := r.suite.Ops[i%len(r.suite.Ops)]
		op.Do(&other, replicas[i%2], n+i)
		for at := range r.replicas {
			op.Do(&r.replicas[at].state, replicas[at], n+i)
		}
	}
	for i, s := range kept {
		if after := encode[T, P](r.t, s); !bytes.Equal(before[i], after) {
			r.t.Fatalf("a change of a state that merged it changed state %d: %x, was %x", i, after, before[i])
		}
	}
}

// exhaust checks the model for every history of three replicas and four operations in which each operation is made
// after any part of the earlier ones has been merged, in causal order or not.
func exhaust[T any, P State[T]](t *testing.T, s Suite[T]) {
	ops := min(len(s.Ops), 3)
	if s.Small > 0 {
		ops = min(s.Small, len(s.Ops))
	}
	x := &exhaustion[T, P]{t: t, suite: s, ops: s.Ops[:ops], skip: 1}
	if testsize.Race() && !testsize.Soak() {
		x.skip = 31 // a part of them
	}
	x.descend([len(replicas)]replica[T]{}, nil, nil, 0)
	t.Logf("%d histories", x.histories)
}

type exhaustion[T any, P State[T]] struct {
	t               *testing.T
	suite           Suite[T]
	ops             []Op[T]
	histories, skip int
}

const depth = 4

func (x *exhaustion[T, P]) descend(at [len(replicas)]replica[T], events []Event, deltas []T, used int) {
	n := len(events)
	if n == depth {
		if x.histories++; x.histories%x.skip == 0 {
			x.leaf(at, events, deltas)
		}
		return
	}
	// Replicas are alike, but for the order of their ids: the first to act is a.
	for by := range min(used+1, len(replicas)) {
		for mask := range 1 << n {
			if redundant(mask, at[by].merged) {
				continue
			}
			for _, op := range x.ops {
				next := at
				to := &next[by]
				to.state = P(&at[by].state).Clone()
				to.merged = append([]bool(nil), at[by].merged...)
				for m := range n {
					if mask>>m&1 == 1 {
						P(&to.state).Merge(deltas[m])
						mark(&to.merged, m)
					}
				}
				e := Event{n, replicas[by], op.Name, of(events, to.merged)}
				delta := op.Do(&to.state, replicas[by], n)
				mark(&to.merged, n)
				x.descend(next, append(events[:n:n], e), append(deltas[:n:n], delta), max(used, by+1))
			}
		}
	}
}

// redundant reports whether mask has an event that was merged already.
func redundant(mask int, merged []bool) bool {
	for n, m := range merged {
		if m && mask>>n&1 == 1 {
			return true
		}
	}
	return false
}

func (x *exhaustion[T, P]) leaf(at [len(replicas)]replica[T], events []Event, deltas []T) {
	x.t.Helper()
	for i := range at {
		checkModel(x.t, x.suite, events, at[i].merged, at[i].state)
	}
	all := []bool{true, true, true, true}
	checkModel(x.t, x.suite, events, all, join[T, P](at[0].state, at[1].state, at[2].state))
	checkModel(x.t, x.suite, events, all, join[T, P](at[2].state, at[1].state, at[0].state))
	checkModel(x.t, x.suite, events, all, join[T, P](deltas[3], deltas[1], deltas[2], deltas[0]))
}
