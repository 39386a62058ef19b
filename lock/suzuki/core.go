package suzuki

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/lock"
)

// The token that an application sees is an epoch and a sequence number in one.
const (
	seqBits  = 40
	maxSeq   = 1<<seqBits - 1
	maxEpoch = 1<<(64-seqBits) - 1
	maxPeers = 1024
	backoff  = 8 // a pause between repeats grows up to so many times Config.Resend
)

// stamp orders the states of a name's token: each passage and each entry makes a new one.
type stamp struct {
	epoch, seq uint64
}

func (s stamp) less(o stamp) bool {
	return cmp.Or(cmp.Compare(s.epoch, o.epoch), cmp.Compare(s.seq, o.seq)) < 0
}

func (s stamp) pack() uint64 { return s.epoch<<seqBits | s.seq }

// token is the paper's: LN and Q, by index of Peers in sorted order.
type token struct {
	stamp
	ln    []uint64
	queue []int
}

// place is where a node knows a token to be.
type place byte

const (
	elsewhere place = iota
	here
	sent // to name.to; what is kept is a copy, for the case that it was lost
)

// name is one node's part in the algorithm for one name.
//
// Invariants: held only if the token is here; waiting only if it is not; the token that is here or sent is of the epoch
// promised; seen is never lower than the token; an attempt is there only while waiting.
type name struct {
	name string

	// Saved.
	promised uint64 // tokens of lower epochs are refused
	seen     stamp  // the newest token this node has had
	place    place
	to       int
	token    token // unless elsewhere

	// Forgotten in a crash.
	rn       []uint64 // RN; one's own is the number of the last request
	waiting  bool
	held     bool
	repeatAt time.Time
	pause    time.Duration
	lostAt   time.Time
	attempt  *attempt
	untold   map[int]bool // peers that may not know of the epoch that this node made the token of
	tellAt   time.Time
	dirty    bool // to be saved by Ready
	saved    bool // has a record
}

// Stats counts what a Core sent and did since it was made. On links without faults and with waits shorter than
// Config.Resend only Requests and Tokens are not zero: n-1 and 1 for each entry of a node without the token.
type Stats struct {
	Requests      uint64 // messages: requests, sent for the first time
	Tokens        uint64 // messages: the token, sent for the first time
	Repeats       uint64 // messages: requests and tokens sent again
	Others        uint64 // messages: notices, and those of regeneration
	Regenerations uint64 // tokens made in place of lost ones
	NoRoom        uint64 // requests and messages of names beyond MaxNames
}

// bug is a fault that a test plants to see that it is found.
type bug byte

const (
	_              bug = iota
	bugTakeOld         // a token that is not newer than one had before is taken
	bugForgetToken     // the passage of a token is not saved
)

// Core is one node's part of the algorithm, for all names. It implements lock.PeerCore and coterie.Describer.
type Core struct {
	cfg   Config
	peers []coterie.NodeID // sorted
	self  int

	incarnation uint64
	counter     uint64
	started     bool
	names       map[string]*name
	list        []*name // in the order in which they were met
	dirty       []*name
	out         coterie.Outbox
	wakeAt      time.Time
	records     int // since the last summary
	stats       Stats
	bug         bug
}

var (
	_ lock.PeerCore     = (*Core)(nil)
	_ coterie.Describer = (*Core)(nil)
)

// NewCore returns a core. The error names the field of Config that is wrong.
func NewCore(cfg Config) (*Core, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Core{cfg: cfg, peers: slices.Sorted(slices.Values(cfg.Peers)), names: make(map[string]*name)}
	c.self = slices.Index(c.peers, cfg.ID)
	return c, nil
}

// Stats returns the core's counters.
func (c *Core) Stats() Stats { return c.stats }

// Step takes one message. Errors: it is malformed, of a newer format (*coterie.FormatError), or not from another peer.
func (c *Core) Step(now time.Time, from coterie.NodeID, payload []byte) error {
	sender, ok := slices.BinarySearch(c.peers, from)
	if !ok || sender == c.self {
		return fmt.Errorf("suzuki: message from %q, which is no other peer", from)
	}
	m, err := decode(payload, len(c.peers))
	if err != nil {
		return err
	}
	c.start()
	n := c.name(m.name)
	if n == nil {
		c.stats.NoRoom++
		return nil
	}
	switch m.kind {
	case kindRequest:
		c.requested(now, n, sender, m)
	case kindToken:
		c.received(n, sender, m.token)
	case kindReclaim:
		c.reclaimed(now, n, sender, m.promised)
	case kindPromise:
		c.promise(now, n, sender, m)
	case kindNotice:
		c.noticed(now, n, sender, m)
	}
	return nil
}

// Tick repeats what waits for too long.
func (c *Core) Tick(now time.Time) {
	c.start()
	c.wakeAt = time.Time{}
	for _, n := range c.list {
		c.tell(now, n)
		if !n.waiting {
			continue
		}
		if !n.repeatAt.After(now) {
			n.pause = min(2*n.pause, backoff*c.cfg.Resend)
			n.repeatAt = now.Add(n.pause)
			c.repeat(now, n)
		}
		if n.waiting {
			c.wake(n.repeatAt)
		}
	}
}

// start begins an incarnation: its number makes request numbers larger than those before the crash.
func (c *Core) start() {
	if c.started {
		return
	}
	c.started = true
	c.incarnation++
	c.save(appendStart(nil, c.incarnation))
}

// Ready ends a batch.
func (c *Core) Ready() coterie.Ready {
	for _, n := range c.dirty {
		n.dirty, n.saved = false, true
		if c.bug == bugForgetToken && n.place == sent {
			continue
		}
		c.save(appendName(head(recordName), n))
	}
	c.dirty = c.dirty[:0]
	if c.records > 256+4*len(c.list) {
		c.out.Save(c.summary())
		c.out.Keep(1)
		c.records = 0
	}
	c.out.Wake(c.wakeAt)
	return c.out.Take()
}

func (c *Core) save(record []byte) {
	c.out.Save(record)
	c.records++
}

func (c *Core) change(n *name) {
	if !n.dirty {
		n.dirty = true
		c.dirty = append(c.dirty, n)
	}
}

func (c *Core) wake(at time.Time) {
	if c.wakeAt.IsZero() || at.Before(c.wakeAt) {
		c.wakeAt = at
	}
}

// name finds the state of a name, or begins it; nil if there is no room.
func (c *Core) name(s string) *name {
	if n := c.names[s]; n != nil {
		return n
	}
	if len(c.list) >= c.cfg.MaxNames {
		return nil
	}
	return c.begin(s)
}

// begin makes the state of a name that nobody here has heard of: its token is where the hash of the name says.
func (c *Core) begin(s string) *name {
	n := &name{name: s, rn: make([]uint64, len(c.peers))}
	h := fnv.New32a()
	_, _ = h.Write([]byte(s)) // never fails
	if int(h.Sum32()%uint32(len(c.peers))) == c.self {
		n.place = here
		n.token.ln = make([]uint64, len(c.peers))
	}
	c.names[s] = n
	c.list = append(c.list, n)
	return n
}

func (c *Core) send(to int, m message) { c.out.Send(c.peers[to], m.encode()) }

// broadcast sends to all others, who share the payload.
func (c *Core) broadcast(m message, count *uint64) {
	payload := m.encode()
	for i, id := range c.peers {
		if i != c.self {
			c.out.Send(id, payload)
			*count++
		}
	}
}

// Describe returns a short line of what a message or a record says.
func (c *Core) Describe(payload []byte) string {
	m, err := decode(payload, len(c.peers))
	if err == nil {
		return m.String()
	}
	if r, rerr := decodeRecord(payload, len(c.peers)); rerr == nil {
		return r.String()
	} else if !errors.Is(rerr, errNotRecord) {
		return rerr.Error()
	}
	return err.Error()
}
