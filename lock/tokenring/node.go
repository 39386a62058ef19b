package tokenring

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/lock/internal/peer"
)

// Node is a running peer: a lock.Locker. It owns its host's goroutine, which has ended when Close returns. Its methods
// are safe for concurrent use.
type Node struct {
	*peer.Node[*Core]
}

var _ lock.Locker = (*Node)(nil)

// Start runs a peer. The error names the field of Config that is wrong, or is the journal's.
func Start(cfg Config) (*Node, error) {
	core, err := NewCore(cfg)
	if err != nil {
		return nil, err
	}
	switch {
	case cfg.Transport == nil:
		return nil, errors.New("tokenring: Config.Transport is required")
	case cfg.Transport.LocalID() != cfg.ID:
		return nil, fmt.Errorf("tokenring: Config.ID is %q, but Config.Transport is that of %q", cfg.ID, cfg.Transport.LocalID())
	case cfg.Journal == nil:
		return nil, errors.New("tokenring: Config.Journal is required")
	}
	n, err := peer.Start(core, peer.Config{Transport: cfg.Transport, Journal: cfg.Journal, TryWait: cfg.TryWait, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	return &Node{Node: n}, nil
}

// Liveness hands a failure detector's opinion of a peer to the core; see Core.Liveness. It returns when the core has
// taken it. Errors: that of ctx, coterie.ErrClosed.
func (n *Node) Liveness(ctx context.Context, id coterie.NodeID, opinion coterie.Liveness) error {
	return n.Do(ctx, func(now time.Time, core *Core) { core.Liveness(now, id, opinion) })
}
