package clock

import (
	"fmt"
	"sync/atomic"
	"time"
)

// HLCMetrics counts what a hybrid clock has seen of skew.
type HLCMetrics struct {
	Updates       uint64        // timestamps that Update was given
	Rejected      uint64        // of these, refused for being over MaxOffset ahead
	Ahead         uint64        // of these, ahead of the wall clock but accepted
	MaxAhead      time.Duration // the furthest that any was ahead, refused ones included
	Behind        uint64        // calls of Now that found the wall clock a millisecond or more behind
	MaxBehind     time.Duration // the furthest that it was behind: received skew, steps back, a restart's Window
	PersistErrors uint64        // calls of Persist that failed
}

// skew holds the counters of HLCMetrics. What every Now would have to write is not counted: a shared counter costs as
// much as the clock itself.
type skew struct {
	updates, rejected, ahead, behindCount, persistErrors atomic.Uint64
	maxAhead, maxBehind                                  atomic.Int64
}

func (s *skew) metrics() HLCMetrics {
	return HLCMetrics{
		Updates:       s.updates.Load(),
		Rejected:      s.rejected.Load(),
		Ahead:         s.ahead.Load(),
		MaxAhead:      time.Duration(s.maxAhead.Load()),
		Behind:        s.behindCount.Load(),
		MaxBehind:     time.Duration(s.maxBehind.Load()),
		PersistErrors: s.persistErrors.Load(),
	}
}

// check judges a received wall time by one's own, both in nanoseconds since 1970.
func (s *skew) check(remote, wall uint64, limit time.Duration) error {
	s.updates.Add(1)
	if remote <= wall {
		return nil
	}
	offset := time.Duration(min(remote-wall, MaxTime))
	raise(&s.maxAhead, int64(offset))
	if offset > limit || remote > MaxTime {
		s.rejected.Add(1)
		return fmt.Errorf("%w: by %v, more than the allowed %v", ErrOffset, offset, limit)
	}
	s.ahead.Add(1)
	return nil
}

// behind counts that the wall clock was behind the newest timestamp.
func (s *skew) behind(last, wall uint64) {
	by := int64(min(last-wall, MaxTime))
	if by < int64(time.Millisecond) {
		return // concurrent calls that read the wall clock in another order than they were counted in
	}
	s.behindCount.Add(1)
	raise(&s.maxBehind, by)
}

// raise makes v at least n.
func raise(v *atomic.Int64, n int64) {
	for {
		old := v.Load()
		if n <= old || v.CompareAndSwap(old, n) {
			return
		}
	}
}
