package abd

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/quorum"
)

// Form is what a register promises to a read that a write overlaps, after Lamport 1986.
type Form uint8

// The forms of a register, the strongest first.
const (
	Atomic  Form = iota // linearizable
	Regular             // the last value written before the read, or one being written
	Safe                // any value or none; but the last value if nothing is being written
)

// Config describes one node. Every node has the same System, Form and Faulty.
type Config struct {
	ID     coterie.NodeID   // required; a node outside of the System is a client only
	System quorum.ReadWrite // required; who stores the registers, and which of them must answer
	Form   Form             // default Atomic
	// Faulty is how many servers may lie. More than 0 takes the Safe form, a System of which any read and write quorum
	// have 2*Faulty+1 nodes in common (quorum.Masking), and as much resilience. Default 0.
	Faulty int
	Seed   uint64        // randomness, a new one for each incarnation; required by NewCore, Start draws one for 0
	Resend time.Duration // silence after which a request is sent again; default 50 ms
	// Hedge asks only as many servers as are a quorum, this one first, and the others after this time without a quorum:
	// it halves the messages, for a pause whenever one of those few is down. Those who did not answer in time are asked
	// last from then on. Default 0, which asks all at once.
	Hedge      time.Duration
	MaxPending int // operations under way on this node; default 1024
	MaxKey     int // bytes in a key; default 1 KiB
	MaxValue   int // bytes in a value; default 1 MiB

	Transport coterie.Transport // required by Start; not closed by the Node
	Journal   coterie.Journal   // required by Start; not closed by the Node
}

func (c Config) withDefaults() Config {
	if c.Resend == 0 {
		c.Resend = 50 * time.Millisecond
	}
	if c.MaxPending == 0 {
		c.MaxPending = 1024
	}
	if c.MaxKey == 0 {
		c.MaxKey = 1 << 10
	}
	if c.MaxValue == 0 {
		c.MaxValue = 1 << 20
	}
	return c
}

func (c Config) validate() error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf("abd: Config."+format, args...))
		}
	}
	fault(c.ID == "", "ID is required")
	if err := errors.Join(c.System.Read().Err(), c.System.Write().Err()); err != nil {
		return errors.Join(append(faults, fmt.Errorf("abd: Config.System: %w", err))...)
	}
	fault(c.Form > Safe, "Form is %d", c.Form)
	fault(c.Faulty < 0, "Faulty is %d; it must not be negative", c.Faulty)
	if c.Faulty > 0 {
		fault(c.Form != Safe, "Form must be Safe if servers may lie (Faulty is %d)", c.Faulty)
		shared, resilience := c.System.Overlap(), c.System.Resilience()
		fault(shared < 2*c.Faulty+1, "System: some read and write quorum share %d nodes only; to mask %d liars it takes %d",
			shared, c.Faulty, 2*c.Faulty+1)
		fault(resilience < c.Faulty, "System has no quorum left when %d nodes are silent", c.Faulty)
	}
	fault(c.Seed == 0, "Seed is 0; it must be set")
	fault(c.Resend < 0, "Resend is negative")
	fault(c.Hedge < 0, "Hedge is negative")
	fault(c.MaxPending < 0 || c.MaxKey < 0 || c.MaxValue < 0, "MaxPending, MaxKey and MaxValue must not be negative")
	return errors.Join(faults...)
}

// Errors of operations.
var (
	// ErrConcurrent is the outcome of a read of a Safe register if no value was vouched for by enough servers: a write
	// was under way, or a writer stopped in the middle of one. Read again; after the next whole write it succeeds.
	ErrConcurrent = errors.New("abd: read while a write is under way")
	// ErrTooLarge is returned for a key or a value over its limit; nothing was done.
	ErrTooLarge = errors.New("abd: key or value too large")
)

// ReadDone is the event that ends a read.
type ReadDone struct {
	ID     uint64 // as given to Read
	Value  []byte // nil if the register was never written; nobody may change it
	Rounds int    // round trips taken, 1 or 2
	Err    error  // nil or ErrConcurrent
}

// WriteDone is the event that ends a write: a write quorum holds its value.
type WriteDone struct {
	ID uint64 // as given to Write
}

// Core is one node: a server that stores registers, and a client of all servers. Invariants, held between calls:
//   - the timestamp of a stored register never decreases, and what a reply tells of is on disk when it leaves
//   - of one timestamp there is one value: its nonce is of one incarnation of the writer, which counts up
//   - an operation counts each server once for each of its rounds
//
// A Core is not safe for concurrent use; a host serializes access to one.
type Core struct {
	cfg   Config
	out   coterie.Outbox
	nodes []coterie.NodeID // the servers, in the order in which they are asked

	registers map[string]register // what this server stores
	records   int                 // saved since the last compaction

	nonce   uint64                // of the timestamps of this incarnation
	lastSeq uint64                // the greatest sequence number used in one of them
	round   uint64                // the newest round, unique among incarnations too
	rounds  map[uint64]*operation // under way, by their present round
	pending map[uint64]*operation // the same, by the id that the caller gave
	resends []resend              // in order of time; those of rounds that are over are skipped
}

// register is one register as a server stores it, or a server's report of one.
type register struct {
	at    timestamp
	value []byte
}

// operation is one read or write under way.
type operation struct {
	id      uint64
	key     string
	write   bool
	storing bool         // the second round
	tally   quorum.Tally // of the present round, which is its ballot
	reports []report     // answers of the first round
	chosen  register     // to store, or to return
	request []byte       // of the present round
	asked   quorum.Set   // with Hedge: who was asked first in the present round; empty before
}

type report struct {
	from coterie.NodeID
	register
}

type resend struct {
	at    time.Time
	round uint64
}

// NewCore returns a node that remembers nothing until Replay.
func NewCore(cfg Config) (*Core, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(cfg.Seed, 0x616264))
	return &Core{
		cfg:       cfg,
		nodes:     order(cfg.System.Nodes(), cfg.ID),
		registers: map[string]register{},
		nonce:     rng.Uint64(),
		round:     rng.Uint64() >> 1, // far from those of other incarnations, whose replies may still come
		rounds:    map[uint64]*operation{},
		pending:   map[uint64]*operation{},
	}, nil
}

// order begins with the node itself, whose answer is the nearest, and goes round from there, so that the nodes of a
// cluster do not all prefer the same ones.
func order(nodes []coterie.NodeID, self coterie.NodeID) []coterie.NodeID {
	at, _ := slices.BinarySearch(nodes, self)
	return slices.Concat(nodes[at:], nodes[:at])
}

// Read starts a read of the register, which ends by a ReadDone with the id. The id must not be in use by another
// operation under way. Errors: coterie.ErrOverloaded, ErrTooLarge; nothing was started.
func (c *Core) Read(now time.Time, id uint64, key string) error {
	return c.start(now, &operation{id: id, key: key})
}

// Write starts a write of the register, which ends by a WriteDone with the id; see Read. Nobody may change the value
// from now on.
func (c *Core) Write(now time.Time, id uint64, key string, value []byte) error {
	if value == nil {
		value = []byte{} // nil is a register never written
	}
	return c.start(now, &operation{id: id, key: key, write: true, chosen: register{value: value}})
}

func (c *Core) start(now time.Time, op *operation) error {
	switch {
	case len(op.key) > c.cfg.MaxKey:
		return fmt.Errorf("%w: key of %d bytes, limit %d", ErrTooLarge, len(op.key), c.cfg.MaxKey)
	case len(op.chosen.value) > c.cfg.MaxValue:
		return fmt.Errorf("%w: value of %d bytes, limit %d", ErrTooLarge, len(op.chosen.value), c.cfg.MaxValue)
	case len(c.pending) >= c.cfg.MaxPending:
		return fmt.Errorf("abd: %d operations under way: %w", len(c.pending), coterie.ErrOverloaded)
	case c.pending[op.id] != nil:
		return fmt.Errorf("abd: id %d is in use", op.id)
	}
	c.pending[op.id] = op
	c.query(now, op)
	return nil
}

// Cancel gives up an operation; no event comes of it. A write may have happened, or may happen yet.
func (c *Core) Cancel(id uint64) {
	if op := c.pending[id]; op != nil {
		c.end(op)
	}
}

// Step takes one message.
func (c *Core) Step(now time.Time, from coterie.NodeID, payload []byte) error {
	m, err := decodeMessage(payload, c.cfg.MaxKey, c.cfg.MaxValue)
	if err != nil {
		return err
	}
	switch m.kind {
	case msgQuery:
		c.answerQuery(from, m)
	case msgStore:
		c.store(from, m)
	case msgReport:
		c.reported(now, from, m)
	case msgStored:
		c.stored(now, from, m)
	}
	return nil
}

// Tick sends again what has waited too long.
func (c *Core) Tick(now time.Time) {
	for len(c.resends) > 0 && !c.resends[0].at.After(now) {
		round := c.resends[0].round
		c.resends = c.resends[1:]
		if op := c.rounds[round]; op != nil {
			c.ask(now, op)
		}
	}
}

// Ready ends a batch.
func (c *Core) Ready() coterie.Ready {
	for len(c.resends) > 0 && c.rounds[c.resends[0].round] == nil {
		c.resends = c.resends[1:]
	}
	if len(c.resends) > 0 {
		c.out.Wake(c.resends[0].at)
	}
	return c.out.Take()
}
