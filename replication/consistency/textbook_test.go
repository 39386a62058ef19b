package consistency

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// script writes a history as books do: one line for each client, "w x1" and "r x1" one after the other; the operations
// of all clients are interleaved column by column.
func script(clients ...[]string) regHistory {
	var h regHistory
	for column := 0; ; column++ {
		none := true
		for client, ops := range clients {
			if column >= len(ops) {
				continue
			}
			none = false
			text := ops[column]
			if text == "" {
				continue
			}
			o := regOp{Client: client, In: Access[int]{Key: text[2:3]}}
			value := int(text[3] - '0')
			if text[0] == 'w' {
				o.In.Kind, o.In.Value = Write, value
			} else {
				o.Out.Value = value
			}
			o.Call = time.Duration(10 * column)
			o.Return = o.Call + 5
			h = append(h, o)
		}
		if none {
			return h
		}
	}
}

// Each model's defining example: the strongest models that hold it and the weakest that do not.
func TestTextbookHistories(t *testing.T) {
	for _, test := range []struct {
		name     string
		h        regHistory
		holds    []string
		violated []string
	}{
		{
			name:  "a stale read of another client is sequential (Attiya and Welch 1994)",
			h:     script([]string{"w x1"}, []string{"", "r x0"}),
			holds: []string{"sequential"}, violated: []string{"linearizable"},
		},
		{
			name:  "store buffering (Lamport 1979, fig. 1): both writers miss each other",
			h:     script([]string{"w x1", "r y0"}, []string{"w y1", "r x0"}),
			holds: []string{"causal", "causal convergence", "PRAM"}, violated: []string{"sequential"},
		},
		{
			name:  "two writers, read in both orders (Ahamad et al. 1995, fig. 2)",
			h:     script([]string{"w x1"}, []string{"w x2"}, []string{"", "r x1", "r x2"}, []string{"", "r x2", "r x1"}),
			holds: []string{"causal", "PRAM"}, violated: []string{"sequential", "causal convergence"},
		},
		{
			name:  "an answer without its question (Ahamad et al. 1995, fig. 3)",
			h:     script([]string{"w x1"}, []string{"", "r x1", "w y1"}, []string{"", "", "", "r y1", "r x0"}),
			holds: []string{"PRAM", "monotonic writes"}, violated: []string{"causal", "causal convergence", "writes follow reads"},
		},
		{
			name:  "one writer, seen out of order (Lipton and Sandberg 1988)",
			h:     script([]string{"w x1", "w y1"}, []string{"", "", "r y1", "r x0"}),
			holds: []string{"read your writes", "monotonic reads", "writes follow reads"}, violated: []string{"PRAM", "monotonic writes"},
		},
		{
			name:  "a client does not see its own write (Terry et al. 1994, §3.1)",
			h:     script([]string{"w x1", "r x0"}),
			holds: []string{"monotonic reads", "monotonic writes", "writes follow reads"}, violated: []string{"PRAM", "read your writes", "causal"},
		},
		{
			name:  "a client goes back (Terry et al. 1994, §3.2)",
			h:     script([]string{"w x1", "w x2"}, []string{"", "", "r x2", "r x1"}),
			holds: []string{"read your writes"}, violated: []string{"monotonic reads", "PRAM"},
		},
		{
			name:  "causal memory that will never agree (Bouajjani et al. 2017, fig. 3a)",
			h:     script([]string{"w x1", "r x2"}, []string{"w x2", "r x1"}),
			holds: []string{"causal"}, violated: []string{"causal convergence", "sequential"},
		},
		{
			name:  "agreed, but not causal memory (Bouajjani et al. 2017, fig. 3b)",
			h:     script([]string{"w z1", "w x1", "w y1"}, []string{"w x2", "r z0", "r y1", "r x2"}),
			holds: []string{"causal convergence"}, violated: []string{"causal", "sequential"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			mustAgree(t, test.h, map[string]int{})
			check := checkers(test.h)
			for _, name := range test.holds {
				r, err := check[name]()
				require.NoError(t, err)
				require.Equal(t, Holds, r.Verdict, "%v", r)
			}
			for _, name := range test.violated {
				r, err := check[name]()
				require.NoError(t, err)
				require.Equal(t, Violated, r.Verdict, "%v", r)
				t.Log(r)
			}
		})
	}
}

func TestRegisterChecksSayWhatTheyCannotTell(t *testing.T) {
	h := script([]string{"w x1", "w x1"})
	r, err := PRAM(t.Context(), h, 0)
	require.NoError(t, err)
	require.Equal(t, "PRAM: unknown: x=1 was written by operations 0 and 1: which of them a read saw is not known", r.String())
	h = script([]string{"w x0"})
	r, err = Causal(t.Context(), h, 0)
	require.NoError(t, err)
	require.Equal(t, "causal: unknown: operation 0 writes the initial value: what a read saw is not known", r.String())
	h[0].In.Kind = CompareAndSet
	r, err = CausalConvergence(t.Context(), h, 0)
	require.NoError(t, err)
	require.Equal(t, "causal convergence: unknown: operation 0 is neither a read nor a write", r.String())
}

// Two writers each read the other's old value after they wrote: no search is needed to see that no order fits.
func TestSequentialIsRefutedWithoutSearch(t *testing.T) {
	h := script([]string{"w x1", "w y3"}, []string{"", "", "r x1", "r y3", "w x2", "r y3"}, []string{"", "", "r x1", "r y3", "w y4", "r x1"})
	f, ok := refuteSequential(h, 0)
	require.True(t, ok)
	require.Equal(t, Violated, f.verdict)
	require.Contains(t, f.reason, "which replaced what it read")
	require.False(t, bruteForce(h.Pick(f.result("").Ops), memoryModel(), programOrder(h.Pick(f.result("").Ops))))
}
