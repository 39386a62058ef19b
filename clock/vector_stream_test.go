package clock

import (
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestVectorStreamRoundTrips(t *testing.T) {
	check(t, func(t *rapid.T) {
		var enc VectorEncoder
		var dec VectorDecoder
		got := VectorOf(drawCounts(t, "old"))
		for range rapid.IntRange(1, 6).Draw(t, "messages") {
			want := drawCounts(t, "vector")
			v := VectorOf(want)
			b := enc.AppendVector(nil, v)
			require.NoError(t, dec.DecodeVector(b, &got))
			requireCounts(t, want, got)
			repeated := enc.AppendVector(nil, v)
			require.LessOrEqual(t, len(repeated), 3+2*v.Len(), "ids are written again")
			require.NoError(t, dec.DecodeVector(repeated, &got))
			requireCounts(t, want, got)
		}
	})
}

func TestVectorStreamMalformedChangesNothing(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty":         {},
		"newer":         {2},
		"unknown id":    {1, 0, 1, 1, 5},
		"zero":          {1, 0, 1, 0, 0},
		"repeated":      {1, 0, 2, 0, 1, 0, 1},
		"unsorted":      {1, 1, 1, 'A', 2, 0, 1, 1, 1},
		"left over":     {1, 0, 0, 0},
		"short":         {1, 1, 3, 'a'},
		"too many ids":  append([]byte{1, 1, 100}, make([]byte, 101)...),
		"huge count":    {1, 0, 0xff, 0xff, 0x7f},
		"count of ids":  {1, 0xff, 0xff, 0x7f},
		"known id anew": {1, 1, 1, 'a', 2, 0, 1, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			dec := VectorDecoder{MaxIDBytes: 100}
			var v Vector
			require.NoError(t, dec.DecodeVector([]byte{1, 1, 1, 'a', 1, 0, 7}, &v))
			require.Error(t, dec.DecodeVector(b, &v))
			requireCounts(t, counts{"a": 7}, v)
			require.NoError(t, dec.DecodeVector([]byte{1, 1, 1, 'b', 2, 0, 8, 1, 9}, &v))
			requireCounts(t, counts{"a": 8, "b": 9}, v)
		})
	}
}

func TestVectorStreamDoesNotAllocate(t *testing.T) {
	var enc VectorEncoder
	var dec VectorDecoder
	v, _ := vectorsOf(100)
	var got Vector
	buf := enc.AppendVector(nil, v)
	require.NoError(t, dec.DecodeVector(buf, &got))
	require.Zero(t, testing.AllocsPerRun(100, func() {
		buf = enc.AppendVector(buf[:0], v)
		_ = dec.DecodeVector(buf, &got)
	}))
	require.Equal(t, Equal, v.Compare(got))
}

func FuzzVectorDecoder(f *testing.F) {
	f.Add([]byte{1, 1, 1, 'a', 1, 0, 7}, []byte{1, 0, 1, 0, 8})
	f.Add([]byte{1, 2, 1, 'b', 1, 'a', 2, 1, 7, 0, 9}, []byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var dec VectorDecoder
		var v Vector
		for _, b := range [][]byte{first, second} {
			before := v.Clone()
			if dec.DecodeVector(b, &v) != nil {
				require.Equal(t, Equal, v.Compare(before))
			}
			requireCounts(t, maps.Collect(v.All()), v)
		}
	})
}
