package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport/host"
)

// Driver runs a Core as a coterie.Replica: it batches proposals and reads, applies what is decided on a goroutine of
// its own, keeps the sessions by which a command is applied once, takes and sends snapshots, and gives the log its
// clock. A protocol's Node wraps one and adds its own calls by Do.
//
// A Driver owns its host's goroutine, one that applies, one that reads and writes chunks of snapshots, and one while it
// writes a snapshot. All have ended when Close returns nil. Its methods are safe for concurrent use.
type Driver[C Core] struct {
	cfg   Config
	id    coterie.NodeID
	host  *host.Host[C]
	files *mailbox // for the goroutine that serves chunks
	clerk clerk    // of that goroutine

	waiters sync.Pool  // of *waiter
	mu      sync.Mutex // guards desk and refusal
	desk    *desk[*waiter]
	refusal error // why nothing is accepted any more; nil while it is

	done    batch[*waiter]              // the last batch, whose slices are used again; of the host's goroutine
	drain   func(now time.Time, core C) // hands the batch to the core
	applied atomic.Uint64               // for the core
	telling atomic.Bool                 // a call that tells the core of applied is under way
	tell    func(now time.Time, core C) // that call

	status struct {
		sync.Mutex
		leader    coterie.NodeID
		term      uint64
		committed uint64
	}

	// Of the applying goroutine alone, but for events and stopping.
	events    *mailbox // of the core, in order, and of the driver's other goroutines
	machine   *Machine
	answers   []answered
	readable  func(id uint64)
	newest    uint64 // index of the newest snapshot
	capturing bool   // a snapshot is being written
	ticking   bool   // a tick is proposed and not answered
	ticked    time.Time
	timer     *time.Timer // puts a tickDue; nil until one is needed
	armed     time.Time   // what for; zero if it is not
	stopping  atomic.Bool // a snapshot under way is given up

	closing  sync.Once
	closeErr error
	wg       sync.WaitGroup
	ended    chan struct{} // closed when nothing is accepted or applied any more
	failure  error         // why the driver stopped by itself; written before ended is closed
}

// waiter is someone who waits for an answer. One is used again and again.
type waiter struct {
	answer chan Outcome // holds one, so that answering never blocks
	tick   bool         // nobody waits: the driver's own entry
}

var errStopped = fmt.Errorf("consensus: %w", coterie.ErrClosed)

// Start replays the journal into the core, restores the state machine from the snapshot it names, and runs both until
// Close. The core is the driver's from now on. Start returns ErrCorruptSnapshot if that snapshot is not what it was.
func Start[C Core](core C, cfg Config) (*Driver[C], error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	d := &Driver[C]{
		cfg:    cfg,
		id:     cfg.Transport.LocalID(),
		files:  newMailbox(),
		clerk:  clerk{store: cfg.Snapshots},
		desk:   newDesk[*waiter](cfg.MaxPending, cfg.MaxPendingBytes),
		events: newMailbox(),
		machine: NewMachine(MachineConfig{
			StateMachine: cfg.StateMachine, SnapshotBytes: cfg.SnapshotBytes, SnapshotEntries: cfg.SnapshotEntries, bug: cfg.bug,
		}),
		ended: make(chan struct{}),
	}
	d.drain, d.tell, d.readable = d.drainBatch, d.tellApplied, d.answerRead
	d.waiters.New = func() any { return &waiter{answer: make(chan Outcome, 1)} }
	names, err := cfg.Snapshots.Names()
	if err != nil {
		return nil, fmt.Errorf("consensus: snapshots: %w", err)
	}
	d.host, err = host.Start(core, host.Config{
		Transport: cfg.Transport, Journal: cfg.Journal, Handle: d.handle, Check: cfg.Check, Log: cfg.Log,
		CloseTimeout: cfg.CloseTimeout,
	})
	if err != nil {
		return nil, err
	}
	if err := d.begin(names); err != nil {
		d.stopping.Store(true)
		return nil, errors.Join(err, d.host.Close())
	}
	d.wg.Go(d.apply)
	d.wg.Go(d.serveFiles)
	d.wg.Go(func() {
		<-d.host.Done()
		d.events.put(hostDone{})
	})
	return d, nil
}

// begin restores the state that the journal names and removes the snapshots that it does not name. It has the events
// of the core's first Tick, for they come before any call.
func (d *Driver[C]) begin(names []string) error {
	if err := d.host.Do(context.Background(), func(time.Time, C) {}); err != nil {
		return fmt.Errorf("consensus: %w", err)
	}
	named := ""
	if in, ok := takeFirst[Installed](d.events); ok {
		if err := load(d.cfg.Snapshots, d.machine, in); err != nil {
			return err
		}
		d.restored(in)
		named = in.Snapshot.Name
	}
	return removeOrphans(d.cfg.Snapshots, names, named)
}

// handle takes the core's events, on the host's goroutine.
func (d *Driver[C]) handle(now time.Time, event any) {
	switch e := event.(type) {
	case Committed:
		d.status.Lock()
		d.status.committed = e.Index + uint64(len(e.Entries)) - 1
		d.status.Unlock()
		d.events.put(event)
		return
	case ReadAt:
		d.events.put(event)
		return
	case Rejected:
		d.reject(e)
		return
	case ReadChunk, WriteChunk:
		d.files.put(event)
		return
	case Installed:
		d.status.Lock()
		d.status.committed = max(d.status.committed, e.Index)
		d.status.Unlock()
		d.events.put(event)
	case Superseded, SnapshotDue:
		d.events.put(event)
	case Leader:
		d.status.Lock()
		d.status.leader, d.status.term = e.ID, e.Term
		d.status.Unlock()
		d.events.put(event)
	}
	if d.cfg.Event != nil {
		d.cfg.Event(now, event)
	}
}

// drainBatch hands the core all that has been asked since the last time.
func (d *Driver[C]) drainBatch(now time.Time, core C) {
	stamp := stampOf(d.cfg.Clock())
	d.mu.Lock()
	if d.desk.onlyReads() {
		// Reads wait for no disk, so that a busy node would serve them one by one, a round of its goroutines for each.
		// Whoever else is about to ask goes first.
		d.mu.Unlock()
		runtime.Gosched()
		d.mu.Lock()
	}
	b := d.desk.take(stamp, d.done)
	d.mu.Unlock()
	for _, p := range b.proposals {
		core.Propose(now, p.id, b.buf[p.begin:p.end:p.end])
	}
	if b.readID != 0 {
		// Not at now: some of these reads were asked after the host had read its clock, and a pause in between may have
		// been longer than the lease that held then.
		core.Read(time.Now(), b.readID)
	}
	d.done = batch[*waiter]{proposals: b.proposals}
}

func (d *Driver[C]) tellApplied(now time.Time, core C) {
	d.telling.Store(false) // before the load: what is applied later tells again
	core.Applied(now, d.applied.Load())
}

func (d *Driver[C]) reject(e Rejected) {
	d.mu.Lock()
	who, ok := d.desk.answered(e.ID)
	reads := d.desk.answeredRead(e.ID)
	d.mu.Unlock()
	if ok {
		d.answer(who, Outcome{ID: e.ID, Err: e.Err})
	}
	for _, r := range reads {
		r.who.answer <- Outcome{Err: e.Err}
	}
}

func (d *Driver[C]) answer(who *waiter, o Outcome) {
	if who.tick {
		d.events.put(tickAnswered{})
		return
	}
	who.answer <- o
}

// Propose replicates a command and returns what the state machine made of it. It is not tried again; a Session does
// that without applying it twice. Beside the errors of coterie.Replica: if ctx ends first the error is ctx.Err(), and
// ErrUnknownOutcome too unless the command has not left this node. The command may be changed after the return.
func (d *Driver[C]) Propose(ctx context.Context, command []byte) ([]byte, error) {
	o, err := d.propose(ctx, &envelope{kind: kindPlain, body: command})
	return o.Result, err
}

// ProposeAs is Propose of one try of a session's command: of all tries with one Tag at most one is applied, and all
// that are answered give its result. Use a Session, which numbers and retries.
func (d *Driver[C]) ProposeAs(ctx context.Context, tag Tag, command []byte) ([]byte, error) {
	if tag.Low == 0 || tag.Low > tag.Seq {
		return nil, fmt.Errorf("consensus: Tag.Low %d is not from 1 to Tag.Seq %d", tag.Low, tag.Seq)
	}
	o, err := d.propose(ctx, &envelope{kind: kindOf, tag: tag, body: command})
	return o.Result, err
}

// OpenSession opens a session and returns its id. One whose answer is lost stays open until it expires.
func (d *Driver[C]) OpenSession(ctx context.Context) (id uint64, err error) {
	o, err := d.propose(ctx, &envelope{kind: kindOpen, limits: d.cfg.limits()})
	return o.Index, err
}

// EndSession makes the replicas forget a session.
func (d *Driver[C]) EndSession(ctx context.Context, id uint64) error {
	_, err := d.propose(ctx, &envelope{kind: kindEnd, tag: Tag{Session: id}})
	return err
}

func (d *Driver[C]) propose(ctx context.Context, e *envelope) (Outcome, error) {
	if err := ctx.Err(); err != nil {
		return Outcome{}, err
	}
	w := d.waiters.Get().(*waiter)
	id, err := d.ask(e, w)
	if err != nil {
		d.waiters.Put(w)
		return Outcome{}, err
	}
	var o Outcome
	if ctx.Done() == nil { // a select would cost more than all the rest of this
		o = <-w.answer
		d.waiters.Put(w)
		return o, o.Err
	}
	select {
	case o = <-w.answer:
	case <-ctx.Done():
		d.mu.Lock()
		waited, handed := d.desk.forsake(id)
		d.mu.Unlock()
		switch {
		case waited && handed:
			err = fmt.Errorf("%w: %w", coterie.ErrUnknownOutcome, ctx.Err())
		case waited:
			err = ctx.Err()
		default:
			o = <-w.answer // it is on its way
		}
	}
	// Nobody else knows of the waiter any more: it was taken from the desk before it was answered, or forsaken.
	d.waiters.Put(w)
	if err == nil {
		err = o.Err
	}
	return o, err
}

// ask adds a proposal to the batch. The first of a batch makes the host drain it.
func (d *Driver[C]) ask(e *envelope, w *waiter) (id uint64, err error) {
	d.mu.Lock()
	if err = d.refusal; err == nil {
		err = d.desk.room(len(e.body) + maxHeader)
	}
	if err != nil {
		d.mu.Unlock()
		return 0, err
	}
	first := d.desk.empty()
	id = d.desk.propose(e, w)
	d.mu.Unlock()
	if first {
		_ = d.host.Post(d.drain) // if it has ended, everyone who waits is told
	}
	return id, nil
}

// Read answers a query linearizably. All reads that wait for one round of the core share it. If ctx ends first the
// error is ctx.Err(). The query may be changed after the return.
func (d *Driver[C]) Read(ctx context.Context, query []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w := d.waiters.Get().(*waiter)
	d.mu.Lock()
	err := d.refusal
	if err == nil {
		err = d.desk.room(len(query))
	}
	if err != nil {
		d.mu.Unlock()
		d.waiters.Put(w)
		return nil, err
	}
	first := d.desk.empty()
	d.desk.read(query, w)
	d.mu.Unlock()
	if first {
		_ = d.host.Post(d.drain) // if it has ended, everyone who waits is told
	}
	select {
	case o := <-w.answer:
		d.waiters.Put(w)
		return o.Result, o.Err
	case <-ctx.Done():
		return nil, ctx.Err() // the waiter is left to its answer
	}
}

// Do runs f with the core between two of its steps and waits for f to return: for a protocol's own calls. Its errors
// are the host's: ctx.Err() or ErrClosed (wrapped) only if f has not run and never will. f must not block, and may not
// call the Driver.
func (d *Driver[C]) Do(ctx context.Context, f func(now time.Time, core C)) error {
	return d.host.Do(ctx, f)
}

// Status tells what this node knows of itself now.
func (d *Driver[C]) Status() coterie.Status {
	d.status.Lock()
	defer d.status.Unlock()
	return coterie.Status{
		ID: d.id, Leader: d.status.leader, Term: d.status.term, Committed: d.status.committed, Applied: d.applied.Load(),
	}
}

// Done is closed when the driver has stopped, by Close or by itself.
func (d *Driver[C]) Done() <-chan struct{} { return d.ended }

// Err tells why the driver stopped by itself: the host's error, a corrupt snapshot, a log of a newer version. It is
// nil while it runs and after a Close.
func (d *Driver[C]) Err() error {
	select {
	case <-d.ended:
		return d.failure
	default:
		return nil
	}
}

// Close stops the driver and waits for its goroutines. Who waits for a proposal gets ErrClosed, and ErrUnknownOutcome
// too if it had reached the core. Close returns Err, or host.ErrJournalStuck if a sync hangs. Closing twice is
// harmless.
func (d *Driver[C]) Close() error {
	d.closing.Do(func() {
		d.stopping.Store(true)
		d.refuse(errStopped)
		if d.closeErr = d.host.Close(); errors.Is(d.closeErr, host.ErrJournalStuck) {
			d.events.put(hostDone{}) // it will not end, but nothing more comes of it
			<-d.ended
			return
		}
		d.wg.Wait()
		if d.failure != nil {
			d.closeErr = d.failure
		}
	})
	return d.closeErr
}

// CloseWith closes the driver and then, in order, what its node opened for it. A journal that hangs in a sync is left
// open, for its Close would wait for that sync.
func (d *Driver[C]) CloseWith(own []io.Closer) error {
	err := d.Close()
	errs := []error{err}
	for _, c := range own {
		if _, journal := c.(coterie.Journal); journal && errors.Is(err, host.ErrJournalStuck) {
			continue
		}
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// refuse makes the driver accept nothing more.
func (d *Driver[C]) refuse(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refusal == nil {
		d.refusal = err
	}
}

// NewSession opens a session, by which proposals are tried again without being applied twice.
func (d *Driver[C]) NewSession(ctx context.Context) (*Session, error) { return NewSession(ctx, d) }
