package pbft

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/coterie-go/coterie/internal/wire"
)

// saveRecord makes a record durable before anything that this batch sends leaves. The lazy ones go with it.
func (c *Core) saveRecord(record []byte) {
	for _, r := range c.lazy {
		c.out.Save(r)
	}
	c.lazy = c.lazy[:0]
	c.out.Save(record)
}

// save makes a view or a life durable.
func (c *Core) save(k kind, n uint64, active bool) {
	b := wire.AppendUvarint([]byte{format, byte(k)}, n)
	if k == kindView {
		b = wire.AppendBool(b, active)
	}
	c.saveRecord(b)
}

// rewrite saves all that is still needed, and lets what stands before it in the journal go: after a new base.
func (c *Core) rewrite() {
	c.lazy = nil
	n := 0
	save := func(record []byte) {
		c.out.Save(record)
		n++
	}
	b := c.base.state.append([]byte{format, byte(kindBase)})
	b = wire.AppendString(b, c.base.snapshot.Name)
	b = wire.AppendUvarint(b, uint64(c.base.snapshot.Size))
	save(wire.AppendUint64(b, c.base.snapshot.Checksum))
	save(wire.AppendUvarint([]byte{format, byte(kindLife)}, c.life))
	save(wire.AppendBool(wire.AppendUvarint([]byte{format, byte(kindView)}, c.view), c.active))
	if c.stable.seq > 0 {
		save(c.stable.proof.append([]byte{format, byte(kindStable)}))
	}
	start := c.state.seq - uint64(len(c.log))
	for i := range c.log {
		if start+uint64(i)+1 > c.base.state.seq {
			save(appendDecided([]byte{format, byte(kindDecided)}, []decided{c.log[i].decided}))
		}
	}
	// The batches first, each with the pre-prepare it came with; then what was accepted last for each number, of which
	// the batch is among them.
	for _, d := range c.sortedBatches() {
		if h := c.batches[d]; h.pre.seq != 0 && h.seq > c.stable.seq {
			save(appendAccepted(nil, &h.pre, h.batch))
		}
	}
	for _, seq := range c.sortedSlots() {
		s := c.slots[seq]
		if s.pre.seq != 0 {
			save(appendAccepted(nil, &s.pre, nil))
		}
		if s.prepared != nil {
			save(s.prepared.append([]byte{format, byte(kindPrepared)}))
		}
	}
	c.out.Keep(n)
}

// Replay takes back one record. The first may be of the middle of a history: each says all that it is about.
func (c *Core) Replay(record []byte) error {
	m := &c.in
	if err := m.decode(record); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	if err := c.sound(m); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	switch m.kind {
	case kindBase:
		if len(m.state.origins) != len(c.group.ids) {
			return fmt.Errorf("pbft: record of a group of %d replicas", len(m.state.origins))
		}
		c.base = base{m.state.clone(), m.snap}
	case kindView:
		c.view, c.active = m.seq, m.active
	case kindLife:
		c.life = m.seq
	case kindStable:
		if m.proof[0].seq > c.stable.seq {
			c.stable = checkpoint{m.proof[0].seq, m.proof}
		}
	case kindDecided:
		for _, d := range m.decided {
			s := c.slot(d.proof[0].seq)
			s.decided, s.durable = d.proof, true
			c.hold(d.batch, d.proof[0].seq)
		}
	case kindCommitted:
		s := c.slot(m.proof[0].seq)
		s.decided, s.durable = m.proof, true
	case kindAccepted:
		s := c.slot(m.vote.seq)
		if s.pre.seq == 0 || m.vote.view >= s.pre.view {
			s.pre = m.vote
			s.committed = s.prepared != nil && s.prepared[0].agrees(&s.pre)
		}
		if m.batch != nil {
			c.hold(m.batch, m.vote.seq)
			c.batches[m.batch.digest].pre = m.vote
		} else if h := c.batches[m.vote.digest]; h != nil {
			h.seq = max(h.seq, m.vote.seq)
		}
	case kindPrepared:
		s := c.slot(m.proof[0].seq)
		s.prepared = m.proof
		s.committed = s.pre.agrees(&m.proof[0])
	default:
		return fmt.Errorf("pbft: record: %v is none", m.kind)
	}
	return nil
}

// sortedBatches returns the digests of the batches that are held, in order.
func (c *Core) sortedBatches() []digest {
	digests := make([]digest, 0, len(c.batches))
	for d := range c.batches {
		digests = append(digests, d)
	}
	slices.SortFunc(digests, func(a, b digest) int { return bytes.Compare(a[:], b[:]) })
	return digests
}
