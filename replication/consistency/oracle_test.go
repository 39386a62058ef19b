package consistency

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/coterie-go/coterie/internal/testsize"
)

// bruteForce is the definition: some order of all operations with an answer, and of any of unknown outcome, keeps
// every pair that precedes has in order and is right by the model.
func bruteForce[S, In, Out any](h History[In, Out], m Model[S, In, Out], precedes func(a, b int) bool) bool {
	done := make([]bool, len(h))
	var try func(state S) bool
	try = func(state S) bool {
		complete := true
		for i := range h {
			complete = complete && (done[i] || h[i].Unknown)
		}
		if complete {
			return true
		}
		for i := range h {
			if done[i] {
				continue
			}
			blocked := false
			for j := range h {
				// One of unknown outcome that never happened blocks nobody; one that did stands in its place.
				blocked = blocked || !done[j] && j != i && !h[j].Unknown && precedes(j, i)
			}
			if blocked {
				continue
			}
			var next []S
			if m.Choices != nil {
				next = m.Choices(state, h[i].In, h[i].out())
			} else if s, ok := m.Step(state, h[i].In, h[i].out()); ok {
				next = []S{s}
			}
			done[i] = true
			if slices.ContainsFunc(next, try) {
				return true
			}
			done[i] = false
		}
		return false
	}
	return try(m.Init())
}

// realTime is the order of linearizability.
func realTime[In, Out any](h History[In, Out]) func(a, b int) bool {
	program := programOrder(h)
	return func(a, b int) bool {
		return !h[a].Unknown && (h[a].Return < h[b].Call || program(a, b))
	}
}

// programOrder is the order of each client's operations; after one of unknown outcome comes nothing.
func programOrder[In, Out any](h History[In, Out]) func(a, b int) bool {
	rank := make([]int, len(h))
	for _, ops := range h.sessions() {
		for r, i := range ops {
			rank[i] = r
		}
	}
	return func(a, b int) bool {
		return h[a].Client == h[b].Client && rank[a] < rank[b] && !h[a].Unknown
	}
}

// shape is how to draw a random history.
type shape struct {
	clients, keys, values int
	unique                bool    // every write has its own value
	cas                   float64 // share of compare-and-set
	unknown               float64 // share of unknown outcomes
	ties                  bool    // events share times
	wild                  float64 // share of reads that return any value at all; some writes then take effect twice
}

type (
	regHistory = History[Access[int], Answer[int]]
	regOp      = Operation[Access[int], Answer[int]]
)

// randomRegister draws a history of n operations: clients take turns at random on a register that takes effect at
// some moment in between, and some reads lie.
func randomRegister(rng *rand.Rand, n int, s shape) regHistory {
	type client struct{ op, effect int }
	var h regHistory
	clients := make([]client, s.clients)
	for i := range clients {
		clients[i].op = -1
	}
	state := map[string]int{}
	value, now := 0, 0
	for done := 0; done < n; {
		now++
		if s.ties {
			now += rng.IntN(2) - 1
		}
		c := rng.IntN(s.clients)
		if clients[c].op < 0 {
			if len(h) == n {
				for _, cl := range clients {
					if cl.op >= 0 {
						h[cl.op].Unknown = true
					}
				}
				break
			}
			op := regOp{Client: c, Call: time.Duration(now), In: Access[int]{Key: string(rune('a' + rng.IntN(s.keys)))}}
			switch f := rng.Float64(); {
			case f < s.cas:
				op.In.Kind, op.In.Old = CompareAndSet, rng.IntN(s.values+1)
				op.In.Value = 1 + rng.IntN(max(1, s.values))
			case f < s.cas+(1-s.cas)/2:
				op.In.Kind, op.In.Value = Write, 1+rng.IntN(max(1, s.values))
				if s.unique {
					value++
					op.In.Value = value
				}
			}
			clients[c].op = len(h)
			h = append(h, op)
			clients[c].effect = 0
			continue
		}
		op := &h[clients[c].op]
		if clients[c].effect == 0 || s.wild > 0 && rng.IntN(3) == 0 && op.In.Kind != CompareAndSet {
			clients[c].effect = 1
			switch op.In.Kind {
			case Read:
				op.Out.Value = state[op.In.Key]
				if rng.Float64() < s.wild {
					op.Out.Value = rng.IntN(max(s.values, value) + 1)
				}
			case Write:
				state[op.In.Key] = op.In.Value
			case CompareAndSet:
				if op.Out.OK = state[op.In.Key] == op.In.Old; op.Out.OK {
					state[op.In.Key] = op.In.Value
				}
			case Append:
			}
			continue
		}
		op.Return = time.Duration(now)
		if rng.Float64() < s.unknown {
			op.Unknown, op.Return, op.Out = true, 0, Answer[int]{}
		}
		clients[c].op = -1
		done++
	}
	return h
}

// randomShape draws a shape for small histories.
func randomShape(rng *rand.Rand) shape {
	s := shape{clients: 1 + rng.IntN(4), keys: 1 + rng.IntN(2), values: 1 + rng.IntN(3)}
	s.unique = rng.IntN(2) == 0
	if rng.IntN(2) == 0 {
		s.cas = 0.3
	}
	if rng.IntN(2) == 0 {
		s.unknown = 0.3
	}
	s.ties = rng.IntN(3) == 0
	if rng.IntN(3) > 0 {
		s.wild = 0.2
	}
	return s
}

// memoryModel is all registers as one object, without keys: what locality says is the same.
func memoryModel() Model[[3]int, Access[int], Answer[int]] {
	one := CASRegister(0)
	return Model[[3]int, Access[int], Answer[int]]{
		Name: "memory",
		Init: func() [3]int { return [3]int{} },
		Step: func(state [3]int, in Access[int], out *Answer[int]) ([3]int, bool) {
			i := strings.Index("ab xyz", in.Key) % 3
			next, ok := one.Step(state[i], in, out)
			state[i] = next
			return state, ok
		},
		ReadOnly: readOnlyAccess[int],
	}
}

// enough is how many cases of a kind a test should have met, scaled as its seeds are.
func enough(n int) int { return testsize.N(n, n) }
