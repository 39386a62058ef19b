package clock

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
)

// MaxTime is the greatest value that a clock takes over from elsewhere: a witnessed Lamport time, an entry of a
// decoded Vector, a decoded Timestamp. It is half of what 64 bits hold, so that a hostile or broken peer cannot bring
// a clock to where the next tick overflows; ticks alone do not get there in 292 years at one per nanosecond.
const MaxTime = math.MaxInt64

// ErrOverflow is returned for a time above MaxTime that came from elsewhere; the clock is as it was.
var ErrOverflow = errors.New("clock: time too close to the maximum")

// Lamport is a logical clock (Lamport, "Time, Clocks, and the Ordering of Events in a Distributed System", 1978):
// if event a happened before event b, the time of a is less than the time of b. The converse does not hold, so it
// orders events but cannot tell that two are concurrent: that takes a Vector.
//
// The paper's two rules map thus: before a local event or a send, Tick (IR1); on receipt of a message that carries
// time t, Witness(t) (IR2), whose result is the time of the receipt itself.
//
// The zero value is a clock at 0, ready to use. A Lamport is safe for concurrent use and must not be copied.
type Lamport struct {
	time atomic.Uint64
}

// Now returns the time of the newest event, 0 if there was none.
func (l *Lamport) Now() uint64 { return l.time.Load() }

// Tick counts one event and returns its time.
func (l *Lamport) Tick() uint64 { return l.time.Add(1) }

// Witness counts the receipt of a message sent at time t and returns the time of the receipt, which is after t and
// after all that this clock has counted. A t above MaxTime gives ErrOverflow and leaves the clock as it was.
func (l *Lamport) Witness(t uint64) (uint64, error) {
	if t > MaxTime {
		return 0, fmt.Errorf("witness %d: %w", t, ErrOverflow)
	}
	for {
		now := l.time.Load()
		if t <= now {
			// The receipt needs only its own tick, and Add cannot lose a race as the exchange below can.
			return l.time.Add(1), nil
		}
		if l.time.CompareAndSwap(now, t+1) {
			return t + 1, nil
		}
	}
}
