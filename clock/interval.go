package clock

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultDrift is the rate error that Spanner assumes of its machines: 200 microseconds a second.
const DefaultDrift = 200e-6

// ErrDisjoint is returned by Sync for an interval that has no time in common with what the clock knows. One of the two
// is wrong: the new source, an older one, or the stated drift. The clock is as it was; Reset starts anew.
var ErrDisjoint = errors.New("clock: intervals of time without a common point")

// Interval is a span of time that contains the true one, both ends included.
type Interval struct {
	Earliest, Latest time.Time
}

// Contains reports whether t lies within i.
func (i Interval) Contains(t time.Time) bool { return !t.Before(i.Earliest) && !t.After(i.Latest) }

// Width returns how long i is.
func (i Interval) Width() time.Duration { return i.Latest.Sub(i.Earliest) }

// Mid returns the time in the middle, which is off by at most half the width.
func (i Interval) Mid() time.Time { return i.Earliest.Add(i.Width() / 2) }

// Intersect returns the times that i and o share, and whether there are any.
func (i Interval) Intersect(o Interval) (Interval, bool) {
	if o.Earliest.After(i.Earliest) {
		i.Earliest = o.Earliest
	}
	if o.Latest.Before(i.Latest) {
		i.Latest = o.Latest
	}
	return i, !i.Latest.Before(i.Earliest)
}

// Compare tells whether the events that i and o are the times of can be told apart: Before or After if one interval
// ends before the other begins, Equal for equal ones, else Concurrent.
func (i Interval) Compare(o Interval) Ordering {
	switch {
	case i.Latest.Before(o.Earliest):
		return Before
	case o.Latest.Before(i.Earliest):
		return After
	case i.Earliest.Equal(o.Earliest) && i.Latest.Equal(o.Latest):
		return Equal
	}
	return Concurrent
}

// String returns "time ± error".
func (i Interval) String() string {
	return fmt.Sprintf("%s ± %v", i.Mid().UTC().Format(time.RFC3339Nano), i.Width()/2)
}

// IntervalConfig configures an IntervalClock; the zero value is a clock on time.Now with the default drift.
type IntervalConfig struct {
	// Now is the local clock, of which only differences count; default time.Now. It must run on between
	// synchronizations and never be set: time.Now's monotonic reading never is.
	Now func() time.Time
	// Drift is by what part the local clock may be too fast or too slow, below 0.1; default 200e-6.
	Drift float64
}

// IntervalClock tells time as an interval that contains the true time: the shape of TrueTime (Corbett et al.,
// "Spanner: Google's Globally-Distributed Database", 2012, §3), without its hardware. Each Sync says where true time
// lay at a reading of the local clock; from then on the interval widens by Drift.
//
// Guarantee: every Interval contains the true time, so that After and Before are never wrong, as long as each interval
// given to Sync contained it and the local clock's rate was off by at most Drift. What breaks it: a source that lies
// and is not outvoted, a network delay that is counted as less than it was, a machine whose oscillator is off by more,
// and one that was suspended, since the monotonic clock of Linux stands still meanwhile. After a resume call Reset.
//
// Before the first Sync nothing is known: After and Before are false for any time but the extreme, and CommitWait
// waits for a Sync.
//
// An IntervalClock is safe for concurrent use.
type IntervalClock struct {
	now    func() time.Time
	margin float64 // how much true time may differ from a local second: Drift/(1-Drift)

	known atomic.Pointer[known]

	mu      sync.Mutex    // serializes changes of known and guards what follows
	changed chan struct{} // closed at the next change
	metrics IntervalMetrics
}

// known says that at a local reading the true time was in an interval.
type known struct {
	at    time.Time
	truth Interval
}

// IntervalMetrics counts an IntervalClock's synchronizations.
type IntervalMetrics struct {
	Syncs    uint64 // taken over
	Disjoint uint64 // refused
}

// NewIntervalClock returns a clock that is not synchronized yet. Errors name the field.
func NewIntervalClock(cfg IntervalConfig) (*IntervalClock, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Drift == 0 {
		cfg.Drift = DefaultDrift
	}
	if !(cfg.Drift > 0 && cfg.Drift < 0.1) { // also refuses what is not a number
		return nil, fmt.Errorf("clock: IntervalConfig: Drift %v is not within 0 and 0.1", cfg.Drift)
	}
	return &IntervalClock{now: cfg.Now, margin: cfg.Drift / (1 - cfg.Drift), changed: make(chan struct{})}, nil
}

// unknown is the Interval that contains any time.
func unknown() Interval {
	return Interval{Latest: time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC)}
}

// Now returns an interval that contains the true time.
func (c *IntervalClock) Now() Interval {
	k := c.known.Load()
	if k == nil {
		return unknown()
	}
	return c.project(k, c.now())
}

// After reports whether t has surely passed.
func (c *IntervalClock) After(t time.Time) bool { return c.Now().Earliest.After(t) }

// Before reports whether t has surely not come yet.
func (c *IntervalClock) Before(t time.Time) bool { return c.Now().Latest.Before(t) }

// Time returns the middle of the present interval, or the local clock's time before the first Sync. It serves as
// HLCConfig.Now, which makes an HLC as exact as the synchronization is.
func (c *IntervalClock) Time() time.Time {
	if k := c.known.Load(); k != nil {
		return c.project(k, c.now()).Mid()
	}
	return c.now()
}

// CommitWait waits until t has surely passed. A transaction that takes Now().Latest as its timestamp and waits for it
// before it answers is ordered before every transaction that anyone begins thereafter (Spanner, §4.1.2, Commit Wait);
// the wait is about the width of the interval. It returns the context's error if that is done first. It waits by
// timers of package time, whose pace Config.Now must share.
func (c *IntervalClock) CommitWait(ctx context.Context, t time.Time) error {
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		left := t.Sub(c.Now().Earliest)
		if left < 0 {
			return nil
		}
		// Earliest moves slower than the local clock. A long wait is cut, so that no factor overflows it.
		left = min(left, time.Hour)
		timer := time.NewTimer(left + c.widening(left) + 1)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-changed:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// Sync tells the clock that when the local clock read at, the true time was within truth. The clock takes over what
// the two intervals share, so that a less exact source never makes it worse. An interval that ends before it begins
// is an error, one that shares no time with what is known gives ErrDisjoint; the clock is then as it was.
func (c *IntervalClock) Sync(at time.Time, truth Interval) error {
	// Without monotonic readings: those of another clock would be compared instead of its times.
	truth = Interval{truth.Earliest.Round(0), truth.Latest.Round(0)}
	if truth.Latest.Before(truth.Earliest) {
		return fmt.Errorf("clock: sync: interval ends %v before it begins", -truth.Width())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.known.Load(); k != nil {
		have := c.project(k, at)
		both, ok := have.Intersect(truth)
		if !ok {
			c.metrics.Disjoint++
			return fmt.Errorf("clock: sync to %v, expected %v: %w", truth, have, ErrDisjoint)
		}
		truth = both
	}
	c.metrics.Syncs++
	c.set(&known{at, truth})
	return nil
}

// Reset forgets all synchronizations.
func (c *IntervalClock) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(nil)
}

// Metrics returns the counts so far.
func (c *IntervalClock) Metrics() IntervalMetrics {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.metrics
}

// set changes what is known and wakes those who wait. The caller holds mu.
func (c *IntervalClock) set(k *known) {
	c.known.Store(k)
	close(c.changed)
	c.changed = make(chan struct{})
}

// project returns the interval of true time at a local reading.
func (c *IntervalClock) project(k *known, at time.Time) Interval {
	elapsed := at.Sub(k.at)
	margin := c.widening(elapsed)
	return Interval{k.truth.Earliest.Add(elapsed - margin), k.truth.Latest.Add(elapsed + margin)}
}

// widening returns by how much true time may differ from a time measured by the local clock, rounded up.
func (c *IntervalClock) widening(measured time.Duration) time.Duration {
	return time.Duration(math.Ceil(math.Abs(float64(measured)) * c.margin))
}
