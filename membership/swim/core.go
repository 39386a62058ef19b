package swim

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/membership"
)

// Core is one member's part of the protocol: pure, deterministic, without a goroutine or a clock. Invariants, held
// between calls:
//   - a member's (incarnation, life, state) never decreases: what was heard late changes nothing
//   - only a member itself raises its incarnation
//   - this member is in its own table, alive, or left if it has left
//   - every suspect has a suspicion with a deadline, and nobody else has
//
// A Core is not safe for concurrent use; Node serializes access to one.
type Core struct {
	cfg     Config
	rand    *rand.Rand
	keys    keyring
	nonces  nonces
	epoch   time.Time // of the first Tick or Step: times are counted from it
	now     int64     // nanoseconds since epoch
	started bool

	table index
	self  *member
	order []*member // others in the order in which they are probed; those no longer up leave when it is shuffled
	next  int       // index in order of the next one
	ups   int       // members that are up, this one included
	hash  uint64    // sum of their hashes

	health     int // local health multiplier less one, 0 is healthy (Lifeguard, section IV-A)
	lastProbe  uint64
	probe      probe
	urgent     []*member // to be probed before order ...
	urgentTurn bool      // ... the next time
	relays     []relay   // pings that this member sends for others

	suspects []*member // those with a suspicion

	changes queue // news of members, to piggyback
	users   queue // broadcasts of applications
	userNum uint64
	accused []*member // told to speak up for themselves

	fetching []*member // whose metadata is being fetched, oldest first

	joining bool             // no seed has answered yet
	joins   uint             // rounds of asking them
	host    coterie.NodeID   // whose view this member is taking over
	gone    []*member        // unreachable ones, and some that are no longer
	targets []coterie.NodeID // scratch of retry

	probeAt, gossipAt, syncAt, retryAt, suspectAt, relayAt, fetchAt, forgetAt, leaveAt int64

	out     coterie.Outbox
	msgs    []message // decoded, of the packet at hand
	packet  []byte    // under construction
	bound   []byte
	picked  []*member
	metrics Metrics
}

const never = math.MaxInt64

// NewCore makes the pure machine. The error names every field of Config that is wrong.
func NewCore(cfg Config) (*Core, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	keys, _ := newKeyring(cfg.Keys)
	c := &Core{
		cfg: cfg, keys: keys, nonces: nonces{seed: cfg.Seed},
		rand:    rand.New(rand.NewPCG(cfg.Seed, 0x5157494d)),
		joining: len(cfg.Seeds) > 0,
	}
	for _, at := range c.timers() {
		*at = never
	}
	life := uint32(mix(cfg.Seed)>>33) | 1 // part of what is on the wire anyway, and never 0
	r := record{
		id: []byte(cfg.ID), addr: []byte(cfg.Address), life: life,
		metaSize: uint32(len(cfg.Meta)), meta: cfg.Meta, inline: true,
	}
	c.self = c.insert(&r)
	c.count(c.self)
	c.lastProbe = c.rand.Uint64() >> 40
	return c, nil
}

func (c *Core) timers() [9]*int64 {
	return [...]*int64{
		&c.probeAt, &c.gossipAt, &c.syncAt, &c.retryAt, &c.suspectAt, &c.relayAt, &c.fetchAt, &c.forgetAt, &c.leaveAt,
	}
}

// Replay refuses every record: a Core saves none.
func (c *Core) Replay([]byte) error {
	return errors.New("swim: a member saves nothing, yet there is a record")
}

// advance takes over the time.
func (c *Core) advance(now time.Time) {
	if !c.started {
		c.started = true
		c.epoch = now.Add(-1) // so that no time is 0
		c.now, c.self.since = 1, 1
		// Members that start together do not act together.
		c.probeAt = c.now + c.within(c.cfg.ProbeInterval)
		c.syncAt = c.now + c.within(c.cfg.SyncInterval)
		c.retryAt = c.now + c.within(c.cfg.RetryInterval)
		c.forgetAt = c.now + int64(c.cfg.ForgetAfter/8)
		if c.joining {
			c.joinSeeds()
		}
		return
	}
	c.now = max(c.now, int64(now.Sub(c.epoch)))
}

// within draws a duration below d.
func (c *Core) within(d time.Duration) int64 { return c.rand.Int64N(int64(d)) + 1 }

// Tick does what its time has come for.
func (c *Core) Tick(now time.Time) {
	c.advance(now)
	if c.now >= c.relayAt {
		c.nackRelays()
	}
	if c.now >= c.probe.timeoutAt && c.probe.target != nil && !c.probe.indirect {
		c.probeIndirectly()
	}
	if c.now >= c.probeAt {
		c.probeNext()
	}
	if c.now >= c.suspectAt {
		c.expireSuspicions()
	}
	if c.now >= c.gossipAt {
		c.gossip()
	}
	if c.now >= c.fetchAt {
		c.refetch()
	}
	if c.now >= c.syncAt {
		c.syncAt = c.now + int64(c.cfg.SyncInterval)
		if m := c.pick(nil); m != nil {
			c.sendDigest(m.nodeID())
		}
	}
	if c.now >= c.retryAt {
		c.retry()
	}
	if c.now >= c.forgetAt {
		c.forget()
	}
	if c.now >= c.leaveAt {
		c.leaveAt = never
		c.out.Emit(Goodbye{})
	}
}

// Ready returns the effects of the calls since the last one.
func (c *Core) Ready() coterie.Ready {
	if c.started {
		at := c.probe.timeoutAt
		if c.probe.target == nil || c.probe.indirect {
			at = never
		}
		for _, t := range [...]int64{
			c.probeAt, c.gossipAt, c.syncAt, c.retryAt, c.suspectAt, c.relayAt, c.fetchAt, c.forgetAt, c.leaveAt,
		} {
			at = min(at, t)
		}
		if at != never {
			c.out.Wake(c.epoch.Add(time.Duration(at)))
		}
	}
	return c.out.Take()
}

// Step takes one packet. A malformed one, or one that does not authenticate, is an error and changes nothing.
func (c *Core) Step(now time.Time, from coterie.NodeID, payload []byte) error {
	if from == "" || len(from) > maxID {
		return fmt.Errorf("swim: packet of a node with an id of %d bytes", len(from))
	}
	body, err := c.open(from, payload)
	if err != nil {
		if errors.Is(err, errNoKey) || errors.Is(err, errUnsealed) {
			c.metrics.Unauthentic++
		} else {
			c.metrics.Malformed++
		}
		return err
	}
	msgs, err := decode(c.msgs[:0], body)
	if cap(msgs) <= 128 { // a whole view would keep much
		c.msgs = msgs
	}
	if err != nil {
		c.metrics.Malformed++
		return err
	}
	c.advance(now)
	c.metrics.Received++
	c.metrics.ReceivedBytes += uint64(len(payload))
	if c.stepSync(from, msgs) {
		return nil
	}
	for i := range msgs {
		c.stepOne(from, &msgs[i])
	}
	return nil
}

// stepOne acts on one message.
func (c *Core) stepOne(from coterie.NodeID, m *message) {
	switch m.kind {
	case kindPing:
		c.answer(from, m)
	case kindPingReq:
		c.relay(from, m)
	case kindAck:
		c.acked(m)
	case kindNack:
		c.nacked(m.number)
	case kindRecord:
		c.learn(&m.rec, from, byGossip)
	case kindDigest:
		c.compare(from, m.number)
	case kindUser:
		c.receive(m)
	case kindMetaGet:
		c.serveMeta(from, m)
	case kindMetaPart:
		c.takeMeta(m)
	}
}

// source says how a record came here.
type source uint8

const (
	byGossip source = iota // as news
	bySync                 // as part of another's view
	byJoin                 // as part of the view that this member asked for when it knew nobody
)

// learn merges one record. The rule is one: what is newer (see newer) replaces what is known.
func (c *Core) learn(r *record, from coterie.NodeID, how source) {
	m := c.lookup(r.id)
	switch {
	case m == c.self:
		c.hearOfSelf(r)
	case m == nil:
		c.meet(r, from, how)
	case newer(r, m):
		// Another's view may hold as unreachable who is well, after a partition or a loss of news; and the one who knows
		// best is the accused. He is asked, and probed in case that he does not answer.
		if how != byGossip && r.state == membership.Unreachable && m.up() {
			c.accuse(m)
			c.seek(m)
			return
		}
		c.replace(m, r, from)
	case same(r, m) && r.state == membership.Suspect && m.state == membership.Suspect:
		c.confirm(m, r.by)
	case how != byGossip && same(r, m) && r.state == membership.Alive && m.state == membership.Unreachable:
		c.accuse(m) // others hear him: he shall speak up, and be back for us too
	}
}

// hearOfSelf refutes what is not so (SWIM, section 4.2), and outdoes what an earlier life of this member has said.
func (c *Core) hearOfSelf(r *record) {
	m := c.self
	if r.inc < m.inc || r.inc == m.inc && r.life == m.life && r.state <= m.state {
		return
	}
	if r.life == m.life {
		c.metrics.Refutations++
		c.ail(1)
	} else {
		c.metrics.PastLives++
	}
	if m.state == membership.Left {
		return // it has said all it has to say
	}
	c.speakUp(max(m.inc, r.inc))
}

// speakUp raises the incarnation above one that is known of, and spreads the word.
func (c *Core) speakUp(above uint32) {
	m := c.self
	c.uncount(m)
	m.inc = min(above, maxIncarnation-1) + 1
	c.count(m)
	c.spread(m, nil)
}

// maxMembers bounds what gossip can make this member remember.
const maxMembers = 1 << 17

// meet takes in a member that was unknown.
func (c *Core) meet(r *record, from coterie.NodeID, how source) {
	if c.table.count >= maxMembers {
		c.metrics.Ignored++
		return
	}
	m := c.insert(r)
	m.state, m.since = r.state, c.now
	if !m.up() {
		c.remember(m)
		m.tidy()
		return // kept, so that a late Alive of it is known to be late
	}
	c.count(m)
	c.list(m)
	c.emit(membership.EventJoin, m)
	if m.state == membership.Suspect {
		c.beginSuspicion(m, r.by)
	}
	c.wantMeta(m, from)
	if how != byJoin {
		c.spread(m, r.by)
	}
}

// replace lets a newer record take the place of what is known.
func (c *Core) replace(m *member, r *record, from coterie.NodeID) {
	was, life, inc := m.state, m.life, m.inc
	said := m.text
	if m.up() {
		c.uncount(m)
	}
	c.endSuspicion(m)
	c.fill(m, r)
	if m.state != r.state {
		m.state, m.since = r.state, c.now
	}
	if m.up() {
		c.count(m)
		if m.flags&inOrder == 0 {
			c.list(m)
		}
	}
	if m.state == membership.Suspect {
		c.beginSuspicion(m, r.by)
	}
	if life != m.life && m.ext != nil {
		m.ext.seen = nil // a new life counts its broadcasts anew
	}
	c.remember(m)
	c.report(m, was, life != m.life || said != m.text && inc != m.inc)
	c.wantMeta(m, from)
	c.spread(m, r.by)
	m.tidy()
}

// report tells the application how a member changed.
func (c *Core) report(m *member, was membership.State, otherwise bool) {
	gone := was > membership.Suspect
	switch {
	case m.state == was:
		if otherwise && m.up() {
			c.emit(membership.EventUpdate, m)
		}
	case m.up() && gone:
		c.emit(membership.EventJoin, m)
	case m.state == membership.Alive:
		c.emit(membership.EventTrust, m)
		if otherwise {
			c.emit(membership.EventUpdate, m)
		}
	case m.state == membership.Suspect:
		c.emit(membership.EventSuspect, m)
	case m.state == membership.Unreachable:
		c.metrics.Failures++
		c.emit(membership.EventFail, m)
	case m.state == membership.Dead:
		c.emit(membership.EventDead, m)
	default:
		c.emit(membership.EventLeave, m)
	}
}

// declare changes a member's state by this one's own judgement.
func (c *Core) declare(m *member, s membership.State, by string) {
	was := m.state
	if m.up() {
		c.uncount(m)
	}
	c.endSuspicion(m)
	m.state, m.since = s, c.now
	if m.up() {
		c.count(m)
	}
	if s == membership.Suspect {
		c.beginSuspicion(m, []byte(by))
	}
	c.remember(m)
	c.report(m, was, false)
	c.spread(m, []byte(by))
}

// remember sees to it that a member that is unreachable will be tried again.
func (c *Core) remember(m *member) {
	if m.state == membership.Unreachable && m.flags&inGone == 0 {
		m.flags |= inGone
		c.gone = append(c.gone, m)
	}
}

// count and uncount keep the number of members that are up and the hash of the view.
func (c *Core) count(m *member)   { c.ups++; c.hash += m.hash() }
func (c *Core) uncount(m *member) { c.ups--; c.hash -= m.hash() }

// forget gives up whom nobody has heard of for long, and no longer remembers whom it gave up long ago.
func (c *Core) forget() {
	c.forgetAt = c.now + int64(c.cfg.ForgetAfter/8)
	before := c.now - int64(c.cfg.ForgetAfter)
	var old []*member
	for m := range c.table.all {
		if !m.up() && m.since <= before && m != c.self {
			old = append(old, m)
		}
	}
	slices.SortFunc(old, func(a, b *member) int { return compareText(a.text, b.text) })
	for _, m := range old {
		if m.state == membership.Unreachable {
			m.state, m.since = membership.Dead, c.now
			c.emit(membership.EventDead, m)
			continue
		}
		if m.flags == 0 && m.ext == nil {
			c.emit(membership.EventForget, m)
			c.table.remove(m)
		}
	}
	if len(c.order) > 2*c.ups {
		c.relist()
	}
}

func compareText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Metrics counts what a member has done, and tells how it is.
type Metrics struct {
	Probes        uint64 // members probed
	Failed        uint64 // probes that nobody answered in time
	ByStream      uint64 // probes answered by the stream only: datagrams do not get through
	Suspicions    uint64 // begun, by this member's own probes
	Failures      uint64 // members that were declared unreachable, here or elsewhere
	Refutations   uint64 // times that this member spoke up for itself
	PastLives     uint64 // times that it was told of an earlier life, or of another node with its id
	Syncs         uint64 // whole views sent
	Sent          uint64 // packets
	SentBytes     uint64
	Received      uint64
	ReceivedBytes uint64
	Malformed     uint64 // packets that make no sense
	Unauthentic   uint64 // packets that no key opens, or in the clear where there are keys
	Dropped       uint64 // broadcasts not passed on, because too many were under way
	Ignored       uint64 // members over the limit of 131,072
	Health        int    // local health multiplier less one, 0 (well) to 8: timeouts are longer by so many times
	Members       int    // members alive or suspect, this one included
}

// Metrics returns the counters.
func (c *Core) Metrics() Metrics {
	m := c.metrics
	m.Health, m.Members = c.health, c.ups
	return m
}
