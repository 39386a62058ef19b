package reign

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/election"
	"github.com/coterie-go/coterie/transport/host"
)

// Elector is a Core that elects.
type Elector interface {
	coterie.Core
	Elect(now time.Time)
	Leader() (coterie.NodeID, uint64)
}

// Config is what a Node needs beside its core.
type Config struct {
	ID        coterie.NodeID
	Transport coterie.Transport
	Journal   coterie.Journal
	Log       *slog.Logger
}

// Node is a running core. It owns its host's goroutine, which has ended when Close returns. Its methods are safe for
// concurrent use.
type Node[C Elector] struct {
	host *host.Host[C]

	mu      sync.Mutex // guards current
	current election.Elected

	watching sync.Mutex // guards what follows, and is held while watchers are called
	watchers map[int]func(election.Elected)
	next     int
}

// Start runs a core.
func Start[C Elector](pkg string, core C, cfg Config) (*Node[C], error) {
	switch {
	case cfg.Transport == nil:
		return nil, fmt.Errorf("%s: Config.Transport is required", pkg)
	case cfg.Transport.LocalID() != cfg.ID:
		return nil, fmt.Errorf("%s: Config.ID is %q, but Config.Transport is that of %q", pkg, cfg.ID, cfg.Transport.LocalID())
	case cfg.Journal == nil:
		return nil, errors.New(pkg + ": Config.Journal is required")
	}
	n := &Node[C]{watchers: make(map[int]func(election.Elected))}
	var err error
	n.host, err = host.Start(core, host.Config{
		Transport: cfg.Transport, Journal: cfg.Journal, Log: cfg.Log,
		Handle: func(_ time.Time, event any) {
			if e, ok := event.(election.Elected); ok {
				n.publish(e)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

func (n *Node[C]) publish(e election.Elected) {
	n.watching.Lock()
	defer n.watching.Unlock()
	n.mu.Lock()
	n.current = e
	n.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(n.watchers)) { // in the order in which they came
		n.watchers[id](e)
	}
}

// Leader returns whom this node follows, itself included, and the epoch. The id is empty if it knows of none. What it
// says may be out of date when it returns; only the epoch, checked where the effects are, guards against that.
func (n *Node[C]) Leader() (coterie.NodeID, uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.current.Leader, n.current.Epoch
}

// Watch calls f with the present leader if one is known, then with every change, one call at a time. f must not block,
// and may not call Watch or cancel. When cancel returns, f is not running and is not called again.
func (n *Node[C]) Watch(f func(election.Elected)) (cancel func()) {
	n.watching.Lock()
	defer n.watching.Unlock()
	n.mu.Lock()
	now := n.current
	n.mu.Unlock()
	if now.Leader != "" {
		f(now)
	}
	id := n.next
	n.next++
	n.watchers[id] = f
	return func() {
		n.watching.Lock()
		defer n.watching.Unlock()
		delete(n.watchers, id)
	}
}

// Elect begins an election now, for one who knows before the time-out that the leader is gone.
func (n *Node[C]) Elect(ctx context.Context) error {
	return n.host.Do(ctx, func(now time.Time, core C) { core.Elect(now) })
}

// Err tells why the node stopped by itself; nil while it runs and after a Close.
func (n *Node[C]) Err() error { return n.host.Err() }

// Close stops the node; a leader that stops is missed after the Timeout of the others. Closing twice is harmless.
func (n *Node[C]) Close() error { return n.host.Close() }
