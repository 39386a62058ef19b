package pbft

import (
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/internal/wire"
)

// checkpoint is a stable checkpoint and its proof (§4.3).
type checkpoint struct {
	seq   uint64
	proof certificate
}

// execute executes what is committed, in order, as far as the state machine keeps up.
func (c *Core) execute() {
	for {
		s := c.slots[c.state.seq+1]
		if s == nil || s.decided == nil {
			return
		}
		b := c.find(s.decided[0].digest)
		if b == nil || c.waiting > 0 && c.waiting+b.bytes > c.cfg.MaxUnapplied {
			return
		}
		c.run(s, b)
	}
}

// run executes one batch.
func (c *Core) run(s *slot, b *batch) {
	c.state.seq++
	c.state.chain = chainOf(c.state.chain, b.digest)
	first := c.state.index + 1
	var entries []consensus.Entry
	var reads []consensus.ReadAt
	for _, q := range b.requests {
		if !admit(c.state.origins, q) && !c.bugs.executeTwice {
			c.metrics.Repeated++
			continue
		}
		c.metrics.Requests++
		own := c.takeOwn(q)
		for i, command := range q.commands {
			e := consensus.Entry{Term: s.decided[0].view, Command: command}
			if own != nil {
				e.ID = own.ids[i]
			}
			entries = append(entries, e)
			c.state.since += uint64(len(command)) + entryOverhead
		}
		c.state.index += uint64(len(q.commands))
		if own != nil {
			for _, id := range own.reads {
				reads = append(reads, consensus.ReadAt{ID: id, Index: c.state.index})
			}
		}
	}
	if len(entries) > 0 {
		c.out.Emit(consensus.Committed{Index: first, Entries: entries})
		c.unapplied = append(c.unapplied, span{c.state.index, b.bytes})
		c.waiting += b.bytes
	}
	for _, r := range reads {
		c.out.Emit(r)
	}
	for from := range c.pools {
		c.settlePool(from)
	}
	c.metrics.Executed++
	c.change.attempts = 0
	d := decided{b, s.decided}
	c.log = append(c.log, logged{d, c.state.index})
	if !s.durable {
		if h := c.batches[b.digest]; h.pre.seq != 0 { // the batch is in a record already
			c.lazy = append(c.lazy, s.decided.append([]byte{format, byte(kindCommitted)}))
		} else {
			c.lazy = append(c.lazy, appendDecided([]byte{format, byte(kindDecided)}, []decided{d}))
		}
	}
	c.next = max(c.next, c.state.seq+1)
	if c.state.seq%c.group.interval == 0 {
		c.takeCheckpoint()
	}
	if c.state.seq <= c.stable.seq {
		c.dropSettled()
	}
}

// entryOverhead is what an entry counts beside its command, as in the driver.
const entryOverhead = 64

func appendDecided(b []byte, batches []decided) []byte {
	b = wire.AppendUvarint(b, uint64(len(batches)))
	for i := range batches {
		b = wire.AppendBytes(b, batches[i].batch.raw)
		b = batches[i].proof.append(b)
	}
	return b
}

// takeOwn takes out a request of this replica's that is executed now.
func (c *Core) takeOwn(q *request) *outgoing {
	if q.from != c.me || q.life != c.life || len(c.own.sent) == 0 || c.own.sent[0].request.num != q.num {
		return nil
	}
	o := c.own.sent[0]
	c.own.sent = append(c.own.sent[:0], c.own.sent[1:]...)
	c.own.pending -= o.bytes
	c.own.resendAt = c.now.Add(c.cfg.ViewTimeout / 2)
	return &o
}

// Applied says how far the state machine is.
func (c *Core) Applied(now time.Time, index uint64) {
	c.enter(now)
	c.applied = max(c.applied, index)
	n := 0
	for n < len(c.unapplied) && c.unapplied[n].last <= c.applied {
		c.waiting -= c.unapplied[n].bytes
		n++
	}
	c.unapplied = append(c.unapplied[:0], c.unapplied[n:]...)
	c.execute()
}

// takeCheckpoint tells what the state is after every K batches, and has a snapshot made if enough has been executed
// since the last (§4.3).
func (c *Core) takeCheckpoint() {
	due := c.state.since >= uint64(c.cfg.SnapshotBytes)
	if due {
		c.state.since = 0
		c.snap.due = c.state.clone()
		c.out.Emit(consensus.SnapshotDue{})
	}
	if c.state.seq <= c.stable.seq {
		return
	}
	v := c.signVote(kindCheckpoint, 0, c.state.seq, c.state.digest())
	c.checks = append(c.checks, v)
	c.broadcast(payloadOf(v.append(nil)))
}

// handleCheckpoint collects a quorum of equal checkpoints.
func (c *Core) handleCheckpoint(v *vote) {
	if v.seq <= c.stable.seq || v.seq > c.stable.seq+2*c.group.window {
		return
	}
	votes := c.votes[v.seq]
	if votes == nil {
		votes = make(certificate, len(c.group.ids))
		c.votes[v.seq] = votes
	}
	votes[v.from] = *v
	if proof := c.matching(votes, v); len(proof) >= c.quorum() {
		c.becomeStable(proof[:c.quorum()])
	}
}

// becomeStable moves the watermarks, and forgets what is below (§4.3).
func (c *Core) becomeStable(proof certificate) {
	seq := proof[0].seq
	if seq <= c.stable.seq {
		return
	}
	c.stable = checkpoint{seq, proof}
	c.lazy = append(c.lazy, proof.append([]byte{format, byte(kindStable)}))
	c.metrics.Checkpoints++
	for n := range c.votes {
		if n <= seq {
			delete(c.votes, n)
		}
	}
	for len(c.checks) > 0 && c.checks[0].seq <= seq {
		c.checks = append(c.checks[:0], c.checks[1:]...)
	}
	c.next = max(c.next, seq+1)
	c.dropSettled()
}

// dropSettled forgets the slots that are executed and stable.
func (c *Core) dropSettled() {
	low := min(c.stable.seq, c.state.seq)
	for n := range c.slots {
		if n <= low {
			delete(c.slots, n)
		}
	}
	for d, h := range c.batches {
		if h.seq <= low && d != nullDigest {
			delete(c.batches, d)
		}
	}
}

// loseOwn answers the proposals whose outcome is hidden in a snapshot.
func (c *Core) loseOwn() {
	o := c.state.origins[c.me]
	for len(c.own.sent) > 0 && o.life >= c.life && (o.life > c.life || c.own.sent[0].request.num < o.next) {
		lost := c.own.sent[0]
		c.own.sent = append(c.own.sent[:0], c.own.sent[1:]...)
		c.own.pending -= lost.bytes
		for _, id := range lost.ids {
			c.out.Emit(consensus.Rejected{ID: id, Err: coterie.ErrUnknownOutcome})
		}
		for _, id := range lost.reads {
			c.out.Emit(consensus.ReadAt{ID: id, Index: c.state.index}) // the snapshot holds the point it marked
		}
	}
}
