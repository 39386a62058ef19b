package ricart

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/lock/internal/peer"
)

var _ lock.Locker = (*Node)(nil)

// Config describes a node. ID and Peers are required, and for Start Transport and Journal too.
type Config struct {
	ID        coterie.NodeID    // this node
	Peers     []coterie.NodeID  // all nodes, this one among them; the same on each; at most 1024
	Transport coterie.Transport // of this node; not closed by the Node
	Journal   coterie.Journal   // a node that forgets what it answered breaks the exclusion; not closed by the Node

	Resend   time.Duration // silence before a request is repeated; default 100 ms
	MaxNames int           // held or asked for by this node at a time, others are queued; default 4096
	TryWait  time.Duration // how long TryAcquire waits for the other peers; default 100 ms
	Log      *slog.Logger  // default silent
}

func (c Config) withDefaults() Config {
	if c.Resend == 0 {
		c.Resend = 100 * time.Millisecond
	}
	if c.MaxNames == 0 {
		c.MaxNames = 4096
	}
	return c
}

// maxResend keeps the longest interval, maxWait times as long, within a Duration.
const maxResend = 1000 * time.Hour

func (c Config) validate() error {
	var errs []error
	if c.ID == "" {
		errs = append(errs, errors.New("ricart: Config.ID is required"))
	}
	if !slices.Contains(c.Peers, c.ID) {
		errs = append(errs, fmt.Errorf("ricart: Config.Peers lacks %q, this node", c.ID))
	}
	if len(c.Peers) > maxPeers {
		errs = append(errs, fmt.Errorf("ricart: Config.Peers has %d nodes, over %d", len(c.Peers), maxPeers))
	}
	sorted := slices.Sorted(slices.Values(c.Peers))
	if len(slices.Compact(sorted)) < len(c.Peers) {
		errs = append(errs, errors.New("ricart: Config.Peers names a node twice"))
	}
	if slices.Contains(c.Peers, "") {
		errs = append(errs, errors.New("ricart: Config.Peers has an empty id"))
	}
	if c.Resend < 0 || c.Resend > maxResend {
		errs = append(errs, fmt.Errorf("ricart: Config.Resend %v is not within 0 and %v", c.Resend, maxResend))
	}
	if c.MaxNames < 0 {
		errs = append(errs, fmt.Errorf("ricart: Config.MaxNames %d is negative", c.MaxNames))
	}
	return errors.Join(errs...)
}

// Node is a running Core and a lock.Locker of exclusive locks without leases: who holds a name holds it until it
// releases it or its node ends. It owns one goroutine of its host and one that waits for its end; both have ended, or
// are about to, when Close returns. Its methods are safe for concurrent use.
type Node struct {
	*peer.Node[*Core]
}

// Start runs a node until Close. Errors: one that names the field of Config that is wrong, that of the journal, or of
// a record that is not this package's.
func Start(cfg Config) (*Node, error) {
	core, err := NewCore(cfg)
	if err != nil {
		return nil, err
	}
	switch {
	case cfg.Transport == nil:
		return nil, errors.New("ricart: Config.Transport is required")
	case cfg.Transport.LocalID() != cfg.ID:
		return nil, fmt.Errorf("ricart: Config.Transport is of %q, Config.ID is %q", cfg.Transport.LocalID(), cfg.ID)
	case cfg.Journal == nil:
		return nil, errors.New("ricart: Config.Journal is required")
	case cfg.TryWait < 0:
		return nil, fmt.Errorf("ricart: Config.TryWait %v is negative", cfg.TryWait)
	}
	n, err := peer.Start(core, peer.Config{
		Transport: cfg.Transport, Journal: cfg.Journal, TryWait: cfg.TryWait, Log: cfg.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("ricart: %w", err)
	}
	return &Node{Node: n}, nil
}
