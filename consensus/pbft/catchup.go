package pbft

import "github.com/coterie-go/coterie/internal/wire"

// Messages are lost, so each replica tells the others now and then how far it is, and they repeat what it lacks (§5.2
// of the TOCS version). What is short everybody repeats; what is long, only the one that is asked to help, another one
// each time, for it may be one that does not answer.

func (c *Core) rotateHelper() {
	n := len(c.group.ids)
	c.asked = (c.asked + 1) % n
	if c.asked == c.me {
		c.asked = (c.asked + 1) % n
	}
	if c.bugs.helpFromFirst {
		c.asked = 0
	}
}

func (c *Core) sendStatus() {
	s := status{
		view: c.view, active: c.active, executed: c.state.seq, stable: c.stable.seq, vouched: c.snap.offered, helper: c.asked,
	}
	for _, n := range c.sortedSlots() {
		if n <= c.state.seq || len(s.missing) == maxMissing {
			continue
		}
		slot := c.slots[n]
		if slot.decided != nil && c.find(slot.decided[0].digest) == nil {
			s.missing = append(s.missing, slot.decided[0].digest)
		} else if slot.pre.seq != 0 && c.find(slot.pre.digest) == nil {
			s.missing = append(s.missing, slot.pre.digest)
		}
	}
	c.broadcastOthers(payloadOf(s.encode()))
}

// handleStatus repeats to a replica what it lacks. A replica that asks too often and has come no further is not heard.
func (c *Core) handleStatus(from int, s *status) {
	p := &c.peers[from]
	stuck := s.executed <= p.executed
	if from == c.me || stuck && c.now.Before(p.answered.Add(c.cfg.StatusInterval/4)) {
		return
	}
	p.executed, p.answered = s.executed, c.now
	to := c.group.ids[from]
	helper := s.helper == c.me
	if s.view < c.view || s.view == c.view && !s.active {
		switch {
		case c.active && c.change.newView != nil && (helper || c.isPrimary()):
			c.out.Send(to, c.change.newView)
		case !c.active && c.change.mine != nil:
			c.out.Send(to, c.change.mine)
		}
	}
	for i := range c.checks {
		if c.checks[i].seq > s.stable {
			c.out.Send(to, payloadOf(c.checks[i].append(nil)))
		}
	}
	if c.snap.mine != nil && c.snap.mine.seq > s.vouched {
		c.out.Send(to, payloadOf(c.snap.mine.append(nil)))
	}
	if helper {
		c.help(from, s)
	}
	if stuck && s.view == c.view && s.active {
		for n := s.executed + 1; n <= s.executed+2*uint64(c.cfg.MaxInflight); n++ {
			if slot := c.slots[n]; slot != nil && c.now.Sub(slot.since) >= c.cfg.StatusInterval/2 {
				c.repeatVotes(slot, from)
			}
		}
	}
}

// How much one status is answered with.
const (
	helpBatches = 64
	helpBytes   = 512 << 10
)

// help sends what is long: batches with proof that they are committed, or a snapshot if they are not there any more.
func (c *Core) help(from int, s *status) {
	to := c.group.ids[from]
	if s.stable < c.stable.seq {
		c.out.Send(to, c.stable.proof.append([]byte{format, byte(kindStable)}))
	}
	for _, d := range s.missing {
		if h := c.batches[d]; h != nil && h.pre.seq != 0 {
			c.out.Send(to, c.prePrepare(h.pre, h.batch))
		}
	}
	start := c.state.seq - uint64(len(c.log)) // the log holds what comes after
	if s.executed < start {
		if c.snap.offered > s.executed {
			c.out.Send(to, c.snap.offer)
		}
		return
	}
	var batches []decided
	size := 0
	for n := s.executed - start; n < uint64(len(c.log)) && len(batches) < helpBatches && size < helpBytes; n++ {
		batches = append(batches, c.log[n].decided)
		size += len(c.log[n].batch.raw) + minVote*c.group.quorum
	}
	if len(batches) > 0 {
		c.out.Send(to, appendDecided([]byte{format, byte(kindDecided)}, batches))
	}
}

// handleDecided takes batches that are proven to be committed.
func (c *Core) handleDecided(batches []decided) {
	for _, d := range batches {
		seq := d.proof[0].seq
		if seq <= c.state.seq || seq > c.state.seq+2*helpBatches {
			continue
		}
		s := c.slot(seq)
		if s.decided == nil {
			s.decided = d.proof
			c.metrics.Caught++
			c.statusWant = true // and go on from there
		}
		if s.decided[0].digest == d.batch.digest {
			c.hold(d.batch, seq)
		}
	}
}

// appendChunk encodes a piece of a snapshot.
func appendChunk(seq uint64, offset int64, data []byte) []byte {
	b := append(make([]byte, 0, len(data)+24), format, byte(kindChunk))
	b = wire.AppendUvarint(b, seq)
	b = wire.AppendUvarint(b, uint64(offset))
	return append(b, data...)
}
