package crdt

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/internal/wire"
)

// ErrRights is returned by a BoundedCounter when a replica has not the rights for what it is asked to do; nothing was
// done. Have another replica transfer rights, or refuse the sale.
var ErrRights = errors.New("crdt: not enough rights")

// BoundedCounter counts up and down and never below 0, without coordination: tickets, stock, quota. Every unit counted
// up is a right to count one down; it belongs to the replica that counted it up until that transfers it, and a replica
// counts down by its own rights only (Balegas et al., "Extending Eventually Consistent Cloud Databases for Enforcing
// Numeric Invariants", 2015, §4: the matrix R of rights and the vector U of what was used).
//
// Guarantee: however replicas are cut off, and whatever deltas are lost or late, all replicas together count down no
// more than was counted up, as long as no two share an id and none forgets what it did. Rights of a replica that is
// lost for ever are lost.
//
// The zero value is 0, ready to use. A copy made by assignment shares memory: Clone copies. Reading is safe from many
// goroutines, changing is not.
//
//nolint:recvcheck // what reads has a value receiver, to work on results and map elements, as with clock.Vector
type BoundedCounter struct {
	moved []move // R: by from, then to; from equal to to is what a replica counted up
	used  GCounter
}

// move is how many rights went from one replica to another in all.
type move struct {
	from, to coterie.NodeID
	n        uint64
}

// Inc counts n up at replica id, which gives it n rights, and returns the delta. Only the replica itself may use its id. A
// count stays at the end of 64 bits.
func (c *BoundedCounter) Inc(id coterie.NodeID, n uint64) (delta BoundedCounter) {
	if n == 0 {
		return delta
	}
	return BoundedCounter{moved: []move{c.add(id, id, n)}}
}

// Dec counts n down at replica id by its rights, and returns the delta. Without enough rights it returns ErrRights.
func (c *BoundedCounter) Dec(id coterie.NodeID, n uint64) (delta BoundedCounter, err error) {
	if have := c.Rights(id); have < n {
		return delta, fmt.Errorf("%w: %s has %d of %d", ErrRights, id, have, n)
	}
	return BoundedCounter{used: c.used.Inc(id, n)}, nil
}

// Transfer gives n rights of replica from to another, and returns the delta. Only from itself may call it. Without
// enough rights it returns ErrRights.
func (c *BoundedCounter) Transfer(from, to coterie.NodeID, n uint64) (delta BoundedCounter, err error) {
	if have := c.Rights(from); have < n {
		return delta, fmt.Errorf("%w: %s has %d of %d", ErrRights, from, have, n)
	}
	if from == to || n == 0 {
		return delta, nil
	}
	return BoundedCounter{moved: []move{c.add(from, to, n)}}, nil
}

func (c *BoundedCounter) add(from, to coterie.NodeID, n uint64) move {
	m := c.slot(from, to)
	m.n = addUint64(m.n, n)
	return *m
}

func (c *BoundedCounter) slot(from, to coterie.NodeID) *move {
	i, found := slices.BinarySearchFunc(c.moved, move{from: from, to: to}, compareMoves)
	if !found {
		c.moved = slices.Insert(c.moved, i, move{from: from, to: to})
	}
	return &c.moved[i]
}

func compareMoves(a, b move) int {
	if d := (clock.Dot{Node: a.from}).Compare(clock.Dot{Node: b.from}); d != 0 {
		return d
	}
	return clock.Dot{Node: a.to}.Compare(clock.Dot{Node: b.to})
}

// Rights returns how much replica id may count down, as far as is known here: at that replica itself it is exact.
func (c BoundedCounter) Rights(id coterie.NodeID) uint64 {
	var in, out uint64
	for _, m := range c.moved {
		switch {
		case m.to == id:
			in = addUint64(in, m.n)
		case m.from == id:
			out = addUint64(out, m.n)
		}
	}
	out = addUint64(out, c.used.Get(id))
	if out > in { // what it was given is not known here yet
		return 0
	}
	return in - out
}

// Value returns what was counted up less what was counted down, as far as is known here; 0 if only the latter is known.
func (c BoundedCounter) Value() uint64 {
	var up uint64
	for _, m := range c.moved {
		if m.from == m.to {
			up = addUint64(up, m.n)
		}
	}
	if used := c.used.Value(); used < up {
		return up - used
	}
	return 0
}

// Merge joins another replica's state, or a delta of it, into c. It leaves o as it is and shares nothing with it.
func (c *BoundedCounter) Merge(o BoundedCounter) {
	for _, m := range o.moved {
		at := c.slot(m.from, m.to)
		at.n = max(at.n, m.n)
	}
	c.used.Merge(o.used)
}

// Clone returns a copy that shares nothing with c.
func (c BoundedCounter) Clone() BoundedCounter {
	return BoundedCounter{slices.Clone(c.moved), c.used.Clone()}
}

// AppendBinary appends the encoding of c. It never fails. Equal states have equal encodings.
func (c BoundedCounter) AppendBinary(b []byte) ([]byte, error) {
	b = wire.AppendUvarint(appendHead(b, kindBoundedCounter), uint64(len(c.moved)))
	for _, m := range c.moved {
		b = wire.AppendUvarint(wire.AppendString(wire.AppendString(b, m.from), m.to), m.n)
	}
	return c.used.appendCounts(b), nil
}

// MarshalBinary returns the encoding of c.
func (c BoundedCounter) MarshalBinary() ([]byte, error) { return c.AppendBinary(nil) }

// UnmarshalBinary sets c from an encoding. Malformed bytes give an error and leave c as it was; those of a newer format a
// *coterie.FormatError.
func (c *BoundedCounter) UnmarshalBinary(b []byte) error {
	r := wire.NewReader(b)
	if err := readHead(&r, kindBoundedCounter); err != nil {
		return err
	}
	var read BoundedCounter
	for range r.Count(3) {
		m := move{coterie.NodeID(r.String()), coterie.NodeID(r.String()), r.Uvarint()}
		if n := len(read.moved); r.Err() == nil && (m.n == 0 || (n > 0 && compareMoves(read.moved[n-1], m) >= 0)) {
			r.Fail("rights from %q to %q are 0 or out of order", m.from, m.to)
		}
		if r.Err() != nil {
			break
		}
		read.moved = append(read.moved, m)
	}
	read.used = readCounts(&r)
	if err := r.Done(); err != nil {
		return decoded(kindBoundedCounter, err)
	}
	*c = read
	return nil
}

// MarshalJSON returns {"value":5,"rights":{"a":3,"b":2}}.
func (c BoundedCounter) MarshalJSON() ([]byte, error) {
	rights := map[coterie.NodeID]uint64{}
	for _, m := range c.moved {
		rights[m.from], rights[m.to] = c.Rights(m.from), c.Rights(m.to)
	}
	return json.Marshal(struct {
		Value  uint64                    `json:"value"`
		Rights map[coterie.NodeID]uint64 `json:"rights"`
	}{c.Value(), rights})
}
