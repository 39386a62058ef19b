// Package balance picks one of several backends for each request: by turns, by chance, by load, by latency or by key.
//
// Each balancer is a small type made by a New function; all are a Balancer, so that one can take another's place:
//
//	RoundRobin        each in turn, by weight (smooth, as nginx does); requests that cost alike
//	Random            by chance; many clients that must not march in step
//	LeastConnections  the fewest under way for its weight; long or uneven requests
//	PowerOfTwo        the better of two by peak-EWMA latency and requests under way (Mitzenmacher 2001; Finagle); the
//	                  one to take when unsure
//	ReportedLoad      the better of two by the load that backends report (Result.Load)
//	Consistent        by key, with bounded loads (package hashring); caches and sessions
//
// Subset picks the few of many backends that one client should connect to.
//
// What all share: weights; SetHealthy for what a health check or a failure detector says; and ejection of outliers,
// by Config.Eject, which sees each backend's failures. An ejected backend gets nothing until its time is over, then one
// request at a time, a probe, until one succeeds.
//
// Pick and Done allocate nothing. All types are safe for concurrent use. When not: to balance between data centres, or
// by rules; that is a proxy's work.
package balance

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of the balancers. They come wrapped: test with errors.Is.
var (
	// ErrNoBackend is returned by Pick when no backend is healthy and not ejected. Try later.
	ErrNoBackend = errors.New("balance: no backend")
	// ErrUnknown is returned for a backend that was never added.
	ErrUnknown = errors.New("balance: no such backend")
	// ErrDuplicate is returned by Add of a backend that is there.
	ErrDuplicate = errors.New("balance: backend is there already")
	// ErrWeight is returned for a weight that is not a positive number.
	ErrWeight = errors.New("balance: weight is not a positive number")
)

// Balancer picks backends of type B.
type Balancer[B comparable] interface {
	// Pick chooses a backend for a request and counts it as under way until the Picked's Done. Only Consistent looks at
	// the key. The error is ErrNoBackend.
	Pick(key string) (Picked[B], error)
	Add(backends ...B) error
	Remove(backends ...B) error
	SetWeight(backend B, weight float64) error
	// SetHealthy takes a backend out of the choice, or back in. What is under way on it goes on.
	SetHealthy(backend B, healthy bool) error
	// Stats returns what is known of a backend, false if it is not there.
	Stats(backend B) (Stats, bool)
}

// Config sets what balancers share. The zero value ejects nobody.
type Config[B comparable] struct {
	// Eject is asked after each failure, with the backend's failures counted; it returns how long to eject the backend,
	// 0 for not at all. It must be safe for concurrent use. AfterFailures makes a usual one.
	Eject func(backend B, s Stats) time.Duration
	// Decay is the time in which a latency or a reported load loses most of its weight; default 10 s.
	Decay time.Duration
	Now   func() time.Time // default time.Now
	Rand  func() uint64    // 64 random bits, safe for concurrent use; default math/rand/v2
}

// AfterFailures ejects a backend after so many failures in a row, for base the first time, twice as long after each
// probe that fails, up to 64 times as long.
func AfterFailures[B comparable](failures int, base time.Duration) func(B, Stats) time.Duration {
	return func(_ B, s Stats) time.Duration {
		if s.Failures < failures {
			return 0
		}
		return base << min(s.Ejections, 6)
	}
}

// Result tells Done how a request went.
type Result struct {
	Err  error   // not nil is a failure
	Load float64 // what the backend said of its load, for ReportedLoad; any unit that all share
}

// Stats is what is known of a backend.
type Stats struct {
	Weight    float64
	Pending   int           // requests under way
	Failures  int           // in a row
	Ejections int           // since its last success
	Latency   time.Duration // peak-EWMA; 0 before the first answer
	Healthy   bool
	Ejected   bool
}

// Picked is a backend picked for one request.
type Picked[B comparable] struct {
	Backend B
	b       *backend[B]
	pool    *pool[B]
	began   time.Time
}

// Done tells how the request went; it must be called once.
func (p Picked[B]) Done(r Result) { p.pool.done(p, r) }

// backend is the state of one backend.
type backend[B comparable] struct {
	id      B
	hash    uint64
	pending atomic.Int64

	mu        sync.Mutex // guards what follows
	weight    float64
	healthy   bool
	removed   bool
	failures  int
	ejections int
	until     time.Time // ejected till then, and a candidate for probes after; zero if it is not ejected
	probing   bool
	latency   float64 // seconds, peak-EWMA
	load      float64
	updated   time.Time
	current   float64 // of RoundRobin; guarded by its own mutex
}

// pool is the backends of a balancer.
type pool[B comparable] struct {
	cfg  Config[B]
	hash func(B) uint64 // of a backend's name; nil if nobody needs it

	mu      sync.Mutex // guards all; taken before a backend's
	all     map[B]*backend[B]
	live    atomic.Pointer[[]*backend[B]] // those to choose from, never changed
	ejected atomic.Pointer[[]*backend[B]] // those that wait for a probe
}

func (p *pool[B]) init(cfg Config[B], backends []B) error {
	if cfg.Decay < 0 {
		return errors.New("balance: Config.Decay is negative")
	}
	if cfg.Decay == 0 {
		cfg.Decay = 10 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Uint64
	}
	p.cfg = cfg
	p.all = make(map[B]*backend[B])
	p.publish(nil)
	return p.Add(backends...)
}

// publish makes the lists anew after a change of one backend (or none); mu is held. The order stays.
func (p *pool[B]) publish(changed *backend[B]) {
	var live, ejected []*backend[B]
	sort := func(b *backend[B]) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch {
		case b.removed || !b.healthy:
		case b.until.IsZero():
			live = append(live, b)
		default:
			ejected = append(ejected, b)
		}
	}
	for _, list := range []*atomic.Pointer[[]*backend[B]]{&p.live, &p.ejected} {
		if old := list.Load(); old != nil {
			for _, b := range *old {
				if b != changed {
					sort(b)
				}
			}
		}
	}
	if changed != nil {
		sort(changed)
	}
	p.live.Store(&live)
	p.ejected.Store(&ejected)
}

// Add adds backends of weight 1, all or none. The error is ErrDuplicate.
func (p *pool[B]) Add(backends ...B) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, id := range backends {
		if p.all[id] != nil || slices.Contains(backends[:i], id) {
			return fmt.Errorf("add %v: %w", id, ErrDuplicate)
		}
	}
	for _, id := range backends {
		b := &backend[B]{id: id, weight: 1, healthy: true}
		if p.hash != nil {
			b.hash = p.hash(id)
		}
		p.all[id] = b
		p.publish(b)
	}
	return nil
}

// Remove takes backends away, all or none. The error is ErrUnknown.
func (p *pool[B]) Remove(backends ...B) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, id := range backends {
		if p.all[id] == nil || slices.Contains(backends[:i], id) {
			return fmt.Errorf("remove %v: %w", id, ErrUnknown)
		}
	}
	for _, id := range backends {
		b := p.all[id]
		delete(p.all, id)
		b.mu.Lock()
		b.removed = true
		b.mu.Unlock()
		p.publish(b)
	}
	return nil
}

// change applies f to a backend and publishes the lists.
func (p *pool[B]) change(id B, f func(b *backend[B])) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.all[id]
	if b == nil {
		return fmt.Errorf("backend %v: %w", id, ErrUnknown)
	}
	b.mu.Lock()
	f(b)
	b.mu.Unlock()
	p.publish(b)
	return nil
}

// SetWeight gives a backend a share in proportion to weight. The error is ErrUnknown or ErrWeight.
func (p *pool[B]) SetWeight(id B, weight float64) error {
	if !(weight > 0) || math.IsInf(weight, 0) {
		return fmt.Errorf("weight %v of %v: %w", weight, id, ErrWeight)
	}
	return p.change(id, func(b *backend[B]) { b.weight = weight })
}

// SetHealthy takes a backend out of the choice, or back in, free of any ejection. The error is ErrUnknown.
func (p *pool[B]) SetHealthy(id B, healthy bool) error {
	return p.change(id, func(b *backend[B]) {
		b.healthy = healthy
		if healthy {
			b.until, b.failures, b.ejections = time.Time{}, 0, 0
		}
	})
}

// Stats returns what is known of a backend, false if it is not there.
func (p *pool[B]) Stats(id B) (Stats, bool) {
	p.mu.Lock()
	b := p.all[id]
	p.mu.Unlock()
	if b == nil {
		return Stats{}, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stats(), true
}

// stats needs mu held.
func (b *backend[B]) stats() Stats {
	return Stats{
		Weight: b.weight, Pending: int(b.pending.Load()), Failures: b.failures, Ejections: b.ejections,
		Latency: time.Duration(b.latency * float64(time.Second)), Healthy: b.healthy, Ejected: !b.until.IsZero(),
	}
}

// begin counts a request on a backend.
func (p *pool[B]) begin(b *backend[B], now time.Time) Picked[B] {
	b.pending.Add(1)
	return Picked[B]{Backend: b.id, b: b, pool: p, began: now}
}

// probe returns an ejected backend whose time is over and on which no probe is under way, nil if there is none.
func (p *pool[B]) probe(now time.Time) *backend[B] {
	for _, b := range *p.ejected.Load() {
		b.mu.Lock()
		due := !b.probing && !b.until.IsZero() && !now.Before(b.until)
		if due {
			b.probing = true
		}
		b.mu.Unlock()
		if due {
			return b
		}
	}
	return nil
}

// pick is Pick of a balancer that chooses from the live backends.
func (p *pool[B]) pick(choose func(live []*backend[B], now time.Time) *backend[B]) (Picked[B], error) {
	now := p.cfg.Now()
	if b := p.probe(now); b != nil {
		return p.begin(b, now), nil
	}
	live := *p.live.Load()
	if len(live) == 0 {
		return Picked[B]{}, ErrNoBackend
	}
	return p.begin(choose(live, now), now), nil
}

// done updates a backend after a request.
func (p *pool[B]) done(picked Picked[B], r Result) {
	b, now := picked.b, p.cfg.Now()
	b.pending.Add(-1)
	b.mu.Lock()
	b.learn(now, now.Sub(picked.began), r.Load, p.cfg.Decay)
	wasEjected := !b.until.IsZero()
	b.probing = false
	if r.Err == nil {
		b.failures, b.ejections, b.until = 0, 0, time.Time{}
	} else {
		b.failures++
		if p.cfg.Eject != nil {
			if d := p.cfg.Eject(b.id, b.stats()); d > 0 {
				b.until = now.Add(d)
				b.ejections++
			}
		}
	}
	changed := wasEjected != !b.until.IsZero()
	b.mu.Unlock()
	if changed {
		p.mu.Lock()
		p.publish(b)
		p.mu.Unlock()
	}
}

// learn takes a latency into the peak-EWMA: a worse one at once, a better one by and by. The load is the last one
// reported, and also fades by and by, so that a backend that nobody asks any more is asked again.
func (b *backend[B]) learn(now time.Time, took time.Duration, load float64, decay time.Duration) {
	seconds := took.Seconds()
	if seconds >= b.latency {
		b.latency = seconds
	} else {
		keep := math.Exp(-float64(now.Sub(b.updated)) / float64(decay))
		b.latency = b.latency*keep + seconds*(1-keep)
	}
	b.load = load
	b.updated = now
}

// faded is a value as old knowledge of a backend counts now; mu is held.
func (b *backend[B]) faded(value float64, now time.Time, decay time.Duration) float64 {
	return value * math.Exp(-float64(now.Sub(b.updated))/float64(decay))
}
