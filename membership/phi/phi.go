package phi

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/coterie-go/coterie/membership"
)

// Detector judges one peer by the times of its heartbeats. Accrual, Fixed and Chen are detectors. It is not safe for
// concurrent use; a Monitor is.
type Detector = membership.Estimator

// Model is how the times between heartbeats are taken to be distributed.
type Model uint8

// The models of Accrual.
const (
	Normal      Model = iota // Hayashibara's: for heartbeats at a steady beat
	Exponential              // Cassandra's: heavier tail, for heartbeats that come by gossip; deviation is not looked at
)

// Config configures an Accrual. The defaults are those of Pekko's PhiAccrualFailureDetector.
type Config struct {
	Model     Model
	Threshold float64       // phi at which a peer is suspected; default 8
	Window    int           // intervals remembered; default 1000
	MinStdDev time.Duration // the deviation is taken to be at least so much; default 100 ms
	Pause     time.Duration // silence that is borne with beyond what is expected; default 3 s, negative is none
	First     time.Duration // the interval expected before two heartbeats have come; default 1 s
}

func (c Config) withDefaults() Config {
	c.Threshold = cmp.Or(c.Threshold, 8)
	c.Window = cmp.Or(c.Window, 1000)
	c.MinStdDev = cmp.Or(c.MinStdDev, 100*time.Millisecond)
	c.Pause = max(0, cmp.Or(c.Pause, 3*time.Second))
	c.First = cmp.Or(c.First, time.Second)
	return c
}

func (c Config) validate() error {
	switch {
	case c.Model > Exponential:
		return fmt.Errorf("phi: Config.Model is %d, not Normal or Exponential", c.Model)
	case !(c.Threshold > 0 && c.Threshold <= 1000): // refuses NaN too
		return fmt.Errorf("phi: Config.Threshold is %v, not above 0 and up to 1000", c.Threshold)
	case c.Window < 2 || c.Window > 1<<20:
		return fmt.Errorf("phi: Config.Window is %d, not 2 to %d", c.Window, 1<<20)
	case c.MinStdDev < 0:
		return errors.New("phi: Config.MinStdDev is negative")
	case c.First < 0:
		return errors.New("phi: Config.First is negative")
	}
	return nil
}

// Accrual is the phi-accrual failure detector of one peer. Make it by New. It is not safe for concurrent use.
type Accrual struct {
	cfg    Config
	limit  float64 // the quantile, or multiple of the mean, at which phi is the threshold
	last   time.Time
	begun  bool
	window window
}

var _ Detector = (*Accrual)(nil)

// New makes an Accrual that has heard nothing yet. The error names the field of Config that is wrong.
func New(cfg Config) (*Accrual, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	a := &Accrual{cfg: cfg, window: newWindow(cfg.Window), limit: tailQuantile(cfg.Threshold)}
	if cfg.Model == Exponential {
		a.limit = cfg.Threshold * math.Ln10
	}
	// Two made up intervals, as Pekko has them, until there are real ones.
	a.window.add(cfg.First - cfg.First/4)
	a.window.add(cfg.First + cfg.First/4)
	return a, nil
}

// Heartbeat tells of a heartbeat that arrived. The silence before one that was suspected not to come any more does not
// count as an interval: it would teach the detector to be slow.
func (a *Accrual) Heartbeat(at time.Time) {
	switch {
	case !a.begun:
		a.begun = true
	case at.Before(a.last):
		return
	case float64(at.Sub(a.last)) < a.longest():
		a.window.add(at.Sub(a.last))
	}
	a.last = at
}

// Phi is -log10 of the probability that the next heartbeat comes after at: 0 before the first heartbeat, growing
// without bound.
func (a *Accrual) Phi(at time.Time) float64 {
	if !a.begun {
		return 0
	}
	return a.phi(at.Sub(a.last))
}

// Level is Phi as a part of the threshold.
func (a *Accrual) Level(at time.Time) float64 { return a.Phi(at) / a.cfg.Threshold }

func (a *Accrual) phi(silence time.Duration) float64 {
	if a.cfg.Model == Exponential {
		return max(0, float64(silence-a.cfg.Pause)) / (a.mean() * math.Ln10)
	}
	return tailPhi((float64(silence-a.cfg.Pause) - a.mean()) / a.deviation())
}

// mean and deviation are in nanoseconds, and never zero.
func (a *Accrual) mean() float64 { return max(a.window.mean(), 1) }
func (a *Accrual) deviation() float64 {
	return max(math.Sqrt(a.window.variance()), float64(a.cfg.MinStdDev), 1)
}

// Deadline is when the peer will be suspected if it stays silent: detection takes so long.
func (a *Accrual) Deadline() time.Time {
	if !a.begun {
		return time.Time{}
	}
	return a.last.Add(time.Duration(min(a.longest(), math.MaxInt64/2)))
}

// longest is the silence, in nanoseconds, at which phi is the threshold.
func (a *Accrual) longest() float64 {
	if a.cfg.Model == Exponential {
		return float64(a.cfg.Pause) + a.limit*a.mean()
	}
	return float64(a.cfg.Pause) + a.mean() + a.limit*a.deviation()
}

// tailPhi is -log10 of the probability that a standard normal variable is above z. The tail below what a float64 can
// tell from 0 is the first term of its asymptotic series, so that phi goes on to grow.
func tailPhi(z float64) float64 {
	const far, early = 30, -9
	switch {
	case z < early:
		return 0 // as exactly as a float64 can tell
	case z > far:
		return (z*z/2 + math.Log(z*math.Sqrt(2*math.Pi))) / math.Ln10
	}
	return max(0, -math.Log10(math.Erfc(z/math.Sqrt2)/2)) // not -0
}

// tailQuantile is the inverse of tailPhi, by bisection: it is asked for once.
func tailQuantile(phi float64) float64 {
	low, high := -40.0, 100.0
	for range 60 {
		if mid := (low + high) / 2; tailPhi(mid) < phi {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}

// window is a ring of intervals with their sum and the sum of their squares.
type window struct {
	intervals []time.Duration
	size      int // that it may grow to
	next      int
	sum, sum2 float64
}

func newWindow(size int) window { return window{intervals: make([]time.Duration, 0, size), size: size} }

func (w *window) add(d time.Duration) {
	if len(w.intervals) < w.size {
		w.intervals = append(w.intervals, d)
	} else {
		old := float64(w.intervals[w.next])
		w.sum -= old
		w.sum2 -= old * old
		w.intervals[w.next] = d
	}
	f := float64(d)
	w.sum += f
	w.sum2 += f * f
	if w.next++; w.next == w.size {
		w.next = 0
		w.recount() // once a round, lest rounding errors add up
	}
}

func (w *window) recount() {
	w.sum, w.sum2 = 0, 0
	for _, d := range w.intervals {
		f := float64(d)
		w.sum += f
		w.sum2 += f * f
	}
}

func (w *window) mean() float64 { return w.sum / float64(len(w.intervals)) }

func (w *window) variance() float64 {
	m := w.mean()
	return max(0, w.sum2/float64(len(w.intervals))-m*m)
}
