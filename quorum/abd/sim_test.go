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
	gaveUp  int // operations that took too long
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
	hedge  time.Duration
	wrap   func(id coterie.NodeID, core coterie.Core) coterie.Core
}

func newWorld(tb testing.TB, cfg worldConfig) *world {
	tb.Helper()
	w, err := sim.New(cfg.sim)
	require.NoError(tb, err)
	c := &world{World: w, t: tb, ids: cfg.system.Nodes(), keys: cfg.keys, under: map[coterie.NodeID]underway{}, rounds: map[int]int{}, pause: 20 * time.Millisecond}
	c.writers = len(c.ids)
	c.rec = &consistency.Recorder[access, reply]{Now: w.Now}
	for i, id := range c.ids {
		require.NoError(tb, w.Add(id, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) {
			core, err := abd.NewCore(abd.Config{ID: id, System: cfg.system, Form: cfg.form, Faulty: cfg.faulty, Hedge: cfg.hedge, Seed: cfg.sim.Seed<<20 + uint64(i)<<12 + incarnation})
			require.NoError(tb, err)
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
	c.gaveUp++
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
	require.NoError(c.t, c.Run(c.pause)) // until every client has seen that it is to stop
}

func (c *world) verdict() consistency.Result {
	res, err := consistency.Linearizable(context.Background(), c.rec.History(), consistency.Register(""))
	require.NoError(c.t, err)
	return res
}

func systems(tb testing.TB) []quorum.ReadWrite {
	tb.Helper()
	maj, err := quorum.Symmetric(quorum.Majority(names(3)...))
	require.NoError(tb, err)
	five, err := quorum.NRW(names(5), 2, 4)
	require.NoError(tb, err)
	grid, err := quorum.Grid(names(6)[:3], names(6)[3:])
	require.NoError(tb, err)
	return []quorum.ReadWrite{maj, five, grid}
}

// run plays a schedule drawn from the seed over a world of clients.
func run(tb testing.TB, seed uint64, cfg worldConfig) *world {
	tb.Helper()
	cfg.sim.Seed = seed
	w := newWorld(tb, cfg)
	schedule := sim.DrawSchedule(seed, sim.Limits{Nodes: w.ids, Length: 5 * time.Second, MaxRate: 3})
	require.NoError(tb, w.Play(schedule))
	w.settle()
	return w
}

func TestAtomicRegistersAreLinearizable(t *testing.T) {
	all := systems(t)
	simtest.Seeds(t, testsize.N(60, 3000), func(t *testing.T, seed uint64) {
		t.Helper()
		w := run(t, seed, worldConfig{system: all[seed%3], keys: 2, hedge: time.Duration(seed%2) * 10 * time.Millisecond, sim: sim.Config{
			Link: sim.Link{Loss: 0.02, Duplicate: 0.05, Reorder: 0.1}, Disk: sim.Disk{Crash: 0.003, Slow: 0.2}}})
		res := w.verdict()
		require.Equal(t, consistency.Holds, res.Verdict, "%v", res)
		require.Greater(t, w.done, 20)
	})
}

// A read that does not write back what it found is the Regular form. The same worlds find it out.
func TestWithoutWriteBackReadsAreNotLinearizable(t *testing.T) {
	all := systems(t)
	for seed := uint64(1); seed <= 400; seed++ {
		w := run(t, seed, worldConfig{system: all[seed%3], keys: 1, form: abd.Regular, sim: sim.Config{Link: sim.Link{Loss: 0.02, Reorder: 0.1}}})
		if res := w.verdict(); res.Verdict == consistency.Violated {
			t.Logf("seed %d: %v", seed, res)
			return
		}
	}
	t.Error("no seed found that regular registers are not atomic")
}

// regular checks the definition: a read returns a value that was being written while it ran, or the value of a write
// before it that no other write lies between.
func regular(t *testing.T, history consistency.History[access, reply]) {
	t.Helper()
	end := func(op consistency.Operation[access, reply]) time.Duration {
		if op.Unknown {
			return 1 << 62
		}
		return op.Return
	}
	for _, r := range history {
		if r.In.Kind != consistency.Read || r.Unknown {
			continue
		}
		var from *consistency.Operation[access, reply]
		for i, w := range history {
			if w.In.Kind == consistency.Write && w.In.Value == r.Out.Value {
				from = &history[i]
			}
		}
		for _, w := range history {
			if w.In.Kind != consistency.Write || w.In.Key != r.In.Key || end(w) >= r.Call {
				continue
			}
			require.NotNil(t, from, "%v, but %v was written", r, w)
			require.False(t, end(*from) < w.Call, "%v returned the value of %v although %v came after it", r, *from, w)
		}
		if from != nil {
			require.Less(t, from.Call, r.Return)
			require.Equal(t, from.In.Key, r.In.Key)
		} else {
			require.Empty(t, r.Out.Value)
		}
	}
}

func TestRegularRegistersAreRegular(t *testing.T) {
	all := systems(t)
	simtest.Seeds(t, testsize.N(30, 1000), func(t *testing.T, seed uint64) {
		t.Helper()
		w := run(t, seed, worldConfig{system: all[seed%3], keys: 2, form: abd.Regular, sim: sim.Config{
			Link: sim.Link{Loss: 0.02, Duplicate: 0.05, Reorder: 0.1}, Disk: sim.Disk{Crash: 0.003}}})
		regular(t, w.rec.History())
		require.Zero(t, w.rounds[2], "one round trip")
	})
}

// masking returns a system of 4f+1 servers of which f lie: to each reader something of their own, with a timestamp
// from the future, the past, or that of the other liars.
func masking(tb testing.TB, f int) (quorum.ReadWrite, func(id coterie.NodeID, core coterie.Core) coterie.Core) {
	tb.Helper()
	ids := names(4*f + 1)
	system, err := quorum.Symmetric(quorum.Masking(ids...))
	require.NoError(tb, err)
	lies := 0
	return system, func(id coterie.NodeID, core coterie.Core) coterie.Core {
		if slices.Index(ids, id) >= f {
			return core
		}
		return sim.Equivocate(core, id, func(to coterie.NodeID, payload []byte) []byte {
			switch lies++; lies % 4 {
			case 0:
				return nil
			case 1:
				return abd.Lie(payload, 1<<40, to, "forged")
			case 2:
				return abd.Lie(payload, 1<<62, "liar", "forged")
			}
			return abd.Lie(payload, 0, "", "stale")
		})
	}
}

func TestSafeRegistersMaskLiars(t *testing.T) {
	simtest.Seeds(t, testsize.N(30, 1000), func(t *testing.T, seed uint64) {
		t.Helper()
		f := 1 + int(seed%2)
		system, wrap := masking(t, f)
		cfg := worldConfig{system: system, keys: 1, form: abd.Safe, faulty: f, wrap: wrap, sim: sim.Config{Seed: seed, Link: sim.Link{Loss: 0.02, Reorder: 0.1}}}
		w := newWorld(t, cfg)
		require.NoError(t, w.Run(2*time.Second))
		w.settle()
		require.Zero(t, w.gaveUp, "liars keep nobody from reading and writing")
		history := w.rec.History()
		written := map[string]bool{"": true}
		for _, op := range history {
			written[op.In.Value] = true
		}
		quiet := 0
		for _, r := range history {
			if r.In.Kind != consistency.Read {
				continue
			}
			require.True(t, written[r.Out.Value], "%v was never written", r)
			last, overlapped := consistency.Operation[access, reply]{}, false
			for _, op := range history {
				if op.In.Kind != consistency.Write || op.Call > r.Return {
					continue
				}
				overlapped = overlapped || op.Unknown || op.Return >= r.Call
				if op.Return > last.Return {
					last = op
				}
			}
			// Of writes that overlap one another either may be the last.
			for _, op := range history {
				overlapped = overlapped || op.In.Kind == consistency.Write && op.In.Value != last.In.Value && op.Return >= last.Call && op.Call <= last.Return
			}
			if !overlapped {
				quiet++
				require.Equal(t, last.In.Value, r.Out.Value, "%v", r)
			}
		}
		// Now nothing is written any more: every read must return the last value, and none may fail.
		failed := w.failed
		w.stop, w.writers = false, 0
		done := w.done
		for _, id := range w.ids {
			w.issue(id)
		}
		require.NoError(t, w.RunUntil(func() bool { return w.done >= done+5*len(w.ids) }, 20*time.Second))
		require.Equal(t, failed, w.failed)
		after := w.rec.History()[len(history):]
		after = slices.DeleteFunc(after, func(r consistency.Operation[access, reply]) bool { return r.Unknown }) // still under way
		for _, r := range after {
			require.Equal(t, after[0].Out.Value, r.Out.Value)
		}
		require.Contains(t, written, after[0].Out.Value)
	})
}

func TestRunsRepeatThemselves(t *testing.T) {
	all := systems(t)
	simtest.RequireDeterministic(t, func(trace *sim.Trace) {
		run(t, 42, worldConfig{system: all[1], keys: 3, sim: sim.Config{Trace: trace, Link: sim.Link{Loss: 0.05, Reorder: 0.1}, Disk: sim.Disk{Crash: 0.01}}})
	})
}

// A minority is down: the register works. A majority is down: it waits, and works again when one of them is back, with
// what was written before.
func TestAvailableWhileAMinorityIsDown(t *testing.T) {
	w := newWorld(t, worldConfig{system: systems(t)[0], keys: 1, sim: sim.Config{Seed: 1}})
	w.Crash("c")
	require.NoError(t, w.RunUntil(func() bool { return w.done > 50 }, 10*time.Second))
	w.Crash("b")
	done := w.done
	require.NoError(t, w.Run(5*time.Second))
	require.LessOrEqual(t, w.done, done+1)
	w.Restart("c")
	require.NoError(t, w.RunUntil(func() bool { return w.done > done+50 }, 10*time.Second))
	w.Restart("b")
	w.settle()
	res := w.verdict()
	require.Equal(t, consistency.Holds, res.Verdict, "%v", res)
}
