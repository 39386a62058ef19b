package gossip_test

import (
	"encoding"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/crdt"
	"github.com/coterie-go/coterie/crdt/gossip"
	"github.com/coterie-go/coterie/crdt/text"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
)

type id = coterie.NodeID

var ids = []id{"a", "b", "c"}

// cluster runs three nodes, each with a set and a core over it.
type cluster struct {
	t      *testing.T
	world  *sim.World
	sets   map[id]*crdt.RWSet[string]
	events map[id][]any
}

func newCluster(t *testing.T, seed uint64, trace *sim.Trace, link sim.Link) *cluster {
	t.Helper()
	w, err := sim.New(sim.Config{Seed: seed, Trace: trace, Link: link, Disk: sim.Disk{Crash: 0.002}})
	require.NoError(t, err)
	c := &cluster{t, w, map[id]*crdt.RWSet[string]{}, map[id][]any{}}
	for _, n := range ids {
		c.add(n, seed, ids)
	}
	return c
}

func (c *cluster) add(n id, seed uint64, members []id) {
	c.t.Helper()
	var peers []id
	for _, m := range members {
		if m != n {
			peers = append(peers, m)
		}
	}
	require.NoError(c.t, c.world.Add(n, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) {
		set := &crdt.RWSet[string]{}
		c.sets[n] = set
		core, err := gossip.NewCore(gossip.Config{
			ID: n, Peers: peers, State: gossip.State(set), Seed: seed<<16 + incarnation<<8 + uint64(n[0]), CompactBytes: 2000,
			LogBytes: 500,
		})
		require.NoError(c.t, err)
		return core, sim.EventFunc(func(_ time.Time, e any) { c.events[n] = append(c.events[n], e) })
	}}))
}

// update changes the set of a node, if it is up.
func (c *cluster) update(n id, change func(s *crdt.RWSet[string]) crdt.RWSet[string]) {
	_ = c.world.Do(n, func(now time.Time, core coterie.Core) { // an error says that it is down
		delta := change(c.sets[n])
		b, err := delta.MarshalBinary()
		require.NoError(c.t, err)
		_ = core.(*gossip.Core).Update(now, b)
	})
}

func (c *cluster) converged(among ...id) func() bool {
	return func() bool {
		for _, n := range among {
			if !c.world.Up(n) || string(encode(c.t, c.sets[n])) != string(encode(c.t, c.sets[among[0]])) {
				return false
			}
		}
		return true
	}
}

func encode(t *testing.T, m encoding.BinaryMarshaler) []byte {
	t.Helper()
	b, err := m.MarshalBinary()
	require.NoError(t, err)
	return b
}

// Every replica changes the set while links and disks fail, crashes included; afterwards all are equal, all deltas are
// acknowledged, all nodes agree, and nothing is kept for removed elements.
func TestConvergesUnderFaults(t *testing.T) {
	simtest.Seeds(t, testsize.N(40, 2000), func(t *testing.T, seed uint64) {
		c := newCluster(t, seed, nil, sim.Link{Loss: 0.1, Duplicate: 0.1, Reorder: 0.2})
		require.NoError(t, c.world.Apply(sim.DrawSchedule(seed, sim.Limits{Nodes: ids, Length: 10 * time.Second})))
		for i := range 150 {
			c.world.After(time.Duration(i)*50*time.Millisecond, func() { c.random() })
		}
		require.NoError(t, c.world.Run(11*time.Second))
		c.world.HealAll()
		require.NoError(t, c.world.SetLinks(sim.Link{}))
		for _, n := range ids {
			require.NoError(t, c.world.SetDisk(n, sim.Disk{}))
			c.world.Restart(n)
		}
		require.NoError(t, c.world.RunUntil(c.converged(ids...), time.Minute))
		var left *crdt.RWSet[string]
		collected := func() bool {
			for _, n := range ids {
				m := c.world.Core(n).(*gossip.Core).Metrics()
				if m.Unacked > 0 || m.Agreed < 2 {
					return false
				}
			}
			left = c.sets["a"]
			return c.converged(ids...)() && kept(t, left) == left.Len()
		}
		if err := c.world.RunUntil(collected, time.Minute); err != nil {
			for _, n := range ids {
				t.Logf("%s: %v, keeps %d for %d, %+v", n, c.sets[n].Context(), kept(t, c.sets[n]), c.sets[n].Len(),
					c.world.Core(n).(*gossip.Core).Metrics())
			}
			t.Fatal(err)
		}
	})
}

// kept returns for how many elements the set has anything in memory.
func kept(t *testing.T, s *crdt.RWSet[string]) int {
	t.Helper()
	all := s.Clone()
	return all.Stable(s.Context().Vector()) + all.Len()
}

func (c *cluster) random() {
	rng := c.world.Rand()
	n, e := ids[rng.IntN(3)], fmt.Sprint(rng.IntN(20))
	add := rng.IntN(2) == 0
	c.update(n, func(s *crdt.RWSet[string]) crdt.RWSet[string] {
		if add {
			return s.Add(n, e)
		}
		return s.Remove(n, e)
	})
}

func TestDeterministic(t *testing.T) {
	simtest.RequireDeterministic(t, func(trace *sim.Trace) {
		c := newCluster(t, 7, trace, sim.Link{Loss: 0.1})
		for i := range 50 {
			c.world.After(time.Duration(i)*20*time.Millisecond, func() { c.random() })
		}
		require.NoError(t, c.world.Run(5*time.Second))
	})
}

// A tombstone is collected while a replica is cut off beyond every patience, and evicted for it; when it comes back it
// is refused, and what was removed stays removed. (Cassandra calls what comes back otherwise a zombie; riak_kv#1754.)
func TestZombieIsRefused(t *testing.T) {
	c := newCluster(t, 3, nil, sim.Link{})
	for _, n := range ids {
		require.NoError(t, c.world.SetDisk(n, sim.Disk{}))
	}
	c.update("a", func(s *crdt.RWSet[string]) crdt.RWSet[string] { return s.Add("a", "x") })
	require.NoError(t, c.world.RunUntil(func() bool { return c.sets["c"].Contains("x") }, time.Minute))
	c.world.Partition([]id{"a", "b"}, []id{"c"})
	c.update("c", func(s *crdt.RWSet[string]) crdt.RWSet[string] { return s.Add("c", "x") }) // nobody hears of it
	c.update("a", func(s *crdt.RWSet[string]) crdt.RWSet[string] { return s.Remove("a", "x") })
	require.NoError(t, c.world.Run(20*time.Second))
	require.NotZero(t, kept(t, c.sets["a"]), "collected while c had not seen it")
	require.NoError(t, c.world.Do("a", func(now time.Time, core coterie.Core) { core.(*gossip.Core).Evict(now, "c") }))
	gone := func() bool { return kept(t, c.sets["a"]) == 0 && kept(t, c.sets["b"]) == 0 }
	require.NoError(t, c.world.RunUntil(gone, time.Minute))

	c.world.HealAll()
	var told *gossip.Evicted
	require.NoError(t, c.world.RunUntil(func() bool {
		for _, e := range c.events["c"] {
			if e, ok := e.(gossip.Evicted); ok {
				told = &e
			}
		}
		return told != nil
	}, time.Minute))
	require.NoError(t, c.world.Run(20*time.Second))
	require.False(t, c.sets["a"].Contains("x"))
	require.False(t, c.sets["b"].Contains("x"))
	var fresh crdt.RWSet[string]
	require.NoError(t, fresh.UnmarshalBinary(told.State))
	require.False(t, fresh.Contains("x"), "the state to begin anew from")
	require.NotZero(t, c.world.Core("a").(*gossip.Core).Metrics().Refused+c.world.Core("b").(*gossip.Core).Metrics().Refused)
	require.NoError(t, c.world.Do("c", func(now time.Time, core coterie.Core) {
		require.ErrorIs(t, core.(*gossip.Core).Update(now, nil), gossip.ErrEvicted)
	}))
}

// Only what differs travels: two states of 5,000 elements that differ in one are made equal by far less than a state.
func TestOnlyTheDifferenceTravels(t *testing.T) {
	var a, b crdt.ORSet[string]
	for i := range 5000 {
		a.Add("a", fmt.Sprint("element ", i))
	}
	b.Merge(a)
	a.Remove("element 77")
	a.Add("a", "news")
	b.Add("b", "other news")
	x, y := gossip.State(&a), gossip.State(&b)
	digest, err := y.AppendDigest(nil)
	require.NoError(t, err)
	diff, err := x.AppendDiff(nil, digest)
	require.NoError(t, err)
	require.Less(t, len(diff), 100)
	require.NoError(t, y.MergeBinary(diff))
	require.False(t, b.Contains("element 77"))
	require.True(t, b.Contains("news") && b.Contains("other news"))
	require.Equal(t, 5001, b.Len())
}

// Texts converge too, and collect what was deleted.
func TestTextsConverge(t *testing.T) {
	simtest.Seeds(t, testsize.N(20, 1000), func(t *testing.T, seed uint64) {
		w, err := sim.New(sim.Config{Seed: seed, Link: sim.Link{Loss: 0.1, Duplicate: 0.1, Reorder: 0.3}})
		require.NoError(t, err)
		texts := map[id]*text.Text{}
		for _, n := range ids {
			var peers []id
			for _, m := range ids {
				if m != n {
					peers = append(peers, m)
				}
			}
			require.NoError(t, w.Add(n, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) {
				texts[n] = &text.Text{}
				core, err := gossip.NewCore(gossip.Config{
					ID: n, Peers: peers, State: texts[n], Seed: seed<<16 + incarnation<<8 + uint64(n[0]), LogBytes: 500,
				})
				require.NoError(t, err)
				return core, nil
			}}))
		}
		require.NoError(t, w.Apply(sim.DrawSchedule(seed, sim.Limits{Nodes: ids, Length: 8 * time.Second})))
		for i := range 150 {
			w.After(time.Duration(i)*50*time.Millisecond, func() {
				n := ids[w.Rand().IntN(3)]
				where, what := w.Rand().Float64(), w.Rand().IntN(3)
				_ = w.Do(n, func(now time.Time, core coterie.Core) {
					x := texts[n]
					pos := int(where * float64(x.Len()))
					var d text.Delta
					var err error
					if what == 0 && x.Len() > 3 {
						pos = min(pos, x.Len()-3)
						d, err = x.Delete(n, pos, 3)
					} else {
						d, err = x.Insert(n, pos, "word ")
					}
					require.NoError(t, err)
					require.NoError(t, core.(*gossip.Core).Update(now, encode(t, d)))
				})
			})
		}
		require.NoError(t, w.Run(9*time.Second))
		w.HealAll()
		require.NoError(t, w.SetLinks(sim.Link{}))
		for _, n := range ids {
			w.Restart(n)
		}
		if err := w.RunUntil(func() bool {
			for _, n := range ids {
				if !w.Up(n) || texts[n].Pending() > 0 || texts[n].Version().Compare(texts["a"].Version()) != clock.Equal {
					return false
				}
			}
			return true
		}, time.Minute); err != nil {
			for _, n := range ids {
				t.Logf("%s: %v, %d wait, %+v", n, texts[n].Version(), texts[n].Pending(), w.Core(n).(*gossip.Core).Metrics())
			}
			t.Fatal(err, w.Stats())
		}
		require.NoError(t, w.Run(10*time.Second))
		collected := uint64(0)
		for _, n := range ids {
			require.Equal(t, texts["a"].String(), texts[n].String())
			collected += w.Core(n).(*gossip.Core).Metrics().Collected
		}
		require.NotZero(t, collected)
	})
}
