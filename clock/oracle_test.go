package clock

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
)

// check runs a property 1,000 times, 100,000 times in the soak.
func check(t *testing.T, prop func(*rapid.T)) {
	t.Helper()
	testsize.Checks(t, 1000, 100_000)
	rapid.Check(t, prop)
}

// counts is a vector as the definition has it: a function from ids to numbers, zeros allowed.
type counts = map[coterie.NodeID]uint64

// drawCounts draws few ids and small numbers, so that ids are shared, disjoint, missing and explicitly zero.
func drawCounts(t *rapid.T, label string) counts {
	return rapid.MapOfN(rapid.SampledFrom([]coterie.NodeID{"", "a", "aa", "b", "c", "d", "node-1", "node-2", "z"}),
		rapid.Uint64Range(0, 3), 0, 9).Draw(t, label)
}

// compareCounts is the definition: a <= b if no entry of a is greater.
func compareCounts(a, b counts) Ordering {
	atMost := func(a, b counts) bool {
		for id, n := range a {
			if n > b[id] {
				return false
			}
		}
		return true
	}
	switch ab, ba := atMost(a, b), atMost(b, a); {
	case ab && ba:
		return Equal
	case ab:
		return Before
	case ba:
		return After
	}
	return Concurrent
}

func mergeCounts(a, b counts) counts {
	m := counts{}
	for id, n := range a {
		m[id] = max(m[id], n)
	}
	for id, n := range b {
		m[id] = max(m[id], n)
	}
	return m
}

// requireCounts checks a vector against its definition, and the invariants of its form.
func requireCounts(t require.TestingT, want counts, got Vector) {
	seen := counts{}
	var ids []coterie.NodeID
	for id, n := range got.All() {
		require.NotZero(t, n)
		seen[id], ids = n, append(ids, id)
	}
	require.True(t, slices.IsSorted(ids))
	require.Len(t, seen, len(ids), "an id stands twice")
	nonzero := counts{}
	for id, n := range want {
		require.Equal(t, n, got.Get(id))
		if n > 0 {
			nonzero[id] = n
		}
	}
	require.Equal(t, nonzero, seen)
	require.Equal(t, len(nonzero), got.Len())
}

// dotModel is a DotSet as the definition has it.
type dotModel map[Dot]bool

func drawDots(t *rapid.T, label string) (DotSet, dotModel) {
	dots := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Dot {
		return Dot{rapid.SampledFrom([]coterie.NodeID{"a", "b", "c", "dd"}).Draw(t, "node"),
			rapid.Uint64Range(1, 14).Draw(t, "seq")}
	}), 0, 30).Draw(t, label)
	var s DotSet
	m := dotModel{}
	for _, d := range dots {
		require.Equal(t, !m[d], s.Add(d))
		m[d] = true
	}
	return s, m
}

// requireDots checks a set against its definition, and the invariants of its form.
func requireDots(t require.TestingT, want dotModel, got DotSet) {
	var sorted []Dot
	for d := range want {
		sorted = append(sorted, d)
	}
	slices.SortFunc(sorted, Dot.Compare)
	require.Equal(t, sorted, slices.Collect(got.All()))
	require.Equal(t, uint64(len(want)), got.Len())
	require.Equal(t, len(want) == 0, got.IsEmpty())
	for i, d := range got.nodes {
		require.NotZero(t, d.last(), "a node without events")
		require.True(t, i == 0 || got.nodes[i-1].id < d.id)
		end := d.upto
		for _, r := range d.runs {
			require.Greater(t, r.from, end+1, "runs touch")
			require.GreaterOrEqual(t, r.to, r.from)
			end = r.to
		}
	}
	for _, id := range []coterie.NodeID{"a", "b", "c", "dd", "none"} {
		n := uint64(0)
		for want[Dot{id, n + 1}] {
			n++
		}
		require.Equal(t, n, got.Contiguous(id))
		require.Equal(t, n, got.Vector().Get(id))
		for seq := range uint64(20) {
			has := want[Dot{id, seq}]
			if has != got.Contains(Dot{id, seq}) || has && got.Max(id) < seq {
				require.Fail(t, "wrong membership", "%d of %q in %v", seq, id, got)
			}
		}
	}
}
