package deadlock

import (
	"slices"
	"time"
)

// edge returns the version of the wait for a holder, 0 if there is none.
func (w *wait) edge(holder Process) uint64 {
	if w == nil {
		return 0
	}
	for _, e := range w.edges {
		if e.Holder == holder {
			return e.Version
		}
	}
	return 0
}

// initiate begins a computation of a process that waits: probes leave along its edges.
func (c *Core) initiate(now time.Time, w *wait) {
	w.due = now.Add(w.pause)
	w.pause = min(2*w.pause, maxBackoff*c.cfg.Resend)
	c.remind(w.due)
	number := c.number()
	for _, e := range w.edges {
		c.chase(message{kind: kindProbe, number: number, path: []Edge{e}})
	}
}

// chase takes a message and what follows from it on this node, and sends what follows elsewhere: no edge within a node
// costs a message. It is a loop, as paths within a node may be long.
func (c *Core) chase(next ...message) {
	for len(next) > 0 {
		m := next[0]
		next = next[1:]
		switch {
		case m.to().Node != c.cfg.ID:
			c.out.Send(m.to().Node, m.encode())
		case m.kind == kindProbe:
			next = append(next, c.probe(m)...)
		default:
			next = append(next, c.confirm(m)...)
		}
	}
}

// probe is the arrival of (i, j, k) at k: the last edge of the path is the one from j. The confirmation would see a grant
// too; a probe that ends here spares it.
func (c *Core) probe(m message) (next []message) {
	i, last := m.path[0].Waiter, m.path[len(m.path)-1]
	k := last.Holder
	if c.granted[pair{last.Waiter, k}] >= last.Version {
		return nil
	}
	if k == i {
		if c.cfg.unconfirmed {
			c.declare(c.waits[k], m.path)
			return nil
		}
		return []message{{kind: kindConfirm, number: m.number, path: m.path}}
	}
	w := c.waits[k]
	if w == nil || w.seen[i] >= m.number || len(m.path) >= c.cfg.MaxCycle {
		return nil
	}
	if slices.ContainsFunc(m.path, func(e Edge) bool { return e.Waiter == k }) { // seen was cleared, or reordered away
		return nil
	}
	if w.seen == nil || len(w.seen) >= maxSeen {
		w.seen = make(map[Process]uint64)
	}
	w.seen[i] = m.number
	for _, e := range w.edges {
		path := append(slices.Clip(m.path), e)
		next = append(next, message{kind: kindProbe, number: m.number, path: path})
	}
	return next
}

// confirm is the second round, at the waiter of edge m.at: the process must wait still as it did when the first round
// came, and must not have granted the edge that leads to it. It begins when the first round is over, at the initiator,
// and ends there: at that first moment every wait was there.
func (c *Core) confirm(m message) (next []message) {
	n := len(m.path)
	e, before := m.path[m.at%n], m.path[(m.at+n-1)%n]
	w := c.waits[e.Waiter]
	if w.edge(e.Holder) != e.Version || c.granted[pair{before.Waiter, before.Holder}] >= before.Version {
		return nil
	}
	if m.at == n {
		c.declare(w, m.path)
		return nil
	}
	m.at++
	return []message{m}
}

// declare tells the application, unless it was the last thing this process told.
func (c *Core) declare(w *wait, cycle Cycle) {
	if w == nil || slices.Equal(w.declared, cycle) {
		return
	}
	w.declared = cycle
	c.out.Emit(Deadlock{Initiator: cycle[0].Waiter, Cycle: slices.Clone(cycle)})
}
