package abd_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/quorum"
	"github.com/coterie-go/coterie/quorum/abd"
	"github.com/coterie-go/coterie/replication/consistency"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
	"github.com/stretchr/testify/require"
)

type (
	access = consistency.Access[string]
	reply  = consistency.Answer[string]
)

func names(n int) []coterie.NodeID {
	ids := make([]coterie.NodeID, n)
	for i := range ids {
		ids[i] = coterie.NodeID(rune('a' + i))
	}
	return ids
}

// world runs registers in the simulator, with a client on every node that reads and writes them and records what it
// sees.
type world struct {
	*sim.World
	t       testing.TB
	ids     []coterie.NodeID
	rec     *consistency.Recorder[access, reply]
	keys    int
	writers int // clients from this one on only read
	stop    bool
	done    int
	next    uint64
	failed  int // reads that ended by ErrConcurrent
	under   map[coterie.NodeID]underway
	rounds  map[int]int
	pause   time.Duration
}

type underway struct {
	id uint64
	op int
	in access
}

type worldConfig struct {
	sim    sim.Config
	system quorum.ReadWrite
	form   abd.Form
	faulty int
	keys   int
	wrap   func(id coterie.NodeID, core coterie.Core) coterie.Core
}

func newWorld(t testing.TB, cfg worldConfig) *world {
	w, err := sim.New(cfg.sim)
	require.NoError(t, err)
	c := &world{World: w, t: t, ids: cfg.system.Nodes(), keys: cfg.keys, under: map[coterie.NodeID]underway{}, rounds: map[int]int{}, pause: 20 * time.Millisecond}
	c.writers = len(c.ids)
	c.rec = &consistency.Recorder[access, reply]{Now: w.Now}
	for i, id := range c.ids {
		require.NoError(t, w.Add(id, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) {
			core, err := abd.NewCore(abd.Config{ID: id, System: cfg.system, Form: cfg.form, Faulty: cfg.faulty, Seed: cfg.sim.Seed<<20 + uint64(i)<<12 + incarnation})
			require.NoError(t, err)
			if cfg.wrap != nil {
				return cfg.wrap(id, core), sim.EventFunc(func(_ time.Time, event any) { c.event(id, event) })
			}
			return core, sim.EventFunc(func(_ time.Time, event any) { c.event(id, event) })
		}}))
		c.After(time.Duration(i)*time.Millisecond, func() { c.issue(id) })
	}
	return c
}

// issue starts the next operation of a node's client, now or when the node is up.
func (c *world) issue(id coterie.NodeID) {
	if c.stop {
		return
	}
	client := slices.Index(c.ids, id)
	if !c.Up(id) {
		c.After(50*time.Millisecond, func() { c.issue(id) })
		return
	}
	c.next++
	op := underway{id: c.next, in: access{Key: fmt.Sprint("k", c.Rand().IntN(c.keys))}}
	if client < c.writers && c.Rand().IntN(2) == 0 {
		op.in.Kind, op.in.Value = consistency.Write, fmt.Sprint("v", c.next)
	}
	op.op = c.rec.Invoke(client, op.in)
	c.under[id] = op
	err := c.Do(id, func(now time.Time, core coterie.Core) {
		var err error
		if op.in.Kind == consistency.Write {
			err = core.(*abd.Core).Write(now, op.id, op.in.Key, []byte(op.in.Value))
		} else {
			err = core.(*abd.Core).Read(now, op.id, op.in.Key)
		}
		if err != nil {
			c.t.Errorf("%v", err)
		}
	})
	if err != nil && c.Err() == nil {
		c.t.Errorf("%v", err)
	}
	// A client whose node crashed in the meantime, or that waits for too long, gives up: nobody knows the outcome.
	c.After(2*time.Second, func() { c.giveUp(id, op) })
}

func (c *world) giveUp(id coterie.NodeID, op underway) {
	if c.under[id] != op {
		return
	}
	delete(c.under, id)
	c.rec.Unknown(op.op)
	if c.Up(id) {
		_ = c.Do(id, func(_ time.Time, core coterie.Core) { core.(*abd.Core).Cancel(op.id) })
	}
	c.issue(id)
}

func (c *world) event(id coterie.NodeID, event any) {
	op := c.under[id]
	switch e := event.(type) {
	case abd.ReadDone:
		if e.ID != op.id {
			return // of an operation given up
		}
		c.rounds[e.Rounds]++
		if e.Err != nil {
			c.failed++
			c.rec.Fail(op.op)
		} else {
			c.rec.Return(op.op, reply{Value: string(e.Value)})
		}
	case abd.WriteDone:
		if e.ID != op.id {
			return
		}
		c.rec.Return(op.op, reply{})
	}
	c.done++
	delete(c.under, id)
	c.After(time.Duration(c.Rand().Int64N(int64(c.pause))), func() { c.issue(id) })
}

// settle ends the faults and requires progress: every operation called from now on ends.
func (c *world) settle() {
	c.HealAll()
	done := c.done
	require.NoError(c.t, c.RunUntil(func() bool { return c.done > done+5*len(c.ids) }, 20*time.Second))
	c.stop = true
	require.NoError(c.t, c.RunUntil(func() bool { return len(c.under) == 0 }, 5*time.Second))
}

func (c *world) verdict() consistency.Result {
	res, err := consistency.Linearizable(context.Background(), c.rec.History(), consistency.Register(""))
	require.NoError(c.t, err)
	return res
}

func systems(t testing.TB) []quorum.ReadWrite {
	maj, err := quorum.Symmetric(quorum.Majority(names(3)...))
	require.NoError(t, err)
	five, err := quorum.NRW(names(5), 2, 4)
	require.NoError(t, err)
	grid, err := quorum.Grid(names(6)[:3], names(6)[3:])
	require.NoError(t, err)
	return []quorum.ReadWrite{maj, five, grid}
}

// run plays a schedule drawn from the seed over a world of clients.
func run(t testing.TB, seed uint64, cfg worldConfig) *world {
	cfg.sim.Seed = seed
	w := newWorld(t, cfg)
	schedule := sim.DrawSchedule(seed, sim.Limits{Nodes: w.ids, Length: 5 * time.Second, MaxRate: 3})
	require.NoError(t, w.Play(schedule))
	w.settle()
	return w
}

func TestAtomicRegistersAreLinearizable(t *testing.T) {
	all := systems(t)
	simtest.Seeds(t, testsize.N(60, 3000), func(t *testing.T, seed uint64) {
		w := run(t, seed, worldConfig{system: all[seed%3], keys: 2, sim: sim.Config{
			Link: sim.Link{Loss: 0.02, Duplicate: 0.05, Reorder: 0.1}, Disk: sim.Disk{Crash: 0.003, Slow: 0.2}}})
		res := w.verdict()
		require.Equal(t, consistency.Holds, res.Verdict, "%v", res)
		require.Greater(t, w.done, 20)
	})
}
