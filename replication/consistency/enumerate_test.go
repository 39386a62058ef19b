package consistency

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie/internal/testsize"
)

// enumerate calls f with every history of n accesses by the given fillers, each of which lists the variants of the
// operation at i.
func enumerate(h regHistory, i int, variants func(h regHistory, i int) []regOp, f func(regHistory)) {
	if i == len(h) {
		f(h)
		return
	}
	for _, op := range variants(h, i) {
		h[i] = op
		enumerate(h, i+1, variants, f)
	}
}

// intervals calls f with every way in which n operations can overlap: every order of their calls and returns, up to
// the operations' names.
func intervals(n int, f func(h regHistory)) {
	h := make(regHistory, n)
	open := make([]bool, n)
	var place func(event, called int)
	place = func(event, called int) {
		if event == 2*n {
			f(h)
			return
		}
		if called < n {
			h[called].Client, h[called].Call = called, time.Duration(event)
			open[called] = true
			place(event+1, called+1)
			open[called] = false
		}
		for i := range called {
			if open[i] {
				open[i] = false
				h[i].Return = time.Duration(event)
				place(event+1, called)
				open[i] = true
			}
		}
	}
	place(0, 0)
}

// written returns how many values the operations before i write; values are named in order of appearance.
func written(h regHistory, i int) (values int) {
	for _, op := range h[:i] {
		values = max(values, op.In.Value)
	}
	return values
}

func TestEveryShortHistoryIsLinearizableAsDefined(t *testing.T) {
	n := 4
	if testsize.Soak() {
		n = 5
	} else if testsize.Race() {
		n = 3
	}
	m := Register(0)
	counts := map[bool]int{}
	intervals(n, func(shape regHistory) {
		shape = append(regHistory(nil), shape...)
		variants := func(h regHistory, i int) (ops []regOp) {
			base := shape[i]
			values := written(h, i)
			for v := 1; v <= values+1; v++ { // a write of any value seen, or a new one
				w := base
				w.In = Access[int]{Kind: Write, Value: v}
				ops = append(ops, w)
				w.Unknown, w.Return = true, 0
				ops = append(ops, w)
			}
			for v := 0; v <= min(values+1, n); v++ { // a read of any, also of one still to come
				r := base
				r.Out.Value = v
				ops = append(ops, r)
			}
			return ops
		}
		enumerate(make(regHistory, n), 0, variants, func(h regHistory) {
			want := bruteForce(h, m, realTime(h))
			counts[want]++
			if got := mustLinearizable(t, h, m); want != (got.Verdict == Holds) {
				t.Fatalf("%+v: want %v, got %v", h, want, got)
			}
		})
	})
	t.Logf("%v", counts)
	require.Greater(t, counts[true], enough(100))
	require.Greater(t, counts[false], enough(100))
}

func TestEveryShortHistoryIsAsEachModelIsDefined(t *testing.T) {
	n := 4
	if testsize.Soak() {
		n = 5
	} else if testsize.Race() {
		n = 3
	}
	counts := map[string]int{}
	variants := func(h regHistory, i int) (ops []regOp) {
		clients := 0
		for _, op := range h[:i] {
			clients = max(clients, op.Client+1)
		}
		// Operations are listed client by client: only program order counts.
		for client := max(0, clients-1); client <= min(clients, 2); client++ {
			for _, key := range []string{"a", "b"} {
				if i == 0 && key == "b" {
					continue
				}
				op := regOp{Client: client, Call: time.Duration(2 * i), Return: time.Duration(2*i + 1), In: Access[int]{Key: key}}
				for v := range n + 1 {
					op.Out.Value = v
					ops = append(ops, op)
				}
				op.In.Kind, op.In.Value, op.Out.Value = Write, i+1, 0
				ops = append(ops, op)
			}
		}
		return ops
	}
	enumerate(make(regHistory, n), 0, variants, func(h regHistory) {
		for _, r := range h { // a read of what is not written is refused everywhere: leave these out
			if r.In.Kind == Read && r.Out.Value != 0 {
				w := h[r.Out.Value-1]
				if w.In.Kind != Write || w.In.Key != r.In.Key {
					return
				}
			}
		}
		mustAgree(t, h, counts)
	})
	t.Logf("%v", counts)
	for name := range checkers(nil) {
		require.Greater(t, counts[name+" holds"], enough(50))
	}
}
