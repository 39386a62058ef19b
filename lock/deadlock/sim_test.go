package deadlock

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
)

// span is when a wait was there, and not granted.
type span struct {
	from, to time.Time // to is zero while it is
}

// run is a world of processes that wait, withdraw and grant at random, and who knows what was true when.
type run struct {
	world *sim.World
	rng   *rand.Rand
	truth map[Edge]*span
	open  map[Edge]bool // those of truth that are there
	found []Deadlock
	wrong error
}

// phantom tells why a cycle never was a deadlock: its waits were not all there at any one moment.
func (r *run) phantom(d Deadlock) error {
	var from, to time.Time
	for i, e := range d.Cycle {
		s := r.truth[e]
		if s == nil {
			return fmt.Errorf("%v: there was no wait %v", d, e)
		}
		if next := d.Cycle[(i+1)%len(d.Cycle)]; next.Waiter != e.Holder {
			return fmt.Errorf("%v is no cycle", d)
		}
		if s.from.After(from) {
			from = s.from
		}
		if !s.to.IsZero() && (to.IsZero() || s.to.Before(to)) {
			to = s.to
		}
	}
	if !to.IsZero() && to.Before(from) {
		return fmt.Errorf("phantom %v: a wait began at %v, another had ended at %v", d, from, to)
	}
	return nil
}

// end closes the waits for which the condition holds.
func (r *run) end(which func(Edge) bool) {
	maps.DeleteFunc(r.open, func(e Edge, _ bool) bool {
		if !which(e) {
			return false
		}
		r.truth[e].to = r.world.Now()
		return true
	})
}

func newRun(t *testing.T, seed uint64, link sim.Link, bug bool, trace *sim.Trace) *run {
	t.Helper()
	world, err := sim.New(sim.Config{Seed: seed, Link: link, MaxSkew: time.Second, MaxDrift: 200, Trace: trace})
	require.NoError(t, err)
	r := &run{world: world, rng: rand.New(rand.NewPCG(seed, 1)), truth: make(map[Edge]*span), open: make(map[Edge]bool)}
	for _, id := range nodes {
		require.NoError(t, world.Add(id, sim.Node{New: func(uint64) (coterie.Core, sim.App) {
			core, err := NewCore(Config{ID: id, Peers: nodes, Resend: 20 * time.Millisecond, unconfirmed: bug})
			require.NoError(t, err)
			return core, sim.EventFunc(func(_ time.Time, event any) {
				d := event.(Deadlock)
				r.found = append(r.found, d)
				if err := r.phantom(d); err != nil && r.wrong == nil {
					r.wrong = err
				}
			})
		}}))
	}
	world.Invariant("no phantom", func(w *sim.World) error {
		for _, id := range nodes { // the processes of a node that is down are gone
			if !w.Up(id) {
				r.end(func(e Edge) bool { return e.Waiter.Node == id })
			}
		}
		return r.wrong
	})
	return r
}

// name is process i of this life of its node: one that is gone is not followed by another of its name.
func (r *run) name(i int) Process {
	p := process(i)
	p.Name = fmt.Sprint(p.Name, ".", r.world.Incarnation(p.Node))
	return p
}

func (r *run) edit() {
	w, h := r.name(r.rng.IntN(9)), r.name(r.rng.IntN(9))
	if w == h {
		return
	}
	switch r.rng.IntN(8) {
	default:
		_ = r.world.Do(w.Node, func(now time.Time, core coterie.Core) {
			version, _ := core.(*Core).Block(now, w, h)
			if version > 0 {
				e := Edge{w, h, version}
				r.truth[e], r.open[e] = &span{from: r.world.Now()}, true
			}
		})
	case 0, 1: // withdrawn, as by a timeout
		_ = r.world.Do(w.Node, func(now time.Time, core coterie.Core) {
			core.(*Core).Unblock(now, w)
			r.end(func(e Edge) bool { return e.Waiter == w })
		})
	case 2, 3: // granted; the waiter hears of it later
		_ = r.world.Do(h.Node, func(_ time.Time, core coterie.Core) {
			granted := slices.DeleteFunc(slices.SortedFunc(maps.Keys(r.open), Edge.compare), func(e Edge) bool { return e.Holder != h })
			if len(granted) == 0 {
				return
			}
			e := granted[0]
			_ = core.(*Core).Grant(e)
			r.end(func(f Edge) bool { return f == e })
			r.arrive(e)
		})
	}
}

// arrive tells the waiter of a grant, however long that takes.
func (r *run) arrive(e Edge) {
	r.world.After(time.Duration(r.rng.IntN(30))*time.Millisecond, func() {
		_ = r.world.Do(e.Waiter.Node, func(now time.Time, core coterie.Core) {
			if c := core.(*Core); c.waits[e.Waiter].edge(e.Holder) == e.Version {
				c.Unblock(now, e.Waiter, e.Holder)
			}
		}) // if it is down, the process is gone
	})
}

// deadlocked is the obvious oracle: who waits, by one step or many, for itself.
func (r *run) deadlocked() []Process {
	reach := make(map[[2]Process]bool)
	ps := make(map[Process]bool)
	for e := range r.open {
		reach[[2]Process{e.Waiter, e.Holder}] = true
		ps[e.Waiter], ps[e.Holder] = true, true
	}
	for via := range ps {
		for from := range ps {
			for to := range ps {
				if reach[[2]Process{from, via}] && reach[[2]Process{via, to}] {
					reach[[2]Process{from, to}] = true
				}
			}
		}
	}
	maps.DeleteFunc(ps, func(p Process, _ bool) bool { return !reach[[2]Process{p, p}] })
	return slices.SortedFunc(maps.Keys(ps), Process.Compare)
}

// told reports whether a process told a cycle that is there now.
func (r *run) told(p Process) bool {
	return slices.ContainsFunc(r.found, func(d Deadlock) bool {
		return d.Initiator == p && !slices.ContainsFunc(d.Cycle, func(e Edge) bool { return !r.open[e] })
	})
}

// play edits for two seconds under a schedule of faults.
func (r *run) play(seed uint64) error {
	for at := time.Duration(0); at < 2*time.Second; at += time.Duration(r.rng.IntN(8000)) * time.Microsecond {
		r.world.After(at, r.edit)
	}
	schedule := sim.DrawSchedule(seed, sim.Limits{Nodes: nodes, Length: 2 * time.Second, MaxFor: 300 * time.Millisecond})
	if err := r.world.Play(schedule); err != nil {
		return err
	}
	return r.world.Run(2500*time.Millisecond - min(r.world.Elapsed(), 2*time.Second)) // the schedule may end early
}

var lossy = sim.Link{Loss: 0.1, Duplicate: 0.1, Reorder: 0.3, Latency: sim.Uniform(time.Millisecond, 10*time.Millisecond)}

func TestEveryDeadlockIsFoundAndNoPhantom(t *testing.T) {
	deadlocks, events := 0, 0
	simtest.Seeds(t, testsize.N(120, 5000), func(t *testing.T, seed uint64) {
		r := newRun(t, seed, lossy, false, nil)
		require.NoError(t, r.play(seed))
		left := r.deadlocked()
		deadlocks += len(left)
		require.NoError(t, r.world.RunUntil(func() bool {
			return !slices.ContainsFunc(left, func(p Process) bool { return !r.told(p) })
		}, time.Minute), "processes %v wait for themselves; waits %v", left, slices.Collect(maps.Keys(r.open)))
		require.Equal(t, left, r.deadlocked(), "nothing changed meanwhile")
		events += len(r.found)
	})
	require.NotZero(t, deadlocks)
	require.Greater(t, events, deadlocks/2)
	t.Logf("%d processes deadlocked at the end, %d events", deadlocks, events)
}

func TestOneRoundAloneFindsPhantoms(t *testing.T) {
	for seed := uint64(1); seed <= 50; seed++ {
		if newRun(t, seed, lossy, true, nil).play(seed) != nil {
			return
		}
	}
	t.Fatal("the simulation does not see that nothing is confirmed")
}

func TestARunRepeatsItself(t *testing.T) {
	simtest.RequireDeterministic(t, func(trace *sim.Trace) {
		require.NoError(t, newRun(t, 3, lossy, false, trace).play(3))
	})
}

// Victims chosen from the events end every deadlock, on all nodes alike.
func TestVictimsOfEventsEndTheDeadlocks(t *testing.T) {
	simtest.Seeds(t, testsize.N(40, 1000), func(t *testing.T, seed uint64) {
		r := newRun(t, seed, lossy, false, nil)
		require.NoError(t, r.play(seed))
		choose := Cheapest(func(Process) float64 { return 1 })
		heard := 0
		require.NoError(t, r.world.RunUntil(func() bool {
			for ; heard < len(r.found); heard++ {
				v := choose(r.found[heard].Cycle)
				_ = r.world.Do(v.Node, func(now time.Time, core coterie.Core) {
					core.(*Core).Unblock(now, v)
					r.end(func(e Edge) bool { return e.Waiter == v })
				})
			}
			return len(r.deadlocked()) == 0
		}, time.Minute))
	})
}
