package tokenring

import "time"

// search is the state of a node that waits for a token: it waits, asks all where it is, waits again, asks again, and
// if it has not moved claims a new epoch.
type search struct {
	at     time.Time     // when to go on
	wait   time.Duration // before the next time; grows
	number uint64        // of the probe under way; 0 is none
	answer []bool        // which peers have answered the probe, or promised
	found  bool          // one of them has it
	seen   position      // the newest that they have seen
	top    uint64        // the highest epoch that they have promised
	before *position     // the result of the probe before
	claim  uint64        // the epoch claimed; 0 is none
}

// searchOn comes when a node has waited too long.
func (c *Core) searchOn(now time.Time, r *ring) {
	s := &r.search
	r.asked = false // the want may be lost as well
	if s.claim != 0 {
		c.later(now, s)
		for i := range c.peers {
			if !s.answer[i] && !c.dead[i] {
				c.send(i, r, message{kind: kindClaim, epoch: s.claim})
			}
		}
		c.concludeClaim(r)
		return
	}
	c.probe(now, r)
}

func (c *Core) later(now time.Time, s *search) {
	s.at = now.Add(s.wait)
	s.wait = min(2*s.wait, maxBackoff*c.cfg.Resend)
}

// probe asks everybody where the token is.
func (c *Core) probe(now time.Time, r *ring) {
	s := &r.search
	c.later(now, s)
	c.probes++
	s.number = c.incarnation<<32 + c.probes // never used before, also not before a restart
	s.answer = make([]bool, len(c.peers))
	s.answer[c.rank] = true
	s.found, s.seen, s.top = false, r.token, max(s.top, r.promised)
	for i := range c.peers {
		if i != c.rank && !c.dead[i] {
			c.send(i, r, message{kind: kindProbe, number: s.number})
		}
	}
	c.concludeProbe(now, r)
}

// status says what this node knows of the token.
func (r *ring) status(number uint64) message {
	return message{kind: kindStatus, number: number, here: r.here, epoch: r.promised, token: r.token}
}

// onProbe answers, and sends the token to who asked if it is here.
func (c *Core) onProbe(sender int, r *ring, m message) {
	c.send(sender, r, r.status(m.number))
	if r.here {
		n := len(c.peers)
		r.ahead = max(r.ahead, (sender-c.rank+n)%n)
		c.touch(r)
	}
}

func (c *Core) onStatus(now time.Time, sender int, r *ring, m message) {
	c.overtaken(r, m.token.epoch)
	s := &r.search
	if s.number == 0 || m.number != s.number {
		return
	}
	s.answer[sender] = true
	s.found = s.found || m.here
	s.top = max(s.top, m.epoch)
	if s.seen.less(m.token) {
		s.seen = m.token
	}
	c.concludeProbe(now, r)
}

// enough reports whether a majority of all, and all that are not dead, have answered.
func (c *Core) enough(answer []bool) bool {
	count := 0
	for i, yes := range answer {
		if yes {
			count++
		} else if !c.dead[i] {
			return false
		}
	}
	return 2*count > len(c.peers)
}

// concludeProbe claims a new epoch if the token is lost, or was never made.
func (c *Core) concludeProbe(now time.Time, r *ring) {
	s := &r.search
	if !r.wanted || r.here || s.number == 0 || !c.enough(s.answer) {
		return
	}
	s.number = 0
	rests := s.before != nil && *s.before == s.seen
	never := s.top == 0
	seen := s.seen
	s.before = &seen
	if s.found || !rests && !never {
		return
	}
	c.claim(now, r)
}

// claim asks everybody to promise a new epoch, the next of those that are this node's.
func (c *Core) claim(now time.Time, r *ring) {
	s, n := &r.search, uint64(len(c.peers))
	epoch := (s.top/n+1)*n + uint64(c.rank)
	if epoch > maxEpoch {
		return
	}
	c.promise(r, epoch)
	s.claim = epoch
	s.answer = make([]bool, n)
	s.answer[c.rank] = true
	s.wait = c.cfg.Resend
	c.later(now, s)
	for i := range c.peers {
		if i != c.rank && !c.dead[i] {
			c.send(i, r, message{kind: kindClaim, epoch: epoch})
		}
	}
	c.concludeClaim(r)
}

// promise refuses what is older than an epoch from now on, the token that is here as well.
func (c *Core) promise(r *ring, epoch uint64) {
	if epoch > r.promised {
		r.promised = epoch
		c.save(r)
	}
	if r.here && r.token.epoch < epoch {
		r.here = false
	}
}

// onClaim promises, unless this node has promised a later epoch or uses the token.
func (c *Core) onClaim(now time.Time, sender int, r *ring, m message) {
	switch {
	case m.epoch < r.promised:
		c.send(sender, r, message{kind: kindRefuse, number: m.epoch, epoch: r.promised})
		return
	case m.epoch > r.promised && r.held:
		r.yield = max(r.yield, m.epoch) // Release promises it
		return
	}
	if m.epoch > r.promised {
		c.promise(r, m.epoch)
		c.giveUp(now, r)
	}
	c.send(sender, r, message{kind: kindPromise, epoch: m.epoch})
}

// giveUp ends a claim that cannot succeed, and looks again later than the peers before this one in the ring.
func (c *Core) giveUp(now time.Time, r *ring) {
	s := &r.search
	if s.claim == 0 {
		return
	}
	*s = search{top: max(s.top, r.promised), wait: c.cfg.Resend, at: now.Add(c.cfg.Resend * time.Duration(1+c.rank))}
}

func (c *Core) onPromise(sender int, r *ring, m message) {
	if r.search.claim != 0 && r.search.claim == m.epoch {
		r.search.answer[sender] = true
		c.concludeClaim(r)
	}
}

func (c *Core) onRefuse(now time.Time, r *ring, m message) {
	if r.search.claim != 0 && r.search.claim == m.number {
		r.search.top = max(r.search.top, m.epoch)
		c.giveUp(now, r)
	}
}

// concludeClaim makes the token when nobody can have one.
func (c *Core) concludeClaim(r *ring) {
	s := &r.search
	if s.claim == 0 || !c.enough(s.answer) {
		return
	}
	r.here, r.token, r.asked = true, position{epoch: s.claim}, false
	c.enter(r) // it is claimed only while it is wanted
}
