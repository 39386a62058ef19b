package consistency

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie/internal/testsize"
)

func mustLinearizable[S, In, Out any](t *testing.T, h History[In, Out], m Model[S, In, Out]) Result {
	t.Helper()
	r, err := Linearizable(context.Background(), h, m)
	require.NoError(t, err, "%+v", h)
	require.NotEqual(t, Unknown, r.Verdict)
	return r
}

func TestLinearizableAgreesWithBruteForce(t *testing.T) {
	m := CASRegister(0)
	verdicts := map[bool]int{}
	for seed := range testsize.N(100_000, 1_000_000) {
		rng := rand.New(rand.NewPCG(uint64(seed), 1))
		h := randomRegister(rng, 1+rng.IntN(12), randomShape(rng))
		want := bruteForce(h, memoryModel(), realTime(h))
		got := mustLinearizable(t, h, m)
		require.Equal(t, want, got.Verdict == Holds, "seed %d: %+v: %v", seed, h, got)
		verdicts[want]++
		if got.Verdict == Violated {
			require.False(t, bruteForce(h.Pick(got.Ops), memoryModel(), realTime(h.Pick(got.Ops))), "seed %d: %v", seed, got)
		}
	}
	require.Greater(t, verdicts[true], enough(200))
	require.Greater(t, verdicts[false], enough(200))
}

func TestSearchEndsWithItsContext(t *testing.T) {
	// Thirty writers at once, then a read of what none wrote: 2^30 ways to look.
	var h regHistory
	for i := range 30 {
		h = append(h, regOp{Client: i, In: Access[int]{Kind: Write, Value: i % 29}, Return: 100})
	}
	h = append(h, regOp{Client: 30, In: Access[int]{Kind: Read}, Out: Answer[int]{Value: 77}, Return: 99})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	m := CASRegister(0)
	m.decide = nil
	r, err := Linearizable(ctx, h, m)
	require.NoError(t, err)
	require.Equal(t, Unknown, r.Verdict)
	require.Contains(t, r.Reason, "not decided in time")
}

func TestRegisterPathAgreesWithSearch(t *testing.T) {
	verdicts, reasons := map[Verdict]int{}, map[string]int{}
	fast := Register(0)
	slow := fast
	slow.decide = nil
	for seed := range testsize.N(100_000, 1_000_000) {
		rng := rand.New(rand.NewPCG(uint64(seed), 2))
		s := shape{clients: 1 + rng.IntN(6), keys: 1, unique: true}
		if rng.IntN(2) == 0 {
			s.unknown = 0.2
		}
		s.wild = []float64{0, 0.02, 0.2}[rng.IntN(3)]
		h := randomRegister(rng, 1+rng.IntN(16), s)
		for i := range h { // intervals of any length, so that reads come before writes too
			if rng.IntN(8) == 0 && !h[i].Unknown {
				h[i].Client = 100 + i
				h[i].Return = h[i].Call + time.Duration(rng.IntN(10))
			}
		}
		for i := range h {
			h[i].Client = i
		}
		want := mustLinearizable(t, h, slow)
		f, ok := decideRegister(h, partition(h, fast.withDefaults())[0], 0)
		require.True(t, ok)
		require.Equal(t, want.Verdict, f.verdict, "seed %d: %+v\n%v\n%v", seed, h, want, f)
		verdicts[f.verdict]++
		if got := f.result(""); got.Verdict == Violated {
			require.False(t, bruteForce(h.Pick(got.Ops), slow, realTime(h.Pick(got.Ops))), "seed %d: %v", seed, got)
			require.LessOrEqual(t, len(got.Ops), 6)
			for _, kind := range []string{"never written", "was called", "initial value", "no write lies", "which began", ", though "} {
				if strings.Contains(got.Reason, kind) {
					reasons[kind]++
				}
			}
		}
	}
	require.Greater(t, verdicts[Holds], enough(1000))
	require.Greater(t, verdicts[Violated], enough(1000))
	require.Len(t, reasons, 6, "%v", reasons)
}
