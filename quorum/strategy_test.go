package quorum_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/quorum"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func node(id coterie.NodeID) quorum.System { return quorum.Node(id) }

// all and one build And and Or of single nodes named by a letter each.
func all(ids string) quorum.System { return quorum.And(each(ids)...) }
func one(ids string) quorum.System { return quorum.Or(each(ids)...) }

func each(ids string) []quorum.System {
	var out []quorum.System
	for _, r := range ids {
		out = append(out, quorum.Node(coterie.NodeID(r)))
	}
	return out
}

func mustReads(tb testing.TB, reads quorum.System) quorum.ReadWrite {
	tb.Helper()
	rw, err := quorum.FromReads(reads)
	require.NoError(tb, err)
	return rw
}

func capacity(tb testing.TB, reads quorum.System, m quorum.Model) float64 {
	tb.Helper()
	c, err := mustReads(tb, reads).Capacity(m)
	require.NoError(tb, err)
	return c
}

type profiles = map[coterie.NodeID]quorum.Profile

// The figures that the script examples/paper.py of mwhittaker/quoracle prints, which are those of the paper.
func TestWhittaker2021PaperExamples(t *testing.T) {
	maj := quorum.Majority("a", "b", "c")
	require.Equal(t, 1, mustReads(t, maj).Resilience())
	require.InDelta(t, 1.5, capacity(t, maj, quorum.Model{ReadFraction: 1}), 1e-9)

	grid := quorum.Or(all("ab"), all("cd"))
	require.InDelta(t, 150, capacity(t, grid, quorum.Model{ReadFraction: 1, Nodes: profiles{
		"a": {Reads: 100, Writes: 100}, "b": {Reads: 100, Writes: 100}, "c": {Reads: 50, Writes: 50}, "d": {Reads: 50, Writes: 50},
	}}), 1e-6)

	nodes := profiles{
		"a": {Reads: 200, Writes: 100, Latency: 4 * time.Second}, "b": {Reads: 200, Writes: 100, Latency: 4 * time.Second},
		"c": {Reads: 100, Writes: 50, Latency: time.Second}, "d": {Reads: 100, Writes: 50, Latency: time.Second},
	}
	for readFraction, want := range map[float64]float64{1: 300, 0.5: 200, 0: 100} {
		require.InDelta(t, want, capacity(t, grid, quorum.Model{ReadFraction: readFraction, Nodes: nodes}), 1e-6)
	}
	mix := []quorum.Share{{0, 10. / 18}, {0.25, 4. / 18}, {0.5, 2. / 18}, {0.75, 1. / 18}, {1, 1. / 18}}
	require.InDelta(t, 159, capacity(t, quorum.Or(all("ac"), all("bd")), quorum.Model{Mix: mix, Nodes: nodes}), 1)

	choose2 := quorum.Choose(2, each("abcd")...)
	require.InDelta(t, 300, capacity(t, choose2, quorum.Model{ReadFraction: 1, Nodes: nodes}), 1e-6)
	require.InDelta(t, 100, capacity(t, grid, quorum.Model{ReadFraction: 1, Nodes: nodes, Failures: 1}), 1e-6)
	resilient, report, err := mustReads(t, choose2).Analyse(quorum.Model{ReadFraction: 1, Nodes: nodes, Failures: 1})
	require.NoError(t, err)
	require.InDelta(t, 200, report.Capacity, 1e-6)
	require.Len(t, resilient.Reads(), 2)
	for _, c := range resilient.Reads() {
		require.InDelta(t, 0.5, c.Probability, 1e-9)
		require.True(t, c.Set.Has(0) && c.Set.Has(1) && c.Set.Len() == 3, "abc and abd")
	}

	_, report, err = mustReads(t, grid).Analyse(quorum.Model{ReadFraction: 1, Nodes: nodes})
	require.NoError(t, err)
	require.InDelta(t, 2, report.Network, 1e-9)
	require.Equal(t, 3*time.Second, report.Latency.Round(time.Microsecond))

	limited := quorum.Model{ReadFraction: 1, Nodes: nodes, Optimize: quorum.Latency, MaxLoad: 1. / 150, MaxNetwork: 2}
	strategy, report, err := mustReads(t, grid).Analyse(limited)
	require.NoError(t, err)
	rw := strategy.System()
	require.Equal(t, []coterie.NodeID{"c", "d"}, rw.IDs(strategy.Reads()[0].Set))
	require.InDelta(t, 2./3, strategy.Reads()[0].Probability, 1e-9)
	require.InDelta(t, 1./3, strategy.Reads()[1].Probability, 1e-9)
	require.InDelta(t, 150, report.Capacity, 1e-6)

	found, err := quorum.Search(context.Background(), quorum.SearchConfig{Nodes: []coterie.NodeID{"a", "b", "c", "d"}, Model: limited})
	require.NoError(t, err)
	require.True(t, found.Complete)
	require.Equal(t, time.Second, found.Report.Latency.Round(time.Microsecond))
	require.LessOrEqual(t, found.Report.Load, 1./150+1e-9)
	// The paper finds a + b + c + d.
	_, report, err = mustReads(t, one("abcd")).Analyse(limited)
	require.NoError(t, err)
	require.InDelta(t, found.Report.Latency.Seconds(), report.Latency.Seconds(), 1e-6)
	require.GreaterOrEqual(t, report.Capacity, 150-1e-6)
	require.InDelta(t, 1, report.Network, 1e-9)
}

// The figures of the README of mwhittaker/quoracle, the paper's library.
func TestWhittaker2021Tutorial(t *testing.T) {
	grid := mustReads(t, quorum.Or(all("abc"), all("def")))
	require.Equal(t, 1, grid.Read().Resilience())
	require.Equal(t, 2, grid.Write().Resilience())
	require.Equal(t, 1, grid.Resilience())

	byHand, err := grid.NewStrategy(
		map[quorum.Set]float64{grid.Set("a", "b", "c"): 2, grid.Set("d", "e", "f"): 1},
		map[quorum.Set]float64{grid.Set("a", "d"): 1, grid.Set("b", "e"): 1, grid.Set("c", "f"): 1})
	require.NoError(t, err)
	load := func(s quorum.Strategy, m quorum.Model) float64 {
		r, err := s.Report(m)
		require.NoError(t, err)
		return r.Load
	}
	require.InDelta(t, 2./3, load(byHand, quorum.Model{ReadFraction: 1}), 1e-9)
	require.InDelta(t, 1./3, load(byHand, quorum.Model{ReadFraction: 0}), 1e-9)
	require.InDelta(t, 5./12, load(byHand, quorum.Model{ReadFraction: 0.25}), 1e-9)
	r, err := byHand.Report(quorum.Model{ReadFraction: 0.25})
	require.NoError(t, err)
	for id, want := range map[coterie.NodeID]float64{"a": 5. / 12, "b": 5. / 12, "c": 5. / 12, "d": 1. / 3, "e": 1. / 3, "f": 1. / 3} {
		require.InDelta(t, want, r.Nodes[id], 1e-9)
	}

	best, report, err := grid.Analyse(quorum.Model{ReadFraction: 0.25})
	require.NoError(t, err)
	require.InDelta(t, 3./8, report.Load, 1e-9)
	require.InDelta(t, 8./3, report.Capacity, 1e-9)
	for readFraction, want := range map[float64]float64{0: 1. / 3, 0.5: 5. / 12, 1: 1. / 2} {
		require.InDelta(t, want, load(best, quorum.Model{ReadFraction: readFraction}), 1e-9)
	}
	mixed, err := grid.Load(quorum.Model{Mix: []quorum.Share{{0.1, 1}, {0.75, 1}}})
	require.NoError(t, err)
	require.InDelta(t, 0.404, mixed, 0.0005)

	same, faster := profiles{}, profiles{}
	for i, id := range grid.Nodes() {
		c := []float64{1000, 500}[i%2]
		same[id] = quorum.Profile{Reads: c, Writes: c}
		faster[id] = quorum.Profile{Reads: 10 * c, Writes: c}
	}
	c, err := grid.Capacity(quorum.Model{ReadFraction: 0.75, Nodes: same})
	require.NoError(t, err)
	require.InDelta(t, 1333, c, 0.5)
	for readFraction, want := range map[float64]float64{1: 10000, 0.5: 3913, 0: 2000} {
		c, err := grid.Capacity(quorum.Model{ReadFraction: readFraction, Nodes: faster})
		require.NoError(t, err)
		require.InDelta(t, want, c, 0.5)
	}

	// The README's case study: which of three systems of 5 nodes is best depends on whether one may fail.
	mix := []quorum.Share{{0.9, 0.9}, {0.1, 0.1}}
	maj, walls := quorum.Majority("a", "b", "c", "d", "e"), quorum.Or(all("ab"), all("cde"))
	paths := quorum.Or(all("ab"), all("ace"), all("de"), all("dcb"))
	for _, tc := range []struct {
		sys      quorum.System
		failures int
		want     float64
	}{{maj, 0, 5089}, {walls, 0, 5837}, {paths, 0, 5725}, {maj, 1, 3816}, {walls, 1, 1908}, {paths, 1, 1908}} {
		l, err := mustReads(t, tc.sys).Load(quorum.Model{Mix: mix, Nodes: faster, Failures: tc.failures})
		require.NoError(t, err)
		require.InDelta(t, tc.want, 1/l, 1, "%v", tc.sys) // that README inverts the mean load
	}
}

// The figures of tests/test_quorum_system.py of mwhittaker/quoracle.
func TestWhittaker2021Constraints(t *testing.T) {
	nodes := profiles{}
	for i, id := range []coterie.NodeID{"a", "b", "c", "d"} {
		nodes[id] = quorum.Profile{Reads: 2, Writes: 1, Latency: time.Duration(i+1) * time.Second}
	}
	rw := mustReads(t, quorum.Or(all("ab"), all("cd")))
	for _, tc := range []struct {
		m     quorum.Model
		value func(quorum.Report) float64
		want  float64
	}{
		{quorum.Model{ReadFraction: 1}, byLoad, 0.25},
		{quorum.Model{ReadFraction: 0}, byLoad, 0.5},
		{quorum.Model{ReadFraction: 1, MaxNetwork: 2}, byLoad, 0.25},
		{quorum.Model{ReadFraction: 0, MaxNetwork: 2}, byLoad, 0.5},
		{quorum.Model{ReadFraction: 1, MaxLatency: 4 * time.Second}, byLoad, 0.25},
		{quorum.Model{ReadFraction: 0, MaxLatency: 4 * time.Second}, byLoad, 0.5},
		{quorum.Model{ReadFraction: 1, Optimize: quorum.Network}, byNetwork, 2},
		{quorum.Model{ReadFraction: 0, Optimize: quorum.Network}, byNetwork, 2},
		{quorum.Model{ReadFraction: 1, Optimize: quorum.Network, MaxLoad: 0.25}, byNetwork, 2},
		{quorum.Model{ReadFraction: 0, Optimize: quorum.Network, MaxLoad: 0.5}, byNetwork, 2},
		{quorum.Model{ReadFraction: 1, Optimize: quorum.Network, MaxLatency: 2 * time.Second}, byNetwork, 2},
		{quorum.Model{ReadFraction: 0, Optimize: quorum.Network, MaxLatency: 3 * time.Second}, byNetwork, 2},
		{quorum.Model{ReadFraction: 1, Optimize: quorum.Latency}, byLatency, 2},
		{quorum.Model{ReadFraction: 0, Optimize: quorum.Latency}, byLatency, 3},
		{quorum.Model{ReadFraction: 1, Optimize: quorum.Latency, MaxLoad: 1}, byLatency, 2},
		{quorum.Model{ReadFraction: 0, Optimize: quorum.Latency, MaxLoad: 1}, byLatency, 3},
		{quorum.Model{ReadFraction: 1, Optimize: quorum.Latency, MaxNetwork: 2}, byLatency, 2},
		{quorum.Model{ReadFraction: 0, Optimize: quorum.Latency, MaxNetwork: 2}, byLatency, 3},
		{quorum.Model{ReadFraction: 1, Failures: 1}, byLoad, 0.5},
		{quorum.Model{ReadFraction: 0, Failures: 1}, byLoad, 1},
		{quorum.Model{ReadFraction: 1, Failures: 1, Optimize: quorum.Network}, byNetwork, 4},
		{quorum.Model{ReadFraction: 0, Failures: 1, Optimize: quorum.Network}, byNetwork, 4},
		{quorum.Model{ReadFraction: 1, Failures: 1, Optimize: quorum.Latency}, byLatency, 2},
		{quorum.Model{ReadFraction: 0, Failures: 1, Optimize: quorum.Latency}, byLatency, 3},
	} {
		tc.m.Nodes = nodes
		_, r, err := rw.Analyse(tc.m)
		require.NoError(t, err, "%+v", tc.m)
		require.InDelta(t, tc.want, tc.value(r), 1e-9, "%+v", tc.m)
	}
	for _, m := range []quorum.Model{
		{ReadFraction: 0, MaxNetwork: 1.5},
		{ReadFraction: 0, MaxLatency: time.Second},
		{ReadFraction: 1, Optimize: quorum.Network, MaxLoad: 0.25, MaxLatency: 2 * time.Second},
		{ReadFraction: 1, Failures: 3},
	} {
		m.Nodes = nodes
		_, err := rw.Strategy(m)
		require.ErrorIs(t, err, quorum.ErrNoStrategy, "%+v", m)
	}
}

func byLoad(r quorum.Report) float64    { return r.Load }
func byNetwork(r quorum.Report) float64 { return r.Network }
func byLatency(r quorum.Report) float64 { return r.Latency.Seconds() }

// enumeratedLoad is the least load over all vertices of the polytope of strategies: every choice of as many tight
// constraints as there are variables, solved and checked.
func enumeratedLoad(rw quorum.ReadWrite, readFraction float64, nodes profiles) float64 {
	type column struct {
		set  quorum.Set
		read bool
	}
	var columns []column
	for q := range rw.Read().Quorums() {
		columns = append(columns, column{q, true})
	}
	for q := range rw.Write().Quorums() {
		columns = append(columns, column{q, false})
	}
	ids := rw.Nodes()
	// Variables: the probabilities, then the load, then a slack for each node. Rows: reads sum to 1, writes sum to 1,
	// and for each node its work + slack = load.
	n, m := len(columns)+1+len(ids), 2+len(ids)
	rows := make([][]float64, m)
	for i := range rows {
		rows[i] = make([]float64, n+1)
	}
	for j, c := range columns {
		if c.read {
			rows[0][j] = 1
		} else {
			rows[1][j] = 1
		}
		for i := range c.set.All() {
			if c.read {
				rows[2+i][j] = readFraction / nodes[ids[i]].Reads
			} else {
				rows[2+i][j] = (1 - readFraction) / nodes[ids[i]].Writes
			}
		}
	}
	rows[0][n], rows[1][n] = 1, 1
	for i := range ids {
		rows[2+i][len(columns)], rows[2+i][len(columns)+1+i] = -1, 1
	}
	best := math.Inf(1)
	basis := make([]int, 0, m)
	var choose func(from int)
	choose = func(from int) {
		if len(basis) == m {
			if x, ok := solveSquare(rows, basis, n); ok {
				for k, j := range basis {
					if j == len(columns) {
						best = min(best, x[k])
					}
				}
			}
			return
		}
		for j := from; j <= n-(m-len(basis)); j++ {
			basis = append(basis, j)
			choose(j + 1)
			basis = basis[:len(basis)-1]
		}
	}
	choose(0)
	return best
}

// solveSquare solves for the basic variables by elimination; false if there is no solution or one is negative.
func solveSquare(rows [][]float64, basis []int, n int) ([]float64, bool) {
	m := len(rows)
	a := make([][]float64, m)
	for i := range a {
		a[i] = make([]float64, m+1)
		for k, j := range basis {
			a[i][k] = rows[i][j]
		}
		a[i][m] = rows[i][n]
	}
	for k := range m {
		p := k
		for i := k; i < m; i++ {
			if math.Abs(a[i][k]) > math.Abs(a[p][k]) {
				p = i
			}
		}
		if math.Abs(a[p][k]) < 1e-10 {
			return nil, false
		}
		a[k], a[p] = a[p], a[k]
		for i := range m {
			if i != k {
				f := a[i][k] / a[k][k]
				for j := k; j <= m; j++ {
					a[i][j] -= f * a[k][j]
				}
			}
		}
	}
	x := make([]float64, m)
	for k := range m {
		if x[k] = a[k][m] / a[k][k]; x[k] < -1e-10 {
			return nil, false
		}
	}
	return x, true
}

func TestLoadEqualsEnumeratedOptimum(t *testing.T) {
	testsize.Checks(t, 60, 2000)
	rapid.Check(t, func(t *rapid.T) {
		f := drawFormula(t, names(rapid.IntRange(1, 4).Draw(t, "n")), 2)
		rw, err := quorum.FromReads(f.sys)
		require.NoError(t, err)
		nodes := profiles{}
		for _, id := range rw.Nodes() {
			nodes[id] = quorum.Profile{Reads: float64(rapid.IntRange(1, 5).Draw(t, "reads")), Writes: float64(rapid.IntRange(1, 5).Draw(t, "writes"))}
		}
		readFraction := float64(rapid.IntRange(0, 4).Draw(t, "fraction")) / 4
		got, err := rw.Load(quorum.Model{ReadFraction: readFraction, Nodes: nodes})
		require.NoError(t, err)
		require.InDelta(t, enumeratedLoad(rw, readFraction, nodes), got, 1e-9, "%v", rw)
	})
}

// Naor and Wool 1998: the load of a majority of n is its size over n, and that of any system is at least
// max(1/c, c/n), c being the size of the smallest quorum.
func TestNaorWoolBounds(t *testing.T) {
	for n := 1; n <= 13; n++ {
		rw, err := quorum.Symmetric(quorum.Majority(names(n)...))
		require.NoError(t, err)
		load, err := rw.Load(quorum.Model{ReadFraction: 1})
		require.NoError(t, err)
		require.InDelta(t, float64(n/2+1)/float64(n), load, 1e-9)
	}
	for _, s := range []quorum.System{quorum.Tree(names(7)...), quorum.Tree(names(15)...), quorum.Byzantine(names(7)...), quorum.Hierarchical(
		quorum.Majority(names(9)[:3]...), quorum.Majority(names(9)[3:6]...), quorum.Majority(names(9)[6:]...))} {
		rw, err := quorum.Symmetric(s)
		require.NoError(t, err)
		load, err := rw.Load(quorum.Model{ReadFraction: 1})
		require.NoError(t, err)
		c, n := float64(s.Smallest()), float64(s.Len())
		require.GreaterOrEqual(t, load, max(1/c, c/n)-1e-9)
	}
	tree, err := quorum.Symmetric(quorum.Tree(names(7)...))
	require.NoError(t, err)
	load, err := tree.Load(quorum.Model{ReadFraction: 1})
	require.NoError(t, err)
	require.InDelta(t, 0.5, load, 1e-9, "2/(log2(n+1)+1), Naor and Wool 1998, §6.3")
}

func TestStrategyKeepsWhatItPromises(t *testing.T) {
	testsize.Checks(t, 100, 2000)
	rapid.Check(t, func(t *rapid.T) {
		f := drawFormula(t, names(rapid.IntRange(2, 6).Draw(t, "n")), 2)
		rw, err := quorum.FromReads(f.sys)
		require.NoError(t, err)
		m := quorum.Model{Mix: []quorum.Share{{0.9, 2}, {float64(rapid.IntRange(0, 1000).Draw(t, "fraction")) / 1000, 1}}, Nodes: profiles{}}
		for _, id := range rw.Nodes() {
			m.Nodes[id] = quorum.Profile{Reads: rapid.Float64Range(1, 1e4).Draw(t, "reads"), Writes: rapid.Float64Range(1, 1e4).Draw(t, "writes"),
				Latency: time.Duration(rapid.IntRange(0, 1000).Draw(t, "ms")) * time.Millisecond}
		}
		uniform, err := rw.Uniform(0)
		require.NoError(t, err)
		even, err := uniform.Report(m)
		require.NoError(t, err)
		best, report, err := rw.Analyse(m)
		require.NoError(t, err)
		require.LessOrEqual(t, report.Load, even.Load*(1+1e-9))
		sum := 0.0
		for _, c := range best.Reads() {
			require.True(t, rw.IsRead(c.Set))
			sum += c.Probability
		}
		require.InDelta(t, 1, sum, 1e-9)
		r := rand.New(rand.NewPCG(1, 2))
		require.True(t, rw.IsRead(best.PickRead(r)))
		require.True(t, rw.IsWrite(best.PickWrite(r)))

		// A limit halfway between the best load and that of the latency optimum is kept.
		m.Optimize = quorum.Latency
		_, soonest, err := rw.Analyse(m)
		require.NoError(t, err)
		require.LessOrEqual(t, soonest.Latency, even.Latency+time.Microsecond)
		m.MaxLoad = (report.Load + soonest.Load) / 2
		_, both, err := rw.Analyse(m)
		require.NoError(t, err)
		require.LessOrEqual(t, both.Load, m.MaxLoad*(1+1e-6))
		require.GreaterOrEqual(t, both.Latency, soonest.Latency-time.Microsecond)
	})
}

func TestSearchFindsTheBestByBruteForce(t *testing.T) {
	nodes := profiles{"a": {Reads: 4000, Writes: 2000}, "b": {Reads: 2000, Writes: 1000}, "c": {Reads: 4000, Writes: 2000},
		"d": {Reads: 2000, Writes: 1000}, "e": {Reads: 4000, Writes: 2000}}
	ids := []coterie.NodeID{"a", "b", "c", "d", "e"}
	m := quorum.Model{ReadFraction: 0.5, Nodes: nodes}
	found, err := quorum.Search(context.Background(), quorum.SearchConfig{Nodes: ids, Model: m, Resilience: 1})
	require.NoError(t, err)
	require.GreaterOrEqual(t, found.System.Resilience(), 1)
	for _, s := range []quorum.System{quorum.Majority(ids...), quorum.Or(all("ab"), all("cde")), quorum.Choose(2, each("abcde")...),
		quorum.Choose(2, node("a"), node("c"), quorum.Or(all("bd"), node("e")))} {
		rw := mustReads(t, s)
		if rw.Resilience() < 1 {
			continue
		}
		load, err := rw.Load(m)
		require.NoError(t, err)
		require.LessOrEqual(t, found.Report.Load, load+1e-12, "%v", s)
	}
	t.Log(found.System, found.Report.Capacity, found.Tried)

	_, err = quorum.Search(context.Background(), quorum.SearchConfig{Nodes: ids, Model: m, Resilience: 3})
	require.ErrorIs(t, err, quorum.ErrNoStrategy)
	done, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = quorum.Search(done, quorum.SearchConfig{Nodes: ids, Model: m})
	require.ErrorIs(t, err, context.Canceled)
}

func TestBadModelsGiveErrors(t *testing.T) {
	rw := mustReads(t, quorum.Majority("a", "b", "c"))
	for _, m := range []quorum.Model{
		{ReadFraction: -1}, {ReadFraction: 2}, {ReadFraction: math.NaN()}, {Mix: []quorum.Share{{0.5, 0}}}, {Mix: []quorum.Share{{0.5, -1}}},
		{Nodes: profiles{"a": {Reads: -1}}}, {Nodes: profiles{"a": {Writes: math.Inf(1)}}}, {Nodes: profiles{"a": {Latency: -1}}},
		{Failures: -1}, {MaxLoad: -1}, {MaxNetwork: math.NaN()}, {MaxLatency: -1}, {Optimize: 9},
	} {
		_, err := rw.Strategy(m)
		require.Error(t, err, "%+v", m)
		require.NotErrorIs(t, err, quorum.ErrNoStrategy)
	}
	_, err := (quorum.ReadWrite{}).Strategy(quorum.Model{})
	require.Error(t, err)
	_, err = (quorum.ReadWrite{}).Uniform(0)
	require.Error(t, err)
	big, err := quorum.Symmetric(quorum.Majority(names(40)...))
	require.NoError(t, err)
	_, err = big.Strategy(quorum.Model{})
	require.ErrorContains(t, err, "too many")
	for _, w := range []map[quorum.Set]float64{nil, {rw.Set("a"): 1}, {rw.Set("a", "b"): -1}, {rw.Set("a", "b"): 0}, {rw.Set("a", "b"): math.NaN()}} {
		_, err := rw.NewStrategy(w, map[quorum.Set]float64{rw.Set("a", "b"): 1})
		require.Error(t, err)
		_, err = rw.NewStrategy(map[quorum.Set]float64{rw.Set("a", "b"): 1}, w)
		require.Error(t, err)
	}
	for _, cfg := range []quorum.SearchConfig{{}, {Nodes: names(65)}, {Nodes: names(2), Depth: -1}, {Nodes: names(2), Resilience: -1},
		{Nodes: []coterie.NodeID{"a", "a"}}, {Nodes: names(2), Model: quorum.Model{ReadFraction: 3}}} {
		_, err := quorum.Search(context.Background(), cfg)
		require.Error(t, err)
	}
}

func ExampleReadWrite_Analyse() {
	grid, err := quorum.Grid([]coterie.NodeID{"a", "b", "c"}, []coterie.NodeID{"d", "e", "f"})
	if err != nil {
		panic(err)
	}
	best, report, err := grid.Analyse(quorum.Model{ReadFraction: 0.25})
	if err != nil {
		panic(err)
	}
	for _, c := range best.Reads() {
		fmt.Printf("read %v: %.2f\n", grid.IDs(c.Set), c.Probability)
	}
	fmt.Printf("load %.3f, capacity %.3f, %.2f nodes a request\n", report.Load, report.Capacity, report.Network)
	// Output:
	// read [a b c]: 0.50
	// read [d e f]: 0.50
	// load 0.375, capacity 2.667, 2.25 nodes a request
}

// The table of the package comment.
func TestTableOfSystems(t *testing.T) {
	ids := names(15)
	sym := func(s quorum.System) quorum.ReadWrite {
		rw, err := quorum.Symmetric(s)
		require.NoError(t, err)
		return rw
	}
	must := func(rw quorum.ReadWrite, err error) quorum.ReadWrite {
		require.NoError(t, err)
		return rw
	}
	classic, fast := quorum.FastPaxos(ids[:5]...)
	for name, row := range map[string]struct {
		rw                    quorum.ReadWrite
		read, write           int
		readLoad, writeLoad   float64
		readFails, writeFails int
	}{
		"majority": {sym(quorum.Majority(ids[:9]...)), 5, 5, 0.556, 0.556, 4, 4},
		"grid":     {must(quorum.Grid(ids[:3], ids[3:6], ids[6:9])), 3, 3, 0.333, 0.333, 2, 2},
		"hierarchical": {sym(quorum.Hierarchical(quorum.Majority(ids[:3]...), quorum.Majority(ids[3:6]...), quorum.Majority(ids[6:9]...))),
			4, 4, 0.444, 0.444, 3, 3},
		"tree":      {sym(quorum.Tree(ids...)), 4, 4, 0.4, 0.4, 3, 3},
		"NRW":       {must(quorum.NRW(ids[:9], 3, 7)), 3, 7, 0.333, 0.778, 6, 2},
		"flexible":  {must(quorum.FlexiblePaxos(3, ids[:9]...)), 7, 3, 0.778, 0.333, 2, 6},
		"fast":      {must(quorum.NewReadWrite(classic, fast)), 3, 4, 0.6, 0.8, 2, 1},
		"Byzantine": {sym(quorum.Byzantine(ids[:10]...)), 7, 7, 0.7, 0.7, 3, 3},
		"masking":   {sym(quorum.Masking(ids[:9]...)), 7, 7, 0.778, 0.778, 2, 2},
	} {
		require.Equal(t, row.read, row.rw.Read().Smallest(), name)
		require.Equal(t, row.write, row.rw.Write().Smallest(), name)
		require.Equal(t, row.readFails, row.rw.Read().Resilience(), name)
		require.Equal(t, row.writeFails, row.rw.Write().Resilience(), name)
		for readFraction, want := range map[float64]float64{1: row.readLoad, 0: row.writeLoad} {
			load, err := row.rw.Load(quorum.Model{ReadFraction: readFraction})
			require.NoError(t, err)
			require.InDelta(t, want, load, 0.0006, name)
		}
	}
}
