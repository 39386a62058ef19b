package ricart

import (
	"slices"
	"time"
)

// Request asks for a name, as the paper's process which invokes mutual exclusion does. Beyond Config.MaxNames names
// it is queued until one of them is released.
func (c *Core) Request(now time.Time, name string) {
	if c.names[name] != nil || slices.Contains(c.queued, name) {
		return
	}
	c.queued = append(c.queued, name)
	c.begin(now)
}

// begin asks all others for the queued names for which there is room.
func (c *Core) begin(now time.Time) {
	for len(c.queued) > 0 && len(c.names) < c.cfg.MaxNames && c.clock < maxTime {
		name := c.queued[0]
		c.queued = slices.Delete(c.queued, 0, 1)
		c.advance(c.clock + 1)
		r := &request{
			name:     name,
			time:     c.clock,
			answered: make([]bool, len(c.peers)),
			missing:  len(c.peers) - 1,
			deferred: make([]uint64, len(c.peers)),
			wait:     c.cfg.Resend,
			repeatAt: now.Add(c.cfg.Resend),
		}
		c.names[name] = r
		if r.missing == 0 {
			c.enter(r)
			continue
		}
		c.ask(r)
		c.wakeAt(r.repeatAt)
	}
}

// ask sends a request to all who have not answered it, and tells how many they are.
func (c *Core) ask(r *request) (asked int) {
	payload := message{kind: kindRequest, name: r.name, time: r.time}.encode()
	for place, id := range c.peers {
		if place != c.self && !r.answered[place] {
			c.out.Send(id, payload)
			asked++
		}
	}
	return asked
}

// repeat asks again. Silence is a lost request, a lost reply, a node that was down or one that has put its answer
// off: they look the same from here, so that the intervals grow.
func (c *Core) repeat(now time.Time, r *request) {
	c.resent += uint64(c.ask(r))
	r.wait = min(2*r.wait, maxWait*c.cfg.Resend)
	r.repeatAt = now.Add(r.wait)
	c.wakeAt(r.repeatAt)
}

func (c *Core) enter(r *request) {
	r.held = true
	c.fresh = append(c.fresh, r)
}

// Release leaves a name, or takes back the request for it: all who were put off get their answer.
func (c *Core) Release(now time.Time, name string) {
	if i := slices.Index(c.queued, name); i >= 0 {
		c.queued = slices.Delete(c.queued, i, i+1)
		return
	}
	r := c.names[name]
	if r == nil {
		return
	}
	delete(c.names, name)
	for place, time := range r.deferred {
		if time > 0 {
			c.reply(place, name, time)
		}
	}
	c.begin(now)
}
