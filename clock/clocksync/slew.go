package clocksync

import "time"

// DefaultSlew is the rate at which NTP turns a clock: 500 microseconds a second, 128 ms in 4 minutes.
const DefaultSlew = 500e-6

// Slew turns a local clock by an offset gradually, at most MaxRate times as fast as time runs, so that its time never
// goes back and never jumps. A second of offset takes 33 minutes at the default rate: set the clock once at the start,
// before anything reads it, by an Adjust of a Slew that has not been read.
//
// The zero value is an untouched clock with the default rate. It is not safe for concurrent use.
type Slew struct {
	MaxRate float64 // seconds of offset a second, below 1; default 500e-6

	at           time.Time // when the offset was applied
	offset, goal time.Duration
	read         bool
}

// Adjust makes by, as measured on this clock at the local reading now, the offset still to be corrected; it replaces
// what is left of an earlier one.
func (s *Slew) Adjust(now time.Time, by time.Duration) {
	s.advance(now)
	s.goal = s.offset + by
	if !s.read {
		s.offset = s.goal
	}
}

// Read returns the corrected time at a local reading.
func (s *Slew) Read(now time.Time) time.Time {
	s.advance(now)
	s.read = true
	return now.Add(s.offset)
}

// Left returns how much of the offset is still to be corrected.
func (s *Slew) Left() time.Duration { return s.goal - s.offset }

func (s *Slew) advance(now time.Time) {
	elapsed := now.Sub(s.at)
	if s.at.IsZero() || elapsed < 0 {
		elapsed = 0
	} else if elapsed == 0 {
		return
	}
	rate := s.MaxRate
	if !(rate > 0 && rate < 1) {
		rate = DefaultSlew
	}
	most := time.Duration(float64(elapsed) * rate)
	s.offset += min(max(s.goal-s.offset, -most), most)
	// Time too short to turn by a nanosecond is not lost: it counts at the next call.
	if most > 0 || s.at.IsZero() || s.goal == s.offset {
		s.at = now
	}
}
