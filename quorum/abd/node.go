package abd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport/host"
)

// Node is a running Core: a server of registers, and their client. It owns the goroutine of its host, which has ended
// when Close returns. Its methods are safe for concurrent use.
type Node struct {
	host  *host.Host[*Core]
	slots chan struct{} // one for each operation under way

	mu      sync.Mutex             // guards what follows
	next    uint64                 // id of the next operation
	waiting map[uint64]chan answer // by id

	reads, quick, writes, concurrent atomic.Uint64
}

type answer struct {
	value []byte
	err   error
}

// Start runs a node. It returns an error that names the field of Config that is wrong, or that of a record that cannot
// be replayed.
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
		return nil, errors.New("abd: Config.Transport is required")
	case cfg.Journal == nil:
		return nil, errors.New("abd: Config.Journal is required: a server that forgets what it stored is no server")
	case cfg.Transport.LocalID() != cfg.ID:
		return nil, fmt.Errorf("abd: Config.ID is %q, but Config.Transport is that of %q", cfg.ID, cfg.Transport.LocalID())
	}
	n := &Node{slots: make(chan struct{}, core.cfg.MaxPending), waiting: map[uint64]chan answer{}}
	n.host, err = host.Start(core, host.Config{Transport: cfg.Transport, Journal: cfg.Journal, Handle: n.handle})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Read returns the value of the register: nil if it was never written, which is not the same as empty. The value is
// shared; nobody may change it. Errors: ErrConcurrent (Safe registers only), ErrTooLarge, that of ctx, and
// coterie.ErrClosed.
func (n *Node) Read(ctx context.Context, key string) ([]byte, error) {
	value, err := n.do(ctx, func(now time.Time, core *Core, id uint64) error { return core.Read(now, id, key) })
	if err != nil {
		return nil, fmt.Errorf("abd: read %q: %w", key, err)
	}
	return value, nil
}

// Write sets the register. Nobody may change the value afterwards. When Write returns nil every later read returns this
// value or a later one. Errors: ErrTooLarge; if ctx or the node ended while it was under way coterie.ErrUnknownOutcome
// besides their own: it may have happened, or may happen yet.
func (n *Node) Write(ctx context.Context, key string, value []byte) error {
	_, err := n.do(ctx, func(now time.Time, core *Core, id uint64) error { return core.Write(now, id, key, value) })
	if err == nil {
		return nil
	}
	if _, interrupted := errors.AsType[*interruptedError](err); interrupted {
		err = errors.Join(coterie.ErrUnknownOutcome, err)
	}
	return fmt.Errorf("abd: write %q: %w", key, err)
}

// interruptedError is the end of the wait for an operation that was begun.
type interruptedError struct{ err error }

func (e *interruptedError) Error() string { return e.err.Error() }
func (e *interruptedError) Unwrap() error { return e.err }

// do begins an operation on the core and waits for its end.
func (n *Node) do(ctx context.Context, begin func(now time.Time, core *Core, id uint64) error) ([]byte, error) {
	select {
	case n.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-n.host.Done():
		return nil, coterie.ErrClosed
	}
	defer func() { <-n.slots }()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	done := make(chan answer, 1)
	n.mu.Lock()
	n.next++
	id := n.next
	n.waiting[id] = done
	n.mu.Unlock()
	err := n.host.Post(func(now time.Time, core *Core) {
		if err := begin(now, core, id); err != nil {
			n.finish(id, answer{err: err})
		}
	})
	if err != nil {
		n.forget(id)
		return nil, err
	}
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		n.forget(id)
		_ = n.host.Post(func(_ time.Time, core *Core) { core.Cancel(id) }) // if the host has ended so has the operation
		return nil, &interruptedError{ctx.Err()}
	case <-n.host.Done():
		n.forget(id)
		return nil, &interruptedError{coterie.ErrClosed}
	}
}

// handle takes the core's events, on the host's goroutine.
func (n *Node) handle(_ time.Time, event any) {
	switch e := event.(type) {
	case ReadDone:
		n.reads.Add(1)
		if e.Err != nil {
			n.concurrent.Add(1)
		} else if e.Rounds == 1 {
			n.quick.Add(1)
		}
		n.finish(e.ID, answer{e.Value, e.Err})
	case WriteDone:
		n.writes.Add(1)
		n.finish(e.ID, answer{})
	}
}

func (n *Node) finish(id uint64, a answer) {
	if done := n.forget(id); done != nil {
		done <- a
	}
}

func (n *Node) forget(id uint64) chan answer {
	n.mu.Lock()
	defer n.mu.Unlock()
	done := n.waiting[id]
	delete(n.waiting, id)
	return done
}

// Metrics counts what a node's clients did.
type Metrics struct {
	Reads      uint64 // reads that ended
	QuickReads uint64 // those of one round trip
	Writes     uint64 // writes that ended
	Concurrent uint64 // reads that ended by ErrConcurrent
}

// Metrics returns the counters.
func (n *Node) Metrics() Metrics {
	return Metrics{n.reads.Load(), n.quick.Load(), n.writes.Load(), n.concurrent.Load()}
}

// Done is closed when the node has stopped, by Close or because its journal failed; Err tells why.
func (n *Node) Done() <-chan struct{} { return n.host.Done() }

// Err returns why the node stopped by itself, nil if it did not.
func (n *Node) Err() error { return n.host.Err() }

// Close stops the node and waits for its goroutines. Operations under way end with coterie.ErrClosed. Closing twice is
// harmless.
func (n *Node) Close() error { return n.host.Close() }
