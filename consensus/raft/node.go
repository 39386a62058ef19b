package raft

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"sync"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/replication/wal"
	"github.com/coterie-go/coterie/transport/tcp"
)

// Node is a running member of a cluster, and a coterie.Replica of its state machine. Beside the goroutines of its
// consensus.Driver and, unless Config.Transport is given, those of its TCP transport it has none. Every method is safe
// for concurrent use.
type Node struct {
	driver *consensus.Driver[*Core]
	own    []io.Closer // what Start opened, to be closed in order

	setPeer    func(coterie.NodeID, string) error // nil if the transport has none
	configured map[coterie.NodeID]string          // addresses in the Config

	mu       sync.Mutex // guards what follows
	lastID   uint64
	waiting  map[uint64]chan error // calls of administration without an answer
	watchers map[*watcher]struct{}
	logged   map[coterie.NodeID]string // addresses in the log
	metrics  Metrics                   // the last that Metrics returned

	closing  sync.Once
	closeErr error
}

var _ consensus.Replica = (*Node)(nil)

// Start starts a node, or restarts one from its journal. It returns as soon as the node runs, which is before a leader
// is elected. Close it.
func Start(cfg Config) (*Node, error) {
	if cfg.Seed == 0 {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return nil, fmt.Errorf("raft: %w", err)
		}
		cfg.Seed = binary.BigEndian.Uint64(b[:]) | 1
	}
	core, err := NewCore(cfg)
	if err := errors.Join(err, cfg.validateNode()); err != nil {
		return nil, err
	}
	n := &Node{
		waiting: map[uint64]chan error{}, watchers: map[*watcher]struct{}{},
		configured: map[coterie.NodeID]string{}, logged: map[coterie.NodeID]string{},
	}
	if err := n.open(&cfg); err != nil {
		return nil, errors.Join(err, n.closeOwn())
	}
	d := cfg.Driver
	d.Transport, d.Journal, d.Snapshots, d.StateMachine = cfg.Transport, cfg.Journal, cfg.Snapshots, cfg.StateMachine
	if d.Log == nil {
		d.Log = cfg.Log
	}
	outer := d.Event
	d.Event = func(now time.Time, event any) {
		n.handle(event)
		if outer != nil {
			outer(now, event)
		}
	}
	if n.driver, err = consensus.Start(core, d); err != nil {
		return nil, errors.Join(err, n.closeOwn())
	}
	return n, nil
}

// validateNode joins the faults that only a Node's Config can have.
func (cfg Config) validateNode() error {
	var errs []error
	_, witness := cfg.Witnesses[cfg.ID]
	if cfg.StateMachine == nil && !witness {
		errs = append(errs, errors.New("raft: Config.StateMachine is nil"))
	}
	if cfg.Dir == "" && (cfg.Journal == nil || cfg.Snapshots == nil) {
		errs = append(errs, errors.New("raft: Config.Dir is empty, and Journal and Snapshots are not both given"))
	}
	if cfg.Transport != nil && cfg.TLS != nil {
		errs = append(errs, errors.New("raft: Config.TLS is of no use to the Transport that is given"))
	}
	if cfg.Transport != nil && cfg.Transport.LocalID() != cfg.ID {
		errs = append(errs, fmt.Errorf("raft: Config.Transport is that of %q, not of %q", cfg.Transport.LocalID(), cfg.ID))
	}
	if cfg.Transport == nil && cfg.listen() == "" {
		errs = append(errs, errors.New("raft: Config.Listen is empty, and Voters has no address of this node"))
	}
	return errors.Join(errs...)
}

func (cfg Config) listen() string {
	switch {
	case cfg.Listen != "":
		return cfg.Listen
	case cfg.Voters[cfg.ID] != "":
		return cfg.Voters[cfg.ID]
	}
	return cfg.Witnesses[cfg.ID]
}

// open fills in what the Config leaves to the node.
func (n *Node) open(cfg *Config) error {
	if cfg.StateMachine == nil {
		cfg.StateMachine = nothing{}
	}
	if cfg.Journal == nil {
		log, err := wal.Open(wal.Config{Dir: filepath.Join(cfg.Dir, "log"), Owner: cfg.ID, Logger: cfg.Log})
		if err != nil {
			return err
		}
		cfg.Journal = log
		n.own = append(n.own, log)
	}
	if cfg.Snapshots == nil {
		folder, err := wal.OpenSnapshots(filepath.Join(cfg.Dir, "snapshots"))
		if err != nil {
			return err
		}
		cfg.Snapshots = folder
	}
	for _, members := range []map[coterie.NodeID]string{cfg.Voters, cfg.Witnesses} {
		for id, address := range members {
			if id != cfg.ID && address != "" {
				n.configured[id] = address
			}
		}
	}
	if cfg.Transport == nil {
		// A member that this node has not heard of yet may already be its leader: strangers may connect, if their
		// certificate is theirs.
		t, err := tcp.Start(tcp.Config{
			ID: cfg.ID, Listen: cfg.listen(), Peers: n.configured, Identity: cfg.TLS, AcceptUnknown: true, Logger: cfg.Log,
			MaxPayload: maxPayload(cfg),
		})
		if err != nil {
			return err
		}
		cfg.Transport = t
		n.own = append([]io.Closer{t}, n.own...)
	}
	if t, ok := cfg.Transport.(interface {
		SetPeer(id coterie.NodeID, address string) error
	}); ok {
		n.setPeer = t.SetPeer
	}
	return nil
}

// maxPayload is the longest message that a node sends.
func maxPayload(cfg *Config) int {
	d := cfg.withDefaults()
	return max(8<<20, 2*max(d.MaxMessageBytes, d.MaxCommandBytes, d.SnapshotChunkBytes)+1<<20)
}

// nothing is the state machine of a witness.
type nothing struct{}

func (nothing) Apply(coterie.Entry) []byte   { return nil }
func (nothing) Query([]byte) ([]byte, error) { return nil, coterie.ErrNotLeader }
func (nothing) Snapshot() (func(io.Writer) error, error) {
	return func(io.Writer) error { return nil }, nil
}
func (nothing) Restore(io.Reader) error { return nil }

// Propose replicates a command and returns what the state machine made of it, as coterie.Replica says. Only a leader
// takes one; elsewhere the error is a *coterie.NotLeaderError. Use a consensus.Session to try again safely.
func (n *Node) Propose(ctx context.Context, command []byte) ([]byte, error) {
	return n.driver.Propose(ctx, command)
}

// Read answers a query linearizably, on any node: a follower asks the leader how far its state must be (thesis §6.4).
func (n *Node) Read(ctx context.Context, query []byte) ([]byte, error) {
	return n.driver.Read(ctx, query)
}

// NewSession opens a session, by which proposals are tried again without being applied twice.
func (n *Node) NewSession(ctx context.Context) (*consensus.Session, error) {
	return n.driver.NewSession(ctx)
}

// OpenSession opens a session and returns its id; see consensus.Session.
func (n *Node) OpenSession(ctx context.Context) (uint64, error) { return n.driver.OpenSession(ctx) }

// ProposeAs is Propose of one try of a session's command; see consensus.Session.
func (n *Node) ProposeAs(ctx context.Context, tag consensus.Tag, command []byte) ([]byte, error) {
	return n.driver.ProposeAs(ctx, tag, command)
}

// EndSession makes the replicas forget a session.
func (n *Node) EndSession(ctx context.Context, id uint64) error { return n.driver.EndSession(ctx, id) }

// AddLearner adds a node that gets the log but does not count, on the leader. It must run, with Config.Join. Promote
// it when it has caught up; or add it with AutoPromote, by Reconfigure.
func (n *Node) AddLearner(ctx context.Context, id coterie.NodeID, address string) error {
	return n.Reconfigure(ctx, Change{Set: []Member{{ID: id, Address: address, Role: Learner}}})
}

// Promote makes a learner a voter, on the leader. It is ErrNotCaughtUp as long as the learner lacks something that is
// committed.
func (n *Node) Promote(ctx context.Context, id coterie.NodeID) error {
	return n.admin(ctx, func(now time.Time, core *Core, call uint64) { core.Promote(now, call, id) })
}

// Remove removes a member, on the leader, which may be that member itself. Its id must not come back with an empty
// disk.
func (n *Node) Remove(ctx context.Context, id coterie.NodeID) error {
	return n.Reconfigure(ctx, Change{Remove: []coterie.NodeID{id}})
}

// Reconfigure changes the members, on the leader, in one step however many come and go (joint consensus, §6). It
// returns when the new configuration is committed. Errors: ErrInvalidChange, ErrBusy, ErrNotLeader, and
// ErrUnknownOutcome if the leader lost its place or ctx ended meanwhile.
func (n *Node) Reconfigure(ctx context.Context, change Change) error {
	return n.admin(ctx, func(now time.Time, core *Core, id uint64) { core.Reconfigure(now, id, change) })
}

// TransferLeadership makes another voter the leader, on the leader; the one that is furthest if id is empty. It
// returns when this node leads no more, or with ErrTransferFailed after an election timeout, in which no proposals
// were taken.
func (n *Node) TransferLeadership(ctx context.Context, id coterie.NodeID) error {
	return n.admin(ctx, func(now time.Time, core *Core, call uint64) { core.Transfer(now, call, id) })
}

// UnsafeRecover makes the given voters, of which this node must be one, the whole cluster: after the majority has been
// lost for good. See Core.UnsafeRecover for what it may cost.
func (n *Node) UnsafeRecover(ctx context.Context, voters ...coterie.NodeID) error {
	return n.admin(ctx, func(now time.Time, core *Core, id uint64) { core.UnsafeRecover(now, id, voters) })
}

// Liveness tells the node what a failure detector thinks of another one: a quiet group then wakes. It is meant for
// coterie.Detector's Watch.
func (n *Node) Liveness(ctx context.Context, id coterie.NodeID, l coterie.Liveness) error {
	return n.driver.Do(ctx, func(now time.Time, core *Core) { core.Liveness(now, id, l) })
}

// Snapshot writes a snapshot of all that has been applied, and lets the log go up to it.
func (n *Node) Snapshot(ctx context.Context) error { return n.driver.Snapshot(ctx) }

// Status tells what this node knows of itself now.
func (n *Node) Status() coterie.Status { return n.driver.Status() }

// metricsPatience is how long Metrics waits for a node that is held up.
const metricsPatience = time.Second

// Metrics returns the counters of this node's Core as of now. Of a node that has stopped, or whose disk holds it up for
// longer than a second, it returns what it last did.
func (n *Node) Metrics() Metrics {
	ctx, cancel := context.WithTimeout(context.Background(), metricsPatience)
	defer cancel()
	var m Metrics
	err := n.driver.Do(ctx, func(_ time.Time, core *Core) { m = core.Metrics() })
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil {
		n.metrics = m
	}
	return n.metrics
}

// Done is closed when the node has stopped, by Close or by itself; Err then tells why.
func (n *Node) Done() <-chan struct{} { return n.driver.Done() }

// Err tells why the node stopped by itself: its journal failed, its core or state machine panicked, a snapshot is
// broken. It is nil while the node runs and after a Close.
func (n *Node) Err() error { return n.driver.Err() }

// Close stops the node and waits for its goroutines. It does not take the node out of the cluster. Closing twice is
// harmless.
func (n *Node) Close() error {
	n.closing.Do(func() {
		n.closeErr = n.driver.CloseWith(n.own)
		n.mu.Lock()
		defer n.mu.Unlock()
		for w := range n.watchers {
			w.end()
		}
	})
	return n.closeErr
}

func (n *Node) closeOwn() error {
	var errs []error
	for _, c := range n.own {
		errs = append(errs, c.Close())
	}
	n.own = nil
	return errors.Join(errs...)
}

// admin makes a call of the core that is answered by a Done.
func (n *Node) admin(ctx context.Context, f func(now time.Time, core *Core, id uint64)) error {
	answer := make(chan error, 1)
	n.mu.Lock()
	n.lastID++
	id := n.lastID
	n.waiting[id] = answer
	n.mu.Unlock()
	forget := func() {
		n.mu.Lock()
		delete(n.waiting, id)
		n.mu.Unlock()
	}
	if err := n.driver.Do(ctx, func(now time.Time, core *Core) { f(now, core, id) }); err != nil {
		forget()
		return err
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		forget()
		return fmt.Errorf("%w: %w", coterie.ErrUnknownOutcome, ctx.Err())
	case <-n.driver.Done():
		forget()
		return fmt.Errorf("%w: %w", coterie.ErrUnknownOutcome, coterie.ErrClosed)
	}
}

// handle takes the core's events, on the host's goroutine.
func (n *Node) handle(event any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch e := event.(type) {
	case Done:
		if answer, ok := n.waiting[e.ID]; ok {
			delete(n.waiting, e.ID)
			answer <- e.Err
		}
		return
	case ConfigChanged:
		n.connect(e.Members)
	case Introduced:
		n.connect(e.Members)
		return
	case consensus.Leader, consensus.Installed, Compacted:
	default:
		return
	}
	for w := range n.watchers {
		w.put(event)
	}
}

// connect tells the transport of addresses. Those in the Config count until the log has a newer one than at the start:
// a node that was restarted may know better than its log.
func (n *Node) connect(m Membership) {
	if n.setPeer == nil {
		return
	}
	for _, members := range [][]Member{m.Members, m.Outgoing} {
		for _, member := range members {
			old, known := n.logged[member.ID]
			n.logged[member.ID] = member.Address
			if member.Address == "" || old == member.Address || !known && n.configured[member.ID] != "" {
				continue
			}
			_ = n.setPeer(member.ID, member.Address) // a bad address is as good as none: nothing arrives
		}
	}
}

// Event is what Events yields: a consensus.Leader, a ConfigChanged, a Compacted, a consensus.Installed or a Lagged.
type Event any

// Lagged is an Event: the reader was too slow and has missed so many.
type Lagged struct {
	Missed int
}

// watcher is a reader of Events.
type watcher struct {
	events []Event // at most maxWatched
	missed int
	ended  bool
	more   chan struct{} // holds one
}

const maxWatched = 256

// Events yields what happens on this node from now on, until ctx ends or the node is closed. A reader that is slow
// misses events, the oldest, and sees a Lagged in their place.
func (n *Node) Events(ctx context.Context) iter.Seq[Event] {
	w := &watcher{more: make(chan struct{}, 1)}
	n.mu.Lock()
	n.watchers[w] = struct{}{}
	n.mu.Unlock()
	forget := func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.watchers, w)
	}
	context.AfterFunc(ctx, forget)
	return func(yield func(Event) bool) {
		defer forget()
		for {
			n.mu.Lock()
			events, missed, ended := w.events, w.missed, w.ended
			w.events, w.missed = nil, 0
			n.mu.Unlock()
			if missed > 0 && !yield(Lagged{missed}) {
				return
			}
			for _, e := range events {
				if !yield(e) {
					return
				}
			}
			if ended {
				return
			}
			select {
			case <-w.more:
			case <-ctx.Done():
				return
			case <-n.driver.Done():
				return
			}
		}
	}
}

// put adds an event. The caller holds the node's mu.
func (w *watcher) put(e Event) {
	if len(w.events) == maxWatched {
		w.events = append(w.events[:0], w.events[1:]...)
		w.missed++
	}
	w.events = append(w.events, e)
	w.wake()
}

func (w *watcher) end() {
	w.ended = true
	w.wake()
}

func (w *watcher) wake() {
	select {
	case w.more <- struct{}{}:
	default:
	}
}
