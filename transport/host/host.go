// Package host runs a coterie.Core for real: on one goroutine, by real time, over a Transport and a Journal. Use it
// under every protocol that goes to production; transport/sim runs the same Core, unchanged, in virtual time.
//
// A Host repeats one round for ever. It waits for messages, calls or the wake time (rounded up to a 10 ms grid, so
// that the timers of many hosts fire together); takes the whole inbox; then reads the clock, once; steps the core's mail to
// itself, then messages and calls in order; ticks if it is time; and calls Ready. Then it performs the effects: Early
// sends leave; what is to be saved is appended to the journal with one sync; Keep is passed on; the other sends
// leave, those to the node itself to the front of the next round; the events go to the handler.
//
// Guarantees: no message but an Early one and no event leaves before what its round saves is durable; group commit,
// for one sync serves all that a round brought; a message to oneself is never dropped. A Host is synchronous on
// purpose: while a disk stalls, the node's heartbeats stall too, and its peers choose another leader.
//
// Fault model: a journal that returns an error, and a core or handler that panics, stop the host for good (fail-stop,
// told by Err and Done). Malformed messages are counted and logged and change nothing. A full inbox drops the newest
// message of a peer, counted; a local caller waits instead.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
)

// ErrJournalStuck is returned by Close when a sync has hung for longer than Config.CloseTimeout. The host's goroutine
// is left behind; it ends, and does nothing more, if the sync ever returns. The disk needs attention.
var ErrJournalStuck = errors.New("host: journal stuck in a sync")

// Config tells a Host what to run a core on.
type Config struct {
	Transport coterie.Transport // required; the host calls its Receive, and does not close it
	Journal   coterie.Journal   // what the core saves goes here; not closed by the host; nil for a core that saves nothing
	// Handle gets the core's events, on the host's goroutine: it must not block, and may not call Do or Close. nil drops
	// them.
	Handle func(now time.Time, event any)
	// Check, if set, sees each message before the core does, on a goroutine of its sender's, order kept; an error drops
	// the message and counts it. It is the place for signatures, and must be safe for concurrent use.
	Check        func(from coterie.NodeID, payload []byte) error
	Log          *slog.Logger  // malformed input and the end of the host; default silent
	InboxBytes   int           // payload bytes that may wait; default 64 MiB
	InboxCount   int           // messages that may wait, and calls beside them; default 65,536
	CloseTimeout time.Duration // how long Close bears with one hung sync; default 10 s
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.InboxBytes == 0 {
		c.InboxBytes = 64 << 20
	}
	if c.InboxCount == 0 {
		c.InboxCount = 1 << 16
	}
	if c.CloseTimeout == 0 {
		c.CloseTimeout = 10 * time.Second
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Transport == nil:
		return errors.New("host: Config.Transport is required")
	case c.InboxBytes < 0:
		return errors.New("host: Config.InboxBytes is negative")
	case c.InboxCount < 0:
		return errors.New("host: Config.InboxCount is negative")
	case c.CloseTimeout < 0:
		return errors.New("host: Config.CloseTimeout is negative")
	}
	return nil
}

// Host runs one core. It owns one goroutine, and while messages wait for Check one more for each of their senders;
// all have ended when Close returns nil. Its methods are safe for concurrent use.
type Host[C coterie.Core] struct {
	core C
	cfg  Config
	id   coterie.NodeID

	in    *inbox[C]
	close sync.Once
	stop  chan struct{} // closed by Close
	done  chan struct{} // closed when the goroutine has ended
	err   error         // why it ended by itself; written before done is closed

	// Of the goroutine alone.
	batch []item[C]   // what this round took
	self  [][]byte    // mail to oneself, for the next round
	wake  time.Time   // when to tick
	timer *time.Timer // fires at or before wake, rounded up
	armed time.Time   // when timer fires; zero if it does not
	input input       // what is under way, for a panic

	syncing atomic.Int64 // UnixNano of the start of the Append under way; 0 if none
	stuck   atomic.Bool  // Close has given up on it
	metrics metrics
}

// Start replays the journal into the core and runs it until Close or until it fails. The core is the host's from now
// on. Start returns an error if the Config is wrong or a record cannot be replayed.
func Start[C coterie.Core](core C, cfg Config) (*Host[C], error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	h := &Host[C]{
		core: core,
		cfg:  cfg,
		id:   cfg.Transport.LocalID(),
		stop: make(chan struct{}),
		done: make(chan struct{}),
	}
	h.in = newInbox(h)
	if err := h.replay(); err != nil {
		return nil, err
	}
	cfg.Transport.Receive(h.in.receive)
	go h.run()
	return h, nil
}

func (h *Host[C]) replay() (err error) {
	if h.cfg.Journal == nil {
		return nil
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("host: replay on %s: %w", h.id, newPanicError(r, "a journal record"))
		}
	}()
	if err := h.cfg.Journal.Replay(h.core.Replay); err != nil {
		return fmt.Errorf("host: replay on %s: %w", h.id, err)
	}
	return nil
}

// Do runs f with the core between two of its steps and waits for f to return. It waits for a place in the inbox as
// long as ctx allows. The error is ctx.Err() or ErrClosed (wrapped) only if f has not run and never will; once f has
// begun Do waits for it (if f panics, the host stops, and Do returns ErrClosed too). What f made the core do takes effect after Do may have returned. f must not block, and may
// not call Do or Close.
func (h *Host[C]) Do(ctx context.Context, f func(now time.Time, core C)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &call[C]{run: f, done: make(chan struct{})}
	select {
	case h.in.places <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-h.stop:
		return h.closedError()
	case <-h.done:
		return h.closedError()
	}
	if !h.in.put(item[C]{call: c}) {
		<-h.in.places
		return h.closedError()
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if c.state.CompareAndSwap(callWaiting, callGivenUp) {
			return ctx.Err()
		}
		<-c.done
	}
	if c.state.Load() != callRan {
		return h.closedError()
	}
	return nil
}

// Post runs f with the core as Do does, and does not wait: neither for f, nor for a place in the inbox, so that the
// caller bounds how many of his are under way. It may be called from anywhere, f and Config.Handle included. The error
// is ErrClosed (wrapped) if f will never run; nil if it will, unless the host ends first.
func (h *Host[C]) Post(f func(now time.Time, core C)) error {
	if !h.in.put(item[C]{post: f}) {
		return h.closedError()
	}
	return nil
}

// Err tells why the host stopped by itself: a journal's error, or a *PanicError. It is nil while the host runs and
// after a Close.
func (h *Host[C]) Err() error {
	select {
	case <-h.done:
		return h.err
	default:
		return nil
	}
}

// Done is closed when the host has stopped, by Close or by itself.
func (h *Host[C]) Done() <-chan struct{} { return h.done }

// Close stops the host after the round under way, takes its handler off the transport and waits for its goroutines.
// Calls that have not begun get ErrClosed. It returns Err, or ErrJournalStuck if it could not wait. Closing twice is
// harmless.
func (h *Host[C]) Close() error {
	h.close.Do(func() {
		close(h.stop)
		h.cfg.Transport.Receive(nil)
	})
	for {
		wait := h.cfg.CloseTimeout
		if since := h.syncing.Load(); since != 0 {
			wait -= time.Since(time.Unix(0, since))
			if wait <= 0 {
				h.stuck.Store(true)
				return fmt.Errorf("%w for %v", ErrJournalStuck, h.cfg.CloseTimeout)
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-h.done:
			timer.Stop()
			h.in.checks.Wait()
			return h.err
		case <-timer.C:
		}
	}
}

func (h *Host[C]) closedError() error {
	if err := h.Err(); err != nil {
		return fmt.Errorf("%w: %w", coterie.ErrClosed, err)
	}
	return coterie.ErrClosed
}

// run is the host's goroutine.
func (h *Host[C]) run() {
	h.timer = time.NewTimer(time.Hour)
	h.timer.Stop()
	err := h.rounds()
	h.timer.Stop()
	h.err = err
	if err != nil {
		h.cfg.Log.Error("host stopped", "node", h.id, "err", err)
	}
	left := h.in.end()
	close(h.done)
	abandon(h.batch)
	abandon(left)
}

// rounds runs until Close or a failure. The first round is the tick that follows Replay.
func (h *Host[C]) rounds() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = newPanicError(r, h.input.String())
		}
	}()
	now := time.Now()
	h.input = input{what: "Tick"}
	h.core.Tick(now)
	for {
		h.input = input{what: "Ready"}
		ready := h.core.Ready()
		if err := h.perform(now, ready); err != nil {
			return err
		}
		h.wake = ready.Wake
		if !h.wait() {
			return nil
		}
		// First the inbox, then the clock: a pause between the two must not let a call run at a time before it was made,
		// when a lease still held that has ended since.
		h.batch = h.in.take(h.batch)
		now = time.Now()
		h.step(now)
	}
}

// step gives the core all that has come.
func (h *Host[C]) step(now time.Time) {
	var steps, malformed uint64
	for i, payload := range h.self {
		if !h.stepOne(now, h.id, payload) {
			malformed++
		}
		h.self[i] = nil
		steps++
	}
	h.self = h.self[:0]
	for i := range h.batch {
		it := &h.batch[i]
		switch {
		case it.post != nil:
			h.input = input{what: "a posted call"}
			it.post(now, h.core)
		case it.call != nil:
			h.input = input{what: "a call"}
			h.in.runCall(now, it.call)
		default:
			if !h.stepOne(now, it.from, it.payload) {
				malformed++
			}
			steps++
		}
		*it = item[C]{}
	}
	if !h.wake.IsZero() && !now.Before(h.wake) {
		h.input = input{what: "Tick"}
		h.core.Tick(now)
		h.metrics.ticks.Add(1)
	}
	h.metrics.rounds.Add(1)
	h.metrics.steps.Add(steps)
	if malformed > 0 {
		h.metrics.malformed.Add(malformed)
	}
}

// stepOne gives the core one message; false if it is malformed.
func (h *Host[C]) stepOne(now time.Time, from coterie.NodeID, payload []byte) bool {
	h.input = input{what: "a message", from: from, payload: payload}
	if err := h.core.Step(now, from, payload); err != nil {
		h.cfg.Log.Warn("malformed message", "node", h.id, "from", from, "err", err)
		return false
	}
	return true
}

// perform carries out a round's effects, in the order that makes save-before-send hold.
func (h *Host[C]) perform(now time.Time, ready coterie.Ready) error {
	early := 0
	for i := range ready.Send {
		if e := &ready.Send[i]; e.Early {
			h.send(e)
			early++
		}
	}
	if len(ready.Save) > 0 {
		if err := h.save(now, ready.Save); err != nil {
			return err
		}
	}
	if ready.Keep > 0 && h.cfg.Journal != nil {
		if err := h.cfg.Journal.Keep(ready.Keep); err != nil {
			return fmt.Errorf("host: journal of %s: %w", h.id, err)
		}
	}
	if early < len(ready.Send) {
		for i := range ready.Send {
			if e := &ready.Send[i]; !e.Early {
				h.send(e)
			}
		}
	}
	if h.cfg.Handle != nil {
		h.input = input{what: "an event, in Config.Handle"}
		for _, event := range ready.Events {
			h.cfg.Handle(now, event)
		}
	}
	return nil
}

func (h *Host[C]) save(now time.Time, records [][]byte) error {
	if h.cfg.Journal == nil {
		return fmt.Errorf("host: core of %s saves records, but Config.Journal is nil", h.id)
	}
	h.syncing.Store(now.UnixNano())
	err := h.cfg.Journal.Append(records...)
	h.syncing.Store(0)
	if err != nil {
		return fmt.Errorf("host: journal of %s: %w", h.id, err)
	}
	if h.stuck.Load() {
		return fmt.Errorf("host: journal of %s: %w", h.id, ErrJournalStuck)
	}
	h.metrics.syncs.Add(1)
	h.metrics.records.Add(uint64(len(records)))
	return nil
}

func (h *Host[C]) send(e *coterie.Envelope) {
	if e.To == h.id {
		h.self = append(h.self, e.Payload)
		return
	}
	h.metrics.sent.Add(1)
	if err := h.cfg.Transport.Send(e.To, e.Payload); err != nil {
		h.metrics.unsendable.Add(1)
		h.cfg.Log.Debug("cannot send", "node", h.id, "to", e.To, "err", err)
	}
}

// grid is what wake times are rounded up to. Rounding by wall time makes the grids of all hosts of a machine one.
const grid = 10 * time.Millisecond

func roundUp(t time.Time) time.Time {
	if over := t.UnixNano() % int64(grid); over > 0 {
		return t.Add(grid - time.Duration(over))
	}
	return t
}

// wait returns when there is something to do, false if it is to end.
func (h *Host[C]) wait() bool {
	for {
		select {
		case <-h.stop:
			return false
		default:
		}
		if len(h.self) > 0 || !h.in.sleep() {
			return true
		}
		h.arm()
		select {
		case <-h.in.signal:
			return true
		case <-h.stop:
			return false
		case <-h.timer.C:
			h.armed = time.Time{}
			if !h.wake.IsZero() && !time.Now().Before(h.wake) {
				return true
			}
		}
	}
}

// arm makes the timer fire in time for wake. A timer that fires too early costs less than moving it in each round,
// as a wake time that every message pushes back would.
func (h *Host[C]) arm() {
	if h.wake.IsZero() {
		return
	}
	at := roundUp(h.wake)
	if !h.armed.IsZero() && !at.Before(h.armed) {
		return
	}
	h.armed = at
	h.timer.Reset(time.Until(at))
}
