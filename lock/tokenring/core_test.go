package tokenring

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
	"github.com/stretchr/testify/require"
)

func ids(n int) []coterie.NodeID {
	var out []coterie.NodeID
	for i := range n {
		out = append(out, coterie.NodeID(fmt.Sprintf("n%02d", i)))
	}
	return out
}

// group is a simulated ring.
type group struct {
	*sim.World
	t       *testing.T
	ids     []coterie.NodeID
	entered func(id coterie.NodeID, e lock.Entered)
	last    map[string]uint64 // the largest token of a name
	entries int
	falls   int // tokens that did not rise
	lost    int // holdings that were forfeited
}

func newGroup(t *testing.T, n int, cfg sim.Config, change func(*Core)) *group {
	t.Helper()
	w, err := sim.New(cfg)
	require.NoError(t, err)
	g := &group{World: w, t: t, ids: ids(n), last: map[string]uint64{}}
	for _, id := range g.ids {
		require.NoError(t, w.Add(id, sim.Node{New: func(uint64) (coterie.Core, sim.App) {
			c, err := NewCore(Config{ID: id, Peers: g.ids})
			require.NoError(t, err)
			if change != nil {
				change(c)
			}
			for _, other := range g.ids { // who is up again is not dead
				if peer := g.core(other); peer != nil && other != id {
					peer.Liveness(w.Now(), id, coterie.Alive)
				}
			}
			return c, sim.EventFunc(func(_ time.Time, event any) { g.event(id, event) })
		}}))
	}
	return g
}

func (g *group) event(id coterie.NodeID, event any) {
	switch e := event.(type) {
	case lock.Entered:
		g.entries++
		if e.Token <= g.last[e.Name] {
			g.falls++
		}
		g.last[e.Name] = max(e.Token, g.last[e.Name])
		if g.entered != nil {
			g.entered(id, e)
		}
	case lock.Forfeited:
		g.lost++
	}
}

func (g *group) core(id coterie.NodeID) *Core {
	c, _ := g.Core(id).(*Core)
	return c
}

func (g *group) do(id coterie.NodeID, f func(now time.Time, c *Core)) {
	g.t.Helper()
	require.NoError(g.t, g.Do(id, func(now time.Time, c coterie.Core) { f(now, c.(*Core)) }))
}

func (g *group) request(id coterie.NodeID, name string) {
	g.t.Helper()
	g.do(id, func(now time.Time, c *Core) { c.Request(now, name) })
}

func (g *group) release(id coterie.NodeID, name string) {
	g.t.Helper()
	g.do(id, func(now time.Time, c *Core) { c.Release(now, name) })
}

func (g *group) holds(id coterie.NodeID) bool {
	const name = "x"
	c := g.core(id)
	return c != nil && c.names[name] != nil && c.names[name].held
}

// use makes a node enter and leave, and returns the number of messages that took.
func (g *group) use(id coterie.NodeID) int {
	const name = "x"
	g.t.Helper()
	sent := g.Stats().Sent
	g.request(id, name)
	require.NoError(g.t, g.RunUntil(func() bool { return g.holds(id) }, 10*time.Second))
	g.release(id, name)
	require.NoError(g.t, g.Run(20*time.Millisecond))
	return int(g.Stats().Sent - sent)
}

// exclusive is the property: one holder of a name at a time, with tokens that rise.
func (g *group) exclusive() {
	g.Invariant("exclusion", func(*sim.World) error {
		if g.falls > 0 {
			return fmt.Errorf("a token did not rise")
		}
		holder := map[string]coterie.NodeID{}
		for _, id := range g.ids {
			if c := g.core(id); c != nil {
				for name, r := range c.names {
					if other, ok := holder[name]; ok && r.held {
						return fmt.Errorf("%s held by %s and %s", name, other, id)
					}
					if r.held {
						holder[name] = id
					}
				}
			}
		}
		return nil
	})
}

func fast() sim.Config {
	return sim.Config{Seed: 1, Link: sim.Link{Latency: sim.Fixed(time.Millisecond)}, Disk: sim.Disk{Sync: sim.Fixed(0)}}
}

// The exact counts of the package comment, for each distance.
func TestMessageCounts(t *testing.T) {
	for _, n := range []int{1, 2, 3, 9} {
		g := newGroup(t, n, fast(), nil)
		g.exclusive()
		require.Equal(t, 4*(n-1), g.use(g.ids[0]), "a new name")
		at := 0
		for d := range n {
			at = (at + d) % n
			require.Equal(t, 2*d, g.use(g.ids[at]), "n=%d d=%d", n, d)
		}
		records := g.Stats().Records
		require.Equal(t, uint64(2*n), records, "only starts and the one epoch are saved")
		sent, ticks := g.Stats().Sent, g.Stats().Ticks
		require.NoError(t, g.Run(time.Hour))
		require.Equal(t, sent, g.Stats().Sent, "idle, it rests")
		require.Equal(t, ticks, g.Stats().Ticks)
	}
}

// Where everybody always wants it, an entry is one message, and all enter in turn.
func TestSaturated(t *testing.T) {
	const n = 5
	g := newGroup(t, n, fast(), nil)
	g.exclusive()
	g.use(g.ids[0])
	counts := map[coterie.NodeID]int{}
	g.entered = func(id coterie.NodeID, _ lock.Entered) {
		counts[id]++
		g.After(time.Millisecond, func() {
			g.do(id, func(now time.Time, c *Core) {
				c.Release(now, "x")
				c.Request(now, "x")
			})
		})
	}
	for _, id := range g.ids {
		g.request(id, "x")
	}
	require.NoError(t, g.Run(100*time.Millisecond))
	sent, entries := g.Stats().Sent, g.entries
	require.NoError(t, g.Run(10*time.Second))
	require.Greater(t, g.entries-entries, 4000)
	require.InDelta(t, g.entries-entries, int(g.Stats().Sent-sent), 1)
	for _, id := range g.ids {
		require.InDelta(t, g.entries/n, counts[id], 2)
	}
}

func TestRequestIsTakenBack(t *testing.T) {
	g := newGroup(t, 3, fast(), nil)
	g.exclusive()
	g.request("n00", "x")
	require.NoError(t, g.Run(20*time.Millisecond))
	require.True(t, g.holds("n00"))
	g.request("n01", "x")
	g.release("n01", "x")
	g.release("n01", "x")
	g.release("n01", "unknown")
	g.request("n02", "x")
	g.request("n02", "x")
	g.release("n00", "x")
	require.NoError(t, g.Run(50*time.Millisecond))
	require.False(t, g.holds("n01"))
	require.True(t, g.holds("n02"))
	require.Equal(t, 2, g.entries)
}

func TestHolderCrashes(t *testing.T) {
	g := newGroup(t, 4, fast(), nil)
	g.exclusive()
	g.request("n01", "x")
	require.NoError(t, g.Run(20*time.Millisecond))
	g.Crash("n01")
	g.request("n03", "x")
	require.NoError(t, g.Run(time.Minute))
	require.False(t, g.holds("n03"), "nobody knows that it is dead")
	for _, id := range []coterie.NodeID{"n00", "n02", "n03"} {
		g.do(id, func(now time.Time, c *Core) { c.Liveness(now, "n01", coterie.Dead) })
	}
	require.NoError(t, g.RunUntil(func() bool { return g.holds("n03") }, 10*time.Second))
	g.release("n03", "x")
	g.use("n02")
	g.use("n00")
	g.Restart("n01")
	for _, id := range []coterie.NodeID{"n00", "n02", "n03"} {
		g.do(id, func(now time.Time, c *Core) { c.Liveness(now, "n01", coterie.Alive) })
	}
	g.use("n01")
	g.Crash("n01") // with the token at rest
	g.request("n02", "x")
	require.NoError(t, g.Run(time.Second))
	require.False(t, g.holds("n02"))
	g.Restart("n01")
	require.NoError(t, g.RunUntil(func() bool { return g.holds("n02") }, 10*time.Second), "it need not be called dead")
}

// A majority goes on without a holder that is only cut off; a minority makes no token; the holder is told.
func TestWronglyDead(t *testing.T) {
	g := newGroup(t, 5, fast(), nil)
	g.request("n00", "x")
	require.NoError(t, g.Run(20*time.Millisecond))
	g.Partition(g.ids[:2], g.ids[2:])
	for i, id := range g.ids {
		for j, other := range g.ids {
			if (i < 2) != (j < 2) {
				g.do(id, func(now time.Time, c *Core) { c.Liveness(now, other, coterie.Dead) })
			}
		}
	}
	old := g.core("n00").names["x"].token.fence()
	g.request("n03", "x")
	require.NoError(t, g.RunUntil(func() bool { return g.holds("n03") }, 10*time.Second))
	require.True(t, g.holds("n00"))
	fence, err := lock.NewFence(lock.FenceConfig{})
	require.NoError(t, err)
	require.NoError(t, fence.Check("x", g.core("n03").names["x"].token.fence()))
	require.ErrorIs(t, fence.Check("x", old), lock.ErrStale)
	g.Crash("n00")
	g.request("n01", "x")
	g.do("n01", func(now time.Time, c *Core) { c.Liveness(now, "n00", coterie.Dead) })
	require.NoError(t, g.Run(time.Minute))
	require.False(t, g.holds("n01"), "a minority")
	require.Zero(t, g.falls)
}

func TestOvertakenHolderIsTold(t *testing.T) {
	g := newGroup(t, 3, fast(), nil)
	g.request("n00", "x")
	require.NoError(t, g.Run(20*time.Millisecond))
	g.Partition(g.ids[:1])
	for _, id := range g.ids[1:] {
		g.do(id, func(now time.Time, c *Core) { c.Liveness(now, "n00", coterie.Dead) })
	}
	g.use("n02")
	g.Heal()
	g.HealAll()
	for _, id := range g.ids[1:] {
		g.do(id, func(now time.Time, c *Core) { c.Liveness(now, "n00", coterie.Alive) })
	}
	require.True(t, g.holds("n00"))
	g.request("n01", "x")
	require.NoError(t, g.RunUntil(func() bool { return g.holds("n01") }, 10*time.Second))
	require.Equal(t, 1, g.lost)
	require.False(t, g.holds("n00"))
}

// play lets nodes use two names under faults, then wants everybody to enter once more.
func play(t *testing.T, seed uint64, link sim.Link, change func(*Core)) error {
	t.Helper()
	n := 3 + int(seed%4)
	g := newGroup(t, n, sim.Config{Seed: seed, Link: link}, change)
	g.exclusive()
	names := []string{"x", "y"}
	over := false
	var work func(id coterie.NodeID)
	work = func(id coterie.NodeID) {
		if over {
			return
		}
		name := names[g.Rand().IntN(2)]
		_ = g.Do(id, func(now time.Time, c coterie.Core) {
			for _, other := range g.ids { // a detector that is never wrong, in every other world
				if seed%2 == 0 && !g.Up(other) {
					c.(*Core).Liveness(now, other, coterie.Dead)
				}
			}
			if g.Rand().IntN(2) == 0 {
				c.(*Core).Request(now, name)
			} else {
				c.(*Core).Release(now, name)
			}
		})
		g.After(time.Duration(g.Rand().IntN(100))*time.Millisecond, func() { work(id) })
	}
	for _, id := range g.ids {
		work(id)
	}
	if err := g.Play(sim.DrawSchedule(seed, sim.Limits{Nodes: g.ids, Length: 10 * time.Second})); err != nil {
		return err
	}
	over = true
	return g.everybodyEnters(names)
}

// everybodyEnters is the progress that is promised when all is healed.
func (g *group) everybodyEnters(names []string) error {
	each := func(f func(name string, now time.Time, c *Core)) {
		for _, id := range g.ids {
			for _, name := range names {
				_ = g.Do(id, func(now time.Time, c coterie.Core) { f(name, now, c.(*Core)) })
			}
		}
	}
	each(func(name string, now time.Time, c *Core) { c.Release(now, name) })
	if err := g.Run(5 * time.Second); err != nil { // until the last events and crashes within a sync are over
		return err
	}
	got := map[string]bool{}
	g.entered = func(id coterie.NodeID, e lock.Entered) {
		got[string(id)+e.Name] = true
		g.After(5*time.Millisecond, func() {
			_ = g.Do(id, func(now time.Time, c coterie.Core) { c.(*Core).Release(now, e.Name) })
		})
	}
	each(func(name string, now time.Time, c *Core) { c.Request(now, name) })
	return g.RunUntil(func() bool { return len(got) == len(g.ids)*len(names) }, 5*time.Minute)
}

// climate is a network with mild losses; every third one is so slow that tokens arrive after they were given up.
func climate(seed uint64) sim.Link {
	link := sim.Link{Loss: 0.02, Duplicate: 0.05, Reorder: 0.1}
	if seed%3 == 0 {
		link.Latency = sim.LogNormal(time.Millisecond, 20*time.Millisecond, 1.5)
	}
	return link
}

func TestFaults(t *testing.T) {
	simtest.Seeds(t, testsize.N(100, 10_000), func(t *testing.T, seed uint64) {
		require.NoError(t, play(t, seed, climate(seed), nil))
	})
}

// The same simulation finds a token of an epoch that is over.
func TestPlantedBug(t *testing.T) {
	for seed := uint64(1); seed <= 400; seed++ {
		if err := play(t, seed, climate(seed), func(c *Core) { c.bugs.acceptStale = true }); err != nil {
			t.Logf("seed %d: %v", seed, err)
			return
		}
	}
	t.Fatal("not found")
}

func TestDeterministic(t *testing.T) {
	simtest.RequireDeterministic(t, func(trace *sim.Trace) {
		g := newGroup(t, 3, sim.Config{Seed: 5, Link: sim.Link{Loss: 0.1}, Trace: trace}, nil)
		for i := range 5 {
			for _, id := range g.ids {
				g.request(id, fmt.Sprint(i))
			}
		}
		require.NoError(t, g.Run(3*time.Second))
	})
}

func TestJournalStaysShort(t *testing.T) {
	g := newGroup(t, 3, fast(), nil)
	require.NoError(t, g.Run(time.Millisecond))
	for range 200 {
		g.Crash("n01")
		g.Restart("n01")
		require.NoError(t, g.Run(time.Millisecond))
	}
	g.use("n01")
	require.Less(t, len(g.Records("n01")), 140)
	require.Equal(t, uint64(201), g.core("n01").incarnation)
}

func TestMaxNames(t *testing.T) {
	core, err := NewCore(Config{ID: "a", Peers: []coterie.NodeID{"a"}, MaxNames: 1})
	require.NoError(t, err)
	now := time.Unix(1, 0)
	core.Tick(now)
	core.Request(now, "x")
	core.Request(now, "y")
	rd := core.Ready()
	require.Equal(t, []any{lock.Entered{Name: "x", Token: position{1, 1}.fence()}}, rd.Events)
	core.Release(now, "y")
	require.Len(t, core.names, 1)
}

func TestConfigErrors(t *testing.T) {
	ab := []coterie.NodeID{"a", "b"}
	for field, cfg := range map[string]Config{
		"Config.ID":       {Peers: ab},
		"Config.Peers":    {ID: "c", Peers: ab},
		"empty ID":        {ID: "a", Peers: []coterie.NodeID{"a", ""}},
		"twice":           {ID: "a", Peers: []coterie.NodeID{"a", "b", "b"}},
		"Config.Resend":   {ID: "a", Peers: ab, Resend: -1},
		"Config.MaxNames": {ID: "a", Peers: ab, MaxNames: -1},
		"Config.TryWait":  {ID: "a", Peers: ab, TryWait: -1},
	} {
		_, err := NewCore(cfg)
		require.ErrorContains(t, err, field)
		_, err = Start(cfg)
		require.ErrorContains(t, err, field)
	}
	network := transport.NewNetwork(transport.NetworkConfig{})
	_, err := Start(Config{ID: "a", Peers: ab})
	require.ErrorContains(t, err, "Config.Transport")
	_, err = Start(Config{ID: "a", Peers: ab, Transport: network.Join("b"), Journal: &host.MemoryJournal{}})
	require.ErrorContains(t, err, "Config.Transport")
	_, err = Start(Config{ID: "a", Peers: ab, Transport: network.Join("a")})
	require.ErrorContains(t, err, "Config.Journal")
}

func samples() []message {
	return []message{
		{kind: kindToken, incarnation: 1, name: "x", token: position{4, 300}, to: 2, hops: 2},
		{kind: kindWant, incarnation: 1, name: "x", hops: 1},
		{kind: kindProbe, incarnation: 300, name: "name", number: 7},
		{kind: kindStatus, incarnation: 1, name: "x", number: 7, here: true, epoch: 5, token: position{4, 3}},
		{kind: kindClaim, incarnation: 1, name: "x", epoch: 4},
		{kind: kindPromise, incarnation: 1, name: "x", epoch: 5},
		{kind: kindRefuse, incarnation: 1, name: "x", number: 5, epoch: 7},
	}
}

func TestGolden(t *testing.T) {
	got := ""
	core, err := NewCore(Config{ID: "n00", Peers: ids(3)})
	require.NoError(t, err)
	for _, m := range samples() {
		b := m.encode()
		back, err := decode(b)
		require.NoError(t, err)
		require.Equal(t, m, back)
		got += hex.EncodeToString(b) + " " + core.Describe(b) + "\n"
	}
	record := appendRecord(3, []*ring{{name: "x", promised: 5}, {name: "y", promised: 300}})
	got += hex.EncodeToString(record) + " " + core.Describe(record) + "\n"
	path := filepath.Join("testdata", "golden.txt")
	if os.Getenv("COTERIE_UPDATE") == "1" {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "the format changed: raise its byte")

	var newer *coterie.FormatError
	require.ErrorAs(t, core.Step(time.Unix(1, 0), "n01", []byte{format + 1}), &newer)
	require.ErrorAs(t, core.Replay([]byte{format + 1}), &newer)
	require.ErrorIs(t, core.Replay([]byte{format, 1}), wire.ErrMalformed)
	require.ErrorContains(t, core.Step(time.Unix(1, 0), "who", samples()[1].encode()), "no other peer")
	foreign := message{kind: kindClaim, incarnation: 1, name: "x", epoch: 5} // of n02
	require.ErrorIs(t, core.Step(time.Unix(1, 0), "n01", foreign.encode()), wire.ErrMalformed)
	require.Empty(t, core.names)
}

func FuzzStep(f *testing.F) {
	for _, m := range samples() {
		f.Add(m.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := NewCore(Config{ID: "n00", Peers: ids(3)})
		require.NoError(t, err)
		now := time.Unix(1, 0)
		c.Tick(now)
		c.Request(now, "x")
		c.Ready()
		before := *c.names["x"]
		for _, from := range slices.Backward(c.peers) {
			if c.Step(now, from, b) != nil {
				require.Equal(t, before, *c.names["x"], "a malformed message changed something")
				require.Len(t, c.names, 1)
				continue
			}
			break
		}
		for _, env := range c.Ready().Send {
			_, err := decode(env.Payload)
			require.NoError(t, err)
		}
		_ = c.Describe(b)
	})
}

func FuzzReplay(f *testing.F) {
	f.Add(appendRecord(3, []*ring{{name: "x", promised: 5}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := NewCore(Config{ID: "n00", Peers: ids(3)})
		require.NoError(t, err)
		if c.Replay(b) != nil {
			require.Empty(t, c.names)
			require.Zero(t, c.last)
		}
		c.Tick(time.Unix(1, 0))
	})
}
