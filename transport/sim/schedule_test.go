package sim_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
)

func fault(kind sim.FaultKind, nodes ...coterie.NodeID) sim.Fault {
	return sim.Fault{At: 100 * time.Millisecond, Duration: time.Second, Kind: kind, Nodes: nodes}
}

func TestFaultsBeginAndEnd(t *testing.T) {
	during := func(f sim.Fault, cfg sim.Config, check func(b *bench, on bool)) {
		t.Run(string(f.Kind), func(t *testing.T) {
			b := newBench(t, cfg, nil, "a", "b", "c")
			require.NoError(t, b.Apply(sim.Schedule{f}))
			b.run(90 * time.Millisecond)
			check(b, false)
			b.run(100 * time.Millisecond) // what is asked takes up to 100 ms
			check(b, true)
			b.run(1100 * time.Millisecond)
			for _, id := range b.Nodes() {
				if b.Up(id) {
					b.probe(id).take()
				}
			}
			check(b, false)
		})
	}
	during(fault(sim.FaultCrash, "a"), fixed(), func(b *bench, on bool) {
		require.Equal(b.t, !on, b.Up("a"))
		require.True(b.t, b.Up("b"))
	})
	during(fault(sim.FaultPause, "a"), fixed(), func(b *bench, on bool) {
		require.Equal(b.t, !on, slices.Contains(hears(b), "ba"))
	})
	during(fault(sim.FaultStall, "a"), fixed(), func(b *bench, on bool) {
		before := len(b.Records("a"))
		b.do("a", func(p *probe, _ time.Time) { p.Save([]byte("r")) })
		b.run(10 * time.Millisecond)
		require.Equal(b.t, !on, len(b.Records("a")) > before)
	})
	during(fault(sim.FaultPartition, "a"), fixed(), func(b *bench, on bool) {
		want := []string{"ab", "ac", "ba", "bc", "ca", "cb"}
		if on {
			want = []string{"bc", "cb"}
		}
		require.Equal(b.t, want, hears(b))
	})
	cut := fault(sim.FaultCut, "a")
	cut.To = []coterie.NodeID{"b"}
	during(cut, fixed(), func(b *bench, on bool) {
		got := hears(b)
		require.Equal(b.t, !on, slices.Contains(got, "ab"))
		require.Contains(b.t, got, "ba")
		require.Contains(b.t, got, "ac")
	})
	link := fault(sim.FaultLink)
	link.To, link.Link = []coterie.NodeID{"a"}, &sim.Link{Loss: 1}
	during(link, fixed(), func(b *bench, on bool) {
		got := hears(b)
		require.Equal(b.t, !on, slices.Contains(got, "ba"))
		require.Equal(b.t, !on, slices.Contains(got, "ca"))
		require.Contains(b.t, got, "ab")
	})
	disk := fault(sim.FaultDisk, "a")
	disk.Disk = &sim.Disk{Sync: sim.Fixed(50 * time.Millisecond)}
	during(disk, fixed(), func(b *bench, on bool) {
		before := len(b.Records("a"))
		b.do("a", func(p *probe, _ time.Time) { p.Save([]byte("r")) })
		b.run(40 * time.Millisecond)
		require.Equal(b.t, !on, len(b.Records("a")) > before)
		b.run(20 * time.Millisecond)
		require.Greater(b.t, len(b.Records("a")), before)
	})
	drift := fault(sim.FaultDrift, "a")
	drift.Drift = 123
	during(drift, fixed(), func(b *bench, on bool) {
		require.Equal(b.t, on, b.Clock("a").Drift() == 123)
		require.Equal(b.t, !on, b.Clock("a").Drift() == 0)
	})
	jump := fault(sim.FaultJump, "a")
	jump.Jump = -time.Minute
	during(jump, fixed(), func(b *bench, on bool) {
		require.Equal(b.t, on, b.Clock("a").Skew() == -time.Minute)
		require.Equal(b.t, !on, b.Clock("a").Skew() == 0)
	})
}

func TestOverlappingFaultsLastUntilTheLastEnds(t *testing.T) {
	b := newBench(t, fixed(), nil, "a", "b")
	long, short := fault(sim.FaultPause, "a"), fault(sim.FaultPause, "a")
	short.Duration = 100 * time.Millisecond
	require.NoError(t, b.Apply(sim.Schedule{long, short}))
	b.run(900 * time.Millisecond)
	require.NotContains(t, hears(b), "ba")
	b.run(500 * time.Millisecond)
	b.probe("a").take()
	require.Contains(t, hears(b), "ba")
}

func TestApplyRefusesAWrongScheduleWhole(t *testing.T) {
	b := newBench(t, fixed(), nil, "a")
	good := fault(sim.FaultCrash, "a")
	for _, c := range []struct {
		change func(f *sim.Fault)
		says   string
	}{
		{func(f *sim.Fault) { f.Nodes = []coterie.NodeID{"z"} }, "unknown node"},
		{func(f *sim.Fault) { f.Kind = sim.FaultCut; f.To = []coterie.NodeID{"z"} }, "unknown node"},
		{func(f *sim.Fault) { f.Kind = "flood" }, "unknown kind"},
		{func(f *sim.Fault) { f.At = -1 }, "At"},
		{func(f *sim.Fault) { f.Duration = -1 }, "Duration"},
		{func(f *sim.Fault) { f.Duration = 1 << 62 }, "Duration"},
		{func(f *sim.Fault) { f.Kind = sim.FaultLink }, "Link is nil"},
		{func(f *sim.Fault) { f.Kind = sim.FaultLink; f.Link = &sim.Link{Loss: -1} }, "Loss"},
		{func(f *sim.Fault) { f.Kind = sim.FaultDisk }, "Disk is nil"},
		{func(f *sim.Fault) { f.Kind = sim.FaultDisk; f.Disk = &sim.Disk{Crash: 7} }, "Crash"},
		{func(f *sim.Fault) { f.Kind = sim.FaultDrift; f.Drift = -1e9 }, "Drift"},
		{func(f *sim.Fault) { f.Kind = sim.FaultJump; f.Jump = 1 << 62 }, "Jump"},
	} {
		bad := good
		c.change(&bad)
		err := b.Apply(sim.Schedule{good, bad})
		require.ErrorContains(t, err, c.says)
		require.ErrorContains(t, err, "fault 1")
	}
	require.True(t, errors.Is(b.Apply(sim.Schedule{fault(sim.FaultCrash, "z")}), sim.ErrUnknownNode))
	b.run(time.Minute)
	require.Zero(t, b.Stats().Crashes)
}

func TestHealAll(t *testing.T) {
	testsize.Checks(t, 50, 2000)
	ids := []coterie.NodeID{"a", "b", "c", "d"}
	rapid.Check(t, func(rt *rapid.T) {
		s := simtest.Schedules(sim.Limits{Nodes: ids, Length: 10 * time.Second}).Draw(rt, "schedule")
		b := newBench(t, fixed(), nil, ids...)
		require.NoError(rt, b.Apply(s))
		require.NoError(rt, b.Run(time.Duration(rapid.Int64Range(0, int64(10*time.Second)).Draw(rt, "for"))))
		left := s.End() - b.Elapsed()
		b.HealAll()
		for _, id := range ids {
			require.True(rt, b.Up(id))
			require.Zero(rt, b.Clock(id).Skew())
			require.Zero(rt, b.Clock(id).Drift())
		}
		require.NoError(rt, b.Run(0)) // first ticks
		for _, id := range ids {
			b.probe(id).take()
		}
		if left <= 0 || len(s) == 0 { // else new faults may come
			require.Len(rt, hears(b), 12)
		}
	})
}

func TestHealEndsWhatAScheduleDoesToLinks(t *testing.T) {
	b := newBench(t, fixed(), nil, "a", "b")
	link, cut := fault(sim.FaultLink), fault(sim.FaultCut, "a")
	link.Nodes, link.Link = []coterie.NodeID{"b"}, &sim.Link{Loss: 1}
	require.NoError(t, b.Apply(sim.Schedule{link, cut}))
	b.run(200 * time.Millisecond)
	require.Empty(t, hears(b))
	b.Heal()
	require.Equal(t, []string{"ab", "ba"}, hears(b))
}

func TestCrashByHandLastsUntilRestart(t *testing.T) {
	b := newBench(t, fixed(), nil, "a")
	require.NoError(t, b.Apply(sim.Schedule{fault(sim.FaultCrash, "a")}))
	b.run(200 * time.Millisecond)
	require.False(t, b.Up("a"))
	b.Crash("a")
	b.run(time.Minute)
	require.False(t, b.Up("a"))
	b.Restart("a")
	require.True(t, b.Up("a"))
}

func TestPlay(t *testing.T) {
	b := newBench(t, fixed(), nil, "a", "b")
	b.Crash("b") // by hand
	require.NoError(t, b.Play(sim.Schedule{fault(sim.FaultCrash, "a")}))
	require.True(t, b.Up("a"))
	require.True(t, b.Up("b"))
	require.Equal(t, time.Millisecond+1100*time.Millisecond, b.Elapsed())
	require.Error(t, b.Play(sim.Schedule{fault("no")}))
}

func TestDrawnSchedules(t *testing.T) {
	limits := sim.Limits{
		Nodes: []coterie.NodeID{"a", "b", "c", "d", "e"}, Length: 20 * time.Second, MaxDown: 2,
		MaxFor: 3 * time.Second, MaxDrift: 50, MaxJump: time.Millisecond, MaxLoss: 0.1,
	}
	kinds := map[sim.FaultKind]int{}
	sizes := map[int]bool{}
	for seed := range uint64(testsize.N(500, 20_000)) {
		s := sim.DrawSchedule(seed, limits)
		require.Equal(t, s, sim.DrawSchedule(seed, limits))
		seen := map[sim.FaultKind]bool{}
		for _, f := range s {
			seen[f.Kind] = true
			requireWithin(t, limits, f)
		}
		for kind := range seen {
			kinds[kind]++
		}
		require.LessOrEqual(t, mostHeld(s), 2)
		sizes[len(s)/10] = true
		roundTrip(t, s)
	}
	for _, kind := range sim.FaultKinds() {
		require.NotZero(t, kinds[kind], kind)
	}
	require.Greater(t, len(sizes), 3, "calm and stormy ones")
	require.Panics(t, func() { sim.DrawSchedule(1, sim.Limits{}) })
	for seed := range uint64(100) {
		for _, f := range sim.DrawSchedule(seed, sim.Limits{Nodes: limits.Nodes, Kinds: []sim.FaultKind{sim.FaultPause}}) {
			require.Equal(t, sim.FaultPause, f.Kind)
		}
	}
}

func requireWithin(t interface {
	require.TestingT
	Helper()
}, l sim.Limits, f sim.Fault,
) {
	t.Helper()
	require.LessOrEqual(t, f.At+f.Duration, l.Length)
	require.LessOrEqual(t, f.Duration, l.MaxFor)
	require.LessOrEqual(t, f.Drift, l.MaxDrift)
	require.GreaterOrEqual(t, f.Drift, -l.MaxDrift)
	require.LessOrEqual(t, f.Jump.Abs(), l.MaxJump)
	if f.Link != nil {
		require.LessOrEqual(t, f.Link.Loss, l.MaxLoss+1e-9)
	}
	for _, id := range slices.Concat(f.Nodes, f.To) {
		require.Contains(t, l.Nodes, id)
	}
}

// mostHeld is how many nodes are crashed, paused or stalled at one time: at some fault's beginning it is the most.
func mostHeld(s sim.Schedule) (most int) {
	held := func(f sim.Fault) bool {
		return f.Kind == sim.FaultCrash || f.Kind == sim.FaultPause || f.Kind == sim.FaultStall
	}
	for _, at := range s {
		nodes := map[coterie.NodeID]bool{}
		for _, f := range s {
			if held(f) && f.At <= at.At && at.At <= f.At+f.Duration {
				for _, id := range f.Nodes {
					nodes[id] = true
				}
			}
		}
		most = max(most, len(nodes))
	}
	return most
}

func roundTrip(t *testing.T, s sim.Schedule) {
	t.Helper()
	text, err := json.Marshal(s)
	require.NoError(t, err)
	var back sim.Schedule
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, s, back)
}

func TestScheduleReadsWell(t *testing.T) {
	s := sim.Schedule{
		fault(sim.FaultCrash, "a"),
		{At: time.Second, Duration: time.Minute, Kind: sim.FaultLink, To: []coterie.NodeID{"b"}, Link: &sim.Link{Loss: 0.1, Latency: sim.Exponential(time.Millisecond, 20*time.Millisecond)}},
		{Kind: sim.FaultCut, Nodes: []coterie.NodeID{"a", "b"}},
		{Kind: sim.FaultDisk, Nodes: []coterie.NodeID{"c"}, Disk: &sim.Disk{Sync: sim.LogNormal(0, time.Millisecond, 2), Crash: 0.05, Bandwidth: 5}},
		{Kind: sim.FaultDrift, Nodes: []coterie.NodeID{"c"}, Drift: 12.345},
		{Kind: sim.FaultJump, Nodes: []coterie.NodeID{"c"}, Jump: -time.Second},
	}
	require.Equal(t, `100ms to 1.1s: crash [a]
1s to 1m1s: link all to [b] latency=exponential(1ms, 20ms) loss=10%
0s to 0s: cut [a b] to all
0s to 0s: disk [c] sync=lognormal(0s, 1ms, 2) bandwidth=5 crash=5%
0s to 0s: drift [c] by 12.3 ppm
0s to 0s: jump [c] by -1s
`, s.String())
	require.Equal(t, 61*time.Second, s.End())
	require.NotContains(t, fmt.Sprint(s), "0x")
}

func FuzzSchedule(f *testing.F) {
	for seed := range uint64(10) {
		text, err := json.Marshal(sim.DrawSchedule(seed, sim.Limits{Nodes: []coterie.NodeID{"a", "b"}, Length: time.Second}))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`[{"kind":"link","link":{"latency":{"shape":"lognormal","spread":9223372036854775807,"sigma":10}}}]`))
	f.Add([]byte(`[{"kind":"disk","nodes":["a"],"disk":{"slow_factor":1e6,"crash":1,"bandwidth":1}}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var s sim.Schedule
		if json.Unmarshal(text, &s) != nil || len(s) > 20 {
			return
		}
		c, err := newCluster(sim.Config{Seed: 1}, 2, none)
		require.NoError(t, err)
		c.write(5 * time.Millisecond)
		if c.Apply(s) == nil {
			require.NoError(t, c.Run(300*time.Millisecond))
		}
	})
}
