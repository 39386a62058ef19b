package tokenring

import "github.com/coterie-go/coterie/lock"

// settle ends a batch for a name: the token moves on if somebody ahead wants it, then it serves this node, else it
// rests; and who wants it and does not have it asks for it. Others come before a node that has just left.
func (c *Core) settle(r *ring) {
	switch {
	case r.held:
	case r.here && r.token.seq >= maxSeq-1:
		r.here = false // used up; it will be missed, and made anew
	case r.here && r.ahead > 0:
		c.pass(r)
	case r.here && r.wanted:
		c.enter(r)
	case !r.here && (r.wanted || r.ahead > 0) && !r.asked && r.promised > 0:
		c.ask(r)
	}
}

// enter makes this node the holder.
func (c *Core) enter(r *ring) {
	r.token.seq++
	r.wanted, r.held, r.asked, r.search = false, true, false, search{}
	delete(c.waiting, r.name)
	c.out.Emit(lock.Entered{Name: r.name, Token: r.token.fence()})
}

// pass gives the token to the successor. It tells how far it must go: as far as somebody is known to want it, or once
// around if that is this node.
func (c *Core) pass(r *ring) {
	next := c.neighbour(1)
	hops := r.ahead - 1
	r.ahead = 0
	if next == c.rank {
		c.settle(r) // nobody is ahead now
		return
	}
	if r.wanted {
		hops = len(c.peers) - 1
	}
	r.here, r.asked = false, r.wanted
	r.token.seq++
	c.send(next, r, message{kind: kindToken, token: r.token, to: c.known[next], hops: hops})
}

// ask sends a want against the ring.
func (c *Core) ask(r *ring) {
	back := c.neighbour(-1)
	if back == c.rank {
		return
	}
	hops := 1 + r.ahead
	r.asked = true
	c.send(back, r, message{kind: kindWant, hops: min(hops, len(c.peers)-1)})
}

// neighbour is the nearest peer in a direction that is not dead; this node if there is none.
func (c *Core) neighbour(step int) int {
	n := len(c.peers)
	for i := (c.rank + step + n) % n; i != c.rank; i = (i + step + n) % n {
		if !c.dead[i] {
			return i
		}
	}
	return c.rank
}

// onToken takes the token, unless it is a repetition, of an epoch that is over, or for an earlier life of this node.
func (c *Core) onToken(sender int, r *ring, m message) {
	switch {
	case m.to != c.incarnation:
		c.send(sender, r, r.status(0)) // so that the next one is for this life
		return
	case m.token.epoch < r.promised && !c.bugs.acceptStale, !r.token.less(m.token):
		return
	}
	c.overtaken(r, m.token.epoch)
	if m.token.epoch > r.promised {
		c.promise(r, m.token.epoch)
	}
	r.here, r.token, r.asked = true, m.token, false
	r.ahead = max(r.ahead, m.hops)
	if r.wanted {
		c.enter(r)
	}
	c.touch(r)
}

// overtaken ends a holding if there is a token of a later epoch: this node was taken for dead.
func (c *Core) overtaken(r *ring, epoch uint64) {
	if !r.here || epoch <= r.token.epoch {
		return
	}
	r.here = false
	if r.held {
		r.held, r.yield = false, 0
		c.out.Emit(lock.Forfeited{Name: r.name})
	}
}

// onWant notes that somebody ahead wants the token, and asks for it in turn.
func (c *Core) onWant(r *ring, m message) {
	r.ahead = max(r.ahead, m.hops)
	c.touch(r)
}
