package consistency

import (
	"context"
	"math/rand/v2"
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
		h := randomRegister(rng, 1+rng.IntN(10), randomShape(rng))
		want := bruteForce(h, memoryModel(), realTime(h))
		got := mustLinearizable(t, h, m)
		require.Equal(t, want, got.Verdict == Holds, "seed %d: %+v: %v", seed, h, got)
		verdicts[want]++
		if got.Verdict == Violated {
			require.False(t, bruteForce(h.Pick(got.Ops), memoryModel(), realTime(h.Pick(got.Ops))), "seed %d: %v", seed, got)
		}
	}
	require.Greater(t, verdicts[true], len(verdicts)*100)
	require.Greater(t, verdicts[false], len(verdicts)*100)
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
