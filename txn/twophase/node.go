package twophase

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport/host"
	"github.com/coterie-go/coterie/txn"
)

// AbortedError is the txn.ErrAborted of Run: nothing of the transaction happened anywhere.
type AbortedError struct {
	ID     txn.ID
	By     coterie.NodeID // who refused or did not answer; the coordinator itself if the work failed or ctx ended
	Reason string         // what it said
	Err    error          // of the work or of ctx; nil if a participant refused
}

// Error names the transaction, the node and the reason.
func (e *AbortedError) Error() string {
	s := fmt.Sprintf("twophase: %s aborted by %s", e.ID, e.By)
	switch {
	case e.Err != nil:
		return s + ": " + e.Err.Error()
	case e.Reason != "":
		return s + ": " + e.Reason
	}
	return s
}

// Is reports whether target is txn.ErrAborted.
func (e *AbortedError) Is(target error) bool { return target == txn.ErrAborted }

// Unwrap returns the error of the work or of ctx.
func (e *AbortedError) Unwrap() error { return e.Err }

// Coordinator is the part of a Node that runs transactions. Its methods are safe for concurrent use.
type Coordinator struct {
	cfg     Config
	host    *host.Host[*Core]
	waiting map[txn.ID]chan Decided // of the host's goroutine alone
	epoch   uint64                  // of this start
	open    atomic.Int64            // calls of Run under way

	mu   sync.Mutex // guards what follows
	next uint64     // number of the next transaction

	committed, aborted, unknown atomic.Uint64
}

// Node is a running Core with its resource. It owns the goroutine of its host and one for each call of the resource that
// is under way; all have ended when Close returns. Its methods are safe for concurrent use.
type Node struct {
	*Coordinator
	resource txn.Participant
	ctx      context.Context // of the resource's calls
	cancel   context.CancelFunc
	calls    sync.WaitGroup

	prepares, retries atomic.Uint64
}

// Start runs a node, and returns when its start is noted in the journal. It returns an error that names the field of Config that is wrong, or tells why the journal cannot
// be taken up: it is another node's or protocol's, or a newer version's (*coterie.FormatError).
func Start(cfg Config) (*Node, error) {
	core, err := NewCore(cfg)
	switch {
	case err != nil:
		return nil, err
	case cfg.Transport == nil:
		return nil, errors.New("twophase: Config.Transport is required")
	case cfg.Journal == nil:
		return nil, errors.New("twophase: Config.Journal is required: a node that forgets its votes breaks them")
	case cfg.Transport.LocalID() != cfg.ID:
		return nil, fmt.Errorf("twophase: Config.ID is %q, but Config.Transport is that of %q", cfg.ID, cfg.Transport.LocalID())
	}
	n := &Node{Coordinator: &Coordinator{cfg: core.cfg, waiting: map[txn.ID]chan Decided{}}, resource: cfg.Resource}
	if n.resource == nil {
		n.resource = none{}
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	ready := make(chan struct{}) // closed when n.host is set: events come before Start returns
	n.host, err = host.Start(core, host.Config{
		Transport: cfg.Transport, Journal: cfg.Journal, Log: cfg.Log,
		Handle: func(_ time.Time, event any) { n.handle(event, ready) },
	})
	if err != nil {
		n.cancel()
		return nil, err
	}
	close(ready)
	// The first round notes the epoch that IDs are made of; a call comes after it.
	if err := n.host.Do(n.ctx, func(_ time.Time, core *Core) { n.epoch, n.next = core.epoch, core.next }); err != nil {
		_ = n.Close()
		return nil, err
	}
	if r, ok := n.resource.(txn.Recoverer); ok {
		n.calls.Go(func() { n.recover(r) })
	}
	return n, nil
}

// Run runs one transaction over the participants, which are nodes of this package, this one among them if it takes part.
// work does what is to be done at their resources, by their own means, under the ID that it is given, before Run asks
// them to prepare; it may be nil.
//
// Run returns nil when the decision to commit is durable; the participants obey it then or, after a crash, later, and
// Settle waits for them. Otherwise the error is
//   - an *AbortedError (txn.ErrAborted) that wraps work's error, or ctx's, or says who refused: nothing happened;
//   - coterie.ErrUnknownOutcome if the node stopped while the decision was being taken: its next start knows;
//   - coterie.ErrOverloaded, coterie.ErrClosed or ctx's error if the transaction did not begin.
//
// If work panics the transaction is aborted.
func (c *Coordinator) Run(ctx context.Context, participants []coterie.NodeID, work func(ctx context.Context, id txn.ID) error) error {
	if err := c.admit(ctx, participants); err != nil {
		return err
	}
	defer c.open.Add(-1)
	id, done, err := c.begin(slices.Clone(participants))
	if err != nil {
		return err
	}
	if work != nil {
		if err := c.work(ctx, id, work); err != nil {
			return &AbortedError{ID: id, By: c.cfg.ID, Err: err}
		}
	}
	_ = c.host.Post(func(now time.Time, core *Core) { _ = core.Prepare(now, id) }) // await sees the host's end
	return c.await(ctx, id, done)
}

// begin gives a transaction its ID and lets the core know. The core hears of each step of Run by Post, in order, and
// nothing waits for it: a round of the host may be a sync long.
func (c *Coordinator) begin(participants []coterie.NodeID) (txn.ID, chan Decided, error) {
	done := make(chan Decided, 1)
	c.mu.Lock() // the core hears of the numbers in their order, on which its low rests
	defer c.mu.Unlock()
	seq := c.next
	id := makeID(c.cfg.ID, position{c.epoch, seq})
	err := c.host.Post(func(now time.Time, core *Core) {
		core.now = now
		core.open(seq, participants)
		c.waiting[id] = done
	})
	if err == nil {
		c.next++
	}
	return id, done, err
}

// admit refuses what must not begin.
func (c *Coordinator) admit(ctx context.Context, participants []coterie.NodeID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(participants) == 0 {
		return errors.New("twophase: no participants")
	}
	if err := checkNodes(participants); err != nil {
		return fmt.Errorf("twophase: participants: %w", err)
	}
	if open := c.open.Add(1); open > int64(c.cfg.MaxOpen) {
		c.open.Add(-1)
		return fmt.Errorf("twophase: %d transactions are open: %w", open-1, coterie.ErrOverloaded)
	}
	return nil
}

// work does the user's part; the transaction is aborted if that fails.
func (c *Coordinator) work(ctx context.Context, id txn.ID, work func(context.Context, txn.ID) error) (err error) {
	finished := false
	defer func() {
		if !finished || err != nil {
			c.abort(id, err)
		}
	}()
	err = work(ctx, id)
	if err == nil {
		err = ctx.Err()
	}
	finished = true
	return err
}

// abort is not waited for: before the decision there is nothing to go wrong, and after it nothing to abort.
func (c *Coordinator) abort(id txn.ID, err error) {
	reason := "the work failed"
	if err != nil {
		reason = err.Error()
	}
	_ = c.host.Post(func(now time.Time, core *Core) { _ = core.Abort(now, id, reason) })
}

// await waits for the decision. When ctx ends it asks for an abort and waits on, for at most another PrepareTimeout: the
// answer is a batch away, unless the disk hangs.
func (c *Coordinator) await(ctx context.Context, id txn.ID, done chan Decided) error {
	var failed error
	select {
	case d := <-done:
		return d.result(nil)
	case <-ctx.Done():
		failed = ctx.Err()
		c.abort(id, failed)
	case <-c.host.Done():
	}
	timer := time.NewTimer(c.cfg.PrepareTimeout)
	defer timer.Stop()
	select {
	case d := <-done:
		return d.result(failed)
	case <-c.host.Done():
		select {
		case d := <-done: // it was decided before the end
			return d.result(failed)
		default:
		}
		failed = errors.Join(failed, coterie.ErrClosed)
	case <-timer.C:
	}
	c.unknown.Add(1)
	return fmt.Errorf("twophase: %s: %w", id, errors.Join(coterie.ErrUnknownOutcome, failed))
}

func (d Decided) result(ctxErr error) error {
	if d.Committed {
		return nil
	}
	return &AbortedError{ID: d.ID, By: d.By, Reason: d.Reason, Err: ctxErr}
}

// Settle waits until every transaction that this node coordinates and that was decided when Settle was called is finished
// at all its participants. It polls the core, for its users are tests and orderly ends, not the path of a request. Errors:
// that of ctx, coterie.ErrClosed.
func (c *Coordinator) Settle(ctx context.Context) error {
	var open []txn.ID
	err := c.host.Do(ctx, func(_ time.Time, core *Core) {
		for id, t := range core.coord {
			if t.phase == Committing {
				open = append(open, id)
			}
		}
	})
	for err == nil && len(open) > 0 {
		timer := time.NewTimer(linger)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		err = c.host.Do(ctx, func(_ time.Time, core *Core) {
			left := open[:0]
			for _, id := range open {
				if core.coord[id] != nil {
					left = append(left, id)
				}
			}
			open = left
		})
	}
	return err
}

// Enlist tells the node that its resource has begun work under an ID, so that it asks for the end of it if nobody tells:
// call it where the work of remote coordinators begins. Errors: txn.ErrUnknown for what is no ID of this package or is
// over, coterie.ErrOverloaded, coterie.ErrClosed, that of ctx.
func (n *Node) Enlist(ctx context.Context, id txn.ID) (err error) {
	failed := n.host.Do(ctx, func(now time.Time, core *Core) { err = core.Enlist(now, id) })
	return errors.Join(failed, err)
}

// Status tells which transactions are unfinished here, and what they wait for. Errors: coterie.ErrClosed, that of ctx.
func (n *Node) Status(ctx context.Context) (s Status, err error) {
	err = n.host.Do(ctx, func(_ time.Time, core *Core) { s = core.Status() })
	return s, err
}

// handle takes the core's events, on the host's goroutine.
func (n *Node) handle(event any, ready <-chan struct{}) {
	<-ready
	switch e := event.(type) {
	case PrepareAsked:
		n.prepares.Add(1)
		n.calls.Go(func() { n.prepare(e.ID) })
	case CommitAsked:
		n.calls.Go(func() { n.settle(e.ID, n.resource.Commit) })
	case AbortAsked:
		n.calls.Go(func() { n.settle(e.ID, n.resource.Abort) })
	case Decided:
		if e.Committed {
			n.committed.Add(1)
		} else {
			n.aborted.Add(1)
		}
		if done := n.waiting[e.ID]; done != nil {
			delete(n.waiting, e.ID)
			done <- e
		}
	}
}

func (n *Node) prepare(id txn.ID) {
	vote, err := n.resource.Prepare(n.ctx, id)
	reason := ""
	if err != nil {
		vote, reason = txn.No, err.Error()
	}
	_ = n.host.Post(func(now time.Time, core *Core) { _ = core.Voted(now, id, vote, reason) })
}

// settle tells the resource the decision until it has obeyed.
func (n *Node) settle(id txn.ID, do func(context.Context, txn.ID) error) {
	if n.try(func(ctx context.Context) error { return do(ctx, id) }) {
		_ = n.host.Post(func(now time.Time, core *Core) { _ = core.Settled(now, id) })
	}
}

// recover aborts what the resource has prepared without the node's knowledge.
func (n *Node) recover(r txn.Recoverer) {
	var ids []txn.ID
	ok := n.try(func(ctx context.Context) (err error) {
		ids, err = r.Prepared(ctx)
		return err
	})
	if ok {
		_ = n.host.Post(func(now time.Time, core *Core) { core.Recover(now, ids) })
	}
}

// maxRetry is the longest pause between two tries of a call that must succeed.
const maxRetry = time.Second

// try calls f until it succeeds, with pauses that grow; false if the node closes first.
func (n *Node) try(f func(context.Context) error) bool {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, maxRetry) {
		err := f(n.ctx)
		if err == nil {
			return true
		}
		n.retries.Add(1)
		timer := time.NewTimer(pause)
		select {
		case <-n.ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}

// Metrics counts what a node has done since its start.
type Metrics struct {
	Committed uint64 // transactions of Run that committed
	Aborted   uint64 // and that aborted
	Unknown   uint64 // whose outcome Run could not tell
	Prepares  uint64 // votes that the resource was asked for
	Retries   uint64 // calls of the resource's Commit, Abort and Prepared that failed and are made again
	Rejected  uint64 // messages that were malformed or contradicted the log
	Syncs     uint64 // forced writes
}

// Metrics returns the counters.
func (n *Node) Metrics() Metrics {
	h := n.host.Metrics()
	return Metrics{n.committed.Load(), n.aborted.Load(), n.unknown.Load(), n.prepares.Load(), n.retries.Load(), h.Malformed, h.Syncs}
}

// Done is closed when the node has stopped, by Close or because its journal failed; Err tells why.
func (n *Node) Done() <-chan struct{} { return n.host.Done() }

// Err returns why the node stopped by itself, nil if it did not.
func (n *Node) Err() error { return n.host.Err() }

// Close stops the node, cancels the resource's calls under way and waits for them. Transactions that it coordinates and
// that are not decided are aborted by its next start. Closing twice is harmless.
func (n *Node) Close() error {
	n.cancel()
	err := n.host.Close()
	n.calls.Wait()
	return err
}

// none is the resource of a node that has none.
type none struct{}

func (none) Prepare(context.Context, txn.ID) (txn.Vote, error) {
	return txn.No, errors.New("twophase: the node has no resource")
}
func (none) Commit(context.Context, txn.ID) error { return nil }
func (none) Abort(context.Context, txn.ID) error  { return nil }
