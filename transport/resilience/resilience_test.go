package resilience

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
)

// virtual is a clock that a test moves.
type virtual struct{ at time.Time }

func newVirtual() *virtual              { return &virtual{time.Unix(1000, 0)} }
func (v *virtual) now() time.Time       { return v.at }
func (v *virtual) pass(d time.Duration) { v.at = v.at.Add(d) }

func drawPause(t *rapid.T) time.Duration {
	return time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "pause"))
}

// In any span of time a bucket allows Burst + Rate*t, and refuses nobody while it must hold a token.
func TestTokenBucketAgreesWithABucket(t *testing.T) {
	testsize.Checks(t, 200, 20_000)
	rapid.Check(t, func(t *rapid.T) {
		clock := newVirtual()
		rate := rapid.Float64Range(0.1, 1000).Draw(t, "rate")
		burst := rapid.IntRange(1, 20).Draw(t, "burst")
		b, err := NewTokenBucket(TokenBucketConfig{Rate: rate, Burst: burst, Now: clock.now})
		require.NoError(t, err)
		tokens := float64(burst) // the slow definition
		type taken struct {
			at time.Time
			n  int
		}
		var all []taken
		for range 60 {
			d := drawPause(t)
			clock.pass(d)
			tokens = min(tokens+rate*d.Seconds(), float64(burst))
			n := rapid.IntRange(1, 5).Draw(t, "n")
			allowed := b.AllowN(n)
			const slack = 1e-3 // a nanosecond is rounded away for each token
			if allowed {
				require.GreaterOrEqual(t, tokens, float64(n)-slack)
				tokens -= float64(n)
				all = append(all, taken{clock.at, n})
			} else {
				require.LessOrEqual(t, tokens, float64(n)+slack)
			}
		}
		for i := range all {
			sum := 0
			for _, each := range all[i:] {
				sum += each.n
				span := each.at.Sub(all[i].at).Seconds()
				require.LessOrEqual(t, float64(sum), float64(burst)+rate*span+1e-3)
			}
		}
	})
}

func TestTokenBucketAtItsLimits(t *testing.T) {
	b, err := NewTokenBucket(TokenBucketConfig{Rate: 1, Burst: 3})
	require.NoError(t, err)
	require.False(t, b.AllowN(4), "more than the bucket holds")
	require.False(t, b.AllowN(-1))
	require.True(t, b.AllowN(0))
	require.True(t, b.AllowN(3))
	require.False(t, b.Allow())
	var n atomic.Int64
	b, err = NewTokenBucket(TokenBucketConfig{Rate: 1e-6, Burst: 100})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				if b.Allow() {
					n.Add(1)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, int64(100), n.Load())
}

func TestTokenBucketWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := NewTokenBucket(TokenBucketConfig{Rate: 10})
		require.NoError(t, err)
		begin := time.Now()
		for range 21 {
			require.NoError(t, b.Wait(t.Context()))
		}
		require.Equal(t, 2*time.Second, time.Since(begin))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, b.Wait(ctx), ErrLimited, "it cannot be in time, and is not waited for")
		require.Equal(t, 2*time.Second, time.Since(begin))
		require.NoError(t, b.Wait(t.Context()), "nor was a token spent")
		require.Equal(t, 2100*time.Millisecond, time.Since(begin))
		ctx, cancel = context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, b.Wait(ctx), context.Canceled)
	})
}

// In any span of length Window there are at most Limit, and one is refused only if there are so many.
func TestSlidingWindowAgreesWithCounting(t *testing.T) {
	testsize.Checks(t, 200, 20_000)
	rapid.Check(t, func(t *rapid.T) {
		clock := newVirtual()
		limit := rapid.IntRange(1, 10).Draw(t, "limit")
		const span = 5 * time.Second
		w, err := NewSlidingWindow(SlidingWindowConfig{Limit: limit, Window: span, Now: clock.now})
		require.NoError(t, err)
		var times []time.Time
		for range 60 {
			clock.pass(drawPause(t))
			within := 0
			for _, at := range times {
				if clock.at.Sub(at) < span {
					within++
				}
			}
			require.Equal(t, within < limit, w.Allow())
			if within < limit {
				times = append(times, clock.at)
			}
		}
	})
}

func TestPerKey(t *testing.T) {
	made := 0
	p, err := NewPerKey(PerKeyConfig[string, *TokenBucket]{MaxKeys: 2, New: func(string) *TokenBucket {
		made++
		b, err := NewTokenBucket(TokenBucketConfig{Rate: 1e-6})
		require.NoError(t, err)
		return b
	}})
	require.NoError(t, err)
	require.True(t, p.Get("a").Allow())
	require.False(t, p.Get("a").Allow())
	require.True(t, p.Get("b").Allow())
	require.False(t, p.Get("a").Allow())
	require.True(t, p.Get("c").Allow()) // b is longest unused
	require.False(t, p.Get("a").Allow())
	require.True(t, p.Get("b").Allow(), "it was forgotten")
	require.Equal(t, 2, p.Len())
	require.Equal(t, 4, made)
	_, err = NewPerKey(PerKeyConfig[string, int]{})
	require.ErrorContains(t, err, "New")
	_, err = NewPerKey(PerKeyConfig[string, int]{New: func(string) int { return 0 }, MaxKeys: -1})
	require.ErrorContains(t, err, "MaxKeys")
}

var errFailed = errors.New("failed")

// The breaker against the slow definition: all outcomes since it closed, with their times.
func TestBreakerAgreesWithCounting(t *testing.T) {
	testsize.Checks(t, 300, 20_000)
	rapid.Check(t, func(t *rapid.T) {
		clock := newVirtual()
		cfg := BreakerConfig{
			Window: 10 * time.Second, MinCalls: rapid.IntRange(1, 5).Draw(t, "min"), FailureRate: rapid.Float64Range(0.1, 1).Draw(t, "rate"),
			OpenFor: 4 * time.Second, Probes: rapid.IntRange(1, 3).Draw(t, "probes"), Now: clock.now,
		}
		b, err := NewBreaker(cfg)
		require.NoError(t, err)
		type outcome struct {
			slice  int64
			failed bool
		}
		var (
			outcomes []outcome
			base     = clock.at
			state    = Closed
			since    time.Time
			passed   int
			good     int
			open     []Pass // under way, of this state
			stale    []Pass // of earlier states
		)
		become := func(s State) {
			state, since, passed, good, outcomes = s, clock.at, 0, 0, nil
			stale = append(stale, open...)
			open = nil
		}
		t.Repeat(map[string]func(*rapid.T){
			"pass": func(t *rapid.T) { clock.pass(drawPause(t)) },
			"allow": func(t *rapid.T) {
				late := clock.at.Sub(since) >= cfg.OpenFor
				want := true
				switch {
				case state == Open && late, state == HalfOpen && passed >= cfg.Probes && late:
					become(HalfOpen)
				case state == Open, state == HalfOpen && passed >= cfg.Probes:
					want = false
				}
				pass, err := b.Allow()
				require.Equal(t, want, err == nil)
				if err != nil {
					require.ErrorIs(t, err, ErrOpen)
					require.ErrorIs(t, err, coterie.ErrOverloaded)
					return
				}
				if state == HalfOpen {
					passed++
					since = clock.at
				}
				open = append(open, pass)
			},
			"done": func(t *rapid.T) {
				if len(open) == 0 {
					t.Skip("none is under way")
				}
				failed := rapid.Bool().Draw(t, "failed")
				pass := open[0]
				open = open[1:]
				if failed {
					pass.Done(errFailed)
				} else {
					pass.Done(nil)
				}
				switch {
				case state == HalfOpen && failed:
					become(Open)
				case state == HalfOpen:
					if good++; good == cfg.Probes {
						become(Closed)
					}
				default:
					now := int64(clock.at.Sub(base) / (cfg.Window / slices))
					outcomes = append(outcomes, outcome{now, failed})
					calls, failures := 0, 0
					for _, o := range outcomes {
						if now-o.slice < slices {
							calls++
							if o.failed {
								failures++
							}
						}
					}
					if failed && calls >= cfg.MinCalls && float64(failures) >= cfg.FailureRate*float64(calls) {
						become(Open)
					}
				}
			},
			"late": func(t *rapid.T) {
				if len(stale) == 0 {
					t.Skip("none is late")
				}
				stale[0].Done(errFailed) // changes nothing
				stale = stale[1:]
			},
			"": func(t *rapid.T) { require.Equal(t, state, b.State()) },
		})
	})
}

func TestBreakerIgnoresCallersThatGiveUp(t *testing.T) {
	b, err := NewBreaker(BreakerConfig{MinCalls: 1})
	require.NoError(t, err)
	pass, err := b.Allow()
	require.NoError(t, err)
	pass.Done(fmt.Errorf("wrapped: %w", context.Canceled))
	require.Equal(t, Closed, b.State())
	pass.Done(errFailed)
	pass.Done(errFailed)
	require.Equal(t, Open, b.State())
	require.Equal(t, "open closed half-open state(7)", fmt.Sprint(Open, Closed, HalfOpen, State(7)))
}

func TestConcurrencyStaysWithinItsBounds(t *testing.T) {
	testsize.Checks(t, 200, 20_000)
	rapid.Check(t, func(t *rapid.T) {
		clock := newVirtual()
		cfg := ConcurrencyConfig{Min: 2, Max: 12, Initial: 5, Memory: 10 * time.Second, Now: clock.now}
		c, err := NewConcurrency(cfg)
		require.NoError(t, err)
		var slots []Slot
		t.Repeat(map[string]func(*rapid.T){
			"pass": func(t *rapid.T) { clock.pass(drawPause(t)) },
			"acquire": func(t *rapid.T) {
				slot, err := c.Acquire()
				require.Equal(t, len(slots) < c.Limit(), err == nil)
				if err == nil {
					slots = append(slots, slot)
				}
			},
			"release": func(t *rapid.T) {
				if len(slots) == 0 {
					t.Skip("none is taken")
				}
				before := c.limit
				err := rapid.SampledFrom([]error{nil, nil, errFailed, coterie.ErrOverloaded}).Draw(t, "err")
				slots[0].Release(err)
				slots = slots[1:]
				if errors.Is(err, errFailed) {
					require.Equal(t, before, c.limit, "tells nothing of the capacity")
				}
				require.LessOrEqual(t, c.limit, before+1)
			},
			"": func(t *rapid.T) {
				require.GreaterOrEqual(t, c.Limit(), cfg.Min)
				require.LessOrEqual(t, c.Limit(), cfg.Max)
				require.Equal(t, len(slots), c.inflight)
			},
		})
	})
}

// A peer that can do 10 at a time, and lets others wait, is found out.
func TestConcurrencyFindsTheCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const capacity = 10
		c, err := NewConcurrency(ConcurrencyConfig{Initial: 200, Memory: time.Hour})
		require.NoError(t, err)
		peer := make(chan struct{}, capacity)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		for range 300 {
			wg.Go(func() {
				for ctx.Err() == nil {
					slot, err := c.Acquire()
					if err != nil {
						time.Sleep(10 * time.Millisecond)
						continue
					}
					peer <- struct{}{}
					time.Sleep(10 * time.Millisecond)
					<-peer
					slot.Release(nil)
				}
			})
		}
		wg.Wait()
		require.GreaterOrEqual(t, c.Limit(), capacity)
		require.LessOrEqual(t, c.Limit(), 3*capacity)
	})
}

func TestBulkhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := NewBulkhead(BulkheadConfig{Max: 2, Queue: 1})
		require.NoError(t, err)
		require.NoError(t, b.Acquire(t.Context()))
		require.NoError(t, b.Acquire(t.Context()))
		queued := make(chan error, 1)
		go func() { queued <- b.Acquire(t.Context()) }()
		synctest.Wait()
		require.ErrorIs(t, b.Acquire(t.Context()), ErrFull)
		b.Release()
		require.NoError(t, <-queued)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, b.Acquire(ctx), context.DeadlineExceeded)
		b.Release()
		b.Release()
		require.Panics(t, b.Release)
		require.NoError(t, b.Acquire(t.Context()))
	})
}

// Whoever is admitted, one of higher priority would be; and there are never more than Capacity.
func TestShedderPrefersTheImportant(t *testing.T) {
	testsize.Checks(t, 200, 20_000)
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.IntRange(1, 20).Draw(t, "capacity")
		s, err := NewShedder(ShedderConfig{Capacity: capacity})
		require.NoError(t, err)
		n := 0
		t.Repeat(map[string]func(*rapid.T){
			"admit": func(t *rapid.T) {
				p := Priority(rapid.IntRange(0, 5).Draw(t, "priority"))
				if s.Admit(p) != nil {
					require.Error(t, s.Admit(p+1))
					return
				}
				n++
				for higher := range p {
					s.Done() // in its place
					require.NoError(t, s.Admit(higher))
				}
			},
			"done": func(t *rapid.T) {
				if n == 0 {
					t.Skip("none is under way")
				}
				s.Done()
				n--
			},
			"": func(t *rapid.T) {
				require.LessOrEqual(t, n, capacity)
				require.Equal(t, n < capacity, s.Admit(Critical) == nil)
				if n < capacity {
					s.Done()
				}
			},
		})
	})
	s, err := NewShedder(ShedderConfig{Capacity: 10})
	require.NoError(t, err)
	require.Panics(t, s.Done)
	require.Equal(t, "critical normal sheddable background priority(9)", fmt.Sprint(Critical, Normal, Sheddable, Background, Priority(9)))
}

func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := NewRetry(RetryConfig{MaxTries: 4, MinBackoff: time.Second, MaxBackoff: 2 * time.Second})
		require.NoError(t, err)
		tries := 0
		begin := time.Now()
		require.NoError(t, r.Do(t.Context(), func(context.Context) error {
			if tries++; tries < 4 {
				return coterie.ErrOverloaded
			}
			return nil
		}))
		require.Equal(t, 4, tries)
		require.GreaterOrEqual(t, time.Since(begin), 2500*time.Millisecond)
		require.LessOrEqual(t, time.Since(begin), 5*time.Second)
		tries = 0
		require.ErrorIs(t, r.Do(t.Context(), func(context.Context) error {
			tries++
			return errFailed
		}), errFailed)
		require.Equal(t, 1, tries, "who knows whether it was done")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		err = r.Do(ctx, func(context.Context) error { return coterie.ErrOverloaded })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, coterie.ErrOverloaded)
	})
}

// When all fail, a fifth of the load is added, and no more.
func TestRetryKeepsItsBudget(t *testing.T) {
	r, err := NewRetry(RetryConfig{MaxTries: 10, MinBackoff: time.Nanosecond, MaxBackoff: time.Nanosecond})
	require.NoError(t, err)
	tries := 0
	for range 1000 {
		require.Error(t, r.Do(t.Context(), func(context.Context) error {
			tries++
			return coterie.ErrOverloaded
		}))
	}
	require.InDelta(t, 1000+10+200, tries, 2)
}

func TestPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiter, err1 := NewTokenBucket(TokenBucketConfig{Rate: 1e-6, Burst: 100})
		bulkhead, err2 := NewBulkhead(BulkheadConfig{Max: 1})
		retry, err3 := NewRetry(RetryConfig{If: func(err error) bool { return errors.Is(err, errFailed) }})
		concurrency, err4 := NewConcurrency(ConcurrencyConfig{})
		breaker, err5 := NewBreaker(BreakerConfig{MinCalls: 10})
		require.NoError(t, errors.Join(err1, err2, err3, err4, err5))
		p := &Policy{Limiter: limiter, Bulkhead: bulkhead, Retry: retry, Concurrency: concurrency, Breaker: breaker, Timeout: time.Second}
		got, err := Get(t.Context(), p, func(context.Context) (int, error) { return 7, nil })
		require.NoError(t, err)
		require.Equal(t, 7, got)
		tries := 0
		require.ErrorIs(t, p.Do(t.Context(), func(context.Context) error {
			tries++
			require.ErrorIs(t, p.Do(t.Context(), nil), ErrFull)
			return errFailed
		}), errFailed)
		require.Equal(t, 3, tries)
		require.ErrorIs(t, p.Do(t.Context(), func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}), context.DeadlineExceeded)
		require.Panics(t, func() { _ = p.Do(t.Context(), func(context.Context) error { panic("bug") }) })
		require.Zero(t, concurrency.inflight, "what panics gives its slot back")
		require.NoError(t, bulkhead.Acquire(t.Context()))
		bulkhead.Release()
		for range 20 {
			_ = p.Do(t.Context(), func(context.Context) error { return errFailed })
		}
		require.Equal(t, Open, breaker.State())
		require.ErrorIs(t, p.Do(t.Context(), nil), ErrOpen)
		require.Zero(t, concurrency.inflight)
		for limiter.Allow() {
			continue
		}
		require.ErrorIs(t, p.Do(t.Context(), nil), ErrLimited)
		require.NoError(t, (&Policy{}).Do(t.Context(), func(context.Context) error { return nil }))
	})
}

func TestSuccessAllocatesNothing(t *testing.T) {
	limiter, err1 := NewTokenBucket(TokenBucketConfig{Rate: 1e7, Burst: 1e6})
	sliding, err2 := NewSlidingWindow(SlidingWindowConfig{Limit: 1e6, Window: time.Nanosecond})
	bulkhead, err3 := NewBulkhead(BulkheadConfig{Max: 1})
	retry, err4 := NewRetry(RetryConfig{})
	concurrency, err5 := NewConcurrency(ConcurrencyConfig{})
	breaker, err6 := NewBreaker(BreakerConfig{})
	shedder, err7 := NewShedder(ShedderConfig{Capacity: 1})
	perKey, err8 := NewPerKey(PerKeyConfig[string, *Breaker]{New: func(string) *Breaker { return breaker }})
	require.NoError(t, errors.Join(err1, err2, err3, err4, err5, err6, err7, err8))
	p := &Policy{Limiter: limiter, Bulkhead: bulkhead, Retry: retry, Concurrency: concurrency, Breaker: breaker}
	ctx := t.Context()
	work := func(context.Context) error { return nil }
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		assert.NoError(t, p.Do(ctx, work))
		assert.True(t, sliding.Allow())
		assert.NoError(t, shedder.Admit(Normal))
		shedder.Done()
		_ = perKey.Get("a")
	}))
}

func TestTimeoutAndFallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		_, err := Timeout(t.Context(), time.Second, slow)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		got, err := Fallback(t.Context(), func(ctx context.Context) (int, error) { return Timeout(ctx, time.Second, slow) },
			func(_ context.Context, err error) (int, error) {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				return 42, nil
			})
		require.NoError(t, err)
		require.Equal(t, 42, got)
	})
}

func TestConfigsAreChecked(t *testing.T) {
	nan := 0.0
	nan /= nan
	for field, err := range map[string]error{
		"Rate":        second(NewTokenBucket(TokenBucketConfig{})),
		"Rate is NaN": second(NewTokenBucket(TokenBucketConfig{Rate: nan})),
		"Burst":       second(NewTokenBucket(TokenBucketConfig{Rate: 1, Burst: -1})),
		"Burst is":    second(NewTokenBucket(TokenBucketConfig{Rate: 1e-6, Burst: 1e9})),
		"Limit":       second(NewSlidingWindow(SlidingWindowConfig{Window: 1})),
		"Window":      second(NewSlidingWindow(SlidingWindowConfig{Limit: 1})),
		"FailureRate": second(NewBreaker(BreakerConfig{FailureRate: 2})),
		"Probes":      second(NewBreaker(BreakerConfig{Probes: -1})),
		"Initial":     second(NewConcurrency(ConcurrencyConfig{Initial: 5, Max: 4})),
		"Tolerance":   second(NewConcurrency(ConcurrencyConfig{Tolerance: 0.5})),
		"Max":         second(NewBulkhead(BulkheadConfig{})),
		"Queue":       second(NewBulkhead(BulkheadConfig{Max: 1, Queue: -1})),
		"Capacity":    second(NewShedder(ShedderConfig{})),
		"Shares[2]":   second(NewShedder(ShedderConfig{Capacity: 1, Shares: [4]float64{1, 0.5, 0.6, 0}})),
		"MaxTries":    second(NewRetry(RetryConfig{MaxTries: -1})),
		"MaxBackoff":  second(NewRetry(RetryConfig{MinBackoff: 2, MaxBackoff: 1})),
	} {
		require.ErrorContains(t, err, "."+field)
	}
}

func second[T any](_ T, err error) error { return err }
