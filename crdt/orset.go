package crdt

import (
	"iter"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
)

// ORSet is an observed-remove set in which an add wins over a concurrent remove: a remove takes out the adds that its
// replica has seen, and no other (Bieniusa et al., "An Optimized Conflict-free Replicated Set", 2012; as a causal
// delta CRDT: Almeida, Shoker and Baquero, 2018, §7.4). It keeps no tombstones: a removed element leaves nothing
// behind but numbers in a causal context that has no gaps in the long run, and an element added again replaces what
// it was.
//
// Adding, removing, and merging a delta cost O(log n) of the set; a merge of two full states is one walk over both.
//
// The zero value is an empty set, ready to use. A copy made by assignment is the same set, as that of a map is: Clone
// copies. Reading is safe from many goroutines, changing is not.
type ORSet[E comparable] struct{ s *orset[E] }

type orset[E comparable] struct {
	keyed[E, member[E]]
}

// singleORSet is a delta of one element, in one allocation.
type singleORSet[E comparable] struct {
	set orset[E]
	mem singleton[member[E]]
}

func (s *ORSet[E]) init() *orset[E] {
	if s.s == nil {
		s.s = &orset[E]{}
	}
	return s.s
}

// Add adds e at replica id and returns the delta. Only the replica itself may use its id.
func (s *ORSet[E]) Add(id coterie.NodeID, e E) (delta ORSet[E]) {
	set := s.init()
	d := &singleORSet[E]{}
	fresh := false
	if set.index.first != nil {
		_, found := set.index.first[e]
		fresh = !found
	}
	if !fresh {
		var room [4]ref
		set.supersede(set.refs(room[:0], e), &d.set.kernel)
	}
	dot, r := set.add(id, member[E]{e})
	if fresh {
		set.index.first[e] = r
	} else {
		set.added(r, member[E]{e})
	}
	d.set.setSingle(dot, member[E]{e}, &d.mem)
	d.set.small = 1
	return ORSet[E]{&d.set}
}

// Remove takes e out and returns the delta, which is empty if e is not there. An add that this replica has not seen
// yet survives it.
func (s *ORSet[E]) Remove(e E) (delta ORSet[E]) {
	if s.s == nil {
		return delta
	}
	var room [4]ref
	if refs := s.s.refs(room[:0], e); len(refs) > 0 {
		s.s.supersede(refs, &delta.init().kernel)
	}
	return delta
}

// Clear takes out every element and returns the delta.
func (s *ORSet[E]) Clear() (delta ORSet[E]) {
	if s.s == nil || s.s.count() == 0 {
		return delta
	}
	d := delta.init()
	for r := range s.s.all() {
		d.seen.Add(s.s.dot(r))
	}
	s.Merge(delta)
	return delta
}

// Merge joins another replica's state, or a delta of it, into s. It leaves o as it is and shares nothing with it.
func (s *ORSet[E]) Merge(o ORSet[E]) {
	if o.s != nil && o.s != s.s {
		s.init().join(&o.s.keyed)
	}
}

// Contains reports whether e is in the set.
func (s ORSet[E]) Contains(e E) bool {
	if s.s == nil {
		return false
	}
	if s.s.index.first != nil {
		_, found := s.s.index.first[e]
		return found
	}
	for _, p := range s.s.all() {
		if p.e == e {
			return true
		}
	}
	return false
}

// Len returns the number of elements.
func (s ORSet[E]) Len() int {
	if s.s == nil {
		return 0
	}
	return s.s.keys()
}

// All yields the elements in no particular order. The set must not change meanwhile.
func (s ORSet[E]) All() iter.Seq[E] {
	return func(yield func(E) bool) {
		if s.s != nil {
			s.s.allKeys()(yield)
		}
	}
}

// Clone returns a copy that shares nothing with s.
func (s ORSet[E]) Clone() (c ORSet[E]) {
	if s.s != nil {
		c.init().kernel = s.s.clone()
		c.s.reindex()
	}
	return c
}

// Context returns the events that the set has seen, as a copy.
func (s ORSet[E]) Context() clock.DotSet {
	if s.s == nil {
		return clock.DotSet{}
	}
	return s.s.seen.Clone()
}

// AppendBinary appends the encoding of s. Equal states have equal encodings. The error is that of an element that
// cannot be encoded.
func (s ORSet[E]) AppendBinary(b []byte) ([]byte, error) { return s.appendKind(b, kindORSet) }

// MarshalBinary returns the encoding of s.
func (s ORSet[E]) MarshalBinary() ([]byte, error) { return s.AppendBinary(nil) }

// UnmarshalBinary sets s from an encoding. Malformed bytes give an error and leave s as it was; those of a newer
// format a *coterie.FormatError.
func (s *ORSet[E]) UnmarshalBinary(b []byte) error { return s.unmarshalKind(b, kindORSet) }

func (s ORSet[E]) appendKind(b []byte, kind kind) ([]byte, error) {
	return appendKernel(b, kind, s.kernel(), appendMember[E])
}

func (s *ORSet[E]) unmarshalKind(b []byte, kind kind) error {
	k, err := readKernel(b, kind, readMember[E])
	if err != nil {
		return err
	}
	s.s = &orset[E]{}
	s.s.kernel = k
	s.s.reindex()
	return nil
}

// MarshalJSON returns the elements as an array, for people: it leaves out what a merge needs.
func (s ORSet[E]) MarshalJSON() ([]byte, error) { return jsonArray(s.All()) }

func (s ORSet[E]) kernel() *kernel[member[E]] {
	if s.s == nil {
		return &kernel[member[E]]{}
	}
	return &s.s.kernel
}

func appendMember[E comparable](b []byte, p member[E]) ([]byte, error) { return appendElem(b, p.e) }

func readMember[E comparable](b []byte) (member[E], error) {
	e, err := readElem[E](b)
	return member[E]{e}, err
}
