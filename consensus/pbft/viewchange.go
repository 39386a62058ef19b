package pbft

import (
	"slices"
	"time"
)

// changing is what a replica does to get into the next view (§4.4).
type changing struct {
	deadline time.Time // when the view that is waited for is given up; zero until a quorum wants it
	attempts int       // view changes since something was executed
	mine     []byte    // this replica's VIEW-CHANGE
	newView  []byte    // the NEW-VIEW of the present view; nil after a restart
}

// timeout is how long is waited now: it doubles with each view that brings nothing, so that in the end a primary that
// works has the time (§4.5.2 of the TOCS version).
func (c *Core) timeout() time.Duration { return c.cfg.ViewTimeout << min(c.change.attempts, 6) }

// deadline is when the primary is given up; zero if nothing is waited for.
func (c *Core) deadline() time.Time {
	if !c.active {
		return c.change.deadline
	}
	next := c.slots[c.state.seq+1]
	if c.isPrimary() || c.stable.seq > c.state.seq || next != nil && next.decided != nil {
		return time.Time{} // the state machine, or this replica, is late, not the primary
	}
	var first time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	for i := range c.pools {
		sooner(c.pools[i].since)
	}
	if next != nil && next.pre.seq != 0 && next.pre.view == c.view {
		sooner(next.since)
	}
	if first.IsZero() {
		return first
	}
	return first.Add(c.timeout())
}

// restartTimers gives a new primary its time.
func (c *Core) restartTimers() {
	for i := range c.pools {
		if !c.pools[i].since.IsZero() {
			c.pools[i].since = c.now
		}
	}
	for _, s := range c.slots {
		if s.pre.seq != 0 {
			s.since = c.now
		}
	}
}

// startViewChange leaves the present view: from now on this replica takes part in none until the new one begins (§4.4).
func (c *Core) startViewChange(view uint64) {
	if view <= c.view {
		return
	}
	c.view, c.active = view, false
	c.change = changing{attempts: c.change.attempts + 1}
	c.metrics.ViewChanges++
	c.save(kindView, c.view, false)
	c.tellLeader()
	c.sendViewChange()
}

// sendViewChange tells everybody what this replica brings: its last stable checkpoint, and for each number above it
// the newest proof that it prepared (§4.4).
func (c *Core) sendViewChange() {
	vc := viewChange{view: c.view, from: c.me, stable: c.stable.seq, proof: c.stable.proof}
	for _, n := range c.sortedSlots() {
		if s := c.slots[n]; n > c.stable.seq && s.prepared != nil {
			vc.prepared = append(vc.prepared, s.prepared)
		}
	}
	raw := vc.unsigned()
	raw = append(raw, c.group.sign(c.cfg.Key, raw)...)
	c.change.mine = payloadOf(raw)
	c.broadcast(c.change.mine)
	c.considerNewView()
}

// handleViewChange follows f+1 others into the smallest view they want, for one of them does not lie: so nobody who
// can make progress is left behind, and nobody who lies hurries the others (§4.5.2 of the TOCS version).
func (c *Core) handleViewChange(vc *viewChange) {
	p := &c.peers[vc.from]
	if p.change != nil && p.change.view >= vc.view {
		return
	}
	p.change = vc
	var above []uint64
	for i := range c.peers {
		if w := c.peers[i].change; w != nil && w.view > c.view {
			above = append(above, w.view)
		}
	}
	if len(above) > c.group.faulty {
		c.startViewChange(slices.Min(above))
	}
	c.considerNewView()
}

// considerNewView begins the view, on its primary, when a quorum wants it; the others then wait for it no longer than
// the timeout.
func (c *Core) considerNewView() {
	if c.active {
		return
	}
	var changes []*viewChange
	for i := range c.peers {
		if vc := c.peers[i].change; vc != nil && vc.view == c.view {
			changes = append(changes, vc)
		}
	}
	if len(changes) < c.quorum() {
		return
	}
	if c.change.deadline.IsZero() {
		c.change.deadline = c.now.Add(c.timeout())
	}
	if !c.isPrimary() {
		return
	}
	nv := &newView{view: c.view, from: c.me, changes: changes[:c.quorum()]}
	for _, v := range prePreparesOf(nv.changes, c.view) {
		nv.prePrepares = append(nv.prePrepares, c.signVote(kindPrePrepare, v.view, v.seq, v.digest))
	}
	raw := nv.appendUnsigned(nil)
	raw = append(raw, c.group.sign(c.cfg.Key, raw)...)
	// What this primary now says of each number is saved with the batch, before anybody hears it.
	c.enterView(nv, payloadOf(raw))
	c.broadcast(c.change.newView)
}

// handleNewView enters the view, unless this replica is in it: then it is the primary's own mail, or repeated.
func (c *Core) handleNewView(nv *newView) {
	if nv.view < c.view {
		return
	}
	if nv.view > c.view || !c.active {
		c.enterView(nv, payloadOf(nv.raw))
	}
	for i := range nv.prePrepares {
		v := &nv.prePrepares[i]
		if s := c.slots[v.seq]; s != nil && s.pre.agrees(v) {
			s.prepares[v.from] = *v
			c.progress(v.seq)
		}
	}
}

// enterView begins a view with what its NEW-VIEW says of the numbers that may have been committed before.
func (c *Core) enterView(nv *newView, payload []byte) {
	c.view, c.active = nv.view, true
	c.change = changing{attempts: c.change.attempts, newView: payload}
	c.metrics.NewViews++
	c.save(kindView, c.view, true)
	for _, vc := range nv.changes {
		if vc.stable > c.stable.seq {
			c.becomeStable(vc.proof)
		}
	}
	c.next = max(c.stable.seq, c.state.seq) + 1
	for _, v := range nv.prePrepares {
		if !c.inWindow(v.seq) || c.bugs.newViewEmpty {
			continue
		}
		c.next = max(c.next, v.seq+1)
		s := c.slot(v.seq)
		b := c.find(v.digest)
		if b != nil {
			c.hold(b, v.seq)
		}
		if b != nil && c.batches[v.digest].pre.seq != 0 {
			c.accept(s, v, nil) // the batch is in an earlier record
		} else {
			c.accept(s, v, b)
		}
		if b != nil && !c.isPrimary() {
			c.sendPrepare(s)
		}
	}
	c.restartTimers()
	c.tellLeader()
	if !c.isPrimary() {
		for i := range c.own.sent {
			c.out.Send(c.group.ids[c.group.primary(c.view)], payloadOf(c.own.sent[i].request.raw))
		}
	}
	c.statusWant = true
}
