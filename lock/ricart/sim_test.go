package ricart

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
)

func ids(n int) []coterie.NodeID {
	all := make([]coterie.NodeID, n)
	for i := range all {
		all[i] = coterie.NodeID(fmt.Sprintf("n%02d", i))
	}
	return all
}

// world is a cluster in the simulator whose applications are judged by what they were told.
type world struct {
	*sim.World
	t      *testing.T
	ids    []coterie.NodeID
	apps   map[coterie.NodeID]*app // of the present incarnations
	fence  *lock.Fence
	last   map[string]uint64 // the newest token of each name
	order  []coterie.NodeID  // who entered
	broken error
	busy   bool // clients go on
	hold   func() time.Duration
}

// app is what one incarnation of a node believes.
type app struct {
	asked map[string]bool   // asked for, without an answer
	held  map[string]uint64 // by which token
}

func newWorld(t *testing.T, n int, cfg sim.Config, planted bugs, spare uint64) *world {
	t.Helper()
	w, err := sim.New(cfg)
	require.NoError(t, err)
	fence, err := lock.NewFence(lock.FenceConfig{})
	require.NoError(t, err)
	c := &world{World: w, t: t, ids: ids(n), apps: map[coterie.NodeID]*app{}, fence: fence, last: map[string]uint64{}}
	c.hold = func() time.Duration { return time.Duration(c.Rand().Int64N(int64(40 * time.Millisecond))) }
	for _, id := range c.ids {
		require.NoError(t, w.Add(id, sim.Node{New: func(uint64) (coterie.Core, sim.App) {
			core, err := NewCore(Config{ID: id, Peers: c.ids})
			require.NoError(t, err)
			core.bugs, core.spare = planted, spare
			a := &app{asked: map[string]bool{}, held: map[string]uint64{}}
			c.apps[id] = a
			return core, sim.EventFunc(func(_ time.Time, event any) { c.event(id, a, event.(lock.Entered)) })
		}}))
	}
	w.Invariant("exclusion", func(*sim.World) error { return c.exclusion() })
	w.Invariant("core", func(*sim.World) error {
		for _, id := range c.ids {
			if core, ok := c.Core(id).(*Core); ok {
				if err := core.check(); err != nil {
					return fmt.Errorf("%s: %w", id, err)
				}
			}
		}
		return nil
	})
	return c
}

// event takes an answer. The simulator lets an event wait for a sync while the request behind it is taken back, and
// perhaps made again; the core knows.
func (c *world) event(id coterie.NodeID, a *app, e lock.Entered) {
	token, held := c.Core(id).(*Core).Holding(e.Name)
	if !held || token != e.Token {
		return
	}
	if !a.asked[e.Name] {
		c.broken = errors.Join(c.broken, fmt.Errorf("%s entered %s unasked", id, e.Name))
	}
	delete(a.asked, e.Name)
	a.held[e.Name] = e.Token
	c.order = append(c.order, id)
	if before := c.last[e.Name]; e.Token <= before {
		c.broken = errors.Join(c.broken, fmt.Errorf("%s entered %s by token %d after %d", id, e.Name, e.Token, before))
	} else if err := c.fence.Check(e.Name, e.Token); err != nil {
		c.broken = errors.Join(c.broken, err)
	} else if c.fence.Check(e.Name, before) == nil {
		c.broken = errors.Join(c.broken, fmt.Errorf("token %d of %s passes after %d", before, e.Name, e.Token))
	}
	c.last[e.Name] = e.Token
	c.After(c.hold(), func() { c.release(id, a, e.Name) })
}

func (c *world) exclusion() error {
	holders := map[string]coterie.NodeID{}
	for _, id := range c.ids {
		if !c.Up(id) {
			continue // what held the name is gone
		}
		for name := range c.apps[id].held {
			if other, ok := holders[name]; ok {
				return fmt.Errorf("%s and %s hold %s", other, id, name)
			}
			holders[name] = id
		}
	}
	return c.broken
}

func (c *world) request(id coterie.NodeID, name string) {
	a := c.apps[id]
	if _, held := a.held[name]; held || a.asked[name] || !c.Up(id) {
		return
	}
	a.asked[name] = true
	_ = c.Do(id, func(now time.Time, core coterie.Core) { core.(*Core).Request(now, name) })
}

func (c *world) release(id coterie.NodeID, a *app, name string) {
	if _, held := a.held[name]; !held || c.apps[id] != a || !c.Up(id) {
		return
	}
	delete(a.held, name)
	_ = c.Do(id, func(now time.Time, core coterie.Core) { core.(*Core).Release(now, name) })
}

// takeBack gives a request up, unless it is answered before the node gets to it: a paused node may take a while.
func (c *world) takeBack(id coterie.NodeID, a *app, name string) {
	if !c.Up(id) {
		return
	}
	_ = c.Do(id, func(now time.Time, core coterie.Core) {
		if a.asked[name] {
			delete(a.asked, name)
			core.(*Core).Release(now, name)
		}
	})
}

// client asks for names now and then, and at times takes back what it asked for.
func (c *world) client(id coterie.NodeID, names []string) {
	if !c.busy {
		return
	}
	name := names[c.Rand().IntN(len(names))]
	if a := c.apps[id]; a.asked[name] && c.Rand().IntN(4) == 0 {
		c.takeBack(id, a, name)
	} else {
		c.request(id, name)
	}
	c.After(time.Duration(c.Rand().Int64N(int64(60*time.Millisecond))), func() { c.client(id, names) })
}

// run plays a drawn schedule over busy clients, and then asks for every name on every node.
func run(t *testing.T, seed uint64, planted bugs, trace *sim.Trace) (*world, error) {
	t.Helper()
	c := newWorld(t, 2+int(seed%4), sim.Config{
		Seed: seed, Trace: trace, MaxSkew: time.Second, MaxDrift: 200,
		Link: sim.Link{Loss: 0.05, Duplicate: 0.05, Reorder: 0.1},
		Disk: sim.Disk{Crash: 0.02},
	}, planted, 1+seed%5)
	names := []string{"x", "y"}
	c.busy = true
	for _, id := range c.ids {
		c.client(id, names)
	}
	schedule := sim.DrawSchedule(seed, sim.Limits{Nodes: c.ids, Length: 4 * time.Second, MaxRate: 3})
	if err := c.Play(schedule); err != nil {
		return c, err
	}
	c.busy = false
	c.HealAll()
	for _, name := range names {
		for _, id := range c.ids {
			c.request(id, name)
		}
	}
	return c, c.RunUntil(func() bool {
		for _, a := range c.apps {
			if len(a.asked)+len(a.held) > 0 {
				return false
			}
		}
		return true
	}, time.Minute)
}

// Whatever goes wrong, there is one holder at a time and tokens rise; once it is over, who waits is granted.
func TestExclusionAndProgressUnderFaults(t *testing.T) {
	ran, entries, resent, crashes := 0, 0, uint64(0), uint64(0)
	simtest.Seeds(t, testsize.N(600, 10_000), func(t *testing.T, seed uint64) {
		c, err := run(t, seed, bugs{}, nil)
		require.NoError(t, err)
		ran++
		entries += len(c.order)
		crashes += c.Stats().Crashes
		for _, id := range c.ids {
			resent += c.Core(id).(*Core).Resent()
		}
		require.Zero(t, c.Stats().Rejected)
	})
	t.Log(entries, "entries,", resent, "repeats,", crashes, "crashes")
	if ran > 1 { // it did not pass by doing nothing
		require.Greater(t, entries, 10*ran)
		require.Greater(t, resent, uint64(10*ran))
		require.Positive(t, crashes)
	}
}

// What the simulation is for: it finds a node that forgets the times it has seen, and one that takes the late answer
// to an earlier request for one to the present.
func TestPlantedBugsAreFound(t *testing.T) {
	for name, planted := range map[string]bugs{"forget": {forget: true}, "any time": {anyTime: true}} {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(1); seed <= 300; seed++ {
				_, err := run(t, seed, planted, nil)
				var violation *sim.ViolationError
				if errors.As(err, &violation) && violation.Name == "exclusion" {
					return
				}
			}
			t.Fatal("not found")
		})
	}
}

func TestDeterministic(t *testing.T) {
	simtest.RequireDeterministic(t, func(trace *sim.Trace) {
		_, err := run(t, 7, bugs{}, trace)
		require.NoError(t, err)
	})
}

// On faultless links, 2(n-1) messages an entry: alone and with everybody at once.
func TestMessagesPerEntry(t *testing.T) {
	for _, n := range []int{1, 2, 3, 9} {
		t.Run(fmt.Sprint("n=", n), func(t *testing.T) {
			c := newWorld(t, n, sim.Config{Seed: 1}, bugs{}, spareTimes)
			c.hold = func() time.Duration { return 3 * time.Millisecond }
			per := uint64(2 * (n - 1))
			for i := range 5 {
				c.request(c.ids[i%n], "x")
				require.NoError(t, c.Run(50*time.Millisecond))
				require.Len(t, c.order, i+1)
				require.Equal(t, per*uint64(i+1), c.Stats().Sent)
			}
			for _, id := range c.ids {
				c.request(id, "x")
			}
			require.NoError(t, c.Run(time.Second))
			require.Len(t, c.order, 5+n)
			require.Equal(t, per*uint64(5+n), c.Stats().Sent)
			for _, id := range c.ids {
				require.Zero(t, c.Core(id).(*Core).Resent())
			}
			require.LessOrEqual(t, c.Stats().Records, uint64(n)) // a bound each, for all entries
		})
	}
}

// Who asks at one time enters in the order of ids, and one message delay after the exit before.
func TestOrderAndDelay(t *testing.T) {
	latency := time.Millisecond
	c := newWorld(t, 5, sim.Config{
		Seed: 1, StepTime: -1, Link: sim.Link{Latency: sim.Fixed(latency)}, Disk: sim.Disk{Sync: sim.Fixed(0)},
	}, bugs{}, spareTimes)
	hold := 5 * time.Millisecond
	c.hold = func() time.Duration { return hold }
	for i := range c.ids {
		c.request(c.ids[len(c.ids)-1-i], "x")
	}
	begun := c.Now()
	require.NoError(t, c.RunUntil(func() bool { return len(c.order) == len(c.ids) }, time.Second))
	require.Equal(t, c.ids, c.order)
	require.Equal(t, 2*latency+time.Duration(len(c.ids)-1)*(hold+latency), c.Now().Sub(begun))
}

// A node that is down blocks everybody, and no longer than that: also if it held the name when it crashed.
func TestCrashedNodeBlocksUntilItIsBack(t *testing.T) {
	for _, crash := range []int{0, 2} { // the holder, and one that wants nothing
		c := newWorld(t, 3, sim.Config{Seed: 1}, bugs{}, spareTimes)
		c.hold = func() time.Duration { return time.Hour }
		c.request(c.ids[0], "x")
		require.NoError(t, c.Run(50*time.Millisecond))
		require.Len(t, c.order, 1)
		c.Crash(c.ids[crash])
		if crash != 0 {
			c.release(c.ids[0], c.apps[c.ids[0]], "x")
		}
		c.request(c.ids[1], "x")
		require.NoError(t, c.Run(10*time.Second))
		require.Len(t, c.order, 1)
		c.Restart(c.ids[crash])
		require.NoError(t, c.RunUntil(func() bool { return len(c.order) == 2 }, maxWait*100*time.Millisecond+time.Second))
		require.Positive(t, c.Core(c.ids[1]).(*Core).Resent())
	}
}
