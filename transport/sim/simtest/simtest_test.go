package simtest_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
)

func TestSeedsRunsEachSeed(t *testing.T) {
	t.Setenv(simtest.SeedVariable, "")
	var seeds []uint64
	simtest.Seeds(t, 4, func(t *testing.T, seed uint64) {
		require.Equal(t, fmt.Sprintf("TestSeedsRunsEachSeed/seed=%d", seed), t.Name())
		seeds = append(seeds, seed)
	})
	require.Equal(t, []uint64{1, 2, 3, 4}, seeds)
	simtest.Seeds(t, -1, func(t *testing.T, _ uint64) { t.Error("ran") })
}

func TestSeedsReplaysOneSeed(t *testing.T) {
	for text, want := range map[string]uint64{"77": 77, "0x10": 16} {
		t.Setenv(simtest.SeedVariable, text)
		var seeds []uint64
		simtest.Seeds(t, 4, func(_ *testing.T, seed uint64) { seeds = append(seeds, seed) })
		require.Equal(t, []uint64{want}, seeds)
	}
}

const childVariable = "SIMTEST_CHILD"

// TestChild fails in the ways that TestSeedsTellsHowToReplay looks at.
func TestChild(t *testing.T) {
	mode := os.Getenv(childVariable)
	if mode == "" {
		t.Skip("run by TestSeedsTellsHowToReplay")
	}
	simtest.Seeds(t, 5, func(t *testing.T, seed uint64) {
		fmt.Println("seed", seed)
		switch {
		case seed < 3:
		case mode == "fail":
			t.Fatal("broken")
		case mode == "panic":
			panic("broken")
		}
	})
}

func child(t *testing.T, mode, seed string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.v")
	cmd.Env = append(os.Environ(), childVariable+"="+mode, simtest.SeedVariable+"="+seed)
	out, err := cmd.CombinedOutput()
	require.Error(t, err, "the child must fail: %s", out)
	return string(out)
}

func TestSeedsTellsHowToReplay(t *testing.T) {
	for _, mode := range []string{"fail", "panic"} {
		out := child(t, mode, "")
		require.Contains(t, out, "COTERIE_SEED=3 go test -run '^TestChild$'", mode)
		require.Contains(t, out, "seed 3")
		require.NotContains(t, out, "seed 4", "it stops at the first that fails")
		require.Equal(t, 1, strings.Count(out, "replay this run"))
		out = child(t, mode, "9")
		require.Contains(t, out, "seed 9")
		require.NotContains(t, out, "seed 3")
	}
	require.Contains(t, child(t, "fail", "nonsense"), "is not a seed")
	require.Contains(t, child(t, "fail", "0"), "is not a seed")
}

func TestSchedulesStayWithinTheLimits(t *testing.T) {
	testsize.Checks(t, 200, 5000)
	limits := sim.Limits{
		Nodes: []coterie.NodeID{"a", "b", "c"}, Length: 5 * time.Second, MaxDown: 1, MaxFor: time.Second,
		Kinds: []sim.FaultKind{sim.FaultCrash, sim.FaultLink, sim.FaultCut, sim.FaultDrift, sim.FaultJump},
	}
	rapid.Check(t, func(rt *rapid.T) {
		s := simtest.Schedules(limits).Draw(rt, "schedule")
		require.True(rt, slices.IsSortedFunc(s, func(a, b sim.Fault) int { return int(a.At - b.At) }))
		require.LessOrEqual(rt, s.End(), limits.Length)
		down := time.Duration(-1)
		for _, f := range s {
			require.Contains(rt, limits.Kinds, f.Kind)
			require.LessOrEqual(rt, f.Duration, limits.MaxFor)
			if f.Kind == sim.FaultCrash {
				require.Len(rt, f.Nodes, 1)
				down = max(down, f.At+f.Duration)
			}
		}
		w, err := sim.New(sim.Config{Seed: 1})
		require.NoError(rt, err)
		for _, id := range limits.Nodes {
			require.NoError(rt, w.Add(id, sim.Node{New: func(uint64) (coterie.Core, sim.App) { return &ticker{}, nil }}))
		}
		require.NoError(rt, w.Play(s), "every drawn schedule can be applied")
	})
}

// ticker is a core that ticks, and sends a number to a neighbour.
type ticker struct {
	coterie.Outbox
	draw func() int
	now  time.Time
}

func (c *ticker) Replay([]byte) error                          { return nil }
func (c *ticker) Step(time.Time, coterie.NodeID, []byte) error { return nil }
func (c *ticker) Ready() coterie.Ready                         { c.Wake(c.now.Add(time.Second)); return c.Take() }

func (c *ticker) Tick(now time.Time) {
	c.now = now
	if c.draw != nil {
		c.Send("b", fmt.Appendf(nil, "%d", c.draw()))
	}
}

func runTicker(t *testing.T, trace *sim.Trace, d time.Duration, draw func() int) {
	t.Helper()
	w, err := sim.New(sim.Config{Seed: 1, Trace: trace})
	require.NoError(t, err)
	require.NoError(t, w.Add("a", sim.Node{New: func(uint64) (coterie.Core, sim.App) { return &ticker{draw: draw}, nil }}))
	require.NoError(t, w.Add("b", sim.Node{New: func(uint64) (coterie.Core, sim.App) { return &ticker{}, nil }}))
	require.NoError(t, w.Run(d))
}

// failure is a TB that takes down the first failure.
type failure struct{ text string }

func (f *failure) Helper() {}
func (f *failure) Fatalf(format string, args ...any) {
	if f.text == "" {
		f.text = fmt.Sprintf(format, args...)
	}
}

func TestRequireDeterministic(t *testing.T) {
	one := func() int { return 1 }
	simtest.RequireDeterministic(t, func(trace *sim.Trace) { runTicker(t, trace, 10*time.Second, one) })

	var f failure
	simtest.RequireDeterministic(&f, func(trace *sim.Trace) { runTicker(t, trace, 10*time.Second, rand.Int) })
	require.Contains(t, f.text, "differ in line")

	f = failure{}
	d := 5 * time.Second
	simtest.RequireDeterministic(&f, func(trace *sim.Trace) {
		d *= 2
		runTicker(t, trace, d, one)
	})
	require.Contains(t, f.text, "lines")

	f = failure{}
	simtest.RequireDeterministic(&f, func(*sim.Trace) {})
	require.Contains(t, f.text, "empty")
}

func ExampleSeeds() {
	test := func(t *testing.T) {
		simtest.Seeds(t, 1000, func(t *testing.T, seed uint64) {
			world, err := sim.New(sim.Config{Seed: seed})
			require.NoError(t, err)
			ids := []coterie.NodeID{"a", "b"}
			for _, id := range ids {
				require.NoError(t, world.Add(id, sim.Node{New: func(uint64) (coterie.Core, sim.App) { return &ticker{}, nil }}))
			}
			require.NoError(t, world.Play(sim.DrawSchedule(seed, sim.Limits{Nodes: ids})))
		})
	}
	fmt.Println(testing.RunTests(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "TestTicker", F: test}}))
	// Output: true
}
