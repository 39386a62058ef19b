package sim

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/coterie-go/coterie"
)

// Config describes a World. Only Seed is required.
type Config struct {
	Seed     uint64        // required; everything that is drawn follows from it
	Start    time.Time     // the virtual time at which the world begins; default 2000-01-01 00:00 UTC
	Link     Link          // every link, until SetLink says otherwise
	Disk     Disk          // every disk, until SetDisk says otherwise
	MaxSkew  time.Duration // each node's wall clock begins skewed by up to so much, either way; default 0
	MaxDrift float64       // each node's clock drifts by up to so many parts per million, either way; default 0
	StepTime time.Duration // how long a batch keeps a node busy; default 20 µs, negative takes no time
	Inbox    int           // messages that may wait at a node; the newest beyond them is lost; default 4096
	Trace    *Trace        // records what happens; default nil, which costs nothing
}

const (
	defaultStepTime  = 20 * time.Microsecond
	defaultInbox     = 4096
	defaultMaxWait   = time.Second
	defaultSlowTimes = 20
)

// Link is how one direction between two nodes behaves. The zero value delivers everything, once, in 0.5 to 1.5 ms.
// Probabilities are from 0 to 1 and are drawn for each message.
type Link struct {
	Latency   Latency       `json:"latency,omitzero"`   // time from send to arrival; default Uniform(0.5 ms, 1.5 ms)
	Loss      float64       `json:"loss,omitzero"`      // probability that a message is lost
	Duplicate float64       `json:"duplicate,omitzero"` // probability that it arrives twice, the second time later
	Reorder   float64       `json:"reorder,omitzero"`   // probability that it is held back by up to 10 latencies more
	Bandwidth int           `json:"bandwidth,omitzero"` // bytes per second; 0 is unlimited
	MaxWait   time.Duration `json:"max_wait,omitzero"`  // what would wait longer for bandwidth is lost; default 1 s
}

// Disk is how a node's journal and snapshots behave. The zero value takes 0.1 ms and, on average, 1 ms more for a Save
// and never fails by itself.
type Disk struct {
	Sync       Latency `json:"sync,omitzero"`        // what one sync takes; default Exponential(0.1 ms, 1 ms); Fixed(0) is instant
	Bandwidth  int     `json:"bandwidth,omitzero"`   // bytes per second; 0 is unlimited
	Slow       float64 `json:"slow,omitzero"`        // probability, drawn once per node, that its disk is slow
	SlowFactor float64 `json:"slow_factor,omitzero"` // how many times longer a slow disk takes; default 20
	Crash      float64 `json:"crash,omitzero"`       // probability, drawn per Save, that the node crashes within it
	Down       Latency `json:"down,omitzero"`        // how long such a crash lasts; default Uniform(50 ms, 1 s)
}

// Shape is the form of a Latency's distribution.
type Shape string

// The shapes of a Latency.
const (
	ShapeDefault     Shape = ""            // whatever the place where it stands has as its default
	ShapeFixed       Shape = "fixed"       // Min, always
	ShapeUniform     Shape = "uniform"     // Min to Min+Spread
	ShapeExponential Shape = "exponential" // Min plus an exponential of mean Spread
	ShapeLogNormal   Shape = "lognormal"   // Min plus a log-normal of median Spread and shape Sigma: a heavy tail
)

// Latency is a distribution of durations, as plain data. Fixed, Uniform, Exponential and LogNormal make one.
type Latency struct {
	Shape  Shape         `json:"shape,omitzero"`
	Min    time.Duration `json:"min,omitzero"`    // never less
	Spread time.Duration `json:"spread,omitzero"` // width, mean or median of what is added, by Shape
	Sigma  float64       `json:"sigma,omitzero"`  // of ShapeLogNormal; default 1
}

// Fixed is always d.
func Fixed(d time.Duration) Latency { return Latency{Shape: ShapeFixed, Min: d} }

// Uniform is any duration from least to most, equally likely.
func Uniform(least, most time.Duration) Latency {
	return Latency{Shape: ShapeUniform, Min: least, Spread: most - least}
}

// Exponential is least plus an exponentially distributed duration of the mean given.
func Exponential(least, mean time.Duration) Latency {
	return Latency{Shape: ShapeExponential, Min: least, Spread: mean}
}

// LogNormal is least plus a log-normally distributed duration of the median given: its tail is the heavier the larger
// sigma is; at 1, one in a hundred takes more than ten medians.
func LogNormal(least, median time.Duration, sigma float64) Latency {
	return Latency{Shape: ShapeLogNormal, Min: least, Spread: median, Sigma: sigma}
}

// String is like "exponential(1ms, 37ms)", with the arguments of the function of that name.
func (l Latency) String() string {
	switch l.Shape {
	case ShapeDefault:
		return "default"
	case ShapeFixed:
		return l.Min.String()
	case ShapeUniform:
		return fmt.Sprintf("uniform(%v, %v)", l.Min, l.Min+l.Spread)
	case ShapeLogNormal:
		return fmt.Sprintf("lognormal(%v, %v, %.3g)", l.Min, l.Spread, l.Sigma)
	case ShapeExponential:
	}
	return fmt.Sprintf("%s(%v, %v)", string(l.Shape), l.Min, l.Spread)
}

// String names the latency and what else is not zero.
func (l Link) String() string {
	return "latency=" + l.Latency.String() + percent("loss", l.Loss) + percent("duplicate", l.Duplicate) +
		percent("reorder", l.Reorder) + bandwidth(l.Bandwidth)
}

// String names the time of a sync and what else is not zero.
func (d Disk) String() string {
	return "sync=" + d.Sync.String() + bandwidth(d.Bandwidth) + percent("slow", d.Slow) + percent("crash", d.Crash)
}

func percent(name string, p float64) string {
	if p == 0 {
		return ""
	}
	return fmt.Sprintf(" %s=%.3g%%", name, 100*p)
}

func bandwidth(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" bandwidth=%d", n)
}

// Node is what a node runs.
type Node struct {
	// New makes the node's core, and the application that gets its events, which may be nil: at first with
	// incarnation 1, after each restart with the next. Required.
	New func(incarnation uint64) (coterie.Core, App)
	// Check, if not nil, sees each message before the inbox, and an error keeps it out: the place to verify
	// signatures, as with the host's Config.Check.
	Check func(from coterie.NodeID, payload []byte) error
}

// App is the application of one node, in one incarnation.
type App interface {
	// Event takes one event of the core, when the batch's Save is durable. It may call the World: a Do on the same
	// node runs in the node's next batch.
	Event(now time.Time, event any)
}

// EventFunc is an App that is one function.
type EventFunc func(now time.Time, event any)

// Event calls f.
func (f EventFunc) Event(now time.Time, event any) { f(now, event) }

func (c Config) withDefaults() Config {
	if c.Start.IsZero() {
		c.Start = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)
	}
	if c.StepTime == 0 {
		c.StepTime = defaultStepTime
	}
	c.StepTime = max(c.StepTime, 0)
	if c.Inbox == 0 {
		c.Inbox = defaultInbox
	}
	c.Link = c.Link.withDefaults()
	c.Disk = c.Disk.withDefaults()
	return c
}

func (c Config) validate() error {
	var errs []error
	if c.Seed == 0 {
		errs = append(errs, errors.New("sim: Config.Seed is 0; it must be set"))
	}
	for _, err := range []error{duration("MaxSkew", c.MaxSkew), duration("StepTime", c.StepTime), notNegative("Inbox", c.Inbox)} {
		if err != nil {
			errs = append(errs, fmt.Errorf("sim: Config.%w", err))
		}
	}
	if !(c.MaxDrift >= 0 && c.MaxDrift <= 100_000) {
		errs = append(errs, fmt.Errorf("sim: Config.MaxDrift is %v ppm; it must be from 0 to 100,000", c.MaxDrift))
	}
	if err := c.Link.validate(); err != nil {
		errs = append(errs, fmt.Errorf("sim: Config.Link: %w", err))
	}
	if err := c.Disk.validate(); err != nil {
		errs = append(errs, fmt.Errorf("sim: Config.Disk: %w", err))
	}
	return errors.Join(errs...)
}

func (l Link) withDefaults() Link {
	if l.Latency.Shape == ShapeDefault {
		l.Latency = Uniform(500*time.Microsecond, 1500*time.Microsecond)
	}
	l.Latency = l.Latency.withDefaults()
	if l.MaxWait == 0 {
		l.MaxWait = defaultMaxWait
	}
	return l
}

func (l Link) validate() error {
	return errors.Join(l.Latency.validate("Latency"), probability("Loss", l.Loss), probability("Duplicate", l.Duplicate),
		probability("Reorder", l.Reorder), notNegative("Bandwidth", l.Bandwidth), duration("MaxWait", l.MaxWait))
}

func (d Disk) withDefaults() Disk {
	if d.Sync.Shape == ShapeDefault {
		d.Sync = Exponential(100*time.Microsecond, time.Millisecond)
	}
	if d.Down.Shape == ShapeDefault {
		d.Down = Uniform(50*time.Millisecond, time.Second)
	}
	if d.SlowFactor == 0 {
		d.SlowFactor = defaultSlowTimes
	}
	d.Sync, d.Down = d.Sync.withDefaults(), d.Down.withDefaults()
	return d
}

func (d Disk) validate() error {
	var factor error
	if !(d.SlowFactor >= 1 && d.SlowFactor <= 1e6) {
		factor = fmt.Errorf("SlowFactor is %v; it must be from 1 to 1e6", d.SlowFactor)
	}
	return errors.Join(d.Sync.validate("Sync"), notNegative("Bandwidth", d.Bandwidth), probability("Slow", d.Slow), factor,
		probability("Crash", d.Crash), d.Down.validate("Down"))
}

func (l Latency) withDefaults() Latency {
	if l.Shape == ShapeLogNormal && l.Sigma == 0 {
		l.Sigma = 1
	}
	return l
}

func (l Latency) validate(name string) error {
	switch l.Shape {
	case ShapeDefault, ShapeFixed, ShapeUniform, ShapeExponential, ShapeLogNormal:
	default:
		return fmt.Errorf("%s.Shape is %q; it must be fixed, uniform, exponential or lognormal", name, l.Shape)
	}
	if !(l.Sigma >= 0 && l.Sigma <= 10) {
		return fmt.Errorf("%s.Sigma is %v; it must be from 0 to 10", name, l.Sigma)
	}
	return errors.Join(duration(name+".Min", l.Min), duration(name+".Spread", l.Spread))
}

func duration(name string, d time.Duration) error {
	if d >= 0 && d <= longest {
		return nil
	}
	return fmt.Errorf("%s is %v; it must be from 0 to %v", name, d, longest)
}

// probability also refuses NaN.
func probability(name string, p float64) error {
	if p >= 0 && p <= 1 {
		return nil
	}
	return fmt.Errorf("%s is %v; it must be from 0 to 1", name, p)
}

func notNegative(name string, v int) error {
	if v >= 0 {
		return nil
	}
	return fmt.Errorf("%s is %d; it must not be negative", name, v)
}

// longest bounds every drawn duration, so that a heavy tail cannot overflow the clock.
const longest = 1000 * time.Hour

// draw returns one duration. It draws a fixed number of values for each shape.
func (l Latency) draw(s *source) int64 {
	switch l.Shape {
	case ShapeUniform:
		return int64(l.Min) + s.below(int64(l.Spread)+1)
	case ShapeExponential:
		return int64(l.Min) + scaled(l.Spread, -math.Log(1-s.unit()))
	case ShapeLogNormal:
		normal := math.Sqrt(-2*math.Log(1-s.unit())) * math.Cos(2*math.Pi*s.unit()) // Box and Muller, 1958
		return int64(l.Min) + scaled(l.Spread, math.Exp(l.Sigma*normal))
	case ShapeDefault, ShapeFixed:
	}
	return int64(l.Min)
}

func scaled(d time.Duration, factor float64) int64 {
	return int64(min(float64(d)*factor, float64(longest)))
}

// source is one stream of random numbers. Links and disks have one each.
type source struct{ pcg rand.PCG }

// newSource returns the stream of a purpose: the same seed and purpose give the same stream.
func newSource(seed uint64, purpose string, a, b coterie.NodeID) source {
	const prime = 0x100000001b3 // FNV-1a; the separator keeps ("a", "bc") and ("ab", "c") apart
	h := uint64(0xcbf29ce484222325)
	for _, s := range [...]string{purpose, string(a), string(b)} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * prime
		}
		h = (h ^ 0xff) * prime
	}
	var s source
	s.pcg.Seed(seed, h)
	return s
}

// below returns a number from 0 to n-1; n must be positive.
func (s *source) below(n int64) int64 { return int64(s.pcg.Uint64() % uint64(n)) }

// unit returns a number from 0 to just under 1.
func (s *source) unit() float64 { return float64(s.pcg.Uint64()>>11) / (1 << 53) }

// chance is true with probability p. It draws only when the answer is open.
func (s *source) chance(p float64) bool { return p > 0 && (p >= 1 || s.unit() < p) }
