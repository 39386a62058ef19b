package gossip

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/crdt"
)

// ErrEvicted is returned by Update after the other nodes have evicted this one; the delta was not taken. Begin anew under
// a new id, from the state that the Evicted event carries.
var ErrEvicted = errors.New("gossip: evicted")

// Config configures a Core. ID, State and Seed are required.
type Config struct {
	ID    coterie.NodeID
	Peers []coterie.NodeID // the other nodes
	State Replicated
	Seed  uint64 // of what is drawn, and the incarnation's name: a new one for each
	// Resend is how long to wait for an acknowledgement; default 200 ms.
	Resend time.Duration
	// AntiEntropy is how often to compare digests with a peer; default 1 s.
	AntiEntropy time.Duration
	// LogBytes bounds the deltas kept for peers that have not acknowledged them; one that is further behind gets the
	// full state. Default 1 MiB.
	LogBytes int
	// CompactBytes is how much to save before the whole state is saved and the rest forgotten; default 1 MiB.
	CompactBytes int
}

func (cfg Config) withDefaults() (Config, error) {
	switch {
	case cfg.ID == "":
		return cfg, errors.New("gossip: Config.ID is empty")
	case cfg.State == nil:
		return cfg, errors.New("gossip: Config.State is nil")
	case cfg.Seed == 0:
		return cfg, errors.New("gossip: Config.Seed is 0")
	case slices.Contains(cfg.Peers, cfg.ID):
		return cfg, fmt.Errorf("gossip: Config.Peers has ID %q", cfg.ID)
	case cfg.Resend < 0 || cfg.AntiEntropy < 0 || cfg.LogBytes < 0 || cfg.CompactBytes < 0:
		return cfg, errors.New("gossip: Config has a negative number")
	}
	peers := slices.Clone(cfg.Peers)
	slices.Sort(peers)
	cfg.Peers = slices.Compact(peers)
	if cfg.Resend == 0 {
		cfg.Resend = 200 * time.Millisecond
	}
	if cfg.AntiEntropy == 0 {
		cfg.AntiEntropy = time.Second
	}
	if cfg.CompactBytes == 0 {
		cfg.CompactBytes = 1 << 20
	}
	return cfg, nil
}

// Merged is the event of a delta or state from elsewhere that was merged.
type Merged struct{ From coterie.NodeID }

// Evicted is the event of having been evicted. State is the full state of the node that told so.
type Evicted struct {
	By    coterie.NodeID
	State []byte
}

// Metrics counts what a Core has done since it was made, and tells how far the peers are.
type Metrics struct {
	Updates     uint64 // local changes
	DeltasSent  uint64 // deltas in messages, repeated ones included
	DeltasTaken uint64 // deltas of others merged
	Duplicates  uint64 // deltas that came again
	Gaps        uint64 // messages that came before others they build on
	StatesSent  uint64 // full states, to peers too far behind
	Digests     uint64 // digests sent
	Diffs       uint64 // of those received, such that something was lacking
	DiffBytes   uint64 // sent for that
	Refused     uint64 // messages of evicted nodes
	Collected   uint64 // things that stability made superfluous
	Unacked     uint64 // deltas that some peer has not acknowledged: 0 when all have everything of this node
	Agreed      int    // peers whose latest digest was this node's own: all of them when the states have converged
}

// Core replicates one state. Invariant: what was sent to a peer was saved before.
//
// It is a coterie.Core: run it on transport/host, or in transport/sim. It is not safe for concurrent use.
type Core struct {
	coterie.Outbox
	cfg       Config
	rng       *rand.Rand
	log       crdt.DeltaLog
	peers     []peer
	stability crdt.Stability // of the states' versions
	settled   crdt.Stability // of the frontiers given to Stable
	frontier  clock.Vector
	saved     int
	nextAE    time.Time
	evicted   bool
	started   bool
	metrics   Metrics
}

// peer is what is known of another node.
type peer struct {
	id     coterie.NodeID
	epoch  uint64    // its incarnation
	sent   uint64    // our deltas up to this number were sent
	resend time.Time // when to send again what is not acknowledged; zero if all is
	agreed bool
}

// NewCore returns a Core that has not started. The error names the field of Config that is wrong.
func NewCore(cfg Config) (*Core, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Core{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0))}
	c.log.MaxBytes = cfg.LogBytes
	for _, id := range cfg.Peers {
		c.peers = append(c.peers, peer{id: id})
		c.log.Add(id)
		c.stability.Join(id)
		c.settled.Join(id)
	}
	return c, nil
}

// What a record holds.
const (
	recordDelta   = 1 // a delta
	recordState   = 2 // the whole state
	recordEvicted = 3 // the id of a node that was evicted
	recordStable  = 4 // a frontier that was given to the state's Stable
)

// Replay takes back a record.
func (c *Core) Replay(record []byte) error {
	if len(record) == 0 {
		return errors.New("gossip: empty record")
	}
	switch record[0] {
	case recordDelta, recordState:
		return c.cfg.State.MergeBinary(record[1:])
	case recordEvicted:
		c.evict(coterie.NodeID(record[1:]))
		return nil
	case recordStable:
		var frontier clock.Vector
		if err := frontier.UnmarshalBinary(record[1:]); err != nil {
			return err
		}
		c.frontier.Merge(frontier)
		c.cfg.State.Stable(frontier, clock.Vector{})
		return nil
	}
	return fmt.Errorf("gossip: record of kind %d", record[0])
}

// Update replicates a change that the application has just made to the state: delta is its encoding, which nobody may
// change any more.
func (c *Core) Update(now time.Time, delta []byte) error {
	if c.evicted {
		return ErrEvicted
	}
	c.metrics.Updates++
	c.log.Append(delta)
	c.save(recordDelta, delta)
	for i := range c.peers {
		if p := &c.peers[i]; p.resend.IsZero() {
			p.resend = now.Add(c.cfg.Resend)
		}
	}
	return nil
}

// Evict takes a node out for good. The other nodes learn of it.
func (c *Core) Evict(_ time.Time, id coterie.NodeID) {
	if !c.stability.Evicted(id) {
		c.evict(id)
		c.save(recordEvicted, []byte(id))
	}
}

func (c *Core) evict(id coterie.NodeID) {
	if id == c.cfg.ID {
		c.evicted = true
	}
	c.stability.Evict(id)
	c.settled.Evict(id)
	c.log.Remove(id)
	c.peers = slices.DeleteFunc(c.peers, func(p peer) bool { return p.id == id })
}

// save appends a record, and begins anew with the whole state when there are enough.
func (c *Core) save(kind byte, b []byte) {
	c.Save(append([]byte{kind}, b...))
	c.saved += len(b) + 1
	if c.saved < c.cfg.CompactBytes {
		return
	}
	whole, err := c.cfg.State.AppendBinary([]byte{recordState})
	if err != nil { // an element that does not encode: what was saved before stays
		return
	}
	c.Save(whole)
	evictions := c.stability.Evictions()
	for _, id := range evictions {
		c.Save(append([]byte{recordEvicted}, id...))
	}
	c.Save(c.stableRecord())
	c.Keep(2 + len(evictions))
	c.saved = 0
}

// Tick sends what is due.
func (c *Core) Tick(now time.Time) {
	if !c.started {
		c.started = true
		c.nextAE = now.Add(time.Duration(c.rng.Int64N(int64(c.cfg.AntiEntropy)) + 1))
	}
	for i := range c.peers {
		if p := &c.peers[i]; !p.resend.IsZero() && !now.Before(p.resend) {
			p.sent = c.log.Acked(p.id)
			p.resend = now.Add(c.cfg.Resend)
		}
	}
	if !now.Before(c.nextAE) && !c.evicted {
		c.nextAE = now.Add(c.cfg.AntiEntropy)
		c.collect()
		if len(c.peers) > 0 {
			c.sendDigest(c.peers[c.rng.IntN(len(c.peers))].id, kindDigest)
		}
	}
}

// Ready sends the new deltas and ends the batch.
func (c *Core) Ready() coterie.Ready {
	for i := range c.peers {
		p := &c.peers[i]
		if !c.evicted && p.sent < c.log.Last() {
			c.sendDeltas(p)
		}
		if p.resend.IsZero() || c.evicted {
			continue
		}
		c.Wake(p.resend)
	}
	if c.started && !c.evicted {
		c.Wake(c.nextAE)
	}
	return c.Take()
}

// collect gives the state the frontiers.
func (c *Core) collect() {
	// What others are told of the frontier they rely on, so that it must survive a crash.
	if f := c.stability.Frontier(c.cfg.State.Version()).Merged(c.frontier); !c.frontier.Covers(f) {
		c.frontier = f
		c.Save(c.stableRecord())
	}
	c.metrics.Collected += uint64(c.cfg.State.Stable(c.frontier, c.settled.Frontier(c.frontier)))
}

func (c *Core) stableRecord() []byte {
	b, _ := c.frontier.AppendBinary([]byte{recordStable}) // never fails
	return b
}

// Metrics returns the counters.
func (c *Core) Metrics() Metrics {
	m := c.metrics
	for i := range c.peers {
		m.Unacked = max(m.Unacked, c.log.Last()-c.log.Acked(c.peers[i].id))
		if c.peers[i].agreed {
			m.Agreed++
		}
	}
	return m
}

func (c *Core) peer(id coterie.NodeID) *peer {
	for i := range c.peers {
		if c.peers[i].id == id {
			return &c.peers[i]
		}
	}
	return nil
}
