package clock

import (
	"encoding/json"
	"maps"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
)

func TestDotSetOperationsAreThoseOfSets(t *testing.T) {
	check(t, func(t *rapid.T) {
		a, x := drawDots(t, "a")
		b, y := drawDots(t, "b")
		requireDots(t, x, a)

		union, difference := maps.Clone(x), dotModel{}
		for d := range y {
			union[d] = true
		}
		missing := false
		for d := range x {
			if !y[d] {
				difference[d] = true
			}
		}
		for d := range y {
			missing = missing || !x[d]
		}
		require.Equal(t, ordering(missing, len(difference) > 0), a.Compare(b))
		require.Equal(t, !missing, a.Covers(b))

		merged := a.Clone()
		merged.Merge(b)
		requireDots(t, union, merged)
		left := a.Clone()
		left.Subtract(b)
		requireDots(t, difference, left)
		requireDots(t, x, a) // the clones share nothing with it
		requireDots(t, y, b)

		merged.Subtract(b)
		merged.Subtract(a)
		requireDots(t, dotModel{}, merged)
		requireDots(t, y, b)
	})
}

func TestDotSetMergeIsASemilatticeJoin(t *testing.T) {
	check(t, func(t *rapid.T) {
		a, _ := drawDots(t, "a")
		b, _ := drawDots(t, "b")
		c, _ := drawDots(t, "c")
		join := func(sets ...DotSet) (j DotSet) {
			for _, s := range sets {
				j.Merge(s)
			}
			return j
		}
		require.Equal(t, Equal, join(a, a).Compare(a))
		require.Equal(t, Equal, join(a, b).Compare(join(b, a)))
		require.Equal(t, Equal, join(join(a, b), c).Compare(join(a, join(b, c))))
	})
}

// Chunks of several runs go through other paths than single dots do.
func TestDotSetRunsAndSingles(t *testing.T) {
	check(t, func(t *rapid.T) {
		s, m := drawDots(t, "start")
		t.Repeat(map[string]func(*rapid.T){
			"run": func(t *rapid.T) {
				first := Dot{"a", rapid.Uint64Range(0, 12).Draw(t, "from")}
				last := rapid.Uint64Range(0, 14).Draw(t, "to")
				s.AddRun(first, last)
				for seq := max(first.Seq, 1); seq <= last; seq++ {
					m[Dot{"a", seq}] = true
				}
			},
			"remove": func(t *rapid.T) {
				d := Dot{rapid.SampledFrom([]coterie.NodeID{"a", "b", "none"}).Draw(t, "node"),
					rapid.Uint64Range(0, 14).Draw(t, "seq")}
				require.Equal(t, m[d], s.Remove(d))
				delete(m, d)
			},
			"next": func(t *rapid.T) {
				if s.Max("b") >= 14 {
					t.Skip("large enough")
				}
				d := s.Next("b")
				require.False(t, m[d])
				require.Equal(t, s.Max("b"), d.Seq)
				m[d] = true
			},
			"": func(t *rapid.T) { requireDots(t, m, s) },
		})
	})
}

func TestDotSetCompacts(t *testing.T) {
	var s DotSet
	for seq := uint64(1000); seq > 1; seq -= 2 {
		s.Add(Dot{"a", seq})
	}
	require.False(t, s.IsContiguous())
	require.Len(t, s.nodes[0].runs, 500)
	for seq := uint64(999); seq >= 1 && seq < 1000; seq -= 2 {
		s.Add(Dot{"a", seq})
	}
	require.True(t, s.IsContiguous())
	require.Equal(t, "{a:1-1000}", s.String())
	require.Equal(t, Equal, s.Compare(DotSetOf(VectorOf(counts{"a": 1000}))))
	require.False(t, s.Add(Dot{"a", 0}))
	s.Reset()
	require.True(t, s.IsEmpty())
}

func TestDotSetAtTheEndOf64Bits(t *testing.T) {
	var s DotSet
	s.AddRun(Dot{"a", 5}, math.MaxUint64)
	s.AddRun(Dot{"a", 2}, math.MaxUint64-1)
	require.Equal(t, "{a:2-18446744073709551615}", s.String())
	require.Panics(t, func() { s.Next("a") })
	s.Add(Dot{"a", 1})
	require.Equal(t, uint64(math.MaxUint64), s.Contiguous("a"))
	s.Merge(s)
	s.Subtract(s.Clone())
	require.True(t, s.IsEmpty())
}

func TestDotSetEncodingRoundTrips(t *testing.T) {
	check(t, func(t *rapid.T) {
		s, m := drawDots(t, "s")
		b, err := s.MarshalBinary()
		require.NoError(t, err)
		got, _ := drawDots(t, "old")
		require.NoError(t, got.UnmarshalBinary(b))
		requireDots(t, m, got)
		b, err = json.Marshal(s)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, &got))
		requireDots(t, m, got)
	})
}

func TestDotSetMalformedChangesNothing(t *testing.T) {
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}
	for name, b := range map[string][]byte{
		"empty":      {},
		"newer":      {2, 0},
		"no event":   {1, 1, 1, 'a', 0, 0},
		"unsorted":   {1, 2, 1, 'b', 1, 0, 1, 'a', 1, 0},
		"repeated":   {1, 2, 1, 'a', 1, 0, 1, 'a', 1, 0},
		"left over":  {1, 1, 1, 'a', 1, 0, 0},
		"short":      {1, 1, 1, 'a', 1, 1, 0},
		"huge upto":  append(append([]byte{1, 1, 1, 'a'}, huge...), 0),
		"huge gap":   append(append([]byte{1, 1, 1, 'a', 1, 1}, huge...), 0),
		"huge run":   append([]byte{1, 1, 1, 'a', 1, 1, 0}, huge...),
		"huge count": {1, 0xff, 0xff, 0xff, 0x0f},
	} {
		t.Run(name, func(t *testing.T) {
			var s DotSet
			s.Add(Dot{"a", 3})
			require.Error(t, s.UnmarshalBinary(b))
			require.Equal(t, "{a:3}", s.String())
		})
	}
	var s DotSet
	for _, j := range []string{`{"a":[[0,1]]}`, `{"a":[[2,1]]}`, `{"a":[[1,9223372036854775807]]}`, `[]`} {
		require.Error(t, s.UnmarshalJSON([]byte(j)), j)
	}
	require.NoError(t, s.UnmarshalJSON([]byte(`{"a":[[7,7],[1,2],[3,5]]}`)))
	require.Equal(t, "{a:1-5,7}", s.String())
}

func TestDotSetSteadyStateDoesNotAllocate(t *testing.T) {
	a, b := vectorsOf(100)
	s, o := DotSetOf(a), DotSetOf(b)
	o.Add(Dot{"node-aaa", 500})
	for seq := uint64(0); seq < 40; seq += 2 {
		o.Add(Dot{"node-aaa", 1000 + seq})
	}
	merged := s.Clone()
	merged.Merge(o)
	buf := make([]byte, 0, 8192)
	for name, f := range map[string]func(){
		"Next":         func() { s.Next("node-aaa") },
		"Contains":     func() { o.Contains(Dot{"node-aaa", 1010}) },
		"Compare":      func() { s.Compare(o) },
		"Covers":       func() { merged.Covers(o) },
		"Merge":        func() { merged.Merge(o) },
		"AppendBinary": func() { buf, _ = o.AppendBinary(buf[:0]) },
	} {
		require.Zero(t, testing.AllocsPerRun(100, f), name)
	}
}

func FuzzDotSetUnmarshal(f *testing.F) {
	f.Add([]byte{1, 0})
	f.Add([]byte{1, 1, 1, 'a', 3, 2, 0, 0, 1, 5})
	f.Add([]byte{1, 2, 0, 0, 1, 0, 0, 1, 'b', 9, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s DotSet
		s.Add(Dot{"q", 2})
		if s.UnmarshalBinary(b) != nil {
			require.Equal(t, "{q:2}", s.String())
			return
		}
		again, err := s.MarshalBinary()
		require.NoError(t, err)
		var o DotSet
		require.NoError(t, o.UnmarshalBinary(again))
		require.Equal(t, Equal, s.Compare(o))
		for first, last := range s.Runs() {
			require.LessOrEqual(t, first.Seq, last)
			require.NotZero(t, first.Seq)
		}
	})
}
