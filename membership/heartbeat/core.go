package heartbeat

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/membership"
)

// Config configures a member. ID, Members and, for Start, Transport are required.
type Config struct {
	ID        coterie.NodeID    // required: this member, one of Members
	Members   []coterie.NodeID  // required: all of them, the same at each; at most 256
	Transport coterie.Transport // required by Start; not closed by the Node
	Seed      uint64            // tells this start of the member from others; required by NewCore, drawn by Start if 0

	Ring     bool          // heartbeats go to the next two live members in the order of ids, not to all
	Interval time.Duration // between heartbeats; default 500 ms
	Timeout  time.Duration // silence before a member is suspected; default 5 Interval, in a ring so many more as members
	// New makes the judge of a member; default a time-out of Timeout. It is suspected at level 1 and given up at 2.
	New func() membership.Estimator
}

const (
	maxMembers = 256
	format     = 1
	retryBeats = 10 // a heartbeat in so many goes to one who is not heard, in a ring
)

func (c Config) withDefaults() Config {
	c.Interval = cmp.Or(c.Interval, 500*time.Millisecond)
	beats := 5
	if c.Ring {
		beats += len(c.Members)
	}
	c.Timeout = cmp.Or(c.Timeout, time.Duration(beats)*c.Interval)
	if c.New == nil {
		timeout := c.Timeout
		c.New = func() membership.Estimator { return &fixed{timeout: timeout} }
	}
	c.Members = slices.Clone(c.Members)
	slices.Sort(c.Members)
	return c
}

func (c Config) validate() error {
	switch {
	case c.ID == "":
		return errors.New("heartbeat: Config.ID is required")
	case len(c.Members) == 0:
		return errors.New("heartbeat: Config.Members is required")
	case len(c.Members) > maxMembers:
		return fmt.Errorf("heartbeat: Config.Members has %d, at most %d", len(c.Members), maxMembers)
	case !slices.Contains(c.Members, c.ID):
		return fmt.Errorf("heartbeat: Config.Members does not have Config.ID %q", c.ID)
	case len(slices.Compact(slices.Clone(c.Members))) < len(c.Members):
		return errors.New("heartbeat: Config.Members has one twice")
	case c.Seed == 0:
		return errors.New("heartbeat: Config.Seed is required: another one for each start")
	case c.Interval < 0 || c.Timeout < 0:
		return errors.New("heartbeat: Config.Interval or Config.Timeout is negative")
	case c.New() == nil:
		return errors.New("heartbeat: Config.New makes no estimator")
	}
	return nil
}

// fixed is the default judge.
type fixed struct {
	timeout time.Duration
	last    time.Time
}

func (f *fixed) Heartbeat(at time.Time) { f.last = at }
func (f *fixed) Deadline() time.Time    { return f.last.Add(f.timeout) }
func (f *fixed) Level(at time.Time) float64 {
	return float64(at.Sub(f.last)) / float64(f.timeout)
}

// row is what a member said last of itself.
type row struct {
	life  uint32 // of its process; 0 is never heard of
	count uint64 // of its heartbeats in that life
	hears set
}

// set is a set of members, by their places in Config.Members.
type set [maxMembers / 64]uint64

func (s *set) has(i int) bool { return s[i/64]>>(i%64)&1 == 1 }
func (s *set) add(i int)      { s[i/64] |= 1 << (i % 64) }

// Core is the pure machine; the order of calls is coterie.Core's. It is not safe for concurrent use.
type Core struct {
	cfg    Config
	me     int
	sum    uint64 // of Members: who was given others is not understood
	peers  []peer
	beatAt time.Time
	beats  uint64
	out    coterie.Outbox
}

// peer is one of Members.
type peer struct {
	row       row
	freshAt   time.Time // when the row came
	estimator membership.Estimator
	state     membership.State
	since     time.Time
}

// NewCore makes the pure machine. The error names the field of Config that is wrong.
func NewCore(cfg Config) (*Core, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &Core{cfg: cfg, me: slices.Index(cfg.Members, cfg.ID), peers: make([]peer, len(cfg.Members))}
	h := fnv.New64a()
	for i, id := range cfg.Members {
		_, _ = h.Write(wire.AppendString(nil, id))
		c.peers[i] = peer{estimator: cfg.New(), state: membership.Suspect}
	}
	c.sum = h.Sum64()
	self := &c.peers[c.me]
	self.state = membership.Alive
	self.row.life = uint32(cfg.Seed*0x9e3779b97f4a7c15>>33) | 1
	return c, nil
}

// Replay refuses every record: a Core saves none.
func (c *Core) Replay([]byte) error {
	return errors.New("heartbeat: a member saves nothing, yet there is a record")
}

// Tick beats, and judges the silence of others.
func (c *Core) Tick(now time.Time) {
	if c.beatAt.IsZero() {
		for i := range c.peers {
			c.peers[i].estimator.Heartbeat(now) // whoever is never heard is suspected too
			c.peers[i].since = now
		}
		c.beatAt = now
	}
	c.judge(now)
	if !now.Before(c.beatAt) {
		c.beatAt = now.Add(c.cfg.Interval)
		c.beat()
	}
}

// judge looks who has been silent for too long.
func (c *Core) judge(now time.Time) {
	for i := range c.peers {
		p := &c.peers[i]
		if i == c.me || p.state == membership.Unreachable {
			continue
		}
		switch level := p.estimator.Level(now); {
		case level >= 2:
			c.set(now, i, membership.Unreachable, membership.EventFail)
		case level >= 1 && p.state == membership.Alive:
			c.set(now, i, membership.Suspect, membership.EventSuspect)
		}
	}
}

func (c *Core) set(now time.Time, i int, s membership.State, kind membership.Kind) {
	p := &c.peers[i]
	p.state, p.since = s, now
	c.out.Emit(membership.Event[struct{}]{Kind: kind, Member: c.value(i)})
}

func (c *Core) value(i int) membership.Member[struct{}] {
	p := &c.peers[i]
	return membership.Member[struct{}]{
		ID: c.cfg.Members[i], State: p.state, Incarnation: p.row.count, Life: p.row.life, Since: p.since,
	}
}

// hears is whom this member hears, itself included.
func (c *Core) hears() (s set) {
	for i := range c.peers {
		if c.peers[i].state == membership.Alive {
			s.add(i)
		}
	}
	return s
}

// beat sends what is known.
func (c *Core) beat() {
	self := &c.peers[c.me].row
	self.count++
	self.hears = c.hears()
	payload := c.encode()
	if !c.cfg.Ring {
		for i := range c.peers {
			c.sendTo(i, payload)
		}
		return
	}
	n, sent := len(c.peers), 0
	for step := 1; step < n && sent < 2; step++ {
		if i := (c.me + step) % n; c.peers[i].state == membership.Alive {
			c.sendTo(i, payload)
			sent++
		}
	}
	// Whoever is not heard is told from time to time that this member is there; at first everyone is.
	for i := range c.peers {
		if c.peers[i].state != membership.Alive && (c.beats < 3 || (int(c.beats)/retryBeats+c.me)%n == i && c.beats%retryBeats == 0) {
			c.sendTo(i, payload)
		}
	}
	c.beats++
}

func (c *Core) sendTo(i int, payload []byte) {
	if i != c.me {
		c.out.Send(c.cfg.Members[i], payload)
	}
}

// A heartbeat is a format byte, the checksum of Members, and for each member that was ever heard of its place, its row's
// life and count, and the set of those it hears, as bytes.
func (c *Core) encode() []byte {
	b := wire.AppendUint64([]byte{format}, c.sum)
	for i := range c.peers {
		r := &c.peers[i].row
		if r.life == 0 {
			continue
		}
		b = wire.AppendUvarint(b, uint64(i))
		b = wire.AppendUvarint(wire.AppendUint32(b, r.life), r.count)
		for k := range (len(c.peers) + 7) / 8 {
			b = append(b, byte(r.hears[k/8]>>(k%8*8)))
		}
	}
	return b
}

// decode checks a whole heartbeat and returns its rows, by place.
func (c *Core) decode(payload []byte) (map[int]row, error) {
	r := wire.NewReader(payload)
	if got := r.Byte(); r.Err() == nil && got != format {
		if got > format {
			return nil, &coterie.FormatError{What: "heartbeat", Got: got, Max: format}
		}
		return nil, fmt.Errorf("heartbeat: format %d", got)
	}
	if sum := r.Uint64(); r.Err() == nil && sum != c.sum {
		return nil, errors.New("heartbeat: the sender was given other Members")
	}
	rows := make(map[int]row)
	for r.Len() > 0 {
		i := r.Int(len(c.peers) - 1)
		next := row{life: r.Uint32(), count: r.Uvarint()}
		for k, b := range r.Fixed((len(c.peers) + 7) / 8) {
			next.hears[k/8] |= uint64(b) << (k % 8 * 8)
		}
		if _, twice := rows[i]; twice || next.life == 0 && r.Err() == nil {
			r.Fail("row %d", i)
		}
		rows[i] = next
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("heartbeat: %w", err)
	}
	return rows, nil
}

// Step takes a heartbeat.
func (c *Core) Step(now time.Time, from coterie.NodeID, payload []byte) error {
	sender, ok := slices.BinarySearch(c.cfg.Members, from)
	if !ok {
		return fmt.Errorf("heartbeat: %q is not one of the members", from)
	}
	rows, err := c.decode(payload)
	if err != nil {
		return err
	}
	if _, ok := rows[sender]; !ok || sender == c.me {
		return fmt.Errorf("heartbeat: %s says nothing of itself", from)
	}
	for i := range c.peers {
		r, ok := rows[i]
		p := &c.peers[i]
		// Only the member itself tells of a new life: what others remember of one that has ended is not news.
		if !ok || i == c.me || r.life != p.row.life && i != sender && p.row.life != 0 ||
			r.life == p.row.life && r.count <= p.row.count {
			continue
		}
		p.row, p.freshAt = r, now
		if c.cfg.Ring || i == sender {
			c.heard(now, i)
		}
	}
	return nil
}

// heard notes a sign of life.
func (c *Core) heard(now time.Time, i int) {
	p := &c.peers[i]
	p.estimator.Heartbeat(now)
	switch p.state {
	case membership.Alive:
		return
	case membership.Suspect:
		c.set(now, i, membership.Alive, membership.EventTrust)
	default:
		p.estimator = c.cfg.New() // what it learned of the time before is of no use
		p.estimator.Heartbeat(now)
		c.set(now, i, membership.Alive, membership.EventJoin)
	}
}

// Ready returns the effects of the calls since the last one.
func (c *Core) Ready() coterie.Ready {
	c.out.Wake(c.beatAt)
	return c.out.Take()
}

// Members returns what is known of each member: values that are safe to keep. Incarnation counts its heartbeats.
func (c *Core) Members() []membership.Member[struct{}] {
	members := make([]membership.Member[struct{}], len(c.peers))
	for i := range members {
		members[i] = c.value(i)
	}
	return members
}
