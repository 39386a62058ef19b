package clock

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// VectorEncoder encodes the vectors of one stream and writes each node id only once: ids are most of the bytes of a
// Vector's own encoding. What it writes must reach one VectorDecoder whole and in order, as on one TCP connection or
// in one file; after a reconnection both start anew. Over links that lose messages use Vector.AppendBinary.
//
// The zero value is ready to use. It is not safe for concurrent use.
type VectorEncoder struct {
	known []knownID // by id
}

// knownID is an id and its number in the stream.
type knownID struct {
	id     coterie.NodeID
	number uint64
}

// AppendVector appends the encoding of v: a format byte; the ids that are new to the stream, their number first, which
// are numbered on; then the number of entries and for each the id's number and the count. It never fails.
func (e *VectorEncoder) AppendVector(b []byte, v Vector) []byte {
	b = append(b, format)
	// New ids are rare: try without, and learn them if one turns up.
	if whole, ok := e.appendEntries(append(b, 0), v); ok {
		return whole
	}
	fresh := e.learn(v)
	b = wire.AppendUvarint(b, uint64(len(fresh)))
	for _, id := range fresh {
		b = wire.AppendString(b, id)
	}
	b, _ = e.appendEntries(b, v)
	return b
}

// appendEntries appends the entries, unless an id is not known.
func (e *VectorEncoder) appendEntries(b []byte, v Vector) ([]byte, bool) {
	b = wire.AppendUvarint(b, uint64(len(v.entries)))
	at := len(b)
	b = slices.Grow(b, len(v.entries)*2*binary.MaxVarintLen64)
	b = b[:cap(b)]
	k := 0
	for i := range v.entries {
		x := &v.entries[i]
		for k < len(e.known) && e.known[k].id != x.id {
			k++
		}
		if k == len(e.known) {
			return nil, false
		}
		at = putUvarint(b, at, e.known[k].number)
		at = putUvarint(b, at, x.n)
		k++
	}
	return b[:at], true
}

// learn numbers the ids of v that the stream does not have yet, and returns them.
func (e *VectorEncoder) learn(v Vector) (fresh []coterie.NodeID) {
	k := e.known
	for i := range v.entries {
		id := v.entries[i].id
		for len(k) > 0 && k[0].id != id && k[0].id < id {
			k = k[1:]
		}
		if len(k) == 0 || k[0].id != id {
			fresh = append(fresh, id)
		}
	}
	for _, id := range fresh {
		e.known = append(e.known, knownID{id, uint64(len(e.known))})
	}
	slices.SortFunc(e.known, func(a, b knownID) int { return strings.Compare(string(a.id), string(b.id)) })
	return fresh
}

// VectorDecoder decodes what one VectorEncoder wrote. The zero value is ready to use. It is not safe for concurrent
// use.
type VectorDecoder struct {
	// MaxIDBytes bounds what a stream can make the decoder remember, by the bytes of all ids and 16 for each; default
	// 1 MiB.
	MaxIDBytes int

	ids  []coterie.NodeID // by number
	size int
}

// DecodeVector sets v from the next encoding of the stream, in v's own memory where that suffices. An error leaves v
// and the decoder as they were, but the stream is of no use then. A newer format gives a *coterie.FormatError.
func (d *VectorDecoder) DecodeVector(b []byte, v *Vector) error {
	r := wire.NewReader(b)
	if err := readFormat(&r, "vector stream"); err != nil {
		return err
	}
	limit := d.MaxIDBytes
	if limit == 0 {
		limit = 1 << 20
	}
	ids, size := d.ids, d.size
	for range r.Count(1) {
		id := r.Bytes()
		if size += len(id) + 16; size > limit {
			r.Fail("ids of more than %d bytes", limit)
			break
		}
		// Beyond len(d.ids) nothing is seen before the new length is stored.
		ids = append(ids, coterie.NodeID(id))
	}
	if err := d.decodeEntries(r, ids, nil); err != nil {
		return fmt.Errorf("clock: vector stream: %w", err)
	}
	_ = d.decodeEntries(r, ids, v)
	d.ids, d.size = ids, size
	return nil
}

// decodeEntries checks the entries and, if v is not nil, stores them.
func (*VectorDecoder) decodeEntries(r wire.Reader, ids []coterie.NodeID, v *Vector) error {
	count := r.Count(2)
	if v != nil {
		v.entries = slices.Grow(v.entries[:0], count)
	}
	var last coterie.NodeID
	for i := range count {
		number, n := r.Uvarint(), r.Uvarint()
		if number >= uint64(len(ids)) || n == 0 || n >= MaxTime || i > 0 && ids[number] <= last {
			r.Fail("entry %d of id %d", n, number)
			break
		}
		last = ids[number]
		if v != nil {
			v.entries = append(v.entries, entry{last, n})
		}
	}
	return r.Done()
}
