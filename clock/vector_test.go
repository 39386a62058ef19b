package clock

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
)

func TestVectorCompareIsTheDefinition(t *testing.T) {
	check(t, func(t *rapid.T) {
		a, b := drawCounts(t, "a"), drawCounts(t, "b")
		v, w := VectorOf(a), VectorOf(b)
		want := compareCounts(a, b)
		require.Equal(t, want, v.Compare(w))
		require.Equal(t, want.Inverse(), w.Compare(v))
		require.Equal(t, want == Equal || want == After, v.Covers(w))
		require.Equal(t, Equal, v.Compare(v.Clone()))
	})
}

// A vector with explicit zeros, from the wire or from a user's map, is the vector without them.
func TestVectorExplicitZerosCompareAsAbsent(t *testing.T) {
	with := VectorOf(counts{"a": 1, "b": 0, "c": 0})
	without := VectorOf(counts{"a": 1})
	require.Equal(t, Equal, with.Compare(without))
	require.Equal(t, Before, with.Compare(VectorOf(counts{"a": 1, "c": 1})))

	var decoded Vector
	require.NoError(t, decoded.UnmarshalBinary([]byte{1, 3, 1, 'a', 1, 1, 'b', 0, 1, 'c', 0}))
	require.Equal(t, Equal, decoded.Compare(without))
	require.NoError(t, json.Unmarshal([]byte(`{"b":0,"a":1}`), &decoded))
	require.Equal(t, 1, decoded.Len())
	decoded.Set("z", 0)
	decoded.Set("a", 0)
	require.Equal(t, Equal, decoded.Compare(Vector{}))
}

func TestVectorMergeIsTheDefinition(t *testing.T) {
	check(t, func(t *rapid.T) {
		a, b := drawCounts(t, "a"), drawCounts(t, "b")
		v, w := VectorOf(a), VectorOf(b)
		merged := v.Merged(w)
		requireCounts(t, mergeCounts(a, b), merged)
		requireCounts(t, a, v)
		requireCounts(t, b, w)
		v.Merge(w)
		requireCounts(t, mergeCounts(a, b), v)
		for id := range v.All() {
			v.Tick(id)
		}
		requireCounts(t, b, w) // shares nothing with what was merged into
	})
}

// Merge is the join of a semilattice whose order is Compare.
func TestVectorMergeIsASemilatticeJoin(t *testing.T) {
	check(t, func(t *rapid.T) {
		a, b, c := VectorOf(drawCounts(t, "a")), VectorOf(drawCounts(t, "b")), VectorOf(drawCounts(t, "c"))
		require.Equal(t, Equal, a.Merged(a).Compare(a))
		require.Equal(t, Equal, a.Merged(b).Compare(b.Merged(a)))
		require.Equal(t, Equal, a.Merged(b).Merged(c).Compare(a.Merged(b.Merged(c))))
		require.True(t, a.Merged(b).Covers(a))
		if c.Covers(a) && c.Covers(b) {
			require.True(t, c.Covers(a.Merged(b)), "not the least bound")
		}
	})
}

func TestVectorTickAndSet(t *testing.T) {
	check(t, func(t *rapid.T) {
		model := drawCounts(t, "start")
		v := VectorOf(model)
		t.Repeat(map[string]func(*rapid.T){
			"tick": func(t *rapid.T) {
				id := coterie.NodeID(rapid.SampledFrom([]string{"a", "b", "m", "zz"}).Draw(t, "id"))
				ticked := v.Ticked(id)
				model[id]++
				require.Equal(t, model[id], v.Tick(id))
				require.Equal(t, Equal, ticked.Compare(v))
			},
			"set": func(t *rapid.T) {
				id := coterie.NodeID(rapid.SampledFrom([]string{"a", "b", "m", "zz"}).Draw(t, "id"))
				n := rapid.Uint64Range(0, 5).Draw(t, "n")
				v.Set(id, n)
				model[id] = n
			},
			"copy": func(*rapid.T) {
				var w Vector
				w.CopyFrom(v)
				v = w
			},
			"": func(t *rapid.T) { requireCounts(t, model, v) },
		})
	})
}

func TestVectorContains(t *testing.T) {
	v := VectorOf(counts{"a": 2})
	require.True(t, v.Contains(Dot{"a", 1}))
	require.True(t, v.Contains(Dot{"a", 2}))
	require.False(t, v.Contains(Dot{"a", 3}))
	require.False(t, v.Contains(Dot{"a", 0}))
	require.False(t, v.Contains(Dot{"b", 1}))
}

func TestVectorStopsEarly(t *testing.T) {
	for id := range VectorOf(counts{"a": 2, "b": 1}).All() {
		require.Equal(t, coterie.NodeID("a"), id)
		break
	}
}

func TestVectorTickPanicsAtTheEnd(t *testing.T) {
	var v Vector
	v.Set("a", math.MaxUint64)
	require.Panics(t, func() { v.Tick("a") })
}

func TestVectorEncodingRoundTrips(t *testing.T) {
	check(t, func(t *rapid.T) {
		a := drawCounts(t, "a")
		if rapid.Bool().Draw(t, "large") {
			a["large"] = rapid.Uint64Range(0, MaxTime-1).Draw(t, "n")
		}
		v := VectorOf(a)
		b, err := v.MarshalBinary()
		require.NoError(t, err)
		got := VectorOf(drawCounts(t, "old"))
		require.NoError(t, got.UnmarshalBinary(b))
		requireCounts(t, a, got)

		b, err = json.Marshal(v)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, &got))
		requireCounts(t, a, got)
	})
}

func TestVectorMalformedChangesNothing(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty":      {},
		"format 0":   {0, 0},
		"short":      {1, 1, 1, 'a'},
		"left over":  {1, 0, 0},
		"unsorted":   {1, 2, 1, 'b', 1, 1, 'a', 1},
		"repeated":   {1, 2, 1, 'a', 1, 1, 'a', 1},
		"huge count": {1, 0xff, 0xff, 0xff, 0xff, 0x0f},
		"huge entry": {1, 1, 1, 'a', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"newer":      {2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			v := VectorOf(counts{"a": 7, "b": 8})
			require.Error(t, v.UnmarshalBinary(b))
			requireCounts(t, counts{"a": 7, "b": 8}, v)
		})
	}
	var newer *coterie.FormatError
	var v Vector
	require.ErrorAs(t, v.UnmarshalBinary([]byte{9}), &newer)
	require.Equal(t, byte(9), newer.Got)
	v.Tick("a")
	require.ErrorIs(t, v.UnmarshalJSON([]byte(`{"a":9223372036854775807}`)), ErrOverflow)
	require.Error(t, v.UnmarshalJSON([]byte(`{"a":-1}`)))
	require.Equal(t, uint64(1), v.Get("a"))
}

// vectorsOf makes vectors of n nodes, of which the second lacks every tenth id of the first and has others.
func vectorsOf(n int) (a, b Vector) {
	x, y := counts{}, counts{}
	for i := range n {
		id := coterie.NodeID("node-" + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676)))
		x[id] = uint64(i + 1)
		if i%10 == 3 {
			id += "x"
		}
		y[id] = uint64(n - i)
	}
	return VectorOf(x), VectorOf(y)
}

func TestVectorSteadyStateDoesNotAllocate(t *testing.T) {
	a, b := vectorsOf(100)
	enc, err := a.MarshalBinary()
	require.NoError(t, err)
	self := slices.Collect(maps.Keys(maps.Collect(a.All())))[0]
	scratch := a.Merged(b)
	buf := make([]byte, 0, 8192)
	decoded := a.Clone()
	for name, f := range map[string]func(){
		"Tick":    func() { a.Tick(self) },
		"Get":     func() { a.Get(self) },
		"Compare": func() { a.Compare(b) },
		"Covers":  func() { scratch.Covers(b) },
		"Merge":   func() { scratch.Merge(b) },
		"union": func() {
			scratch.CopyFrom(a)
			scratch.Merge(b)
		},
		"All": func() {
			for range a.All() {
				continue
			}
		},
		"AppendBinary":    func() { buf, _ = a.AppendBinary(buf[:0]) },
		"UnmarshalBinary": func() { _ = decoded.UnmarshalBinary(enc) },
	} {
		require.Zero(t, testing.AllocsPerRun(100, f), name)
	}
}

func FuzzVectorUnmarshal(f *testing.F) {
	f.Add([]byte{1, 0})
	f.Add([]byte{1, 2, 1, 'a', 1, 1, 'b', 0x80, 1})
	f.Add([]byte{1, 1, 0, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		v := VectorOf(counts{"a": 1, "q": 2})
		if v.UnmarshalBinary(b) != nil {
			requireCounts(t, counts{"a": 1, "q": 2}, v)
			return
		}
		again, err := v.MarshalBinary()
		require.NoError(t, err)
		var w Vector
		require.NoError(t, w.UnmarshalBinary(again))
		require.Equal(t, Equal, v.Compare(w))
		requireCounts(t, maps.Collect(v.All()), v)
	})
}
