package crdt

import (
	"bytes"
	"iter"
	"maps"
	"slices"

	"github.com/coterie-go/coterie/internal/wire"
)

// GSet is a set that only grows (Shapiro et al., 2011, Specification 11).
//
// The zero value is an empty set, ready to use. A copy made by assignment shares memory: Clone copies. Reading is safe
// from many goroutines, changing is not.
type GSet[E comparable] struct{ elems map[E]struct{} }

// Add adds e and returns the delta.
func (s *GSet[E]) Add(e E) (delta GSet[E]) {
	s.put(e)
	delta.put(e)
	return delta
}

func (s *GSet[E]) put(e E) {
	if s.elems == nil {
		s.elems = make(map[E]struct{})
	}
	s.elems[e] = struct{}{}
}

// Contains reports whether e is in the set.
func (s GSet[E]) Contains(e E) bool {
	_, found := s.elems[e]
	return found
}

// Len returns the number of elements.
func (s GSet[E]) Len() int { return len(s.elems) }

// All yields the elements in no particular order. The set must not change meanwhile.
func (s GSet[E]) All() iter.Seq[E] { return maps.Keys(s.elems) }

// Merge joins another replica's state, or a delta of it, into s. It leaves o as it is and shares nothing with it.
func (s *GSet[E]) Merge(o GSet[E]) {
	for e := range o.elems {
		s.put(e)
	}
}

// Clone returns a copy that shares nothing with s.
func (s GSet[E]) Clone() GSet[E] { return GSet[E]{maps.Clone(s.elems)} }

// AppendBinary appends the encoding of s. Equal states have equal encodings. The error is that of an element that
// cannot be encoded.
func (s GSet[E]) AppendBinary(b []byte) ([]byte, error) {
	return s.appendElems(appendHead(b, kindGSet))
}

func (s GSet[E]) appendElems(b []byte) ([]byte, error) {
	return appendSorted(b, func(yield func(E, struct{}) bool) { maps.All(s.elems)(yield) },
		func(b []byte, e E, _ struct{}) ([]byte, error) { return appendElem(b, e) })
}

// MarshalBinary returns the encoding of s.
func (s GSet[E]) MarshalBinary() ([]byte, error) { return s.AppendBinary(nil) }

// UnmarshalBinary sets s from an encoding. Malformed bytes give an error and leave s as it was; those of a newer
// format a *coterie.FormatError.
func (s *GSet[E]) UnmarshalBinary(b []byte) error {
	r := wire.NewReader(b)
	if err := readHead(&r, kindGSet); err != nil {
		return err
	}
	read := readSet[E](&r)
	if err := r.Done(); err != nil {
		return decoded(kindGSet, err)
	}
	*s = read
	return nil
}

func readSet[E comparable](r *wire.Reader) (s GSet[E]) {
	readSorted(r, func(p []byte) error {
		e, err := readElem[E](p)
		if err == nil {
			s.put(e)
		}
		return err
	})
	return s
}

// MarshalJSON returns the elements as an array.
func (s GSet[E]) MarshalJSON() ([]byte, error) { return jsonArray(s.All()) }

// appendSorted appends the entries of a map, each with its length, in the order of their bytes.
func appendSorted[K, V any](b []byte, all iter.Seq2[K, V], enc func([]byte, K, V) ([]byte, error)) ([]byte, error) {
	var parts [][]byte
	var arena []byte
	for k, v := range all {
		start := len(arena)
		var err error
		if arena, err = enc(arena, k, v); err != nil {
			return b, err
		}
		parts = append(parts, arena[start:len(arena):len(arena)])
	}
	slices.SortFunc(parts, bytes.Compare)
	b = wire.AppendUvarint(b, uint64(len(parts)))
	for _, p := range parts {
		b = wire.AppendBytes(b, p)
	}
	return b, nil
}

// readSorted takes what appendSorted wrote.
func readSorted(r *wire.Reader, take func(p []byte) error) {
	var last []byte
	for i := range r.Count(1) {
		p := r.Bytes()
		if r.Err() != nil {
			return
		}
		if i > 0 && bytes.Compare(last, p) >= 0 {
			r.Fail("entries out of order")
			return
		}
		if err := take(p); err != nil {
			r.Fail("%v", err)
			return
		}
		last = p
	}
}

// TwoPhaseSet is a set whose elements are added and removed once: what was removed never comes back (Shapiro et al.,
// 2011, Specification 12). It keeps every element for ever, removed ones too: take it for ids that are used once.
//
// The zero value is an empty set, ready to use. A copy made by assignment shares memory: Clone copies. Reading is safe
// from many goroutines, changing is not.
type TwoPhaseSet[E comparable] struct{ added, removed GSet[E] }

// Add adds e and returns the delta. It has no effect on an element that was removed.
func (s *TwoPhaseSet[E]) Add(e E) (delta TwoPhaseSet[E]) {
	return TwoPhaseSet[E]{added: s.added.Add(e)}
}

// Remove takes e out for ever and returns the delta, which is empty if e is not in the set.
func (s *TwoPhaseSet[E]) Remove(e E) (delta TwoPhaseSet[E]) {
	if s.Contains(e) {
		delta.removed = s.removed.Add(e)
	}
	return delta
}

// Contains reports whether e was added and not removed.
func (s TwoPhaseSet[E]) Contains(e E) bool { return s.added.Contains(e) && !s.removed.Contains(e) }

// Len returns the number of elements, in the time that it takes to count them.
func (s TwoPhaseSet[E]) Len() (n int) {
	for range s.All() {
		n++
	}
	return n
}

// All yields the elements in no particular order. The set must not change meanwhile.
func (s TwoPhaseSet[E]) All() iter.Seq[E] {
	return func(yield func(E) bool) {
		for e := range s.added.elems {
			if !s.removed.Contains(e) && !yield(e) {
				return
			}
		}
	}
}

// Merge joins another replica's state, or a delta of it, into s. It leaves o as it is and shares nothing with it.
func (s *TwoPhaseSet[E]) Merge(o TwoPhaseSet[E]) {
	s.added.Merge(o.added)
	s.removed.Merge(o.removed)
}

// Clone returns a copy that shares nothing with s.
func (s TwoPhaseSet[E]) Clone() TwoPhaseSet[E] {
	return TwoPhaseSet[E]{s.added.Clone(), s.removed.Clone()}
}

// AppendBinary appends the encoding of s. Equal states have equal encodings. The error is that of an element that
// cannot be encoded.
func (s TwoPhaseSet[E]) AppendBinary(b []byte) ([]byte, error) {
	b, err := s.added.appendElems(appendHead(b, kindTwoPhaseSet))
	if err != nil {
		return b, err
	}
	return s.removed.appendElems(b)
}

// MarshalBinary returns the encoding of s.
func (s TwoPhaseSet[E]) MarshalBinary() ([]byte, error) { return s.AppendBinary(nil) }

// UnmarshalBinary sets s from an encoding. Malformed bytes give an error and leave s as it was; those of a newer
// format a *coterie.FormatError.
func (s *TwoPhaseSet[E]) UnmarshalBinary(b []byte) error {
	r := wire.NewReader(b)
	if err := readHead(&r, kindTwoPhaseSet); err != nil {
		return err
	}
	read := TwoPhaseSet[E]{added: readSet[E](&r)}
	read.removed = readSet[E](&r)
	if err := r.Done(); err != nil {
		return decoded(kindTwoPhaseSet, err)
	}
	*s = read
	return nil
}

// MarshalJSON returns the elements as an array.
func (s TwoPhaseSet[E]) MarshalJSON() ([]byte, error) { return jsonArray(s.All()) }
