package pbft

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

// Node is a running replica, and a coterie.Replica of its state machine. It is one replica's word: whoever asks a Node
// trusts the machine it runs on. A client that trusts no single replica asks several, by Dial. Every method is safe for
// concurrent use.
type Node struct {
	driver *consensus.Driver[*Core]
	own    []io.Closer // what Start opened, to be closed in order

	closing  sync.Once
	closeErr error
}

var _ consensus.Replica = (*Node)(nil)

// Start starts a replica, or restarts one from its journal. Close it.
func Start(cfg Config) (*Node, error) {
	if cfg.Seed == 0 {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return nil, fmt.Errorf("pbft: %w", err)
		}
		cfg.Seed = binary.BigEndian.Uint64(b[:]) | 1
	}
	core, err := NewCore(cfg)
	if err := errors.Join(err, cfg.validateNode()); err != nil {
		return nil, err
	}
	verifier, err := NewVerifier(cfg)
	if err != nil {
		return nil, err
	}
	n := &Node{}
	if err := n.open(&cfg); err != nil {
		return nil, errors.Join(err, n.closeOwn())
	}
	d := cfg.Driver
	d.Transport, d.Journal, d.Snapshots = cfg.Transport, cfg.Journal, cfg.Snapshots
	d.StateMachine = newClients(cfg.StateMachine)
	d.SnapshotBytes, d.SnapshotEntries = -1, 0 // the core says when
	d.Check = verifier.Verify
	if d.Log == nil {
		d.Log = cfg.Log
	}
	if n.driver, err = consensus.Start(core, d); err != nil {
		return nil, errors.Join(err, n.closeOwn())
	}
	return n, nil
}

// validateNode joins the faults that only a Node's Config can have.
func (cfg Config) validateNode() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("pbft: Config."+format, args...)) }
	if cfg.StateMachine == nil {
		bad("StateMachine is nil")
	}
	if cfg.Dir == "" && (cfg.Journal == nil || cfg.Snapshots == nil) {
		bad("Dir is empty, and Journal and Snapshots are not both given")
	}
	if cfg.Transport != nil && cfg.TLS != nil {
		bad("TLS is of no use to the Transport that is given")
	}
	if cfg.Transport != nil && cfg.Transport.LocalID() != cfg.ID {
		bad("Transport is that of %q, not of %q", cfg.Transport.LocalID(), cfg.ID)
	}
	if cfg.Transport == nil && cfg.listen() == "" {
		bad("Listen is empty, and Voters has no address of this node")
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
	if cfg.Transport == nil {
		peers := map[coterie.NodeID]string{}
		for id, address := range cfg.Voters {
			if id != cfg.ID && address != "" {
				peers[id] = address
			}
		}
		t, err := tcp.Start(tcp.Config{
			ID: cfg.ID, Listen: cfg.listen(), Peers: peers, Identity: cfg.TLS, Logger: cfg.Log, MaxPayload: maxPayload(cfg),
		})
		if err != nil {
			return err
		}
		cfg.Transport = t
		n.own = append([]io.Closer{t}, n.own...)
	}
	return nil
}

// maxPayload is the longest message that a node sends: a batch, or a NEW-VIEW with the proofs of a whole window from
// each of a quorum.
func maxPayload(cfg *Config) int {
	d := cfg.withDefaults()
	quorum := 2*len(d.Voters)/3 + 2
	proofs := 2 * d.CheckpointInterval * quorum * (minVote + 24)
	return max(8<<20, 2*max(d.MaxBatchBytes, d.MaxCommandBytes, d.SnapshotChunkBytes)+1<<20, 2*proofs*quorum)
}

// Propose replicates a command and returns what the state machine made of it, as coterie.Replica says. Every replica
// takes proposals and passes them to the primary. A command over Config.MaxCommandBytes is ErrTooLarge.
func (n *Node) Propose(ctx context.Context, command []byte) ([]byte, error) {
	return n.driver.Propose(ctx, localCommand(command))
}

// Read answers a query linearizably, as far as this replica does not lie: it orders the read behind all that was
// executed before.
func (n *Node) Read(ctx context.Context, query []byte) ([]byte, error) {
	return n.driver.Read(ctx, query)
}

// NewSession opens a session, by which proposals are tried again without being applied twice.
func (n *Node) NewSession(ctx context.Context) (*consensus.Session, error) {
	return consensus.NewSession(ctx, n)
}

// OpenSession opens a session and returns its id; see consensus.Session.
func (n *Node) OpenSession(ctx context.Context) (uint64, error) { return n.driver.OpenSession(ctx) }

// ProposeAs is Propose of one try of a session's command; see consensus.Session.
func (n *Node) ProposeAs(ctx context.Context, tag consensus.Tag, command []byte) ([]byte, error) {
	return n.driver.ProposeAs(ctx, tag, localCommand(command))
}

// EndSession makes the replicas forget a session.
func (n *Node) EndSession(ctx context.Context, id uint64) error { return n.driver.EndSession(ctx, id) }

// Status tells what this replica knows of itself now. Term is its view.
func (n *Node) Status() coterie.Status { return n.driver.Status() }

// Metrics returns the counters of this replica's Core. It waits for the step under way; the error is ctx's or
// ErrClosed.
func (n *Node) Metrics(ctx context.Context) (Metrics, error) {
	var m Metrics
	err := n.driver.Do(ctx, func(_ time.Time, core *Core) { m = core.Metrics() })
	return m, err
}

// Done is closed when the node has stopped, by Close or by itself; Err then tells why.
func (n *Node) Done() <-chan struct{} { return n.driver.Done() }

// Err tells why the node stopped by itself: its journal failed, its core or state machine panicked, a snapshot is
// broken. It is nil while the node runs and after a Close.
func (n *Node) Err() error { return n.driver.Err() }

// Close stops the node and waits for its goroutines. Closing twice is harmless.
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
