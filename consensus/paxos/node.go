package paxos

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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

	mu      sync.Mutex // guards what follows
	lastID  uint64
	waiting map[uint64]chan error // calls of Reconfigure without an answer

	closing  sync.Once
	closeErr error
}

var _ consensus.Replica = (*Node)(nil)

// Start starts a node, or restarts one from its journal. It returns as soon as the node runs, which is before there is
// a leader. Close it.
func Start(cfg Config) (*Node, error) {
	if cfg.Seed == 0 {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return nil, fmt.Errorf("paxos: %w", err)
		}
		cfg.Seed = binary.BigEndian.Uint64(b[:]) | 1
	}
	core, err := NewCore(cfg)
	if err := errors.Join(err, cfg.validateNode()); err != nil {
		return nil, err
	}
	n := &Node{waiting: map[uint64]chan error{}, configured: map[coterie.NodeID]string{}}
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
	if cfg.StateMachine == nil {
		errs = append(errs, errors.New("paxos: Config.StateMachine is nil"))
	}
	if cfg.Dir == "" && (cfg.Journal == nil || cfg.Snapshots == nil) {
		errs = append(errs, errors.New("paxos: Config.Dir is empty, and Journal and Snapshots are not both given"))
	}
	if cfg.Transport != nil && cfg.TLS != nil {
		errs = append(errs, errors.New("paxos: Config.TLS is of no use to the Transport that is given"))
	}
	if cfg.Transport != nil && cfg.Transport.LocalID() != cfg.ID {
		errs = append(errs, fmt.Errorf("paxos: Config.Transport is that of %q, not of %q", cfg.Transport.LocalID(), cfg.ID))
	}
	if cfg.Transport == nil && cfg.listen() == "" {
		errs = append(errs, errors.New("paxos: Config.Listen is empty, and Voters has no address of this node"))
	}
	return errors.Join(errs...)
}

func (cfg Config) listen() string {
	if cfg.Listen != "" {
		return cfg.Listen
	}
	return cfg.Voters[cfg.ID]
}

// open fills in what the Config leaves to the node.
func (n *Node) open(cfg *Config) error {
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
	for id, address := range cfg.Voters {
		if id != cfg.ID && address != "" {
			n.configured[id] = address
		}
	}
	if cfg.Transport == nil {
		// A member that this node has not heard of yet may already be its leader: strangers may connect, if their
		// certificate is theirs.
		d := cfg.withDefaults()
		t, err := tcp.Start(tcp.Config{
			ID: cfg.ID, Listen: cfg.listen(), Peers: n.configured, Identity: cfg.TLS, AcceptUnknown: true, Logger: cfg.Log,
			MaxPayload: max(8<<20, 2*max(d.MaxMessageBytes, d.MaxCommandBytes, d.SnapshotChunkBytes)+1<<20),
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

// Propose replicates a command and returns what the state machine made of it, as coterie.Replica says. Only a leader
// takes one; elsewhere the error is a *coterie.NotLeaderError. Use a consensus.Session to try again safely.
func (n *Node) Propose(ctx context.Context, command []byte) ([]byte, error) {
	return n.driver.Propose(ctx, command)
}

// Read answers a query linearizably, on any node: one that does not lead asks the leader how far its state must be.
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

// Reconfigure makes others the members, on the leader: those named, with their addresses, whoever was before. A new one
// must run, with Config.Join. It returns when the new members decide and those that are none any more may be stopped. Errors: ErrInvalidChange, ErrBusy, ErrNotLeader,
// and ErrUnknownOutcome if the leader lost its place or ctx ended meanwhile.
func (n *Node) Reconfigure(ctx context.Context, members ...Member) error {
	answer := make(chan error, 1)
	n.mu.Lock()
	n.lastID++
	id := n.lastID
	n.waiting[id] = answer
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		delete(n.waiting, id)
		n.mu.Unlock()
	}()
	if err := n.driver.Do(ctx, func(now time.Time, core *Core) { core.Reconfigure(now, id, members) }); err != nil {
		return err
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", coterie.ErrUnknownOutcome, ctx.Err())
	case <-n.driver.Done():
		return fmt.Errorf("%w: %w", coterie.ErrUnknownOutcome, coterie.ErrClosed)
	}
}

// Snapshot writes a snapshot of all that has been applied, and lets the log go up to it.
func (n *Node) Snapshot(ctx context.Context) error { return n.driver.Snapshot(ctx) }

// Status tells what this node knows of itself now. Term is the round of the ballot it has promised.
func (n *Node) Status() coterie.Status { return n.driver.Status() }

// Metrics returns the counters of this node's Core. It waits for the step under way; the error is ctx's or ErrClosed.
func (n *Node) Metrics(ctx context.Context) (Metrics, error) {
	var m Metrics
	err := n.driver.Do(ctx, func(_ time.Time, core *Core) { m = core.Metrics() })
	return m, err
}

// Done is closed when the node has stopped, by Close or by itself; Err then tells why.
func (n *Node) Done() <-chan struct{} { return n.driver.Done() }

// Err tells why the node stopped by itself. It is nil while the node runs and after a Close.
func (n *Node) Err() error { return n.driver.Err() }

// Close stops the node and waits for its goroutines. It does not take the node out of the cluster. Closing twice is
// harmless.
func (n *Node) Close() error {
	n.closing.Do(func() { n.closeErr = n.driver.CloseWith(n.own) })
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

// handle takes the core's events, on the host's goroutine.
func (n *Node) handle(event any) {
	switch e := event.(type) {
	case Done:
		n.mu.Lock()
		defer n.mu.Unlock()
		if answer, ok := n.waiting[e.ID]; ok {
			delete(n.waiting, e.ID)
			answer <- e.Err
		}
	case ConfigChanged:
		if n.setPeer == nil {
			return
		}
		for _, m := range e.Members {
			// A node that was restarted may know better than its log where the others are.
			if m.Address != "" && n.configured[m.ID] == "" {
				_ = n.setPeer(m.ID, m.Address) // a bad address is as good as none: nothing arrives
			}
		}
	}
}
