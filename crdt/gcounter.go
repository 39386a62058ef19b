package crdt

import (
	"encoding/json"
	"iter"
	"maps"
	"math"
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// GCounter counts up: each replica counts its own, and the value is the sum (Shapiro et al., "A Comprehensive Study of
// Convergent and Commutative Replicated Data Types", 2011, Specification 6).
//
// An increment and its delta take no allocation: the first replica's count lies in the value itself, so that a delta
// needs no more memory.
//
// The zero value is 0, ready to use. A copy made by assignment shares memory: Clone copies. Reading is safe from many
// goroutines, changing is not.
//
//nolint:recvcheck // what reads has a value receiver, to work on results and map elements, as with clock.Vector
type GCounter struct {
	first count   // of the least id; n is 0 if there is none
	rest  []count // by id, none 0
}

type count struct {
	id coterie.NodeID
	n  uint64
}

// Inc counts n more at replica id and returns the delta. Only the replica itself may use its id. A replica's count stays
// at the end of 64 bits.
func (c *GCounter) Inc(id coterie.NodeID, n uint64) (delta GCounter) {
	if n == 0 {
		return delta
	}
	at := &c.first
	if at.n == 0 || at.id != id {
		at = c.slot(id)
	}
	at.n = addUint64(at.n, n)
	return GCounter{first: *at}
}

// slot returns the place of an id, which it makes if there is none.
func (c *GCounter) slot(id coterie.NodeID) *count {
	if c.first.n == 0 || c.first.id == id {
		c.first.id = id
		return &c.first
	}
	i, found := c.find(id)
	switch {
	case found:
	case id < c.first.id:
		c.rest = slices.Insert(c.rest, 0, c.first)
		c.first = count{id: id}
		return &c.first
	default:
		c.rest = slices.Insert(c.rest, i, count{id: id})
	}
	return &c.rest[i]
}

func (c *GCounter) find(id coterie.NodeID) (int, bool) {
	lo, hi := 0, len(c.rest)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch e := c.rest[mid].id; {
		case e == id:
			return mid, true
		case e < id:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}

// Value returns the sum of what all replicas counted; it stays at the end of 64 bits.
func (c GCounter) Value() uint64 {
	n := c.first.n
	for i := range c.rest {
		n = addUint64(n, c.rest[i].n)
	}
	return n
}

// Get returns what one replica counted.
func (c GCounter) Get(id coterie.NodeID) uint64 {
	if c.first.id == id {
		return c.first.n
	}
	if i, found := c.find(id); found {
		return c.rest[i].n
	}
	return 0
}

// All yields each replica's count, by id. The counter must not change meanwhile.
func (c GCounter) All() iter.Seq2[coterie.NodeID, uint64] {
	return func(yield func(coterie.NodeID, uint64) bool) {
		if c.first.n == 0 || !yield(c.first.id, c.first.n) {
			return
		}
		for i := range c.rest {
			if !yield(c.rest[i].id, c.rest[i].n) {
				return
			}
		}
	}
}

// Merge joins another replica's state, or a delta of it, into c. It leaves o as it is and shares nothing with it, and
// allocates only for replicas that c lacks.
func (c *GCounter) Merge(o GCounter) {
	if o.first.n == 0 {
		return
	}
	c.raise(o.first)
	i := 0
	for j := range o.rest {
		from := &o.rest[j]
		if i < len(c.rest) && c.rest[i].id == from.id { // most often both know the same replicas
			c.rest[i].n = max(c.rest[i].n, from.n)
			i++
			continue
		}
		for i < len(c.rest) && c.rest[i].id != from.id && c.rest[i].id < from.id {
			i++
		}
		if i < len(c.rest) && c.rest[i].id == from.id {
			c.rest[i].n = max(c.rest[i].n, from.n)
			continue
		}
		c.raise(*from)
	}
}

// raise makes a replica's count at least what e says.
func (c *GCounter) raise(e count) {
	at := c.slot(e.id)
	at.n = max(at.n, e.n)
}

// Clone returns a copy that shares nothing with c.
func (c GCounter) Clone() GCounter { return GCounter{c.first, slices.Clone(c.rest)} }

// AppendBinary appends the encoding of c. It never fails. Equal states have equal encodings.
func (c GCounter) AppendBinary(b []byte) ([]byte, error) {
	return c.appendCounts(appendHead(b, kindGCounter)), nil
}

func (c GCounter) appendCounts(b []byte) []byte {
	if c.first.n == 0 {
		return wire.AppendUvarint(b, 0)
	}
	b = wire.AppendUvarint(b, uint64(1+len(c.rest)))
	for id, n := range c.All() {
		b = wire.AppendUvarint(wire.AppendString(b, id), n)
	}
	return b
}

// MarshalBinary returns the encoding of c.
func (c GCounter) MarshalBinary() ([]byte, error) { return c.AppendBinary(nil) }

// UnmarshalBinary sets c from an encoding. Malformed bytes give an error and leave c as it was; those of a newer format a
// *coterie.FormatError.
func (c *GCounter) UnmarshalBinary(b []byte) error {
	r := wire.NewReader(b)
	if err := readHead(&r, kindGCounter); err != nil {
		return err
	}
	read := readCounts(&r)
	if err := r.Done(); err != nil {
		return decoded(kindGCounter, err)
	}
	*c = read
	return nil
}

func readCounts(r *wire.Reader) (c GCounter) {
	n := r.Count(2)
	for i := range n {
		e := count{coterie.NodeID(r.String()), r.Uvarint()}
		switch {
		case r.Err() != nil:
			return c
		case e.n == 0 || (i == 1 && e.id <= c.first.id) || (i > 1 && e.id <= c.rest[i-2].id):
			r.Fail("count of %q is 0 or out of order", e.id)
			return c
		case i == 0:
			c.first = e
		default:
			c.rest = append(c.rest, e)
		}
	}
	return c
}

// MarshalJSON returns an object of replicas and counts, {"a":3,"b":1}.
func (c GCounter) MarshalJSON() ([]byte, error) {
	return json.Marshal(maps.Collect(c.All()))
}

// PNCounter counts up and down: a GCounter for each direction (Shapiro et al., 2011, Specification 7).
//
// The zero value is 0, ready to use. A copy made by assignment shares memory: Clone copies. Reading is safe from many
// goroutines, changing is not.
//
//nolint:recvcheck // what reads has a value receiver, to work on results and map elements, as with clock.Vector
type PNCounter struct{ up, down GCounter }

// Add counts n, which may be negative, at replica id and returns the delta. Only the replica itself may use its id.
func (c *PNCounter) Add(id coterie.NodeID, n int64) (delta PNCounter) {
	if n < 0 {
		return PNCounter{down: c.down.Inc(id, -uint64(n))}
	}
	return PNCounter{up: c.up.Inc(id, uint64(n))}
}

// Inc counts n up at replica id and returns the delta.
func (c *PNCounter) Inc(id coterie.NodeID, n uint64) (delta PNCounter) {
	return PNCounter{up: c.up.Inc(id, n)}
}

// Dec counts n down at replica id and returns the delta.
func (c *PNCounter) Dec(id coterie.NodeID, n uint64) (delta PNCounter) {
	return PNCounter{down: c.down.Inc(id, n)}
}

// Value returns what was counted up less what was counted down; it stays at the ends of 64 bits.
func (c PNCounter) Value() int64 {
	up, down := c.up.Value(), c.down.Value()
	if up >= down {
		return int64(min(up-down, math.MaxInt64))
	}
	return -int64(min(down-up, math.MaxInt64))
}

// Merge joins another replica's state, or a delta of it, into c.
func (c *PNCounter) Merge(o PNCounter) {
	c.up.Merge(o.up)
	c.down.Merge(o.down)
}

// Clone returns a copy that shares nothing with c.
func (c PNCounter) Clone() PNCounter { return PNCounter{c.up.Clone(), c.down.Clone()} }

// AppendBinary appends the encoding of c. It never fails. Equal states have equal encodings.
func (c PNCounter) AppendBinary(b []byte) ([]byte, error) {
	return c.down.appendCounts(c.up.appendCounts(appendHead(b, kindPNCounter))), nil
}

// MarshalBinary returns the encoding of c.
func (c PNCounter) MarshalBinary() ([]byte, error) { return c.AppendBinary(nil) }

// UnmarshalBinary sets c from an encoding. Malformed bytes give an error and leave c as it was; those of a newer format a
// *coterie.FormatError.
func (c *PNCounter) UnmarshalBinary(b []byte) error {
	r := wire.NewReader(b)
	if err := readHead(&r, kindPNCounter); err != nil {
		return err
	}
	read := PNCounter{up: readCounts(&r)}
	read.down = readCounts(&r)
	if err := r.Done(); err != nil {
		return decoded(kindPNCounter, err)
	}
	*c = read
	return nil
}

// MarshalJSON returns {"value":2,"up":{"a":3},"down":{"b":1}}.
func (c PNCounter) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Value int64    `json:"value"`
		Up    GCounter `json:"up"`
		Down  GCounter `json:"down"`
	}{c.Value(), c.up, c.down})
}
