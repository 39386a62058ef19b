package consistency

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie/internal/testsize"
)

func TestShrinkKeepsTheVerdictAndIsMinimal(t *testing.T) {
	shrunk := 0
	m := CASRegister(0)
	for seed := range testsize.N(3000, 50_000) {
		rng := rand.New(rand.NewPCG(uint64(seed), 7))
		s := randomShape(rng)
		s.wild = 0.2
		h := randomRegister(rng, 1+rng.IntN(14), s)
		r, err := Shrink(context.Background(), h, m)
		require.NoError(t, err)
		if r.Verdict != Violated {
			continue
		}
		shrunk++
		full, err := Linearizable(context.Background(), h, m)
		require.NoError(t, err)
		require.Equal(t, Violated, full.Verdict)
		small := h.Pick(r.Ops)
		require.Equal(t, Violated, mustLinearizable(t, small, m).Verdict, "seed %d: %+v", seed, h)
		require.NotEmpty(t, r.Reason)

		units := registerClusters(h, full.Ops)
		for _, i := range r.Ops {
			without := slices.DeleteFunc(slices.Clone(r.Ops), func(j int) bool { return i == j })
			if units == nil {
				found, _ := violatedEvenIf(context.Background(), h, without, full.Ops, m.withDefaults())
				require.False(t, found, "seed %d: %v of %v can go: %+v", seed, i, r.Ops, h)
				continue
			}
			for _, unit := range units {
				if unit[0] == i {
					rest := remove(r.Ops, [][]int{unit})
					require.Equal(t, Holds, mustLinearizable(t, h.Pick(rest), m).Verdict, "seed %d: %v of %v can go", seed, unit, r.Ops)
				}
			}
		}
	}
	require.Greater(t, shrunk, enough(100))
}

func TestShrinkFindsTheStaleReadAmongThousands(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for name, unique := range map[string]bool{"unique writes": true, "few values": false} {
		h := randomRegister(rng, 2000, shape{clients: 4, keys: 3, values: 5, unique: unique})
		last := h[len(h)-1].Call + 1000
		for i, op := range []struct {
			kind  AccessKind
			value int
		}{{Write, 1_000_000}, {Write, 1_000_001}, {Read, 1_000_000}} {
			o := regOp{Client: 77, Call: last + 10*time.Duration(i), Return: last + 10*time.Duration(i) + 5}
			o.In = Access[int]{Kind: op.kind, Key: "a", Value: op.value}
			if op.kind == Read {
				o.In.Value, o.Out.Value = 0, op.value
			}
			h = append(h, o)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		r, err := Shrink(ctx, h, Register(0))
		cancel()
		require.NoError(t, err)
		require.Equal(t, Violated, r.Verdict)
		if unique {
			require.Equal(t, []int{2000, 2001, 2002}, r.Ops, "%s: %v", name, r)
			require.Contains(t, r.Reason, "read 2002 (client 77) returned a=1000000 after write 2001 (client 77) of a=1000001 had returned")
		} else {
			require.Equal(t, []int{2001, 2002}, r.Ops, "%s: %v", name, r)
			require.Contains(t, r.Reason, `operation 2002 (client 77, read a=1000000): before it the state could only be "1000001"`)
		}
		require.Contains(t, Lines(h, r.Ops, Register(0)), "  2001  client 77 ")
	}
}

func TestShrinkAccessesKeepsTheVerdictAndIsMinimal(t *testing.T) {
	shrunk := 0
	for seed := range testsize.N(1000, 20_000) {
		rng := rand.New(rand.NewPCG(uint64(seed), 17))
		h := randomRegister(rng, 1+rng.IntN(16), shape{clients: 3, keys: 2, unique: true, wild: 0.3})
		for _, check := range []Check[int]{PRAM[int], Causal[int], CausalConvergence[int], MonotonicReads[int], WritesFollowReads[int]} {
			r, err := ShrinkAccesses(context.Background(), h, 0, check)
			require.NoError(t, err)
			if r.Verdict != Violated {
				continue
			}
			shrunk++
			full, err := check(context.Background(), h, 0)
			require.NoError(t, err)
			require.Equal(t, strings.Contains(full.Reason, "never written"), strings.Contains(r.Reason, "never written"),
				"seed %d: %v\n%v", seed, full, r)
			for _, unit := range append(registerClusters(h, r.Ops), nil) {
				rest, err := check(context.Background(), h.Pick(remove(r.Ops, [][]int{unit})), 0)
				require.NoError(t, err)
				require.Equal(t, unit == nil, rest.Verdict == Violated, "seed %d: %v of %v can go", seed, unit, r.Ops)
			}
		}
	}
	require.Greater(t, shrunk, enough(50))
}

func TestShrinkOfOtherModels(t *testing.T) {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(3, 1))
	h := randomRegister(rng, 60, shape{clients: 3, keys: 2, unique: true})
	end := h[len(h)-1].Call + 100
	for i, v := range []int{900, 901} {
		h = append(h, regOp{Client: 8, Call: end + time.Duration(i*2), Return: end + time.Duration(i*2+1), In: Access[int]{Kind: Write, Key: "a", Value: v}})
	}
	for i, v := range []int{901, 900} {
		h = append(h, regOp{Client: 9, Call: end + time.Duration(i*2), Return: end + time.Duration(i*2+1), In: Access[int]{Key: "a"}, Out: Answer[int]{Value: v}})
	}
	r, err := ShrinkAccesses(ctx, h, 0, PRAM[int])
	require.NoError(t, err)
	require.Equal(t, []int{60, 61, 62, 63}, r.Ops)
	require.Contains(t, r.Reason, "write 60 of a=900 before write 61 of a=901, as client 8 did them")
	r, err = ShrinkAccesses(ctx, h[:60], 0, PRAM[int])
	require.NoError(t, err)
	require.Equal(t, Holds, r.Verdict)
	other := append(regHistory{{Client: 5, Return: 1, In: Access[int]{Kind: CompareAndSet, Key: "b"}}}, h[60:]...)
	r, err = ShrinkAccesses(ctx, other, 0, func(ctx context.Context, h regHistory, initial int) (Result, error) {
		return Sequential(ctx, h, CASRegister(initial))
	})
	require.NoError(t, err)
	require.Len(t, r.Ops, len(other), "without its compare-and-set a read might be of what nobody wrote")
	require.Equal(t, []int{3, 7}, ShrinkBy(ctx, h[:20], func(some regHistory) bool {
		return slices.Contains(some, h[3]) && slices.Contains(some, h[7])
	}))
}

func TestShrinkTxnsKeepsTheAnomalyAndIsMinimal(t *testing.T) {
	shrunk := 0
	for seed := range testsize.N(800, 20_000) {
		rng := rand.New(rand.NewPCG(uint64(seed), 18))
		h := randomTxns(rng, 3+rng.IntN(12), false)
		full, err := ListAppend(context.Background(), h)
		require.NoError(t, err)
		r, kept, err := ShrinkTxns(context.Background(), h, ListAppend)
		require.NoError(t, err)
		if full.Verdict == Holds {
			require.Equal(t, Holds, r.Verdict)
			require.Nil(t, kept)
			continue
		}
		shrunk++
		require.Equal(t, full.Anomalies[0].Kind, r.Anomalies[0].Kind)
		require.LessOrEqual(t, r.Strongest, r.Anomalies[0].Forbids-1)
		for _, txn := range r.Anomalies[0].Txns {
			require.Contains(t, kept, txn, "seed %d", seed)
		}
		alone, err := ListAppend(context.Background(), h.Pick(kept))
		require.NoError(t, err)
		require.Equal(t, r.Strongest, alone.Strongest)
		again, _, err := ShrinkTxns(context.Background(), h.Pick(kept), ListAppend)
		require.NoError(t, err)
		require.Equal(t, r.Strongest, again.Strongest)
	}
	require.Greater(t, shrunk, enough(50))
}

func TestShrinkTxnsDropsTheRest(t *testing.T) {
	h := TxnHistory{
		txn(0, ap("z", 1)), txn(1, rd("x"), ap("x", 1)), txn(2, rd("x"), ap("x", 2)), txn(3, rd("z", 1), ap("z", 2)), txn(4, rd("z", 1, 2)),
	}
	r, kept, err := ShrinkTxns(t.Context(), h, ListAppend)
	require.NoError(t, err)
	require.Equal(t, []int{1, 2}, kept)
	require.Equal(t, []int{1, 2}, r.Anomalies[0].Txns)
	require.Equal(t, LostUpdate, r.Anomalies[0].Kind)
}
