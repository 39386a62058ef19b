package maekawa

import (
	"maps"
	"slices"

	"github.com/coterie-go/coterie"
)

// arbiter is what this node knows of one name as an arbiter of others.
type arbiter struct {
	holder   entry   // the request with the grant
	grant    uint64  // number of the grant, the Lamport time of giving it; 0 if nobody has it
	inquired bool    // the holder was asked to relinquish
	queue    []entry // requests that wait, the oldest first; at most one of each node
}

// entry is a request at an arbiter.
type entry struct {
	node   coterie.NodeID
	id     requestID
	failed bool // and was told so
}

// before is the order of requests: by Lamport time, then by node.
func (e entry) before(other entry) bool {
	return e.id.time < other.id.time || e.id.time == other.id.time && e.node < other.node
}

func (a *arbiter) indexOf(node coterie.NodeID) int {
	return slices.IndexFunc(a.queue, func(e entry) bool { return e.node == node })
}

func (a *arbiter) insert(e entry) {
	i := slices.IndexFunc(a.queue, e.before)
	if i < 0 {
		i = len(a.queue)
	}
	a.queue = slices.Insert(a.queue, i, e)
}

// drop forgets what a node wanted or had up to a request: it says that this is over.
func (c *Core) drop(name string, a *arbiter, node coterie.NodeID, upTo requestID) {
	if a.grant != 0 && a.holder.node == node && !a.holder.id.newer(upTo) {
		c.free(name, a)
	}
	if i := a.indexOf(node); i >= 0 && !a.queue[i].id.newer(upTo) {
		a.queue = slices.Delete(a.queue, i, i+1)
	}
}

func (c *Core) free(name string, a *arbiter) {
	a.grant, a.inquired = 0, false
	c.dirty = append(c.dirty, name) // saved with the next grant: forgetting it costs a question only
}

// onRequest queues a request, or answers one that was sent again.
func (c *Core) onRequest(from coterie.NodeID, m message) {
	a := c.arbiters[m.name]
	if a == nil {
		if len(c.arbiters) >= c.cfg.MaxNames {
			c.askForRoom()
		}
		a = &arbiter{}
		c.arbiters[m.name] = a
	}
	switch i := a.indexOf(from); {
	case a.grant != 0 && a.holder.node == from && a.holder.id == m.id:
		if m.again {
			c.remind(m.name, a)
		}
		return
	case i >= 0 && a.queue[i].id == m.id:
		if m.again {
			c.answerAgain(m.name, a, i)
		}
		return
	case a.grant != 0 && a.holder.node == from && a.holder.id.newer(m.id), i >= 0 && a.queue[i].id.newer(m.id):
		return // it is late
	}
	c.drop(m.name, a, from, m.id)
	a.insert(entry{node: from, id: m.id})
	c.settle(m.name, a)
}

// answerAgain answers a request that waits: the answer may have been lost, or the holder's release.
func (c *Core) answerAgain(name string, a *arbiter, i int) {
	if a.queue[i].failed {
		c.send(a.queue[i].node, message{kind: kindFailed, name: name, id: a.queue[i].id, again: true})
	}
	c.remind(name, a)
	if a.inquired {
		c.send(a.holder.node, message{kind: kindInquire, name: name, id: a.holder.id, number: a.grant, again: true})
	}
}

// remind sends the grant again: the holder takes it, or relinquishes it again, or releases it again if it knows nothing
// of it, as after a restart.
func (c *Core) remind(name string, a *arbiter) {
	c.send(a.holder.node, message{kind: kindGrant, name: name, id: a.holder.id, number: a.grant, again: true})
}

// askForRoom asks about one grant, in turn, whether it is still wanted. A name whose release was lost stays until
// somebody wants it again; once there are many, each new one makes the arbiter look at an old one, so that they do not
// grow without end.
func (c *Core) askForRoom() {
	first, next := "", ""
	for name := range c.arbiters {
		if first == "" || name < first {
			first = name
		}
		if name > c.cursor && (next == "" || name < next) {
			next = name
		}
	}
	if next == "" {
		next = first
	}
	c.cursor = next
	if a := c.arbiters[next]; a != nil {
		c.remind(next, a)
	}
}

// onRelinquish takes back a grant. Its request waits again, and knows that it does.
func (c *Core) onRelinquish(from coterie.NodeID, m message) {
	a := c.arbiters[m.name]
	if a == nil || a.grant == 0 || a.holder.node != from || a.holder.id != m.id || a.grant != m.number {
		return
	}
	c.free(m.name, a)
	a.insert(entry{node: from, id: m.id, failed: true})
	c.settle(m.name, a)
}

// onRelease forgets a request, and whatever its node wanted before.
func (c *Core) onRelease(from coterie.NodeID, m message) {
	if a := c.arbiters[m.name]; a != nil {
		c.drop(m.name, a, from, m.id)
		c.settle(m.name, a)
	}
}

// settle makes true what holds of an arbiter between calls: if a request waits another has the grant; the oldest that
// waits has made it inquire if it is older than that; all others that wait were told FAILED.
func (c *Core) settle(name string, a *arbiter) {
	if a.grant == 0 {
		if len(a.queue) == 0 {
			delete(c.arbiters, name)
			return
		}
		a.holder, a.grant = a.queue[0], c.advance()
		a.queue = slices.Delete(a.queue, 0, 1)
		c.dirty = append(c.dirty, name)
		c.unsaved = !c.cfg.bugs.forgetGrants || c.unsaved
		c.send(a.holder.node, message{kind: kindGrant, name: name, id: a.holder.id, number: a.grant})
	}
	for i := range a.queue {
		e := &a.queue[i]
		if i == 0 && e.before(a.holder) {
			if !a.inquired {
				a.inquired = true
				c.send(a.holder.node, message{kind: kindInquire, name: name, id: a.holder.id, number: a.grant})
			}
			continue
		}
		if !e.failed && !c.cfg.bugs.noFailed {
			e.failed = true
			c.send(e.node, message{kind: kindFailed, name: name, id: e.id})
		}
	}
}

// save makes what this node must not forget a record: its incarnation, its Lamport time, and which grants have changed.
// Every so often a record of all takes the place of those before it.
func (c *Core) save() {
	rec := record{incarnation: c.incarnation, clock: c.clock}
	names := c.dirty
	if c.records >= max(64, 2*len(c.arbiters)) {
		rec.summary = true
		names = slices.Collect(maps.Keys(c.arbiters))
		c.records = 0
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		g := savedGrant{name: name}
		if a := c.arbiters[name]; a != nil {
			g.node, g.id, g.number = a.holder.node, a.holder.id, a.grant
		}
		rec.grants = append(rec.grants, g)
	}
	c.out.Save(rec.append(nil))
	if rec.summary {
		c.out.Keep(1)
	}
	c.records++
	c.dirty = c.dirty[:0]
	c.unsaved = false
}
