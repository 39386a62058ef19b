package gossip

import (
	"bytes"
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/internal/wire"
)

const format = 1

// Kinds of message. Each has a head: format, kind, the sender's incarnation, version and frontier, and the nodes it
// knows to be evicted.
const (
	kindDeltas = 1 // last number that the receiver has acknowledged, number of the first, count, each with its length
	kindState  = 2 // number of the last delta it stands for, the state
	kindAck    = 3 // incarnation of the receiver, number
	kindDigest = 4 // the digest
	kindDiff   = 5 // a delta that makes up for what a digest lacked
	kindRefuse = 6 // the state, for a node that was evicted
	kindAnswer = 7 // a digest that answers one, and is not answered by another
)

type head struct {
	kind              byte
	epoch             uint64
	version, frontier clock.Vector
	evicted           []coterie.NodeID
}

func (c *Core) head(kind byte) []byte {
	b := wire.AppendUint64([]byte{format, kind}, c.cfg.Seed)
	for _, v := range []clock.Vector{c.cfg.State.Version(), c.frontier} {
		p, _ := v.MarshalBinary() // never fails
		b = wire.AppendBytes(b, p)
	}
	evictions := c.stability.Evictions()
	b = wire.AppendUvarint(b, uint64(len(evictions)))
	for _, id := range evictions {
		b = wire.AppendString(b, id)
	}
	return b
}

func readHead(r *wire.Reader) (h head, err error) {
	if got := r.Byte(); r.Err() == nil && got > format {
		return h, &coterie.FormatError{What: "gossip message", Got: got, Max: format}
	} else if got != format {
		r.Fail("format %d", got)
	}
	h.kind, h.epoch = r.Byte(), r.Uint64()
	for _, v := range []*clock.Vector{&h.version, &h.frontier} {
		if p := r.Bytes(); r.Err() == nil {
			if err := v.UnmarshalBinary(p); err != nil {
				return h, err
			}
		}
	}
	for range r.Count(1) {
		h.evicted = append(h.evicted, coterie.NodeID(r.String()))
	}
	return h, r.Err()
}

// maxMessage is how many bytes of deltas go in one message, but for one that is larger by itself.
const maxMessage = 256 << 10

// sendDeltas sends a peer the deltas that were not sent yet.
func (c *Core) sendDeltas(p *peer) {
	first, deltas, complete := c.log.Since(p.id)
	if !complete {
		c.sendState(p.id, kindState)
		p.sent = c.log.Last()
		return
	}
	if skip := p.sent + 1 - min(first, p.sent+1); skip < uint64(len(deltas)) {
		first, deltas = first+skip, deltas[skip:]
	}
	for len(deltas) > 0 {
		n, size := 0, 0
		for n < len(deltas) && (n == 0 || size+len(deltas[n]) <= maxMessage) {
			size += len(deltas[n])
			n++
		}
		b := wire.AppendUvarint(c.head(kindDeltas), c.log.Acked(p.id))
		b = wire.AppendUvarint(wire.AppendUvarint(b, first), uint64(n))
		for _, d := range deltas[:n] {
			b = wire.AppendBytes(b, d)
		}
		c.Send(p.id, b)
		c.metrics.DeltasSent += uint64(n)
		first, deltas = first+uint64(n), deltas[n:]
	}
	p.sent = c.log.Last()
}

func (c *Core) sendState(to coterie.NodeID, kind byte) {
	b, err := c.cfg.State.AppendBinary(wire.AppendUvarint(c.head(kind), c.log.Last()))
	if err != nil { // an element that does not encode: nothing can be sent
		return
	}
	c.Send(to, b)
	c.metrics.StatesSent++
}

func (c *Core) sendAck(to coterie.NodeID, epoch uint64) {
	c.Send(to, wire.AppendUvarint(wire.AppendUint64(c.head(kindAck), epoch), c.log.Have(to)))
}

func (c *Core) sendDigest(to coterie.NodeID, kind byte) {
	b, err := c.cfg.State.AppendDigest(c.head(kind))
	if err != nil {
		return
	}
	c.Send(to, b)
	c.metrics.Digests++
}

// Step takes a message.
func (c *Core) Step(now time.Time, from coterie.NodeID, payload []byte) error {
	r := wire.NewReader(payload)
	h, err := readHead(&r)
	if err != nil {
		return fmt.Errorf("gossip: message from %s: %w", from, err)
	}
	if c.stability.Evicted(from) {
		c.metrics.Refused++
		if h.kind != kindRefuse && h.kind != kindAck {
			c.sendState(from, kindRefuse)
		}
		return nil
	}
	p := c.peer(from)
	switch {
	case h.kind < kindDeltas || h.kind > kindAnswer:
		return fmt.Errorf("gossip: message of kind %d from %s", h.kind, from)
	case c.evicted:
		return nil
	case h.kind == kindRefuse:
		return c.refused(from, &r)
	case p == nil:
		return fmt.Errorf("gossip: message from %s, which is no peer", from)
	}
	if err := c.handle(now, p, h, &r); err != nil {
		return fmt.Errorf("gossip: message from %s: %w", from, err)
	}
	for _, id := range h.evicted {
		c.Evict(now, id)
	}
	if c.evicted {
		return nil // the state comes with a refusal
	}
	c.stability.Ack(from, h.version)
	c.settled.Ack(from, h.frontier)
	return nil
}

func (c *Core) handle(now time.Time, p *peer, h head, r *wire.Reader) error {
	switch h.kind {
	case kindDeltas:
		return c.takeDeltas(p, h, r)
	case kindState:
		upto := r.Uvarint()
		if err := r.Err(); err != nil {
			return err
		}
		if err := c.merge(p.id, r.Rest()); err != nil {
			return err
		}
		c.incarnation(p, h)
		c.log.Taken(p.id, upto)
		c.sendAck(p.id, h.epoch)
		return nil
	case kindAck:
		return c.takeAck(now, p, r)
	case kindDigest:
		return c.takeDigest(p, r.Rest(), true)
	case kindAnswer:
		return c.takeDigest(p, r.Rest(), false)
	default: // kindDiff
		return c.merge(p.id, r.Rest())
	}
}

// incarnation makes the numbers of a peer that restarted begin anew.
func (c *Core) incarnation(p *peer, h head) {
	if p.epoch != h.epoch {
		p.epoch = h.epoch
		c.log.Forget(p.id)
	}
}

func (c *Core) takeDeltas(p *peer, h head, r *wire.Reader) error {
	acked, first := r.Uvarint(), r.Uvarint()
	deltas := make([][]byte, 0, min(r.Len(), 64))
	for range r.Count(1) {
		deltas = append(deltas, r.Bytes())
	}
	if err := r.Done(); err != nil {
		return err
	}
	c.incarnation(p, h)
	// What an earlier incarnation of this node has acknowledged is in the journal.
	c.log.Taken(p.id, acked)
	skip, ok := c.log.Accept(p.id, first, len(deltas))
	if !ok {
		c.metrics.Gaps++
	} else {
		c.metrics.Duplicates += uint64(skip)
		for i, d := range deltas[skip:] {
			if err := c.merge(p.id, d); err != nil {
				return err
			}
			c.log.Taken(p.id, first+uint64(skip+i))
			c.metrics.DeltasTaken++
		}
	}
	c.sendAck(p.id, h.epoch)
	return nil
}

func (c *Core) takeAck(now time.Time, p *peer, r *wire.Reader) error {
	epoch, upto := r.Uint64(), r.Uvarint()
	if err := r.Done(); err != nil {
		return err
	}
	if epoch != c.cfg.Seed || upto > c.log.Last() { // of an earlier incarnation
		return nil
	}
	if upto > c.log.Acked(p.id) {
		c.log.Ack(p.id, upto)
		p.resend = now.Add(c.cfg.Resend)
	}
	if c.log.Acked(p.id) == c.log.Last() {
		p.resend = time.Time{}
	}
	return nil
}

// takeDigest answers with what the sender lacks, and with the own digest where the other may have something too.
func (c *Core) takeDigest(p *peer, digest []byte, answer bool) error {
	diff, err := c.cfg.State.AppendDiff(nil, digest)
	if err != nil {
		return err
	}
	mine, err := c.cfg.State.AppendDigest(nil)
	if err != nil {
		return err
	}
	same := bytes.Equal(mine, digest)
	if len(diff) > 0 {
		c.metrics.Diffs++
		c.metrics.DiffBytes += uint64(len(diff))
		c.Send(p.id, append(c.head(kindDiff), diff...))
	}
	if answer {
		c.sendDigest(p.id, kindAnswer) // the sender may have what is lacking here, or is to know that all is well
	}
	p.agreed = same
	return nil
}

// merge takes a delta or state from elsewhere, and saves it.
func (c *Core) merge(from coterie.NodeID, b []byte) error {
	if err := c.cfg.State.MergeBinary(b); err != nil {
		return err
	}
	c.save(recordDelta, b)
	c.Emit(Merged{from})
	return nil
}

func (c *Core) refused(from coterie.NodeID, r *wire.Reader) error {
	r.Uvarint()
	if err := r.Err(); err != nil {
		return err
	}
	state := r.Rest()
	c.Evict(time.Time{}, c.cfg.ID)
	c.Emit(Evicted{from, state})
	return nil
}

// Describe says what a payload is.
func (c *Core) Describe(payload []byte) string {
	r := wire.NewReader(payload)
	h, err := readHead(&r)
	if err != nil {
		return err.Error()
	}
	names := [...]string{"?", "deltas", "state", "ack", "digest", "diff", "refuse", "answer"}
	name := names[0]
	if int(h.kind) < len(names) {
		name = names[h.kind]
	}
	return fmt.Sprintf("%s version=%v, %d bytes", name, h.version, r.Len())
}
