package crdt

import (
	"encoding/json"
	"iter"
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
)

// MVRegister is a register that keeps every value written concurrently, until a write that has seen them replaces them
// (Shapiro et al., 2011, §3.2.2; Almeida, Shoker and Baquero, 2018, §7.3). Take it where the application resolves
// conflicts itself.
//
// The zero value holds no value, ready to use. A copy made by assignment is the same register, as that of a map is:
// Clone copies, except for what values refer to. Reading is safe from many goroutines, changing is not.
type MVRegister[T any] struct{ s *kernel[T] }

func (s *MVRegister[T]) init() *kernel[T] {
	if s.s == nil {
		s.s = &kernel[T]{}
	}
	return s.s
}

// Set writes a value at replica id and returns the delta. It replaces the values that this replica has seen. Only the
// replica itself may use its id.
func (s *MVRegister[T]) Set(id coterie.NodeID, value T) (delta MVRegister[T]) {
	delta = s.Clear()
	dot, _ := s.init().add(id, value)
	delta.init().setSingle(dot, value, &singleton[T]{})
	return delta
}

// Clear takes out the values that this replica has seen and returns the delta.
func (s *MVRegister[T]) Clear() (delta MVRegister[T]) {
	if s.s == nil {
		return delta
	}
	var refs []ref
	for r := range s.s.all() {
		refs = append(refs, r)
	}
	d := delta.init()
	for _, r := range refs {
		d.seen.Add(s.s.dot(r))
		s.s.remove(r)
	}
	return delta
}

// Merge joins another replica's state, or a delta of it, into s.
func (s *MVRegister[T]) Merge(o MVRegister[T]) {
	if o.s != nil && o.s != s.s {
		s.init().merge(o.s, nil, nil)
	}
}

// Values returns the values, in the order of the replicas that wrote them: none if none was written or all were
// cleared, several after concurrent writes.
func (s MVRegister[T]) Values() []T {
	if s.s == nil {
		return nil
	}
	var refs []ref
	for r := range s.s.all() {
		refs = append(refs, r)
	}
	slices.SortFunc(refs, func(a, b ref) int { return s.s.dot(a).Compare(s.s.dot(b)) })
	values := make([]T, len(refs))
	for i, r := range refs {
		values[i], _ = s.s.get(r)
	}
	return values
}

// All yields the values in the order of Values.
func (s MVRegister[T]) All() iter.Seq[T] { return slices.Values(s.Values()) }

// Clone returns a copy that shares nothing with s but what values refer to.
func (s MVRegister[T]) Clone() (c MVRegister[T]) {
	if s.s != nil {
		*c.init() = s.s.clone()
	}
	return c
}

// Context returns the events that the register has seen, as a copy.
func (s MVRegister[T]) Context() clock.DotSet {
	if s.s == nil {
		return clock.DotSet{}
	}
	return s.s.seen.Clone()
}

// AppendBinary appends the encoding of s. Equal states have equal encodings. The error is that of a value that cannot
// be encoded.
func (s MVRegister[T]) AppendBinary(b []byte) ([]byte, error) {
	k := s.s
	if k == nil {
		k = &kernel[T]{}
	}
	return appendKernel(b, kindMVRegister, k, appendElem[T])
}

// MarshalBinary returns the encoding of s.
func (s MVRegister[T]) MarshalBinary() ([]byte, error) { return s.AppendBinary(nil) }

// UnmarshalBinary sets s from an encoding. Malformed bytes give an error and leave s as it was; those of a newer
// format a *coterie.FormatError.
func (s *MVRegister[T]) UnmarshalBinary(b []byte) error {
	k, err := readKernel(b, kindMVRegister, readElem[T])
	if err != nil {
		return err
	}
	s.s = &k
	return nil
}

// MarshalJSON returns the values as an array.
func (s MVRegister[T]) MarshalJSON() ([]byte, error) {
	values := s.Values()
	if values == nil {
		values = []T{}
	}
	return json.Marshal(values)
}
