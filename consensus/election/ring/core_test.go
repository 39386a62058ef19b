package ring

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/election"
	"github.com/coterie-go/coterie/consensus/election/internal/reign"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
	"github.com/stretchr/testify/require"
)

var start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func ids(n int) (all []coterie.NodeID) {
	for i := range n {
		all = append(all, coterie.NodeID(fmt.Sprintf("n%02d", i)))
	}
	return all
}

// cluster is a simulated group, which checks what epochs promise at every event.
type cluster struct {
	w     *sim.World
	ids   []coterie.NodeID
	wrong error
}

func newCluster(t *testing.T, n int, collect bool, cfg sim.Config, plant func(*Core)) *cluster {
	t.Helper()
	w, err := sim.New(cfg)
	require.NoError(t, err)
	c := &cluster{w: w, ids: ids(n)}
	owner, newest, reigned := map[uint64]coterie.NodeID{}, map[coterie.NodeID]uint64{}, map[coterie.NodeID]uint64{}
	for _, id := range c.ids {
		require.NoError(t, w.Add(id, sim.Node{New: func(uint64) (coterie.Core, sim.App) {
			core, err := NewCore(Config{ID: id, Peers: c.ids, Collect: collect})
			require.NoError(t, err)
			if plant != nil {
				plant(core)
			}
			return core, sim.EventFunc(func(_ time.Time, event any) {
				e := event.(election.Elected)
				if e.Epoch < newest[id] {
					c.wrong = fmt.Errorf("%s goes back from %d to %v", id, newest[id], e)
				}
				newest[id] = e.Epoch
				if e.Leader == "" {
					return
				}
				if owner[e.Epoch] != "" && owner[e.Epoch] != e.Leader {
					c.wrong = fmt.Errorf("%d is of %s and of %s", e.Epoch, owner[e.Epoch], e.Leader)
				}
				owner[e.Epoch] = e.Leader
				if e.Leader == id {
					if e.Epoch <= reigned[id] {
						c.wrong = fmt.Errorf("%s takes office by %d after %d", id, e.Epoch, reigned[id])
					}
					reigned[id] = e.Epoch
				}
			})
		}}))
	}
	w.Invariant("epochs", func(*sim.World) error { return c.wrong })
	return c
}

func (c *cluster) leader(id coterie.NodeID) coterie.NodeID {
	leader, _ := c.w.Core(id).(*Core).Leader()
	return leader
}

// agreed reports whether of these nodes all that are up follow the greatest one that is.
func (c *cluster) agreed(group []coterie.NodeID) bool {
	var greatest coterie.NodeID
	for _, id := range group {
		if c.w.Up(id) {
			greatest = id
		}
	}
	for _, id := range group {
		if c.w.Up(id) && c.leader(id) != greatest {
			return false
		}
	}
	return true
}

func (c *cluster) until(t *testing.T, what string, limit time.Duration, cond func() bool) {
	t.Helper()
	require.NoError(t, c.w.RunUntil(cond, limit), "seed %d: %s", c.w.Seed(), what)
}

// bound is what is asked of a ring of up to 8 of which one has just gone: the paper gives none.
const bound = 6 * time.Second

// After the last fault the greatest live id leads, whatever went on before.
func TestGreatestLiveIDWins(t *testing.T) {
	for _, collect := range []bool{false, true} {
		t.Run(fmt.Sprintf("collect=%v", collect), func(t *testing.T) {
			simtest.Seeds(t, testsize.N(80, 3000), func(t *testing.T, seed uint64) {
				n := 2 + int(seed%7)
				c := newCluster(t, n, collect, sim.Config{Seed: seed, Link: sim.Link{Duplicate: 0.1, Reorder: 0.1}}, nil)
				require.NoError(t, c.w.Play(sim.DrawSchedule(seed, sim.Limits{Nodes: c.ids, Length: 20 * time.Second})))
				c.until(t, "after the faults", bound, func() bool { return c.agreed(c.ids) })
				require.NoError(t, c.w.Run(5*time.Second)) // what a slow link holds back is a fault until it arrives
				c.w.Crash(c.ids[n-1])
				c.until(t, "after a crash", bound, func() bool { return c.agreed(c.ids) })
				c.w.Restart(c.ids[n-1])
				c.until(t, "after a restart", bound, func() bool { return c.agreed(c.ids) })
				cut := 1 + int(seed)%(n-1)
				c.w.Partition(c.ids[:cut], c.ids[cut:])
				c.until(t, "on both sides", 2*bound, func() bool { return c.agreed(c.ids[:cut]) && c.agreed(c.ids[cut:]) })
				require.NotEqual(t, c.leader(c.ids[0]), c.leader(c.ids[n-1]), "without a quorum two sides have two leaders")
				c.w.Heal()
				c.until(t, "after healing", bound, func() bool { return c.agreed(c.ids) })
				require.NoError(t, c.w.Run(5*time.Second))
				require.True(t, c.agreed(c.ids), "it stays so")
			})
		})
	}
}

// A node that skips for ever who was silent once never lets it win again.
func TestPlantedStubbornNeighbour(t *testing.T) {
	back := func(plant func(*Core)) error {
		c := newCluster(t, 4, false, sim.Config{Seed: 1}, plant)
		c.until(t, "begin", bound, func() bool { return c.agreed(c.ids) })
		c.w.Crash(c.ids[3])
		c.until(t, "after a crash", bound, func() bool { return c.agreed(c.ids) })
		c.w.Restart(c.ids[3])
		return c.w.RunUntil(func() bool { return c.agreed(c.ids) }, 5*bound)
	}
	require.NoError(t, back(nil))
	require.ErrorIs(t, back(func(core *Core) { core.alg.stubborn = true }), sim.ErrLimit)
}

// A node that does not save its epoch takes office by the same one again.
func TestPlantedForgottenEpoch(t *testing.T) {
	found := false
	for seed := uint64(1); seed <= 50 && !found; seed++ {
		c := newCluster(t, 3, false, sim.Config{Seed: seed}, func(core *Core) { core.Forget() })
		found = c.w.Play(sim.DrawSchedule(seed, sim.Limits{Nodes: c.ids, Kinds: []sim.FaultKind{sim.FaultCrash}, Length: 20 * time.Second})) != nil
	}
	require.True(t, found)
}

// elect ticks the starters, delivers every message in order, and returns what was sent; the greatest id then leads.
func elect(t *testing.T, peers []coterie.NodeID, collect bool, starters ...coterie.NodeID) map[reign.Kind]uint64 {
	t.Helper()
	type mail struct {
		from coterie.NodeID
		coterie.Envelope
	}
	var queue []mail
	cores := map[coterie.NodeID]*Core{}
	take := func(id coterie.NodeID) {
		for _, e := range cores[id].Ready().Send {
			queue = append(queue, mail{id, e})
		}
	}
	for _, id := range peers {
		core, err := NewCore(Config{ID: id, Peers: peers, Collect: collect})
		require.NoError(t, err)
		cores[id] = core
	}
	for _, id := range starters {
		cores[id].Tick(start)
		take(id)
	}
	for ; len(queue) > 0; queue = queue[1:] {
		require.NoError(t, cores[queue[0].To].Step(start, queue[0].from, queue[0].Payload))
		take(queue[0].To)
	}
	sum := map[reign.Kind]uint64{}
	for _, core := range cores {
		leader, _ := core.Leader()
		require.Equal(t, slices.Max(peers), leader)
		require.Empty(t, core.alg.hops)
		for k, n := range core.Sent {
			sum[reign.Kind(k)] += n
		}
	}
	require.Equal(t, sum[reign.Election]+sum[reign.Coordinator]+sum[reign.Chosen], sum[reign.Ack])
	require.Zero(t, sum[reign.Beat]+sum[reign.Stale])
	return sum
}

// The paper's counts, and those of the form that collects.
func TestMessageCounts(t *testing.T) {
	for n := 2; n <= 12; n++ {
		rising := ids(n)
		falling := slices.Clone(rising)
		slices.Reverse(falling)
		size, greatest := uint64(n), rising[n-1]
		count := func(elections, chosen uint64, got map[reign.Kind]uint64) {
			t.Helper()
			require.Equal(t, elections, got[reign.Election], "n=%d", n)
			require.Equal(t, size, got[reign.Coordinator], "n=%d", n)
			require.Equal(t, chosen, got[reign.Chosen], "n=%d", n)
		}
		count(size*(size+1)/2, 0, elect(t, falling, false, falling...))
		count(2*size-1, 0, elect(t, rising, false, rising...))
		count(size, 0, elect(t, falling, false, greatest))
		count(size, 0, elect(t, rising, true, greatest))
		count(size, 1, elect(t, falling, true, rising[0]))
	}
}

func TestTheSameSeedIsTheSameRun(t *testing.T) {
	simtest.RequireDeterministic(t, func(trace *sim.Trace) {
		c := newCluster(t, 4, true, sim.Config{Seed: 3, Trace: trace, Link: sim.Link{Loss: 0.2}}, nil)
		require.NoError(t, c.w.Run(10*time.Second))
	})
}

func newTestCore(tb testing.TB, id coterie.NodeID) *Core {
	tb.Helper()
	c, err := NewCore(Config{ID: id, Peers: ids(3)})
	require.NoError(tb, err)
	c.Tick(start)
	return c
}

// payloads are messages of every kind but Stale, as n01 sends them; with collect those of that form.
func payloads(tb testing.TB, collect bool) (all []coterie.Envelope) {
	tb.Helper()
	b, err := NewCore(Config{ID: "n01", Peers: ids(3), Collect: collect})
	require.NoError(tb, err)
	b.Tick(start)
	all = append(all, b.Ready().Send...)
	back := reign.Message{Kind: reign.Election, Number: 7, Hops: 3, Places: []int{1}}
	if collect {
		back.Places = []int{1, 2, 0}
	}
	require.NoError(tb, b.Step(start, "n00", b.Encode(back)))
	all = append(all, b.Ready().Send...)
	b.Tick(start.Add(250 * time.Millisecond))
	return append(all, b.Ready().Send...)
}

func TestGoldenMessages(t *testing.T) {
	var lines strings.Builder
	b := newTestCore(t, "n01")
	for _, collect := range []bool{false, true} {
		for _, e := range payloads(t, collect) {
			fmt.Fprintf(&lines, "%s %s %s\n", e.To, hex.EncodeToString(e.Payload), b.Describe(e.Payload))
		}
	}
	golden(t, lines.String())
}

func golden(t *testing.T, got string) {
	t.Helper()
	path := filepath.Join("testdata", "messages.golden")
	if os.Getenv("COTERIE_UPDATE") == "1" {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestMalformedChangesNothing(t *testing.T) {
	for _, e := range payloads(t, false) {
		c := newTestCore(t, "n02")
		c.Ready()
		before := *c
		for cut := range e.Payload {
			require.Error(t, c.Step(start, "n01", e.Payload[:cut]))
		}
		require.Error(t, c.Step(start, "n01", append(slices.Clip(e.Payload), 0)))
		require.Error(t, c.Step(start, "stranger", e.Payload))
		var newer *coterie.FormatError
		require.ErrorAs(t, c.Step(start, "n01", []byte{2}), &newer)
		require.ErrorAs(t, c.Replay([]byte{2}), &newer)
		require.Equal(t, before, *c)
	}
}

func TestConfigNamesTheField(t *testing.T) {
	for field, change := range map[string]func(*Config){
		"Config.ID is":  func(c *Config) { c.ID = "" },
		"Peers is":      func(c *Config) { c.Peers = nil },
		"at most":       func(c *Config) { c.Peers = ids(300) },
		"empty":         func(c *Config) { c.Peers = append(c.Peers, "") },
		"twice":         func(c *Config) { c.Peers = append(c.Peers, "n00") },
		"does not have": func(c *Config) { c.ID = "x" },
		"Timeout":       func(c *Config) { c.Timeout = -1 },
		"Resend":        func(c *Config) { c.Resend = time.Second },
	} {
		cfg := Config{ID: "n00", Peers: ids(3)}
		change(&cfg)
		_, err := NewCore(cfg)
		require.ErrorContains(t, err, field)
	}
	_, err := Start(Config{ID: "n00", Peers: ids(3)})
	require.ErrorContains(t, err, "Transport")
}

func FuzzStep(f *testing.F) {
	for _, collect := range []bool{false, true} {
		for _, e := range payloads(f, collect) {
			f.Add(uint8(1), collect, e.Payload)
		}
	}
	f.Fuzz(func(t *testing.T, from uint8, collect bool, payload []byte) {
		c, err := NewCore(Config{ID: "n01", Peers: ids(3), Collect: collect})
		require.NoError(t, err)
		c.Tick(start)
		c.Ready()
		if c.Step(start, ids(3)[from%3], payload) != nil {
			require.Empty(t, c.Ready().Send)
		}
		c.Tick(start.Add(time.Second))
		_ = c.Describe(payload)
		again := newTestCore(t, "n01")
		_ = again.Replay(payload)
	})
}
