package suzuki

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
	"github.com/stretchr/testify/require"
)

type holding struct {
	id          coterie.NodeID
	incarnation uint64
	token       uint64
}

// world is nodes whose clients ask for names again and again.
type world struct {
	*sim.World
	ids     []coterie.NodeID
	names   []string
	lost    time.Duration
	bug     bug
	stop    bool
	holders map[string][]holding
	highest map[string]map[uint64]uint64 // by name and epoch; without regeneration the only epoch is 0
	entries map[string]map[coterie.NodeID]int
	broken  error
}

func newWorld(tb testing.TB, cfg sim.Config, n int, lost time.Duration, b bug, names ...string) *world {
	tb.Helper()
	sw, err := sim.New(cfg)
	require.NoError(tb, err)
	w := &world{World: sw, names: names, lost: lost, bug: b, holders: map[string][]holding{},
		highest: map[string]map[uint64]uint64{}, entries: map[string]map[coterie.NodeID]int{}}
	for _, name := range names {
		w.highest[name] = map[uint64]uint64{}
		w.entries[name] = map[coterie.NodeID]int{}
	}
	for i := range n {
		w.ids = append(w.ids, coterie.NodeID(rune('a'+i)))
	}
	for _, id := range w.ids {
		require.NoError(tb, w.Add(id, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) {
			core, err := NewCore(Config{ID: id, Peers: w.ids, Lost: lost, MaxNames: 8})
			require.NoError(tb, err)
			core.bug = w.bug
			return core, sim.EventFunc(func(_ time.Time, event any) { w.event(id, incarnation, event) })
		}}))
	}
	w.Invariant("exclusion", func(*sim.World) error { return w.check() })
	return w
}

func (w *world) check() error {
	if w.broken != nil {
		return w.broken
	}
	for _, name := range w.names {
		epochs := map[uint64]coterie.NodeID{}
		for _, h := range w.holders[name] {
			if !w.Up(h.id) || w.Incarnation(h.id) != h.incarnation {
				continue // it crashed, and holds nothing
			}
			if other, ok := epochs[h.token>>seqBits]; ok {
				return fmt.Errorf("%s and %s hold %q in epoch %d", other, h.id, name, h.token>>seqBits)
			}
			epochs[h.token>>seqBits] = h.id
		}
	}
	return nil
}

func (w *world) event(id coterie.NodeID, incarnation uint64, event any) {
	switch e := event.(type) {
	case lock.Forfeited:
		w.remove(id, e.Name)
	case lock.Entered:
		epoch := e.Token >> seqBits
		if e.Token <= w.highest[e.Name][epoch] {
			w.broken = fmt.Errorf("%s enters %q with token %#x after %#x", id, e.Name, e.Token, w.highest[e.Name][epoch])
		}
		if w.lost < 0 && epoch != 0 {
			w.broken = fmt.Errorf("epoch %d without regeneration", epoch)
		}
		w.highest[e.Name][epoch] = max(w.highest[e.Name][epoch], e.Token)
		w.entries[e.Name][id]++
		w.holders[e.Name] = append(w.holders[e.Name], holding{id, incarnation, e.Token})
		w.After(time.Duration(w.Rand().IntN(5))*time.Millisecond, func() {
			if w.Up(id) && w.Incarnation(id) == incarnation {
				w.remove(id, e.Name)
				_ = w.Do(id, func(now time.Time, core coterie.Core) { core.(*Core).Release(now, e.Name) })
			}
		})
	}
}

func (w *world) remove(id coterie.NodeID, name string) {
	kept := w.holders[name][:0]
	for _, h := range w.holders[name] {
		if h.id != id {
			kept = append(kept, h)
		}
	}
	w.holders[name] = kept
}

func (w *world) request(id coterie.NodeID, name string) {
	if w.Up(id) {
		_ = w.Do(id, func(now time.Time, core coterie.Core) { core.(*Core).Request(now, name) })
	}
}

// work makes a client ask now and then, and sometimes take back what it asked.
func (w *world) work(id coterie.NodeID, name string) {
	if w.stop {
		return
	}
	w.request(id, name)
	w.After(time.Duration(1+w.Rand().IntN(60))*time.Millisecond, func() {
		if !w.stop && w.Up(id) && w.Rand().IntN(8) == 0 {
			_ = w.Do(id, func(now time.Time, core coterie.Core) {
				if n := core.(*Core).names[name]; n != nil && n.waiting {
					core.(*Core).Release(now, name)
				}
			})
		}
		w.work(id, name)
	})
}

func (w *world) climate(seed uint64, length time.Duration) error {
	for _, id := range w.ids {
		for _, name := range w.names {
			w.After(time.Millisecond, func() { w.work(id, name) })
		}
	}
	return w.Play(sim.DrawSchedule(seed, sim.Limits{Nodes: w.ids, Length: length, MaxFor: length / 3}))
}

// quiet tells that no node that is up waits or holds.
func (w *world) quiet() bool {
	for _, id := range w.ids {
		if !w.Up(id) {
			continue
		}
		for _, n := range w.Core(id).(*Core).list {
			if n.waiting || n.held {
				return false
			}
		}
	}
	return true
}

// each waits until all requests of nodes that are up are granted, then lets each ask once more and waits again.
func (w *world) each(limit time.Duration) error {
	w.stop = true
	if err := w.Run(100 * time.Millisecond); err != nil { // calls that a pause kept back
		return err
	}
	if err := w.RunUntil(w.quiet, limit); err != nil {
		return err
	}
	want := map[string]map[coterie.NodeID]int{}
	for _, name := range w.names {
		want[name] = map[coterie.NodeID]int{}
		for _, id := range w.ids {
			if w.Up(id) {
				want[name][id] = w.entries[name][id] + 1
				w.request(id, name)
			}
		}
	}
	return w.RunUntil(func() bool {
		for _, name := range w.names {
			for id, count := range want[name] {
				if w.entries[name][id] < count {
					return false
				}
			}
		}
		return true
	}, limit)
}

func stormy(seed uint64) sim.Config {
	return sim.Config{Seed: seed, MaxDrift: 200,
		Link: sim.Link{Loss: 0.05, Duplicate: 0.1, Reorder: 0.1}, Disk: sim.Disk{Crash: 0.002}}
}

// Without regeneration there is one holder at every moment, tokens rise at each entry, and when all is healed whoever
// waits enters.
func TestNeverTwo(t *testing.T) {
	simtest.Seeds(t, testsize.N(250, 3000), func(t *testing.T, seed uint64) {
		w := newWorld(t, stormy(seed), 3+int(seed%3), -1, 0, "x", "y")
		require.NoError(t, w.climate(seed, 3*time.Second))
		require.NoError(t, w.each(time.Minute))
	})
}

// With regeneration that holds within each epoch, and a majority goes on without the others.
func TestRegenerationUnderFaults(t *testing.T) {
	var made uint64
	simtest.Seeds(t, testsize.N(60, 3000), func(t *testing.T, seed uint64) {
		w := newWorld(t, stormy(seed), 5, 1600*time.Millisecond, 0, "x", "y")
		require.NoError(t, w.climate(seed, 4*time.Second))
		w.Crash(w.ids[seed%5])
		w.Crash(w.ids[(seed+1)%5])
		for _, id := range w.ids {
			require.NoError(t, w.SetDisk(id, sim.Disk{}))
		}
		require.NoError(t, w.each(5*time.Minute))
		for _, id := range w.ids {
			if w.Up(id) {
				made += w.Core(id).(*Core).Stats().Regenerations
			}
		}
	})
	require.NotZero(t, made)
}

// The simulator finds planted bugs.
func TestPlantedBugs(t *testing.T) {
	for _, b := range []bug{bugTakeOld, bugForgetToken} {
		found := false
		for seed := uint64(1); seed <= 40 && !found; seed++ {
			w := newWorld(t, stormy(seed), 3, -1, b, "x", "y")
			var violation *sim.ViolationError
			found = errors.As(w.climate(seed, 3*time.Second), &violation) && violation.Name == "exclusion"
		}
		require.True(t, found, "bug %d", b)
	}
}

func TestDeterministic(t *testing.T) {
	simtest.RequireDeterministic(t, func(trace *sim.Trace) {
		cfg := stormy(7)
		cfg.Trace = trace
		w := newWorld(t, cfg, 4, 1600*time.Millisecond, 0, "x")
		require.NoError(t, w.climate(7, 2*time.Second))
	})
}

// The paper: no message if the token is here, n if it is not; and nothing else on links without faults.
func TestMessagesPerEntry(t *testing.T) {
	for _, n := range []int{1, 2, 3, 9, 25} {
		w := newWorld(t, sim.Config{Seed: 1}, n, 0, 0, "x")
		require.NoError(t, w.Run(time.Second))
		last := coterie.NodeID("")
		for _, c := range w.ids {
			if w.Core(c).(*Core).name("x").place == here {
				last = c
			}
		}
		for round := range 3 {
			for _, id := range append([]coterie.NodeID{last}, w.ids...) {
				before, entered := w.Stats().Sent, w.entries["x"][id]
				w.request(id, "x")
				require.NoError(t, w.RunUntil(func() bool { return w.entries["x"][id] > entered }, time.Second))
				require.NoError(t, w.Run(20*time.Millisecond))
				want := uint64(n)
				if id == last {
					want = 0
				}
				require.Equal(t, want, w.Stats().Sent-before, "n=%d round %d", n, round)
				last = id
			}
		}
	}
}

// All at once: n messages for each node but the one that has the token.
func TestMessagesContended(t *testing.T) {
	const n = 9
	w := newWorld(t, sim.Config{Seed: 2}, n, 0, 0, "x")
	require.NoError(t, w.Run(time.Second))
	for _, id := range w.ids {
		w.request(id, "x")
	}
	require.NoError(t, w.RunUntil(func() bool { return len(w.entries["x"]) == n }, time.Second))
	require.NoError(t, w.Run(time.Second))
	require.EqualValues(t, n*(n-1), w.Stats().Sent)
	for _, id := range w.ids {
		s := w.Core(id).(*Core).Stats()
		require.Zero(t, s.Repeats+s.Others+s.Regenerations)
	}
}

// A restart has the token still; without it nobody enters until it is back, if tokens are never regenerated.
func TestTokenSurvivesRestart(t *testing.T) {
	w := newWorld(t, sim.Config{Seed: 3}, 3, -1, 0, "x")
	w.request("a", "x")
	require.NoError(t, w.RunUntil(func() bool { return w.entries["x"]["a"] == 1 }, time.Second))
	w.Crash("a")
	w.request("b", "x")
	require.ErrorIs(t, w.RunUntil(func() bool { return w.entries["x"]["b"] > 0 }, time.Minute), sim.ErrLimit)
	w.Restart("a")
	require.NoError(t, w.RunUntil(func() bool { return w.entries["x"]["b"] > 0 }, 2*time.Second))
}

// A holder that is cut off is superseded, its token is lower than the new one, and it learns so when it is back.
func TestForfeited(t *testing.T) {
	w := newWorld(t, sim.Config{Seed: 4}, 3, 0, 0, "x")
	var tokens []uint64
	var core *Core
	require.NoError(t, w.Run(time.Millisecond))
	require.NoError(t, w.Do("a", func(now time.Time, c coterie.Core) { core = c.(*Core); core.Request(now, "x") }))
	require.NoError(t, w.RunUntil(func() bool { return core.names["x"].held }, time.Second))
	tokens = append(tokens, core.names["x"].token.pack())
	w.Partition([]coterie.NodeID{"a"}, []coterie.NodeID{"b", "c"})
	// The client of this world leaves by itself; this one comes again, and enters with no message.
	require.NoError(t, w.Run(50*time.Millisecond))
	w.request("b", "x")
	require.NoError(t, w.RunUntil(func() bool { return w.entries["x"]["b"] == 1 }, time.Minute))
	b := w.Core("b").(*Core)
	tokens = append(tokens, b.names["x"].seen.pack())
	require.NoError(t, w.Do("a", func(now time.Time, _ coterie.Core) { core.Request(now, "x") }))
	require.True(t, core.names["x"].held)
	fence, err := lock.NewFence(lock.FenceConfig{})
	require.NoError(t, err)
	require.NoError(t, fence.Check("x", tokens[0]))
	require.NoError(t, fence.Check("x", tokens[1]))
	require.Error(t, fence.Check("x", core.names["x"].token.pack()))
	w.Heal()
	_ = core.Ready() // the entry: what follows is of the news alone
	require.NoError(t, core.Step(w.Now(), "b", message{kind: kindNotice, name: "x", promised: b.names["x"].promised, seen: b.names["x"].seen}.encode()))
	require.False(t, core.names["x"].held)
	require.Contains(t, core.Ready().Events, lock.Forfeited{Name: "x"})
}

// A node that was cut off with the idle token is told of the new one when it is back, though nobody asks for it.
func TestTold(t *testing.T) {
	w := newWorld(t, sim.Config{Seed: 5}, 3, 0, 0, "x")
	w.request("a", "x")
	require.NoError(t, w.RunUntil(func() bool { return w.entries["x"]["a"] == 1 }, time.Second))
	w.Partition([]coterie.NodeID{"a"}, []coterie.NodeID{"b", "c"})
	w.request("b", "x")
	require.NoError(t, w.RunUntil(func() bool { return w.entries["x"]["b"] == 1 }, time.Minute))
	require.Equal(t, here, w.Core("a").(*Core).names["x"].place)
	w.Heal()
	require.NoError(t, w.RunUntil(func() bool { return w.Core("a").(*Core).names["x"].place == elsewhere }, 11*time.Second))
	require.NoError(t, w.RunUntil(func() bool { return len(w.Core("b").(*Core).names["x"].untold) == 0 }, 11*time.Second))
	sent := w.Stats().Sent
	require.NoError(t, w.Run(time.Minute))
	require.Equal(t, sent, w.Stats().Sent)
}
