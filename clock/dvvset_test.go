package clock

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
)

// history is a replica of a key by the definition: all writes it knows, those of them replaced, and the values.
type history struct {
	known, gone dotModel
	values      map[Dot]int
}

func newHistory() *history { return &history{dotModel{}, dotModel{}, map[Dot]int{}} }

func (h *history) discard(seen dotModel) {
	for d := range seen {
		h.known[d], h.gone[d] = true, true
	}
}

func (h *history) merge(o *history) {
	maps.Copy(h.known, o.known)
	maps.Copy(h.gone, o.gone)
	maps.Copy(h.values, o.values)
}

func (h *history) siblings() map[Dot]int {
	s := map[Dot]int{}
	for d := range h.known {
		if !h.gone[d] {
			s[d] = h.values[d]
		}
	}
	return s
}

func (h *history) within(o *history) bool {
	for d := range h.known {
		if !o.known[d] || h.gone[d] && !o.gone[d] {
			return false
		}
	}
	return true
}

// reading is what a client got from a replica: a context, and the writes it stands for.
type reading struct {
	context Vector
	seen    dotModel
}

func TestDVVSetAgreesWithTheSiblingOracle(t *testing.T) {
	ids := []coterie.NodeID{"a", "b", "c"}
	check(t, func(t *rapid.T) {
		sets := make([]DVVSet[int], len(ids))
		models := []*history{newHistory(), newHistory(), newHistory()}
		readings := []reading{{Vector{}, dotModel{}}}
		value := 0
		replica := rapid.IntRange(0, len(ids)-1)
		pick := func(t *rapid.T) reading { return rapid.SampledFrom(readings).Draw(t, "reading") }
		t.Repeat(map[string]func(*rapid.T){
			"read": func(t *rapid.T) {
				i := replica.Draw(t, "replica")
				readings = append(readings, reading{sets[i].Context(), maps.Clone(models[i].known)})
			},
			"write": func(t *rapid.T) {
				i, r := replica.Draw(t, "replica"), pick(t)
				value++
				d := sets[i].Write(ids[i], r.context, value)
				models[i].discard(r.seen)
				require.False(t, models[i].known[d])
				models[i].known[d], models[i].values[d] = true, value
			},
			"delete": func(t *rapid.T) {
				i, r := replica.Draw(t, "replica"), pick(t)
				sets[i].Discard(r.context)
				models[i].discard(r.seen)
			},
			"merge": func(t *rapid.T) {
				i, j := replica.Draw(t, "to"), replica.Draw(t, "from")
				sets[i].Merge(sets[j].Clone())
				models[i].merge(models[j])
			},
			"": func(t *rapid.T) {
				for i := range sets {
					require.Equal(t, models[i].siblings(), maps.Collect(sets[i].All()))
					require.Equal(t, sets[i].Len(), len(sets[i].Values()))
					for j := range sets {
						less, greater := !models[j].within(models[i]), !models[i].within(models[j])
						require.Equal(t, ordering(less, greater), sets[i].Compare(sets[j]))
					}
				}
			},
		})
		all := DVVSet[int]{}
		for _, i := range rapid.Permutation([]int{0, 1, 2, 0}).Draw(t, "order") {
			all.Merge(sets[i])
		}
		want := newHistory()
		for _, m := range models {
			want.merge(m)
		}
		require.Equal(t, want.siblings(), maps.Collect(all.All()))
	})
}

// Clients that write by turns without reading in between multiply the siblings of a plain version vector with server
// ids; with one set entry per server just the last values of each remain.
func TestDVVSetSiblingsDoNotExplode(t *testing.T) {
	var s DVVSet[string]
	var mine, yours Vector
	for range 100 {
		s.Write("server", mine, "mine")
		mine = s.Context()
		s.Write("server", yours, "yours")
		yours = s.Context()
		require.LessOrEqual(t, s.Len(), 2)
	}
}

func encodeString(b []byte, s string) ([]byte, error) { return append(b, s...), nil }
func decodeString(b []byte) (string, error)           { return string(b), nil }

func TestDVVSetEncodingRoundTrips(t *testing.T) {
	var s, got DVVSet[string]
	s.Write("b", Vector{}, "x")
	s.Write("b", s.Context(), "y")
	s.Write("b", Vector{}, "")
	s.Write("a", Vector{}, "z")
	s.Discard(VectorOf(counts{"c": 3}))
	b, err := s.AppendBinaryFunc(nil, encodeString)
	require.NoError(t, err)
	require.NoError(t, got.UnmarshalBinaryFunc(b, decodeString))
	require.Equal(t, maps.Collect(s.All()), maps.Collect(got.All()))
	require.Equal(t, Equal, s.Compare(got))
	b, err = json.Marshal(s)
	require.NoError(t, err)
	require.JSONEq(t, `{"a":{"writes":1,"values":["z"]},"b":{"writes":3,"values":["y",""]},"c":{"writes":3,"values":[]}}`, string(b))
	got = DVVSet[string]{}
	require.NoError(t, json.Unmarshal(b, &got))
	require.Equal(t, Equal, s.Compare(got))

	bad := errors.New("bad value")
	_, err = s.AppendBinaryFunc(nil, func([]byte, string) ([]byte, error) { return nil, bad })
	require.ErrorIs(t, err, bad)
	for _, j := range []string{`{"a":{"writes":0}}`, `{"a":{"writes":1,"values":["a","b"]}}`, `{"a":{"writes":9223372036854775807}}`, `1`} {
		require.Error(t, got.UnmarshalJSON([]byte(j)), j)
	}
	require.Equal(t, Equal, s.Compare(got))
}

func FuzzDVVSetUnmarshal(f *testing.F) {
	f.Add([]byte{1, 0})
	f.Add([]byte{1, 1, 1, 'a', 2, 1, 1, 'x'})
	f.Add([]byte{1, 2, 1, 'a', 2, 2, 1, 'x', 0, 1, 'b', 5, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s, again DVVSet[string]
		s.Write("q", Vector{}, "old")
		if s.UnmarshalBinaryFunc(b, decodeString) != nil {
			require.Equal(t, []string{"old"}, s.Values())
			return
		}
		enc, err := s.AppendBinaryFunc(nil, encodeString)
		require.NoError(t, err)
		require.NoError(t, again.UnmarshalBinaryFunc(enc, decodeString))
		require.Equal(t, Equal, s.Compare(again))
		require.True(t, slices.Equal(s.Values(), again.Values()))
	})
}
