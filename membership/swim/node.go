package swim

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/membership"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

// Node is a running member: a Core, and the goroutine of the host that runs it, which has ended when Close returns.
// It is a coterie.Detector and a membership.Group. Its methods are safe for concurrent use.
type Node struct {
	core *guarded
	host *host.Host[*guarded]
	feed membership.Feed[[]byte]

	receive atomic.Pointer[func(Message)]

	mu      sync.Mutex // guards what follows
	joins   []*join
	goodbye chan struct{}
}

// join is a Join that waits for an answer of one of the seeds, or of anyone if there are none.
type join struct {
	seeds []coterie.NodeID
	done  chan struct{}
}

var (
	_ coterie.Detector = (*Node)(nil)
	_ membership.Group = (*Node)(nil)
)

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

func (g *guarded) do(f func(*Core)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(g.core)
}

// addressBook is what a transport is that must be told where its peers are: udp and tcp are.
type addressBook interface {
	SetPeer(id coterie.NodeID, address string) error
}

// router tells the transport where members are, as they say themselves.
type router struct {
	coterie.Transport
	core *guarded
}

// Send asks the core for the address of whom the transport does not know. It is called by the host, between steps.
func (r router) Send(to coterie.NodeID, payload []byte) error {
	err := r.Transport.Send(to, payload)
	book, ok := r.Transport.(addressBook)
	if !ok || !errors.Is(err, transport.ErrUnknownPeer) {
		return err
	}
	address := ""
	r.core.do(func(c *Core) {
		if m := c.table.get(string(to)); m != nil {
			address = m.address()
		}
	})
	if address == "" || book.SetPeer(to, address) != nil {
		return err
	}
	return r.Transport.Send(to, payload)
}

// Start runs a member. Members that Config.Seeds names are asked for the others until one answers; a member without
// seeds waits to be asked. The error names the field of Config that is wrong.
func Start(cfg Config) (*Node, error) {
	if cfg.Transport == nil {
		return nil, errors.New("swim: Config.Transport is required")
	}
	if id := cfg.Transport.LocalID(); id != cfg.ID {
		return nil, fmt.Errorf("swim: Config.ID is %q, but Config.Transport is that of %q", cfg.ID, id)
	}
	if cfg.Seed == 0 {
		cfg.Seed = drawSeed()
	}
	if at, ok := cfg.Transport.(interface{ Addr() net.Addr }); ok && cfg.Address == "" {
		host, _, err := net.SplitHostPort(at.Addr().String())
		if ip := net.ParseIP(host); err != nil || ip == nil || ip.IsUnspecified() {
			return nil, fmt.Errorf("swim: Config.Address is required: Config.Transport listens at %v, where nobody can reach it", at.Addr())
		}
		cfg.Address = at.Addr().String()
	}
	core, err := NewCore(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{core: &guarded{core: core}, goodbye: make(chan struct{})}
	n.host, err = host.Start(n.core, host.Config{
		Transport: router{cfg.Transport, n.core},
		Handle:    func(_ time.Time, event any) { n.handle(cfg.Transport, event) },
		Log:       cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// drawSeed draws from the system: nonces rest on it.
func drawSeed() uint64 {
	var b [8]byte
	_, _ = crand.Read(b[:]) // never fails
	return max(binary.BigEndian.Uint64(b[:]), 1)
}

// handle takes the core's events, on the host's goroutine.
func (n *Node) handle(t coterie.Transport, event any) {
	switch e := event.(type) {
	case membership.Event[[]byte]:
		if book, ok := t.(addressBook); ok && e.Member.ID != t.LocalID() {
			switch {
			case e.Kind == membership.EventForget:
				_ = book.SetPeer(e.Member.ID, "")
			case e.Member.Address != "":
				_ = book.SetPeer(e.Member.ID, e.Member.Address) // an address that is none stays unused
			}
		}
		n.feed.Publish(e)
	case Message:
		if f := n.receive.Load(); f != nil {
			(*f)(e)
		}
	case Synced:
		n.mu.Lock()
		n.joins = slices.DeleteFunc(n.joins, func(j *join) bool {
			answered := len(j.seeds) == 0 || slices.Contains(j.seeds, e.With)
			if answered {
				close(j.done)
			}
			return answered
		})
		n.mu.Unlock()
	case Goodbye:
		n.mu.Lock()
		close(n.goodbye)
		n.goodbye = make(chan struct{})
		n.mu.Unlock()
	}
}

// Members returns the members as they are now, this one included, sorted by ID; unreachable, dead and left ones too.
func (n *Node) Members() (members []membership.Member[[]byte]) {
	n.core.do(func(c *Core) { members = c.Members() })
	return members
}

// Member returns what is known of one member, false if it is unknown.
func (n *Node) Member(id coterie.NodeID) (m membership.Member[[]byte], ok bool) {
	n.core.do(func(c *Core) { m, ok = c.Member(id) })
	return m, ok
}

// Events returns an iteration over the changes, preceded by a join of each member that is known. It waits for the next
// one until the Node is closed; break ends it. Who is slow misses changes that were overtaken by later ones of the
// same member, and never the last one.
func (n *Node) Events() iter.Seq[membership.Event[[]byte]] { return n.feed.Events(n.Members) }

// Watch is coterie.Detector's. f is called on the node's goroutine.
func (n *Node) Watch(f func(coterie.NodeID, coterie.Liveness)) (cancel func()) {
	return n.feed.Watch(n.Members, f)
}

// Receive sets the handler of broadcasts, nil for none. It must not block.
func (n *Node) Receive(handle func(Message)) {
	if handle == nil {
		n.receive.Store(nil)
		return
	}
	n.receive.Store(&handle)
}

// Join asks more seeds for the others and waits until one of them has answered; without an argument the seeds of Config
// are asked again. Errors are those of ctx, after which the seeds are still asked, and coterie.ErrClosed.
func (n *Node) Join(ctx context.Context, seeds ...coterie.NodeID) error {
	j := &join{seeds: slices.Clone(seeds), done: make(chan struct{})}
	n.mu.Lock()
	n.joins = append(n.joins, j)
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.joins = slices.DeleteFunc(n.joins, func(other *join) bool { return other == j })
	}()
	if err := n.do(ctx, "join", func(now time.Time, c *Core) error { return c.Join(now, seeds...) }); err != nil {
		return err
	}
	return n.await(ctx, "join", j.done)
}

// Leave says goodbye to the others, so that they do not take this member for failed, and waits until enough of them
// have heard it: about a second. Close is to follow. Errors are those of ctx, and coterie.ErrClosed.
func (n *Node) Leave(ctx context.Context) error {
	n.mu.Lock()
	goodbye := n.goodbye
	n.mu.Unlock()
	left := false
	err := n.do(ctx, "leave", func(now time.Time, c *Core) error {
		left = c.self.state == membership.Left && c.leaveAt == never
		c.Leave(now)
		return nil
	})
	if err != nil || left {
		return err
	}
	return n.await(ctx, "leave", goodbye)
}

func (n *Node) await(ctx context.Context, what string, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("swim: %s: %w", what, ctx.Err())
	case <-n.host.Done():
		return fmt.Errorf("swim: %s: %w", what, coterie.ErrClosed)
	}
}

// do makes a typed call.
func (n *Node) do(ctx context.Context, what string, f func(now time.Time, c *Core) error) error {
	var result error
	err := n.host.Do(ctx, func(now time.Time, g *guarded) {
		g.do(func(c *Core) { result = f(now, c) })
	})
	if err != nil {
		return fmt.Errorf("swim: %s: %w", what, err)
	}
	return result
}

// Update replaces this member's metadata. It returns when it is on its way; there may be at most MaxMeta bytes.
func (n *Node) Update(ctx context.Context, meta []byte) error {
	return n.do(ctx, "update", func(now time.Time, c *Core) error { return c.Update(now, meta) })
}

// Broadcast spreads a payload to all members, best effort; see Core.Broadcast.
func (n *Node) Broadcast(ctx context.Context, payload []byte) error {
	return n.do(ctx, "broadcast", func(now time.Time, c *Core) error { return c.Broadcast(now, payload) })
}

// Remove gives up a member that is unreachable; see Core.Remove.
func (n *Node) Remove(ctx context.Context, id coterie.NodeID) error {
	return n.do(ctx, "remove", func(now time.Time, c *Core) error { return c.Remove(now, id) })
}

// SetKeys replaces the keys; see Core.SetKeys.
func (n *Node) SetKeys(ctx context.Context, keys ...[]byte) error {
	return n.do(ctx, "set keys", func(_ time.Time, c *Core) error { return c.SetKeys(keys...) })
}

// Metrics returns the counters.
func (n *Node) Metrics() (m Metrics) {
	n.core.do(func(c *Core) { m = c.Metrics() })
	return m
}

// Done is closed when the node has stopped.
func (n *Node) Done() <-chan struct{} { return n.host.Done() }

// Err returns why the node stopped by itself, nil if it did not.
func (n *Node) Err() error { return n.host.Err() }

// Close stops the node without a goodbye, and ends every iteration of Events. It leaves the transport open. Closing
// twice is harmless.
func (n *Node) Close() error {
	err := n.host.Close()
	n.feed.Close()
	return err
}
