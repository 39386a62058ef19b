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

	"github.com/coterie-go/coterie"
)

// ConcurrencyConfig configures a Concurrency. The zero value is ready to use.
type ConcurrencyConfig struct {
	Initial   int              // the limit at first; default 20, within Min and Max
	Min       int              // default 1
	Max       int              // default 1000
	Tolerance float64          // how many times the best latency is still good, over 1; default 2
	Memory    time.Duration    // for how long the best latency counts, at least; default 30 s
	IsDrop    func(error) bool // an error that means overload; default coterie.ErrOverloaded and context.DeadlineExceeded
	Now       func() time.Time // default time.Now
}

// Concurrency limits how many calls are under way, and finds out by itself how many are good for the peer: the limit
// grows by one for each limit's worth of calls that end well while it is used, and shrinks by a tenth when calls are
// dropped or take longer than Tolerance times the best (Chiu and Jain, 1989; Brakmo et al., 1994), once for all the
// calls that were under way together.
//
// Invariants: Min <= limit <= Max; no call begins while as many are under way as the limit is.
type Concurrency struct {
	cfg   ConcurrencyConfig
	clock stopwatch

	mu       sync.Mutex // guards what follows
	limit    float64
	inflight int
	cut      time.Duration    // when the limit shrank last
	best     [2]time.Duration // the best latency of this half of Memory and of the one before; 0 for none
	half     time.Duration    // when this half began
}

// NewConcurrency makes a Concurrency.
func NewConcurrency(cfg ConcurrencyConfig) (*Concurrency, error) {
	cfg.Min = cmp.Or(cfg.Min, 1)
	cfg.Max = cmp.Or(cfg.Max, max(1000, cfg.Min))
	cfg.Initial = cmp.Or(cfg.Initial, min(max(20, cfg.Min), cfg.Max))
	cfg.Tolerance = cmp.Or(cfg.Tolerance, 2)
	cfg.Memory = cmp.Or(cfg.Memory, 30*time.Second)
	if cfg.IsDrop == nil {
		cfg.IsDrop = func(err error) bool {
			return errors.Is(err, coterie.ErrOverloaded) || errors.Is(err, context.DeadlineExceeded)
		}
	}
	err := validate("ConcurrencyConfig", []field{
		{"Min", float64(cfg.Min), 1, 1e6}, {"Max", float64(cfg.Max), float64(cfg.Min), 1e6},
		{"Initial", float64(cfg.Initial), float64(cfg.Min), float64(cfg.Max)},
		{"Tolerance", cfg.Tolerance, 1, 1e6}, {"Memory", float64(cfg.Memory), 2, math.MaxInt64 / 4},
	})
	if err != nil {
		return nil, err
	}
	return &Concurrency{cfg: cfg, clock: newStopwatch(cfg.Now), limit: float64(cfg.Initial), cut: -1}, nil
}

// Slot is leave for one call to be under way.
type Slot struct {
	c     *Concurrency
	began time.Duration
}

// Acquire returns a Slot, or ErrLimited. Release must be called of the Slot.
func (c *Concurrency) Acquire() (Slot, error) {
	now := c.clock.elapsed()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inflight >= int(c.limit) {
		return Slot{}, ErrLimited
	}
	c.inflight++
	return Slot{c, now}, nil
}

// Limit is how many calls may be under way now.
func (c *Concurrency) Limit() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int(c.limit)
}

// Release tells how the call ended. Errors that do not mean overload, and context.Canceled, tell nothing of the peer's
// capacity.
func (s Slot) Release(err error) {
	c := s.c
	now := c.clock.elapsed()
	c.mu.Lock()
	defer c.mu.Unlock()
	used := c.inflight
	c.inflight--
	latency := max(now-s.began, 1)
	switch {
	case err != nil && c.cfg.IsDrop(err):
		c.shrink(s.began, now)
	case err != nil:
	case float64(latency) > c.cfg.Tolerance*float64(c.note(latency, now)):
		c.shrink(s.began, now)
	case 2*used >= int(c.limit): // else the limit is not what holds the calls back, and may be too high already
		c.limit = min(c.limit+1/c.limit, float64(c.cfg.Max))
	}
}

// shrink lowers the limit, unless it was lowered since the call began: a queue that has built up delays many.
func (c *Concurrency) shrink(began, now time.Duration) {
	if began > c.cut {
		c.limit = max(c.limit*0.9, float64(c.cfg.Min))
		c.cut = now
	}
}

// note takes a latency into account and returns the best of late.
func (c *Concurrency) note(latency, now time.Duration) time.Duration {
	if age := now - c.half; age >= c.cfg.Memory {
		c.best = [2]time.Duration{0, c.best[0]}
		if age >= 2*c.cfg.Memory {
			c.best[1] = 0
		}
		c.half = now
	}
	if c.best[0] == 0 || latency < c.best[0] {
		c.best[0] = latency
	}
	if c.best[1] != 0 {
		return min(c.best[0], c.best[1])
	}
	return c.best[0]
}

// BulkheadConfig configures a Bulkhead.
type BulkheadConfig struct {
	Max   int // required: how many at a time
	Queue int // how many wait beside them; default none
}

// Bulkhead lets so many into a part of a program at a time, so that one that hangs does not sink the whole.
type Bulkhead struct {
	slots   chan struct{}
	queue   int64
	waiting atomic.Int64
}

// NewBulkhead makes a Bulkhead.
func NewBulkhead(cfg BulkheadConfig) (*Bulkhead, error) {
	err := validate("BulkheadConfig", []field{{"Max", float64(cfg.Max), 1, 1e6}, {"Queue", float64(cfg.Queue), 0, 1e9}})
	if err != nil {
		return nil, err
	}
	return &Bulkhead{slots: make(chan struct{}, cfg.Max), queue: int64(cfg.Queue)}, nil
}

// Acquire takes a slot, and waits for one if the queue has room. It returns ErrFull, or ctx.Err() when ctx ends before
// there is one. Release gives it back.
func (b *Bulkhead) Acquire(ctx context.Context) error {
	select {
	case b.slots <- struct{}{}:
		return nil
	default:
	}
	defer b.waiting.Add(-1)
	if b.waiting.Add(1) > b.queue {
		return ErrFull
	}
	select {
	case b.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Release gives a slot back. It panics if none is taken.
func (b *Bulkhead) Release() {
	select {
	case <-b.slots:
	default:
		panic("resilience: Bulkhead.Release without Acquire")
	}
}

// Priority is how much a piece of work is worth when not all can be done.
type Priority uint8

// The priorities, the most important first.
const (
	Critical   Priority = iota // what users wait for and must not fail
	Normal                     // what users wait for
	Sheddable                  // what can be tried again later: prefetching, batches
	Background                 // what nobody waits for
)

// String returns "critical", "normal", "sheddable" or "background".
func (p Priority) String() string {
	names := [...]string{"critical", "normal", "sheddable", "background"}
	if int(p) < len(names) {
		return names[p]
	}
	return fmt.Sprintf("priority(%d)", uint8(p))
}

// ShedderConfig configures a Shedder.
type ShedderConfig struct {
	Capacity int // required: pieces of work under way at a time
	// Shares are the parts of Capacity up to which work of each priority is taken, from 1 for Critical down; default
	// 1, 0.9, 0.7 and 0.5.
	Shares [4]float64
}

// Shedder takes work while there is capacity, the less important only while there is much: as load rises, background
// work is refused first, critical work last.
type Shedder struct {
	limits   [4]int64
	inflight atomic.Int64
}

// NewShedder makes a Shedder.
func NewShedder(cfg ShedderConfig) (*Shedder, error) {
	if cfg.Shares == [4]float64{} {
		cfg.Shares = [4]float64{1, 0.9, 0.7, 0.5}
	}
	fields := []field{{"Capacity", float64(cfg.Capacity), 1, 1e9}, {"Shares[0]", cfg.Shares[0], 1, 1}}
	s := &Shedder{}
	for p, share := range cfg.Shares {
		if p > 0 {
			fields = append(fields, field{fmt.Sprintf("Shares[%d]", p), share, 0, cfg.Shares[p-1]})
		}
		s.limits[p] = int64(math.Ceil(share * float64(cfg.Capacity)))
	}
	if err := validate("ShedderConfig", fields); err != nil {
		return nil, err
	}
	return s, nil
}

// Admit takes a piece of work, or returns ErrShed. Done must be called when the work is done.
func (s *Shedder) Admit(p Priority) error {
	limit := s.limits[min(int(p), len(s.limits)-1)]
	for {
		n := s.inflight.Load()
		if n >= limit {
			return ErrShed
		}
		if s.inflight.CompareAndSwap(n, n+1) {
			return nil
		}
	}
}

// Done ends a piece of work that was admitted.
func (s *Shedder) Done() {
	if s.inflight.Add(-1) < 0 {
		panic("resilience: Shedder.Done without Admit")
	}
}
