package maekawa

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/lock/internal/peer"
)

// Config describes a node. ID and Peers are required, and for Start Transport and Journal.
type Config struct {
	ID        coterie.NodeID    // this node
	Peers     []coterie.NodeID  // all nodes, this one among them; the same everywhere
	Transport coterie.Transport // of Start; not closed by the Node
	Journal   coterie.Journal   // of Start; not closed by the Node: what it holds must outlive the process

	// Quorums are the arbiters of each peer, of which any two must share a node; the same everywhere. A peer need not
	// be in its own. Default: Quorums(Peers).
	Quorums map[coterie.NodeID][]coterie.NodeID
	Resend  time.Duration // silence after which to ask again, at most twice as long; default 100 ms
	TryWait time.Duration // how long TryAcquire waits for the other peers; default 100 ms
	Log     *slog.Logger  // default silent

	// MaxNames is how many names this node has or asks for at once; default 4096. A request for one more waits until
	// this node has left another.
	MaxNames int

	bugs bugs
}

// bugs are planted by tests, to see that the simulation finds them.
type bugs struct {
	forgetGrants bool // an arbiter does not save its grants
	countYielded bool // a grant that was relinquished counts when it arrives again
	noFailed     bool // nobody is told FAILED: the deadlock that the message is there to avoid
}

const (
	defaultResend   = 100 * time.Millisecond
	defaultMaxNames = 4096
)

func (cfg Config) withDefaults() Config {
	if cfg.Resend == 0 {
		cfg.Resend = defaultResend
	}
	if cfg.MaxNames == 0 {
		cfg.MaxNames = defaultMaxNames
	}
	return cfg
}

func (cfg Config) validate() error {
	var errs []error
	if cfg.ID == "" {
		errs = append(errs, errors.New("maekawa: Config.ID is empty"))
	}
	seen := make(map[coterie.NodeID]bool)
	for _, id := range cfg.Peers {
		if id == "" || seen[id] {
			errs = append(errs, fmt.Errorf("maekawa: Config.Peers names %q twice, or it is empty", id))
		}
		seen[id] = true
	}
	if !slices.Contains(cfg.Peers, cfg.ID) {
		errs = append(errs, fmt.Errorf("maekawa: Config.Peers is without Config.ID %q", cfg.ID))
	}
	if cfg.Resend < 0 {
		errs = append(errs, fmt.Errorf("maekawa: Config.Resend %v is negative", cfg.Resend))
	}
	if cfg.TryWait < 0 {
		errs = append(errs, fmt.Errorf("maekawa: Config.TryWait %v is negative", cfg.TryWait))
	}
	if cfg.MaxNames < 0 {
		errs = append(errs, fmt.Errorf("maekawa: Config.MaxNames %d is negative", cfg.MaxNames))
	}
	return errors.Join(append(errs, cfg.checkQuorums())...)
}

// Node is a running Core and a lock.Locker: Acquire and TryAcquire of exclusive locks, Err, Close. A lease has no TTL: it
// is held until it is released or the Node ends. Its methods are safe for concurrent use.
type Node struct {
	*peer.Node[*Core]
}

// Start runs a node. The error names the field of Config that is wrong, or is that of reading the Journal.
func Start(cfg Config) (*Node, error) {
	core, err := NewCore(cfg)
	if err != nil {
		return nil, err
	}
	switch {
	case cfg.Transport == nil:
		return nil, errors.New("maekawa: Config.Transport is nil")
	case cfg.Transport.LocalID() != cfg.ID:
		return nil, fmt.Errorf("maekawa: Config.Transport is that of %s, not of Config.ID %s", cfg.Transport.LocalID(), cfg.ID)
	case cfg.Journal == nil:
		return nil, errors.New("maekawa: Config.Journal is nil: an arbiter must not forget its grants")
	}
	n, err := peer.Start(core, peer.Config{Transport: cfg.Transport, Journal: cfg.Journal, TryWait: cfg.TryWait, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	return &Node{n}, nil
}
