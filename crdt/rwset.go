package crdt

import (
	"iter"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/internal/wire"
)

// RWSet is a set in which a remove wins over a concurrent add (Baquero, Almeida and Shoker, "Pure Operation-Based
// Replicated Data Types", 2017, §5): an element is in it if it was added and nobody removed it without having seen that
// add. Take it where a revocation must hold: of rights, of keys, of members.
//
// A removed element leaves one dot behind, against adds still to come, until Stable collects it.
//
// The zero value is an empty set, ready to use. A copy made by assignment is the same set, as that of a map is: Clone
// copies. Reading is safe from many goroutines, changing is not.
type RWSet[E comparable] struct{ s *rwset[E] }

type rwset[E comparable] struct {
	keyed[E, rwMember[E]]
}

// rwMember is the payload of one add or remove.
type rwMember[E comparable] struct {
	e    E
	adds bool
}

func (m rwMember[E]) key() E { return m.e }

func (s *RWSet[E]) init() *rwset[E] {
	if s.s == nil {
		s.s = &rwset[E]{}
	}
	return s.s
}

// Add adds e at replica id and returns the delta. It undoes the removes that this replica has seen, and no other. Only
// the replica itself may use its id.
func (s *RWSet[E]) Add(id coterie.NodeID, e E) (delta RWSet[E]) {
	return s.put(id, rwMember[E]{e, true})
}

// Remove takes e out at replica id and returns the delta. Adds that this replica has not seen go too, so that to
// remove what is not there has an effect.
func (s *RWSet[E]) Remove(id coterie.NodeID, e E) (delta RWSet[E]) {
	return s.put(id, rwMember[E]{e, false})
}

func (s *RWSet[E]) put(id coterie.NodeID, p rwMember[E]) (delta RWSet[E]) {
	set, d := s.init(), delta.init()
	var room [4]ref
	set.supersede(set.refs(room[:0], p.e), &d.kernel)
	dot, r := set.add(id, p)
	set.added(r, p)
	d.setSingle(dot, p, &singleton[rwMember[E]]{})
	d.small = 1
	return delta
}

// Stable forgets what was kept of elements removed by events that frontier covers, and returns how many elements it
// forgot. The frontier is Stability's: every replica has seen these events, and this one has seen all that any replica
// did before, so that no add that they win over is still to come.
func (s RWSet[E]) Stable(frontier clock.Vector) int { return s.collect(frontier, nil) }

func (s RWSet[E]) collect(frontier clock.Vector, gone func(clock.Dot)) int {
	if s.s == nil {
		return 0
	}
	var over []E
	for r, p := range s.s.all() {
		if !p.adds && frontier.Contains(s.s.dot(r)) {
			over = append(over, p.e)
		}
	}
	forgotten := 0
	for _, e := range over {
		dropped := false
		for _, r := range s.s.refs(nil, e) {
			// The adds lose to the stable remove; a later remove still has to win over others.
			p, _ := s.s.get(r)
			if !p.adds && !frontier.Contains(s.s.dot(r)) {
				continue
			}
			if gone != nil {
				gone(s.s.dot(r))
			}
			s.s.removed(r, p)
			s.s.remove(r)
			dropped = true
		}
		if dropped {
			forgotten++
		}
	}
	return forgotten
}

// Merge joins another replica's state, or a delta of it, into s. It leaves o as it is and shares nothing with it.
func (s *RWSet[E]) Merge(o RWSet[E]) {
	if o.s != nil && o.s != s.s {
		s.init().join(&o.s.keyed)
	}
}

// Contains reports whether e is in the set.
func (s RWSet[E]) Contains(e E) bool {
	if s.s == nil {
		return false
	}
	var room [4]ref
	refs := s.s.refs(room[:0], e)
	for _, r := range refs {
		if p, _ := s.s.get(r); !p.adds {
			return false
		}
	}
	return len(refs) > 0
}

// Len returns the number of elements, in the time that it takes to count them.
func (s RWSet[E]) Len() (n int) {
	for range s.All() {
		n++
	}
	return n
}

// All yields the elements in no particular order. The set must not change meanwhile.
func (s RWSet[E]) All() iter.Seq[E] {
	return func(yield func(E) bool) {
		if s.s == nil {
			return
		}
		for e := range s.s.allKeys() {
			if s.Contains(e) && !yield(e) {
				return
			}
		}
	}
}

// Clone returns a copy that shares nothing with s.
func (s RWSet[E]) Clone() (c RWSet[E]) {
	if s.s != nil {
		c.init().kernel = s.s.clone()
		c.s.reindex()
	}
	return c
}

// Context returns the events that the set has seen, as a copy.
func (s RWSet[E]) Context() clock.DotSet {
	if s.s == nil {
		return clock.DotSet{}
	}
	return s.s.seen.Clone()
}

// AppendBinary appends the encoding of s. Equal states have equal encodings. The error is that of an element that
// cannot be encoded.
func (s RWSet[E]) AppendBinary(b []byte) ([]byte, error) { return s.appendKind(b, kindRWSet) }

// MarshalBinary returns the encoding of s.
func (s RWSet[E]) MarshalBinary() ([]byte, error) { return s.AppendBinary(nil) }

// UnmarshalBinary sets s from an encoding. Malformed bytes give an error and leave s as it was; those of a newer
// format a *coterie.FormatError.
func (s *RWSet[E]) UnmarshalBinary(b []byte) error { return s.unmarshalKind(b, kindRWSet) }

func (s RWSet[E]) appendKind(b []byte, kind kind) ([]byte, error) {
	return appendKernel(b, kind, s.kernel(), appendRWMember[E])
}

func (s *RWSet[E]) unmarshalKind(b []byte, kind kind) error {
	k, err := readKernel(b, kind, readRWMember[E])
	if err != nil {
		return err
	}
	s.s = &rwset[E]{}
	s.s.kernel = k
	s.s.reindex()
	return nil
}

// MarshalJSON returns the elements as an array, for people: it leaves out what a merge needs.
func (s RWSet[E]) MarshalJSON() ([]byte, error) { return jsonArray(s.All()) }

func (s RWSet[E]) kernel() *kernel[rwMember[E]] {
	if s.s == nil {
		return &kernel[rwMember[E]]{}
	}
	return &s.s.kernel
}

func appendRWMember[E comparable](b []byte, p rwMember[E]) ([]byte, error) {
	return appendElem(wire.AppendBool(b, p.adds), p.e)
}

func readRWMember[E comparable](b []byte) (p rwMember[E], err error) {
	r := wire.NewReader(b)
	p.adds = r.Bool()
	if err = r.Err(); err == nil {
		p.e, err = readElem[E](r.Rest())
	}
	return p, err
}
