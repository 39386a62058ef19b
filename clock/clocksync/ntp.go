package clocksync

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Errors of Association.Receive; the association is as it was, but for a kiss.
var (
	// ErrBogus is returned for a packet that answers no request of ours, or one again: spoofed, late or repeated.
	ErrBogus = errors.New("clocksync: not the answer to the request")
	// ErrUnsynchronized is returned for the answer of a server that does not know the time itself.
	ErrUnsynchronized = errors.New("clocksync: server is not synchronized")
)

// KissError is returned for a "kiss o' death": the server asks to be left alone (RFC 5905, §7.4).
type KissError struct {
	Code string // DENY or RSTR: stop asking; RATE: ask more rarely
}

// Error names the code.
func (e *KissError) Error() string { return fmt.Sprintf("clocksync: server sent a kiss: %q", e.Code) }

const (
	// phi is how fast the error of an old sample grows: RFC 5905's 15 microseconds a second.
	phi = 15e-6
	// maxDistance is the root distance beyond which a server is of no use.
	maxDistance = 1500 * time.Millisecond
	// stages is how many samples the clock filter keeps.
	stages = 8
)

// Association is what a client knows of one NTP server: the on-wire protocol of RFC 5905, §8, which lets no packet
// pass but the first answer to the latest request, and the clock filter of §10, which of the last eight samples
// believes the one with the shortest round trip, as the one with the least error. It is a state machine without I/O:
// the caller sends what Request returns and gives what comes back to Receive. It is not safe for concurrent use.
type Association struct {
	random  *rand.Rand
	nonce   NTPTime   // of the open request; 0 if none is
	sent    time.Time // when it was
	samples []Sample  // newest last, at most stages
}

// NewAssociation returns an association without samples. The seed, which must not be 0, draws the numbers by which
// answers are known; a guessable seed makes answers forgeable for who cannot see the requests.
func NewAssociation(seed uint64) (*Association, error) {
	if seed == 0 {
		return nil, errors.New("clocksync: NewAssociation: seed is required")
	}
	return &Association{random: rand.New(rand.NewPCG(seed, mix(seed)))}, nil
}

// Request returns the packet to send when the local clock reads now. An earlier request that is still open is given
// up. In place of the time the packet carries a random number, since the server only repeats it.
func (a *Association) Request(now time.Time) []byte {
	a.sent = now
	a.nonce = NTPTime(a.random.Uint64() | 1)
	b, _ := Packet{Version: 4, Mode: ModeClient, Transmit: a.nonce}.MarshalBinary()
	return b
}

// Receive takes a packet that came when the local clock read now and returns what it told. Errors: ErrBogus,
// ErrUnsynchronized, *KissError, or of a malformed packet.
func (a *Association) Receive(now time.Time, packet []byte) (Sample, error) {
	var p Packet
	if err := p.UnmarshalBinary(packet); err != nil {
		return Sample{}, err
	}
	if p.Mode != ModeServer || a.nonce == 0 || p.Origin != a.nonce {
		return Sample{}, ErrBogus
	}
	if p.Stratum == 0 {
		a.nonce = 0
		return Sample{}, &KissError{Code: string(p.ReferenceID[:])}
	}
	distance := p.RootDelay.Duration()/2 + p.RootDispersion.Duration()
	if p.Leap == LeapUnknown || p.Stratum >= 16 || p.Receive == 0 || p.Transmit == 0 || distance > maxDistance {
		return Sample{}, ErrUnsynchronized
	}
	precision := time.Duration(float64(time.Second) / float64(uint64(1)<<min(max(-int(p.Precision), 0), 30)))
	received := p.Receive.Near(a.sent)
	s, err := NewSample(a.sent, received, p.Transmit.Near(received), now, distance+precision)
	if err != nil {
		return Sample{}, err
	}
	a.nonce = 0
	if len(a.samples) == stages {
		copy(a.samples, a.samples[1:])
		a.samples = a.samples[:stages-1]
	}
	a.samples = append(a.samples, s)
	return s, nil
}

// Best returns the sample of the last eight that has the least error at the local reading now, with its error grown by
// its age, and whether there is one. The round trip is what errors differ by.
func (a *Association) Best(now time.Time) (best Sample, ok bool) {
	for _, s := range a.samples {
		s.Error += time.Duration(phi * float64(max(now.Sub(s.At), 0)))
		if !ok || s.Error <= best.Error {
			best, ok = s, true
		}
	}
	return best, ok
}

// Estimate is what several servers agree on.
type Estimate struct {
	Offset       time.Duration // to add to the local clock
	Error        time.Duration // the most by which Offset is off, if the truechimers tell the truth
	Truechimers  []int         // indices of the samples that were believed
	Falsetickers []int         // indices of those that were not
}

// Select finds which of the servers' samples can be right together and combines them. It is RFC 5905's selection
// (§11.2.1): the least number of falsetickers is assumed for which the rest share an interval that holds all their
// offsets; a majority must be left. The combined offset weighs each by the inverse of its error (§11.2.3). Four
// servers survive one that lies. ErrNoMajority says that no majority agrees.
//
// The result's Error covers the interval that the truechimers share, so that it is a bound, not an estimate, as long
// as the majority is right.
func Select(samples []Sample) (Estimate, error) {
	n := len(samples)
	edges := make([]edge, 0, 2*n)
	for _, s := range samples {
		edges = append(edges, edge{s.Offset - s.Error, 1}, edge{s.Offset + s.Error, -1})
	}
	for allow := 0; 2*allow < n; allow++ {
		low, high, ok := span(edges, n-allow)
		if !ok {
			continue
		}
		var e Estimate
		for i, s := range samples {
			// A server whose middle is outside is believed no more than one whose interval is: its error may hide any time.
			if s.Offset >= low && s.Offset <= high {
				e.Truechimers = append(e.Truechimers, i)
			} else {
				e.Falsetickers = append(e.Falsetickers, i)
			}
		}
		if len(e.Falsetickers) <= allow {
			e.combine(samples, low, high)
			return e, nil
		}
	}
	return Estimate{}, fmt.Errorf("%w: %d NTP servers", ErrNoMajority, n)
}

func (e *Estimate) combine(samples []Sample, low, high time.Duration) {
	base := samples[e.Truechimers[0]].Offset
	sum, weight := 0.0, 0.0
	for _, i := range e.Truechimers {
		w := 1 / float64(max(samples[i].Error, 1))
		sum, weight = sum+w*float64(samples[i].Offset-base), weight+w
	}
	e.Offset = min(max(base+time.Duration(sum/weight), low), high)
	e.Error = max(high-e.Offset, e.Offset-low)
}
