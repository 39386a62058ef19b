package consistency

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Recorder writes down what concurrent clients see, as a History. Invoke before the call leaves, Return after its
// answer came: an operation's interval then covers the moment at which it took effect. The zero value is ready to
// use, with wall time. Every method is safe for concurrent use.
type Recorder[In, Out any] struct {
	// Now is the clock, by default time.Now; in a simulation, the simulated one. Set it before the first Invoke.
	// Events that it gives one time are told apart by a nanosecond, in the order in which they were recorded.
	Now func() time.Time

	mu    sync.Mutex
	start time.Time     // guarded by mu: of the first Invoke
	last  time.Duration // guarded by mu: of the newest event
	ops   []recorded[In, Out]
}

// recorded is an operation and how far it is.
type recorded[In, Out any] struct {
	Operation[In, Out]
	phase phase
}

type phase uint8

const (
	pending phase = iota
	returned
	lost
	failed
)

// Invoke records that a client calls, and returns the operation's number for Return, Unknown or Fail.
func (r *Recorder[In, Out]) Invoke(client int, in In) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, recorded[In, Out]{Operation: Operation[In, Out]{Client: client, In: in, Call: r.tick()}})
	return len(r.ops) - 1
}

// Return records the answer to an operation.
func (r *Recorder[In, Out]) Return(op int, out Out) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.finish(op, returned)
	o.Out, o.Return = out, r.tick()
}

// Unknown records that nobody will know the outcome of an operation: the client crashed, or its wait ended. It may
// still happen at any later time. The client may go on to its next operation.
func (r *Recorder[In, Out]) Unknown(op int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finish(op, lost)
}

// Fail records that an operation certainly did not and will not happen; it leaves no trace in the history.
func (r *Recorder[In, Out]) Fail(op int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finish(op, failed)
}

// History returns a copy of what was recorded so far, sorted by call. Operations under way are of unknown outcome.
func (r *Recorder[In, Out]) History() History[In, Out] {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := make(History[In, Out], 0, len(r.ops))
	for _, o := range r.ops {
		if o.phase == failed {
			continue
		}
		o.Unknown = o.phase != returned
		h = append(h, o.Operation)
	}
	return slices.Clip(h)
}

// finish ends an operation that is under way. To end one twice is a bug of the caller, which would make the history
// a lie: it panics.
func (r *Recorder[In, Out]) finish(op int, p phase) *recorded[In, Out] {
	if op < 0 || op >= len(r.ops) {
		panic(fmt.Sprintf("consistency: Recorder has no operation %d", op))
	}
	o := &r.ops[op]
	if o.phase != pending {
		panic(fmt.Sprintf("consistency: Recorder: operation %d ended twice", op))
	}
	o.phase = p
	return o
}

// tick returns the time of a new event, later than that of any other.
func (r *Recorder[In, Out]) tick() time.Duration {
	now := r.Now
	if now == nil {
		now = time.Now
	}
	t := now()
	if r.start.IsZero() {
		r.start = t
		r.last = -1
	}
	r.last = max(r.last+1, t.Sub(r.start))
	return r.last
}
