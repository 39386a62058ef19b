package clock

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// AppendBinary appends the encoding of v: a format byte, the number of entries, and for each, in the order of node
// ids, the id's length, the id and the count, numbers as varints. It never fails. Equal vectors have equal encodings.
// Where one stream carries many vectors of the same nodes, a VectorEncoder writes the ids once.
func (v Vector) AppendBinary(b []byte) ([]byte, error) {
	b = slices.Grow(b, v.sizeBound())
	b = append(b, format)
	b = wire.AppendUvarint(b, uint64(len(v.entries)))
	at := len(b)
	b = b[:cap(b)] // written by index: the room is there, and append would ask for each byte
	for i := range v.entries {
		e := &v.entries[i]
		at = putUvarint(b, at, uint64(len(e.id)))
		at += copy(b[at:], e.id)
		at = putUvarint(b, at, e.n)
	}
	return b[:at], nil
}

// MarshalBinary returns the encoding of v; see AppendBinary.
func (v Vector) MarshalBinary() ([]byte, error) { return v.AppendBinary(nil) }

// UnmarshalBinary sets v from its encoding. It uses v's own memory where that suffices, and v's own ids where they are
// the same, so that a steady stream decodes without allocation. Malformed bytes give an error and leave v as it was:
// ids out of order or repeated, counts of MaxTime and more. A newer format gives a *coterie.FormatError. A count of 0
// is as if absent.
func (v *Vector) UnmarshalBinary(b []byte) error {
	// Once to check, once to take over: v's memory may be changed only when nothing can fail any more.
	if err := scanVector(b, func(int, []byte, uint64) {}); err != nil {
		return err
	}
	kept := 0
	_ = scanVector(b, func(left int, id []byte, n uint64) {
		if kept == 0 {
			v.entries = slices.Grow(v.entries[:0], left)
		}
		old := v.entries[:cap(v.entries)][kept].id
		if old != coterie.NodeID(id) { // compares without a copy
			old = coterie.NodeID(id)
		}
		v.entries = append(v.entries, entry{old, n})
		kept++
	})
	v.entries = v.entries[:kept]
	return nil
}

// scanVector calls f with each entry that is not 0, and how many entries there are at most from this one on.
func scanVector(b []byte, f func(left int, id []byte, n uint64)) error {
	r := wire.NewReader(b)
	if err := readFormat(&r, "vector"); err != nil {
		return err
	}
	count := r.Count(2)
	var last []byte
	for i := range count {
		id, n := r.Bytes(), r.Uvarint()
		switch {
		case r.Err() != nil:
		case i > 0 && string(id) <= string(last):
			r.Fail("id %q after %q", id, last)
		case n >= MaxTime:
			r.Fail("count %d of %q", n, id)
		}
		if r.Err() != nil {
			break
		}
		if last = id; n > 0 {
			f(count-i, id, n)
		}
	}
	if err := r.Done(); err != nil {
		return fmt.Errorf("clock: vector: %w", err)
	}
	return nil
}

// putUvarint writes a varint at a place of b and returns the place after it.
func putUvarint(b []byte, at int, n uint64) int {
	for n >= 0x80 {
		b[at] = byte(n) | 0x80
		n >>= 7
		at++
	}
	b[at] = byte(n)
	return at + 1
}

// sizeBound returns a number of bytes that the encoding does not exceed.
func (v Vector) sizeBound() int {
	size := 1 + binary.MaxVarintLen64
	for i := range v.entries {
		size += len(v.entries[i].id) + 2*binary.MaxVarintLen64
	}
	return size
}

// MarshalJSON returns an object of node ids and counts, {"a":1,"b":2}.
func (v Vector) MarshalJSON() ([]byte, error) {
	m := make(map[coterie.NodeID]uint64, len(v.entries))
	for _, e := range v.entries {
		m[e.id] = e.n
	}
	return json.Marshal(m)
}

// UnmarshalJSON sets v from an object of node ids and counts. An error leaves v as it was.
func (v *Vector) UnmarshalJSON(b []byte) error {
	var m map[coterie.NodeID]uint64
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("clock: vector: %w", err)
	}
	for id, n := range m {
		if n >= MaxTime {
			return fmt.Errorf("clock: vector: count of %q: %w", id, ErrOverflow)
		}
	}
	*v = VectorOf(m)
	return nil
}
