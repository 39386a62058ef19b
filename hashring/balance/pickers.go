package balance

import (
	"cmp"
	"errors"
	"math"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/coterie-go/coterie/hashring"
)

// RoundRobin gives each backend its turns, in proportion to weight and spread evenly: of weights 5, 1 and 1 the order
// is a a b a c a a (nginx's smooth weighted round robin).
type RoundRobin[B comparable] struct {
	pool[B]
	turn sync.Mutex // guards current of the backends
}

// NewRoundRobin makes a RoundRobin. The error names the field of Config that is wrong, or is ErrDuplicate.
func NewRoundRobin[B comparable](cfg Config[B], backends ...B) (*RoundRobin[B], error) {
	r := &RoundRobin[B]{}
	return r, r.init(cfg, backends)
}

// Pick chooses the backend whose turn it is.
func (r *RoundRobin[B]) Pick(string) (Picked[B], error) { return r.pick(r.next) }

func (r *RoundRobin[B]) next(live []*backend[B], _ time.Time) *backend[B] {
	r.turn.Lock()
	defer r.turn.Unlock()
	var best *backend[B]
	total := 0.0
	for _, b := range live {
		b.mu.Lock()
		weight := b.weight
		b.mu.Unlock()
		b.current += weight
		total += weight
		if best == nil || b.current > best.current {
			best = b
		}
	}
	best.current -= total
	return best
}

// Random picks by chance, in proportion to weight.
type Random[B comparable] struct{ pool[B] }

// NewRandom makes a Random. The error names the field of Config that is wrong, or is ErrDuplicate.
func NewRandom[B comparable](cfg Config[B], backends ...B) (*Random[B], error) {
	r := &Random[B]{}
	return r, r.init(cfg, backends)
}

// Pick chooses a backend by chance.
func (r *Random[B]) Pick(string) (Picked[B], error) { return r.pick(r.draw) }

func (p *pool[B]) draw(live []*backend[B], _ time.Time) *backend[B] {
	total := 0.0
	for _, b := range live {
		total += b.weightNow()
	}
	at := float64(p.cfg.Rand()>>11) / (1 << 53) * total
	for _, b := range live {
		if at -= b.weightNow(); at < 0 {
			return b
		}
	}
	return live[len(live)-1]
}

func (b *backend[B]) weightNow() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.weight
}

// LeastConnections picks the backend with the fewest requests under way for its weight; of equal ones, one by chance.
type LeastConnections[B comparable] struct{ pool[B] }

// NewLeastConnections makes a LeastConnections. The error names the field of Config that is wrong, or is ErrDuplicate.
func NewLeastConnections[B comparable](cfg Config[B], backends ...B) (*LeastConnections[B], error) {
	l := &LeastConnections[B]{}
	return l, l.init(cfg, backends)
}

// Pick chooses the backend with the fewest requests under way.
func (l *LeastConnections[B]) Pick(string) (Picked[B], error) { return l.pick(l.least) }

func (l *LeastConnections[B]) least(live []*backend[B], _ time.Time) *backend[B] {
	start := below(l.cfg.Rand(), len(live))
	var best *backend[B]
	least := math.Inf(1)
	for i := range live {
		b := live[(start+i)%len(live)]
		if cost := float64(b.pending.Load()+1) / b.weightNow(); cost < least {
			best, least = b, cost
		}
	}
	return best
}

// below scales 64 random bits to [0, n).
func below(random uint64, n int) int {
	hi, _ := bits.Mul64(random, uint64(n))
	return int(hi)
}

// twoChoices draws two backends and takes the one that costs less.
func (p *pool[B]) twoChoices(live []*backend[B], now time.Time, cost func(b *backend[B], now time.Time) float64) *backend[B] {
	if len(live) == 1 {
		return live[0]
	}
	random := p.cfg.Rand()
	i := below(random, len(live))
	j := below(random<<32|random>>32, len(live)-1)
	if j >= i {
		j++
	}
	if cost(live[j], now) < cost(live[i], now) {
		return live[j]
	}
	return live[i]
}

// PowerOfTwo draws two backends and picks the one with the lower product of peak-EWMA latency and requests under way,
// for its weight (two choices: Mitzenmacher, 2001; peak-EWMA: Finagle). A backend that became slow is seen at once, one
// that became fast is trusted by and by.
type PowerOfTwo[B comparable] struct{ pool[B] }

// NewPowerOfTwo makes a PowerOfTwo. The error names the field of Config that is wrong, or is ErrDuplicate.
func NewPowerOfTwo[B comparable](cfg Config[B], backends ...B) (*PowerOfTwo[B], error) {
	p := &PowerOfTwo[B]{}
	return p, p.init(cfg, backends)
}

// Pick chooses the better of two backends.
func (p *PowerOfTwo[B]) Pick(string) (Picked[B], error) { return p.pick(p.better) }

func (p *PowerOfTwo[B]) better(live []*backend[B], now time.Time) *backend[B] {
	return p.twoChoices(live, now, p.cost)
}

func (p *PowerOfTwo[B]) cost(b *backend[B], now time.Time) float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	const floor = 1e-6 // seconds: with no latency known, requests under way decide
	return (b.faded(b.latency, now, p.cfg.Decay) + floor) * float64(b.pending.Load()+1) / b.weight
}

// ReportedLoad draws two backends and picks the one whose last reported load, with what has been sent to it since, is
// lower for its weight. A report fades with Config.Decay.
type ReportedLoad[B comparable] struct{ pool[B] }

// NewReportedLoad makes a ReportedLoad. The error names the field of Config that is wrong, or is ErrDuplicate.
func NewReportedLoad[B comparable](cfg Config[B], backends ...B) (*ReportedLoad[B], error) {
	l := &ReportedLoad[B]{}
	return l, l.init(cfg, backends)
}

// Pick chooses the less loaded of two backends.
func (l *ReportedLoad[B]) Pick(string) (Picked[B], error) { return l.pick(l.better) }

func (l *ReportedLoad[B]) better(live []*backend[B], now time.Time) *backend[B] {
	return l.twoChoices(live, now, l.cost)
}

func (l *ReportedLoad[B]) cost(b *backend[B], now time.Time) float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	const floor = 1e-9 // with no load known, requests under way decide
	return (b.faded(b.load, now, l.cfg.Decay) + floor) * float64(b.pending.Load()+1) / b.weight
}

// Consistent picks by key: of the live backends that have room, the one that comes first in the key's rendezvous
// order. None holds more than ceil((1+epsilon) * its weight's share) of the requests under way on the live ones
// (Mirrokni, Thorup and Zadimoghaddam, 2018), so that a hot key spills over to the next of its order.
type Consistent[B comparable] struct {
	pool[B]
	epsilon float64
	one     sync.Mutex // makes choosing and counting one step
}

// NewConsistent makes a Consistent; epsilon must be positive (0.25 is usual), and name must tell backends apart. The
// error names what is wrong.
func NewConsistent[B comparable](cfg Config[B], epsilon float64, name func(B) string, backends ...B) (*Consistent[B], error) {
	if !(epsilon > 0) || math.IsInf(epsilon, 0) {
		return nil, errors.New("balance: NewConsistent: epsilon is not a positive number")
	}
	if name == nil {
		return nil, errors.New("balance: NewConsistent: name is required")
	}
	c := &Consistent[B]{epsilon: epsilon}
	c.hash = func(b B) uint64 { return hashring.Hash(name(b)) }
	return c, c.init(cfg, backends)
}

// Pick chooses the backend for a key.
func (c *Consistent[B]) Pick(key string) (Picked[B], error) {
	hash := hashring.Hash(key)
	c.one.Lock()
	defer c.one.Unlock()
	return c.pick(func(live []*backend[B], _ time.Time) *backend[B] { return c.first(live, hash) })
}

func (c *Consistent[B]) first(live []*backend[B], hash uint64) *backend[B] {
	weights, held := 0.0, int64(0)
	for _, b := range live {
		weights += b.weightNow()
		held += b.pending.Load()
	}
	var best *backend[B]
	least := math.Inf(1)
	for _, b := range live {
		weight := b.weightNow()
		if float64(b.pending.Load()) >= math.Ceil((1+c.epsilon)*float64(held+1)*weight/weights) {
			continue
		}
		hi, lo := bits.Mul64(hash^b.hash, b.hash|1)
		// The logarithm method: exponential random numbers, the least is a backend's by its weight.
		if d := -math.Log((float64((hi^lo)>>11)+0.5)/(1<<53)) / weight; d < least {
			best, least = b, d
		}
	}
	if best == nil { // more finished or began while they were counted; the bound is that of a moment
		best = live[below(hash, len(live))]
	}
	return best
}

// Subset picks size of the backends for one of many clients: by rendezvous of their names, so that a client keeps its
// own when others come and go, and backends get clients evenly by chance. All are returned if there are fewer.
func Subset[B comparable](client string, size int, backends []B, name func(B) string) []B {
	type ranked struct {
		backend B
		score   uint64
		name    string
	}
	all := make([]ranked, len(backends))
	for i, b := range backends {
		n := name(b)
		all[i] = ranked{b, hashring.Hash(client + "\x00" + n), n}
	}
	slices.SortFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.name, b.name))
	})
	subset := make([]B, 0, max(min(size, len(all)), 0))
	for _, r := range all[:cap(subset)] {
		subset = append(subset, r.backend)
	}
	return subset
}
