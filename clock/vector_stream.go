package clock

import (
	"fmt"
	"slices"

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
	fresh []coterie.NodeID
}

// knownID is an id and its number in the stream.
type knownID struct {
	id     coterie.NodeID
	number uint64
}

// AppendVector appends the encoding of v: a format byte; the ids that are new to the stream, their number first, which
// are numbered on; then the number of entries and for each the id's number and the count. It never fails.
func (e *VectorEncoder) AppendVector(b []byte, v Vector) []byte {
	e.learn(v)
	b = append(b, format)
	b = wire.AppendUvarint(b, uint64(len(e.fresh)))
	for _, id := range e.fresh {
		b = wire.AppendString(b, id)
	}
	b = wire.AppendUvarint(b, uint64(len(v.entries)))
	k := e.known
	for i := range v.entries {
		x := &v.entries[i]
		for k[0].id != x.id {
			k = k[1:]
		}
		b = wire.AppendUvarint(b, k[0].number)
		b = wire.AppendUvarint(b, x.n)
		k = k[1:]
	}
	return b
}

// learn numbers the ids of v that the stream does not have yet and leaves them in fresh.
func (e *VectorEncoder) learn(v Vector) {
	e.fresh = e.fresh[:0]
	k := e.known
	for i := range v.entries {
		id := v.entries[i].id
		for len(k) > 0 && k[0].id != id && k[0].id < id {
			k = k[1:]
		}
		if len(k) == 0 || k[0].id != id {
			e.fresh = append(e.fresh, id)
		}
	}
	if len(e.fresh) == 0 {
		return
	}
	for _, id := range e.fresh {
		e.known = append(e.known, knownID{id, uint64(len(e.known))})
	}
	slices.SortFunc(e.known, func(a, b knownID) int { return Dot{Node: a.id}.Compare(Dot{Node: b.id}) })
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
