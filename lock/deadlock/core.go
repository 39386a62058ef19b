// Package deadlock finds processes that wait for each other in a circle, in one place from collected wait-for graphs,
// or where the processes are, by probes that chase the edges.
//
// A process is anything that waits and is waited for: a transaction, an agent of it on one node, a holder of locks. It
// waits for all the holders it named before it goes on (the AND model); a circle of waits then is a deadlock, and only
// that. Use Graph where one place may ask every node, or where all processes are on one node. Use Core where no place
// should: it sends nothing but along waits that cross nodes. Both only find: whoever hears of a deadlock chooses a
// victim (Youngest, Cheapest, or a function of the caller), aborts it, and says so by Unblock. Where locks have
// timeouts that are short enough, neither is needed. Waits for any one of several holders (the OR model) are not
// covered.
//
// # No phantoms
//
// What is seen of several nodes is never seen at one moment, so that a circle put together from it may have never been:
// one of its waits had ended when another began. The two-phase protocol of Ho and Ramamoorthy (Protocols for Deadlock
// Detection in Distributed Database Systems, IEEE Trans. Softw. Eng. 8(6), 1982) asks twice and keeps the waits seen
// both times; it finds phantoms nonetheless, since a wait seen twice may be two waits. In this package each wait has a
// Version that is never used again. A wait seen twice with one version was there all the time between. So if all waits
// of a circle were seen once before some moment and once after it, they were all there at that moment. Graph.Confirmed
// compares two collections, the second begun after the first was complete; a Core lets each circle be travelled twice.
//
// A holder may have let go while the grant is still under way to the waiter, which waits on for nobody. Where that can
// be, the holder's node says so by Grant, which hides the wait of that version, and all older ones, whatever comes in
// which order. A lock table whose node has both waiter and holder ends the wait at once and needs no Grant.
//
// # Edge chasing
//
// Paper: Chandy, Misra and Haas, Distributed Deadlock Detection, ACM TOCS 1(2), 1983, section 3, the AND model.
// A process i that begins to wait sends a probe (i, j, k) along each edge that leaves it; a process k that waits, and
// hears of i for the first time in this computation, sends it on along its own. A probe that comes back to i has found
// a circle. There are two differences. The paper's links are FIFO and no wait ends but by its grant; with links
// that lose, repeat and reorder, and waits that are withdrawn, a circle is declared only when a second message, the
// confirmation, has travelled it. And probes carry the path they took, for a victim to be chosen from it and for the
// confirmation to follow.
//
// Guarantees: a Deadlock event tells a circle all of whose waits were there, and not granted, at one moment of the
// computation. It is one still unless a process was aborted meanwhile. A circle that nobody breaks is found, if no
// message is lost, by the process that closed it after two rounds along it, and by each other process on it when that
// asks again: Config.Resend after it began to wait, then after pauses that double up to 32 times that, which also makes
// good for losses. Of several circles through one process a computation finds at least one. Two bounds limit this: a
// deadlock of more processes than Config.MaxCycle may stay unfound, and a grant that is still under way after
// Config.MaxGrants others of its node is no longer known, so that a phantom may be told.
//
// Messages: a computation sends at most one probe along each edge between nodes, and a circle of k such edges costs k
// probes and k confirmations. Edges within a node cost none. While nothing is lost, asking again finds nothing new.
//
// Faults: links may lose, repeat, delay and reorder. A node that is down or cut off keeps the circles through it from
// being found, and no others. A node that restarts has no waits: the processes it had are gone, and so are the grants
// they gave; who comes after them has another name. Nodes that lie are not provided for.
package deadlock

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// Config describes one node's Core.
type Config struct {
	ID        coterie.NodeID   // required
	Peers     []coterie.NodeID // required: all nodes that have processes, this one among them
	Delay     time.Duration    // how long a process waits before its first probe: short waits then cost none; default 0
	Resend    time.Duration    // how long it waits on before it asks again, as probes may be lost; default 100 ms
	MaxWaits  int              // waits of processes of this node at one time; Block refuses more; default 65,536
	MaxGrants int              // newest grants of this node that are remembered; default 65,536
	MaxCycle  int              // edges a probe travels at most: a deadlock of more processes may stay unfound; default 256

	unconfirmed bool // plants a bug: declares what one round found
}

// maxBackoff is how many times Resend a process waits at most before it asks again.
const maxBackoff = 32

// maxSeen is how many initiators a process that waits remembers. Beyond it some probes are sent on twice.
const maxSeen = 4096

// reserved is how many numbers a node may use before it saves anew: in effect it saves once in each life.
const reserved = 1 << 32

// recordFormat is the format byte of the one kind of record, the first number that was not yet reserved.
const recordFormat = 1

func (cfg Config) withDefaults() Config {
	if cfg.Resend == 0 {
		cfg.Resend = 100 * time.Millisecond
	}
	if cfg.MaxWaits == 0 {
		cfg.MaxWaits = 1 << 16
	}
	if cfg.MaxGrants == 0 {
		cfg.MaxGrants = 1 << 16
	}
	if cfg.MaxCycle == 0 {
		cfg.MaxCycle = 256
	}
	return cfg
}

func (cfg Config) validate() error {
	var errs []error
	fault := func(bad bool, text string) {
		if bad {
			errs = append(errs, errors.New("deadlock: Config."+text))
		}
	}
	fault(cfg.ID == "", "ID is empty")
	fault(!slices.Contains(cfg.Peers, cfg.ID), "Peers does not contain ID")
	fault(slices.Contains(cfg.Peers, ""), "Peers contains an empty id")
	sorted := slices.Sorted(slices.Values(cfg.Peers))
	fault(len(slices.Compact(sorted)) < len(cfg.Peers), "Peers contains an id twice")
	fault(cfg.Delay < 0, "Delay is negative")
	fault(cfg.Resend < 0, "Resend is negative")
	fault(cfg.MaxWaits < 0, "MaxWaits is negative")
	fault(cfg.MaxGrants < 0, "MaxGrants is negative")
	fault(cfg.MaxCycle < 0, "MaxCycle is negative")
	return errors.Join(errs...)
}

// Deadlock is the event of a Core: the processes of the cycle wait for each other. Every process on a cycle may find
// it, so that several events may tell of one, on several nodes; a choice of victim that depends on the cycle alone
// makes them agree. One process does not tell of the same cycle twice in a row.
type Deadlock struct {
	Initiator Process // of this node; it is on the cycle
	Cycle     Cycle   // begins with Initiator
}

// Core is one node's part of edge chasing. Run it by host.Start of package transport/host. Invariants, held between
// calls:
//   - every process in waits is of this node and has at least one edge
//   - the edges of a process have versions that were never used before, also not by an earlier life of the node
//   - a number is on its way only when a record that reserves it is saved
//
// A Core is not safe for concurrent use.
type Core struct {
	cfg     Config
	peers   map[coterie.NodeID]bool
	waits   map[Process]*wait
	edges   int             // of all waits
	granted map[pair]uint64 // newest version that a holder of this node granted
	grants  []pair          // the keys of granted, oldest first
	next    uint64          // the next number: of versions and computations
	limit   uint64          // numbers below it are reserved
	wake    time.Time       // not after the due of any wait; zero if there is none
	out     coterie.Outbox
}

// wait is one blocked process.
type wait struct {
	edges    []Edge             // by holder
	seen     map[Process]uint64 // the paper's dependent: by initiator, its newest computation that came here
	due      time.Time          // when to begin the next computation
	pause    time.Duration      // from that one to the one after
	declared Cycle              // the last one
}

// pair is an edge without its version.
type pair struct{ waiter, holder Process }

// NewCore returns the Core of a node that has no processes yet.
func NewCore(cfg Config) (*Core, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	c := &Core{
		cfg: cfg, peers: make(map[coterie.NodeID]bool), next: 1, limit: 1,
		waits: make(map[Process]*wait), granted: make(map[pair]uint64),
	}
	for _, id := range cfg.Peers {
		c.peers[id] = true
	}
	return c, nil
}

// Replay takes back which numbers earlier lives of the node may have used.
func (c *Core) Replay(record []byte) error {
	r := wire.NewReader(record)
	if err := checkFormat(&r, "deadlock record", recordFormat); err != nil {
		return err
	}
	limit := r.Uint64()
	if err := r.Done(); err != nil {
		return fmt.Errorf("deadlock: record: %w", err)
	}
	c.next, c.limit = max(c.next, limit), max(c.limit, limit)
	return nil
}

// number returns one that this node never used before.
func (c *Core) number() uint64 {
	if c.next == c.limit {
		c.limit += reserved
		c.out.Save(wire.AppendUint64([]byte{recordFormat}, c.limit))
		c.out.Keep(1)
	}
	c.next++
	return c.next - 1
}

// Block says that a process of this node waits for other processes, from now on and beside those it waits for
// already, until Unblock. It returns the version of the new waits, which a waiter gives to its holders if they use
// Grant. Holders it waits for already keep the older version; 0 is returned if all are. Errors: a process without a
// name, a waiter of another node, a holder of an unknown node, a process that waits for itself, coterie.ErrOverloaded
// beyond Config.MaxWaits; nothing has changed then.
func (c *Core) Block(now time.Time, waiter Process, holders ...Process) (version uint64, err error) {
	if err := c.local(waiter); err != nil {
		return 0, err
	}
	w := c.waits[waiter]
	var fresh []Process
	for _, h := range holders {
		switch {
		case h.Name == "" || !c.peers[h.Node]:
			return 0, fmt.Errorf("deadlock: holder %v is not a process of a peer", h)
		case h == waiter:
			return 0, fmt.Errorf("deadlock: %v waits for itself", h)
		case w.edge(h) == 0 && !slices.Contains(fresh, h):
			fresh = append(fresh, h)
		}
	}
	if len(fresh) == 0 {
		return 0, nil
	}
	if c.edges+len(fresh) > c.cfg.MaxWaits {
		return 0, fmt.Errorf("deadlock: %d waits: %w", c.edges, coterie.ErrOverloaded)
	}
	if w == nil {
		w = &wait{}
		c.waits[waiter] = w
	}
	version = c.number()
	for _, h := range fresh {
		w.edges = append(w.edges, Edge{Waiter: waiter, Holder: h, Version: version})
	}
	slices.SortFunc(w.edges, Edge.compare)
	c.edges += len(fresh)
	w.pause = c.cfg.Resend
	if c.cfg.Delay > 0 {
		w.due = now.Add(c.cfg.Delay)
		c.remind(w.due)
		return version, nil
	}
	c.initiate(now, w)
	return version, nil
}

// local checks that a process is one of this node.
func (c *Core) local(p Process) error {
	if p.Name == "" || p.Node != c.cfg.ID {
		return fmt.Errorf("deadlock: %v is not a process of %s", p, c.cfg.ID)
	}
	return nil
}

// Unblock says that a process of this node waits no longer for the holders named, or for none at all if none is named:
// the wait was granted, or withdrawn, or the process is gone. Of a wait that is not there it does nothing.
func (c *Core) Unblock(_ time.Time, waiter Process, holders ...Process) {
	w := c.waits[waiter]
	if w == nil {
		return
	}
	before := len(w.edges)
	w.edges = slices.DeleteFunc(w.edges, func(e Edge) bool {
		return len(holders) == 0 || slices.Contains(holders, e.Holder)
	})
	c.edges -= before - len(w.edges)
	if len(w.edges) == 0 {
		delete(c.waits, waiter)
	}
}

// Grant says that a holder of this node let go of what a waiter of any node asked it for by the wait of the edge's
// version, before the waiter's node knows it: from now on that wait, and older ones of the two, are not part of any
// deadlock. Call it before the grant leaves. Nothing needs to be said of waits that ended. An error tells of a holder
// that is not of this node or a waiter without a name.
func (c *Core) Grant(e Edge) error {
	if err := c.local(e.Holder); err != nil {
		return err
	}
	if e.Waiter.Name == "" || !c.peers[e.Waiter.Node] {
		return fmt.Errorf("deadlock: waiter %v is not a process of a peer", e.Waiter)
	}
	p := pair{e.Waiter, e.Holder}
	if old, ok := c.granted[p]; ok {
		c.granted[p] = max(old, e.Version)
		return nil
	}
	if len(c.grants) >= c.cfg.MaxGrants {
		delete(c.granted, c.grants[0])
		c.grants = c.grants[1:]
	}
	c.granted[p] = e.Version
	c.grants = append(c.grants, p)
	return nil
}

// Graph returns what this node knows: the waits of its processes, and the grants they gave. It is what a place that
// collects graphs asks for.
func (c *Core) Graph() *Graph {
	g := &Graph{}
	for _, w := range c.waits {
		for _, e := range w.edges {
			g.Add(e)
		}
	}
	for p, version := range c.granted {
		g.Remove(Edge{Waiter: p.waiter, Holder: p.holder, Version: version})
	}
	return g
}

// Step takes a probe or a confirmation.
func (c *Core) Step(_ time.Time, from coterie.NodeID, payload []byte) error {
	m, err := decodeMessage(payload)
	if err != nil {
		return err
	}
	switch {
	case !c.peers[from]:
		return fmt.Errorf("deadlock: message of the unknown node %q", from)
	case m.to().Node != c.cfg.ID:
		return fmt.Errorf("deadlock: message for %v", m.to())
	}
	c.chase(m)
	return nil
}

// Tick begins the computations that are due.
func (c *Core) Tick(now time.Time) {
	if c.wake.IsZero() || now.Before(c.wake) {
		return
	}
	c.wake = time.Time{}
	for _, p := range slices.SortedFunc(maps.Keys(c.waits), Process.Compare) {
		w := c.waits[p]
		if !now.Before(w.due) {
			c.initiate(now, w)
		}
		c.remind(w.due)
	}
}

// remind makes Tick come at a time, if not earlier.
func (c *Core) remind(due time.Time) {
	if c.wake.IsZero() || due.Before(c.wake) {
		c.wake = due
	}
}

// Ready ends a batch.
func (c *Core) Ready() coterie.Ready {
	if len(c.waits) == 0 {
		c.wake = time.Time{}
	}
	c.out.Wake(c.wake)
	return c.out.Take()
}

// Describe tells what a message says.
func (c *Core) Describe(payload []byte) string { return describe(payload) }
