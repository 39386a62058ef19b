// Package maekawa is mutual exclusion among peers, without a server, in which a node asks only about the square root of
// them: Maekawa 1985.
//
// Paper: M. Maekawa, "A √N Algorithm for Mutual Exclusion in Decentralized Systems", ACM TOCS 3(2), 1985; section 4 is
// the algorithm, with the messages INQUIRE, RELINQUISH and FAILED that avoid deadlock. As B. Sanders ("The Information
// Structure of Distributed Mutual Exclusion Algorithms", ACM TOCS 5(3), 1987) found to be needed, a waiting request that
// an older one overtakes at an arbiter is told FAILED then, not only when it arrives.
//
// Each node has a quorum of peers, its arbiters; two quorums always share one. An arbiter grants a name to one request
// at a time, and a node that has the grants of its whole quorum has entered. Requests are ordered by Lamport time, then
// by node. An arbiter that has granted to a younger request than the oldest it knows inquires; who cannot enter yet
// because another arbiter told FAILED relinquishes. So the oldest request always gets on: there is no deadlock and no
// starvation.
//
// # Use
//
// Use it where peers have no consensus group at hand and messages should be few and spread evenly. Do not use it where
// a node may fail for good or stay away long: take lock/leased then.
//
// # Messages
//
// With K the size of the quorum without the node itself (mail to oneself goes through the host and not the network), an
// entry without contention costs exactly 3 K: REQUEST, GRANT (LOCKED in the paper), RELEASE. Under contention FAILED, or
// INQUIRE and RELINQUISH, come on top: the paper counts at most 5 K. An entry that is overtaken several times at one
// arbiter is granted anew each time and may cost more; the mean of a run of the package's tests was 4.1 K at most.
// Quorums have about √n nodes where n is that of a finite projective plane (3, 7, 13, 21, 31, 57, 73, 91), about 2√n
// otherwise.
//
// A request that has waited for longer than Config.Resend asks again those arbiters that have not granted, and they ask
// who has their grant: such messages come on top and say of themselves that they were sent again.
//
// # Guarantees and faults
//
// Never do two nodes hold a name, under loss, repetition, reordering, partitions, pauses and crashes with restart, with
// clocks of any kind: no time-out decides anything. Tokens of a name rise strictly, also across restarts of any nodes: a
// token is the Lamport time of the entry, which the next holder's time follows through the arbiter that both share. For
// that an arbiter saves each grant before it leaves, and a holder its token before it knows that it holds.
//
// A node that restarts has no request and holds nothing. It is asked by whoever waits for it, and answers that.
//
// What blocks a request: any arbiter of its quorum that is down, cut off or paused, and any holder of the name, or
// requester with a grant, that is, until they are back. A node that never comes back blocks for ever the names that it
// held or had grants of, and all nodes whose quorum it is in. A journal must not be lost: such a node is another node.
package maekawa

import (
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/lock"
)

// Core is one node's part, as requester and as arbiter, for all names. Invariants, held between calls:
//   - a request has entered only if it has the grant of each node of its quorum
//   - a grant that a request counts is the one that its arbiter has given, and the arbiter gives no other meanwhile
//   - every waiting request but one that is the oldest and older than that with the grant was told FAILED, and that one
//     has made the arbiter inquire
//   - what left this node has a Lamport time of at most that saved, if it is a grant or a token
//
// A Core is not safe for concurrent use.
type Core struct {
	cfg    Config
	quorum []coterie.NodeID        // its arbiters
	askers map[coterie.NodeID]bool // whose arbiter it is; false for peers whose it is not

	incarnation uint64 // counts restarts; saved at the first call
	clock       uint64 // Lamport time, carried by every message
	started     bool

	requests map[string]*request // of this node
	waiting  int                 // of them have not entered
	later    []string            // names to request when there is room
	sweep    time.Time           // when to look for those to ask again; zero if none waits
	arbiters map[string]*arbiter // names that somebody has or wants
	cursor   string              // the name last asked about because there were many

	entered []string // since the last Ready
	dirty   []string // names whose grant differs from what is saved
	unsaved bool     // something must be saved before this batch leaves
	records int      // in the journal since its last summary
	out     coterie.Outbox
}

var (
	_ lock.PeerCore     = (*Core)(nil)
	_ coterie.Describer = (*Core)(nil)
)

// NewCore makes a Core. The error names the field of Config that is wrong. Transport, Journal and Log are not used.
func NewCore(cfg Config) (*Core, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	quorums := cfg.quorums()
	c := &Core{
		cfg: cfg, quorum: quorums[cfg.ID], askers: make(map[coterie.NodeID]bool),
		requests: make(map[string]*request), arbiters: make(map[string]*arbiter),
	}
	for _, peer := range cfg.Peers {
		for _, id := range quorums[peer] {
			c.askers[peer] = c.askers[peer] || id == cfg.ID
		}
	}
	return c, nil
}

// Replay takes back one record.
func (c *Core) Replay(b []byte) error {
	rec, err := decodeRecord(b)
	if err != nil {
		return fmt.Errorf("maekawa: record: %w", err)
	}
	c.incarnation = max(c.incarnation, rec.incarnation)
	c.clock = max(c.clock, rec.clock)
	if rec.summary {
		clear(c.arbiters)
		c.records = 0
	}
	for _, g := range rec.grants {
		if g.number == 0 {
			delete(c.arbiters, g.name)
			continue
		}
		c.arbiters[g.name] = &arbiter{holder: entry{node: g.node, id: g.id}, grant: g.number}
	}
	c.records++
	return nil
}

// start begins a new incarnation.
func (c *Core) start() {
	if c.started {
		return
	}
	c.started = true
	c.incarnation++
	c.unsaved = true
}

// Tick asks again for requests that have waited for long.
func (c *Core) Tick(now time.Time) {
	c.start()
	if !c.sweep.IsZero() && !now.Before(c.sweep) {
		c.askAgain(now)
	}
}

// Step takes one message of a peer.
func (c *Core) Step(_ time.Time, from coterie.NodeID, payload []byte) error {
	m, err := decodeMessage(payload)
	if err != nil {
		return fmt.Errorf("maekawa: message of %s: %w", from, err)
	}
	if err := c.expects(from, m); err != nil {
		return err
	}
	c.start()
	c.clock = max(c.clock, m.clock)
	switch m.kind {
	case kindRequest:
		c.onRequest(from, m)
	case kindRelinquish:
		c.onRelinquish(from, m)
	case kindRelease:
		c.onRelease(from, m)
	case kindGrant:
		c.onGrant(from, m)
	case kindInquire:
		c.onInquire(from, m)
	case kindFailed:
		c.onFailed(from, m)
	case kindRecord: // decodeMessage lets none pass
	}
	return nil
}

// expects tells what is wrong with a message that this node should not get: the peers' Configs differ.
func (c *Core) expects(from coterie.NodeID, m message) error {
	asks, known := c.askers[from]
	if !known {
		return fmt.Errorf("maekawa: message of %q, which is no peer", from)
	}
	toArbiter := m.kind == kindRequest || m.kind == kindRelinquish || m.kind == kindRelease
	if toArbiter && !asks {
		return fmt.Errorf("maekawa: %v of %s, in whose quorum this node is not", m.kind, from)
	}
	if !toArbiter && c.arbiterIndex(from) < 0 {
		return fmt.Errorf("maekawa: %v of %s, which is not in the quorum", m.kind, from)
	}
	return nil
}

// Ready returns the effects of a batch.
func (c *Core) Ready() coterie.Ready {
	if c.unsaved {
		c.save()
	}
	for _, name := range c.entered {
		// What was released in the batch that entered is not told of: it is held no more.
		if r := c.requests[name]; r != nil && r.token != 0 && !r.told {
			r.told = true
			c.out.Emit(lock.Entered{Name: name, Token: r.token})
		}
	}
	c.entered = c.entered[:0]
	if c.waiting == 0 {
		c.sweep = time.Time{}
	}
	c.out.Wake(c.sweep)
	return c.out.Take()
}

// advance moves the Lamport clock for something new.
func (c *Core) advance() uint64 {
	c.clock++
	return c.clock
}

func (c *Core) send(to coterie.NodeID, m message) {
	m.clock = c.clock
	c.out.Send(to, m.append(nil))
}

// Describe says what a message or a record is.
func (c *Core) Describe(payload []byte) string {
	if m, err := decodeMessage(payload); err == nil {
		return m.String()
	}
	rec, err := decodeRecord(payload)
	if err != nil {
		return "undecodable: " + err.Error()
	}
	return rec.String()
}
