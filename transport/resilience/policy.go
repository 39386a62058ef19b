package resilience

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/coterie-go/coterie"
)

// RetryConfig configures a Retry. The zero value is ready to use.
type RetryConfig struct {
	MaxTries   int              // the first included; default 3
	MinBackoff time.Duration    // the first pause, doubling; default 10 ms
	MaxBackoff time.Duration    // the longest; each is shortened at random by up to a half; default 1 s, or MinBackoff
	Budget     float64          // retries for each call, on average, over 0 to 10; 10 are free at first; default 0.2
	If         func(error) bool // whether to try again; default: for coterie.ErrOverloaded, which means nothing was done
}

// Retry tries again what failed, within a budget: when everything fails, it adds Budget times the load and no more.
type Retry struct {
	cfg RetryConfig

	mu     sync.Mutex // guards tokens
	tokens float64
}

const maxTokens = 100

// NewRetry makes a Retry.
func NewRetry(cfg RetryConfig) (*Retry, error) {
	cfg.MaxTries = cmp.Or(cfg.MaxTries, 3)
	cfg.MinBackoff = cmp.Or(cfg.MinBackoff, 10*time.Millisecond)
	cfg.MaxBackoff = cmp.Or(cfg.MaxBackoff, max(time.Second, cfg.MinBackoff))
	cfg.Budget = cmp.Or(cfg.Budget, 0.2)
	if cfg.If == nil {
		cfg.If = func(err error) bool { return errors.Is(err, coterie.ErrOverloaded) }
	}
	err := validate("RetryConfig", []field{
		{"MaxTries", float64(cfg.MaxTries), 1, 1e9}, {"MinBackoff", float64(cfg.MinBackoff), 0, math.MaxInt64 / 4},
		{"MaxBackoff", float64(cfg.MaxBackoff), float64(cfg.MinBackoff), math.MaxInt64 / 4},
		{"Budget", cfg.Budget, math.SmallestNonzeroFloat64, 10},
	})
	if err != nil {
		return nil, err
	}
	return &Retry{cfg: cfg, tokens: 10}, nil
}

// Do calls fn until it succeeds, fails for good, or tries, budget or ctx are used up; then it returns the last error.
func (r *Retry) Do(ctx context.Context, fn func(context.Context) error) error {
	r.earn()
	err := fn(ctx)
	for tries, pause := 1, r.cfg.MinBackoff; err != nil && tries < r.cfg.MaxTries; tries++ {
		if !r.cfg.If(err) || ctx.Err() != nil || !r.spend() {
			return err
		}
		if ended := sleep(ctx, pause-rand.N(pause/2+1)); ended != nil {
			return fmt.Errorf("%w, after: %w", ended, err)
		}
		pause = min(2*pause, r.cfg.MaxBackoff)
		err = fn(ctx)
	}
	return err
}

func (r *Retry) earn() {
	r.mu.Lock()
	r.tokens = min(r.tokens+r.cfg.Budget, maxTokens)
	r.mu.Unlock()
}

func (r *Retry) spend() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tokens < 1 {
		return false
	}
	r.tokens--
	return true
}

// Policy puts what is set of it around a function: Limiter, then Bulkhead, then Retry, and around each try
// Concurrency, Breaker and Timeout. The zero value adds nothing. It may be copied, and shares what its fields point to.
type Policy struct {
	Limiter     Limiter
	Bulkhead    *Bulkhead
	Retry       *Retry
	Concurrency *Concurrency
	Breaker     *Breaker
	Timeout     time.Duration
}

// Do calls fn by the policy, and returns its error, or why it was not called: ErrLimited, ErrFull, ErrOpen, or that of
// ctx. It allocates nothing if fn succeeds at once and there is no Timeout.
func (p *Policy) Do(ctx context.Context, fn func(context.Context) error) error {
	if p.Limiter != nil && !p.Limiter.Allow() {
		return ErrLimited
	}
	if p.Bulkhead != nil {
		if err := p.Bulkhead.Acquire(ctx); err != nil {
			return err
		}
		defer p.Bulkhead.Release()
	}
	err := p.try(ctx, fn)
	if p.Retry == nil {
		return err
	}
	if err == nil {
		p.Retry.earn()
		return nil
	}
	// The first try is made. A closure for every call would cost an allocation where nothing fails.
	return p.Retry.after(ctx, err, func(ctx context.Context) error { return p.try(ctx, fn) })
}

// after is Do when the first call has failed.
func (r *Retry) after(ctx context.Context, first error, fn func(context.Context) error) error {
	made := false
	return r.Do(ctx, func(ctx context.Context) error {
		if !made {
			made = true
			return first
		}
		return fn(ctx)
	})
}

// try makes one try. What was taken is given back if fn panics, too.
func (p *Policy) try(ctx context.Context, fn func(context.Context) error) (err error) {
	panicked := true
	var slot Slot
	if p.Concurrency != nil {
		if slot, err = p.Concurrency.Acquire(); err != nil {
			return err
		}
	}
	var pass Pass
	if p.Breaker != nil {
		if pass, err = p.Breaker.Allow(); err != nil {
			if p.Concurrency != nil {
				slot.Release(context.Canceled) // which tells nothing of the peer
			}
			return err
		}
	}
	defer func() {
		result := err
		if panicked {
			result = errPanicked
		}
		if p.Breaker != nil {
			pass.Done(result)
		}
		if p.Concurrency != nil {
			slot.Release(result)
		}
	}()
	if p.Timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, p.Timeout)
		defer cancel()
		ctx = limited
	}
	err = fn(ctx)
	panicked = false
	return err
}

var errPanicked = errors.New("resilience: the function panicked")

// Get is Policy.Do of a function that returns a value.
func Get[T any](ctx context.Context, p *Policy, fn func(context.Context) (T, error)) (value T, err error) {
	err = p.Do(ctx, func(ctx context.Context) (err error) {
		value, err = fn(ctx)
		return err
	})
	return value, err
}

// Timeout calls fn with a context that ends after d, and returns what it returns: fn must heed its context.
func Timeout[T any](ctx context.Context, d time.Duration, fn func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return fn(ctx)
}

// Fallback calls fn, and if that fails returns what instead makes of the error: an older value, a default, another
// source.
func Fallback[T any](ctx context.Context, fn func(context.Context) (T, error), instead func(context.Context, error) (T, error)) (T, error) {
	value, err := fn(ctx)
	if err != nil {
		return instead(ctx, err)
	}
	return value, nil
}
