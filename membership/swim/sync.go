package swim

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/membership"
)

// Synced is the event of a view that was compared with another member's: now this one knows what that one knows.
type Synced struct{ With coterie.NodeID }

// Goodbye is the event that a Leave has been told to enough others.
type Goodbye struct{}

// ErrUnknownMember is returned for an id that this member has never heard of, or has forgotten.
var ErrUnknownMember = errors.New("swim: unknown member")

// Join asks more seeds, now and then again until one answers; a Synced event tells of that. A member that has left
// comes back.
func (c *Core) Join(now time.Time, seeds ...coterie.NodeID) error {
	for _, id := range seeds {
		if id == "" || len(id) > maxID {
			return fmt.Errorf("swim: join: seed with an id of %d bytes, not 1 to %d", len(id), maxID)
		}
	}
	c.advance(now)
	for _, id := range seeds {
		if !slices.Contains(c.cfg.Seeds, id) {
			c.cfg.Seeds = append(slices.Clip(c.cfg.Seeds), id)
		}
	}
	if c.self.state == membership.Left {
		c.self.state, c.self.since = membership.Alive, c.now
		c.self.inc++
		c.count(c.self)
		c.leaveAt = never
		c.spread(c.self, nil)
	}
	c.joining, c.joins = true, 0
	c.joinSeeds()
	return nil
}

// joinSeeds asks all seeds for their view, and again after a while.
func (c *Core) joinSeeds() {
	asked := false
	for _, id := range c.cfg.Seeds {
		if id != c.cfg.ID {
			c.sendDigest(id)
			asked = true
		}
	}
	c.joining = asked
	const first = 100 * time.Millisecond
	pause := min(c.cfg.RetryInterval, first<<min(c.joins, 20))
	c.joins++
	c.retryAt = c.now + int64(pause)/2 + c.within(pause)/2
}

// retry tries one member that is unreachable, or a seed, at a low rate: after a partition that is what brings the
// halves together.
func (c *Core) retry() {
	if c.joining {
		c.joinSeeds()
		return
	}
	c.retryAt = c.now + int64(c.cfg.RetryInterval)
	if c.self.state == membership.Left {
		return
	}
	c.gone = slices.DeleteFunc(c.gone, func(m *member) bool {
		if m.state == membership.Unreachable {
			return false
		}
		m.flags &^= inGone
		return true
	})
	c.targets = c.targets[:0]
	for _, id := range c.cfg.Seeds {
		if m := c.table.get(string(id)); m == nil || m.state == membership.Dead || m.state == membership.Left {
			c.targets = append(c.targets, id)
		}
	}
	n := len(c.gone) + len(c.targets)
	if n == 0 {
		return
	}
	if i := c.rand.IntN(n); i < len(c.gone) {
		c.sendDigest(c.gone[i].nodeID())
	} else {
		c.sendDigest(c.targets[i-len(c.gone)])
	}
}

// sendDigest tells another what this member is and what its view amounts to.
func (c *Core) sendDigest(to coterie.NodeID) {
	c.begin()
	c.addMember(c.self)
	if m := c.table.get(string(to)); m != nil && !m.up() {
		c.addMember(m) // it shall speak up
	}
	c.packet = wire.AppendUint64(append(c.packet, kindDigest), c.hash)
	c.send(to)
}

// syncSoon compares views with another member before it is time. The larger the group the later, for there a view costs
// more and news takes its time.
func (c *Core) syncSoon(pause time.Duration) {
	pause = min(c.cfg.SyncInterval, pause*time.Duration(1+c.ups/64))
	c.syncAt = min(c.syncAt, c.now+c.within(pause))
}

// compare answers a digest: by the whole view if the other has another one.
func (c *Core) compare(from coterie.NodeID, hash uint64) {
	if hash != c.hash {
		c.sendView(from, true)
		return
	}
	c.begin()
	c.packet = c.appendSync(c.packet, false)
	c.send(from)
}

func (c *Core) appendSync(b []byte, reply bool) []byte {
	return wire.AppendUint64(wire.AppendBool(append(b, kindSync), reply), c.hash)
}

// viewPart is how many bytes of a view go into one packet: more than a datagram takes, for there are streams.
const viewPart = 32 << 10

// sendView sends all that is known of all, in parts each of which can be understood alone.
func (c *Core) sendView(to coterie.NodeID, reply bool) {
	c.metrics.Syncs++
	all := make([]*member, 0, c.table.count)
	for m := range c.table.all {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *member) int { return cmp.Compare(a.id(), b.id()) })
	c.begin()
	c.packet = c.appendSync(c.packet, false)
	head := len(c.packet)
	for _, m := range all {
		if len(c.packet) > viewPart {
			c.sendWhole(to)
			c.packet = c.packet[:head]
		}
		c.addMember(m)
	}
	if reply { // asked for in the last part, when the receiver knows what it can add
		c.packet[head-9] = 1
	}
	c.sendWhole(to)
	if cap(c.packet) > viewPart/4 {
		c.packet = nil // it is not often that large
	}
}

// stepSync takes a part of another's view, and returns false if the packet is not one.
func (c *Core) stepSync(from coterie.NodeID, msgs []message) bool {
	if len(msgs) == 0 || msgs[0].kind != kindSync {
		return false
	}
	head := &msgs[0]
	how := bySync
	switch {
	case c.ups == 1:
		// Everything is new to this member and to nobody else. The parts that follow are alike.
		how, c.host = byJoin, from
	case c.host == from:
		how = byJoin
	}
	if how == byJoin { // who joined at the same time was not in it
		c.syncSoon(c.gossipInterval())
	}
	for i := 1; i < len(msgs); i++ {
		if m := &msgs[i]; m.kind == kindRecord {
			c.learn(&m.rec, from, how)
		} else {
			c.stepOne(from, m)
		}
	}
	if c.hash == head.number || head.reply {
		c.host = ""
	}
	if head.reply && c.hash != head.number {
		c.sendView(from, false)
	}
	c.joining = c.joining && c.ups == 1
	c.out.Emit(Synced{With: from})
	return true
}

// Leave says goodbye: others hear that this member went of its own will. A Goodbye event tells when enough of them
// did; then the host may be closed.
func (c *Core) Leave(now time.Time) {
	c.advance(now)
	if c.self.state == membership.Left {
		return
	}
	c.uncount(c.self)
	c.self.inc++
	c.self.state, c.self.since = membership.Left, c.now
	c.joining = false
	c.spread(c.self, nil)
	c.gossipAt = c.now
	rounds := (c.transmits()+fanout-1)/fanout + 1
	c.leaveAt = c.now + int64(rounds)*int64(c.gossipInterval())
	if c.pick(nil) == nil {
		c.leaveAt = c.now
	}
}

// Update replaces this member's metadata. It returns an error if there is more than MaxMeta of it.
func (c *Core) Update(now time.Time, meta []byte) error {
	if len(meta) > MaxMeta {
		return fmt.Errorf("swim: metadata of %d bytes, at most %d", len(meta), MaxMeta)
	}
	c.advance(now)
	m := c.self
	r := record{
		id: []byte(m.id()), addr: []byte(m.address()), inc: m.inc, life: m.life,
		metaSize: uint32(len(meta)), meta: meta, inline: true,
	}
	counted := m.up()
	if counted {
		c.uncount(m)
	}
	r.inc = min(r.inc+1, maxIncarnation)
	c.fill(m, &r)
	if counted {
		c.count(m)
	}
	c.emit(membership.EventUpdate, m)
	c.spread(m, nil)
	return nil
}

// Remove gives up a member that is unreachable, for all: it is not tried again. If it was only cut off it comes back
// by itself when it hears of that. Errors: ErrUnknownMember, and one for a member that is alive or suspect.
func (c *Core) Remove(now time.Time, id coterie.NodeID) error {
	c.advance(now)
	m := c.table.get(string(id))
	switch {
	case m == nil:
		return fmt.Errorf("%w: %q", ErrUnknownMember, id)
	case m.up() || m == c.self:
		return fmt.Errorf("swim: remove %s: it is %v", id, m.state)
	case m.state == membership.Unreachable:
		c.declare(m, membership.Dead, "")
	}
	return nil
}

// SetKeys replaces the keys: the first encrypts, all decrypt. To rotate, give every member (old, new), then every
// member (new, old), then (new). It returns an error, and changes nothing, if a key is no AES key.
func (c *Core) SetKeys(keys ...[]byte) error {
	ring, err := newKeyring(keys)
	if err != nil {
		return fmt.Errorf("swim: SetKeys: %w", err)
	}
	c.keys = ring
	return nil
}
