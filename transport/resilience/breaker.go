package resilience

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// State is that of a Breaker.
type State uint32

// The states of a Breaker.
const (
	Closed   State = iota // calls go through, and their failures are counted
	Open                  // calls are refused
	HalfOpen              // a few calls go through, to see whether the peer has recovered
)

// String returns "closed", "open" or "half-open".
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Open:
		return "open"
	case HalfOpen:
		return "half-open"
	}
	return fmt.Sprintf("state(%d)", uint32(s))
}

// BreakerConfig configures a Breaker. The zero value is ready to use.
type BreakerConfig struct {
	Window      time.Duration    // over which failures are counted, in steps of a tenth; default 10 s
	MinCalls    int              // within Window, below which it stays closed; default 20
	FailureRate float64          // of the calls within Window, from which on it opens, over 0 to 1; default 0.5
	OpenFor     time.Duration    // before it is half-open; default 5 s
	Probes      int              // calls let through when half-open, all of which must succeed; default 1
	IsFailure   func(error) bool // default: any error but context.Canceled, with which the caller gave up
	Now         func() time.Time // default time.Now
}

// slices is how many parts a window has: a tenth of it is forgotten at a time.
const slices = 10

// Breaker stops calls to a peer that fails, so that they fail at once and the peer has rest. Use one for each peer, by
// a PerKey.
//
// Invariants: it opens only when at least MinCalls ended within Window and the share of failures reached FailureRate,
// or a probe failed; when open, no call passes for OpenFor; when half-open, at most Probes are under way, but that one
// of which nothing is heard for OpenFor no longer counts. A call that began in an earlier state changes nothing.
type Breaker struct {
	cfg   BreakerConfig
	clock stopwatch
	slice time.Duration

	// Word is the generation, which is higher at each change of state, and the state in its two lowest bits: what the
	// calls of a closed breaker read without a lock.
	word atomic.Uint64

	mu       sync.Mutex // guards what follows, and changes of word
	counts   [slices]struct{ calls, failures int }
	calls    int           // sum of counts
	failures int           // sum of counts
	current  int64         // number of the slice that is counted in
	since    time.Duration // of the state; when half-open, of the newest probe
	passed   int           // probes begun
	good     int           // probes that succeeded
}

// NewBreaker makes a Breaker, which is closed.
func NewBreaker(cfg BreakerConfig) (*Breaker, error) {
	cfg.Window = cmp.Or(cfg.Window, 10*time.Second)
	cfg.MinCalls = cmp.Or(cfg.MinCalls, 20)
	cfg.FailureRate = cmp.Or(cfg.FailureRate, 0.5)
	cfg.OpenFor = cmp.Or(cfg.OpenFor, 5*time.Second)
	cfg.Probes = cmp.Or(cfg.Probes, 1)
	if cfg.IsFailure == nil {
		cfg.IsFailure = isFailure
	}
	err := validate("BreakerConfig", []field{
		{"Window", float64(cfg.Window), slices, math.MaxInt64 / 4}, {"MinCalls", float64(cfg.MinCalls), 1, 1e9},
		{"FailureRate", cfg.FailureRate, math.SmallestNonzeroFloat64, 1},
		{"OpenFor", float64(cfg.OpenFor), 1, math.MaxInt64 / 4}, {"Probes", float64(cfg.Probes), 1, 1e9},
	})
	if err != nil {
		return nil, err
	}
	return &Breaker{cfg: cfg, clock: newStopwatch(cfg.Now), slice: cfg.Window / slices}, nil
}

func isFailure(err error) bool { return err != nil && !errors.Is(err, context.Canceled) }

// Pass is leave to make one call.
type Pass struct {
	breaker *Breaker
	word    uint64
}

// State is the state now: an open one stays open until a call asks for leave after OpenFor.
func (b *Breaker) State() State { return State(b.word.Load() & 3) }

// Allow gives leave to make a call, or returns ErrOpen. Done must be called of the Pass.
func (b *Breaker) Allow() (Pass, error) {
	word := b.word.Load()
	if State(word&3) == Closed {
		return Pass{b, word}, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	word = b.word.Load()
	now := b.clock.elapsed()
	late := now-b.since >= b.cfg.OpenFor
	switch State(word & 3) {
	case Closed:
		return Pass{b, word}, nil
	case Open:
		if !late {
			return Pass{}, ErrOpen
		}
		word = b.become(HalfOpen, now)
	case HalfOpen:
		if b.passed-b.good >= b.cfg.Probes-b.good {
			if !late {
				return Pass{}, ErrOpen
			}
			word = b.become(HalfOpen, now) // of the probes nothing is heard: others take their place
		}
	}
	b.passed++
	b.since = now
	return Pass{b, word}, nil
}

// become changes the state, and returns the new word.
func (b *Breaker) become(s State, now time.Duration) uint64 {
	word := (b.word.Load()>>2+1)<<2 | uint64(s)
	b.word.Store(word)
	b.since, b.passed, b.good = now, 0, 0
	b.counts = [slices]struct{ calls, failures int }{}
	b.calls, b.failures = 0, 0
	return word
}

// Done tells how the call ended.
func (p Pass) Done(err error) {
	b := p.breaker
	failed := b.cfg.IsFailure(err)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.word.Load() != p.word {
		return
	}
	now := b.clock.elapsed()
	if State(p.word&3) == HalfOpen {
		switch b.good++; {
		case failed:
			b.become(Open, now)
		case b.good >= b.cfg.Probes:
			b.become(Closed, now)
		}
		return
	}
	b.advance(int64(now / b.slice))
	c := &b.counts[b.current%slices]
	c.calls++
	b.calls++
	if failed {
		c.failures++
		b.failures++
		if b.calls >= b.cfg.MinCalls && float64(b.failures) >= b.cfg.FailureRate*float64(b.calls) {
			b.become(Open, now)
		}
	}
}

// advance forgets the slices that have left the window.
func (b *Breaker) advance(to int64) {
	if to-b.current >= slices {
		b.counts = [slices]struct{ calls, failures int }{}
		b.calls, b.failures, b.current = 0, 0, to
	}
	for b.current < to {
		b.current++
		c := &b.counts[b.current%slices]
		b.calls -= c.calls
		b.failures -= c.failures
		c.calls, c.failures = 0, 0
	}
}
