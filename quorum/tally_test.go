package quorum_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/quorum"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// names returns n node ids, a, b, c ...
func names(n int) []coterie.NodeID {
	ids := make([]coterie.NodeID, n)
	for i := range ids {
		ids[i] = coterie.NodeID(fmt.Sprintf("n%02d", i))
	}
	return ids
}

// formula is the oracle of a System: its meaning by definition, on sets of names.
type formula struct {
	sys   quorum.System
	holds func(map[coterie.NodeID]bool) bool
}

// drawFormula draws an expression over the nodes together with its definition.
func drawFormula(t *rapid.T, ids []coterie.NodeID, depth int) formula {
	if depth == 0 || rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
		id := rapid.SampledFrom(ids).Draw(t, "node")
		return formula{quorum.Node(id), func(s map[coterie.NodeID]bool) bool { return s[id] }}
	}
	parts := make([]formula, rapid.IntRange(1, 4).Draw(t, "parts"))
	systems := make([]quorum.System, len(parts))
	for i := range parts {
		parts[i] = drawFormula(t, ids, depth-1)
		systems[i] = parts[i].sys
	}
	k := rapid.IntRange(1, len(parts)).Draw(t, "k")
	return formula{quorum.Choose(k, systems...), func(s map[coterie.NodeID]bool) bool {
		count := 0
		for _, p := range parts {
			if p.holds(s) {
				count++
			}
		}
		return count >= k
	}}
}

func TestTallyAgreesWithCounting(t *testing.T) {
	testsize.Checks(t, 300, 20000)
	rapid.Check(t, func(t *rapid.T) {
		ids := names(rapid.IntRange(1, 7).Draw(t, "n"))
		f := drawFormula(t, ids, 3)
		require.NoError(t, f.sys.Err())
		ballot := rapid.Uint64Range(0, 3).Draw(t, "ballot")
		tally := quorum.NewTally(f.sys, ballot)
		first := map[coterie.NodeID]bool{} // the first answer of each node stands
		yes, notNo := map[coterie.NodeID]bool{}, map[coterie.NodeID]bool{}
		for _, id := range ids {
			notNo[id] = true
		}
		for range rapid.IntRange(0, 20).Draw(t, "replies") {
			id := rapid.SampledFrom(append(names(8), "stranger")).Draw(t, "from")
			at, ok := rapid.Uint64Range(0, 3).Draw(t, "at"), rapid.Bool().Draw(t, "ok")
			got := tally.AddAt(at, id, ok)
			if _, again := first[id]; at == ballot && !again {
				first[id] = ok
				if ok {
					yes[id] = true
				} else {
					delete(notNo, id)
				}
			}
			want := quorum.Pending
			if f.holds(yes) {
				want = quorum.Won
			} else if !f.holds(notNo) {
				want = quorum.Lost
			}
			require.Equal(t, want, got)
			require.Equal(t, want, tally.Outcome())
		}
	})
}

func TestTallyCountsNodesAndNotMessages(t *testing.T) {
	tally := quorum.NewTally(quorum.Majority("a", "b", "c"), 7)
	for range 5 {
		require.Equal(t, quorum.Pending, tally.Add("a", true), "one node's vote, repeated")
	}
	require.Equal(t, quorum.Pending, tally.Add("d", true), "not a voter")
	require.Equal(t, quorum.Pending, tally.AddAt(6, "b", true), "an answer to an older ballot")
	require.Equal(t, quorum.Pending, tally.AddAt(8, "b", true), "an answer to a newer ballot")
	require.Equal(t, quorum.Pending, tally.Add("a", false), "the first answer stands")
	require.Equal(t, quorum.Pending, tally.Add("b", false))
	require.Equal(t, quorum.Won, tally.Add("c", true))
	tally.Reset(8)
	require.Equal(t, quorum.Pending, tally.Outcome())
	require.Equal(t, uint64(8), tally.Ballot())
	require.Equal(t, quorum.Pending, tally.Add("a", false))
	require.Equal(t, quorum.Lost, tally.Add("b", false), "known before c answers")
}

func TestTallyOfNoSystemIsLost(t *testing.T) {
	var zero quorum.Tally
	require.Equal(t, quorum.Lost, zero.Add("a", true))
	zero.Reset(3)
	require.Equal(t, quorum.Lost, zero.Outcome())
	for _, bad := range []quorum.System{{}, quorum.Majority(), quorum.Majority("a", "a"), quorum.Majority(names(65)...),
		quorum.And(), quorum.Or(), quorum.Choose(0, quorum.Node("a")), quorum.Choose(2, quorum.Node("a")),
		quorum.And(quorum.Node("a"), quorum.Majority())} {
		require.Error(t, bad.Err())
		tally := quorum.NewTally(bad, 1)
		require.Equal(t, quorum.Lost, tally.Outcome())
		require.Equal(t, quorum.Lost, tally.Add("a", true))
		require.Zero(t, bad.Committed(func(coterie.NodeID) uint64 { return 9 }))
	}
}

func TestJointVoteNeedsBothHalves(t *testing.T) {
	joint := quorum.And(quorum.Majority("a", "b", "c"), quorum.Majority("c", "d", "e"))
	tally := quorum.NewTally(joint, 1)
	require.Equal(t, quorum.Pending, tally.Add("a", true))
	require.Equal(t, quorum.Pending, tally.Add("b", true))
	require.Equal(t, quorum.Pending, tally.Add("c", true), "a majority of the old, one of the new")
	require.Equal(t, quorum.Won, tally.Add("d", true))
	tally.Reset(2)
	tally.Add("d", false)
	require.Equal(t, quorum.Lost, tally.Add("e", false), "the new half is lost")
}

func TestCommittedAgreesWithDefinition(t *testing.T) {
	testsize.Checks(t, 300, 20000)
	rapid.Check(t, func(t *rapid.T) {
		ids := names(rapid.IntRange(1, 7).Draw(t, "n"))
		f := drawFormula(t, ids, 3)
		acked := map[coterie.NodeID]uint64{}
		for _, id := range ids {
			acked[id] = rapid.Uint64Range(0, 9).Draw(t, string(id))
		}
		var want uint64
		for level := range uint64(10) {
			reached := map[coterie.NodeID]bool{}
			for id, at := range acked {
				reached[id] = at >= level
			}
			if f.holds(reached) {
				want = level
			}
		}
		require.Equal(t, want, f.sys.Committed(func(id coterie.NodeID) uint64 { return acked[id] }))
	})
}

func TestVotesDoNotAllocate(t *testing.T) {
	joint := quorum.And(quorum.Majority("a", "b", "c"), quorum.Majority("c", "d", "e"))
	tally := quorum.NewTally(joint, 1)
	ids, ballot := joint.Nodes(), uint64(1)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		ballot++
		tally.Reset(ballot)
		for _, id := range ids {
			tally.Add(id, true)
		}
	}))
	require.Zero(t, testing.AllocsPerRun(100, func() {
		joint.Committed(func(id coterie.NodeID) uint64 { return ballot + uint64(id[0]) })
	}))
}

func ExampleTally() {
	tally := quorum.NewTally(quorum.Majority("a", "b", "c"), 7)
	fmt.Println(tally.Add("a", true))
	fmt.Println(tally.Add("a", true)) // a repetition
	fmt.Println(tally.Add("c", true))
	// Output:
	// pending
	// pending
	// won
}

func ExampleSystem_Committed() {
	voters := quorum.Majority("a", "b", "c")
	acked := map[coterie.NodeID]uint64{"a": 7, "b": 5, "c": 4}
	fmt.Println(voters.Committed(func(id coterie.NodeID) uint64 { return acked[id] }))
	// Output: 5
}

// Nodes are found by their whole names, whatever these have in common.
func TestNodesAreFoundByName(t *testing.T) {
	testsize.Checks(t, 300, 20000)
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.Custom(func(t *rapid.T) coterie.NodeID {
			return coterie.NodeID(rapid.SampledFrom([]string{"", "a", "b", "node-", "x:"}).Draw(t, "head") +
				rapid.StringOfN(rapid.RuneFrom([]rune("ab")), 0, 3, 3).Draw(t, "middle") +
				rapid.SampledFrom([]string{"", "a", ":7000"}).Draw(t, "tail"))
		})
		ids := rapid.SliceOfNDistinct(name, 1, 20, rapid.ID[coterie.NodeID]).Draw(t, "ids")
		s := quorum.Or(quorum.Threshold(1, ids...), quorum.Threshold(len(ids), ids...))
		require.Equal(t, len(ids), s.Len())
		for i, id := range s.Nodes() {
			require.True(t, s.Has(id))
			require.Equal(t, quorum.Set(1)<<i, s.Set(id))
		}
		stranger := name.Draw(t, "stranger")
		require.Equal(t, slices.Contains(ids, stranger), s.Has(stranger))
	})
}
