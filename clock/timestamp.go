package clock

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// Timestamp is a point of logical or hybrid time and the node that made it. Timestamps are totally ordered, by Time
// and then by Node, and the order extends happened-before (Lamport, 1978, the relation =>). Node ids must differ for
// Timestamps to be unique.
//
// Time is a Lamport clock's count, or the packed time of an HLC: nanoseconds since 1970 whose lowest 16 bits are a
// counter. Do not compare the two kinds with each other.
type Timestamp struct {
	Time uint64         `json:"time,string"` // a string in JSON, since JavaScript's numbers end at 2^53
	Node coterie.NodeID `json:"node"`
}

// Compare returns -1, 0 or +1 as t is before, equal to or after u in the total order. It fits slices.SortFunc.
func (t Timestamp) Compare(u Timestamp) int {
	if t.Time != u.Time {
		return cmp.Compare(t.Time, u.Time)
	}
	return strings.Compare(string(t.Node), string(u.Node))
}

// Before reports whether t is before u in the total order.
func (t Timestamp) Before(u Timestamp) bool { return t.Compare(u) < 0 }

// IsZero reports whether t is the zero Timestamp, which no clock issues.
func (t Timestamp) IsZero() bool { return t == Timestamp{} }

// Wall returns the physical part of an HLC's timestamp, in steps of 65.536 microseconds.
func (t Timestamp) Wall() time.Time { return time.Unix(0, int64(t.Time&^logicalMask)) }

// Logical returns the counter of an HLC's timestamp, 0 to 65,535.
func (t Timestamp) Logical() uint16 { return uint16(t.Time & logicalMask) }

// String returns "time@node".
func (t Timestamp) String() string { return fmt.Sprintf("%d@%s", t.Time, t.Node) }

// format is the format byte of every encoding so far.
const format = 1

// AppendBinary appends the encoding of t: a format byte, 8 bytes of Time, big endian, and the bytes of Node, so that
// encodings compare as Timestamps do. It never fails.
func (t Timestamp) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, format)
	b = wire.AppendUint64(b, t.Time)
	return append(b, t.Node...), nil
}

// MarshalBinary returns the encoding of t; see AppendBinary.
func (t Timestamp) MarshalBinary() ([]byte, error) {
	return t.AppendBinary(make([]byte, 0, 9+len(t.Node)))
}

// UnmarshalBinary sets t from its encoding. Malformed bytes, or a Time above MaxTime, give an error and leave t as it
// was; those of a newer format a *coterie.FormatError.
func (t *Timestamp) UnmarshalBinary(b []byte) error {
	r := wire.NewReader(b)
	if err := readFormat(&r, "timestamp"); err != nil {
		return err
	}
	at := r.Uint64()
	node := r.Rest()
	if err := r.Done(); err != nil {
		return fmt.Errorf("clock: timestamp: %w", err)
	}
	if at > MaxTime {
		return fmt.Errorf("clock: timestamp %d: %w", at, ErrOverflow)
	}
	*t = Timestamp{Time: at, Node: coterie.NodeID(node)}
	return nil
}

// readFormat takes the format byte that every encoding starts with.
func readFormat(r *wire.Reader, what string) error {
	got := r.Byte()
	switch {
	case r.Err() != nil:
		return fmt.Errorf("clock: %s: %w", what, r.Err())
	case got > format:
		return &coterie.FormatError{What: what, Got: got, Max: format}
	case got == 0:
		return fmt.Errorf("clock: %s: %w: format 0", what, wire.ErrMalformed)
	}
	return nil
}
