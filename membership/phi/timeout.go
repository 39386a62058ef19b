package phi

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// Fixed suspects a peer that has been silent for a fixed time. Make it by NewFixed. It is not safe for concurrent use.
type Fixed struct {
	timeout time.Duration
	last    time.Time
	begun   bool
}

var _ Detector = (*Fixed)(nil)

// NewFixed makes a detector with a time-out, which must be positive.
func NewFixed(timeout time.Duration) (*Fixed, error) {
	if timeout <= 0 {
		return nil, fmt.Errorf("phi: a time-out of %v is not positive", timeout)
	}
	return &Fixed{timeout: timeout}, nil
}

// Heartbeat tells of a heartbeat that arrived.
func (f *Fixed) Heartbeat(at time.Time) {
	if !f.begun || at.After(f.last) {
		f.begun, f.last = true, at
	}
}

// Level is the silence as a part of the time-out.
func (f *Fixed) Level(at time.Time) float64 {
	if !f.begun {
		return 0
	}
	return max(0, float64(at.Sub(f.last))/float64(f.timeout))
}

// Deadline is the last heartbeat and the time-out.
func (f *Fixed) Deadline() time.Time {
	if !f.begun {
		return time.Time{}
	}
	return f.last.Add(f.timeout)
}

// ChenConfig configures a Chen detector.
type ChenConfig struct {
	Interval time.Duration // required: eta, between heartbeats as they are sent
	Margin   time.Duration // alpha, beyond the time at which the next heartbeat is expected; default Interval
	Window   int           // heartbeats that the expectation is made from; default 100
}

// Chen is the detector NFD-E of Chen, Toueg and Aguilera (section VI): it expects the next heartbeat at the mean of the
// last ones, each moved on by the intervals since, and suspects when Margin more has passed. A crash is detected
// within Interval + Margin + the mean delay. It is not safe for concurrent use.
type Chen struct {
	cfg    ChenConfig
	base   time.Time // of the offsets
	last   time.Time
	number uint64 // of the newest heartbeat
	begun  bool
	window window // arrival times less number*Interval, from base
}

var _ Detector = (*Chen)(nil)

// NewChen makes a detector that has heard nothing yet. The error names the field of ChenConfig that is wrong.
func NewChen(cfg ChenConfig) (*Chen, error) {
	cfg.Margin = cmp.Or(cfg.Margin, cfg.Interval)
	cfg.Window = cmp.Or(cfg.Window, 100)
	switch {
	case cfg.Interval <= 0:
		return nil, errors.New("phi: ChenConfig.Interval is required")
	case cfg.Margin < 0:
		return nil, errors.New("phi: ChenConfig.Margin is negative")
	case cfg.Window < 1 || cfg.Window > 1<<20:
		return nil, fmt.Errorf("phi: ChenConfig.Window is %d, not 1 to %d", cfg.Window, 1<<20)
	}
	return &Chen{cfg: cfg, window: newWindow(cfg.Window)}, nil
}

// Heartbeat tells of a heartbeat without a number: it is taken to be so many after the one before as intervals, rounded,
// have passed. If heartbeats have numbers use Numbered.
func (c *Chen) Heartbeat(at time.Time) {
	steps := uint64(1)
	if c.begun && at.After(c.last) {
		steps = max(1, uint64((at.Sub(c.last)+c.cfg.Interval/2)/c.cfg.Interval))
	}
	c.Numbered(at, c.number+steps)
}

// Numbered tells of a heartbeat with its number, which the sender raises by one each Interval. One that is not newer
// than the newest changes nothing.
func (c *Chen) Numbered(at time.Time, number uint64) {
	switch {
	case !c.begun:
		c.begun, c.base, c.number = true, at, number-1
	case number <= c.number || at.Before(c.last):
		return
	}
	// The base moves on with the number, so that offsets stay as small as the delays differ.
	steps := time.Duration(number - c.number)
	if gap := at.Sub(c.last); steps > 1<<20 || gap > 1<<20*c.cfg.Interval { // not a gap, another life
		c.window = newWindow(c.cfg.Window)
		c.base = at
	} else if !c.last.IsZero() {
		c.base = c.base.Add(steps * c.cfg.Interval)
	}
	c.number, c.last = number, at
	c.window.add(at.Sub(c.base))
}

// Deadline is when the next heartbeat is expected, and Margin.
func (c *Chen) Deadline() time.Time {
	if !c.begun {
		return time.Time{}
	}
	return c.base.Add(time.Duration(c.window.mean()) + c.cfg.Interval + c.cfg.Margin)
}

// Level is the silence as a part of that between the last heartbeat and the Deadline.
func (c *Chen) Level(at time.Time) float64 {
	if !c.begun {
		return 0
	}
	return max(0, float64(at.Sub(c.last))/float64(max(c.Deadline().Sub(c.last), 1)))
}
