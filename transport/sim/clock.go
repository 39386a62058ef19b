package sim

import (
	"fmt"
	"time"
)

// Clock is the wall clock of one node: skewed, drifting, jumping, as told. Drift is of the oscillator, so it is also in
// the now that the core sees; skew and jumps are of the wall clock alone.
type Clock struct {
	n      *node
	anchor int64 // world time at which drift was last set, nanoseconds since Config.Start
	local  int64 // the node's own time then
	ppb    int64 // drift, parts per billion
	offset int64 // of the wall clock, to the node's own time

	baseSkew, basePPB int64 // as drawn for the node
}

func (c *Clock) open(n *node) {
	c.n = n
	src := newSource(n.w.cfg.Seed, "clock", n.id, "")
	c.baseSkew = int64(float64(n.w.cfg.MaxSkew) * (2*src.unit() - 1))
	c.basePPB = int64(n.w.cfg.MaxDrift * 1000 * (2*src.unit() - 1))
	c.reset()
}

// reset sets the clock to what was drawn for the node.
func (c *Clock) reset() {
	c.setRate(c.basePPB)
	c.SetSkew(time.Duration(c.baseSkew))
}

// Now is the node's wall time.
func (c *Clock) Now() time.Time {
	return c.n.w.cfg.Start.Add(time.Duration(c.elapsed(c.n.w.now) + c.offset))
}

// Skew is how far the wall clock is ahead of the world's time.
func (c *Clock) Skew() time.Duration {
	return time.Duration(c.elapsed(c.n.w.now) + c.offset - c.n.w.now)
}

// SetSkew sets the wall clock ahead of the world's time, or behind it if d is negative.
func (c *Clock) SetSkew(d time.Duration) {
	c.offset = c.n.w.now + int64(d) - c.elapsed(c.n.w.now)
}

// Jump moves the wall clock by d, as an operator or a time server does.
func (c *Clock) Jump(d time.Duration) { c.offset += int64(d) }

// Drift is the error of the clock's rate in parts per million; positive is fast.
func (c *Clock) Drift() float64 { return float64(c.ppb) / 1000 }

// SetDrift sets the error of the clock's rate in parts per million, from -500,000 (half speed) to 1,000,000 (double).
// Real oscillators stay within 200. It panics on a value out of that range.
func (c *Clock) SetDrift(ppm float64) {
	if !validDrift(ppm) {
		panic(fmt.Sprintf("sim: drift of %v ppm", ppm))
	}
	c.setRate(int64(ppm * 1000))
}

func (c *Clock) setRate(ppb int64) {
	c.local, c.anchor, c.ppb = c.elapsed(c.n.w.now), c.n.w.now, ppb
	c.n.armWake()
}

func validDrift(ppm float64) bool { return ppm >= -500_000 && ppm <= 1_000_000 }

const billion = 1_000_000_000

// elapsed is the node's own time at a world time, in integers so that it is the same on every machine.
func (c *Clock) elapsed(at int64) int64 {
	d := at - c.anchor
	if c.ppb == 0 {
		return c.local + d
	}
	return c.local + d + d/billion*c.ppb + d%billion*c.ppb/billion
}

// worldTime is the earliest world time from now on at which the node's own time has come to local.
func (c *Clock) worldTime(local int64) int64 {
	d := local - c.local
	if c.ppb == 0 {
		return c.anchor + d
	}
	if local <= c.elapsed(c.n.w.now) {
		return c.n.w.now
	}
	rate := billion + c.ppb
	at := c.anchor + d/rate*billion + d%rate*billion/rate
	for c.elapsed(at) < local {
		at++
	}
	for at > c.n.w.now && c.elapsed(at-1) >= local {
		at--
	}
	return at
}
