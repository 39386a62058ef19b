package suzuki

import "time"

// attempt is the regeneration of a token that this node has begun.
type attempt struct {
	epoch   uint64
	ln      map[int]uint64    // of the nodes that promised: the number of their request that is satisfied
	blocked map[int]time.Time // nodes that said that they are in the critical section, and how long that counts
}

// repeat does again what a waiting request needs.
func (c *Core) repeat(now time.Time, n *name) {
	switch {
	case n.attempt != nil:
		c.reclaim(n)
		c.complete(now, n)
	case c.cfg.Lost > 0 && !n.lostAt.After(now) && n.place != here:
		c.regenerate(now, n)
	default:
		c.broadcast(c.request(n, true), &c.stats.Repeats)
		if n.place == sent { // the token that is waited for may be the one that was lost on its way from here
			c.resend(n)
		}
	}
}

// regenerate begins an attempt, in the lowest epoch of this node's own that is higher than all it knows of: epochs
// belong to nodes by their remainder. With none left, there is no regeneration any more.
func (c *Core) regenerate(now time.Time, n *name) {
	count := uint64(len(c.peers))
	epoch := (n.promised/count)*count + uint64(c.self)
	if epoch <= n.promised {
		epoch += count
	}
	if epoch > maxEpoch {
		return
	}
	c.adopt(n, epoch)
	n.attempt = &attempt{epoch: epoch, ln: make(map[int]uint64), blocked: make(map[int]time.Time)}
	c.reclaim(n)
	c.complete(now, n)
}

// reclaim asks those who have not promised.
func (c *Core) reclaim(n *name) {
	for i := range c.peers {
		if _, promised := n.attempt.ln[i]; promised || i == c.self {
			continue
		}
		c.stats.Others++
		c.send(i, message{kind: kindReclaim, name: n.name, promised: n.attempt.epoch})
	}
}

// reclaimed answers an attempt of another node. A holder keeps what it holds.
func (c *Core) reclaimed(now time.Time, n *name, from int, epoch uint64) {
	switch {
	case epoch < n.promised:
		c.notice(n, from, false)
		return
	case epoch > n.promised && n.held:
		c.notice(n, from, true)
		return
	case epoch > n.promised:
		c.adopt(n, epoch)
		n.attempt = nil
		n.lostAt = now.Add(c.cfg.Lost)
	}
	m := message{kind: kindPromise, name: n.name, promised: epoch, number: c.current()}
	if n.waiting {
		m.number, m.flag = n.rn[c.self], true
	}
	c.stats.Others++
	c.send(from, m)
}

// promise counts an answer.
func (c *Core) promise(now time.Time, n *name, from int, m message) {
	a := n.attempt
	if m.promised >= n.promised {
		delete(n.untold, from)
	}
	if a == nil || a.epoch != m.promised {
		return
	}
	n.rn[from] = max(n.rn[from], m.number)
	a.ln[from] = m.number
	if m.flag && m.number > 0 {
		a.ln[from]--
	}
	delete(a.blocked, from)
	c.complete(now, n)
}

// complete makes the token, once a majority has promised and nobody is known to be in the critical section. The requests
// of nodes that have not promised count as satisfied: they may be down, and one that is not asks anew, with another
// number, when it hears of the epoch.
func (c *Core) complete(now time.Time, n *name) {
	a := n.attempt
	if len(a.ln)+1 <= len(c.peers)/2 {
		return
	}
	for _, until := range a.blocked {
		if until.After(now) {
			return
		}
	}
	n.token = token{stamp: stamp{epoch: a.epoch}, ln: make([]uint64, len(c.peers))}
	copy(n.token.ln, n.rn)
	for i := range c.peers {
		if number, promised := a.ln[i]; promised {
			n.token.ln[i] = number
		}
	}
	n.place = here
	n.untold = make(map[int]bool)
	for i := range c.peers {
		if _, promised := a.ln[i]; !promised && i != c.self {
			n.untold[i] = true
		}
	}
	c.stats.Regenerations++
	c.enter(n)
	c.broadcast(message{kind: kindNotice, name: n.name, promised: n.promised, seen: n.seen}, &c.stats.Others)
	n.tellAt = now.Add(c.cfg.Lost)
	if len(n.untold) > 0 {
		c.wake(n.tellAt)
	}
}

// tell repeats the news of an epoch, every Lost, to those who did not promise it: one of them may still have the old
// token and enter with it, and would never hear of the new one if nobody asked for it. Who knows answers with a promise.
func (c *Core) tell(now time.Time, n *name) {
	if len(n.untold) == 0 {
		return
	}
	if !n.tellAt.After(now) {
		n.tellAt = now.Add(c.cfg.Lost)
		for i := range c.peers {
			if n.untold[i] {
				c.notice(n, i, false)
				c.stats.Others++
				c.send(i, message{kind: kindReclaim, name: n.name, promised: n.promised})
			}
		}
	}
	c.wake(n.tellAt)
}
