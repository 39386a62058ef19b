package tokenring

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/lock"
)

// Config describes a peer. ID and Peers are required.
type Config struct {
	ID        coterie.NodeID
	Peers     []coterie.NodeID  // all, this one among them; the ring is their sorted order, the same on all
	Transport coterie.Transport // required by Start; not closed by the Node
	Journal   coterie.Journal   // required by Start; not closed by the Node
	Resend    time.Duration     // how long to wait for a token before asking where it is; default 100 ms
	MaxNames  int               // how many names it will ever know; default 4096; the same on all
	TryWait   time.Duration     // how long TryAcquire waits for the token; default 100 ms
	Log       *slog.Logger      // default silent
}

const (
	defaultResend   = 100 * time.Millisecond
	defaultMaxNames = 4096
	maxBackoff      = 16 // times Resend
)

// Core is one peer: a lock.PeerCore.
//
// Invariants: a token here has an epoch of at least what was promised; what was promised only rises, and is saved
// before a message tells of it; a name is held only while its token is here.
type Core struct {
	cfg   Config
	peers []coterie.NodeID // sorted
	rank  int              // of this node in peers
	out   coterie.Outbox

	incarnation uint64   // of this start, from 1; 0 before the first Tick; saved
	last        uint64   // the incarnation before
	known       []uint64 // incarnations of the peers, as far as heard
	dead        []bool
	names       map[string]*ring
	waiting     map[string]*ring // those that are wanted here and not held
	touched     []*ring          // in this batch
	probes      uint64           // made so far
	records     int              // in the journal since its last summary

	bugs bugs
}

// bugs are planted by tests.
type bugs struct {
	acceptStale bool // takes a token of an epoch that is over
}

// ring is what a peer knows of one name.
type ring struct {
	name     string
	promised uint64   // no token of an earlier epoch is taken; saved
	here     bool     // the token is here
	token    position // the token if here, else where it was last seen
	wanted   bool     // requested, not entered
	held     bool     // entered, not released
	asked    bool     // a want is on its way, or the token knows of it
	ahead    int      // how many peers on somebody wants the token; 0 is nobody
	yield    uint64   // the epoch of a claim that waits for the release
	dirty    bool     // in Core.touched

	search search
}

// position is the place of a token in its history: it rises with each pass and each entry.
type position struct{ epoch, seq uint64 }

func (p position) less(o position) bool {
	return p.epoch < o.epoch || p.epoch == o.epoch && p.seq < o.seq
}

const (
	seqBits  = 36
	maxSeq   = 1<<seqBits - 1
	maxEpoch = 1<<(64-seqBits) - 1
)

func (p position) fence() uint64 { return p.epoch<<seqBits | p.seq }

// NewCore makes a peer. The error names the field of Config that is wrong.
func NewCore(cfg Config) (*Core, error) {
	peers := slices.Sorted(slices.Values(cfg.Peers))
	rank := slices.Index(peers, cfg.ID)
	switch {
	case cfg.ID == "":
		return nil, errors.New("tokenring: Config.ID is required")
	case slices.Contains(peers, ""):
		return nil, errors.New("tokenring: Config.Peers has an empty ID")
	case rank < 0:
		return nil, fmt.Errorf("tokenring: Config.Peers lacks Config.ID %q", cfg.ID)
	case len(slices.Compact(slices.Clone(peers))) < len(peers):
		return nil, errors.New("tokenring: Config.Peers has an ID twice")
	case cfg.Resend < 0:
		return nil, fmt.Errorf("tokenring: Config.Resend %v is negative", cfg.Resend)
	case cfg.MaxNames < 0:
		return nil, fmt.Errorf("tokenring: Config.MaxNames %d is negative", cfg.MaxNames)
	case cfg.TryWait < 0:
		return nil, fmt.Errorf("tokenring: Config.TryWait %v is negative", cfg.TryWait)
	}
	if cfg.Resend == 0 {
		cfg.Resend = defaultResend
	}
	if cfg.MaxNames == 0 {
		cfg.MaxNames = defaultMaxNames
	}
	c := &Core{
		cfg: cfg, peers: peers, rank: rank, known: make([]uint64, len(peers)), dead: make([]bool, len(peers)),
		names: map[string]*ring{}, waiting: map[string]*ring{},
	}
	for i := range c.known {
		c.known[i] = 1
	}
	return c, nil
}

var _ lock.PeerCore = (*Core)(nil)

// Request is lock.PeerCore's.
func (c *Core) Request(now time.Time, name string) {
	c.born()
	r := c.ring(name)
	if r == nil || r.wanted || r.held {
		return
	}
	r.wanted = true
	c.waiting[name] = r
	r.search = search{at: now.Add(c.cfg.Resend), wait: c.cfg.Resend}
	c.touch(r)
	if !r.here && r.promised == 0 { // a new name, or one that this node has forgotten
		c.probe(now, r)
	}
}

// Release is lock.PeerCore's.
func (c *Core) Release(_ time.Time, name string) {
	r := c.names[name]
	if r == nil || !r.wanted && !r.held {
		return
	}
	delete(c.waiting, name)
	r.wanted, r.held, r.search = false, false, search{}
	if r.yield > r.promised {
		c.promise(r, r.yield)
		c.send(int(r.yield%uint64(len(c.peers))), r, message{kind: kindPromise, epoch: r.yield})
	}
	r.yield = 0
	c.touch(r)
}

// Liveness takes a failure detector's opinion of a peer. A Dead one is left out of the ring, and nobody waits for its
// answer, until it is called Alive or Suspect again. See the package comment for what a wrong opinion does.
func (c *Core) Liveness(now time.Time, id coterie.NodeID, opinion coterie.Liveness) {
	i := slices.Index(c.peers, id)
	if i < 0 || i == c.rank || c.dead[i] == (opinion == coterie.Dead) {
		return
	}
	c.born()
	c.dead[i] = opinion == coterie.Dead
	for _, r := range c.waitingInOrder() {
		c.concludeProbe(now, r)
		c.concludeClaim(r)
		r.asked = false // perhaps it asked a dead peer
		c.touch(r)
	}
}

// Tick is coterie.Core's.
func (c *Core) Tick(now time.Time) {
	c.born()
	for _, r := range c.waitingInOrder() {
		if !r.search.at.After(now) {
			c.searchOn(now, r)
		}
	}
}

// born gives this start its number, which is durable before any message of it leaves.
func (c *Core) born() {
	if c.incarnation == 0 {
		c.incarnation = c.last + 1
		c.save(nil)
	}
}

func (c *Core) waitingInOrder() []*ring {
	var rings []*ring
	for _, name := range slices.Sorted(maps.Keys(c.waiting)) {
		rings = append(rings, c.waiting[name])
	}
	return rings
}

// Step is coterie.Core's. A message of a node that is no peer is an error.
func (c *Core) Step(now time.Time, from coterie.NodeID, payload []byte) error {
	c.born()
	sender := slices.Index(c.peers, from)
	if sender < 0 || sender == c.rank {
		return fmt.Errorf("tokenring: message from %q, which is no other peer", from)
	}
	m, err := decode(payload)
	if err != nil {
		return err
	}
	if err := c.valid(sender, m); err != nil {
		return err
	}
	if m.incarnation < c.known[sender] {
		return nil // of a life that is over
	}
	c.known[sender] = m.incarnation
	r := c.ring(m.name)
	if r == nil {
		return nil
	}
	switch m.kind {
	case kindToken:
		c.onToken(sender, r, m)
	case kindWant:
		c.onWant(r, m)
	case kindProbe:
		c.onProbe(sender, r, m)
	case kindStatus:
		c.onStatus(now, sender, r, m)
	case kindClaim:
		c.onClaim(now, sender, r, m)
	case kindPromise:
		c.onPromise(sender, r, m)
	case kindRefuse:
		c.onRefuse(now, r, m)
	}
	return nil
}

// Ready is coterie.Core's.
func (c *Core) Ready() coterie.Ready {
	for _, r := range c.touched {
		r.dirty = false
		c.settle(r)
	}
	c.touched = c.touched[:0]
	for _, r := range c.waiting {
		c.out.Wake(r.search.at)
	}
	return c.out.Take()
}

// ring returns what is known of a name; nil if it would be one too many.
func (c *Core) ring(name string) *ring {
	r := c.names[name]
	if r == nil && len(c.names) < c.cfg.MaxNames {
		r = &ring{name: name}
		c.names[name] = r
	}
	return r
}

func (c *Core) touch(r *ring) {
	if !r.dirty {
		r.dirty = true
		c.touched = append(c.touched, r)
	}
}

func (c *Core) send(to int, r *ring, m message) {
	m.incarnation, m.name = c.incarnation, r.name
	c.out.Send(c.peers[to], m.encode())
}
