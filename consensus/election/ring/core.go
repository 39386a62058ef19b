// Package ring elects the greatest live id by sending ids round a ring.
//
// Papers: Chang and Roberts, "An improved algorithm for decentralized extrema-finding in circular configurations of
// processes", Communications of the ACM 22(5), 1979; with Config.Collect the form that textbooks call the ring
// algorithm, after Le Lann 1977: one list collects the live ids, and the greatest of it leads.
//
// A node that finds the leader silent, or that has just started, sends its id to the next one. Each passes on a greater
// id, replaces a smaller one by its own unless it has sent that already, and who gets its own id back leads; its
// announcement goes round once. Each hop is acknowledged, and sent again every Resend; a node that has not acknowledged
// three times is skipped, and tried again after two Timeouts. The leader beats to all, five times per Timeout.
//
// Guarantees, under loss, repetition, reordering, crashes, restarts and any partition: an epoch has one leader, and at
// a node epochs never go back (see election.Elected). After the last fault, while links between the live nodes of a group
// work within Resend, there and back, the group comes to have exactly one leader, its greatest id: within a few
// Timeouts, more if many neighbours are down, for each takes three Resend of a hop.
//
// It does NOT guarantee one leader at a time. It asks no quorum: while the network is split, two sides elect two
// leaders, each of its own, and so do links or nodes slower than the time-outs. See package election for what to use
// instead. Between two nodes whose links fail one way only, a ring may not close, and nobody be elected, until they work.
//
// Messages, links without faults, n nodes, acknowledgements (one per hop) and beats not counted: if all start at once,
// n(n+1)/2 + n where ids fall along the ring, 2n-1 + n where they rise; if the greatest alone starts, 2n. With Collect and
// one starter 2n + 1, or 2n if it is the greatest.
package ring

import (
	"cmp"
	"errors"
	"log/slog"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/election/internal/reign"
)

// Config configures a node. ID, Peers and, for Start, Transport and Journal are required.
type Config struct {
	ID        coterie.NodeID    // required: this node, one of Peers
	Peers     []coterie.NodeID  // required: all of them in the order of the ring, the same at each; at most 256
	Transport coterie.Transport // required by Start; not closed by the Node
	Journal   coterie.Journal   // required by Start; not closed by the Node
	Collect   bool              // a list of ids goes round, not the greatest one; the same at each
	Timeout   time.Duration     // silence of the leader before an election; default 1 s
	Resend    time.Duration     // before a hop is sent again; at most a third of Timeout; default a tenth of it
	Log       *slog.Logger      // default silent
}

// Core is the pure machine; the order of calls is coterie.Core's. Leader and Elect are its typed calls, and
// election.Elected is its event. Invariants beside those of every election: a hop is under way to one node at a time. It
// is not safe for concurrent use.
type Core struct {
	reign.Core
	alg ring
}

const (
	tries   = 3   // of a hop, before the next node is taken instead
	maxHops = 512 // that wait for their Ack; older ones are given up
)

type ring struct {
	core            *reign.Core
	collect         bool
	timeout, resend time.Duration

	participant bool      // has sent or passed on an id in this election
	deadline    time.Time // when to begin anew if there is no leader
	hops        []hop     // under way
	number      uint64    // of the last hop in this life; an Ack of an earlier life may end a hop, then the deadline helps
	skip        map[int]time.Time
	stubborn    bool // planted bug: who was skipped once always is
}

// hop is a message that was not acknowledged yet.
type hop struct {
	message reign.Message
	to      int
	direct  bool // for that node alone: nobody is taken instead
	sent    int
	at      time.Time // when to send again
}

// NewCore makes the pure machine. The error names the field of Config that is wrong.
func NewCore(cfg Config) (*Core, error) {
	cfg.Timeout = cmp.Or(cfg.Timeout, time.Second)
	cfg.Resend = cmp.Or(cfg.Resend, cfg.Timeout/10)
	c := &Core{}
	c.alg = ring{
		core: &c.Core, collect: cfg.Collect, timeout: cfg.Timeout, resend: cfg.Resend, skip: make(map[int]time.Time),
	}
	if err := c.Init("ring", &c.alg, cfg.ID, cfg.Peers, cfg.Timeout); err != nil {
		return nil, err
	}
	if cfg.Resend <= 0 || cfg.Resend > cfg.Timeout/3 {
		return nil, errors.New("ring: Config.Resend is not between 0 and a third of Config.Timeout")
	}
	return c, nil
}
