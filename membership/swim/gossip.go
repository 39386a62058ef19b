package swim

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/membership"
)

// change is one piece of news under dissemination: of a member, or a broadcast of an application.
type change struct {
	m    *member // nil for a broadcast
	by   string  // who suspects m
	body []byte  // of a broadcast, encoded
	sent int     // in how many packets
	off  bool    // overtaken by a later one
}

// queue holds news by how often it was sent: what was sent least goes first (SWIM, section 4.1).
type queue struct {
	levels []level
	count  int // that are not off
	bytes  int // of bodies
}

type level struct {
	items []*change
	head  int
}

func (l *level) len() int { return len(l.items) - l.head }

func (l *level) pop() *change {
	ch := l.items[l.head]
	l.items[l.head] = nil
	if l.head++; l.head == len(l.items) {
		l.items, l.head = l.items[:0], 0
		if cap(l.items) > 64 { // the flood is over
			l.items = nil
		}
	}
	return ch
}

func (q *queue) push(ch *change) {
	q.count++
	q.bytes += len(ch.body)
	q.put(ch)
}

func (q *queue) put(ch *change) {
	for len(q.levels) <= ch.sent {
		q.levels = append(q.levels, level{})
	}
	l := &q.levels[ch.sent]
	l.items = append(l.items, ch)
}

func (q *queue) drop(ch *change) {
	if !ch.off {
		ch.off = true
		q.count--
		q.bytes -= len(ch.body)
	}
}

// maxTransmits is more than retransmitMult * ceil(log10(maxMembers+1)).
const maxTransmits = 64

// take calls add with one piece of news after the other, those sent least often first and each at most once, while
// add finds room. What was sent limit times is done.
func (q *queue) take(limit int, add func(*change) bool, done func(*change)) {
	var waiting [maxTransmits]int
	for i := range q.levels {
		waiting[i] = q.levels[i].len()
	}
	for i := range q.levels {
		for range waiting[i] {
			l := &q.levels[i]
			if l.items[l.head].off {
				l.pop()
				continue
			}
			if !add(l.items[l.head]) {
				return
			}
			ch := l.pop()
			if ch.sent++; ch.sent >= limit {
				q.drop(ch)
				done(ch)
				continue
			}
			q.put(ch)
		}
	}
}

// gossipInterval is the time between rounds of gossip while there is news.
func (c *Core) gossipInterval() time.Duration { return c.cfg.ProbeInterval / 5 }

// transmits is how often each piece of news is sent: lambda * ceil(log10(n+1)).
func (c *Core) transmits() int {
	return min(retransmitMult*int(math.Ceil(math.Log10(float64(c.ups+1)))), maxTransmits-1)
}

// spread makes news of what a member is now, in place of older news of it.
func (c *Core) spread(m *member, by []byte) {
	e := m.more()
	if e.change != nil {
		c.changes.drop(e.change)
	}
	e.change = &change{m: m}
	if m.state == membership.Suspect {
		e.change.by = string(by)
	}
	c.changes.push(e.change)
	c.gossipSoon()
}

func (c *Core) gossipSoon() {
	if c.gossipAt == never {
		c.gossipAt = c.now + c.within(c.gossipInterval()/2)
	}
}

// gossip sends what is news to a few others, and goes on while there is any.
func (c *Core) gossip() {
	c.gossipAt = never
	if c.pick(nil) == nil { // who comes to be known next gets the whole view
		c.changes, c.users = queue{}, queue{}
		return
	}
	if c.changes.count+c.users.count > 0 {
		for _, m := range c.picks(fanout, nil) {
			c.begin()
			c.send(m.nodeID())
		}
	}
	c.sendAccusations()
	if c.changes.count+c.users.count+len(c.accused) > 0 {
		c.gossipAt = c.now + int64(c.gossipInterval())
		return
	}
	c.syncSoon(c.cfg.ProbeInterval / 2) // all news is told, as far as chance allows: see whether it arrived
}

// accuse lets a member know soon that others hold it for unreachable.
func (c *Core) accuse(m *member) {
	if e := m.more(); !e.accused {
		e.accused = true
		c.accused = append(c.accused, m)
		c.gossipSoon()
	}
}

// sendAccusations sends a few at a time, for after a partition there is one for every member of the other side.
func (c *Core) sendAccusations() {
	const each = 8
	n := min(each, len(c.accused))
	for _, m := range c.accused[:n] {
		m.ext.accused = false
		c.begin()
		c.packet = appendMember(c.packet, m, membership.Unreachable, "")
		c.send(m.nodeID())
		m.tidy()
	}
	c.accused = c.accused[n:]
}

// begin starts a packet; the messages that it is for are appended to c.packet.
func (c *Core) begin() { c.packet = c.packet[:0] }

// addMember appends what is known of a member.
func (c *Core) addMember(m *member) {
	by := ""
	if m.state == membership.Suspect {
		by = m.ext.suspicion.by[0]
	}
	c.packet = appendMember(c.packet, m, m.state, by)
}

// send fills the packet up with news and sends it. Members' news and applications' broadcasts get half of the room
// each, and what the other does not need.
func (c *Core) send(to coterie.NodeID) {
	room := c.cfg.MaxPacket - c.overhead()
	free := room - len(c.packet)
	if free > 0 && c.changes.count > 0 {
		most := room
		if c.users.count > 0 {
			most -= min(free/2, c.users.bytes)
		}
		c.piggyback(&c.changes, most)
	}
	if c.users.count > 0 {
		c.piggyback(&c.users, room)
	}
	if len(c.packet) > 0 {
		c.sendWhole(to)
	}
}

// piggyback appends news until the packet has most bytes.
func (c *Core) piggyback(q *queue, most int) {
	q.take(c.transmits(), func(ch *change) bool {
		before := len(c.packet)
		if ch.m != nil {
			c.packet = appendMember(c.packet, ch.m, ch.m.state, ch.by)
		} else {
			c.packet = append(c.packet, ch.body...)
		}
		if len(c.packet) > most {
			c.packet = c.packet[:before]
			return false
		}
		return true
	}, func(ch *change) {
		if ch.m != nil && ch.m.ext != nil && ch.m.ext.change == ch {
			ch.m.ext.change = nil
			ch.m.tidy()
		}
	})
}

// sendWhole sends the packet as it is.
func (c *Core) sendWhole(to coterie.NodeID) {
	packet := c.seal(to, c.packet)
	c.metrics.Sent++
	c.metrics.SentBytes += uint64(len(packet))
	c.out.Send(to, packet)
}

// Message is the event of a broadcast that arrived.
type Message struct {
	From    coterie.NodeID
	Payload []byte
}

// maxUserBytes bounds the broadcasts under dissemination.
const maxUserBytes = 256 << 10

// ErrTooLarge is returned by Broadcast of what does not fit a packet beside the protocol's own messages. Send less, or
// put it into metadata.
var ErrTooLarge = errors.New("swim: broadcast too large")

// Broadcast spreads a payload to all members, each of which gets it once or, with low probability, not at all. Errors
// are ErrTooLarge, and coterie.ErrOverloaded while too much is under way.
func (c *Core) Broadcast(now time.Time, payload []byte) error {
	c.advance(now)
	body := appendUser(nil, string(c.cfg.ID), c.self.life, c.userNum+1, payload)
	if most := c.cfg.MaxPacket*3/4 - c.overhead(); len(body) > most {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(payload), most-(len(body)-len(payload)))
	}
	if c.users.bytes+len(body) > maxUserBytes {
		return fmt.Errorf("swim: broadcast: %w", coterie.ErrOverloaded)
	}
	c.userNum++
	if c.ups > 1 {
		c.users.push(&change{body: body})
		c.gossipSoon()
	}
	return nil
}

// receive takes a broadcast, once, and passes it on.
func (c *Core) receive(m *message) {
	origin := c.lookup(m.target)
	if origin == nil || origin == c.self || origin.life != m.rec.life {
		return
	}
	e := origin.more()
	if e.seen == nil {
		e.seen = &window{}
	}
	if !e.seen.add(m.number) {
		return
	}
	c.out.Emit(Message{From: origin.nodeID(), Payload: append([]byte(nil), m.payload...)})
	body := appendUser(nil, origin.id(), origin.life, m.number, m.payload)
	if c.users.bytes+len(body) > maxUserBytes || len(body) > c.cfg.MaxPacket*3/4 {
		c.metrics.Dropped++
		return
	}
	c.users.push(&change{body: body})
	c.gossipSoon()
}

// window remembers which of the newest 256 numbers it has seen; older ones count as seen.
type window struct {
	high uint64
	bits [4]uint64
}

// add reports whether a number is new.
func (w *window) add(number uint64) bool {
	const size = uint64(len(w.bits) * 64)
	switch {
	case number == 0, number+size <= w.high:
		return false
	case number > w.high:
		if number-w.high >= size {
			w.bits = [4]uint64{}
		} else {
			for n := w.high + 1; n <= number; n++ {
				w.bits[n/64%4] &^= 1 << (n % 64)
			}
		}
		w.high = number
	}
	word, bit := &w.bits[number/64%4], uint64(1)<<(number%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

// appendMember appends a record of a member, in a state that may be worse than what is known of it.
func appendMember(b []byte, m *member, s membership.State, by string) []byte {
	b = append(b, kindRecord, byte(s))
	b = wire.AppendString(b, m.id())
	b = wire.AppendUvarint(b, uint64(m.inc))
	b = wire.AppendUint32(b, m.life)
	b = wire.AppendString(b, m.address())
	if s == membership.Suspect {
		b = wire.AppendString(b, by)
	}
	b = wire.AppendUvarint(b, uint64(m.metaSize))
	if m.metaSize <= inlineMeta {
		return append(b, m.meta()...)
	}
	return wire.AppendUint64(b, m.ext.metaSum)
}
