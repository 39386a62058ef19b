package maekawa

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
)

func peers(n int) []coterie.NodeID {
	ids := make([]coterie.NodeID, n)
	for i := range ids {
		ids[i] = coterie.NodeID(fmt.Sprintf("n%02d", i))
	}
	return ids
}

// cluster is a world whose nodes want names, hold them for a while and want them again.
type cluster struct {
	t       *testing.T
	w       *sim.World
	cfg     Config
	names   []string
	rng     *rand.Rand
	hold    time.Duration
	fence   *lock.Fence
	last    map[string]uint64         // token of the last entry of each name
	holding map[string]coterie.NodeID // by name
	entries int
	quiet   bool // nobody wants anything new
	err     error
}

func newCluster(t *testing.T, world sim.Config, cfg Config, names ...string) *cluster {
	t.Helper()
	w, err := sim.New(world)
	require.NoError(t, err)
	fence, err := lock.NewFence(lock.FenceConfig{})
	require.NoError(t, err)
	c := &cluster{
		t: t, w: w, cfg: cfg, names: names, rng: w.Rand(), hold: 3 * time.Millisecond, fence: fence,
		last: make(map[string]uint64), holding: make(map[string]coterie.NodeID),
	}
	for _, id := range cfg.Peers {
		require.NoError(t, w.Add(id, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) { return c.boot(id, incarnation) }}))
	}
	w.Invariant("exclusion", func(*sim.World) error { return c.err })
	return c
}

// boot makes a node. What it held before is held no more.
func (c *cluster) boot(id coterie.NodeID, incarnation uint64) (coterie.Core, sim.App) {
	for name, holder := range c.holding {
		if holder == id {
			delete(c.holding, name)
		}
	}
	cfg := c.cfg
	cfg.ID = id
	core, err := NewCore(cfg)
	require.NoError(c.t, err)
	return core, sim.EventFunc(func(_ time.Time, event any) { c.enter(id, incarnation, event.(lock.Entered)) })
}

// alive is whether a node runs in the incarnation given.
func (c *cluster) alive(id coterie.NodeID, incarnation uint64) bool {
	return c.w.Up(id) && c.w.Incarnation(id) == incarnation
}

func (c *cluster) enter(id coterie.NodeID, incarnation uint64, e lock.Entered) {
	if holder, held := c.holding[e.Name]; held && c.w.Up(holder) {
		c.err = fmt.Errorf("%s entered %s, which %s holds", id, e.Name, holder)
	}
	if err := c.fence.Check(e.Name, e.Token); err != nil {
		c.err = fmt.Errorf("%s entered %s: %w", id, e.Name, err)
	} else if e.Token <= c.last[e.Name] {
		c.err = fmt.Errorf("%s entered %s with %d after %d", id, e.Name, e.Token, c.last[e.Name])
	}
	c.last[e.Name] = e.Token
	c.holding[e.Name] = id
	c.entries++
	c.w.After(time.Duration(c.rng.Int64N(int64(c.hold)+1)), func() {
		if c.alive(id, incarnation) {
			_ = c.w.Do(id, func(now time.Time, core coterie.Core) {
				delete(c.holding, e.Name)
				core.(*Core).Release(now, e.Name)
			})
		}
	})
}

func (c *cluster) request(id coterie.NodeID, name string) {
	if c.w.Up(id) {
		_ = c.w.Do(id, func(now time.Time, core coterie.Core) { core.(*Core).Request(now, name) })
	}
}

// cancel takes back a request that has not entered.
func (c *cluster) cancel(id coterie.NodeID, name string) {
	if c.w.Up(id) {
		_ = c.w.Do(id, func(now time.Time, core coterie.Core) {
			if r := core.(*Core).requests[name]; r != nil && r.token == 0 {
				core.(*Core).Release(now, name)
			}
		})
	}
}

// want lets a node want names again and again.
func (c *cluster) want(id coterie.NodeID, pause time.Duration) {
	c.w.After(time.Duration(c.rng.Int64N(int64(pause))), func() {
		if c.quiet {
			return
		}
		name := c.names[c.rng.IntN(len(c.names))]
		if c.rng.IntN(5) == 0 {
			c.cancel(id, name)
		} else {
			c.request(id, name)
		}
		c.want(id, pause)
	})
}

// idle is whether nobody wants or holds anything.
func (c *cluster) idle() bool {
	for _, id := range c.cfg.Peers {
		if !c.w.Up(id) || len(c.w.Core(id).(*Core).requests)+len(c.w.Core(id).(*Core).later) > 0 {
			return false
		}
	}
	return true
}

// run plays a schedule of faults among nodes that contend, then waits for all that wait to enter.
func run(t *testing.T, seed uint64, n int, b bugs, trace *sim.Trace) error {
	t.Helper()
	cfg := Config{Peers: peers(n), bugs: b}
	c := newCluster(t, sim.Config{
		Seed: seed, MaxSkew: time.Second, MaxDrift: 200, Trace: trace,
		Link: sim.Link{Loss: 0.02, Duplicate: 0.05, Reorder: 0.05}, Disk: sim.Disk{Crash: 0.0005},
	}, cfg, "a", "b")
	for _, id := range cfg.Peers {
		c.want(id, 400*time.Millisecond)
	}
	s := sim.DrawSchedule(seed, sim.Limits{Nodes: cfg.Peers, Length: 4 * time.Second})
	if err := c.w.Play(s); err != nil {
		return err
	}
	if err := c.w.Run(500 * time.Millisecond); err != nil {
		return err
	}
	c.quiet = true
	before := c.entries
	for _, id := range cfg.Peers {
		c.request(id, "a")
	}
	if err := c.w.Run(10 * time.Millisecond); err != nil { // the requests are made
		return err
	}
	if err := c.w.RunUntil(c.idle, time.Minute); err != nil {
		return err
	}
	if c.entries == before {
		return errors.New("no entries after the faults")
	}
	return nil
}

func TestExclusionAndProgressUnderAllFaults(t *testing.T) {
	simtest.Seeds(t, testsize.N(600, 10_000), func(t *testing.T, seed uint64) {
		require.NoError(t, run(t, seed, []int{3, 4, 5, 7}[seed%4], bugs{}, nil))
	})
}

func TestSameSeedSameTrace(t *testing.T) {
	simtest.RequireDeterministic(t, func(trace *sim.Trace) { require.NoError(t, run(t, 3, 7, bugs{}, trace)) })
}

func TestPlantedBugsAreFound(t *testing.T) {
	for name, b := range map[string]bugs{
		"forgetGrants": {forgetGrants: true},
		"countYielded": {countYielded: true},
		"noFailed":     {noFailed: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(1); seed <= 500; seed++ {
				if err := run(t, seed, 7, b, nil); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Fatal("not found")
		})
	}
}

// contend lets all nodes enter one name so many times each, as fast as they can, on links without faults.
func contend(t *testing.T, seed uint64, n, times int) (perVoter float64) {
	t.Helper()
	ids := peers(n)
	var link sim.Link
	if seed%4 == 3 { // a heavy tail: messages overtake each other
		link.Latency = sim.LogNormal(0, time.Millisecond, 1)
	}
	spread := []time.Duration{time.Microsecond, 5 * time.Millisecond, 50 * time.Millisecond}[seed%3]
	c := newCluster(t, sim.Config{Seed: seed, Link: link}, Config{Peers: ids, Resend: time.Hour}, "a")
	k := 0
	for _, id := range ids {
		k += len(Quorums(ids)[id]) - 1
	}
	total := 0
	for range times {
		for _, id := range ids {
			c.w.After(time.Duration(c.rng.Int64N(int64(spread))), func() { c.request(id, "a") })
		}
		total += n
		require.NoError(t, c.w.RunUntil(func() bool { return c.entries == total && c.idle() }, 10*time.Minute))
	}
	require.NoError(t, c.w.Run(time.Second))
	return float64(c.w.Stats().Sent) / float64(k*times)
}

// Section 5 of the paper: 3 messages for each arbiter at light demand, 5 at most at heavy demand; and no deadlock: with an
// hour until messages are sent again, ten minutes must do.
func TestContendedAtMostFiveMessagesForEachArbiterAndNoDeadlock(t *testing.T) {
	worst := 0.0
	simtest.Seeds(t, testsize.N(250, 10_000), func(t *testing.T, seed uint64) {
		n := []int{3, 4, 6, 7, 9, 13, 25}[seed%7]
		got := contend(t, seed, n, 4)
		worst = max(worst, got)
		require.GreaterOrEqual(t, got, 3.0)
		require.LessOrEqual(t, got, 5.0)
	})
	t.Logf("at most %.2f messages for each arbiter", worst)
}

func TestUncontendedExactlyThreeMessagesForEachArbiter(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 7, 9, 13, 25} {
		c := newCluster(t, sim.Config{Seed: uint64(n)}, Config{Peers: peers(n)}, "a")
		want := uint64(0)
		for i, id := range c.cfg.Peers {
			want += 3 * uint64(len(Quorums(c.cfg.Peers)[id])-1)
			c.request(id, "a")
			require.NoError(t, c.w.RunUntil(func() bool { return c.entries == i+1 && c.idle() }, time.Second))
			require.NoError(t, c.w.Run(time.Second)) // nothing is sent again
			require.Equal(t, want, c.w.Stats().Sent, "n=%d", n)
		}
	}
}

func TestRestartedHolderIsAskedAndItsTokenOvertaken(t *testing.T) {
	c := newCluster(t, sim.Config{Seed: 1}, Config{Peers: peers(3)}, "a")
	c.hold = time.Hour
	c.request("n00", "a")
	require.NoError(t, c.w.RunUntil(func() bool { return c.entries == 1 }, time.Second))
	first := c.last["a"]
	c.w.Crash("n00")
	c.request("n01", "a")
	require.NoError(t, c.w.Run(5*time.Second))
	require.Equal(t, 1, c.entries, "a holder that is down blocks")
	c.w.Restart("n00")
	require.NoError(t, c.w.RunUntil(func() bool { return c.entries == 2 }, time.Second))
	require.Greater(t, c.last["a"], first)
}

func TestNamesBeyondTheLimitWaitForRoom(t *testing.T) {
	c := newCluster(t, sim.Config{Seed: 1}, Config{Peers: peers(3), MaxNames: 2}, "a")
	for i := range 20 {
		for _, id := range c.cfg.Peers {
			c.request(id, fmt.Sprint(i))
		}
	}
	most := 0
	c.w.Invariant("limit", func(w *sim.World) error {
		most = max(most, len(w.Core("n00").(*Core).requests))
		return nil
	})
	require.NoError(t, c.w.RunUntil(func() bool { return c.entries == 60 && c.idle() }, time.Minute))
	require.Equal(t, 2, most)
}

// Releases that are lost leave names behind at arbiters. They are found when there are many.
func TestLostReleasesDoNotFillTheArbiters(t *testing.T) {
	c := newCluster(t, sim.Config{Seed: 1, Link: sim.Link{Loss: 0.3}}, Config{Peers: peers(3), MaxNames: 8}, "a")
	for i := range 300 {
		c.request("n00", fmt.Sprint(i))
		require.NoError(t, c.w.RunUntil(func() bool { return c.entries == i+1 && c.idle() }, time.Minute))
	}
	require.Less(t, len(c.w.Core("n01").(*Core).arbiters), 30)
}
