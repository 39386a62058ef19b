package consistency

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie/internal/testsize"
)

// viewExists is the definition of the models of what clients see: for each client, an order of all writes and its
// own reads that keeps before, in which each read returns the latest write.
func viewExists(h regHistory, before func(client, a, b int) bool) bool {
	clients := map[int]bool{}
	for i := range h {
		clients[h[i].Client] = true
	}
	for client := range clients {
		var view regHistory
		var origin []int
		for i := range h {
			if h[i].In.Kind == Write || h[i].Client == client {
				view = append(view, h[i])
				origin = append(origin, i)
			}
		}
		precedes := func(a, b int) bool { return before(client, origin[a], origin[b]) }
		if !bruteForce(view, memoryModel(), precedes) {
			return false
		}
	}
	return true
}

// causes is the closure of program order and who read whom.
func causes(h regHistory) func(a, b int) bool {
	program := programOrder(h)
	c := make([][]bool, len(h))
	for a := range h {
		c[a] = make([]bool, len(h))
		for b := range h {
			c[a][b] = program(a, b) || readsFrom(h, a, b)
		}
	}
	for k := range h {
		for a := range h {
			for b := range h {
				c[a][b] = c[a][b] || c[a][k] && c[k][b]
			}
		}
	}
	return func(a, b int) bool { return c[a][b] }
}

func readsFrom(h regHistory, w, r int) bool {
	return h[w].In.Kind == Write && h[r].In.Kind == Read && !h[r].Unknown &&
		h[w].In.Key == h[r].In.Key && h[w].In.Value == h[r].Out.Value
}

// definitions are the models of what clients see, by brute force.
func definitions(h regHistory) map[string]func() bool {
	program, causal := programOrder(h), causes(h)
	write := func(i int) bool { return h[i].In.Kind == Write }
	version := func(a, b int) bool { return write(a) && write(b) && h[a].In.Key == h[b].In.Key && program(a, b) }
	reads := func(a, b int) bool { return !write(a) && !write(b) && program(a, b) }
	return map[string]func() bool{
		"linearizable": func() bool { return bruteForce(h, memoryModel(), realTime(h)) },
		"sequential":   func() bool { return bruteForce(h, memoryModel(), program) },
		"causal": func() bool {
			return viewExists(h, func(_, a, b int) bool { return causal(a, b) }) && acyclic(h, causal)
		},
		"causal convergence": func() bool { return converges(h, causal) },
		"PRAM":               func() bool { return viewExists(h, func(_, a, b int) bool { return program(a, b) }) },
		"read your writes": func() bool {
			return viewExists(h, func(c, a, b int) bool {
				return version(a, b) || h[a].Client == c && write(a) && program(a, b)
			})
		},
		"monotonic reads": func() bool {
			return viewExists(h, func(_, a, b int) bool { return version(a, b) || reads(a, b) })
		},
		"monotonic writes": func() bool {
			return viewExists(h, func(_, a, b int) bool { return reads(a, b) || write(a) && write(b) && program(a, b) })
		},
		"writes follow reads": func() bool {
			follows := func(a, b int) bool {
				for r := range h {
					if readsFrom(h, a, r) && program(r, b) && write(b) {
						return true
					}
				}
				return false
			}
			closed := closure(len(h), follows)
			return acyclic(h, closed) &&
				viewExists(h, func(_, a, b int) bool { return version(a, b) || reads(a, b) || closed(a, b) })
		},
	}
}

func closure(n int, r func(a, b int) bool) func(a, b int) bool {
	c := make([][]bool, n)
	for a := range n {
		c[a] = make([]bool, n)
		for b := range n {
			c[a][b] = r(a, b)
		}
	}
	for k := range n {
		for a := range n {
			for b := range n {
				c[a][b] = c[a][b] || c[a][k] && c[k][b]
			}
		}
	}
	return func(a, b int) bool { return c[a][b] }
}

func acyclic(h regHistory, r func(a, b int) bool) bool {
	for i := range h {
		if r(i, i) {
			return false
		}
	}
	return true
}

// converges is the definition of causal convergence: one order of the writes keeps causality, and each read returns
// the last of those that caused it.
func converges(h regHistory, causal func(a, b int) bool) bool {
	if !acyclic(h, causal) {
		return false
	}
	var writes []int
	for i := range h {
		if h[i].In.Kind == Write {
			writes = append(writes, i)
		}
	}
	var order []int
	var try func() bool
	try = func() bool {
		if len(order) == len(writes) {
			return !slices.ContainsFunc(seq(len(h)), func(r int) bool {
				if h[r].In.Kind != Read || h[r].Unknown {
					return false
				}
				last := 0
				for _, w := range order {
					if causal(w, r) && h[w].In.Key == h[r].In.Key {
						last = h[w].In.Value
					}
				}
				return last != h[r].Out.Value
			})
		}
		for _, w := range writes {
			if slices.Contains(order, w) || slices.ContainsFunc(writes, func(v int) bool {
				return !slices.Contains(order, v) && causal(v, w)
			}) {
				continue
			}
			order = append(order, w)
			if try() {
				return true
			}
			order = order[:len(order)-1]
		}
		return false
	}
	return try()
}

func seq(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

// checkers are the checkers of the definitions.
func checkers(h regHistory) map[string]func() (Result, error) {
	ctx := context.Background()
	return map[string]func() (Result, error){
		"linearizable":        func() (Result, error) { return Linearizable(ctx, h, Register(0)) },
		"sequential":          func() (Result, error) { return Sequential(ctx, h, Register(0)) },
		"causal":              func() (Result, error) { return Causal(ctx, h, 0) },
		"causal convergence":  func() (Result, error) { return CausalConvergence(ctx, h, 0) },
		"PRAM":                func() (Result, error) { return PRAM(ctx, h, 0) },
		"read your writes":    func() (Result, error) { return ReadYourWrites(ctx, h, 0) },
		"monotonic reads":     func() (Result, error) { return MonotonicReads(ctx, h, 0) },
		"monotonic writes":    func() (Result, error) { return MonotonicWrites(ctx, h, 0) },
		"writes follow reads": func() (Result, error) { return WritesFollowReads(ctx, h, 0) },
	}
}

// implied lists the hierarchy: what holds wherever the key holds.
var implied = map[string][]string{
	"linearizable": {"sequential"},
	"sequential":   {"causal", "causal convergence"},
	"causal":       {"PRAM", "writes follow reads"},
	"PRAM":         {"read your writes", "monotonic reads", "monotonic writes"},
}

// mustAgree checks one history against all definitions, and the hierarchy, and that the culprits suffice.
func mustAgree(t *testing.T, h regHistory, counts map[string]int) {
	t.Helper()
	want := definitions(h)
	holds := map[string]bool{}
	for name, check := range checkers(h) {
		r, err := check()
		require.NoError(t, err)
		require.NotEqual(t, Unknown, r.Verdict, "%v", r)
		holds[name] = r.Verdict == Holds
		require.Equal(t, want[name](), holds[name], "%s: %+v: %v", name, h, r)
		counts[fmt.Sprintf("%s %v", name, r.Verdict)]++
		if r.Verdict == Violated {
			require.NotEmpty(t, r.Reason)
			require.False(t, definitions(h.Pick(r.Ops))[name](), "%s: the culprits alone hold: %v", name, r)
		}
	}
	for strong, weaker := range implied {
		for _, weak := range weaker {
			require.False(t, holds[strong] && !holds[weak], "%s without %s: %+v", strong, weak, h)
		}
	}
}

func TestModelsAgreeWithBruteForceOnRandomHistories(t *testing.T) {
	counts := map[string]int{}
	for seed := range testsize.N(6_000, 200_000) {
		rng := rand.New(rand.NewPCG(uint64(seed), 3))
		s := randomShape(rng)
		s.unique, s.cas, s.clients = true, 0, 1+rng.IntN(3)
		s.wild = []float64{0, 0.1, 0.5}[rng.IntN(3)]
		mustAgree(t, randomRegister(rng, 1+rng.IntN(8), s), counts)
	}
	for name := range checkers(nil) {
		require.Greater(t, counts[name+" holds"], enough(50), "%v", counts)
		require.Greater(t, counts[name+" violated"], enough(50), "%v", counts)
	}
}
