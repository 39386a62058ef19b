package swim_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/membership"
	"github.com/coterie-go/coterie/membership/swim"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
	"github.com/stretchr/testify/require"
)

// cluster is a simulated group. Each member's seed is the first.
type cluster struct {
	t      *testing.T
	w      *sim.World
	ids    []coterie.NodeID
	events func(at coterie.NodeID, now time.Time, e membership.Event[[]byte])
	other  func(at coterie.NodeID, event any)
}

func nodeID(i int) coterie.NodeID { return coterie.NodeID(fmt.Sprintf("n%03d", i)) }

func newCluster(t *testing.T, n int, cfg sim.Config, shape func(i int, c swim.Config) swim.Config) *cluster {
	t.Helper()
	w, err := sim.New(cfg)
	require.NoError(t, err)
	c := &cluster{t: t, w: w}
	for i := range n {
		id := nodeID(i)
		c.ids = append(c.ids, id)
		require.NoError(t, w.Add(id, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) {
			config := swim.Config{ID: id, Seed: cfg.Seed*1e6 + uint64(i)*1000 + incarnation, Seeds: []coterie.NodeID{nodeID(0), nodeID(1)}}
			if shape != nil {
				config = shape(i, config)
			}
			core, err := swim.NewCore(config)
			require.NoError(t, err)
			return core, sim.EventFunc(func(now time.Time, event any) {
				if e, ok := event.(membership.Event[[]byte]); ok {
					if c.events != nil {
						c.events(id, now, e)
					}
				} else if c.other != nil {
					c.other(id, event)
				}
			})
		}}))
	}
	return c
}

func (c *cluster) core(id coterie.NodeID) *swim.Core { return c.w.Core(id).(*swim.Core) }

// agree reports whether all that run see exactly those who run as alive.
func (c *cluster) agree() bool {
	for _, id := range c.ids {
		if c.w.Up(id) && !c.sees(id, func(other coterie.NodeID) bool { return c.w.Up(other) }) {
			return false
		}
	}
	return true
}

// count is agree where some are always under suspicion for a moment: those that run are the same for all.
func (c *cluster) count() bool {
	for _, id := range c.ids {
		for _, other := range c.ids {
			if !c.w.Up(id) {
				break
			}
			if m, ok := c.core(id).Member(other); (ok && m.State <= membership.Suspect) != c.w.Up(other) {
				return false
			}
		}
	}
	return true
}

func (c *cluster) sees(id coterie.NodeID, alive func(coterie.NodeID) bool) bool {
	core := c.core(id)
	for _, other := range c.ids {
		m, ok := core.Member(other)
		if (ok && m.State == membership.Alive) != alive(other) {
			return false
		}
	}
	return true
}

// until runs in steps of 10 ms until the condition holds, and returns how long that took.
func (c *cluster) until(what string, limit time.Duration, cond func() bool) time.Duration {
	c.t.Helper()
	begin := c.w.Elapsed()
	for !cond() {
		require.NoError(c.t, c.w.Run(10*time.Millisecond))
		if took := c.w.Elapsed() - begin; took > limit {
			c.dump()
			c.t.Fatalf("seed %d: %s: not within %v", c.w.Seed(), what, limit)
		}
	}
	return c.w.Elapsed() - begin
}

func (c *cluster) dump() {
	for _, id := range c.ids[:min(len(c.ids), 12)] {
		if !c.w.Up(id) {
			c.t.Logf("%s is down", id)
			continue
		}
		line := ""
		for _, m := range c.core(id).Members() {
			if m.State != membership.Alive {
				line += fmt.Sprintf(" %s=%v@%d", m.ID, m.State, m.Incarnation)
			}
		}
		c.t.Logf("%s: %d members, not alive:%s; %+v", id, len(c.core(id).Members()), line, c.core(id).Metrics())
	}
}

// down reports whether all that run know that a member is.
func (c *cluster) down(id coterie.NodeID) bool {
	for _, other := range c.ids {
		if !c.w.Up(other) {
			continue
		}
		if m, ok := c.core(other).Member(id); ok && m.State <= membership.Suspect {
			return false
		}
	}
	return true
}

// worst keeps the longest of many durations, and all of them for a median.
type worst []time.Duration

func (w *worst) add(d time.Duration) { *w = append(*w, d) }

func (w *worst) String() string {
	sorted := slices.Sorted(slices.Values(*w))
	if len(sorted) == 0 {
		return "never"
	}
	return fmt.Sprintf("median %v, worst of %d %v", sorted[len(sorted)/2], len(sorted), sorted[len(sorted)-1])
}

// period is the default ProbeInterval.
const period = 500 * time.Millisecond

// detection is the bound that the package comment gives for a calm network, with the defaults.
func detection(n int) time.Duration {
	scale := max(1, math.Log10(float64(n)))
	return time.Duration(2*n)*period + time.Duration(6*6*scale*float64(period)) + 10*time.Second
}

// settled is how long views may take to become one after the faults of the test have ended.
func settled(n int) time.Duration { return 9*detection(n) + 20*time.Second }

// The properties that the protocol is made for, under everything that the simulator has: after the faults all views
// become one; a member that has no part in it suspects nobody afterwards; a crash is known to all within the bound; and
// the load of a member does not grow with the group.
func TestFaults(t *testing.T) {
	var settle, crash, back worst
	var load float64
	begin := time.Now()
	simtest.Seeds(t, testsize.N(40, 1000), func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 7))
		n := 8 + rng.IntN(25)
		if rng.IntN(12) == 0 {
			n = 8 + rng.IntN(121)
		}
		link := sim.Link{Loss: 0.3 * rng.Float64(), Duplicate: 0.1 * rng.Float64(), Reorder: 0.1 * rng.Float64()}
		c := newCluster(t, n, sim.Config{Seed: seed, Link: link}, nil)
		kinds := []sim.FaultKind{sim.FaultCrash, sim.FaultPause, sim.FaultPartition, sim.FaultCut, sim.FaultLink, sim.FaultDrift}
		require.NoError(t, c.w.Play(sim.DrawSchedule(seed, sim.Limits{Nodes: c.ids, Length: 40 * time.Second, Kinds: kinds, MaxFor: 30 * time.Second})))
		settle.add(c.until("settle", settled(n), c.count))

		require.NoError(t, c.w.SetLinks(sim.Link{}))
		c.until("calm", 2*time.Minute, c.agree)     // late suspicions are refuted ...
		require.NoError(t, c.w.Run(20*time.Second)) // ... and local health recovers
		wrong := 0
		c.events = func(_ coterie.NodeID, _ time.Time, e membership.Event[[]byte]) {
			if e.Kind == membership.EventFail && c.w.Up(e.Member.ID) {
				wrong++
			}
		}
		sent := c.w.Stats().Sent
		require.NoError(t, c.w.Run(30*time.Second))
		load = max(load, float64(c.w.Stats().Sent-sent)/30/float64(n))
		require.True(t, c.agree())

		victim := c.ids[rng.IntN(n)]
		c.w.Crash(victim)
		crash.add(c.until("crash", detection(n), func() bool { return c.down(victim) }))
		c.w.Restart(victim)
		back.add(c.until("restart", 20*time.Second, c.agree))
		require.Zero(t, wrong, "members that are well were taken for failed in a calm network")
	})
	t.Logf("views are one after faults: %v", &settle)
	t.Logf("a crash is known to all: %v", &crash)
	t.Logf("a restarted member is alive for all: %v", &back)
	t.Logf("at most %.1f packets per member and second at rest; %v", load, time.Since(begin))
	require.Less(t, load, 8.0)
}

// Row by row what happened to others: a member that is away for long comes back when it can be reached, without an
// operator, and so do halves of a cluster (hashicorp/memberlist#222 asks for it).
func TestHealsAfterALongPartition(t *testing.T) {
	var heal worst
	simtest.Seeds(t, testsize.N(12, 300), func(t *testing.T, seed uint64) {
		n := []int{2, 3, 5, 8, 16, 32}[seed%6]
		split := 1 + int(seed/6)%(n-1)
		c := newCluster(t, n, sim.Config{Seed: seed}, func(_ int, cfg swim.Config) swim.Config {
			cfg.Seeds = []coterie.NodeID{nodeID(0)}
			return cfg
		})
		c.until("join", 10*time.Second, c.agree)
		c.w.Partition(c.ids[:split], c.ids[split:])
		c.until("know of it", settled(n), func() bool { // one who is alone gets slow, for it might be its own fault
			for i, id := range c.ids {
				if !c.sees(id, func(other coterie.NodeID) bool { return (other < nodeID(split)) == (i < split) }) {
					return false
				}
			}
			return true
		})
		require.NoError(t, c.w.Run(time.Duration(1+seed%5)*time.Hour/4))
		failed := 0
		c.events = func(_ coterie.NodeID, _ time.Time, e membership.Event[[]byte]) {
			if e.Kind == membership.EventFail {
				failed++
			}
		}
		c.w.Heal()
		heal.add(c.until("heal", time.Minute, c.agree))
		require.NoError(t, c.w.Run(30*time.Second))
		require.True(t, c.agree())
		require.Zero(t, failed, "in merging, members that are well were taken for failed")
	})
	t.Logf("two halves are one again: %v", &heal)
}

// A link that is cut one way harms nobody as long as others can be asked.
func TestOneWayCutIsBridged(t *testing.T) {
	c := newCluster(t, 8, sim.Config{Seed: 3}, nil)
	c.until("join", 10*time.Second, c.agree)
	c.w.Cut(c.ids[2], c.ids[5])
	c.w.Cut(c.ids[6], c.ids[3])
	c.events = func(at coterie.NodeID, _ time.Time, e membership.Event[[]byte]) {
		if e.Kind == membership.EventSuspect || e.Kind == membership.EventFail {
			t.Errorf("%s: %v", at, e)
		}
	}
	require.NoError(t, c.w.Run(5*time.Minute))
	require.True(t, c.agree())
}

func TestLeave(t *testing.T) {
	c := newCluster(t, 16, sim.Config{Seed: 5, Link: sim.Link{Loss: 0.1}}, nil)
	c.until("join", 20*time.Second, c.agree)
	id, kinds, goodbye := c.ids[7], map[membership.Kind]int{}, false
	c.events = func(at coterie.NodeID, _ time.Time, e membership.Event[[]byte]) {
		if e.Member.ID == id && at != id {
			kinds[e.Kind]++
		}
	}
	c.other = func(at coterie.NodeID, event any) {
		if _, ok := event.(swim.Goodbye); ok {
			require.Equal(t, id, at)
			goodbye = true
		}
	}
	require.NoError(t, c.w.Do(id, func(now time.Time, core coterie.Core) { core.(*swim.Core).Leave(now) }))
	c.until("goodbye", 5*time.Second, func() bool { return goodbye })
	c.w.Crash(id)
	c.until("all know", 20*time.Second, func() bool { return c.down(id) })
	require.NoError(t, c.w.Run(time.Minute))
	require.Equal(t, map[membership.Kind]int{membership.EventLeave: 15}, kinds, "who says goodbye is not taken for failed")
	c.w.Restart(id)
	c.until("it is back", 20*time.Second, c.agree)
}

// Metadata of any size gets everywhere, whatever the network loses.
func TestMetadata(t *testing.T) {
	small, large := []byte("zone=1"), make([]byte, 100_000)
	for i := range large {
		large[i] = byte(i * i >> 5)
	}
	c := newCluster(t, 12, sim.Config{Seed: 2, Link: sim.Link{Loss: 0.2, Reorder: 0.1, Duplicate: 0.1}}, func(i int, cfg swim.Config) swim.Config {
		if cfg.Meta = small; i == 4 {
			cfg.Meta = large
		}
		return cfg
	})
	have := func(id coterie.NodeID, want []byte) func() bool {
		return func() bool {
			for _, other := range c.ids {
				m, ok := c.core(other).Member(id)
				if !ok || m.Err != nil || string(m.Meta) != string(want) {
					return false
				}
			}
			return true
		}
	}
	c.until("small", 30*time.Second, have(c.ids[3], small))
	t.Log("100 kB, 20% loss:", c.until("large", 5*time.Minute, have(c.ids[4], large)))
	update := func(i int, meta []byte) {
		require.NoError(t, c.w.Do(c.ids[i], func(now time.Time, core coterie.Core) {
			require.NoError(t, core.(*swim.Core).Update(now, meta))
		}))
	}
	update(4, small)
	update(3, large[:5000])
	c.until("larger and smaller", time.Minute, func() bool { return have(c.ids[4], small)() && have(c.ids[3], large[:5000])() })
	require.Error(t, c.core(c.ids[1]).Update(c.w.Now(), make([]byte, swim.MaxMeta+1)))
}

// Each broadcast comes to everyone once, also beside the news of many members.
func TestBroadcast(t *testing.T) {
	const n, each = 24, 20
	c := newCluster(t, n, sim.Config{Seed: 9, Link: sim.Link{Duplicate: 0.2, Loss: 0.05}}, nil)
	got := map[string]int{}
	c.other = func(at coterie.NodeID, event any) {
		if m, ok := event.(swim.Message); ok {
			got[fmt.Sprint(at, " ", m.From, " ", string(m.Payload))]++
		}
	}
	c.until("join", 20*time.Second, c.agree)
	for round := range each {
		for _, id := range c.ids[:3] {
			require.NoError(t, c.w.Do(id, func(now time.Time, core coterie.Core) {
				require.NoError(t, core.(*swim.Core).Broadcast(now, fmt.Appendf(nil, "message %d", round)))
			}))
		}
		c.w.Crash(c.ids[5+round%10]) // news of members
		require.NoError(t, c.w.Run(300*time.Millisecond))
		c.w.Restart(c.ids[5+round%10])
	}
	require.NoError(t, c.w.Run(10*time.Second))
	arrived := 0
	for what, times := range got {
		require.Equal(t, 1, times, what)
		arrived++
	}
	always := (n - 10 - 1) * 3 * each // at those that were never down
	require.Greater(t, arrived, always*99/100)
	core := c.core(c.ids[0])
	require.ErrorIs(t, core.Broadcast(c.w.Now(), make([]byte, 1200)), swim.ErrTooLarge)
	for err := error(nil); err == nil; {
		if err = core.Broadcast(c.w.Now(), make([]byte, 1000)); err != nil {
			require.ErrorIs(t, err, coterie.ErrOverloaded)
		}
	}
}

// Members whose keys differ do not hear each other; a rotation in three steps disturbs nobody.
func TestKeyRotation(t *testing.T) {
	old, young := []byte("0123456789abcdef"), []byte("fedcba9876543210")
	c := newCluster(t, 8, sim.Config{Seed: 4}, func(_ int, cfg swim.Config) swim.Config {
		cfg.Keys = [][]byte{old}
		return cfg
	})
	c.until("join", 10*time.Second, c.agree)
	c.events = func(at coterie.NodeID, _ time.Time, e membership.Event[[]byte]) {
		if e.Kind == membership.EventSuspect || e.Kind == membership.EventFail {
			t.Errorf("%s: %v", at, e)
		}
	}
	for _, ring := range [][][]byte{{old, young}, {young, old}, {young}} {
		for _, id := range c.ids {
			require.NoError(t, c.core(id).SetKeys(ring...))
			require.NoError(t, c.w.Run(700*time.Millisecond))
		}
	}
	require.True(t, c.agree())
	require.Zero(t, c.core(c.ids[0]).Metrics().Unauthentic)
	require.NoError(t, c.core(c.ids[7]).SetKeys(old))
	c.events = nil
	c.until("the one with the old key is out", detection(8), func() bool {
		m, _ := c.core(c.ids[0]).Member(c.ids[7])
		return m.State == membership.Unreachable
	})
	require.NotZero(t, c.core(c.ids[0]).Metrics().Unauthentic)
}

// The unreachable are given up, then forgotten, so that names that come and go cost nothing for ever.
func TestForgets(t *testing.T) {
	c := newCluster(t, 5, sim.Config{Seed: 6}, func(_ int, cfg swim.Config) swim.Config {
		cfg.ForgetAfter = 10 * time.Minute
		return cfg
	})
	c.until("join", 10*time.Second, c.agree)
	c.w.Crash(c.ids[4])
	var kinds []membership.Kind
	c.events = func(at coterie.NodeID, _ time.Time, e membership.Event[[]byte]) {
		if at == c.ids[0] {
			kinds = append(kinds, e.Kind)
		}
	}
	c.until("forgotten", time.Hour, func() bool { return len(c.core(c.ids[0]).Members()) == 4 })
	require.Equal(t, []membership.Kind{membership.EventSuspect, membership.EventFail, membership.EventDead, membership.EventForget}, kinds)
	require.ErrorIs(t, c.core(c.ids[0]).Remove(c.w.Now(), c.ids[4]), swim.ErrUnknownMember)
	require.Error(t, c.core(c.ids[0]).Remove(c.w.Now(), c.ids[1]), "it is alive")
	c.w.Restart(c.ids[4])
	c.until("it is back", 20*time.Second, c.agree)
}

// Lifeguard, section V: one member of 100 is slow to process what it receives, and plain SWIM has it take others for
// failed again and again: their acks, and their refutations, come to it too late.
func TestLifeguardCutsFalsePositives(t *testing.T) {
	const n = 100
	minutes := time.Duration(testsize.N(2, 60))
	count := func(plain bool) (wrong, elsewhere int) {
		c := newCluster(t, n, sim.Config{Seed: 11}, func(_ int, cfg swim.Config) swim.Config {
			if plain {
				return swim.Plain(cfg)
			}
			return cfg
		})
		c.until("join", time.Minute, c.agree)
		slow := c.ids[n/2]
		for _, id := range c.ids {
			if id != slow {
				require.NoError(t, c.w.SetLink(id, slow, sim.Link{Latency: sim.Exponential(7*time.Second, 2*time.Second)}))
			}
		}
		c.events = func(at coterie.NodeID, _ time.Time, e membership.Event[[]byte]) {
			switch {
			case e.Kind != membership.EventFail || e.Member.ID == slow:
			case at == slow:
				wrong++
			default:
				elsewhere++
			}
		}
		require.NoError(t, c.w.Run(minutes*time.Minute))
		return wrong, elsewhere
	}
	plain, plainElsewhere := count(true)
	lifeguard, elsewhere := count(false)
	t.Logf("1 slow member of %d, %d simulated minutes, healthy members declared failed: plain SWIM %d, with Lifeguard %d", n, minutes, plain, lifeguard)
	t.Logf("(of whom healthy members did: %d and %d)", plainElsewhere, elsewhere)
	require.Greater(t, plain, 50, "the scenario is too easy")
	require.LessOrEqual(t, 50*(lifeguard+elsewhere), plain+plainElsewhere)
}

// The curve of the package comment: how long it takes until all know of a crash, and how often one who is well is taken
// for failed, over the loss of the network.
func TestCurve(t *testing.T) {
	const n = 32
	losses := []float64{0, 0.1, 0.3, 0.5}
	var lines []string
	for _, loss := range losses {
		var crash worst
		failed, suspected, minutes := 0, 0, 0.0
		for seed := range uint64(testsize.N(3, 100)) {
			c := newCluster(t, n, sim.Config{Seed: seed + 1, Link: sim.Link{Loss: loss}}, nil)
			c.until("join", 2*time.Minute, func() bool { return c.agree() || loss > 0.3 && c.w.Elapsed() > time.Minute })
			c.events = func(_ coterie.NodeID, _ time.Time, e membership.Event[[]byte]) {
				switch {
				case !c.w.Up(e.Member.ID):
				case e.Kind == membership.EventFail:
					failed++
				case e.Kind == membership.EventSuspect:
					suspected++
				}
			}
			require.NoError(t, c.w.Run(time.Minute))
			minutes += n
			victim := c.ids[5]
			c.w.Crash(victim)
			crash.add(c.until("crash", settled(n), func() bool { return c.down(victim) }))
		}
		lines = append(lines, fmt.Sprintf("loss %2.0f%%: all know: %v; suspected at a member %.3f, failed %.4f times a member and minute",
			100*loss, &crash, float64(suspected)/minutes/n, float64(failed)/minutes/n))
		if loss <= 0.3 {
			require.Zero(t, failed, "at a loss of %v", loss)
		}
	}
	for _, line := range lines {
		t.Log(line)
	}
}

func TestTheSameSeedIsTheSameRun(t *testing.T) {
	simtest.RequireDeterministic(t, func(trace *sim.Trace) {
		c := newCluster(t, 9, sim.Config{Seed: 8, Trace: trace, Link: sim.Link{Loss: 0.1}}, nil)
		require.NoError(t, c.w.Play(sim.DrawSchedule(8, sim.Limits{Nodes: c.ids, Length: 20 * time.Second})))
		require.NoError(t, c.w.Run(30*time.Second))
	})
}
