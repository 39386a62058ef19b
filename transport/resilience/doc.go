// Package resilience keeps trouble from spreading: limiters of rate and of concurrency, circuit breakers, bulkheads,
// retries within a budget, time limits, fallbacks, and shedding of load by priority.
//
// Each is a small type of its own, used by one or two calls around the work; a Policy puts several around a function.
// On success none allocates. Use them around calls to other services, and at the entrance of a server. Package rpc has
// the retries, hedges and budget that a call needs: do not stack a second Retry on it. For policies that are put
// together from many parts at run time, with event listeners, hedging, caching, HTTP and gRPC adapters, failsafe-go
// (github.com/failsafe-go/failsafe-go) is the better choice; here there is less, and it costs less.
//
// Who is refused gets an error that is coterie.ErrOverloaded: the work was not begun. Every type takes its time from
// Config.Now, so that tests need not wait. Every method is safe for concurrent use.
//
// Sources: the token bucket is the generic cell rate algorithm (ITU-T I.371); the breaker is that of Nygard, Release
// It!, 2nd edition, 2018, section 5.2; the adaptive limit follows TCP Vegas (Brakmo, O'Malley and Peterson, 1994) and
// additive increase, multiplicative decrease (Chiu and Jain, 1989); the retry budget and load shedding by criticality
// are those of Beyer et al., Site Reliability Engineering, 2016, chapters 21 and 22.
package resilience

import (
	"errors"
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
)

// Errors of those who are refused. Each is coterie.ErrOverloaded: nothing was done.
var (
	// ErrLimited is returned when a limit of rate or concurrency is reached. Retry later, with backoff.
	ErrLimited = fmt.Errorf("resilience: over the limit: %w", coterie.ErrOverloaded)
	// ErrOpen is returned by a Breaker that is open: the peer fails. Use another, or retry after BreakerConfig.OpenFor.
	ErrOpen = fmt.Errorf("resilience: circuit open: %w", coterie.ErrOverloaded)
	// ErrFull is returned by a Bulkhead whose slots and queue are full.
	ErrFull = fmt.Errorf("resilience: bulkhead full: %w", coterie.ErrOverloaded)
	// ErrShed is returned by a Shedder that is too busy for work of that priority.
	ErrShed = fmt.Errorf("resilience: load shed: %w", coterie.ErrOverloaded)
)

// stopwatch tells the time since it was made. The wall clock is not read, which halves what asking costs.
type stopwatch struct {
	now  func() time.Time // nil for time.Now
	base time.Time
}

func newStopwatch(now func() time.Time) stopwatch {
	if now == nil {
		return stopwatch{base: time.Now()}
	}
	return stopwatch{now: now, base: now()}
}

func (s *stopwatch) elapsed() time.Duration {
	if s.now == nil {
		return time.Since(s.base)
	}
	return s.now().Sub(s.base)
}

// field is a number of a config and what it must be in.
type field struct {
	name     string
	value    float64
	min, max float64
}

// validate names the fields that are out of their range; not-a-number is out of any.
func validate(config string, fields []field) error {
	var errs []error
	for _, f := range fields {
		if !(f.value >= f.min && f.value <= f.max) {
			errs = append(errs, fmt.Errorf("resilience: %s.%s is %v, not %v to %v", config, f.name, f.value, f.min, f.max))
		}
	}
	return errors.Join(errs...)
}
