package maekawa

import (
	"maps"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
)

// requestID names a request of a node: those of later incarnations are newer, and within one the Lamport time rises.
type requestID struct {
	incarnation uint64
	time        uint64
}

func (a requestID) newer(b requestID) bool {
	return a.incarnation > b.incarnation || a.incarnation == b.incarnation && a.time > b.time
}

// request is what this node wants or holds of one name.
type request struct {
	id    requestID
	votes []vote // one for each node of the quorum
	token uint64 // not 0 once it has entered
	told  bool   // of the entry
	again time.Time
}

// vote is what a request knows of one arbiter.
type vote struct {
	grant     uint64 // number of the grant it has; 0 if none
	yielded   uint64 // number of the last grant it has relinquished: what is not newer does not count
	failed    bool   // the arbiter prefers another
	inquiring bool   // the arbiter would like its grant back
}

// Request asks for a name. One beyond Config.MaxNames waits until this node has left another. A name of more than
// MaxNameLen bytes is never entered.
func (c *Core) Request(now time.Time, name string) {
	switch {
	case c.requests[name] != nil || len(name) > MaxNameLen || slices.Contains(c.later, name):
	case len(c.requests) >= c.cfg.MaxNames:
		c.later = append(c.later, name)
	default:
		c.ask(now, name)
	}
}

func (c *Core) ask(now time.Time, name string) {
	c.start()
	r := &request{id: requestID{c.incarnation, c.advance()}, votes: make([]vote, len(c.quorum)), again: now.Add(c.cfg.Resend)}
	c.requests[name] = r
	c.waiting++
	if c.sweep.IsZero() {
		c.sweep = r.again
	}
	for _, to := range c.quorum {
		c.send(to, message{kind: kindRequest, name: name, id: r.id})
	}
}

// Release leaves a name or takes back its request.
func (c *Core) Release(now time.Time, name string) {
	r := c.requests[name]
	if r == nil {
		c.later = slices.DeleteFunc(c.later, func(other string) bool { return other == name })
		return
	}
	delete(c.requests, name)
	if r.token == 0 {
		c.waiting--
	}
	for _, to := range c.quorum {
		c.send(to, message{kind: kindRelease, name: name, id: r.id})
	}
	if len(c.later) > 0 {
		next := c.later[0]
		c.later = slices.Delete(c.later, 0, 1)
		c.ask(now, next)
	}
}

// onGrant counts a grant. One for a request that is over, or that was before a restart, is given back.
func (c *Core) onGrant(from coterie.NodeID, m message) {
	r := c.requests[m.name]
	if r == nil || r.id != m.id {
		c.send(from, message{kind: kindRelease, name: m.name, id: m.id, again: m.again})
		return
	}
	v := &r.votes[c.arbiterIndex(from)]
	if m.number <= v.yielded && !c.cfg.bugs.countYielded {
		if m.again { // the relinquishment was lost; without again this is a grant that its inquiry has overtaken
			c.send(from, message{kind: kindRelinquish, name: m.name, id: m.id, number: m.number, again: true})
		}
		return
	}
	c.granted(m.name, r, v, m.number)
}

func (c *Core) granted(name string, r *request, v *vote, number uint64) {
	v.grant, v.failed = number, false
	if r.token != 0 {
		return
	}
	for i := range r.votes {
		if r.votes[i].grant == 0 {
			return
		}
	}
	r.token = c.advance()
	c.waiting--
	c.unsaved = true // the token, which must be known to this node when it tells others, after a restart, that it holds nothing
	c.entered = append(c.entered, name)
}

// onInquire relinquishes a grant if the request is held up elsewhere. An inquiry may overtake the grant, and then stands
// for it too.
func (c *Core) onInquire(from coterie.NodeID, m message) {
	r := c.requests[m.name]
	if r == nil || r.id != m.id {
		return // the release is on its way, or else the grant will be sent again
	}
	v := &r.votes[c.arbiterIndex(from)]
	if m.number <= v.yielded {
		return
	}
	if v.grant != m.number {
		c.granted(m.name, r, v, m.number)
	}
	if r.token == 0 {
		v.inquiring = true
		c.relinquish(m.name, r)
	}
}

// onFailed notes that an arbiter prefers another.
func (c *Core) onFailed(from coterie.NodeID, m message) {
	r := c.requests[m.name]
	if r == nil || r.id != m.id {
		return
	}
	v := &r.votes[c.arbiterIndex(from)]
	if v.grant != 0 {
		return // it is older than the grant
	}
	v.failed = true
	c.relinquish(m.name, r)
}

// relinquish gives back the grants that were inquired about, if another arbiter has failed the request.
func (c *Core) relinquish(name string, r *request) {
	if !slices.ContainsFunc(r.votes, func(v vote) bool { return v.failed }) {
		return
	}
	for i := range r.votes {
		v := &r.votes[i]
		if v.grant == 0 || !v.inquiring {
			continue
		}
		c.send(c.quorum[i], message{kind: kindRelinquish, name: name, id: r.id, number: v.grant})
		*v = vote{yielded: v.grant, failed: true}
	}
}

// askAgain sends the requests that have waited for long to those arbiters that have not granted. This alone makes good
// whatever was lost, here and there: an arbiter has no timers.
func (c *Core) askAgain(now time.Time) {
	c.sweep = now.Add(c.cfg.Resend)
	for _, name := range slices.Sorted(maps.Keys(c.requests)) {
		r := c.requests[name]
		if r.token != 0 || now.Before(r.again) {
			continue
		}
		r.again = now.Add(c.cfg.Resend)
		for i, v := range r.votes {
			if v.grant == 0 {
				c.send(c.quorum[i], message{kind: kindRequest, name: name, id: r.id, again: true})
			}
		}
	}
}

// arbiterIndex is the place of a node in the quorum, -1 if it is not there.
func (c *Core) arbiterIndex(id coterie.NodeID) int { return slices.Index(c.quorum, id) }
