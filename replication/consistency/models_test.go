package consistency

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie/internal/testsize"
)

// op is an operation from call to ret.
func op[In, Out any](client int, call, ret time.Duration, in In, out Out) Operation[In, Out] {
	return Operation[In, Out]{Client: client, In: in, Out: out, Call: call, Return: ret}
}

// lostOp is an operation of unknown outcome.
func lostOp[In, Out any](client int, call time.Duration, in In, _ Out) Operation[In, Out] {
	return Operation[In, Out]{Client: client, In: in, Call: call, Unknown: true}
}

// judge requires a verdict.
func judge[S, In, Out any](t *testing.T, want Verdict, m Model[S, In, Out], h ...Operation[In, Out]) {
	t.Helper()
	r := mustLinearizable(t, History[In, Out](h), m)
	require.Equal(t, want, r.Verdict, "%v", r)
	if want == Violated {
		require.NotContains(t, r.Reason, "%!")
		small, err := Shrink(t.Context(), History[In, Out](h), m)
		require.NoError(t, err)
		require.LessOrEqual(t, len(small.Ops), len(h))
	}
}

func TestCounter(t *testing.T) {
	add := func(d int64) CounterIn { return CounterIn{Kind: CounterAdd, Delta: d} }
	get := func(d int64) CounterIn { return CounterIn{Kind: CounterAddGet, Delta: d} }
	judge(t, Holds, Counter(), op(0, 0, 9, add(2), int64(0)), op(1, 0, 9, get(3), int64(3)), op(2, 10, 11, CounterIn{}, int64(5)))
	judge(t, Violated, Counter(), op(0, 0, 3, get(1), int64(1)), op(1, 0, 3, get(1), int64(1)))
	judge(t, Holds, Counter(), lostOp(0, 0, add(2), int64(0)), op(1, 1, 2, CounterIn{}, int64(0)), op(1, 3, 4, CounterIn{}, int64(2)))
	judge(t, Violated, Counter(), lostOp(0, 0, add(2), int64(0)), op(1, 1, 2, CounterIn{}, int64(2)), op(1, 3, 4, CounterIn{}, int64(0)))
}

func TestSet(t *testing.T) {
	add, remove, has := SetIn[int]{SetAdd, 7}, SetIn[int]{SetRemove, 7}, SetIn[int]{SetContains, 7}
	yes, no := SetOut[int]{OK: true}, SetOut[int]{}
	m := Set[int]()
	judge(t, Holds, m, op(0, 0, 1, add, yes), op(0, 2, 3, add, no), op(0, 4, 5, has, yes), op(0, 6, 7, remove, yes), op(0, 8, 9, remove, no))
	judge(t, Holds, m, op(0, 0, 1, add, yes), op(0, 1, 2, SetIn[int]{SetAdd, 3}, yes),
		op(0, 2, 3, SetIn[int]{Kind: SetElements}, SetOut[int]{Elems: []int{7, 3}}))
	judge(t, Violated, m, op(0, 0, 9, add, yes), op(1, 0, 9, add, yes))
	judge(t, Violated, m, op(0, 0, 1, add, yes), op(0, 2, 3, SetIn[int]{Kind: SetElements}, no))
	judge(t, Violated, m, op(0, 0, 1, has, yes))
}

func TestQueue(t *testing.T) {
	put := func(v int) QueueIn[int] { return QueueIn[int]{Enqueue: true, Value: v} }
	got := func(v int) QueueOut[int] { return QueueOut[int]{Value: v, OK: true} }
	var take QueueIn[int]
	var none QueueOut[int]
	m := Queue[int]()
	// Herlihy and Wing 1990, fig. 1: (a) and (c) are linearizable, (b) is not.
	judge(t, Holds, m, op(0, 0, 3, put(1), none), op(1, 1, 4, put(2), none), op(1, 5, 6, take, got(1)), op(0, 5, 8, take, got(2)))
	judge(t, Violated, m, op(0, 0, 1, put(1), none), op(1, 2, 3, put(2), none), op(0, 4, 5, take, got(2)))
	judge(t, Holds, m, op(0, 0, 5, put(1), none), op(1, 1, 2, take, got(1)))
	judge(t, Violated, m, op(0, 0, 3, put(1), none), op(0, 4, 5, take, got(1)), op(1, 4, 5, take, got(1)))
	judge(t, Holds, m, op(0, 0, 1, take, none))
	judge(t, Violated, m, op(0, 0, 1, put(1), none), op(0, 2, 3, take, none))
	judge(t, Holds, m, op(0, 0, 1, put(1), none), lostOp(0, 2, take, none), op(1, 3, 4, take, none))
}

func TestMutex(t *testing.T) {
	acquire, held := MutexIn{}, func(token uint64) MutexOut { return MutexOut{OK: true, Token: token} }
	release := func(token uint64) MutexIn { return MutexIn{MutexRelease, token} }
	fence := func(token uint64) MutexIn { return MutexIn{MutexFence, token} }
	yes, no := MutexOut{OK: true}, MutexOut{}
	judge(t, Holds, Mutex(), op(0, 0, 1, acquire, held(1)), op(1, 0, 9, acquire, held(5)), op(0, 2, 3, release(1), yes))
	for _, test := range []struct {
		mutex, leased Verdict
		h             []Operation[MutexIn, MutexOut]
	}{
		{Violated, Holds, []Operation[MutexIn, MutexOut]{op(0, 0, 1, acquire, held(1)), op(1, 2, 3, acquire, held(2))}},
		{Violated, Violated, []Operation[MutexIn, MutexOut]{op(0, 0, 1, acquire, held(2)), op(0, 2, 3, release(2), yes), op(1, 4, 5, acquire, held(2))}},
		{Holds, Holds, []Operation[MutexIn, MutexOut]{op(0, 0, 1, acquire, held(1)), op(1, 2, 3, acquire, no)}},
		{Violated, Holds, []Operation[MutexIn, MutexOut]{op(0, 0, 1, acquire, held(1)), op(0, 2, 3, release(1), no)}},
		{Violated, Violated, []Operation[MutexIn, MutexOut]{op(0, 0, 1, release(1), yes)}},
		{Holds, Holds, []Operation[MutexIn, MutexOut]{op(0, 0, 1, fence(3), yes), op(1, 2, 3, fence(2), no), op(1, 4, 5, fence(3), yes)}},
		{Violated, Violated, []Operation[MutexIn, MutexOut]{op(0, 0, 1, fence(3), yes), op(1, 2, 3, fence(2), yes)}},
		{Holds, Holds, []Operation[MutexIn, MutexOut]{lostOp(0, 0, acquire, no), op(1, 2, 3, acquire, held(1))}},
		{Violated, Holds, []Operation[MutexIn, MutexOut]{op(0, 0, 1, acquire, held(1)), lostOp(0, 2, acquire, no), op(1, 3, 4, acquire, held(2))}},
	} {
		judge(t, test.mutex, Mutex(), test.h...)
		judge(t, test.leased, LeasedMutex(), test.h...)
	}
}

func TestBank(t *testing.T) {
	m := Bank(10, 0)
	move := func(n int64) BankIn { return BankIn{From: 0, To: 1, Amount: n} }
	total := func(a, b int64) BankOut { return BankOut{Balances: []int64{a, b}} }
	judge(t, Holds, m, op(0, 0, 5, move(4), BankOut{OK: true}), op(1, 0, 5, BankIn{}, total(10, 0)), op(1, 6, 7, BankIn{}, total(6, 4)))
	judge(t, Violated, m, op(0, 0, 5, move(4), BankOut{OK: true}), op(1, 0, 5, BankIn{}, total(6, 0)))
	judge(t, Violated, m, op(0, 0, 5, move(8), BankOut{OK: true}), op(1, 0, 5, move(8), BankOut{OK: true}))
	judge(t, Holds, m, op(0, 0, 5, move(8), BankOut{OK: true}), op(1, 0, 5, move(8), BankOut{}))
	judge(t, Holds, m, op(0, 0, 5, BankIn{From: 9, Amount: 1}, BankOut{}))
	judge(t, Violated, m, op(0, 0, 5, BankIn{From: -1, Amount: 1}, BankOut{OK: true}))
}

func TestMultiRegister(t *testing.T) {
	write := func(k string, v int) Access[int] { return Access[int]{Kind: Write, Key: k, Value: v} }
	read := func(k string) Access[int] { return Access[int]{Key: k} }
	m := MultiRegister(0)
	type in = []Access[int]
	judge(t, Holds, m, op(0, 0, 5, in{write("x", 1), write("y", 1)}, nil2()), op(1, 0, 5, in{read("x"), read("y")}, []int{1, 1}))
	judge(t, Violated, m, op(0, 0, 5, in{write("x", 1), write("y", 1)}, nil2()), op(1, 0, 5, in{read("x"), read("y")}, []int{1, 0}))
	judge(t, Holds, m, op(0, 0, 5, in{write("x", 1), read("x")}, []int{0, 1}))
	judge(t, Violated, m, op(0, 0, 5, in{read("x")}, []int{}))
}

func nil2() []int { return []int{0, 0} }

func TestKV(t *testing.T) {
	type access = Access[string]
	type answer = Answer[string]
	add := access{Kind: Append, Key: "k", Value: "b"}
	judge(t, Holds, KV(), op(0, 0, 1, access{Kind: Write, Key: "k", Value: "a"}, answer{}), op(0, 2, 3, add, answer{}),
		op(0, 4, 5, access{Key: "k"}, answer{Value: "ab"}), op(0, 4+2, 7, access{Kind: CompareAndSet, Key: "k", Old: "ab", Value: "c"}, answer{OK: true}))
	judge(t, Violated, KV(), op(0, 2, 3, add, answer{}), op(0, 4, 5, access{Key: "k"}, answer{Value: "bb"}))
	judge(t, Violated, Register(""), op(0, 0, 1, add, answer{}))
	judge(t, Violated, Register(""), op(0, 0, 1, access{Kind: CompareAndSet}, answer{OK: true}))
}

// lossy is a register whose writes may be lost without a word: a write leads to one of two states.
func lossy() Model[int, Access[int], Answer[int]] {
	step := CASRegister(0).Step
	return Model[int, Access[int], Answer[int]]{
		Name: "lossy register",
		Init: func() int { return 0 },
		Choices: func(state int, in Access[int], out *Answer[int]) []int {
			next, ok := step(state, in, out)
			switch {
			case !ok:
				return nil
			case in.Kind == Read:
				return []int{state}
			}
			return []int{state, next}
		},
		ReadOnly: readOnlyAccess[int],
	}
}

func TestNondeterministicModelsAgreeWithBruteForce(t *testing.T) {
	counts := map[Verdict]int{}
	for seed := range testsize.N(5000, 50_000) {
		rng := rand.New(rand.NewPCG(uint64(seed), 14))
		s := randomShape(rng)
		s.keys, s.cas, s.ties, s.wild = 1, 0, false, 0.4
		h := randomRegister(rng, 1+rng.IntN(7), s)
		want := bruteForce(h, lossy(), realTime(h))
		got := mustLinearizable(t, h, lossy())
		require.Equal(t, want, got.Verdict == Holds, "seed %d: %+v", seed, h)
		counts[got.Verdict]++

		stream, err := NewStream(lossy(), StreamConfig{})
		require.NoError(t, err)
		require.Equal(t, got.Verdict, replay(rng, h, stream).Verdict, "seed %d: %+v", seed, h)

		r, err := Sequential(context.Background(), h, lossy())
		require.NoError(t, err)
		require.Equal(t, bruteForce(h, lossy(), programOrder(h)), r.Verdict == Holds, "seed %d: %+v", seed, h)
	}
	require.Greater(t, counts[Holds], enough(100))
	require.Greater(t, counts[Violated], enough(100))
}

func TestSequentialSearchAgreesWithBruteForce(t *testing.T) {
	counts := map[Verdict]int{}
	for seed := range testsize.N(10_000, 100_000) {
		rng := rand.New(rand.NewPCG(uint64(seed), 15))
		h := randomRegister(rng, 1+rng.IntN(9), randomShape(rng))
		r, err := Sequential(context.Background(), h, CASRegister(0))
		require.NoError(t, err)
		require.Equal(t, bruteForce(h, memoryModel(), programOrder(h)), r.Verdict == Holds, "seed %d: %+v\n%v", seed, h, r)
		counts[r.Verdict]++
	}
	require.Greater(t, counts[Violated], enough(100))
}

func TestStalenessAgreesWithBruteForce(t *testing.T) {
	counts := map[Verdict]int{}
	for seed := range testsize.N(10_000, 100_000) {
		rng := rand.New(rand.NewPCG(uint64(seed), 16))
		s := randomShape(rng)
		s.keys, s.cas, s.ties, s.wild = 1, 0, false, 0.3
		h := randomRegister(rng, 1+rng.IntN(8), s)
		bound := Staleness{Versions: rng.IntN(3), Age: time.Duration(rng.IntN(2) * rng.IntN(10))}

		// By definition: the newest values, and reads called earlier.
		m := Model[[4]int, Access[int], Answer[int]]{
			Init: func() [4]int { return [4]int{} },
			Step: func(state [4]int, in Access[int], out *Answer[int]) ([4]int, bool) {
				if in.Kind == Write {
					return [4]int{in.Value, state[0], state[1], state[2]}, true
				}
				for _, v := range state[:bound.Versions+1] {
					if out == nil || out.Value == v {
						return state, true
					}
				}
				return state, false
			},
		}
		order := realTime(h)
		if bound.Age > 0 {
			order = func(a, b int) bool {
				call := h[b].Call
				if h[b].In.Kind == Read {
					call -= bound.Age
				}
				return !h[a].Unknown && h[a].Return < call
			}
		}
		r, err := BoundedStaleness(context.Background(), h, 0, bound)
		require.NoError(t, err)
		require.Equal(t, bruteForce(h, m, order), r.Verdict == Holds, "seed %d, %+v: %+v\n%v", seed, bound, h, r)
		counts[r.Verdict]++
	}
	require.Greater(t, counts[Holds], enough(100))
	require.Greater(t, counts[Violated], enough(100))
	_, err := BoundedStaleness(context.Background(), nil, 0, Staleness{Versions: -1})
	require.EqualError(t, err, "consistency: Staleness {Versions:-1 Age:0s} is negative")
}

func TestEventualConvergence(t *testing.T) {
	w := func(call time.Duration, v int) regOp {
		return regOp{Call: call, Return: call + 1, In: Access[int]{Kind: Write, Key: "x", Value: v}}
	}
	r := func(client int, call time.Duration, v int) regOp {
		return regOp{Client: client, Call: call, Return: call + 1, In: Access[int]{Key: "x"}, Out: Answer[int]{Value: v}}
	}
	for _, test := range []struct {
		want Verdict
		h    regHistory
	}{
		{Holds, regHistory{w(0, 1), w(2, 2), r(1, 4, 1), r(2, 5, 2), r(1, 20, 1), r(2, 30, 1)}},
		{Violated, regHistory{w(0, 1), w(2, 2), r(1, 20, 1), r(2, 30, 2)}},
		{Violated, regHistory{w(0, 1), r(1, 20, 0)}},
		{Violated, regHistory{w(0, 1), r(1, 20, 7)}},
		{Holds, regHistory{r(1, 20, 0)}},
		{Holds, regHistory{w(0, 1), r(1, 5, 7)}},
	} {
		got, err := EventualConvergence(test.h, 0, 10)
		require.NoError(t, err)
		require.Equal(t, test.want, got.Verdict, "%+v: %v", test.h, got)
	}
}
