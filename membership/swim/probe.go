package swim

import (
	"math"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/membership"
)

// probe is the one under way (SWIM, section 3.1).
type probe struct {
	target    *member // nil if there is none
	number    uint64
	timeoutAt int64 // when others are asked
	indirect  bool  // they were
	asked     int   // members that owe an ack or a nack
	nacks     int
}

// relay is a ping that this member sends for another.
type relay struct {
	number, theirs uint64
	origin         coterie.NodeID
	nackAt         int64 // when the origin is told that there is no answer yet; never if it was
	endAt          int64
}

// maxRelays bounds the pings for others under way. A period has as many as there are failing probes of k relays.
const maxRelays = 256

// scaled is a duration that grows while this member is not well (Lifeguard, LHA-Probe).
func (c *Core) scaled(d time.Duration) int64 { return int64(d) * int64(1+c.health) }

// ail changes the local health.
func (c *Core) ail(by int) {
	if !c.cfg.plain {
		c.health = min(max(c.health+by, 0), maxHealth)
	}
}

// probeNext ends a period and begins the next one.
func (c *Core) probeNext() {
	c.endProbe()
	c.probeAt = c.now + c.scaled(c.cfg.ProbeInterval)
	m := c.nextTarget()
	if m == nil || c.self.state == membership.Left {
		return
	}
	c.metrics.Probes++
	c.lastProbe++
	c.probe = probe{target: m, number: c.lastProbe, timeoutAt: c.now + c.scaled(c.cfg.ProbeTimeout)}
	c.begin()
	if m.state != membership.Alive && !c.cfg.plain {
		c.addMember(m) // Lifeguard's buddy system: a suspect learns of it at the first opportunity
	}
	c.packet = appendProbe(c.packet, kindPing, c.probe.number)
	c.send(m.nodeID())
}

// nextTarget is round robin over a random order. Every other time a member of whom others doubt comes before: not more
// often, or where many are doubted the others would never be probed.
func (c *Core) nextTarget() *member {
	c.urgentTurn = !c.urgentTurn
	for c.urgentTurn && len(c.urgent) > 0 {
		m := c.urgent[0]
		c.urgent = c.urgent[1:]
		m.ext.urgent = false
		m.tidy()
		if m.up() {
			return m
		}
	}
	for range 2 {
		for c.next < len(c.order) {
			m := c.order[c.next]
			c.next++
			if m.up() {
				return m
			}
		}
		c.next = 0
		c.relist()
	}
	return nil
}

// seek puts a member before the order, once.
func (c *Core) seek(m *member) {
	const most = 64
	if e := m.more(); !e.urgent && len(c.urgent) < most {
		e.urgent = true
		c.urgent = append(c.urgent, m)
	}
	m.tidy()
}

// probeIndirectly asks k others, and the target itself by the stream.
func (c *Core) probeIndirectly() {
	p := &c.probe
	p.indirect = true
	for _, m := range c.picks(indirectProbes, p.target) {
		p.asked++
		c.begin()
		c.packet = appendPingReq(c.packet, p.number, p.target.id())
		c.send(m.nodeID())
	}
	c.begin()
	c.packet = appendPadded(c.packet, kindPing, p.number, c.cfg.MaxPacket)
	c.sendWhole(p.target.nodeID())
}

// endProbe judges a probe that has had its period.
func (c *Core) endProbe() {
	p := c.probe
	c.probe = probe{}
	if p.target == nil {
		return
	}
	c.metrics.Failed++
	switch {
	case p.asked == 0:
		c.ail(1)
	case p.nacks < p.asked: // who was asked has not even said that he tried: it may be this member that is slow
		c.ail(p.asked - p.nacks)
	}
	m := p.target
	switch m.state {
	case membership.Alive:
		c.metrics.Suspicions++
		c.declare(m, membership.Suspect, string(c.cfg.ID))
	case membership.Suspect:
		c.confirm(m, []byte(c.cfg.ID))
	case membership.Unreachable, membership.Dead, membership.Left:
	}
}

// acked ends a probe, or a relayed one.
func (c *Core) acked(m *message) {
	number := m.number
	if p := &c.probe; p.target != nil && p.number == number {
		if m.padded {
			c.metrics.ByStream++
		}
		c.probe = probe{}
		c.ail(-1)
		return
	}
	for i := range c.relays {
		if r := c.relays[i]; r.number == number {
			c.dropRelay(i)
			c.begin()
			c.packet = appendProbe(c.packet, kindAck, r.theirs)
			c.send(r.origin)
			return
		}
	}
}

func (c *Core) nacked(number uint64) {
	if p := &c.probe; p.target != nil && p.number == number {
		p.nacks++
	}
}

// answer acknowledges a ping. Whom this member holds for gone is told so, and can refute it.
func (c *Core) answer(from coterie.NodeID, m *message) {
	sender := c.table.get(string(from))
	c.begin()
	if m.padded {
		c.packet = appendPadded(c.packet, kindAck, m.number, c.cfg.MaxPacket)
		c.sendWhole(from)
	} else {
		c.packet = appendProbe(c.packet, kindAck, m.number)
		if sender != nil && sender.state != membership.Alive && (!c.cfg.plain || !sender.up()) {
			c.addMember(sender)
		}
		if c.self.state == membership.Left {
			c.addMember(c.self)
		}
		c.send(from)
	}
	if sender == nil {
		c.sendDigest(from) // a stranger, perhaps from before this member was started
	}
}

// relay pings a member for another.
func (c *Core) relay(from coterie.NodeID, m *message) {
	target := c.lookup(m.target)
	if target == nil || target == c.self || len(c.relays) >= maxRelays {
		return
	}
	c.lastProbe++
	c.relays = append(c.relays, relay{
		number: c.lastProbe, theirs: m.number, origin: from,
		nackAt: c.now + int64(c.cfg.ProbeTimeout)*4/5,
		endAt:  c.now + int64(c.cfg.ProbeInterval),
	})
	c.relayAt = min(c.relayAt, c.relays[len(c.relays)-1].nackAt)
	c.begin()
	c.packet = appendProbe(c.packet, kindPing, c.lastProbe)
	c.send(target.nodeID())
}

// nackRelays tells who waits for this member that it is there, and forgets relays that nobody waits for any more.
func (c *Core) nackRelays() {
	c.relayAt = never
	for i := 0; i < len(c.relays); {
		r := &c.relays[i]
		if r.nackAt <= c.now {
			r.nackAt = never
			if !c.cfg.plain {
				c.begin()
				c.packet = appendProbe(c.packet, kindNack, r.theirs)
				c.send(r.origin)
			}
		}
		if r.endAt <= c.now {
			c.dropRelay(i)
			continue
		}
		c.relayAt = min(c.relayAt, r.nackAt, r.endAt)
		i++
	}
}

func (c *Core) dropRelay(i int) {
	last := len(c.relays) - 1
	c.relays[i] = c.relays[last]
	c.relays = c.relays[:last]
}

// suspicion is what a suspect has (Lifeguard, LHA-Suspicion).
type suspicion struct {
	began    int64
	least    int64 // durations
	most     int64
	need     int      // confirmations that bring it down to least
	by       []string // who suspects, need+1 at most
	deadline int64
}

// leastSuspicion is how long a suspicion lasts at least: SuspicionMult * max(1, log10 n) * ProbeInterval.
func (c *Core) leastSuspicion() int64 {
	scale := max(1, math.Log10(float64(max(1, c.ups))))
	return int64(float64(c.cfg.SuspicionMult) * scale * float64(c.cfg.ProbeInterval))
}

func (c *Core) beginSuspicion(m *member, by []byte) {
	s := &suspicion{began: c.now, least: c.leastSuspicion(), need: confirmations}
	s.most = s.least * suspicionMax
	if c.cfg.plain || c.ups-2 < confirmations { // too few that could confirm
		s.need, s.most = 0, s.least
	}
	s.by = append(s.by, string(by))
	s.deadline = s.end()
	m.more().suspicion = s
	c.suspects = append(c.suspects, m)
	c.suspectAt = min(c.suspectAt, s.deadline)
	if string(by) != string(c.cfg.ID) && !c.cfg.plain && c.rand.IntN(max(1, c.ups-1)) < seekers {
		c.seek(m) // independent confirmation, or none, soon
	}
}

func (c *Core) endSuspicion(m *member) {
	if m.ext == nil || m.ext.suspicion == nil {
		return
	}
	m.ext.suspicion = nil
	for i, other := range c.suspects {
		if other == m {
			last := len(c.suspects) - 1
			c.suspects[i] = c.suspects[last]
			c.suspects = c.suspects[:last]
			break
		}
	}
}

// confirm counts one more member that suspects, and passes on the first few (Lifeguard's dogpile).
func (c *Core) confirm(m *member, by []byte) {
	s := m.ext.suspicion
	if len(s.by) > s.need {
		return
	}
	if slices.Contains(s.by, string(by)) {
		return
	}
	s.by = append(s.by, string(by))
	s.deadline = s.end()
	c.suspectAt = min(c.suspectAt, s.deadline)
	c.spread(m, by)
}

// end is when a suspicion runs out: most - (most-least) * log(confirmed+1) / log(need+1) after it began.
func (s *suspicion) end() int64 {
	return s.began + int64(suspicionTimeout(time.Duration(s.least), time.Duration(s.most), len(s.by)-1, s.need))
}

// suspicionTimeout is Lifeguard's formula (section IV-B).
func suspicionTimeout(least, most time.Duration, confirmed, need int) time.Duration {
	if need == 0 {
		return least
	}
	part := math.Log(float64(confirmed+1)) / math.Log(float64(need+1))
	return max(least, most-time.Duration(part*float64(most-least)))
}

// expireSuspicions declares whom nobody has spoken up for.
func (c *Core) expireSuspicions() {
	for i := 0; i < len(c.suspects); {
		m := c.suspects[i]
		if m.ext.suspicion.deadline <= c.now {
			c.declare(m, membership.Unreachable, "") // takes it out of suspects
			m.tidy()
			continue
		}
		i++
	}
	c.suspectAt = never
	for _, m := range c.suspects {
		c.suspectAt = min(c.suspectAt, m.ext.suspicion.deadline)
	}
}
