// Package bully elects the greatest live id by asking all greater ones: the bully algorithm.
//
// Paper: Garcia-Molina, "Elections in a Distributed Computing System", IEEE Transactions on Computers C-31(1), 1982,
// in the form that textbooks teach: Election, Answer, Coordinator.
//
// A node that finds the leader silent, or that has just started, asks every greater one. If none answers within half
// a Timeout it leads and tells all; else it waits a Timeout for the one that answered to do so. A node that hears a
// smaller one lead elects anew. The leader beats five times per Timeout; a beat also repeats a Coordinator that was lost.
//
// Guarantees, under loss, repetition, reordering, crashes, restarts and any partition: an epoch has one leader, and at
// a node epochs never go back (see election.Elected). While links between the live nodes of a group work within
// Timeout/4, there and back, the group has exactly one leader, its greatest id, within two Timeouts of the last fault.
//
// It does NOT guarantee one leader at a time. It asks no quorum: while the network is split, two sides elect two
// leaders, each of its own, and so do links or nodes slower than the time-outs. Where links fail one way, or between some
// nodes only, the leader may change for as long as that lasts. See package election for what to use instead. A node
// that comes back with the greatest id takes over from a leader that did well: that is the bully.
//
// Messages, links without faults, n nodes of which the greatest has crashed: n-1 Coordinator always; found by the
// smallest, also n(n-1)/2 Election and (n-1)(n-2)/2 Answer, n(n-1) in all; found by the greatest live one, one Election,
// n in all. An Election that nobody has answered for Timeout/4 is sent once again; beats and those are not counted.
package bully

import (
	"cmp"
	"log/slog"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/election/internal/reign"
)

// Config configures a node. ID, Peers and, for Start, Transport and Journal are required.
type Config struct {
	ID        coterie.NodeID    // required: this node, one of Peers
	Peers     []coterie.NodeID  // required: all of them, the same at each, in the same order; at most 256
	Transport coterie.Transport // required by Start; not closed by the Node
	Journal   coterie.Journal   // required by Start; not closed by the Node
	Timeout   time.Duration     // silence of the leader before an election; more than 4 round trips; default 1 s
	Log       *slog.Logger      // default silent
}

// Core is the pure machine; the order of calls is coterie.Core's. Leader and Elect are its typed calls, and
// election.Elected is its event. Invariants beside those of every election: only a node without a leader, or one that
// was asked by a smaller one, is electing or waiting. It is not safe for concurrent use.
type Core struct {
	reign.Core
	alg bully
}

// phase is where in an election a node is.
type phase uint8

const (
	settled  phase = iota // no election
	electing              // has asked the greater ones
	waiting               // a greater one has answered, and should lead soon
)

type bully struct {
	core     *reign.Core
	timeout  time.Duration
	phase    phase
	deadline time.Time // of the phase
	repeatAt time.Time // when to ask once more; zero if not again
}

// NewCore makes the pure machine. The error names the field of Config that is wrong.
func NewCore(cfg Config) (*Core, error) {
	cfg.Timeout = cmp.Or(cfg.Timeout, time.Second)
	c := &Core{}
	c.alg = bully{core: &c.Core, timeout: cfg.Timeout}
	if err := c.Init("bully", &c.alg, cfg.ID, cfg.Peers, cfg.Timeout); err != nil {
		return nil, err
	}
	return c, nil
}
