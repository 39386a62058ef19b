package resilience

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Limiter is what limits a rate: a TokenBucket or a SlidingWindow.
type Limiter interface {
	// Allow reports whether one more may happen now, and counts it if so.
	Allow() bool
}

// TokenBucketConfig configures a TokenBucket.
type TokenBucketConfig struct {
	Rate  float64          // required: tokens per second, at most 10 million
	Burst int              // tokens that may be taken at once; default 1
	Now   func() time.Time // default time.Now
}

// TokenBucket allows Rate per second on average, and Burst at once after a pause: in any span of time t at most
// Burst + Rate*t. It is one atomic word, the time at which the bucket will be full (GCRA, ITU-T I.371, Annex A).
type TokenBucket struct {
	clock    stopwatch
	interval int64 // nanoseconds that a token takes
	burst    int64

	full atomic.Int64 // when the bucket will be full again, in nanoseconds since clock.base
}

const maxRate = 1e7 // so that interval, which is rounded up, is right within a hundredth

// NewTokenBucket makes a TokenBucket, which is full.
func NewTokenBucket(cfg TokenBucketConfig) (*TokenBucket, error) {
	cfg.Burst = cmp.Or(cfg.Burst, 1)
	err := validate("TokenBucketConfig", []field{{"Rate", cfg.Rate, 1e-6, maxRate}, {"Burst", float64(cfg.Burst), 1, 1e9}})
	if err != nil {
		return nil, err
	}
	interval := int64(math.Ceil(1e9 / cfg.Rate))
	if float64(interval)*float64(cfg.Burst) > math.MaxInt64/4 {
		return nil, fmt.Errorf("resilience: TokenBucketConfig.Burst is %d, more than fills in 70 years", cfg.Burst)
	}
	return &TokenBucket{clock: newStopwatch(cfg.Now), interval: interval, burst: int64(cfg.Burst)}, nil
}

// Allow takes a token if there is one.
func (b *TokenBucket) Allow() bool { return b.AllowN(1) }

// AllowN takes n tokens if there are so many, else none. None may be taken, and more than Burst never.
func (b *TokenBucket) AllowN(n int) bool {
	return b.take(int64(n), int64(b.clock.elapsed()), 0) >= 0
}

// take takes n tokens and returns how long to wait until they are there, or -1 if that is longer than patience.
func (b *TokenBucket) take(n, now, patience int64) (wait int64) {
	if n <= 0 || n > b.burst {
		if n == 0 {
			return 0
		}
		return -1
	}
	for {
		old := b.full.Load()
		full := max(old, now) + n*b.interval
		wait := full - now - b.burst*b.interval
		if wait > patience {
			return -1
		}
		if b.full.CompareAndSwap(old, full) {
			return max(wait, 0)
		}
	}
}

// Wait takes a token, and waits until it is there. If that is later than the deadline of ctx it returns ErrLimited at
// once and takes none. If ctx ends meanwhile it returns ctx.Err(), and the token is spent.
func (b *TokenBucket) Wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	patience := int64(math.MaxInt64)
	if deadline, ok := ctx.Deadline(); ok {
		patience = int64(max(time.Until(deadline), 0))
	}
	wait := b.take(1, int64(b.clock.elapsed()), patience)
	switch {
	case wait < 0:
		return ErrLimited
	case wait == 0:
		return nil
	}
	return sleep(ctx, time.Duration(wait))
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// SlidingWindowConfig configures a SlidingWindow.
type SlidingWindowConfig struct {
	Limit  int              // required: how many in a window, at most 1 million; each takes 8 bytes
	Window time.Duration    // required
	Now    func() time.Time // default time.Now
}

// SlidingWindow allows at most Limit in any span of time of length Window, exactly: it remembers when each was. A
// TokenBucket allows up to twice as many in some spans, and takes no memory.
type SlidingWindow struct {
	clock  stopwatch
	window time.Duration

	mu    sync.Mutex      // guards what follows
	times []time.Duration // a ring of the last Limit that were allowed
	next  int             // the oldest
	count int             // how many there are
}

// NewSlidingWindow makes a SlidingWindow, which is empty.
func NewSlidingWindow(cfg SlidingWindowConfig) (*SlidingWindow, error) {
	err := validate("SlidingWindowConfig", []field{
		{"Limit", float64(cfg.Limit), 1, 1e6}, {"Window", float64(cfg.Window), 1, math.MaxInt64 / 4},
	})
	if err != nil {
		return nil, err
	}
	return &SlidingWindow{clock: newStopwatch(cfg.Now), window: cfg.Window, times: make([]time.Duration, cfg.Limit)}, nil
}

// Allow counts one more, unless there have been Limit within the last Window.
func (w *SlidingWindow) Allow() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.clock.elapsed()
	if w.count == len(w.times) && now-w.times[w.next] < w.window {
		return false
	}
	w.times[w.next] = now
	w.next = (w.next + 1) % len(w.times)
	w.count = min(w.count+1, len(w.times))
	return true
}
