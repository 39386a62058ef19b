package bully

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

func newCluster(t *testing.T, n int, cfg sim.Config, plant func(*Core)) *cluster {
	t.Helper()
	w, err := sim.New(cfg)
	require.NoError(t, err)
	c := &cluster{w: w, ids: ids(n)}
	owner, newest, reigned := map[uint64]coterie.NodeID{}, map[coterie.NodeID]uint64{}, map[coterie.NodeID]uint64{}
	for _, id := range c.ids {
		require.NoError(t, w.Add(id, sim.Node{New: func(uint64) (coterie.Core, sim.App) {
			core, err := NewCore(Config{ID: id, Peers: c.ids})
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

func (c *cluster) until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	require.NoError(t, c.w.RunUntil(cond, bound), "seed %d: %s", c.w.Seed(), what)
}

// bound is two rounds of the default time-out, and what links, disks and drift add.
const bound = 2*time.Second + 100*time.Millisecond

// Within two time-outs of the last fault exactly one leads, whatever went on before.
func TestOneLeaderWithinTwoRounds(t *testing.T) {
	simtest.Seeds(t, testsize.N(150, 5000), func(t *testing.T, seed uint64) {
		n := 2 + int(seed%7)
		c := newCluster(t, n, sim.Config{Seed: seed, Link: sim.Link{Duplicate: 0.1, Reorder: 0.1}}, nil)
		require.NoError(t, c.w.Play(sim.DrawSchedule(seed, sim.Limits{Nodes: c.ids, Length: 20 * time.Second})))
		c.until(t, "after the faults", func() bool { return c.agreed(c.ids) })
		require.NoError(t, c.w.Run(5*time.Second)) // a beat that a slow link holds back is a fault until it arrives
		c.w.Crash(c.ids[n-1])
		c.until(t, "after a crash", func() bool { return c.agreed(c.ids) })
		c.w.Restart(c.ids[n-1])
		c.until(t, "after a restart", func() bool { return c.agreed(c.ids) })
		cut := 1 + int(seed)%(n-1)
		c.w.Partition(c.ids[:cut], c.ids[cut:])
		c.until(t, "on both sides", func() bool { return c.agreed(c.ids[:cut]) && c.agreed(c.ids[cut:]) })
		require.NotEqual(t, c.leader(c.ids[0]), c.leader(c.ids[n-1]), "without a quorum two sides have two leaders")
		c.w.Heal()
		c.until(t, "after healing", func() bool { return c.agreed(c.ids) })
		require.NoError(t, c.w.Run(5*time.Second))
		require.True(t, c.agreed(c.ids), "it stays so")
	})
}

// A node that does not save its epoch takes office by the same one again.
func TestPlantedForgottenEpoch(t *testing.T) {
	found := false
	for seed := uint64(1); seed <= 50 && !found; seed++ {
		c := newCluster(t, 3, sim.Config{Seed: seed}, func(core *Core) { core.Forget() })
		found = c.w.Play(sim.DrawSchedule(seed, sim.Limits{Nodes: c.ids, Kinds: []sim.FaultKind{sim.FaultCrash}, Length: 20 * time.Second})) != nil
	}
	require.True(t, found)
}

// The paper's counts: the leader has crashed, and one node finds out.
func TestMessageCounts(t *testing.T) {
	for n := 3; n <= 9; n++ {
		for _, test := range []struct {
			finder                        int
			elections, answers, announced uint64
		}{
			{0, uint64(n * (n - 1) / 2), uint64((n - 1) * (n - 2) / 2), uint64(n - 1)},
			{n - 2, 1, 0, uint64(n - 1)},
		} {
			c := newCluster(t, n, sim.Config{Seed: 1}, nil)
			c.until(t, "begin", func() bool { return c.agreed(c.ids) })
			require.NoError(t, c.w.Run(50*time.Millisecond)) // what is under way arrives
			c.w.Crash(c.ids[n-1])
			require.NoError(t, c.w.Run(5*time.Millisecond))
			before := c.sent()
			require.NoError(t, c.w.Do(c.ids[test.finder], func(now time.Time, core coterie.Core) { core.(*Core).Elect(now) }))
			c.until(t, "elect", func() bool { return c.agreed(c.ids) })
			require.NoError(t, c.w.Run(5*time.Second))
			after := c.sent()
			require.Equal(t, test.elections, after[reign.Election]-before[reign.Election], "n=%d", n)
			require.Equal(t, test.answers, after[reign.Answer]-before[reign.Answer], "n=%d", n)
			require.Equal(t, test.announced, after[reign.Coordinator]-before[reign.Coordinator], "n=%d", n)
		}
	}
}

// sent sums over the nodes that are up.
func (c *cluster) sent() map[reign.Kind]uint64 {
	sum := map[reign.Kind]uint64{}
	for _, id := range c.ids {
		if c.w.Up(id) {
			for k, n := range c.w.Core(id).(*Core).Sent {
				sum[reign.Kind(k)] += n
			}
		}
	}
	return sum
}

func TestTheSameSeedIsTheSameRun(t *testing.T) {
	simtest.RequireDeterministic(t, func(trace *sim.Trace) {
		c := newCluster(t, 4, sim.Config{Seed: 3, Trace: trace, Link: sim.Link{Loss: 0.2}}, nil)
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

// payloads are messages of every kind, by who sends them.
func payloads(tb testing.TB) (all []coterie.Envelope) {
	tb.Helper()
	b := newTestCore(tb, "n01")
	all = append(all, b.Ready().Send...)
	require.NoError(tb, b.Step(start, "n00", newTestCore(tb, "n00").Ready().Send[0].Payload))
	all = append(all, b.Ready().Send...)
	b.Tick(start.Add(500 * time.Millisecond))
	all = append(all, b.Ready().Send...)
	b.Tick(start.Add(900 * time.Millisecond))
	return append(all, b.Ready().Send...)
}

func TestGoldenMessages(t *testing.T) {
	var lines strings.Builder
	b := newTestCore(t, "n01")
	for _, e := range payloads(t) {
		fmt.Fprintf(&lines, "%s %s %s\n", e.To, hex.EncodeToString(e.Payload), b.Describe(e.Payload))
	}
	b.Tick(start.Add(time.Second))
	for _, record := range b.Ready().Save {
		fmt.Fprintf(&lines, "save %s %s\n", hex.EncodeToString(record), b.Describe(record))
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
	for _, e := range payloads(t) {
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
	for _, e := range payloads(f) {
		f.Add(uint8(1), e.Payload)
	}
	f.Fuzz(func(t *testing.T, from uint8, payload []byte) {
		c := newTestCore(t, "n01")
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
