package crdt

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"slices"

	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/internal/wire"
)

// ORMap is a map of keys to values that are CRDTs themselves: ORMap[string, ORSet[string]], or a map of maps. Updates of
// one key from several replicas join as its value's type joins them. A remove takes away all that its replica has seen
// under the key and nothing else, so that what is written under it concurrently survives, alone (reset-remove;
// Almeida, Shoker and Baquero, 2018, §7.4.2). All values share the causal context of the map: a removed key leaves
// nothing behind.
//
// The zero value is an empty map, ready to use. A copy made by assignment is the same map, as that of a Go map is:
// Clone copies. Reading is safe from many goroutines, changing is not.
type ORMap[K comparable, V Causal[V]] struct{ s *ormap[K, V] }

// ormap has each live dot twice: under its key in the kernel, which finds what a delta removes, and with its payload
// in the key's value. Invariant: the dots of a key are those of its value, and no value is without dots.
type ormap[K comparable, V Causal[V]] struct {
	keyed[K, member[K]]
	values map[K]V
}

func (m *ORMap[K, V]) init() *ormap[K, V] {
	if m.s == nil {
		m.s = &ormap[K, V]{values: make(map[K]V)}
	}
	return m.s
}

// Update changes the value of a key, empty if there is none, by change, which makes it at a replica's id and returns
// the delta: m.Update("k", func(v *crdt.ORSet[string]) crdt.ORSet[string] { return v.Add(id, "x") }). If change makes
// several changes, it must return their deltas merged. It must not change the map itself. The result is the map's
// delta.
func (m *ORMap[K, V]) Update(key K, change func(value *V) (delta V)) (delta ORMap[K, V]) {
	s := m.init()
	v, found := s.values[key]
	if !found {
		v = v.fresh()
	}
	v.exchange(s.seen)
	inner := change(&v).Clone()
	s.seen = v.exchange(clock.DotSet{})
	d := delta.init()
	if inner.void() { // nothing was changed
		return delta
	}
	d.seen = inner.exchange(clock.DotSet{})
	s.values[key] = v
	for dot := range d.seen.All() {
		switch r, _, live := s.at(dot); {
		case inner.holds(dot):
			d.take(dot, member[K]{key})
			if !live {
				s.take(dot, member[K]{key})
			}
		case live:
			s.removed(r, member[K]{key})
			s.remove(r)
		}
	}
	if d.count() > 0 {
		d.values[key] = inner
	}
	s.tidy(key)
	return delta
}

// Remove takes away a key and returns the delta, which is empty if it is not there. What is written under the key by
// replicas that do not know of the removal survives it.
func (m *ORMap[K, V]) Remove(key K) (delta ORMap[K, V]) {
	if m.s == nil {
		return delta
	}
	if refs := m.s.refs(nil, key); len(refs) > 0 {
		m.s.supersede(refs, &delta.init().kernel)
		delete(m.s.values, key)
	}
	return delta
}

// Merge joins another replica's state, or a delta of it, into m. It leaves o as it is and shares nothing with it but
// what values refer to.
func (m *ORMap[K, V]) Merge(o ORMap[K, V]) {
	if o.s == nil || o.s == m.s {
		return
	}
	s := m.init()
	s.merge(&o.s.kernel, func(r ref, p member[K]) {
		s.added(r, p)
		v, found := s.values[p.e]
		if !found {
			v = v.fresh()
			s.values[p.e] = v
		}
		v.adopt(s.dot(r), o.s.values[p.e])
	}, func(r ref, p member[K]) {
		s.removed(r, p)
		s.values[p.e].discard(s.dot(r))
		if s.lone(r, p.e) {
			delete(s.values, p.e)
		}
	})
}

// lone reports whether a key has no live dot but perhaps r.
func (s *ormap[K, V]) lone(r ref, key K) bool {
	var room [4]ref
	for _, other := range s.refs(room[:0], key) {
		if other != r {
			return false
		}
	}
	return true
}

// tidy takes out the value of a key without dots.
func (s *ormap[K, V]) tidy(key K) {
	var room [4]ref
	if len(s.refs(room[:0], key)) == 0 {
		delete(s.values, key)
	}
}

// Get returns a copy of the value of a key. Changes of the copy are not the map's: Update makes these.
func (m ORMap[K, V]) Get(key K) (value V, found bool) {
	if m.s == nil {
		return value, false
	}
	v, found := m.s.values[key]
	if !found {
		return value, false
	}
	return v.Clone(), true
}

// Contains reports whether the key is there.
func (m ORMap[K, V]) Contains(key K) bool {
	if m.s == nil {
		return false
	}
	_, found := m.s.values[key]
	return found
}

// Len returns the number of keys.
func (m ORMap[K, V]) Len() int {
	if m.s == nil {
		return 0
	}
	return len(m.s.values)
}

// All yields the keys and copies of their values, in no particular order. The map must not change meanwhile.
func (m ORMap[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if m.s == nil {
			return
		}
		for key, v := range m.s.values {
			if !yield(key, v.Clone()) {
				return
			}
		}
	}
}

// Stable collects what its values keep against events that can no longer come, as RWSet.Stable does, and returns how
// much that was.
func (m ORMap[K, V]) Stable(frontier clock.Vector) int { return m.collect(frontier, nil) }

func (m ORMap[K, V]) collect(frontier clock.Vector, gone func(clock.Dot)) (n int) {
	if m.s == nil {
		return 0
	}
	for key, v := range m.s.values {
		n += v.collect(frontier, func(d clock.Dot) {
			if gone != nil {
				gone(d)
			}
			m.s.discard(d)
		})
		m.s.tidy(key)
	}
	return n
}

// Clone returns a copy that shares nothing with m but what values refer to.
func (m ORMap[K, V]) Clone() (c ORMap[K, V]) {
	if m.s != nil {
		s := c.init()
		s.kernel = m.s.clone()
		s.reindex()
		for key, v := range m.s.values {
			s.values[key] = v.Clone()
		}
	}
	return c
}

// Context returns the events that the map has seen, as a copy.
func (m ORMap[K, V]) Context() clock.DotSet {
	if m.s == nil {
		return clock.DotSet{}
	}
	return m.s.seen.Clone()
}

// AppendBinary appends the encoding of m. Equal states have equal encodings. The error is that of a key or value that
// cannot be encoded.
func (m ORMap[K, V]) AppendBinary(b []byte) ([]byte, error) {
	if m.s == nil {
		return appendKernel(b, kindORMap, &kernel[mapDot[K]]{}, nil)
	}
	k := &kernel[mapDot[K]]{seen: m.s.seen}
	for r, p := range m.s.all() {
		k.insert(m.s.dot(r), mapDot[K]{p.e, m.s.dot(r)})
	}
	return appendKernel(b, kindORMap, k, func(b []byte, p mapDot[K]) ([]byte, error) { return m.appendEntry(b, p.key, p.dot) })
}

// mapDot is a dot and its key, while they are encoded.
type mapDot[K comparable] struct {
	key K
	dot clock.Dot
}

// appendEntry appends a key with its length and the value's payload of one dot.
func (m ORMap[K, V]) appendEntry(b []byte, key K, d clock.Dot) ([]byte, error) {
	b, err := appendSized(b, func(b []byte) ([]byte, error) { return appendElem(b, key) })
	if err != nil {
		return b, err
	}
	return m.s.values[key].appendDot(b, d)
}

// MarshalBinary returns the encoding of m.
func (m ORMap[K, V]) MarshalBinary() ([]byte, error) { return m.AppendBinary(nil) }

// UnmarshalBinary sets m from an encoding. Malformed bytes give an error and leave m as it was; those of a newer
// format a *coterie.FormatError.
func (m *ORMap[K, V]) UnmarshalBinary(b []byte) error {
	raw, err := readKernel(b, kindORMap, func(p []byte) ([]byte, error) { return p, nil })
	if err != nil {
		return err
	}
	var read ORMap[K, V]
	s := read.init()
	for r, p := range raw.all() {
		if err := read.takeDot(raw.dot(r), p); err != nil {
			return decoded(kindORMap, err)
		}
	}
	s.seen = raw.seen
	*m = read
	return nil
}

// MarshalJSON returns an object of the keys and values, for people: it leaves out what a merge needs. Keys that are no
// strings are written as their JSON, in a string.
func (m ORMap[K, V]) MarshalJSON() ([]byte, error) {
	if m.s == nil {
		return []byte("{}"), nil
	}
	return jsonObject(func(yield func(K, any) bool) {
		for key, v := range m.s.values {
			if !yield(key, v) {
				return
			}
		}
	})
}

// jsonObject returns a JSON object, sorted by keys.
func jsonObject[K comparable](all iter.Seq2[K, any]) ([]byte, error) {
	var parts [][]byte
	for key, v := range all {
		name, err := json.Marshal(key)
		if err != nil {
			return nil, err
		}
		if len(name) == 0 || name[0] != '"' {
			name, _ = json.Marshal(string(name))
		}
		value, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		parts = append(parts, fmt.Appendf(nil, "%s:%s", name, value))
	}
	slices.SortFunc(parts, bytes.Compare)
	return append(append([]byte{'{'}, bytes.Join(parts, []byte{','})...), '}'), nil
}

func (m ORMap[K, V]) fresh() (v ORMap[K, V]) {
	v.init()
	return v
}

func (m ORMap[K, V]) void() bool { return m.s == nil }

func (m ORMap[K, V]) holds(d clock.Dot) bool { return m.s.holds(d) }

func (m ORMap[K, V]) adopt(d clock.Dot, from ORMap[K, V]) {
	_, p, found := from.s.at(d)
	if !found {
		return
	}
	m.value(p.e).adopt(d, from.s.values[p.e])
	m.s.take(d, p)
}

// value returns the value of a key, a new one if there is none.
func (m ORMap[K, V]) value(key K) V {
	v, found := m.s.values[key]
	if !found {
		v = v.fresh()
		m.s.values[key] = v
	}
	return v
}

func (m ORMap[K, V]) discard(d clock.Dot) {
	if _, p, found := m.s.at(d); found {
		m.s.values[p.e].discard(d)
		m.s.discard(d)
		m.s.tidy(p.e)
	}
}

func (m ORMap[K, V]) exchange(seen clock.DotSet) clock.DotSet { return m.s.exchange(seen) }

func (m ORMap[K, V]) appendDot(b []byte, d clock.Dot) ([]byte, error) {
	_, p, _ := m.s.at(d)
	return m.appendEntry(b, p.e, d)
}

func (m ORMap[K, V]) takeDot(d clock.Dot, b []byte) error {
	r := wire.NewReader(b)
	p := r.Bytes()
	if err := r.Err(); err != nil {
		return err
	}
	key, err := readElem[K](p)
	if err != nil {
		return err
	}
	if err := m.value(key).takeDot(d, r.Rest()); err != nil {
		m.s.tidy(key)
		return err
	}
	m.s.take(d, member[K]{key})
	return nil
}
