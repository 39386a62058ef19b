package hashring

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie/internal/testsize"
)

// The race for partitions ends as its definition says: each node's first draw of each partition, written down at
// length, and sorted.
func TestTableAgreesWithTheWholeRace(t *testing.T) {
	testsize.Checks(t, 3000, 100_000)
	rapid.Check(t, func(t *rapid.T) {
		replicas := rapid.IntRange(1, 3).Draw(t, "replicas")
		table, err := NewTable(Config[string]{Partitions: 16, Replicas: replicas})
		require.NoError(t, err)
		for _, node := range names(rapid.IntRange(1, 6).Draw(t, "nodes")) {
			require.NoError(t, table.Add(node))
			require.NoError(t, table.SetWeight(node, rapid.Float64Range(0.1, 10).Draw(t, "weight")))
		}
		members := table.placed.Load().members
		type first struct {
			at   float64
			node int
		}
		for p := range 16 {
			race := []first{}
			for i, m := range members {
				for j := uint64(0); ; j++ {
					if x := mix(m.hash ^ mix(j)); int(x>>60) == p {
						race = append(race, first{(float64(j) + float64(uint32(x))/(1<<32)) / m.weight, i})
						break
					}
				}
			}
			slices.SortFunc(race, func(a, b first) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.node, b.node)) })
			got := slices.Collect(table.Order(uint64(p) << 60))
			for i := range min(replicas, len(race)) {
				require.Equal(t, members[race[i].node].node, got[i], "partition %d, place %d", p, i)
			}
		}
	})
}

// W and L of the paper: W holds the working buckets, L where each stands in it; and what was removed last is the first
// to come back, with all as it was.
func TestAnchorKeepsItsBooks(t *testing.T) {
	testsize.Checks(t, 200, 20_000)
	rapid.Check(t, func(t *rapid.T) {
		a, err := NewAnchor(Config[string]{Capacity: rapid.IntRange(0, 12).Draw(t, "capacity")}, names(rapid.IntRange(0, 8).Draw(t, "nodes"))...)
		require.NoError(t, err)
		for i := range rapid.IntRange(1, 40).Draw(t, "changes") {
			nodes := collect(a)
			if len(nodes) > 0 && rapid.Bool().Draw(t, "remove") {
				require.NoError(t, a.Remove(rapid.SampledFrom(nodes).Draw(t, "node")))
			} else {
				require.NoError(t, a.Add(fmt.Sprint("new-", i)))
			}
			tables := a.tables.Load()
			working := a.Len()
			require.Len(t, a.where, working)
			for i, b := range a.w[:working] {
				require.Zero(t, tables.a[b].Load(), "bucket %d works", b)
				require.Equal(t, uint32(i), a.l[b])
			}
			require.Len(t, a.removed, int(tables.size.Load())-working)
			for i, b := range a.removed {
				require.Equal(t, len(a.removed)-1-i+working, int(tables.a[b].Load()), "what worked when bucket %d was removed", b)
			}
		}
	})
}
