package suzuki

import (
	"slices"
	"time"

	"github.com/coterie-go/coterie/lock"
)

// Request asks for a name. It enters at once, with no message, if the token is here; otherwise all others are asked. A
// name beyond Config.MaxNames is never entered.
func (c *Core) Request(now time.Time, s string) {
	c.start()
	n := c.name(s)
	if n == nil {
		c.stats.NoRoom++
		return
	}
	if n.waiting || n.held {
		return
	}
	c.number(n)
	n.waiting = true
	if n.place == here {
		c.enter(n)
	} else {
		c.broadcast(c.request(n, false), &c.stats.Requests)
	}
	if !n.waiting {
		return
	}
	n.pause = c.cfg.Resend
	n.repeatAt = now.Add(n.pause)
	n.lostAt = now.Add(c.cfg.Lost)
	c.wake(n.repeatAt)
}

// Release leaves a name or takes a request back. A token that comes all the same is passed on.
func (c *Core) Release(_ time.Time, s string) {
	n := c.names[s]
	if n == nil {
		return
	}
	n.waiting, n.attempt = false, nil
	if n.held {
		n.held = false
		c.leave(n)
	}
}

// number gives a new number to this node's request.
func (c *Core) number(n *name) {
	c.counter++
	n.rn[c.self] = c.current()
}

// current is the highest request number that this node has used, for any name and ever.
func (c *Core) current() uint64 { return c.incarnation<<32 | c.counter }

func (c *Core) request(n *name, again bool) message {
	return message{kind: kindRequest, name: n.name, number: n.rn[c.self], promised: n.promised, seen: n.seen, flag: again}
}

// enter is the beginning of the critical section, with the token here.
func (c *Core) enter(n *name) {
	if !c.count(n) {
		return
	}
	n.waiting, n.held, n.attempt = false, true, nil
	c.out.Emit(lock.Entered{Name: n.name, Token: n.token.pack()})
}

// count gives the token here its next number. One that has none left is given up, to be regenerated.
func (c *Core) count(n *name) bool {
	c.change(n)
	if n.token.seq >= maxSeq {
		n.place, n.token = elsewhere, token{}
		return false
	}
	n.token.seq++
	n.seen = n.token.stamp
	return true
}

// leave is the end of the critical section, and what is done with a token that nobody wants here: the nodes whose
// requests are outstanding join the queue, counted from the next one on, and its head gets the token.
func (c *Core) leave(n *name) {
	t := &n.token
	t.ln[c.self] = c.current() // also for what this node asked before a crash
	for i := 1; i < len(c.peers); i++ {
		j := (c.self + i) % len(c.peers)
		if n.rn[j] > t.ln[j] && !slices.Contains(t.queue, j) {
			t.queue = append(t.queue, j)
		}
	}
	if len(t.queue) > 0 {
		c.pass(n)
	}
}

// pass sends the token to the head of its queue and keeps a copy.
func (c *Core) pass(n *name) {
	if !c.count(n) {
		return
	}
	n.place, n.to = sent, n.token.queue[0]
	n.token.queue = slices.Clone(n.token.queue[1:])
	c.stats.Tokens++
	c.send(n.to, message{kind: kindToken, name: n.name, token: n.token})
}

// requested takes the request of another node.
func (c *Core) requested(now time.Time, n *name, from int, m message) {
	n.rn[from] = max(n.rn[from], m.number)
	c.learn(now, n, from, m.promised, m.seen)
	if m.promised < n.promised {
		c.notice(n, from, false)
	}
	switch {
	case n.place == here && !n.held && n.rn[from] > n.token.ln[from]:
		c.leave(n)
	case m.flag && n.place == here:
		c.notice(n, from, true)
	case m.flag && n.place == sent:
		c.resend(n)
	}
}

// resend sends the copy of a token that was passed on.
func (c *Core) resend(n *name) {
	c.stats.Repeats++
	c.send(n.to, message{kind: kindToken, name: n.name, token: n.token})
}

// received takes the token, if it is newer than all that were seen. The first one of an epoch may find an older one
// held here, whose time is over.
func (c *Core) received(n *name, from int, t token) {
	if t.epoch < n.promised || !n.seen.less(t.stamp) && c.bug != bugTakeOld {
		c.notice(n, from, false)
		return
	}
	c.forfeit(n)
	if t.epoch > n.promised {
		n.untold = nil
	}
	n.promised, n.seen = t.epoch, t.stamp
	n.place, n.token = here, t
	n.token.queue = slices.DeleteFunc(n.token.queue, func(i int) bool { return i == c.self })
	n.attempt = nil
	c.change(n)
	if n.waiting {
		c.enter(n)
	} else {
		c.leave(n)
	}
}

func (c *Core) forfeit(n *name) {
	if n.held {
		n.held = false
		c.out.Emit(lock.Forfeited{Name: n.name})
	}
}

// notice tells another node what is known here.
func (c *Core) notice(n *name, to int, alive bool) {
	c.stats.Others++
	c.send(to, message{kind: kindNotice, name: n.name, promised: n.promised, seen: n.seen, flag: alive})
}

func (c *Core) noticed(now time.Time, n *name, from int, m message) {
	c.learn(now, n, from, m.promised, m.seen)
	if !m.flag {
		return
	}
	n.lostAt = now.Add(c.cfg.Lost)
	if n.attempt != nil {
		n.attempt.blocked[from] = n.lostAt
	}
}

// learn takes what another node knows: that the token of the copy here has arrived, or that its epoch is over. A
// promise alone does not end a holding: the token that it is for may never be made.
func (c *Core) learn(now time.Time, n *name, from int, promised uint64, seen stamp) {
	if n.place == sent && from != c.self && !seen.less(n.token.stamp) {
		n.place, n.token = elsewhere, token{}
	}
	promised = max(promised, seen.epoch)
	if promised <= n.promised || n.held && seen.epoch <= n.token.epoch {
		return
	}
	c.forfeit(n)
	c.adopt(n, promised)
	if !n.waiting {
		return
	}
	// The token of the new epoch may take the request for one that is satisfied: it needs a new number.
	n.attempt = nil
	n.lostAt = now.Add(c.cfg.Lost)
	c.number(n)
	c.broadcast(c.request(n, true), &c.stats.Repeats)
}

// adopt refuses all tokens of epochs lower than a new one from now on, one that is here among them.
func (c *Core) adopt(n *name, epoch uint64) {
	n.promised = epoch
	n.place, n.token = elsewhere, token{}
	n.untold = nil
	c.change(n)
}
