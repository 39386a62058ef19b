package clocksync

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coterie-go/coterie/clock"
)

// ErrNoMajority is returned when too few sources agree on a time.
var ErrNoMajority = errors.New("clocksync: no agreement among sources")

// Sample is what one exchange with a time server told.
type Sample struct {
	At     time.Time     // the local clock's reading when the answer came
	Offset time.Duration // to add to the local clock, as far as is known
	Delay  time.Duration // round trip, without the time spent at the server
	Error  time.Duration // the most by which Offset is off
}

// NewSample computes a Sample from the four times of an exchange: sent and got are readings of the local clock,
// received and answered of the server's, which states to be right to within dispersion (RFC 5905, §8).
func NewSample(sent, received, answered, got time.Time, dispersion time.Duration) (Sample, error) {
	delay := got.Sub(sent) - answered.Sub(received)
	if delay < 0 || got.Before(sent) || answered.Before(received) || dispersion < 0 || dispersion > maxOffset {
		return Sample{}, fmt.Errorf("clocksync: impossible exchange: %v here, %v at the server, dispersion %v",
			got.Sub(sent), answered.Sub(received), dispersion)
	}
	// Halves of each difference: the sum of two offsets of centuries would overflow.
	there, back := received.Sub(sent), answered.Sub(got)
	return Sample{At: got, Offset: there/2 + back/2, Delay: delay, Error: delay/2 + dispersion + 1}, nil
}

// Interval returns the span that true time lay in when the local clock read At: what IntervalClock.Sync takes.
func (s Sample) Interval() clock.Interval {
	mid := s.At.Add(s.Offset)
	return clock.Interval{Earliest: mid.Add(-s.Error), Latest: mid.Add(s.Error)}
}

// edge is an end of an interval, in nanoseconds from some origin.
type edge struct {
	at    time.Duration
	delta int // +1 begins, -1 ends
}

// Marzullo returns the span of all times that lie in at least len(intervals)-faulty of the intervals (Marzullo and
// Owicki, "Maintaining the Time in a Distributed System", 1983). If no more than faulty of the intervals do not contain
// the true time, the span contains it. ErrNoMajority says that no time lies in so many.
func Marzullo(intervals []clock.Interval, faulty int) (clock.Interval, error) {
	if faulty < 0 || faulty >= len(intervals) {
		return clock.Interval{}, fmt.Errorf("clocksync: %d faulty of %d intervals", faulty, len(intervals))
	}
	origin := intervals[0].Earliest
	edges := make([]edge, 0, 2*len(intervals))
	for _, i := range intervals {
		if i.Latest.Before(i.Earliest) {
			return clock.Interval{}, fmt.Errorf("clocksync: interval ends before it begins: %v", i)
		}
		edges = append(edges, edge{i.Earliest.Sub(origin), 1}, edge{i.Latest.Sub(origin), -1})
	}
	low, high, ok := span(edges, len(intervals)-faulty)
	if !ok {
		return clock.Interval{}, fmt.Errorf("%w: of %d intervals, no %d intersect",
			ErrNoMajority, len(intervals), len(intervals)-faulty)
	}
	return clock.Interval{Earliest: origin.Add(low), Latest: origin.Add(high)}, nil
}

// span returns the first and the last point covered at least need times. Intervals are closed: one that ends where
// another begins shares that point.
func span(edges []edge, need int) (low, high time.Duration, ok bool) {
	slices.SortFunc(edges, func(a, b edge) int {
		return cmp.Or(cmp.Compare(a.at, b.at), b.delta-a.delta)
	})
	depth := 0
	for _, e := range edges {
		if e.delta > 0 {
			if depth++; depth == need && !ok {
				low, ok = e.at, true
			}
			continue
		}
		if depth == need {
			high = e.at
		}
		depth--
	}
	return low, high, ok
}
