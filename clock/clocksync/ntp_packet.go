package clocksync

import (
	"fmt"
	"time"

	"github.com/coterie-go/coterie/internal/wire"
)

// NTPTime is a time in NTP's 64-bit format: seconds since 1900 modulo 2^32, and fractions of 2^-32 s (RFC 5905, §6).
// Zero stands for "unknown".
type NTPTime uint64

// ntpEpoch is 1970 in seconds since 1900.
const ntpEpoch = 2_208_988_800

// NTPTimeOf converts a time, to the nearest fraction not after it.
func NTPTimeOf(t time.Time) NTPTime {
	fraction := (uint64(t.Nanosecond()) << 32) / uint64(time.Second)
	return NTPTime(uint64(t.Unix()+ntpEpoch)<<32 | fraction)
}

// Near returns the time of t in the era, of 136 years, in which it is nearest to pivot.
func (t NTPTime) Near(pivot time.Time) time.Time {
	seconds := int64(int32(uint32(t>>32)-uint32(pivot.Unix()+ntpEpoch))) + pivot.Unix()
	// Rounded, so that a time of whole nanoseconds converts to itself and back.
	return time.Unix(seconds, int64((uint64(uint32(t))*uint64(time.Second)+1<<31)>>32))
}

// NTPShort is a span in NTP's 32-bit format: seconds in units of 2^-16.
type NTPShort uint32

// Duration converts s.
func (s NTPShort) Duration() time.Duration {
	return time.Duration(uint64(s) * uint64(time.Second) >> 16)
}

// NTPShortOf converts a duration, rounded up; it is cut to 0 and 18 hours.
func NTPShortOf(d time.Duration) NTPShort {
	d = min(max(d, 0), 65535*time.Second)
	return NTPShort((uint64(d)<<16 + uint64(time.Second) - 1) / uint64(time.Second))
}

// The modes of a Packet.
const (
	ModeClient = 3
	ModeServer = 4
)

// LeapUnknown is the Leap of a server that is not synchronized itself.
const LeapUnknown = 3

// packetSize is the header's; what follows it are extensions and a MAC.
const packetSize = 48

// Packet is the header of an NTP packet (RFC 5905, §7.3).
type Packet struct {
	Leap           uint8    // 0 to 3: a leap second is to come, or LeapUnknown
	Version        uint8    // 1 to 7; this package sends 4
	Mode           uint8    // 0 to 7
	Stratum        uint8    // distance from a reference clock; 0 is a kiss, 16 and more unsynchronized
	Poll           int8     // log2 of the seconds between polls
	Precision      int8     // log2 of the seconds that the clock resolves
	RootDelay      NTPShort // round trip to the reference clock
	RootDispersion NTPShort // error against the reference clock
	ReferenceID    [4]byte  // a name, an address, or the code of a kiss
	Reference      NTPTime  // when the server's clock was last set
	Origin         NTPTime  // the request's Transmit, repeated
	Receive        NTPTime  // when the request came
	Transmit       NTPTime  // when this packet was sent
}

// AppendBinary appends the 48 bytes of p. The format is the protocol's own, so there is no format byte. Fields of
// fewer bits than their type must be in range, else an error is returned.
func (p Packet) AppendBinary(b []byte) ([]byte, error) {
	if p.Leap > 3 || p.Version > 7 || p.Mode > 7 {
		return nil, fmt.Errorf("clocksync: ntp packet: leap %d, version %d or mode %d is out of range", p.Leap, p.Version, p.Mode)
	}
	b = append(b, p.Leap<<6|p.Version<<3|p.Mode, p.Stratum, byte(p.Poll), byte(p.Precision))
	b = wire.AppendUint32(b, uint32(p.RootDelay))
	b = wire.AppendUint32(b, uint32(p.RootDispersion))
	b = append(b, p.ReferenceID[:]...)
	for _, t := range []NTPTime{p.Reference, p.Origin, p.Receive, p.Transmit} {
		b = wire.AppendUint64(b, uint64(t))
	}
	return b, nil
}

// MarshalBinary returns the 48 bytes of p; see AppendBinary.
func (p Packet) MarshalBinary() ([]byte, error) { return p.AppendBinary(make([]byte, 0, packetSize)) }

// UnmarshalBinary sets p from a packet, of which all behind the header is ignored. A packet shorter than the header, or
// of a length that is not a multiple of 4, or of version 0 gives an error and leaves p as it was.
func (p *Packet) UnmarshalBinary(b []byte) error {
	if len(b) < packetSize || len(b)%4 != 0 {
		return fmt.Errorf("clocksync: ntp packet: %w: %d bytes", wire.ErrMalformed, len(b))
	}
	if b[0]>>3&7 == 0 {
		return fmt.Errorf("clocksync: ntp packet: %w: version 0", wire.ErrMalformed)
	}
	r := wire.NewReader(b)
	first := r.Byte()
	q := Packet{Leap: first >> 6, Version: first >> 3 & 7, Mode: first & 7}
	q.Stratum, q.Poll, q.Precision = r.Byte(), int8(r.Byte()), int8(r.Byte())
	q.RootDelay, q.RootDispersion = NTPShort(r.Uint32()), NTPShort(r.Uint32())
	copy(q.ReferenceID[:], r.Fixed(4))
	for _, t := range []*NTPTime{&q.Reference, &q.Origin, &q.Receive, &q.Transmit} {
		*t = NTPTime(r.Uint64())
	}
	*p = q
	return nil
}

// Answer returns the packet with which a server answers a request that it received and answers at the given times.
// The caller fills in what is of the server: Leap, Stratum, Precision, RootDelay, RootDispersion, ReferenceID and
// Reference.
func (p Packet) Answer(received, answered time.Time) Packet {
	return Packet{Version: p.Version, Mode: ModeServer, Poll: p.Poll, Origin: p.Transmit,
		Receive: NTPTimeOf(received), Transmit: NTPTimeOf(answered)}
}
