package rpc

import (
	"context"
	"sync"
	"time"

	"github.com/coterie-go/coterie"
)

// callContext is the context of a handler. The standard ones cost four allocations and a timer for each call with a
// deadline; most handlers ask for neither the channel nor the error, and so this one makes both when asked.
type callContext struct {
	deadline time.Time // zero for none
	peer     coterie.NodeID
	trace    Trace

	mu    sync.Mutex // guards what follows
	err   error
	done  chan struct{}      // nil until it is asked for
	timer *time.Timer        // nil until somebody waits
	after map[*func()]func() // of AfterFunc, to be called at the end
}

// peerKey is what Peer asks a handler's context for.
type peerKey struct{}

// Peer returns the node that a handler was called by, as a context of it tells: proven by its certificate if the
// server has an Identity, else what the caller says; empty if it says nothing, and for a context of no handler.
func Peer(ctx context.Context) coterie.NodeID {
	id, _ := ctx.Value(peerKey{}).(coterie.NodeID)
	return id
}

func (c *callContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

func (c *callContext) Value(key any) any {
	switch key.(type) {
	case traceKey:
		return c.trace
	case peerKey:
		return c.peer
	}
	return nil
}

func (c *callContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		}
	}
	c.watchLocked()
	return c.done
}

func (c *callContext) Err() error {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	if err == nil && !c.deadline.IsZero() && !time.Now().Before(c.deadline) {
		c.cancel(context.DeadlineExceeded)
		err = context.DeadlineExceeded
	}
	return err
}

// AfterFunc is what the standard contexts look for in a parent, lest they start a goroutine that waits for it.
func (c *callContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		go f()
		return func() bool { return false }
	}
	if c.after == nil {
		c.after = make(map[*func()]func())
	}
	key := &f
	c.after[key] = f
	c.watchLocked()
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, waits := c.after[key]
		delete(c.after, key)
		return waits
	}
}

// watchLocked sees to it that the deadline is noticed.
func (c *callContext) watchLocked() {
	if c.timer == nil && c.err == nil && !c.deadline.IsZero() {
		c.timer = time.AfterFunc(time.Until(c.deadline), func() { c.cancel(context.DeadlineExceeded) })
	}
}

// cancel ends the context, unless it has ended.
func (c *callContext) cancel(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.done != nil {
		close(c.done)
	}
	after := c.after
	c.after = nil
	c.mu.Unlock()
	for _, f := range after {
		go f()
	}
}
