package quorum_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/quorum"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// every returns all sets of n nodes.
func every(n int) []quorum.Set {
	sets := make([]quorum.Set, 1<<n)
	for i := range sets {
		sets[i] = quorum.Set(i)
	}
	return sets
}

// minimalByDefinition keeps the quorums that contain no other, by looking at all sets.
func minimalByDefinition(n int, isQuorum func(quorum.Set) bool) []quorum.Set {
	var out []quorum.Set
	for _, s := range every(n) {
		if !isQuorum(s) {
			continue
		}
		minimal := true
		for i := range s.All() {
			minimal = minimal && !isQuorum(s.Without(i))
		}
		if minimal {
			out = append(out, s)
		}
	}
	return out
}

func sortedQuorums(s quorum.System) []quorum.Set {
	qs := slices.Collect(s.Quorums())
	slices.Sort(qs)
	return qs
}

// named turns a set into the oracle's form.
func named(s quorum.System, set quorum.Set) map[coterie.NodeID]bool {
	m := map[coterie.NodeID]bool{}
	for _, id := range s.IDs(set) {
		m[id] = true
	}
	return m
}

func TestExpressionsMeanWhatTheySay(t *testing.T) {
	testsize.Checks(t, 200, 5000)
	rapid.Check(t, func(t *rapid.T) {
		f := drawFormula(t, names(rapid.IntRange(1, 8).Draw(t, "n")), 3)
		dual := f.sys.Dual()
		n := f.sys.Len()
		for _, set := range every(n) {
			require.Equal(t, f.holds(named(f.sys, set)), f.sys.IsQuorum(set), "%v of %v", set, f.sys)
			rest := every(n)[len(every(n))-1] &^ set
			require.Equal(t, !f.sys.IsQuorum(rest), dual.IsQuorum(set), "the dual by definition")
		}
		want := minimalByDefinition(n, f.sys.IsQuorum)
		require.Equal(t, want, sortedQuorums(f.sys))
		require.Equal(t, want, sortedQuorums(dual.Dual()), "the dual's dual is the minimal original")
		require.Equal(t, dual.String(), dual.Dual().Dual().String())
	})
}

func TestEveryReadMeetsEveryWrite(t *testing.T) {
	testsize.Checks(t, 200, 5000)
	rapid.Check(t, func(t *rapid.T) {
		ids := names(rapid.IntRange(1, 6).Draw(t, "n"))
		read, write := drawFormula(t, ids, 2).sys, drawFormula(t, ids, 2).sys
		meets := true
		for q := range read.Quorums() {
			for w := range write.Quorums() {
				common := slices.ContainsFunc(read.IDs(q), func(id coterie.NodeID) bool { return slices.Contains(write.IDs(w), id) })
				meets = meets && common
			}
		}
		rw, err := quorum.NewReadWrite(read, write)
		var disjoint *quorum.DisjointError
		if meets {
			require.NoError(t, err)
			require.Equal(t, len(slices.Collect(read.Quorums())), len(slices.Collect(rw.Read().Quorums())))
		} else {
			require.ErrorAs(t, err, &disjoint)
			require.True(t, read.IsQuorum(read.Set(disjoint.Read...)))
			require.True(t, write.IsQuorum(write.Set(disjoint.Write...)))
			require.False(t, slices.ContainsFunc(disjoint.Read, func(id coterie.NodeID) bool { return slices.Contains(disjoint.Write, id) }))
		}
		best, err := quorum.FromReads(read)
		require.NoError(t, err)
		overlap := best.Read().Len()
		for q := range best.Read().Quorums() {
			for w := range best.Write().Quorums() {
				require.NotZero(t, q&w)
				overlap = min(overlap, (q & w).Len())
			}
		}
		require.Equal(t, overlap, best.Overlap())
	})
}

func TestResilienceAndAvailabilityEqualBruteForce(t *testing.T) {
	testsize.Checks(t, 200, 5000)
	rapid.Check(t, func(t *rapid.T) {
		f := drawFormula(t, names(rapid.IntRange(1, 9).Draw(t, "n")), 3)
		n := f.sys.Len()
		p := rapid.Float64Range(0, 1).Draw(t, "p")
		smallest, killed, available := n+1, n+1, 0.0
		for _, alive := range every(n) {
			if f.sys.IsQuorum(alive) {
				smallest = min(smallest, alive.Len())
				available += math.Pow(1-p, float64(alive.Len())) * math.Pow(p, float64(n-alive.Len()))
			} else {
				killed = min(killed, n-alive.Len())
			}
		}
		require.Equal(t, smallest, f.sys.Smallest())
		require.Equal(t, killed-1, f.sys.Resilience())
		require.InDelta(t, available, f.sys.Availability(p), 1e-12)
	})
}

func TestWeightsAreRepetition(t *testing.T) {
	testsize.Checks(t, 200, 5000)
	rapid.Check(t, func(t *rapid.T) {
		ids := names(rapid.IntRange(1, 6).Draw(t, "n"))
		weights := map[coterie.NodeID]int{}
		var repeated []quorum.System
		total := 0
		for _, id := range ids {
			w := rapid.IntRange(1, 4).Draw(t, string(id))
			weights[id] = w
			total += w
			for range w {
				repeated = append(repeated, quorum.Node(id))
			}
		}
		need := rapid.IntRange(1, total).Draw(t, "need")
		a, b := quorum.Weighted(weights, need), quorum.Choose(need, repeated...)
		require.NoError(t, a.Err())
		require.Equal(t, minimalByDefinition(len(ids), func(s quorum.Set) bool {
			sum := 0
			for _, id := range a.IDs(s) {
				sum += weights[id]
			}
			return sum >= need
		}), sortedQuorums(a))
		require.Equal(t, sortedQuorums(a), sortedQuorums(b))
	})
}

func TestShapes(t *testing.T) {
	ids := func(s string) []coterie.NodeID {
		var out []coterie.NodeID
		for _, r := range s {
			out = append(out, coterie.NodeID(r))
		}
		return out
	}
	show := func(s quorum.System) string {
		text := ""
		for _, q := range sortedQuorums(s) {
			for _, id := range s.IDs(q) {
				text += string(id)
			}
			text += " "
		}
		return text
	}
	grid, err := quorum.Grid(ids("abc"), ids("def"))
	require.NoError(t, err)
	require.Equal(t, "abc def ", show(grid.Read()))
	require.Equal(t, "ad bd cd ae be ce af bf cf ", show(grid.Write()))
	require.Equal(t, "reads (a & b & c) | (d & e & f), writes (a | b | c) & (d | e | f)", grid.String())
	require.Equal(t, "abd acd bcd abe ace bce abf acf bcf ", show(quorum.And(quorum.Threshold(2, ids("abc")...), quorum.Or(
		quorum.Node("d"), quorum.Node("e"), quorum.Node("f")))))

	tree := quorum.Tree(ids("rxyabcd")...) // r over x(a b) and y(c d)
	require.True(t, tree.IsQuorum(tree.Set(ids("rxa")...)), "a path")
	require.True(t, tree.IsQuorum(tree.Set(ids("xayc")...)), "without the root: paths in both halves")
	require.True(t, tree.IsQuorum(tree.Set(ids("abcd")...)), "the leaves")
	require.False(t, tree.IsQuorum(tree.Set(ids("rab")...).Without(0)))
	require.Equal(t, 3, tree.Smallest())

	h := quorum.Hierarchical(quorum.Majority(ids("abc")...), quorum.Majority(ids("def")...), quorum.Majority(ids("ghi")...))
	require.Equal(t, 4, h.Smallest(), "9^0.63, less than the 5 of a majority")
	require.Equal(t, 27, len(sortedQuorums(h)))

	for n := 1; n <= 16; n++ {
		classic, fast := quorum.FastPaxos(names(n)...)
		c, f := classic.Smallest(), fast.Smallest()
		require.Greater(t, c+2*f, 2*n, "two fast quorums and a classic one meet (Lamport 2006, §2.2)")
		require.LessOrEqual(t, c+2*(f-1), 2*n, "and no smaller fast quorum would do")
	}
	for n := 4; n <= 16; n++ {
		q, f := quorum.Byzantine(names(n)...).Smallest(), (n-1)/3
		require.GreaterOrEqual(t, 2*q-n, f+1, "two quorums share a correct node")
		require.LessOrEqual(t, q, n-f, "the correct nodes are a quorum")
	}
	for n := 5; n <= 21; n++ {
		q, f := quorum.Masking(names(n)...).Smallest(), (n-1)/4
		require.GreaterOrEqual(t, 2*q-n, 2*f+1, "more correct than faulty nodes in common")
		require.LessOrEqual(t, q, n-f, "the correct nodes are a quorum")
	}
	require.Equal(t, 3, quorum.Byzantine(names(4)...).Smallest())
	require.Equal(t, 4, quorum.Masking(names(5)...).Smallest())

	fp, err := quorum.FlexiblePaxos(2, names(6)...)
	require.NoError(t, err)
	require.Equal(t, 5, fp.Read().Smallest())
	for _, s := range []quorum.System{tree, h, quorum.Byzantine(names(7)...), quorum.Masking(names(9)...), quorum.Tree(names(6)...),
		quorum.Majority(names(4)...), quorum.And(quorum.Majority(names(3)...), quorum.Majority(names(5)...))} {
		_, err := quorum.Symmetric(s)
		require.NoError(t, err, s.String())
	}
}

func TestConstructionNamesTheDisjointQuorums(t *testing.T) {
	_, err := quorum.NRW([]coterie.NodeID{"a", "b", "c", "d"}, 2, 2)
	var disjoint *quorum.DisjointError
	require.ErrorAs(t, err, &disjoint)
	require.Equal(t, []coterie.NodeID{"a", "b"}, disjoint.Read)
	require.Equal(t, []coterie.NodeID{"c", "d"}, disjoint.Write)
	require.EqualError(t, err, "quorum: read quorum {a b} and write quorum {c d} have no node in common")
	_, err = quorum.NRW(names(4), 2, 3)
	require.NoError(t, err)
	_, err = quorum.Symmetric(quorum.Or(quorum.Node("a"), quorum.Node("b")))
	require.ErrorAs(t, err, &disjoint)
}

func TestLargeSystemsAreFast(t *testing.T) {
	all := names(quorum.MaxNodes)
	maj := quorum.Majority(all...)
	require.Equal(t, 33, maj.Smallest())
	require.Equal(t, 31, maj.Resilience())
	require.InDelta(t, 1, maj.Availability(0.01), 1e-12)
	_, err := quorum.NRW(all, 33, 32)
	require.NoError(t, err)
	joint := quorum.And(quorum.Majority(all[:33]...), quorum.Majority(all[31:]...))
	_, err = quorum.Symmetric(joint)
	require.NoError(t, err)
	require.Equal(t, 16, joint.Resilience())
	tree := quorum.Tree(all[:63]...)
	require.Equal(t, 6, tree.Smallest())
	require.Equal(t, 5, tree.Resilience())
}

func TestBadArgumentsGiveErrors(t *testing.T) {
	for _, s := range []quorum.System{
		quorum.Threshold(0, "a"), quorum.Threshold(2, "a"), quorum.Weighted(nil, 1),
		quorum.Weighted(map[coterie.NodeID]int{"a": -1, "b": 3}, 1), quorum.Weighted(map[coterie.NodeID]int{"a": 1}, 2),
		quorum.Weighted(map[coterie.NodeID]int{"a": math.MaxInt, "b": 1}, 2), quorum.Tree(), quorum.Tree("a", "a"),
		quorum.Hierarchical(), quorum.Byzantine("a", "b", "c"), quorum.Masking(names(4)...), quorum.Majority().Dual(),
	} {
		require.Error(t, s.Err())
		require.Equal(t, -1, s.Resilience())
		require.Zero(t, s.Smallest())
		require.Zero(t, s.Availability(0))
		require.Empty(t, slices.Collect(s.Quorums()))
		require.Contains(t, s.String(), "invalid")
		_, err := quorum.FromReads(s)
		require.Error(t, err)
		_, err = quorum.NewReadWrite(s, quorum.Node("a"))
		require.Error(t, err)
	}
	_, err := quorum.Grid()
	require.Error(t, err)
	_, err = quorum.Grid([]coterie.NodeID{"a"}, nil)
	require.Error(t, err)
	_, err = quorum.Grid([]coterie.NodeID{"a"}, []coterie.NodeID{"a"})
	require.ErrorContains(t, err, `"a" twice`)
	require.True(t, errors.Is(quorum.And(quorum.System{}).Err(), quorum.System{}.Err()))
}

func ExampleGrid() {
	grid, err := quorum.Grid([]coterie.NodeID{"a", "b", "c"}, []coterie.NodeID{"d", "e", "f"})
	if err != nil {
		panic(err)
	}
	fmt.Println(grid)
	fmt.Println(grid.IsRead(grid.Set("a", "b", "c")), grid.IsWrite(grid.Set("a", "b")))
	fmt.Println("resilience", grid.Read().Resilience(), grid.Write().Resilience())
	// Output:
	// reads (a & b & c) | (d & e & f), writes (a | b | c) & (d | e | f)
	// true false
	// resilience 1 2
}

func ExampleNRW() {
	_, err := quorum.NRW([]coterie.NodeID{"a", "b", "c"}, 1, 2)
	fmt.Println(err)
	// Output: quorum: read quorum {a} and write quorum {b c} have no node in common
}
