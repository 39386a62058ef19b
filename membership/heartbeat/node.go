package heartbeat

import (
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/membership"
	"github.com/coterie-go/coterie/transport/host"
)

// Node is a running member: a Core, and the goroutine of the host that runs it, which has ended when Close returns.
// It is a coterie.Detector. Its methods are safe for concurrent use.
type Node struct {
	core *guarded
	host *host.Host[*guarded]
	feed membership.Feed[struct{}]
}

var _ coterie.Detector = (*Node)(nil)

// guarded is a Core that others than its host may read.
type guarded struct {
	mu   sync.Mutex // guards core
	core *Core
}

func (g *guarded) Replay(record []byte) error { return g.core.Replay(record) }

func (g *guarded) Step(now time.Time, from coterie.NodeID, payload []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.core.Step(now, from, payload)
}

func (g *guarded) Tick(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.core.Tick(now)
}

func (g *guarded) Ready() coterie.Ready {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.core.Ready()
}

// Start runs a member. The error names the field of Config that is wrong.
func Start(cfg Config) (*Node, error) {
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64() | 1
	}
	core, err := NewCore(cfg)
	if err != nil {
		return nil, err
	}
	switch {
	case cfg.Transport == nil:
		return nil, errors.New("heartbeat: Config.Transport is required")
	case cfg.Transport.LocalID() != cfg.ID:
		return nil, fmt.Errorf("heartbeat: Config.ID is %q, but Config.Transport is that of %q", cfg.ID, cfg.Transport.LocalID())
	}
	n := &Node{core: &guarded{core: core}}
	n.host, err = host.Start(n.core, host.Config{Transport: cfg.Transport, Handle: n.handle})
	if err != nil {
		return nil, err
	}
	return n, nil
}

func (n *Node) handle(_ time.Time, event any) {
	if e, ok := event.(membership.Event[struct{}]); ok {
		n.feed.Publish(e)
	}
}

// Members returns the members as they are now, sorted by ID.
func (n *Node) Members() []membership.Member[struct{}] {
	n.core.mu.Lock()
	defer n.core.mu.Unlock()
	return n.core.core.Members()
}

// Report tells who hears whom now.
func (n *Node) Report() Report {
	n.core.mu.Lock()
	defer n.core.mu.Unlock()
	return n.core.core.Report(time.Now())
}

// Events returns an iteration over the changes, preceded by a join of each member; see membership.Feed.Events.
func (n *Node) Events() iter.Seq[membership.Event[struct{}]] { return n.feed.Events(n.Members) }

// Watch is coterie.Detector's. f is called on the node's goroutine.
func (n *Node) Watch(f func(coterie.NodeID, coterie.Liveness)) (cancel func()) {
	return n.feed.Watch(n.Members, f)
}

// Close stops the node. It leaves the transport open. Closing twice is harmless.
func (n *Node) Close() error {
	err := n.host.Close()
	n.feed.Close()
	return err
}
