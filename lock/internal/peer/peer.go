// Package peer runs a lock.PeerCore as a lock.Locker: the part of a Node that all algorithms among peers share.
package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/transport/host"
)

// Config is what a Node needs beside its core.
type Config struct {
	Transport coterie.Transport // required; not closed by the Node
	Journal   coterie.Journal   // nil for a core that saves nothing; not closed by the Node
	TryWait   time.Duration     // how long TryAcquire waits for the other peers; default 100 ms
	Log       *slog.Logger      // default silent
}

// Node is a running core. It owns its host's goroutine, which has ended when Close returns. Its methods are safe for
// concurrent use.
type Node[C lock.PeerCore] struct {
	host    *host.Host[C]
	tryWait time.Duration

	mu     sync.Mutex // guards what follows; taken inside the host's goroutine too, so that no call of the host is made under it
	names  map[string]*queue
	closed bool
}

// queue is who on this node wants a name, first come first served. It is there as long as somebody does or holds it.
type queue struct {
	waiters []*waiter
	lease   *lock.Lease // of the holder; nil while the core has not entered
}

type waiter struct {
	granted chan *lock.Lease // holds one, so that granting never blocks; closed if there never will be one
}

// Start runs a core.
func Start[C lock.PeerCore](core C, cfg Config) (*Node[C], error) {
	if cfg.TryWait < 0 {
		return nil, errors.New("lock: Config.TryWait is negative")
	}
	if cfg.TryWait == 0 {
		cfg.TryWait = 100 * time.Millisecond
	}
	n := &Node[C]{tryWait: cfg.TryWait, names: make(map[string]*queue)}
	var err error
	n.host, err = host.Start(core, host.Config{
		Transport: cfg.Transport, Journal: cfg.Journal, Log: cfg.Log,
		Handle: func(_ time.Time, event any) { n.handle(event) },
	})
	if err != nil {
		return nil, err
	}
	go n.watch()
	return n, nil
}

// watch ends what waits when the host ends by itself.
func (n *Node[C]) watch() {
	<-n.host.Done()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for name, q := range n.names {
		for _, w := range q.waiters {
			close(w.granted)
		}
		if q.lease != nil {
			q.lease.Lose()
		}
		delete(n.names, name)
	}
}

// Acquire waits until this node holds the name and nobody else on it does. Errors: that of ctx; of Options.Validate;
// errors.ErrUnsupported for a Mode or a Limit; coterie.ErrClosed.
func (n *Node[C]) Acquire(ctx context.Context, name string, o lock.Options) (*lock.Lease, error) {
	if err := supported(o); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w, err := n.enqueue(name, false)
	if err != nil {
		return nil, err
	}
	return n.wait(ctx, name, w)
}

// TryAcquire returns lock.ErrBusy if somebody on this node holds or wants the name, or if the peers did not give it
// within Config.TryWait.
func (n *Node[C]) TryAcquire(ctx context.Context, name string, o lock.Options) (*lock.Lease, error) {
	if err := supported(o); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w, err := n.enqueue(name, true)
	if err != nil {
		return nil, err
	}
	short, cancel := context.WithTimeout(ctx, n.tryWait)
	defer cancel()
	lease, err := n.wait(short, name, w)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("%q: %w", name, lock.ErrBusy)
	}
	return lease, err
}

func supported(o lock.Options) error {
	if err := o.Validate(); err != nil {
		return err
	}
	if o.Mode != lock.Exclusive || o.Limit > 1 {
		return fmt.Errorf("lock: a lock among peers is exclusive: %w", errors.ErrUnsupported)
	}
	return nil
}

// enqueue adds a waiter. The first one makes the core request the name.
func (n *Node[C]) enqueue(name string, alone bool) (*waiter, error) {
	w := &waiter{granted: make(chan *lock.Lease, 1)}
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil, n.ended()
	}
	q := n.names[name]
	if q != nil && alone {
		n.mu.Unlock()
		return nil, fmt.Errorf("%q: %w", name, lock.ErrBusy)
	}
	first := q == nil
	if first {
		q = &queue{}
		n.names[name] = q
	}
	q.waiters = append(q.waiters, w)
	n.mu.Unlock()
	if first {
		_ = n.host.Post(func(now time.Time, core C) { core.Request(now, name) }) // if it has ended, watch tells the waiter
	}
	return w, nil
}

// wait returns the lease, or takes the waiter out of the queue.
func (n *Node[C]) wait(ctx context.Context, name string, w *waiter) (*lock.Lease, error) {
	select {
	case lease, ok := <-w.granted:
		if !ok {
			return nil, n.ended()
		}
		return lease, nil
	case <-ctx.Done():
	}
	n.mu.Lock()
	if q := n.names[name]; q != nil {
		for i, other := range q.waiters {
			if other == w {
				q.waiters = append(q.waiters[:i], q.waiters[i+1:]...)
				n.mu.Unlock()
				n.withdraw(name)
				return nil, ctx.Err()
			}
		}
	}
	n.mu.Unlock()
	lease, ok := <-w.granted // it is on its way
	if !ok {
		return nil, n.ended()
	}
	return nil, errors.Join(ctx.Err(), lease.Release(context.WithoutCancel(ctx)))
}

// withdraw takes the core's request back if nobody wants the name any more.
func (n *Node[C]) withdraw(name string) {
	_ = n.host.Post(func(now time.Time, core C) {
		n.mu.Lock()
		q := n.names[name]
		idle := q != nil && len(q.waiters) == 0 && q.lease == nil
		if idle {
			delete(n.names, name)
		}
		n.mu.Unlock()
		if idle {
			core.Release(now, name)
		}
	})
}

// handle takes the core's events, on the host's goroutine.
func (n *Node[C]) handle(event any) {
	switch e := event.(type) {
	case lock.Entered:
		n.entered(e)
	case lock.Forfeited:
		n.forfeited(e.Name)
	}
}

// entered gives the name to the first who waits, or back if nobody does any more.
func (n *Node[C]) entered(e lock.Entered) {
	n.mu.Lock()
	q := n.names[e.Name]
	if q == nil || q.lease != nil { // the request was taken back on the way
		n.mu.Unlock()
		return
	}
	if len(q.waiters) == 0 {
		n.mu.Unlock()
		n.withdraw(e.Name)
		return
	}
	w := q.waiters[0]
	q.waiters = q.waiters[1:]
	q.lease = lock.NewLease(lock.LeaseConfig{
		Name: e.Name, Token: e.Token,
		Release: func(ctx context.Context) error { return n.release(ctx, e.Name, e.Token) },
	})
	w.granted <- q.lease
	n.mu.Unlock()
}

// forfeited tells the holder, and asks again for those who wait.
func (n *Node[C]) forfeited(name string) {
	n.mu.Lock()
	q := n.names[name]
	if q == nil || q.lease == nil {
		n.mu.Unlock()
		return
	}
	q.lease.Lose()
	again := n.leave(name, q)
	n.mu.Unlock()
	if again {
		_ = n.host.Post(func(now time.Time, core C) { core.Request(now, name) })
	}
}

// leave ends a holding and tells whether others wait. The caller holds mu.
func (n *Node[C]) leave(name string, q *queue) (again bool) {
	q.lease = nil
	if len(q.waiters) == 0 {
		delete(n.names, name)
		return false
	}
	return true
}

// release makes the core leave the name, and ask again if others on this node wait: behind the other nodes.
func (n *Node[C]) release(ctx context.Context, name string, token uint64) error {
	lost := false
	err := n.host.Do(ctx, func(now time.Time, core C) {
		n.mu.Lock()
		q := n.names[name]
		if q == nil || q.lease == nil || q.lease.Token() != token {
			n.mu.Unlock()
			lost = true
			return
		}
		again := n.leave(name, q)
		n.mu.Unlock()
		core.Release(now, name)
		if again {
			core.Request(now, name)
		}
	})
	if err == nil && lost {
		err = lock.ErrLost
	}
	return err
}

// Do runs f with the core between two of its steps, as host.Host.Do does.
func (n *Node[C]) Do(ctx context.Context, f func(now time.Time, core C)) error {
	return n.host.Do(ctx, f)
}

// Err tells why the node stopped by itself; nil while it runs and after a Close.
func (n *Node[C]) Err() error { return n.host.Err() }

func (n *Node[C]) ended() error {
	if err := n.host.Err(); err != nil {
		return fmt.Errorf("lock: %w: %w", coterie.ErrClosed, err)
	}
	return fmt.Errorf("lock: %w", coterie.ErrClosed)
}

// Close stops the node. Who waits gets ErrClosed, who holds a name has lost it: the other peers may wait for it until
// the node is back. Closing twice is harmless.
func (n *Node[C]) Close() error { return n.host.Close() }
