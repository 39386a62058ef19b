package consistency

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie/internal/testsize"
)

// judgeLive is what Stream and RegisterStream share.
type judgeLive interface {
	Invoke(client int, in Access[int]) int
	Return(op int, out Answer[int])
	Unknown(op int)
	Close() Result
}

// replay plays a history to a stream, event by event; losses are told at random times.
func replay(rng *rand.Rand, h regHistory, s judgeLive) Result {
	type event struct {
		at   time.Duration
		op   int
		call bool
	}
	var events []event
	for i, op := range h {
		events = append(events, event{op.Call, i, true})
		at := op.Return
		if op.Unknown {
			at = op.Call + time.Duration(rng.IntN(20))
		}
		events = append(events, event{at, i, false})
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	numbers := make([]int, len(h))
	for _, e := range events {
		switch op := &h[e.op]; {
		case e.call:
			numbers[e.op] = s.Invoke(op.Client, op.In)
		case op.Unknown:
			if rng.IntN(4) > 0 {
				s.Unknown(numbers[e.op])
			}
		default:
			s.Return(numbers[e.op], op.Out)
		}
	}
	return s.Close()
}

func TestStreamsAgreeWithBatch(t *testing.T) {
	counts := map[string]int{}
	for seed := range testsize.N(10_000, 200_000) {
		rng := rand.New(rand.NewPCG(uint64(seed), 11))
		s := randomShape(rng)
		s.ties = false
		h := randomRegister(rng, 1+rng.IntN(30), s)
		r, err := Linearizable(context.Background(), h, CASRegister(0))
		require.NoError(t, err)

		stream, err := NewStream(CASRegister(0), StreamConfig{})
		require.NoError(t, err)
		got := replay(rng, h, stream)
		require.Equal(t, r.Verdict, got.Verdict, "seed %d: %+v\n%v\n%v", seed, h, r, got)
		counts[got.Verdict.String()]++

		if s.unique && s.cas == 0 {
			got := replay(rng, h, NewRegisterStream(0))
			require.Equal(t, r.Verdict, got.Verdict, "seed %d: %+v\n%v\n%v", seed, h, r, got)
			counts["register "+got.Verdict.String()]++
		}
	}
	for _, kind := range []string{"holds", "violated", "register holds", "register violated"} {
		require.Greater(t, counts[kind], enough(50), "%v", counts)
	}
}

func TestStreamsForgetWhatIsSettled(t *testing.T) {
	n := testsize.N(100_000, 2_000_000)
	h := randomRegister(rand.New(rand.NewPCG(5, 5)), n, shape{clients: 8, keys: 2, unique: true})
	rng := rand.New(rand.NewPCG(1, 1))

	register := NewRegisterStream(0)
	require.Equal(t, Holds, replay(rng, h, register).Verdict)
	require.Less(t, register.Live(), 100)

	h = h[:n/10]
	for i := range h {
		h[i].Unknown = h[i].Return == 0
	}
	stream, err := NewStream(Register(0), StreamConfig{})
	require.NoError(t, err)
	require.Equal(t, Holds, replay(rng, h, stream).Verdict)
	require.Greater(t, stream.Settled(), n/10-100)
	require.Less(t, len(stream.ops), 100)
	for _, k := range stream.keys {
		require.Less(t, len(k.queue), 100)
	}
}

func TestStreamSaysWhenItGivesUp(t *testing.T) {
	stream, err := NewStream(Register(0), StreamConfig{MaxStates: 100})
	require.NoError(t, err)
	var ops []int
	for i := range 20 {
		ops = append(ops, stream.Invoke(i, Access[int]{Kind: Write, Value: i + 1}))
	}
	for _, op := range ops {
		stream.Return(op, Answer[int]{})
	}
	require.Equal(t, "linearizable register: unknown: more than 100 ways to explain what is under way", stream.Result().String())

	stream, err = NewStream(Register(0), StreamConfig{})
	require.NoError(t, err)
	for i := range 70 {
		stream.Unknown(stream.Invoke(i, Access[int]{Kind: Write, Value: i + 1}))
	}
	require.Contains(t, stream.Result().Reason, "more than 64 operations")

	_, err = NewStream(Register(0), StreamConfig{MaxStates: -1})
	require.EqualError(t, err, "consistency: StreamConfig.MaxStates -1 is negative")
	require.PanicsWithValue(t, "consistency: Stream: operation 99 is not under way", func() { stream.Return(99, Answer[int]{}) })

	register := NewRegisterStream(0)
	register.Invoke(1, Access[int]{Kind: Write, Value: 4})
	register.Invoke(2, Access[int]{Kind: Write, Value: 4})
	require.Equal(t, "linearizable register: unknown: operation 1 writes 4 again", register.Result().String())
	register = NewRegisterStream(0)
	register.Invoke(1, Access[int]{Kind: CompareAndSet, Value: 4})
	require.Equal(t, Unknown, register.Result().Verdict)
}

func TestStreamFailedOperationsLeaveNoTrace(t *testing.T) {
	stream, err := NewStream(Register(0), StreamConfig{})
	require.NoError(t, err)
	for _, s := range []interface {
		judgeLive
		Fail(op int)
		Result() Result
	}{stream, NewRegisterStream(0)} {
		w := s.Invoke(1, Access[int]{Kind: Write, Value: 1})
		s.Fail(w)
		r := s.Invoke(2, Access[int]{Kind: Read})
		s.Return(r, Answer[int]{Value: 0})
		require.Equal(t, Holds, s.Result().Verdict)
		w = s.Invoke(1, Access[int]{Kind: Write, Value: 2})
		r = s.Invoke(2, Access[int]{Kind: Read})
		s.Return(r, Answer[int]{Value: 2})
		s.Fail(w)
		require.Equal(t, Violated, s.Close().Verdict, "%v", fmt.Sprint(s.Result()))
	}
}
