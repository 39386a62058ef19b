package crdt

import (
	"bytes"
	"encoding/json"
	"iter"
	"maps"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/internal/wire"
)

// stamped is a value and the time at which it was written: what every last-writer-wins type is made of. dead marks a
// value that was deleted.
type stamped[T any] struct {
	at    clock.Timestamp
	dead  bool
	value T
}

// after reports whether s wins over o: the later write, of equal times the deletion, and of two values with one time,
// which is a broken clock's work, the one of the greater encoding, so that replicas agree even then.
func (s *stamped[T]) after(o *stamped[T]) bool {
	switch c := s.at.Compare(o.at); {
	case c != 0:
		return c > 0
	case s.dead || o.dead:
		return s.dead && !o.dead
	}
	a, errA := appendElem(nil, s.value)
	b, errB := appendElem(nil, o.value)
	return errA == nil && errB == nil && bytes.Compare(a, b) > 0
}

// append appends time, node, state and value.
func (s *stamped[T]) append(b []byte) ([]byte, error) {
	b = wire.AppendString(wire.AppendUvarint(b, s.at.Time), s.at.Node)
	if s.dead {
		return append(b, 1), nil
	}
	return appendElem(append(b, 0), s.value)
}

// readStamped takes what append wrote, to the end.
func readStamped[T any](r *wire.Reader) (s stamped[T]) {
	s.at.Time, s.at.Node = r.Uvarint(), coterie.NodeID(r.String())
	s.dead = r.Bool()
	switch p := r.Rest(); {
	case r.Err() != nil:
	case s.at.Time > clock.MaxTime || s.at.Time == 0:
		r.Fail("time %d", s.at.Time)
	case s.dead && len(p) > 0:
		r.Fail("a value that was deleted")
	case !s.dead:
		var err error
		if s.value, err = readElem[T](p); err != nil {
			r.Fail("%v", err)
		}
	}
	return s
}

// LWWRegister holds the value written last (Shapiro et al., 2011, Specification 8; Johnson and Thomas, RFC 677, 1975).
// Of concurrent writes one is lost, without notice: take MVRegister where that must not be.
//
// Times are those of a clock.HLC whose Update has seen the times that were merged; then a write is after all that its
// replica knew.
//
// The zero value holds nothing, ready to use. A copy made by assignment is a copy. Reading is safe from many
// goroutines, changing is not.
type LWWRegister[T any] struct{ s stamped[T] }

// Set writes a value at a time and returns the delta, which is empty if what is there is later. The zero Timestamp
// writes nothing.
func (r *LWWRegister[T]) Set(at clock.Timestamp, value T) (delta LWWRegister[T]) {
	written := stamped[T]{at: at, value: value}
	if at.IsZero() || !written.after(&r.s) {
		return delta
	}
	r.s = written
	return *r
}

// Get returns the value and when it was written; found is false if none was.
func (r LWWRegister[T]) Get() (value T, at clock.Timestamp, found bool) {
	return r.s.value, r.s.at, !r.s.at.IsZero()
}

// Merge joins another replica's state, or a delta of it, into r.
func (r *LWWRegister[T]) Merge(o LWWRegister[T]) {
	if o.s.after(&r.s) {
		r.s = o.s
	}
}

// Clone returns a copy that shares nothing with r but what the value refers to.
func (r LWWRegister[T]) Clone() LWWRegister[T] { return r }

// AppendBinary appends the encoding of r. Equal states have equal encodings. The error is that of a value that cannot
// be encoded.
func (r LWWRegister[T]) AppendBinary(b []byte) ([]byte, error) {
	b = appendHead(b, kindLWWRegister)
	if r.s.at.IsZero() {
		return b, nil
	}
	return appendSized(b, r.s.append)
}

// MarshalBinary returns the encoding of r.
func (r LWWRegister[T]) MarshalBinary() ([]byte, error) { return r.AppendBinary(nil) }

// UnmarshalBinary sets r from an encoding. Malformed bytes give an error and leave r as it was; those of a newer
// format a *coterie.FormatError.
func (r *LWWRegister[T]) UnmarshalBinary(b []byte) error {
	in := wire.NewReader(b)
	if err := readHead(&in, kindLWWRegister); err != nil {
		return err
	}
	var read stamped[T]
	if in.Len() > 0 {
		value := wire.NewReader(in.Bytes())
		read = readStamped[T](&value)
		if err := value.Done(); err != nil || read.dead {
			in.Fail("value: %v", err)
		}
	}
	if err := in.Done(); err != nil {
		return decoded(kindLWWRegister, err)
	}
	r.s = read
	return nil
}

// MarshalJSON returns the value, null if there is none.
func (r LWWRegister[T]) MarshalJSON() ([]byte, error) {
	if r.s.at.IsZero() {
		return []byte("null"), nil
	}
	return json.Marshal(r.s.value)
}

// LWWMap is a map in which, for each key, the last write or delete wins. Of concurrent ones all but one are lost,
// without notice: take ORMap where that must not be.
//
// Times are those of a clock.HLC whose Update has seen the times that were merged. A deleted key leaves its time behind,
// against older writes still to come, until Stable collects it.
//
// The zero value is an empty map, ready to use. A copy made by assignment shares memory: Clone copies. Reading is safe
// from many goroutines, changing is not.
type LWWMap[K comparable, V any] struct {
	entries map[K]stamped[V]
	dead    int             // how many entries are of deleted keys
	floor   clock.Timestamp // the latest deletion that was collected
}

// Put writes the value of a key at a time and returns the delta, which is empty if what is there is later.
func (m *LWWMap[K, V]) Put(at clock.Timestamp, key K, value V) (delta LWWMap[K, V]) {
	return m.write(key, stamped[V]{at: at, value: value})
}

// Delete deletes a key at a time and returns the delta, which is empty if what is there is later.
func (m *LWWMap[K, V]) Delete(at clock.Timestamp, key K) (delta LWWMap[K, V]) {
	return m.write(key, stamped[V]{at: at, dead: true})
}

func (m *LWWMap[K, V]) write(key K, s stamped[V]) (delta LWWMap[K, V]) {
	// A time at or before a deletion that was collected is a clock's that has not seen what was merged. Another
	// replica may still have that deletion, and not take the write.
	if s.at.IsZero() || (!m.floor.IsZero() && s.at.Compare(m.floor) <= 0) || !m.take(key, s) {
		return delta
	}
	delta.take(key, s)
	return delta
}

// take sets what is under a key if s wins over it.
func (m *LWWMap[K, V]) take(key K, s stamped[V]) bool {
	old, found := m.entries[key]
	if found && !s.after(&old) {
		return false
	}
	if m.entries == nil {
		m.entries = make(map[K]stamped[V])
	}
	if found && old.dead {
		m.dead--
	}
	if s.dead {
		m.dead++
	}
	m.entries[key] = s
	return true
}

// Get returns the value of a key.
func (m LWWMap[K, V]) Get(key K) (value V, found bool) {
	s, found := m.entries[key]
	return s.value, found && !s.dead
}

// Time returns when a key was written or deleted last.
func (m LWWMap[K, V]) Time(key K) (at clock.Timestamp, found bool) {
	s, found := m.entries[key]
	return s.at, found
}

// Len returns the number of keys.
func (m LWWMap[K, V]) Len() int { return len(m.entries) - m.dead }

// All yields the keys and values in no particular order. The map must not change meanwhile.
func (m LWWMap[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for key, s := range m.entries {
			if !s.dead && !yield(key, s.value) {
				return
			}
		}
	}
}

// Merge joins another replica's state, or a delta of it, into m. It leaves o as it is and shares nothing with it but
// what values refer to.
func (m *LWWMap[K, V]) Merge(o LWWMap[K, V]) {
	for key, s := range o.entries {
		m.take(key, s)
	}
}

// Stable forgets the deletions that frontier covers, and returns how many. For this type a frontier counts, for each
// node, times: a vector whose entry for a node is n covers what the node wrote at times up to n. Stability makes one of
// what replicas acknowledge by Context.
func (m *LWWMap[K, V]) Stable(frontier clock.Vector) (n int) {
	for key, s := range m.entries {
		if s.dead && frontier.Get(s.at.Node) >= s.at.Time {
			delete(m.entries, key)
			m.dead--
			n++
			if m.floor.Compare(s.at) < 0 {
				m.floor = s.at
			}
		}
	}
	return n
}

// Context returns, for each node, the time of its latest write that is in the map.
func (m LWWMap[K, V]) Context() (v clock.Vector) {
	for _, s := range m.entries {
		if s.at.Time > v.Get(s.at.Node) {
			v.Set(s.at.Node, s.at.Time)
		}
	}
	return v
}

// Clone returns a copy that shares nothing with m but what values refer to.
func (m LWWMap[K, V]) Clone() LWWMap[K, V] {
	m.entries = maps.Clone(m.entries)
	return m
}

// AppendBinary appends the encoding of m. Equal states have equal encodings. The error is that of a key or value that
// cannot be encoded.
func (m LWWMap[K, V]) AppendBinary(b []byte) ([]byte, error) { return m.appendKind(b, kindLWWMap) }

func (m LWWMap[K, V]) appendKind(b []byte, kind kind) ([]byte, error) {
	return appendSorted(appendHead(b, kind), maps.All(m.entries), func(b []byte, key K, s stamped[V]) ([]byte, error) {
		b, err := appendSized(b, func(b []byte) ([]byte, error) { return appendElem(b, key) })
		if err != nil {
			return b, err
		}
		return s.append(b)
	})
}

// MarshalBinary returns the encoding of m.
func (m LWWMap[K, V]) MarshalBinary() ([]byte, error) { return m.AppendBinary(nil) }

// UnmarshalBinary sets m from an encoding. Malformed bytes give an error and leave m as it was; those of a newer
// format a *coterie.FormatError.
func (m *LWWMap[K, V]) UnmarshalBinary(b []byte) error { return m.unmarshalKind(b, kindLWWMap) }

func (m *LWWMap[K, V]) unmarshalKind(b []byte, kind kind) error {
	r := wire.NewReader(b)
	if err := readHead(&r, kind); err != nil {
		return err
	}
	var read LWWMap[K, V]
	readSorted(&r, func(p []byte) error {
		in := wire.NewReader(p)
		key, err := readElem[K](in.Bytes())
		s := readStamped[V](&in)
		if in.Err() == nil && err == nil && !read.take(key, s) {
			in.Fail("a key twice")
		}
		if in.Err() != nil {
			return in.Err()
		}
		return err
	})
	if err := r.Done(); err != nil {
		return decoded(kind, err)
	}
	*m = read
	return nil
}

// MarshalJSON returns an object of the keys and values. Keys that are no strings are written as their JSON, in a string.
func (m LWWMap[K, V]) MarshalJSON() ([]byte, error) {
	return jsonObject(func(yield func(K, any) bool) {
		for key, v := range m.All() {
			if !yield(key, v) {
				return
			}
		}
	})
}

// LWWSet is a set in which, for each element, the last add or remove wins (Shapiro et al., 2011, §3.3.3): an LWWMap
// without values.
//
// The zero value is an empty set, ready to use. A copy made by assignment shares memory: Clone copies. Reading is safe
// from many goroutines, changing is not.
type LWWSet[E comparable] struct{ m LWWMap[E, struct{}] }

// Add adds e at a time and returns the delta, which is empty if what is known of e is later.
func (s *LWWSet[E]) Add(at clock.Timestamp, e E) (delta LWWSet[E]) {
	return LWWSet[E]{s.m.Put(at, e, struct{}{})}
}

// Remove takes e out at a time and returns the delta, which is empty if what is known of e is later.
func (s *LWWSet[E]) Remove(at clock.Timestamp, e E) (delta LWWSet[E]) {
	return LWWSet[E]{s.m.Delete(at, e)}
}

// Contains reports whether e is in the set.
func (s LWWSet[E]) Contains(e E) bool {
	_, found := s.m.Get(e)
	return found
}

// Len returns the number of elements.
func (s LWWSet[E]) Len() int { return s.m.Len() }

// All yields the elements in no particular order. The set must not change meanwhile.
func (s LWWSet[E]) All() iter.Seq[E] {
	return func(yield func(E) bool) {
		for e := range s.m.All() {
			if !yield(e) {
				return
			}
		}
	}
}

// Merge joins another replica's state, or a delta of it, into s. It leaves o as it is and shares nothing with it.
func (s *LWWSet[E]) Merge(o LWWSet[E]) { s.m.Merge(o.m) }

// Stable forgets the removes that frontier covers, and returns how many; see LWWMap.Stable.
func (s *LWWSet[E]) Stable(frontier clock.Vector) int { return s.m.Stable(frontier) }

// Context returns, for each node, the time of its latest add or remove that is in the set.
func (s LWWSet[E]) Context() clock.Vector { return s.m.Context() }

// Clone returns a copy that shares nothing with s.
func (s LWWSet[E]) Clone() LWWSet[E] { return LWWSet[E]{s.m.Clone()} }

// AppendBinary appends the encoding of s. Equal states have equal encodings. The error is that of an element that
// cannot be encoded.
func (s LWWSet[E]) AppendBinary(b []byte) ([]byte, error) { return s.m.appendKind(b, kindLWWSet) }

// MarshalBinary returns the encoding of s.
func (s LWWSet[E]) MarshalBinary() ([]byte, error) { return s.AppendBinary(nil) }

// UnmarshalBinary sets s from an encoding. Malformed bytes give an error and leave s as it was; those of a newer
// format a *coterie.FormatError.
func (s *LWWSet[E]) UnmarshalBinary(b []byte) error { return s.m.unmarshalKind(b, kindLWWSet) }

// MarshalJSON returns the elements as an array.
func (s LWWSet[E]) MarshalJSON() ([]byte, error) { return jsonArray(s.All()) }
