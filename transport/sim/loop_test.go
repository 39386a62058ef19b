package sim_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport/sim"
)

// fixed makes a world whose times can be reckoned: 1 ms a message, 5 ms a save.
func fixed() sim.Config {
	return sim.Config{
		Link: sim.Link{Latency: sim.Fixed(time.Millisecond)}, Disk: sim.Disk{Sync: sim.Fixed(5 * time.Millisecond)},
		StepTime: -1,
	}
}

func TestBatchTakesWholeInboxOwnMailFirst(t *testing.T) {
	cfg := fixed()
	cfg.StepTime = 10 * time.Millisecond
	b := newBench(t, cfg, nil, "a", "b", "c")
	b.run(20 * time.Millisecond)
	b.do("a", func(p *probe, _ time.Time) { p.Send("a", []byte("own")) }) // busy from now on, for 10 ms
	b.do("b", func(p *probe, _ time.Time) { p.Send("a", []byte("1")) })
	b.run(time.Millisecond)
	b.do("c", func(p *probe, _ time.Time) { p.Send("a", []byte("2")) })
	b.run(5 * time.Millisecond)
	require.Empty(t, b.probe("a").calls, "a is busy")
	b.probe("a").readies = 0
	b.run(5 * time.Millisecond)
	require.Equal(t, 1, b.probe("a").readies)
	require.Equal(t, []string{"a own", "b 1", "c 2"}, b.probe("a").take())
}

func TestEarlyLeavesBeforeTheSaveAndTheRestAfter(t *testing.T) {
	b := newBench(t, fixed(), nil, "a", "b")
	b.do("a", func(p *probe, _ time.Time) {
		p.Save([]byte("r"))
		p.SendEarly("b", []byte("early"))
		p.Send("b", []byte("late"))
		p.Send("a", []byte("saved"))
		p.Emit("event")
	})
	b.run(time.Millisecond)
	require.Equal(t, []string{"a early"}, b.probe("b").take())
	require.Empty(t, b.Records("a"))
	b.run(3 * time.Millisecond)
	require.Empty(t, b.probe("b").take())
	require.Empty(t, b.events)
	require.Empty(t, b.probe("a").take())
	b.run(time.Millisecond)
	require.Equal(t, []any{"event"}, b.events)
	require.Equal(t, []string{"a saved"}, b.probe("a").take())
	require.Equal(t, [][]byte{[]byte("r")}, b.Records("a"))
	b.run(time.Millisecond)
	require.Equal(t, []string{"a late"}, b.probe("b").take())
}

func TestLaterBatchesWaitForTheSaveUnderWay(t *testing.T) {
	b := newBench(t, fixed(), nil, "a", "b")
	b.do("a", func(p *probe, _ time.Time) { p.Save([]byte("1")); p.Emit(1) })
	b.run(time.Millisecond)
	b.do("a", func(p *probe, _ time.Time) { p.Emit(2); p.Send("b", []byte("x")) }) // rests, perhaps, on what 1 saves
	b.do("a", func(p *probe, _ time.Time) { p.Save([]byte("3")); p.Emit(3) })
	b.do("a", func(p *probe, _ time.Time) { p.Save([]byte("4")); p.Emit(4) })
	b.run(3 * time.Millisecond)
	require.Empty(t, b.events)
	b.run(time.Millisecond)
	require.Equal(t, []any{1}, b.events)
	b.run(5 * time.Millisecond)
	require.Equal(t, []any{1, 2, 3, 4}, b.events, "one sync for all that waited")
	require.EqualValues(t, 2, b.Stats().Syncs)
	require.Len(t, b.Records("a"), 3)
}

func TestReadyIsCopiedBeforeTheCoreHasItBack(t *testing.T) {
	b := newBench(t, fixed(), nil, "a", "b")
	for i := range 10 { // the outbox uses its slices again from the third batch on
		b.do("a", func(p *probe, _ time.Time) {
			p.Save([]byte{'r'})
			p.Send("b", fmt.Appendf(nil, "%d", i))
			p.Emit(i)
		})
	}
	b.run(20 * time.Millisecond)
	require.Equal(t, []any{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, b.events)
	require.Equal(t, []string{"a 0", "a 1", "a 2", "a 3", "a 4", "a 5", "a 6", "a 7", "a 8", "a 9"}, b.probe("b").take())
}

func TestTickIsNeverEarlyAndAtMostAGridLate(t *testing.T) {
	testsize.Checks(t, 100, 2000)
	rapid.Check(t, func(rt *rapid.T) {
		cfg := fixed()
		cfg.Seed = rapid.Uint64Min(1).Draw(rt, "seed")
		cfg.MaxDrift = float64(rapid.IntRange(0, 1000).Draw(rt, "drift"))
		wait := time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(rt, "wait"))
		var asked time.Time
		b := newBench(t, cfg, nil, "a")
		b.do("a", func(p *probe, now time.Time) {
			asked = now.Add(wait)
			p.Wake(asked)
		})
		b.run(wait + wait/500 + 30*time.Millisecond)
		p := b.probe("a")
		require.Equal(rt, []string{"tick"}, p.calls)
		require.False(rt, p.times[0].Before(asked), "early")
		require.Less(rt, p.times[0].Sub(asked), 11*time.Millisecond, "late")
	})
}

func TestWakeOfTheLatestBatchCounts(t *testing.T) {
	b := newBench(t, fixed(), nil, "a")
	wake := func(in time.Duration) {
		b.do("a", func(p *probe, now time.Time) {
			if in > 0 {
				p.Wake(now.Add(in))
			}
		})
	}
	wake(20 * time.Millisecond)
	b.run(10 * time.Millisecond)
	wake(100 * time.Millisecond) // later than the one that is queued
	b.run(90 * time.Millisecond)
	require.Empty(t, b.probe("a").calls)
	b.run(30 * time.Millisecond)
	require.Equal(t, []string{"tick"}, b.probe("a").take())
	wake(500 * time.Millisecond)
	wake(50 * time.Millisecond) // earlier than the one that is queued
	b.run(70 * time.Millisecond)
	require.Equal(t, []string{"tick"}, b.probe("a").take())
	b.run(time.Second)
	require.Empty(t, b.probe("a").take())
	wake(50 * time.Millisecond)
	wake(0) // none
	b.run(time.Second)
	require.Empty(t, b.probe("a").take())
}

func TestDo(t *testing.T) {
	b := newBench(t, fixed(), nil, "a", "b")
	ran := 0
	call := func(time.Time, coterie.Core) { ran++ }
	require.ErrorIs(t, b.Do("nobody", call), sim.ErrUnknownNode)
	require.NoError(t, b.Do("a", call))
	require.Equal(t, 1, ran)

	b.Pause("a")
	require.NoError(t, b.Do("a", call))
	b.run(time.Second)
	require.Equal(t, 1, ran, "paused")
	b.Resume("a")
	b.run(time.Millisecond)
	require.Equal(t, 2, ran)

	b.Crash("a")
	require.ErrorIs(t, b.Do("a", call), sim.ErrDown)
	b.Restart("a")
	b.Pause("a")
	require.NoError(t, b.Do("a", call))
	b.Crash("a")
	b.Restart("a")
	b.run(time.Second)
	require.Equal(t, 2, ran, "a call that waited when its node crashed never runs")
	require.EqualValues(t, 3, b.Incarnation("a"))
}

func TestDoFromOwnEventRunsInTheNextBatch(t *testing.T) {
	w, err := sim.New(sim.Config{Seed: 1})
	require.NoError(t, err)
	var log []string
	require.NoError(t, w.Add("a", sim.Node{New: func(uint64) (coterie.Core, sim.App) {
		return &probe{}, sim.EventFunc(func(_ time.Time, event any) {
			log = append(log, fmt.Sprint("event ", event))
			if n := event.(int); n < 3 {
				require.NoError(t, w.Do("a", func(_ time.Time, core coterie.Core) { core.(*probe).Emit(n + 1) }))
			}
			log = append(log, fmt.Sprint("end ", event))
		})
	}}))
	require.NoError(t, w.Do("a", func(_ time.Time, core coterie.Core) { core.(*probe).Emit(1) }))
	require.NoError(t, w.Run(time.Millisecond))
	require.Equal(t, []string{"event 1", "end 1", "event 2", "end 2", "event 3", "end 3"}, log)
}

func TestPausedNodeKeepsItsMailAndItsDisk(t *testing.T) {
	b := newBench(t, fixed(), nil, "a", "b")
	b.do("a", func(p *probe, now time.Time) {
		p.Save([]byte("r"))
		p.Emit("saved")
		p.Wake(now.Add(20 * time.Millisecond))
	})
	b.Pause("a")
	b.do("b", func(p *probe, _ time.Time) { p.Send("a", []byte("hello")) })
	b.run(time.Second)
	require.Empty(t, b.events)
	require.Empty(t, b.probe("a").calls)
	b.Resume("a")
	b.run(0)
	require.Equal(t, []any{"saved"}, b.events)
	require.Equal(t, []string{"b hello", "tick"}, b.probe("a").take())
}

func TestHangingDiskStopsANodeThatSaves(t *testing.T) {
	b := newBench(t, fixed(), nil, "a", "b")
	b.StallDisk("a")
	hello := func() { b.do("b", func(p *probe, _ time.Time) { p.Send("a", []byte("hello")) }) }
	hello()
	b.run(10 * time.Millisecond)
	require.Equal(t, []string{"b hello"}, b.probe("a").take(), "nothing to save yet")
	b.do("a", func(p *probe, _ time.Time) { p.Save([]byte("r")); p.Emit("saved"); p.SendEarly("b", []byte("early")) })
	hello()
	b.run(time.Second)
	require.Empty(t, b.probe("a").take())
	require.Empty(t, b.events)
	require.Equal(t, []string{"a early"}, b.probe("b").take())
	b.ResumeDisk("a")
	b.run(10 * time.Millisecond)
	require.Equal(t, []any{"saved"}, b.events)
	require.Equal(t, []string{"b hello"}, b.probe("a").take())
}

func TestMalformedAndUncheckedMessages(t *testing.T) {
	w, err := sim.New(sim.Config{Seed: 1})
	require.NoError(t, err)
	bad := errors.New("bad")
	p := &probe{onStep: func(*probe, time.Time, coterie.NodeID, []byte) error { return bad }}
	require.NoError(t, w.Add("a", sim.Node{
		New: func(uint64) (coterie.Core, sim.App) { return p, nil },
		Check: func(from coterie.NodeID, payload []byte) error {
			require.EqualValues(t, "b", from)
			if string(payload) == "forged" {
				return bad
			}
			return nil
		},
	}))
	require.NoError(t, w.Add("b", sim.Node{New: func(uint64) (coterie.Core, sim.App) { return &probe{}, nil }}))
	require.NoError(t, w.Do("b", func(_ time.Time, core coterie.Core) {
		core.(*probe).Send("a", []byte("forged"))
		core.(*probe).Send("a", []byte("garbage"))
		core.(*probe).Send("nobody", []byte("x"))
	}))
	require.NoError(t, w.Run(time.Second))
	require.Equal(t, []string{"tick", "b garbage"}, p.calls)
	require.EqualValues(t, 1, w.Stats().Rejected)
	require.EqualValues(t, 1, w.Stats().Unknown)
	require.EqualValues(t, 1, w.LinkStats("b", "a").Lost)
}

func TestInboxIsBounded(t *testing.T) {
	cfg := fixed()
	cfg.Inbox = 3
	b := newBench(t, cfg, nil, "a", "b")
	b.Pause("a")
	for i := range 5 {
		b.do("b", func(p *probe, _ time.Time) { p.Send("a", fmt.Appendf(nil, "%d", i)) })
		b.run(2 * time.Millisecond)
	}
	b.Resume("a")
	b.run(time.Millisecond)
	require.Equal(t, []string{"b 0", "b 1", "b 2"}, b.probe("a").take())
	require.EqualValues(t, 2, b.LinkStats("b", "a").Lost)
}
