package sim_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie/transport/sim"
)

func TestClock(t *testing.T) {
	b := newBench(t, sim.Config{}, nil, "a", "b")
	c := b.Clock("a")
	require.Equal(t, b.Now(), c.Now())
	c.SetSkew(-time.Second)
	require.Equal(t, b.Now().Add(-time.Second), c.Now())
	c.Jump(3 * time.Second)
	require.Equal(t, 2*time.Second, c.Skew())
	c.SetDrift(100) // 100 µs a second
	b.run(100 * time.Second)
	require.Equal(t, 2*time.Second+10*time.Millisecond, c.Skew())
	require.Equal(t, 100.0, c.Drift())
	b.Crash("a")
	c.SetDrift(-500_000)
	b.run(10 * time.Second)
	b.Restart("a")
	require.Equal(t, 2*time.Second+10*time.Millisecond-5*time.Second, b.Clock("a").Skew(), "it lives on")
	require.Zero(t, b.Clock("b").Skew())
	for _, drift := range []float64{-500_001, 1_000_001, math.NaN(), math.Inf(1)} {
		require.Panics(t, func() { c.SetDrift(drift) })
	}
}

func TestDriftIsInTheCoresTimeAndSkewIsNot(t *testing.T) {
	b := newBench(t, fixed(), nil, "a")
	b.Clock("a").Jump(time.Hour)
	b.Clock("a").SetDrift(1_000_000) // twice as fast
	began := b.Now()
	b.run(10 * time.Second)
	var asked time.Time
	b.do("a", func(p *probe, now time.Time) {
		require.Equal(t, began.Add(20*time.Second), now)
		asked = now.Add(10 * time.Second)
		p.Wake(asked)
	})
	b.run(5*time.Second - time.Millisecond)
	require.Empty(t, b.probe("a").calls)
	b.run(12 * time.Millisecond)
	require.Equal(t, []string{"tick"}, b.probe("a").calls)
	require.False(t, b.probe("a").times[0].Before(asked))
}

// A change of the rate moves the timers that are set.
func TestDriftMovesTimers(t *testing.T) {
	for drift, takes := range map[float64]time.Duration{1_000_000: 5 * time.Second, -500_000: 20 * time.Second} {
		b := newBench(t, fixed(), nil, "a")
		b.do("a", func(p *probe, now time.Time) { p.Wake(now.Add(10 * time.Second)) })
		b.Clock("a").SetDrift(drift)
		b.run(takes - time.Millisecond)
		require.Empty(t, b.probe("a").calls, "drift %v", drift)
		b.run(12 * time.Millisecond)
		require.Equal(t, []string{"tick"}, b.probe("a").calls, "drift %v", drift)
	}
}

func TestClocksAreDrawnPerNode(t *testing.T) {
	b := newBench(t, sim.Config{MaxSkew: time.Second, MaxDrift: 200}, nil, "a", "b", "c", "d")
	skews := map[time.Duration]bool{}
	for _, id := range b.Nodes() {
		c := b.Clock(id)
		skews[c.Skew()] = true
		require.LessOrEqual(t, c.Skew().Abs(), time.Second+time.Millisecond)
		require.LessOrEqual(t, math.Abs(c.Drift()), 200.0)
		require.NotZero(t, c.Drift())
	}
	require.Len(t, skews, 4)
	c := b.Clock("a")
	drift := c.Drift()
	c.SetDrift(5)
	c.Jump(time.Hour)
	b.HealAll()
	require.Equal(t, drift, c.Drift())
	require.LessOrEqual(t, c.Skew().Abs(), time.Second)
}
