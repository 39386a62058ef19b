package consistency

import (
	"bytes"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// staleHistory is a read that goes back, among others.
func staleHistory() regHistory {
	op := func(client int, kind AccessKind, value int, call, ret time.Duration) regOp {
		o := regOp{Client: client, Call: call, Return: ret, In: Access[int]{Kind: kind, Key: "x"}}
		if kind == Read {
			o.Out.Value = value
		} else {
			o.In.Value = value
		}
		return o
	}
	h := regHistory{
		op(0, Write, 1, 0, 10), op(1, Write, 2, 12, 25), op(2, Read, 2, 14, 22), op(0, Read, 1, 28, 34), op(2, Read, 2, 30, 41),
		op(1, Write, 3, 38, 0),
	}
	h[5].Unknown = true
	return h
}

func TestPageShowsTheViolation(t *testing.T) {
	h := staleHistory()
	r, err := Shrink(t.Context(), h, Register(0))
	require.NoError(t, err)
	require.Equal(t, "read 3 (client 0) returned x=1 after write 1 (client 1) of x=2 had returned, which began after write 0 (client 0) of x=1 had returned", r.Reason)
	var page bytes.Buffer
	require.NoError(t, Draw(h, Register(0), r).WriteHTML(&page))
	if path := os.Getenv("COTERIE_PAGE"); path != "" {
		require.NoError(t, os.WriteFile(path, page.Bytes(), 0o600))
	}
	lost := layout(Draw(h, Register(0), r)).Rects[5]
	require.True(t, lost.Unknown)
	require.Greater(t, lost.W, 50, "one without an end reaches to the end of the page")
	text := page.String()
	require.Equal(t, len(h), strings.Count(text, "<g class="))
	require.Equal(t, 3, strings.Count(text, `<g class="op m"`))
	require.Equal(t, 1, strings.Count(text, `<g class="op u"`))
	require.Equal(t, 3, strings.Count(text, `class="lane"`))
	require.Contains(t, text, "read 3 (client 0) returned x=1")
	for _, from := range []string{"src=", "href=", "@import", "url("} {
		require.NotContains(t, text, from, "the page needs nothing else")
	}
}

func TestPageEscapesAndCuts(t *testing.T) {
	h := History[Access[string], Answer[string]]{
		{In: Access[string]{Kind: Write, Key: "<script>", Value: `"><img>`}, Return: 5},
		{Client: 1, In: Access[string]{Key: "<script>"}, Call: 6, Return: 7, Out: Answer[string]{Value: "</svg>"}},
	}
	r, err := Linearizable(t.Context(), h, KV())
	require.NoError(t, err)
	var page bytes.Buffer
	require.NoError(t, Draw(h, KV(), r).WriteHTML(&page))
	require.Equal(t, 1, strings.Count(page.String(), "<script>"), "the page's own")
	require.NotContains(t, page.String(), "<img>")

	long := randomRegister(rand.New(rand.NewPCG(1, 9)), 5000, shape{clients: 5, keys: 1, unique: true})
	d := Draw(long, Register(0), Result{Verdict: Violated, Ops: []int{10, 2500}})
	require.Less(t, len(layout(d).Rects), 200)
	require.Len(t, layout(d).Marked, 2)
	d = Draw(long, Register(0), Result{Verdict: Holds})
	require.Len(t, layout(d).Rects, maxBars)
}

func TestBarsOfALaneDoNotOverlap(t *testing.T) {
	for seed := range 200 {
		rng := rand.New(rand.NewPCG(uint64(seed), 10))
		h := randomRegister(rng, 40, randomShape(rng))
		right := map[int]int{}
		for _, r := range layout(Draw(h, Register(0), Result{})).Rects {
			if r.Unknown || r.Call == r.Return {
				continue // several at one moment lie on each other
			}
			require.GreaterOrEqual(t, r.X, right[r.Client], "seed %d: %+v", seed, r)
			right[r.Client] = r.X + r.W
		}
	}
}
