package sim_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport/sim"
)

// flood sends so many numbered messages from a to b, one a millisecond, and returns what arrived and how long it took.
func flood(t *testing.T, link sim.Link, n int) (b *bench, arrived []int, delays []time.Duration) {
	t.Helper()
	sent := map[int]time.Duration{}
	b = newBench(t, sim.Config{StepTime: -1}, func(id coterie.NodeID, p *probe) {
		if id == "b" {
			p.onStep = func(_ *probe, _ time.Time, _ coterie.NodeID, payload []byte) error {
				var i int
				_, err := fmt.Sscan(string(payload), &i)
				arrived = append(arrived, i)
				delays = append(delays, b.Elapsed()-sent[i])
				return err
			}
		}
	}, "a", "b")
	require.NoError(t, b.SetLink("a", "b", link))
	for i := range n {
		sent[i] = b.Elapsed()
		b.do("a", func(p *probe, _ time.Time) { p.Send("b", fmt.Appendf(nil, "%d", i)) })
		b.run(time.Millisecond)
	}
	b.run(time.Hour)
	return b, arrived, delays
}

func TestLoss(t *testing.T) {
	b, arrived, _ := flood(t, sim.Link{Loss: 0.3}, 5000)
	require.InDelta(t, 3500, len(arrived), 150)
	s := b.LinkStats("a", "b")
	require.EqualValues(t, 5000, s.Sent)
	require.EqualValues(t, len(arrived), s.Delivered)
	require.EqualValues(t, 5000, s.Delivered+s.Lost)
	require.InDelta(t, 0.7, s.DeliveryRatio(), 0.03)
	require.EqualValues(t, 10*1+90*2+900*3+4000*4, s.Bytes)
	require.Zero(t, b.LinkStats("b", "a"))
	require.Equal(t, 1.0, b.LinkStats("b", "a").DeliveryRatio())
}

func TestDuplication(t *testing.T) {
	b, arrived, _ := flood(t, sim.Link{Duplicate: 0.2}, 5000)
	require.InDelta(t, 6000, len(arrived), 150)
	slices.Sort(arrived)
	require.Len(t, slices.Compact(arrived), 5000)
	require.InDelta(t, 1000, b.LinkStats("a", "b").Duplicated, 150)
}

func TestReordering(t *testing.T) {
	_, arrived, _ := flood(t, sim.Link{Latency: sim.Fixed(2 * time.Millisecond)}, 2000)
	require.True(t, slices.IsSorted(arrived))
	_, arrived, _ = flood(t, sim.Link{Latency: sim.Fixed(2 * time.Millisecond), Reorder: 0.1}, 2000)
	require.Len(t, arrived, 2000)
	require.False(t, slices.IsSorted(arrived))
}

func TestLatencies(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		latency           sim.Latency
		mean, least, most time.Duration
	}{
		{sim.Fixed(3 * ms), 3 * ms, 3 * ms, 3 * ms},
		{sim.Uniform(2*ms, 6*ms), 4 * ms, 2 * ms, 6 * ms},
		{sim.Exponential(1*ms, 4*ms), 5 * ms, 1 * ms, time.Hour},
		{sim.LogNormal(1*ms, 2*ms, 0.5), ms + time.Duration(2*float64(ms)*math.Exp(0.125)), 1 * ms, time.Hour},
		{sim.Latency{}, ms, ms / 2, 3 * ms / 2},
	} {
		t.Run(c.latency.String(), func(t *testing.T) {
			b, _, delays := flood(t, sim.Link{Latency: c.latency}, 20_000)
			require.Len(t, delays, 20_000)
			sum := time.Duration(0)
			for _, d := range delays {
				sum += d
			}
			slices.Sort(delays)
			require.GreaterOrEqual(t, delays[0], c.least)
			require.LessOrEqual(t, delays[len(delays)-1], c.most)
			require.InEpsilon(t, c.mean, sum/20_000, 0.03)

			s := b.LinkStats("a", "b")
			require.Equal(t, sum/20_000, s.Mean)
			require.Equal(t, delays[len(delays)-1], s.Max)
			for p, got := range map[int]time.Duration{50: s.P50, 90: s.P90, 99: s.P99} {
				require.InEpsilon(t, delays[20_000*p/100-1], got, 0.1, "p%d", p)
			}
		})
	}
}

func TestBandwidth(t *testing.T) {
	link := sim.Link{Latency: sim.Fixed(0), Bandwidth: 1000, MaxWait: 100 * time.Millisecond}
	b := newBench(t, sim.Config{StepTime: -1}, nil, "a", "b")
	require.NoError(t, b.SetLink("a", "b", link))
	for range 20 {
		b.do("a", func(p *probe, _ time.Time) { p.Send("b", []byte("ten bytes!")) }) // 10 ms each
	}
	b.run(55 * time.Millisecond)
	require.Len(t, b.probe("b").take(), 5)
	b.run(time.Second)
	require.Len(t, b.probe("b").take(), 6, "what would have waited longer than MaxWait is lost")
	require.EqualValues(t, 9, b.LinkStats("a", "b").Lost)
}

// hears tells who gets a message that each node sends to each other one.
func hears(b *bench) (links []string) {
	b.t.Helper()
	for _, id := range b.Nodes() {
		b.do(id, func(p *probe, _ time.Time) {
			for _, to := range b.Nodes() {
				if to != id {
					p.Send(to, []byte("x"))
				}
			}
		})
	}
	b.run(100 * time.Millisecond)
	for _, id := range b.Nodes() {
		for _, call := range b.probe(id).take() {
			links = append(links, call[:1]+string(id))
		}
	}
	slices.Sort(links)
	return links
}

func TestCutsAndPartitions(t *testing.T) {
	b := newBench(t, sim.Config{}, nil, "a", "b", "c")
	all := []string{"ab", "ac", "ba", "bc", "ca", "cb"}
	require.Equal(t, all, hears(b))
	b.Cut("a", "b")
	require.Equal(t, []string{"ac", "ba", "bc", "ca", "cb"}, hears(b), "one-way")
	b.Partition([]coterie.NodeID{"c"})
	require.Equal(t, []string{"ba"}, hears(b), "beside the cut")
	b.Partition([]coterie.NodeID{"a"}, []coterie.NodeID{"b"}, []coterie.NodeID{"c"})
	require.Empty(t, hears(b))
	b.Partition([]coterie.NodeID{"a", "c"})
	require.Equal(t, []string{"ac", "ca"}, hears(b), "in place of the earlier one")
	b.Join("a", "b")
	require.Equal(t, []string{"ac", "ca"}, hears(b))
	b.Heal()
	require.Equal(t, all, hears(b))
}

func TestCutLosesWhatIsUnderWay(t *testing.T) {
	b := newBench(t, fixed(), nil, "a", "b")
	b.do("a", func(p *probe, _ time.Time) { p.Send("b", []byte("x")) })
	b.Cut("a", "b")
	b.run(time.Second)
	require.Empty(t, b.probe("b").take())
	require.EqualValues(t, 1, b.LinkStats("a", "b").Lost)
}

func TestNodesAddedToAPartitionedWorld(t *testing.T) {
	b := newBench(t, sim.Config{}, nil, "a", "b")
	b.Partition([]coterie.NodeID{"a"})
	require.NoError(t, b.Add("c", sim.Node{New: func(uint64) (coterie.Core, sim.App) { return &probe{}, nil }}))
	b.run(time.Millisecond)
	b.probe("c").take()
	require.Equal(t, []string{"bc", "cb"}, hears(b), "it is in no group, like b")
}

func TestSetLinks(t *testing.T) {
	b := newBench(t, sim.Config{}, nil, "a", "b")
	require.NotEmpty(t, hears(b))
	require.NoError(t, b.SetLinks(sim.Link{Loss: 1}))
	require.Empty(t, hears(b))
	require.NoError(t, b.SetLink("a", "b", sim.Link{}))
	require.Equal(t, []string{"ab"}, hears(b))
	require.ErrorContains(t, b.SetLinks(sim.Link{Loss: 2}), "Loss")
	require.ErrorContains(t, b.SetLink("a", "b", sim.Link{Reorder: math.NaN()}), "Reorder")
	require.Equal(t, []string{"ab"}, hears(b), "an error changes nothing")
}

func TestOneLinksLuckIsNotAnothers(t *testing.T) {
	testsize.Checks(t, 50, 500)
	rapid.Check(t, func(rt *rapid.T) {
		cut := rapid.Bool().Draw(rt, "cut")
		run := func(disturb bool) []string {
			b := newBench(t, sim.Config{Seed: 9, Link: sim.Link{Loss: 0.5, Duplicate: 0.1}}, nil, "a", "b", "c")
			for i := range 50 {
				if disturb && i == 10 {
					if cut {
						b.Cut("a", "b")
					} else {
						b.Crash("b")
					}
				}
				for _, id := range []coterie.NodeID{"a", "b"} {
					_ = b.Do(id, func(_ time.Time, core coterie.Core) {
						core.(*probe).Send("c", fmt.Appendf(nil, "%d", i))
						core.(*probe).Send("a", fmt.Appendf(nil, "%d", i))
					})
				}
				b.run(10 * time.Millisecond)
			}
			return slices.DeleteFunc(b.probe("c").take(), func(call string) bool { return call[0] == 'b' })
		}
		require.Equal(rt, run(false), run(true), "what c gets of a does not depend on b")
	})
}
