package sim_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport/sim"
)

// requireViolation returns the violation that a run must have ended with.
func requireViolation(t *testing.T, err error, name string) *sim.ViolationError {
	t.Helper()
	var v *sim.ViolationError
	require.ErrorAs(t, err, &v)
	require.Equal(t, name, v.Name)
	return v
}

func TestViolationStopsTheWorld(t *testing.T) {
	b := newBench(t, sim.Config{Seed: 77}, nil, "a")
	broken := errors.New("broken")
	events := 0
	b.Invariant("second", func(w *sim.World) error {
		events++
		if w.Elapsed() >= 20*time.Millisecond {
			return broken
		}
		return nil
	})
	for i := range 10 {
		b.After(time.Duration(i)*10*time.Millisecond, func() {})
	}
	err := b.Run(time.Second)
	v := requireViolation(t, err, "second")
	require.ErrorIs(t, err, broken)
	require.EqualValues(t, 77, v.Seed)
	require.Equal(t, 21*time.Millisecond, v.Elapsed)
	require.Equal(t, b.Now(), v.Time)
	require.Contains(t, v.Error(), "seed 77")
	require.Contains(t, v.Error(), "COTERIE_SEED=77")
	require.Equal(t, 3, events)
	ok, again := b.Step()
	require.False(t, ok)
	require.Equal(t, err, again)
	require.Equal(t, err, b.Run(time.Second))
	require.Equal(t, err, b.Err())
	require.Equal(t, err, b.Do("a", func(time.Time, coterie.Core) { t.Error("ran") }))
}

func TestInvariantRunsAfterDo(t *testing.T) {
	b := newBench(t, sim.Config{}, nil, "a")
	b.Invariant("nothing is saved", func(w *sim.World) error {
		if len(w.Records("a")) > 0 {
			return errors.New("saved")
		}
		return nil
	})
	require.NoError(t, b.SetDisk("a", sim.Disk{Sync: sim.Fixed(0)}))
	err := b.Do("a", func(_ time.Time, core coterie.Core) { core.(*probe).Save([]byte("x")) })
	requireViolation(t, err, "nothing is saved")
}

func TestPanicIsAViolation(t *testing.T) {
	for name, broken := range map[string]func(p *probe){
		"step": func(p *probe) {
			p.onStep = func(*probe, time.Time, coterie.NodeID, []byte) error { panic("boom") }
		},
		"index": func(p *probe) {
			p.onStep = func(*probe, time.Time, coterie.NodeID, []byte) error { return []error{}[len(p.times)-100] }
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, sim.Config{Seed: 5}, func(_ coterie.NodeID, p *probe) { broken(p) }, "a", "b")
			b.do("a", func(p *probe, _ time.Time) { p.Send("b", []byte("x")) })
			err := b.Run(time.Second)
			require.EqualValues(t, 5, requireViolation(t, err, "panic").Seed)
			var p *sim.PanicError
			require.ErrorAs(t, err, &p)
			require.EqualValues(t, "b", p.Node)
			require.Contains(t, string(p.Stack), "violation_test.go")
		})
	}
	t.Run("new", func(t *testing.T) {
		w, err := sim.New(sim.Config{Seed: 1})
		require.NoError(t, err)
		err = w.Add("a", sim.Node{New: func(uint64) (coterie.Core, sim.App) { panic("no") }})
		requireViolation(t, err, "panic")
	})
	t.Run("no core", func(t *testing.T) {
		w, err := sim.New(sim.Config{Seed: 1})
		require.NoError(t, err)
		err = w.Add("a", sim.Node{New: func(uint64) (coterie.Core, sim.App) { return nil, nil }})
		requireViolation(t, err, "start")
	})
}

// A framework's own way out of a test must not look like a core's panic.
func TestFailingRapidTestLeavesTheWorld(t *testing.T) {
	stayed := false
	failed := runRapid(t, func(rt *rapid.T) {
		b := newBench(t, sim.Config{}, nil, "a")
		_ = b.Do("a", func(time.Time, coterie.Core) { rt.Fatalf("from within a call") })
		stayed = true
	})
	require.Contains(t, failed, "from within a call")
	require.False(t, stayed)
}

func TestChangedPayloadIsAViolation(t *testing.T) {
	for name, size := range map[string]int{"small": 10, "large": 100_000} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, sim.Config{}, nil, "a", "b")
			payload := make([]byte, size)
			b.do("a", func(p *probe, _ time.Time) { p.Send("b", payload) })
			payload[size-1]++
			requireViolation(t, b.Run(time.Second), "immutable")
		})
	}
	t.Run("record", func(t *testing.T) {
		b := newBench(t, sim.Config{}, nil, "a")
		record := []byte("record")
		b.do("a", func(p *probe, _ time.Time) { p.Save(record) })
		b.run(time.Second)
		b.Crash("a")
		record[0]++
		b.Restart("a")
		requireViolation(t, b.Err(), "immutable")
	})
}

func TestRefusedRecordIsAViolation(t *testing.T) {
	w, err := sim.New(sim.Config{Seed: 1})
	require.NoError(t, err)
	require.NoError(t, w.Add("a", sim.Node{New: func(uint64) (coterie.Core, sim.App) { return refuser{&probe{}}, nil }}))
	require.NoError(t, w.Do("a", func(_ time.Time, core coterie.Core) { core.(refuser).Save([]byte("x")) }))
	require.NoError(t, w.Run(time.Second))
	w.Crash("a")
	w.Restart("a")
	requireViolation(t, w.Err(), "replay")
}

type refuser struct{ *probe }

func (refuser) Replay([]byte) error { return errors.New("no") }

func TestCircleAtOneInstantIsAViolation(t *testing.T) {
	b := newBench(t, sim.Config{}, nil, "a")
	var again func()
	again = func() { b.After(0, again) }
	again()
	requireViolation(t, b.Run(time.Second), "livelock")
}

func TestRunUntil(t *testing.T) {
	b := newBench(t, sim.Config{}, nil, "a")
	came := false
	b.After(time.Second, func() { came = true })
	start := b.Elapsed()
	require.ErrorIs(t, b.RunUntil(func() bool { return came }, 500*time.Millisecond), sim.ErrLimit)
	require.Equal(t, 500*time.Millisecond, b.Elapsed()-start)
	require.NoError(t, b.RunUntil(func() bool { return came }, time.Hour))
	require.Equal(t, time.Second, b.Elapsed()-start)
	require.NoError(t, b.RunUntil(func() bool { return came }, 0))
}
