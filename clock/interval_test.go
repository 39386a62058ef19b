package clock

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func mustInterval(t require.TestingT, cfg IntervalConfig) *IntervalClock {
	c, err := NewIntervalClock(cfg)
	require.NoError(t, err)
	return c
}

// The local clock drifts at a changing rate within the bound, and is synchronized by intervals that contain true time
// at any place in them: the clock's interval must contain it at all times.
func TestIntervalContainsTrueTime(t *testing.T) {
	check(t, func(t *rapid.T) {
		drift := rapid.SampledFrom([]float64{1e-6, 200e-6, 0.01}).Draw(t, "drift")
		truth, local := epoch, epoch.Add(time.Duration(rapid.Int64Range(-1e12, 1e12).Draw(t, "offset")))
		c := mustInterval(t, IntervalConfig{Now: func() time.Time { return local }, Drift: drift})
		t.Repeat(map[string]func(*rapid.T){
			"run": func(t *rapid.T) {
				by := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "by"))
				off := time.Duration(float64(by) * drift * rapid.Float64Range(-1, 1).Draw(t, "rate"))
				truth, local = truth.Add(by), local.Add(by+off)
			},
			"sync": func(t *rapid.T) {
				under := time.Duration(rapid.Int64Range(0, 1e8).Draw(t, "under"))
				over := time.Duration(rapid.Int64Range(0, 1e8).Draw(t, "over"))
				require.NoError(t, c.Sync(local, Interval{truth.Add(-under), truth.Add(over)}))
			},
			"": func(t *rapid.T) {
				now := c.Now()
				require.True(t, now.Contains(truth), "%v does not contain %v", now, truth)
				require.False(t, c.After(truth))
				require.False(t, c.Before(truth))
			},
		})
	})
}

// A rate error above the stated one breaks the guarantee: the property above is about the margin, not about luck.
func TestIntervalFailsBeyondItsDrift(t *testing.T) {
	local := epoch
	c := mustInterval(t, IntervalConfig{Now: func() time.Time { return local }, Drift: 100e-6})
	require.NoError(t, c.Sync(local, Interval{epoch, epoch}))
	local = local.Add(time.Hour + time.Hour/5000)
	require.False(t, c.Now().Contains(epoch.Add(time.Hour)))
}

func TestIntervalWidensAndNarrows(t *testing.T) {
	local := epoch
	c := mustInterval(t, IntervalConfig{Now: func() time.Time { return local }})
	require.False(t, c.After(epoch))
	require.False(t, c.Before(epoch))
	require.Equal(t, local, c.Time())

	ms := func(n int) time.Time { return epoch.Add(time.Duration(n) * time.Millisecond) }
	require.NoError(t, c.Sync(local, Interval{ms(1), ms(5)}))
	require.Equal(t, 4*time.Millisecond, c.Now().Width())
	require.True(t, c.Time().Equal(ms(3)))
	require.NoError(t, c.Sync(local, Interval{ms(0), ms(100)})) // worse, changes nothing
	require.Equal(t, 4*time.Millisecond, c.Now().Width())
	require.NoError(t, c.Sync(local, Interval{ms(4), ms(6)}))
	require.Equal(t, time.Millisecond, c.Now().Width())
	local = local.Add(1000 * time.Second)
	require.InDelta(t, 401*time.Millisecond, c.Now().Width(), float64(time.Millisecond))

	have := c.Now()
	require.ErrorIs(t, c.Sync(local, Interval{have.Latest.Add(1), have.Latest.Add(2)}), ErrDisjoint)
	require.Error(t, c.Sync(local, Interval{ms(5), ms(4)}))
	require.Equal(t, have, c.Now())
	require.Equal(t, IntervalMetrics{Syncs: 3, Disjoint: 1}, c.Metrics())
	c.Reset()
	require.True(t, c.Now().Contains(epoch.Add(-time.Hour)))
}

func TestIntervalCompare(t *testing.T) {
	at := func(a, b int) Interval { return Interval{epoch.Add(time.Duration(a)), epoch.Add(time.Duration(b))} }
	require.Equal(t, Before, at(1, 2).Compare(at(3, 4)))
	require.Equal(t, After, at(3, 4).Compare(at(1, 2)))
	require.Equal(t, Equal, at(1, 2).Compare(at(1, 2)))
	require.Equal(t, Concurrent, at(1, 3).Compare(at(3, 4)))
	require.Contains(t, at(1, 3).String(), "± 1ns")
}

func TestIntervalConfigErrors(t *testing.T) {
	for _, drift := range []float64{-1, 0.1, math.NaN(), math.Inf(1)} {
		_, err := NewIntervalClock(IntervalConfig{Drift: drift})
		require.ErrorContains(t, err, "Drift")
	}
}

// Commit wait orders by real time: when it returns, the timestamp is before every interval that anyone reads.
func TestIntervalCommitWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := mustInterval(t, IntervalConfig{Drift: 0.001})
		truth := time.Now()
		require.NoError(t, c.Sync(truth, Interval{truth.Add(-7 * time.Millisecond), truth.Add(3 * time.Millisecond)}))
		stamp := c.Now().Latest
		require.NoError(t, c.CommitWait(t.Context(), stamp))
		require.True(t, c.After(stamp))
		waited := time.Since(truth)
		require.GreaterOrEqual(t, waited, 10*time.Millisecond)
		require.Less(t, waited, 10100*time.Microsecond)
		require.NoError(t, c.CommitWait(t.Context(), stamp)) // at once
		require.Equal(t, waited, time.Since(truth))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, c.CommitWait(ctx, stamp.Add(time.Hour)), context.DeadlineExceeded)
	})
}

// A wait ends as soon as a better synchronization says that the time has passed.
func TestIntervalCommitWaitHearsOfSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := mustInterval(t, IntervalConfig{})
		start := time.Now()
		done := make(chan error)
		go func() { done <- c.CommitWait(t.Context(), start) }()
		synctest.Wait()
		now := time.Now()
		require.NoError(t, c.Sync(now, Interval{now.Add(1), now.Add(2)}))
		require.NoError(t, <-done)
		require.Equal(t, start, time.Now())
	})
}

func TestHLCOnAnIntervalClock(t *testing.T) {
	local := epoch
	c := mustInterval(t, IntervalConfig{Now: func() time.Time { return local }})
	require.NoError(t, c.Sync(local, Interval{epoch.Add(time.Hour), epoch.Add(time.Hour + 2*time.Millisecond)}))
	h := mustHLC(t, HLCConfig{Now: c.Time})
	require.WithinDuration(t, epoch.Add(time.Hour), h.Now().Wall(), 2*time.Millisecond)
}

func TestIntervalDoesNotAllocate(t *testing.T) {
	c := mustInterval(t, IntervalConfig{})
	require.NoError(t, c.Sync(time.Now(), Interval{epoch, epoch}))
	require.Zero(t, testing.AllocsPerRun(100, func() { c.After(epoch) }))
}
