// Package ricart is mutual exclusion among peers by permission of all: a node enters when every other node has
// answered its request, and a node that is in, or that asked earlier, puts its answer off until it leaves.
//
// Paper: Ricart and Agrawala, "An Optimal Algorithm for Mutual Exclusion in Computer Networks", Communications of the
// ACM 24(1), 1981. Its three processes, which invoke the exclusion, receive requests and receive replies, are the
// files request.go and reply.go; its sequence numbers, after Lamport (1978), are the times of this package.
//
// Use it for few nodes that want a name in the order in which they asked, without a server and without a log. The
// message count grows with the number of nodes, and every node is needed: where that will not do, take lock/leased.
//
// # What it costs
//
// 2(n-1) messages per entry of n nodes, a request and a reply with every other, whoever contends; one message delay
// from the exit of a holder to the next entry. An answer that is put off looks like one that was lost: who has none
// within Config.Resend asks those again that are silent, at intervals that double up to 16 times Resend. These repeats,
// and the answers to them, come on top of the count. An entry that waits for less than Resend makes none, so that
// Resend should be above the time for which names are held and waited for if the count matters. A disk sync is made
// about once in a thousand requests.
//
// # What it guarantees
//
// No two nodes hold a name at one time, whatever is lost, repeated, delayed or reordered, whoever crashes and restarts,
// as long as every node keeps its journal; clocks do not matter. Names are entered in the order of the Lamport times of
// their requests, ties in the order of node ids, so that every request is granted in the end if all nodes are up, no
// link loses everything, and holders release.
//
// The fencing token is that Lamport time, then the node's place in the order of ids. It rises strictly with each entry
// of a name: who enters after a holder either asked after it had answered the holder, and then with a later time, or was
// put off as the later one. No reply carries a token for that, but no node may ever forget the times it has seen: its
// journal has a bound of them, which is durable before a message that rests on it leaves, and after a restart its times
// go on from there.
//
// # Which faults block it
//
// Any. While a node is down, paused or cut off from the one that asks, that one enters no name; nobody guesses that a
// node is dead, so that nobody guesses wrong. A node that restarts holds nothing and asks for nothing, whatever it did
// before, and answers the repeated requests of those that it kept waiting: they go on within 16 times Resend of its
// return. A holder that crashed, and whose writes may still be under way, is overtaken then: a lock.Fence refuses such
// a write once a newer token was used.
//
// The set of nodes is fixed. A node whose journal was wiped must not come back under its old id, and nodes may not be
// added or taken out while tokens are to be compared with earlier ones. Nodes are trusted: one that lies can break all
// of this, and one message with a time near 2^53 ends it for good.
package ricart

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/lock"
)

var _ lock.PeerCore = (*Core)(nil)

const (
	maxPeers  = 1 << placeBits
	placeBits = 10      // of a token, which node it is
	maxTime   = 1 << 53 // of a Lamport time: a token fits into 64 bits, with one to spare
	maxWait   = 16      // times Resend, between repeats of a request

	// spareTimes is by how much the durable bound is ahead of the times: one record serves so many.
	spareTimes = 1024
)

// Core is one node of the algorithm, for any number of names: all share one Lamport clock, and beside it a node keeps
// state only for those names that it holds or asks for itself. Invariants, held between calls:
//   - no message or event leaves with a time over what is durable, and a restarted node's clock is not below that
//   - a name is held only if every other node has answered the request, by its very time
//   - an answer is put off only by a node that holds the name or asked for it earlier
//   - at most Config.MaxNames names are held or asked for; only beyond them a name is queued
//
// A Core is not safe for concurrent use.
type Core struct {
	cfg   Config
	peers []coterie.NodeID // all, sorted
	self  int              // place in peers

	clock uint64 // Highest_Sequence_Number: the largest time seen or used
	bound uint64 // saved: the clock never gets larger without a new one

	names  map[string]*request
	queued []string   // beyond MaxNames, first come first served
	fresh  []*request // entered since the last Ready
	wake   time.Time  // when the next repeat may be due; zero if none is
	resent uint64

	out   coterie.Outbox
	spare uint64 // spareTimes; tests have less
	bugs  bugs
}

// bugs are mistakes that tests plant, to see that they are found.
type bugs struct {
	forget  bool // the times seen are forgotten in a restart
	anyTime bool // a reply counts for whatever is asked now
}

// request is one name that this node holds or asks for.
type request struct {
	name     string
	time     uint64   // Our_Sequence_Number
	held     bool     // all have answered
	answered []bool   // by place: what Outstanding_Reply_Count counts down
	missing  int      // Outstanding_Reply_Count
	deferred []uint64 // by place, Reply_Deferred: the time of the newest request to answer on leaving; 0 if none
	wait     time.Duration
	repeatAt time.Time
}

// NewCore makes a node that has not been there before; Replay tells it what it was. The error names the field of
// Config that is wrong. Transport, Journal, TryWait and Log are those of Start.
func NewCore(cfg Config) (*Core, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	peers := slices.Sorted(slices.Values(cfg.Peers))
	self, _ := slices.BinarySearch(peers, cfg.ID)
	return &Core{cfg: cfg, peers: peers, self: self, names: map[string]*request{}, spare: spareTimes}, nil
}

// Replay takes back a bound of the times seen: the clock goes on from the largest.
func (c *Core) Replay(record []byte) error {
	m, err := decode(record)
	if err != nil {
		return err
	}
	if m.kind != kindBound {
		return fmt.Errorf("ricart: record of kind %d: %w", m.kind, wire.ErrMalformed)
	}
	if !c.bugs.forget {
		c.bound = max(c.bound, m.time)
		c.clock = c.bound
	}
	return nil
}

// Step takes a message of another node.
func (c *Core) Step(_ time.Time, from coterie.NodeID, payload []byte) error {
	place, ok := slices.BinarySearch(c.peers, from)
	if !ok || place == c.self {
		return fmt.Errorf("ricart: message from %q, which is no other peer", from)
	}
	m, err := decode(payload)
	if err != nil {
		return err
	}
	switch m.kind {
	case kindRequest:
		c.receiveRequest(place, m)
	case kindReply:
		c.receiveReply(place, m)
	default:
		return fmt.Errorf("ricart: message of kind %d: %w", m.kind, wire.ErrMalformed)
	}
	return nil
}

// Tick repeats the requests that were not answered in time.
func (c *Core) Tick(now time.Time) {
	if c.wake.IsZero() || now.Before(c.wake) {
		return
	}
	c.wake = time.Time{}
	var due []*request
	for _, r := range c.names {
		switch {
		case r.held:
		case now.Before(r.repeatAt):
			c.wakeAt(r.repeatAt)
		default:
			due = append(due, r)
		}
	}
	slices.SortFunc(due, func(a, b *request) int { return cmp.Compare(a.time, b.time) })
	for _, r := range due {
		c.repeat(now, r)
	}
}

// Ready ends a batch. What was entered and left within it is not told: whoever left it would take the event for the
// answer to a later request.
func (c *Core) Ready() coterie.Ready {
	for _, r := range c.fresh {
		if c.names[r.name] == r {
			c.out.Emit(lock.Entered{Name: r.name, Token: c.token(r)})
		}
	}
	clear(c.fresh)
	c.fresh = c.fresh[:0]
	c.out.Wake(c.wake)
	return c.out.Take()
}

// Holding reports whether the node holds a name, and by which token.
func (c *Core) Holding(name string) (token uint64, held bool) {
	r := c.names[name]
	if r == nil || !r.held {
		return 0, false
	}
	return c.token(r), true
}

// Resent counts the messages that this node has sent again, for want of an answer, since it was made.
func (c *Core) Resent() uint64 { return c.resent }

// Describe names what a message or a record says.
func (c *Core) Describe(payload []byte) string {
	m, err := decode(payload)
	switch {
	case err != nil:
		return fmt.Sprintf("not ricart's: %v", err)
	case m.kind == kindBound:
		return fmt.Sprintf("Bound time=%d", m.time)
	case m.kind == kindRequest:
		return fmt.Sprintf("Request %q time=%d", m.name, m.time)
	}
	return fmt.Sprintf("Reply %q time=%d", m.name, m.time)
}

// token is larger the later the request, and no two nodes have the same.
func (c *Core) token(r *request) uint64 { return r.time<<placeBits | uint64(c.self) }

// advance raises the clock, and what is durable before it.
func (c *Core) advance(to uint64) {
	c.clock = max(c.clock, to)
	if c.clock > c.bound {
		c.bound = min(c.clock+c.spare, maxTime)
		c.out.Save(message{kind: kindBound, time: c.bound}.encode())
		c.out.Keep(1)
	}
}

func (c *Core) wakeAt(at time.Time) {
	if c.wake.IsZero() || at.Before(c.wake) {
		c.wake = at
	}
}

// check returns what of the invariants does not hold.
func (c *Core) check() error {
	var errs []error
	if c.clock > c.bound {
		errs = append(errs, fmt.Errorf("ricart: clock %d over its durable bound %d", c.clock, c.bound))
	}
	if len(c.names) > c.cfg.MaxNames || len(c.queued) > 0 && len(c.names) < c.cfg.MaxNames && c.clock < maxTime {
		errs = append(errs, fmt.Errorf("ricart: %d names and %d queued", len(c.names), len(c.queued)))
	}
	for name, r := range c.names {
		missing := len(c.peers) - 1
		for place := range c.peers {
			if r.answered[place] {
				missing--
			}
			if d := r.deferred[place]; d > 0 && !r.held && !c.earlier(r, d, place) {
				errs = append(errs, fmt.Errorf("ricart: %q: a request of time %d is put off by a later one of %d", name, d, r.time))
			}
		}
		if r.missing != missing || r.held != (missing == 0) || r.time > c.clock || r.name != name {
			errs = append(errs, fmt.Errorf("ricart: %q: %d answers missing, %d counted, held %v", name, missing, r.missing, r.held))
		}
	}
	return errors.Join(errs...)
}
