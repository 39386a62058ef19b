package saga

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
)

// checkpointAfter is how many records the journal takes, beside eight for each saga, before a checkpoint.
const checkpointAfter = 4096

// kind is a definition, checked.
type kind struct {
	name    string
	stages  [][]Step
	timeout time.Duration
}

// names lists the steps in order.
func (k *kind) names() (list []string) {
	for _, stage := range k.stages {
		for _, s := range stage {
			list = append(list, s.Name)
		}
	}
	return list
}

// live is an unfinished saga at work.
type live struct {
	in      *instance               // guarded by Engine.mu
	ctx     context.Context         // of the doing of steps
	cancel  context.CancelCauseFunc // ends the doing of steps
	ended   chan struct{}           // closed when it is Done, Compensated or Stuck, or the engine stops
	stuck   bool                    // these two are guarded by Engine.mu
	trouble string
}

// Engine runs sagas. It owns one goroutine for each unfinished saga, and one for each of its steps that is being done; all
// have ended when Close returns. Its methods are safe for concurrent use.
type Engine struct {
	cfg   Config
	kinds map[string]*kind
	ctx   context.Context // of all steps; ends at Close and when the journal fails
	stop  context.CancelFunc
	work  sync.WaitGroup

	mu      sync.Mutex // guards what follows
	wrote   *sync.Cond // a batch is written
	book    book
	live    map[string]*live
	pending [][]byte // records of the batch being gathered
	number  int      // of that batch
	written int      // number of the last batch written
	busy    bool     // somebody writes a batch
	records int      // since the last checkpoint
	failed  error    // of the journal, final
	closed  bool

	done, compensated, retries, syncs atomic.Uint64
}

// Start takes up the journal, goes on with every saga in it that is not over, and runs new ones. The error names the
// field of Config or the step that is wrong, or tells why the journal cannot be taken up: it is another owner's, a newer
// version's (*coterie.FormatError), or holds unfinished sagas of which Config.Definitions lacks the definition or a step.
func Start(cfg Config) (*Engine, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, kinds: map[string]*kind{}, live: map[string]*live{}, number: 1}
	e.wrote = sync.NewCond(&e.mu)
	e.book = book{owner: cfg.Owner, retain: cfg.Retain, sagas: map[string]*instance{}}
	for i := range cfg.Definitions {
		d := &cfg.Definitions[i]
		stages, err := d.check()
		if err != nil {
			return nil, fmt.Errorf("saga: Config.Definitions: %w", err)
		}
		if e.kinds[d.Name] != nil {
			return nil, fmt.Errorf("saga: Config.Definitions: %q twice", d.Name)
		}
		e.kinds[d.Name] = &kind{d.Name, stages, d.Timeout}
	}
	if err := cfg.Journal.Replay(e.replay); err != nil {
		return nil, fmt.Errorf("saga: replay: %w", err)
	}
	if err := e.checkKinds(); err != nil {
		return nil, err
	}
	e.book.read = true
	if err := cfg.Journal.Append(e.book.checkpoint().encode()); err != nil {
		return nil, fmt.Errorf("saga: journal: %w", err)
	}
	if err := cfg.Journal.Keep(1); err != nil {
		return nil, fmt.Errorf("saga: journal: %w", err)
	}
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(e.book.sagas)) {
		if in := e.book.sagas[id]; in.state == Running || in.state == Compensating {
			e.launchLocked(e.admitLocked(in), true)
		}
	}
	return e, nil
}

func (e *Engine) replay(p []byte) error {
	rec, err := decodeRecord(p)
	if err != nil {
		return fmt.Errorf("saga: record: %w", err)
	}
	return e.book.apply(&rec)
}

// checkKinds makes sure that every unfinished saga can go on.
func (e *Engine) checkKinds() error {
	for _, id := range slices.Sorted(maps.Keys(e.book.sagas)) {
		in := e.book.sagas[id]
		if in.state != Running && in.state != Compensating {
			continue
		}
		k := e.kinds[in.def]
		if k == nil {
			return fmt.Errorf("saga: %q is unfinished, and Config.Definitions lacks its %q", id, in.def)
		}
		names := k.names()
		for _, step := range in.left {
			if !slices.Contains(names, step) {
				return fmt.Errorf("saga: %q is unfinished, and Config.Definitions lacks step %q of its %q", id, step, in.def)
			}
		}
	}
	return nil
}

// admitLocked makes a saga known to Wait and Cancel; launchLocked or dismissLocked follows.
func (e *Engine) admitLocked(in *instance) *live {
	l := &live{in: in, ended: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancelCause(e.ctx)
	e.live[in.id] = l
	return l
}

// dismissLocked ends what was admitted. A stuck saga stays for Retry.
func (e *Engine) dismissLocked(l *live, stuck bool) {
	l.cancel(nil)
	if l.stuck = stuck; !stuck {
		delete(e.live, l.in.id)
	}
	close(l.ended)
}

// launchLocked sets a saga to work. One that is resumed may have had steps tried before.
func (e *Engine) launchLocked(l *live, resumed bool) {
	w := &worker{e: e, live: l, id: l.in.id, kind: e.kinds[l.in.def], input: l.in.input, resumed: resumed}
	if w.kind.timeout > 0 {
		w.deadline = l.in.begun.Add(w.kind.timeout)
	}
	compensating := l.in.state == Compensating
	e.work.Go(func() {
		stuck := w.run(compensating)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.dismissLocked(l, stuck)
	})
}

// commit applies a record and returns when it is durable. Of the goroutines that wait for a batch one writes it for all.
func (e *Engine) commit(rec *record) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.enterLocked(rec); err != nil {
		return err
	}
	return e.awaitLocked()
}

// enterLocked applies a record and puts it into the batch being gathered.
func (e *Engine) enterLocked(rec *record) error {
	if e.failed != nil {
		return e.failed
	}
	if err := e.book.apply(rec); err != nil {
		return err
	}
	e.pending = append(e.pending, rec.encode())
	return nil
}

// awaitLocked returns when everything entered so far is durable.
func (e *Engine) awaitLocked() error {
	mine := e.number
	if len(e.pending) == 0 {
		mine--
	}
	for e.written < mine && e.failed == nil {
		if e.busy {
			e.wrote.Wait()
			continue
		}
		e.writeLocked()
	}
	return e.failed
}

// writeLocked writes the batch being gathered, and a checkpoint behind it when it is time.
func (e *Engine) writeLocked() {
	batch, number, keep := e.pending, e.number, false
	e.pending, e.busy = nil, true
	e.number++
	e.records += len(batch)
	if e.records > checkpointAfter+8*len(e.book.sagas) {
		batch, keep, e.records = append(batch, e.book.checkpoint().encode()), true, 0
	}
	e.mu.Unlock()
	err := e.cfg.Journal.Append(batch...)
	if err == nil && keep {
		err = e.cfg.Journal.Keep(1)
	}
	e.mu.Lock()
	e.busy, e.written = false, number
	e.syncs.Add(1)
	if err != nil {
		e.failed = fmt.Errorf("saga: journal: %w", err)
		e.stop() // what cannot be noted must not be done
	}
	e.wrote.Broadcast()
}

// Begin notes a saga under an ID of the caller's choice and sets it to work. When it returns nil the saga will end, Done
// or Compensated, through any crash. An ID that was begun already, with the same definition and input, gives nil and
// begins nothing, also if its saga is over, as long as it is remembered (Config.Retain): so a Begin whose answer was lost
// is repeated.
//
// Errors: ErrUnknown for a definition that there is not, ErrExists, ErrTooLarge, coterie.ErrOverloaded,
// coterie.ErrClosed, that of ctx before anything was noted; an error of the journal, with coterie.ErrUnknownOutcome.
func (e *Engine) Begin(ctx context.Context, definition, id string, input []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	k := e.kinds[definition]
	switch {
	case k == nil:
		return fmt.Errorf("saga: definition %q: %w", definition, ErrUnknown)
	case len(input) > maxBlob:
		return fmt.Errorf("saga: input of %d bytes: %w", len(input), ErrTooLarge)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if in := e.book.sagas[id]; in != nil {
		if in.def != definition || !bytes.Equal(in.input, input) {
			return fmt.Errorf("saga: begin %q: %w", id, ErrExists)
		}
		return e.awaitLocked()
	}
	if e.closed || e.failed != nil {
		return fmt.Errorf("saga: begin %q: %w", id, e.endLocked())
	}
	if e.book.open() >= e.cfg.MaxOpen {
		return fmt.Errorf("saga: %d are unfinished: %w", e.book.open(), coterie.ErrOverloaded)
	}
	rec := &record{kind: recordBegin, id: id, def: definition, begun: time.Now().UnixNano(), steps: k.names(), blob: bytes.Clone(input)}
	if err := e.enterLocked(rec); err != nil {
		return err
	}
	l := e.admitLocked(e.book.sagas[id])
	if err := e.awaitLocked(); err != nil {
		e.dismissLocked(l, false)
		return fmt.Errorf("saga: begin %q: %w: %w", id, coterie.ErrUnknownOutcome, err)
	}
	if e.closed {
		e.dismissLocked(l, false)
		return nil // the next start goes on with it
	}
	e.launchLocked(l, false)
	return nil
}

// endLocked is why nothing can be begun.
func (e *Engine) endLocked() error {
	if e.failed != nil {
		return fmt.Errorf("%w: %w", coterie.ErrClosed, e.failed)
	}
	return coterie.ErrClosed
}

// Run begins a saga as Begin does and waits for its end as Wait does.
func (e *Engine) Run(ctx context.Context, definition, id string, input []byte) error {
	if err := e.Begin(ctx, definition, id, input); err != nil {
		return err
	}
	return e.Wait(ctx, id)
}

// Wait returns when a saga is over: nil if it is Done. Errors: a *CompensatedError (ErrCompensated), ErrStuck, ErrUnknown;
// coterie.ErrUnknownOutcome with that of ctx, or with coterie.ErrClosed if the engine stopped: the saga goes on, then or
// after the next start.
func (e *Engine) Wait(ctx context.Context, id string) error {
	e.mu.Lock()
	in, l := e.book.sagas[id], e.live[id]
	e.mu.Unlock()
	if in == nil {
		return fmt.Errorf("saga: %q: %w", id, ErrUnknown)
	}
	if l != nil { // else it is over, or the engine is
		select {
		case <-l.ended:
		case <-ctx.Done():
			return fmt.Errorf("saga: wait for %q: %w: %w", id, coterie.ErrUnknownOutcome, ctx.Err())
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.failed == nil && in.state == Done:
		return nil
	case e.failed == nil && in.state == Compensated:
		return &CompensatedError{in.id, in.failed, in.reason}
	case l != nil && l.stuck:
		return fmt.Errorf("saga: %q: %w: %s", id, ErrStuck, l.trouble)
	}
	return fmt.Errorf("saga: %q: %w: %w", id, coterie.ErrUnknownOutcome, e.endLocked())
}

// Cancel makes a running saga compensate, after the steps under way have returned; their ctx ends. One that compensates
// already goes on so. Errors: ErrUnknown, also for one that is over.
func (e *Engine) Cancel(id string, reason error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.live[id]
	if l == nil || l.stuck {
		return fmt.Errorf("saga: cancel %q: %w", id, ErrUnknown)
	}
	if reason == nil {
		reason = context.Canceled
	}
	l.cancel(fmt.Errorf("%w: %w", errCancelled, reason))
	return nil
}

// Retry tries the compensations of a saga that is Stuck again. Errors: ErrUnknown for one that is not, coterie.ErrClosed.
func (e *Engine) Retry(id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.live[id]
	switch {
	case e.closed || e.failed != nil:
		return fmt.Errorf("saga: retry %q: %w", id, e.endLocked())
	case l == nil || !l.stuck:
		return fmt.Errorf("saga: retry %q, which is not stuck: %w", id, ErrUnknown)
	}
	e.launchLocked(e.admitLocked(l.in), true)
	return nil
}

// Err returns why the engine stopped by itself: an error of the journal. nil if it did not.
func (e *Engine) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failed
}

// Close ends the ctx of the steps under way and waits for them; their sagas go on at the next Start. It returns Err.
// Closing twice is harmless.
func (e *Engine) Close() error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.stop()
	e.work.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.busy {
		e.wrote.Wait()
	}
	return e.failed
}
