package heartbeat

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/membership"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
	"github.com/stretchr/testify/require"
)

var start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func ids(n int) (all []coterie.NodeID) {
	for i := range n {
		all = append(all, coterie.NodeID(fmt.Sprintf("m%02d", i)))
	}
	return all
}

func newWorld(t *testing.T, n int, ring bool, cfg sim.Config) *sim.World {
	t.Helper()
	w, err := sim.New(cfg)
	require.NoError(t, err)
	for i, id := range ids(n) {
		require.NoError(t, w.Add(id, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) {
			core, err := NewCore(Config{ID: id, Members: ids(n), Ring: ring, Seed: cfg.Seed*1e6 + uint64(i)*1000 + incarnation})
			require.NoError(t, err)
			return core, nil
		}}))
	}
	return w
}

func coreOf(w *sim.World, id coterie.NodeID) *Core { return w.Core(id).(*Core) }

// until runs in steps of 10 ms until the condition holds, and returns how long that took.
func until(t *testing.T, w *sim.World, what string, limit time.Duration, cond func() bool) time.Duration {
	t.Helper()
	begin := w.Elapsed()
	for !cond() {
		require.NoError(t, w.Run(10*time.Millisecond))
		require.LessOrEqual(t, w.Elapsed()-begin, limit, "seed %d: %s", w.Seed(), what)
	}
	return w.Elapsed() - begin
}

// agree reports whether all that are up hold just those for alive.
func agree(w *sim.World) bool {
	for _, id := range w.Nodes() {
		if !w.Up(id) {
			continue
		}
		for _, m := range coreOf(w, id).Members() {
			if (m.State == membership.Alive) != w.Up(m.ID) {
				return false
			}
		}
	}
	return true
}

// The bounds of the package comment, after whatever went wrong before.
func TestDetectsWithinItsBounds(t *testing.T) {
	for _, ring := range []bool{false, true} {
		t.Run(fmt.Sprintf("ring=%v", ring), func(t *testing.T) {
			var crash, back time.Duration
			simtest.Seeds(t, testsize.N(30, 500), func(t *testing.T, seed uint64) {
				n := 3 + int(seed%10)
				w := newWorld(t, n, ring, sim.Config{Seed: seed, Link: sim.Link{Duplicate: 0.1, Reorder: 0.1}})
				require.NoError(t, w.Play(sim.DrawSchedule(seed, sim.Limits{Nodes: w.Nodes(), Length: 30 * time.Second})))
				const interval = 500 * time.Millisecond
				timeout, slack := 5*interval, interval
				comeBack := 3 * interval
				if ring {
					timeout, slack = time.Duration(5+n)*interval, time.Duration(1+n)*interval
					comeBack = time.Duration(10*n+10) * interval
				}
				back = max(back, until(t, w, "recover", comeBack, func() bool { return agree(w) }))
				victim := w.Nodes()[int(seed)%n]
				w.Crash(victim)
				crash = max(crash, until(t, w, "detect", timeout+slack, func() bool { return agree(w) }))
				w.Restart(victim)
				back = max(back, until(t, w, "restart", comeBack, func() bool { return agree(w) }))
			})
			t.Logf("worst: a crash is known to all within %v, who is back within %v", crash, back)
		})
	}
}

func TestReportsASplit(t *testing.T) {
	for _, ring := range []bool{false, true} {
		w := newWorld(t, 5, ring, sim.Config{Seed: 1})
		report := func(id coterie.NodeID) string { return coreOf(w, id).Report(w.Now()).String() }
		require.NoError(t, w.Run(10*time.Second))
		require.Equal(t, "[m00 m01 m02 m03 m04]: majority", report("m00"))
		require.False(t, coreOf(w, "m00").Report(w.Now()).Split())
		w.Partition(ids(5)[:2], ids(5)[2:])
		require.NoError(t, w.Run(20*time.Second))
		require.Equal(t, "[m00 m01] silent [m02 m03 m04]: no majority", report("m00"))
		require.Equal(t, "[m02 m03 m04] silent [m00 m01]: majority", report("m04"))
		w.Heal()
		require.NoError(t, w.Run(40*time.Second))
		require.Equal(t, "[m00 m01 m02 m03 m04]: majority", report("m03"))
	}
}

// Cut off both ways from all but one, which still hears everyone, a member is of the group by way of that one; heard
// but hearing nobody it is not.
func TestReportsWhoHearsWhom(t *testing.T) {
	w := newWorld(t, 4, false, sim.Config{Seed: 2})
	for _, id := range []coterie.NodeID{"m00", "m01"} {
		w.Cut("m03", id)
		w.Cut(id, "m03")
	}
	require.NoError(t, w.Run(20*time.Second))
	require.Equal(t, "[m00 m01 m02 m03]: majority", coreOf(w, "m00").Report(w.Now()).String())
	w.Heal()
	for _, id := range []coterie.NodeID{"m00", "m01", "m02"} {
		w.Cut(id, "m03")
	}
	require.NoError(t, w.Run(20*time.Second))
	require.Equal(t, "[m00 m01 m02] [m03]: majority", coreOf(w, "m00").Report(w.Now()).String())
	require.Equal(t, "[m03] silent [m00 m01 m02]: no majority", coreOf(w, "m03").Report(w.Now()).String())
}

func TestTheSameSeedIsTheSameRun(t *testing.T) {
	simtest.RequireDeterministic(t, func(trace *sim.Trace) {
		w := newWorld(t, 5, true, sim.Config{Seed: 8, Trace: trace, Link: sim.Link{Loss: 0.1}})
		require.NoError(t, w.Run(20*time.Second))
	})
}

func newTestCore(t *testing.T, id coterie.NodeID) *Core {
	t.Helper()
	c, err := NewCore(Config{ID: id, Members: ids(3), Seed: 7})
	require.NoError(t, err)
	c.Tick(start)
	return c
}

func TestMalformedChangesNothing(t *testing.T) {
	a, b := newTestCore(t, "m00"), newTestCore(t, "m01")
	good := b.Ready().Send[0].Payload
	before := a.Members()
	for cut := range good {
		require.Error(t, a.Step(start, "m01", good[:cut]), cut)
	}
	for i := range 9 {
		bad := append([]byte(nil), good...)
		bad[i] ^= 0xff
		require.Error(t, a.Step(start, "m01", bad))
	}
	require.Error(t, a.Step(start, "m01", append(good, good[9:]...)), "a row twice")
	require.Error(t, a.Step(start, "stranger", good))
	require.Error(t, a.Step(start, "m02", good), "m02 says nothing of itself")
	require.Error(t, a.Step(start, "m00", good), "from itself")
	var newer *coterie.FormatError
	require.ErrorAs(t, a.Step(start, "m01", []byte{2}), &newer)
	require.Equal(t, before, a.Members())
	require.NoError(t, a.Step(start, "m01", good))
	require.Equal(t, membership.Alive, a.Members()[1].State)
	require.Error(t, a.Replay(nil))
}

// What others remember of a life that has ended does not count as a sign of it.
func TestOldLivesAreNoNews(t *testing.T) {
	a, b := newTestCore(t, "m00"), newTestCore(t, "m01")
	first := b.Ready().Send[0].Payload
	require.NoError(t, a.Step(start, "m01", first))
	again, err := NewCore(Config{ID: "m01", Members: ids(3), Seed: 8})
	require.NoError(t, err)
	again.Tick(start)
	require.NoError(t, a.Step(start, "m01", again.Ready().Send[0].Payload))
	life := a.Members()[1].Life
	third := newTestCore(t, "m02")
	require.NoError(t, third.Step(start, "m01", first))
	third.Ready()
	third.beat()
	require.NoError(t, a.Step(start, "m02", third.Ready().Send[0].Payload))
	require.Equal(t, life, a.Members()[1].Life)
}

func TestGoldenHeartbeat(t *testing.T) {
	a, b := newTestCore(t, "m00"), newTestCore(t, "m01")
	require.NoError(t, a.Step(start, "m01", b.Ready().Send[0].Payload))
	a.Ready()
	a.beat()
	path := filepath.Join("testdata", "heartbeat.hex")
	got := hex.EncodeToString(a.Ready().Send[0].Payload) + "\n"
	if os.Getenv("COTERIE_UPDATE") == "1" {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestConfigNamesTheField(t *testing.T) {
	for field, change := range map[string]func(*Config){
		"Config.ID":     func(c *Config) { c.ID = "" },
		"Members is":    func(c *Config) { c.Members = nil },
		"at most":       func(c *Config) { c.Members = ids(300) },
		"does not have": func(c *Config) { c.ID = "x" },
		"twice":         func(c *Config) { c.Members = append(c.Members, "m00") },
		"Seed":          func(c *Config) { c.Seed = 0 },
		"negative":      func(c *Config) { c.Interval = -1 },
		"no estimator":  func(c *Config) { c.New = func() membership.Estimator { return nil } },
	} {
		cfg := Config{ID: "m00", Members: ids(3), Seed: 1}
		change(&cfg)
		_, err := NewCore(cfg)
		require.ErrorContains(t, err, field)
	}
	_, err := Start(Config{ID: "m00", Members: ids(1)})
	require.ErrorContains(t, err, "Transport")
}

func FuzzHeartbeat(f *testing.F) {
	core, err := NewCore(Config{ID: "m01", Members: ids(3), Seed: 1})
	if err != nil {
		f.Fatal(err)
	}
	core.Tick(start)
	f.Add(core.Ready().Send[0].Payload)
	f.Fuzz(func(t *testing.T, payload []byte) {
		c := newTestCore(t, "m00")
		c.Ready()
		before := c.Members()
		if c.Step(start, "m01", payload) != nil {
			require.Equal(t, before, c.Members())
		}
		c.beat()
		_, err := c.decode(c.Ready().Send[0].Payload)
		require.NoError(t, err)
		_ = c.Report(start)
	})
}
