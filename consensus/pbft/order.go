package pbft

import (
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/internal/wire"
)

// Propose asks to have a command executed. Every replica takes proposals, and sends them to the primary. A command that
// no driver makes, see consensus.CheckCommand, is Rejected.
func (c *Core) Propose(now time.Time, id uint64, command []byte) {
	c.enter(now)
	err := consensus.CheckCommand(command)
	switch {
	case len(command) > c.cfg.MaxCommandBytes:
		err = ErrTooLarge
	case err == nil && c.own.pending > 0 && c.own.pending+len(command) > c.cfg.MaxPendingBytes:
		err = coterie.ErrOverloaded
	}
	if err != nil {
		c.out.Emit(consensus.Rejected{ID: id, Err: err})
		return
	}
	f := &c.own.fresh
	f.ids = append(f.ids, id)
	f.commands = append(f.commands, command)
	f.bytes += len(command)
	c.own.pending += len(command)
}

// Read asks for a point in the log: a request without commands, or the next one with them, is ordered after the call,
// and the state behind it is fit to answer. A replica's own word on how far the log has come is not enough, for its
// peers may lie; the paper's clients compare 2f+1 answers instead (§5.1.3 of the TOCS version).
func (c *Core) Read(now time.Time, id uint64) {
	c.enter(now)
	c.own.fresh.reads = append(c.own.fresh.reads, id)
}

// sendOwn makes requests of the commands that wait.
func (c *Core) sendOwn() {
	for len(c.own.sent) < ownInflight {
		if c.active && c.isPrimary() && len(c.own.sent) > 0 && c.next > c.state.seq+uint64(c.cfg.MaxInflight) {
			return // what comes until it can be ordered goes with it
		}
		f := &c.own.fresh
		if len(f.commands) == 0 && len(f.reads) == 0 {
			return
		}
		n, size := 0, 0
		for n < len(f.commands) && (n == 0 || size+len(f.commands[n]) <= c.cfg.MaxBatchBytes) {
			size += len(f.commands[n])
			n++
		}
		o := outgoing{proposal: proposal{ids: f.ids[:n:n], commands: f.commands[:n:n], bytes: size}}
		if n == len(f.commands) {
			o.reads = f.reads
			*f = proposal{}
		} else {
			f.ids, f.commands, f.bytes = f.ids[n:], f.commands[n:], f.bytes-size
		}
		c.own.num++
		q := &request{from: c.me, life: c.life, num: c.own.num, commands: o.commands, bytes: size}
		q.raw = q.appendUnsigned(make([]byte, 0, size+5*n+128))
		q.signed = len(q.raw)
		q.raw = append(q.raw, c.group.sign(c.cfg.Key, q.raw)...)
		o.request = q
		// What is kept long must not pin the driver's buffer: the commands are those in raw from here on.
		if own, err := readRequest(q.raw); err == nil {
			o.request = own
		}
		o.commands = nil
		if len(c.own.sent) == 0 {
			c.own.resendAt = c.now.Add(c.cfg.ViewTimeout / 2)
		}
		c.own.sent = append(c.own.sent, o)
		c.receive(o.request)
		if !c.isPrimary() && c.active {
			c.out.Send(c.group.ids[c.group.primary(c.view)], payloadOf(q.raw))
		}
	}
}

// resendOwn tells everybody of requests that take too long, so that they watch the primary too (§4.1).
func (c *Core) resendOwn() {
	if len(c.own.sent) == 0 || c.now.Before(c.own.resendAt) {
		return
	}
	c.own.resendAt = c.now.Add(c.cfg.ViewTimeout / 2)
	for i := range c.own.sent {
		c.broadcastOthers(payloadOf(c.own.sent[i].request.raw))
	}
}

// handleRequest takes a request. A backup that gets one from its own replica passes it on: a replica that tells only
// backups would make them suspect a primary that knows of nothing (§4.4).
func (c *Core) handleRequest(from int, q *request) {
	if q.from == c.me || !c.receive(q) {
		return
	}
	if c.active && !c.isPrimary() && from == q.from {
		c.out.Send(c.group.ids[c.group.primary(c.view)], payloadOf(q.raw))
	}
}

// receive puts a request into its replica's pool, and reports whether it is new there.
func (c *Core) receive(q *request) bool {
	p, o := &c.pools[q.from], c.state.origins[q.from]
	if q.life < o.life || q.life < p.life {
		return false
	}
	next := uint64(1)
	if q.life == o.life {
		next = o.next
	}
	if q.num < next || q.num >= next+poolWindow {
		return false
	}
	if q.life > p.life || p.requests == nil {
		*p = pool{life: q.life, requests: map[uint64]*request{}}
	}
	if p.requests[q.num] != nil {
		return false
	}
	p.requests[q.num] = q
	if q.num == next {
		p.since = c.now
	}
	return true
}

// settlePool forgets the requests that have been executed, and begins to wait for the next.
func (c *Core) settlePool(from int) {
	p, o := &c.pools[from], c.state.origins[from]
	if p.requests == nil || p.life > o.life {
		return
	}
	if p.life < o.life {
		*p = pool{}
		return
	}
	for num := range p.requests {
		if num < o.next {
			delete(p.requests, num)
		}
	}
	p.since = time.Time{}
	if p.requests[o.next] != nil {
		p.since = c.now
	}
}

// order assigns numbers to the requests that wait, on a primary (§4.2).
func (c *Core) order() {
	if !c.active || !c.isPrimary() {
		return
	}
	for c.next <= c.state.seq+uint64(c.cfg.MaxInflight) && c.inWindow(c.next) {
		requests, ok := c.gather()
		if !ok || len(requests) == 0 {
			return
		}
		b := c.hold(newBatch(requests), c.next)
		v := c.signVote(kindPrePrepare, c.view, c.next, b.digest)
		c.next++
		s := c.slot(v.seq)
		c.accept(s, v, b)
		c.broadcast(c.prePrepare(v, b))
	}
}

// gather returns the requests of the next batch, in turn one of each replica; false if it is not known what was
// assigned before.
func (c *Core) gather() (requests []*request, ok bool) {
	origins := append([]origin(nil), c.state.origins...)
	for n := c.state.seq + 1; n < c.next; n++ {
		s := c.slots[n]
		if s == nil {
			return nil, false
		}
		d := s.pre.digest
		if s.decided != nil {
			d = s.decided[0].digest
		}
		b := c.find(d)
		if b == nil || s.pre.seq == 0 && s.decided == nil {
			return nil, false
		}
		for _, q := range b.requests {
			admit(origins, q)
		}
	}
	size := 0
	for more := true; more; {
		more = false
		for k := range c.pools {
			p := &c.pools[(k+int(c.next))%len(c.pools)]
			if p.requests == nil {
				continue
			}
			from := (k + int(c.next)) % len(c.pools)
			next := uint64(1)
			if p.life == origins[from].life {
				next = origins[from].next
			}
			q := p.requests[next]
			if q == nil || size > 0 && size+q.bytes > c.cfg.MaxBatchBytes || !admit(origins, q) {
				continue
			}
			size += q.bytes
			requests = append(requests, q)
			more = true
		}
	}
	return requests, true
}

// prePrepare is the message: the batch stands behind what is signed.
func (c *Core) prePrepare(v vote, b *batch) []byte {
	payload := make([]byte, 0, len(b.raw)+minVote+32)
	payload = v.append(append(payload, format))
	return append(payload, b.raw...)
}

// handlePrePrepare accepts a batch for a number unless another was accepted for it in this view (§4.2). One of another
// view may bring a batch that is missed.
func (c *Core) handlePrePrepare(v *vote, b *batch) {
	c.found(b)
	if v.view == c.view && c.active && c.inWindow(v.seq) {
		s := c.slot(v.seq)
		if s.pre.seq == 0 || s.pre.view != v.view {
			b = c.hold(b, v.seq)
			c.accept(s, *v, b)
			if !c.isPrimary() {
				c.sendPrepare(s)
			}
		}
		if s.pre.agrees(v) {
			c.hold(b, v.seq)
			s.prepares[v.from] = *v
		}
	}
	c.progress(v.seq)
}

// found takes a batch that is missed, wherever it comes from.
func (c *Core) found(b *batch) {
	if c.find(b.digest) != nil {
		return
	}
	for _, n := range c.sortedSlots() {
		s := c.slots[n]
		wanted := s.decided != nil && s.decided[0].digest == b.digest || s.prepared != nil && s.prepared[0].digest == b.digest
		if s.pre.seq != 0 && s.pre.digest == b.digest {
			wanted = true
			c.hold(b, n)
			c.batches[b.digest].pre = s.pre
			c.saveAccepted(s, b)
			if s.pre.view == c.view && c.active && !c.isPrimary() {
				c.sendPrepare(s)
			}
		}
		if wanted {
			c.hold(b, n)
			c.progress(n)
		}
	}
}

// accept makes it durable that this replica has accepted a pre-prepare: from now on it signs nothing else for this
// number in this view, also after a restart.
func (c *Core) accept(s *slot, v vote, b *batch) {
	s.pre, s.committed, s.since = v, false, c.now
	if b != nil {
		c.batches[b.digest].pre = v
	}
	c.saveAccepted(s, b)
}

func (c *Core) saveAccepted(s *slot, b *batch) {
	if c.bugs.noSaveAccepted {
		return
	}
	size := minVote + 32
	if b != nil {
		size += len(b.raw)
	}
	c.saveRecord(appendAccepted(make([]byte, 0, size), &s.pre, b))
}

func appendAccepted(r []byte, v *vote, b *batch) []byte {
	r = v.append(append(r, format, byte(kindAccepted)))
	r = wire.AppendBool(r, b != nil)
	if b != nil {
		r = append(r, b.raw...)
	}
	return r
}

// sendPrepare says that this replica accepts the pre-prepare of a slot.
func (c *Core) sendPrepare(s *slot) {
	v := c.signVote(kindPrepare, s.pre.view, s.pre.seq, s.pre.digest)
	c.broadcast(payloadOf(v.append(nil)))
}

func (c *Core) handlePrepare(v *vote) {
	if v.view != c.view || !c.active || !c.inWindow(v.seq) {
		return
	}
	c.slot(v.seq).prepares[v.from] = *v
	c.progress(v.seq)
}

func (c *Core) handleCommit(v *vote) {
	if v.seq <= c.state.seq || v.seq > c.stable.seq+c.group.window {
		return
	}
	s := c.slot(v.seq)
	if old := &s.commits[v.from]; old.seq == 0 || old.view <= v.view {
		*old = *v
	}
	c.progress(v.seq)
}

// matching returns the votes that agree with v.
func (c *Core) matching(votes []vote, v *vote) certificate {
	var found certificate
	for i := range votes {
		if votes[i].seq != 0 && (votes[i].agrees(v) || c.bugs.countAny) {
			found = append(found, votes[i])
		}
	}
	return found
}

func (c *Core) count(votes []vote, v *vote) int {
	n := 0
	for i := range votes {
		if votes[i].seq != 0 && (votes[i].agrees(v) || c.bugs.countAny) {
			n++
		}
	}
	return n
}

// progress looks whether a number has prepared, and whether it is committed (§4.2).
func (c *Core) progress(seq uint64) {
	s := c.slots[seq]
	if s == nil {
		return
	}
	if s.pre.seq != 0 && s.pre.view == c.view && c.active && !s.committed && c.find(s.pre.digest) != nil &&
		s.prepares[c.group.primary(c.view)].agrees(&s.pre) && c.count(s.prepares, &s.pre) >= c.quorum() {
		c.prepared(s)
	}
	if s.decided != nil {
		return
	}
	// A quorum of commits is proof alone: f+1 of those who sent them have seen it prepared.
	for i := range s.commits {
		if v := &s.commits[i]; v.seq != 0 && c.count(s.commits, v) >= c.quorum() {
			s.decided = c.matching(s.commits, v)
			return
		}
	}
}

// prepared saves the proof, then commits.
func (c *Core) prepared(s *slot) {
	votes := slices.DeleteFunc(c.matching(s.prepares, &s.pre), func(v vote) bool { return v.kind == kindPrePrepare })
	cert := append(certificate{s.prepares[c.group.primary(c.view)]}, votes...)
	s.prepared, s.committed = cert[:min(len(cert), c.quorum())], true
	if !c.bugs.noSavePrepared {
		c.saveRecord(s.prepared.append([]byte{format, byte(kindPrepared)}))
	}
	v := c.signVote(kindCommit, s.pre.view, s.pre.seq, s.pre.digest)
	c.broadcast(payloadOf(v.append(nil)))
}

// repeatVotes sends this replica's votes on a slot again, to one replica or, if to is negative, to all.
func (c *Core) repeatVotes(s *slot, to int) {
	if s.pre.seq == 0 || s.pre.view != c.view || !c.active {
		return
	}
	send := func(payload []byte) {
		if to < 0 {
			c.broadcast(payload)
		} else {
			c.out.Send(c.group.ids[to], payload)
		}
	}
	b := c.find(s.pre.digest)
	switch {
	case b == nil:
		return
	case c.isPrimary():
		send(c.prePrepare(s.pre, b))
	default:
		v := c.signVote(kindPrepare, s.pre.view, s.pre.seq, s.pre.digest)
		send(payloadOf(v.append(nil)))
	}
	if s.prepared != nil && s.prepared[0].agrees(&s.pre) {
		v := c.signVote(kindCommit, s.pre.view, s.pre.seq, s.pre.digest)
		send(payloadOf(v.append(nil)))
	}
}

// sortedSlots returns the numbers of the slots in order.
func (c *Core) sortedSlots() []uint64 {
	seqs := make([]uint64, 0, len(c.slots))
	for n := range c.slots {
		seqs = append(seqs, n)
	}
	slices.Sort(seqs)
	return seqs
}
