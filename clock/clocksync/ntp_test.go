package clocksync

import (
	"encoding/hex"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/internal/testsize"
)

func check(t *testing.T, prop func(*rapid.T)) {
	t.Helper()
	testsize.Checks(t, 1000, 100_000)
	rapid.Check(t, prop)
}

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// The packet's layout is RFC 5905's figure 8; these bytes pin it.
func TestPacketGolden(t *testing.T) {
	p := Packet{Leap: 1, Version: 4, Mode: ModeServer, Stratum: 2, Poll: 6, Precision: -20, RootDelay: 0x10000,
		RootDispersion: 0x8000, ReferenceID: [4]byte{'G', 'P', 'S'}, Reference: 1, Origin: 2, Receive: 3,
		Transmit: NTPTimeOf(time.Unix(0, 500_000_000))}
	b, err := p.MarshalBinary()
	require.NoError(t, err)
	require.Equal(t, "640206ec"+"00010000"+"00008000"+"47505300"+"0000000000000001"+"0000000000000002"+
		"0000000000000003"+"83aa7e8080000000", hex.EncodeToString(b))
	var got Packet
	require.NoError(t, got.UnmarshalBinary(append(b, 1, 2, 3, 4)))
	require.Equal(t, p, got)
	require.Equal(t, time.Second, p.RootDelay.Duration())
	require.Equal(t, p.RootDispersion, NTPShortOf(500*time.Millisecond))
	_, err = Packet{Mode: 8}.MarshalBinary()
	require.Error(t, err)
	for _, bad := range [][]byte{nil, b[:47], append(slices.Clone(b), 1), make([]byte, 48)} {
		require.Error(t, got.UnmarshalBinary(bad))
		require.Equal(t, p, got)
	}
}

// Times survive the conversion also beyond 2036, when NTP's seconds begin anew.
func TestNTPTimeRoundTripsAcrossEras(t *testing.T) {
	check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(0, 8e9).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns"))
		pivot := at.Add(time.Duration(rapid.Int64Range(-2e18, 2e18).Draw(t, "off")))
		require.True(t, NTPTimeOf(at).Near(pivot).Equal(at))
	})
}

func FuzzPacketUnmarshal(f *testing.F) {
	f.Add(make([]byte, 48))
	f.Add(append([]byte{0x24, 2}, make([]byte, 46)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Packet
		if p.UnmarshalBinary(b) != nil {
			require.Equal(t, Packet{}, p)
			return
		}
		again, err := p.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, b[:packetSize], again)
	})
}

func mustAssociation(t require.TestingT) *Association {
	a, err := NewAssociation(7)
	require.NoError(t, err)
	return a
}

// answerTo is a good server's packet for a request, at the server's times.
func answerTo(t require.TestingT, request []byte, received, answered time.Time) Packet {
	var p Packet
	require.NoError(t, p.UnmarshalBinary(request))
	answer := p.Answer(received, answered)
	answer.Stratum, answer.Precision = 1, -30
	return answer
}

func encoded(t require.TestingT, p Packet) []byte {
	b, err := p.MarshalBinary()
	require.NoError(t, err)
	return b
}

func TestAssociationComputesOffsetAndDelay(t *testing.T) {
	a := mustAssociation(t)
	p := answerTo(t, a.Request(epoch), epoch.Add(time.Hour+10*time.Millisecond), epoch.Add(time.Hour+11*time.Millisecond))
	s, err := a.Receive(epoch.Add(21*time.Millisecond), encoded(t, p))
	require.NoError(t, err)
	require.InDelta(t, time.Hour, s.Offset, 10)
	require.InDelta(t, 20*time.Millisecond, s.Delay, 10)
	require.InDelta(t, 10*time.Millisecond, s.Error, 20)
	require.True(t, s.Interval().Contains(epoch.Add(time.Hour+21*time.Millisecond)))
}

func TestAssociationRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Packet){
		"bogus origin":   func(p *Packet) { p.Origin++ },
		"not a server":   func(p *Packet) { p.Mode = ModeClient },
		"kiss":           func(p *Packet) { p.Stratum, p.ReferenceID = 0, [4]byte{'R', 'A', 'T', 'E'} },
		"no leap":        func(p *Packet) { p.Leap = LeapUnknown },
		"stratum 16":     func(p *Packet) { p.Stratum = 16 },
		"far from root":  func(p *Packet) { p.RootDispersion = NTPShortOf(2 * time.Second) },
		"no time":        func(p *Packet) { p.Transmit = 0 },
		"goes back":      func(p *Packet) { p.Receive, p.Transmit = p.Transmit, p.Receive },
		"longer than it": func(p *Packet) { p.Transmit = NTPTimeOf(epoch.Add(time.Second)) },
	} {
		t.Run(name, func(t *testing.T) {
			a := mustAssociation(t)
			p := answerTo(t, a.Request(epoch), epoch.Add(time.Millisecond), epoch.Add(2*time.Millisecond))
			good := p
			spoil(&p)
			now := epoch.Add(3 * time.Millisecond)
			_, err := a.Receive(now, encoded(t, p))
			require.Error(t, err)
			_, ok := a.Best(now)
			require.False(t, ok)
			_, err = a.Receive(now, encoded(t, good))
			if name == "kiss" {
				require.ErrorIs(t, err, ErrBogus)
				return
			}
			require.NoError(t, err)
			_, err = a.Receive(now, encoded(t, good))
			require.ErrorIs(t, err, ErrBogus, "a repeated answer")
		})
	}
	a := mustAssociation(t)
	_, err := a.Receive(epoch, []byte("short"))
	require.Error(t, err)
	old := a.Request(epoch)
	a.Request(epoch.Add(time.Second))
	_, err = a.Receive(epoch.Add(time.Second), encoded(t, answerTo(t, old, epoch, epoch)))
	require.ErrorIs(t, err, ErrBogus, "an answer to a request given up")
	_, err = NewAssociation(0)
	require.Error(t, err)
}

// Whatever the delay is, and however asymmetric, the sample's interval holds the true time; the filter picks the one
// with the least error, and forgets after eight.
func TestAssociationIntervalsContainTrueTime(t *testing.T) {
	check(t, func(t *rapid.T) {
		a := mustAssociation(t)
		offset := time.Duration(rapid.Int64Range(-1e15, 1e15).Draw(t, "offset")) // of true time from local time
		local := epoch
		var delays []time.Duration
		for range rapid.IntRange(1, 12).Draw(t, "exchanges") {
			there := time.Duration(rapid.Int64Range(0, 1e9).Draw(t, "there"))
			stay := time.Duration(rapid.Int64Range(0, 1e6).Draw(t, "stay"))
			back := time.Duration(rapid.Int64Range(0, 1e9).Draw(t, "back"))
			request := a.Request(local)
			received := local.Add(there + offset)
			local = local.Add(there + stay + back)
			s, err := a.Receive(local, encoded(t, answerTo(t, request, received, received.Add(stay))))
			require.NoError(t, err)
			require.True(t, s.Interval().Contains(local.Add(offset)))
			delays = append(delays, there+back)
		}
		best, ok := a.Best(local)
		require.True(t, ok)
		require.InDelta(t, slices.Min(delays[max(0, len(delays)-8):]), best.Delay, 1e6)
	})
}

// One lying server of four, whatever it says: the combined offset is within its error of the truth, and so is
// Marzullo's span.
func TestOneLyingServerOfFour(t *testing.T) {
	check(t, func(t *rapid.T) {
		truth := time.Duration(rapid.Int64Range(-1e12, 1e12).Draw(t, "truth"))
		samples := make([]Sample, 4)
		intervals := make([]clock.Interval, 4)
		liar := rapid.IntRange(0, 3).Draw(t, "liar")
		for i := range samples {
			margin := rapid.Int64Range(1, 1e8).Draw(t, "error")
			off := rapid.Int64Range(-margin, margin).Draw(t, "off")
			if i == liar {
				off = rapid.Int64Range(-1e9, 1e9).Draw(t, "lie")
			}
			samples[i] = Sample{At: epoch, Offset: truth + time.Duration(off), Error: time.Duration(margin)}
			intervals[i] = samples[i].Interval()
		}
		span, err := Marzullo(intervals, 1)
		require.NoError(t, err)
		require.True(t, span.Contains(epoch.Add(truth)))
		// The liar may make the majority's intervals miss each other's middles, then nobody is believed.
		e, err := Select(samples)
		if err != nil {
			require.ErrorIs(t, err, ErrNoMajority)
			return
		}
		require.GreaterOrEqual(t, len(e.Truechimers), 3)
		require.Len(t, samples, len(e.Truechimers)+len(e.Falsetickers))
		if slices.Contains(e.Falsetickers, liar) {
			require.LessOrEqual(t, (e.Offset - truth).Abs(), e.Error)
		}
	})
}

func TestSelectRejectsTheFalseticker(t *testing.T) {
	ms := time.Millisecond
	e, err := Select([]Sample{{Offset: 10 * ms, Error: 5 * ms}, {Offset: 500 * ms, Error: ms}, {Offset: 12 * ms, Error: 5 * ms}, {Offset: 11 * ms, Error: ms}})
	require.NoError(t, err)
	require.Equal(t, []int{0, 2, 3}, e.Truechimers)
	require.Equal(t, []int{1}, e.Falsetickers)
	require.InDelta(t, 11*ms, e.Offset, float64(ms)/2)
	for _, apart := range [][]Sample{nil, {{Offset: 0, Error: ms}, {Offset: time.Second, Error: ms}},
		{{Offset: 0, Error: ms}, {Offset: 3 * ms, Error: ms}, {Offset: 6 * ms, Error: ms}}} {
		_, err = Select(apart)
		require.ErrorIs(t, err, ErrNoMajority)
	}
}

// Marzullo's span against the definition, by trying every point.
func TestMarzulloIsTheDefinition(t *testing.T) {
	check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "n")
		faulty := rapid.IntRange(0, n-1).Draw(t, "faulty")
		intervals := make([]clock.Interval, n)
		for i := range intervals {
			from := rapid.IntRange(0, 20).Draw(t, "from")
			intervals[i] = clock.Interval{Earliest: epoch.Add(time.Duration(from)),
				Latest: epoch.Add(time.Duration(from + rapid.IntRange(0, 10).Draw(t, "width")))}
		}
		low, high := -1, -1
		for at := range 40 {
			in := 0
			for _, i := range intervals {
				if i.Contains(epoch.Add(time.Duration(at))) {
					in++
				}
			}
			if in >= n-faulty {
				if low < 0 {
					low = at
				}
				high = at
			}
		}
		got, err := Marzullo(intervals, faulty)
		if low < 0 {
			require.ErrorIs(t, err, ErrNoMajority)
			return
		}
		require.NoError(t, err)
		require.Equal(t, clock.Interval{Earliest: epoch.Add(time.Duration(low)), Latest: epoch.Add(time.Duration(high))}, got)
	})
	_, err := Marzullo(nil, 0)
	require.Error(t, err)
	_, err = Marzullo([]clock.Interval{{Earliest: epoch.Add(1), Latest: epoch}}, 0)
	require.Error(t, err)
}

func TestSlewNeverStepsAndArrives(t *testing.T) {
	check(t, func(t *rapid.T) {
		s := Slew{MaxRate: 0.01}
		local := epoch
		last := s.Read(local)
		t.Repeat(map[string]func(*rapid.T){
			"adjust": func(t *rapid.T) { s.Adjust(local, time.Duration(rapid.Int64Range(-1e9, 1e9).Draw(t, "by"))) },
			"read": func(t *rapid.T) {
				by := time.Duration(rapid.Int64Range(0, 1e10).Draw(t, "by"))
				local = local.Add(by)
				now := s.Read(local)
				moved := now.Sub(last)
				require.GreaterOrEqual(t, moved, by-by/100-1e7)
				require.False(t, now.Before(last))
				last = now
			},
		})
		left := s.Left()
		local = local.Add(101 * left.Abs())
		before := s.Read(local).Add(-s.offset)
		require.Zero(t, s.Left())
		require.True(t, before.Equal(local))
	})
}

func TestSlewRateAndFirstSet(t *testing.T) {
	var s Slew
	s.Adjust(epoch, time.Hour) // nobody has read the clock: it is set
	require.Equal(t, epoch.Add(time.Hour), s.Read(epoch))
	s.Adjust(epoch, -time.Second)
	require.Equal(t, epoch.Add(time.Hour), s.Read(epoch))
	for i := range 1_000_000 { // too short to turn by a whole nanosecond at a time
		s.Read(epoch.Add(time.Duration(i) * time.Microsecond))
	}
	require.InDelta(t, 500*time.Microsecond, time.Second+s.Left(), float64(2*time.Microsecond))
}
