package suzuki

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

// Config describes a node. ID and Peers are required, for Start also Transport and Journal. All peers must have the
// same Peers and MaxNames, and Lost of the same sign.
type Config struct {
	ID        coterie.NodeID    // this node
	Peers     []coterie.NodeID  // all nodes, this one among them; at most 1024
	Transport coterie.Transport // of Start alone; not closed by the Node
	Journal   coterie.Journal   // of Start alone; not closed by the Node
	Resend    time.Duration     // a request that waits so long is repeated; default 100 ms
	Lost      time.Duration     // a token of which nobody heard for so long is regenerated; at least 16 Resend; default 10 s or 20 Resend, if more; negative is never
	MaxNames  int               // names that a node remembers, for ever; requests beyond are never granted; default 4096
	Log       *slog.Logger      // default silent
}

func (cfg Config) withDefaults() (Config, error) {
	if cfg.Resend == 0 {
		cfg.Resend = 100 * time.Millisecond
	}
	if cfg.Lost == 0 {
		cfg.Lost = max(10*time.Second, 20*cfg.Resend)
	}
	if cfg.MaxNames == 0 {
		cfg.MaxNames = 4096
	}
	sorted := slices.Sorted(slices.Values(cfg.Peers))
	switch {
	case cfg.ID == "":
		return cfg, errors.New("suzuki: Config.ID is required")
	case len(cfg.Peers) == 0:
		return cfg, errors.New("suzuki: Config.Peers is required")
	case len(cfg.Peers) > maxPeers:
		return cfg, fmt.Errorf("suzuki: Config.Peers has %d nodes, over %d", len(cfg.Peers), maxPeers)
	case sorted[0] == "":
		return cfg, errors.New("suzuki: Config.Peers has an empty one")
	case len(slices.Compact(sorted)) != len(cfg.Peers):
		return cfg, errors.New("suzuki: Config.Peers has a node twice")
	case !slices.Contains(cfg.Peers, cfg.ID):
		return cfg, fmt.Errorf("suzuki: Config.Peers lacks Config.ID %q", cfg.ID)
	case cfg.Resend < 0:
		return cfg, fmt.Errorf("suzuki: Config.Resend %v is negative", cfg.Resend)
	case cfg.Lost > 0 && cfg.Lost < 2*backoff*cfg.Resend:
		return cfg, fmt.Errorf("suzuki: Config.Lost %v is less than %d times Config.Resend %v", cfg.Lost, 2*backoff, cfg.Resend)
	case cfg.MaxNames < 0:
		return cfg, fmt.Errorf("suzuki: Config.MaxNames %d is negative", cfg.MaxNames)
	}
	return cfg, nil
}

// Node is a running Core: a lock.Locker of exclusive locks. Its methods are safe for concurrent use.
type Node struct {
	*peer.Node[*Core]
}

var _ lock.Locker = (*Node)(nil)

// Start runs a node. The error names the field of Config that is wrong, or tells why the journal cannot be taken up.
func Start(cfg Config) (*Node, error) {
	core, err := NewCore(cfg)
	switch {
	case err != nil:
		return nil, err
	case cfg.Transport == nil:
		return nil, errors.New("suzuki: Config.Transport is required")
	case cfg.Journal == nil:
		return nil, errors.New("suzuki: Config.Journal is required: a node that forgets its token blocks the others")
	case cfg.Transport.LocalID() != cfg.ID:
		return nil, fmt.Errorf("suzuki: Config.ID is %q, but Config.Transport is that of %q", cfg.ID, cfg.Transport.LocalID())
	}
	n, err := peer.Start(core, peer.Config{Transport: cfg.Transport, Journal: cfg.Journal, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	return &Node{n}, nil
}
