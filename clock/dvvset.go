package clock

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// DVVSet is a dotted version vector set: the values that concurrent writers left under one key, and the causal history
// of the key (Preguica et al., "Dotted Version Vectors: Logical Clocks for Optimistic Replication", 2010; Almeida et
// al., "Scalable and Accurate Causality Tracking for Eventually Consistent Stores", 2014, §6).
//
// A client reads Values and Context at any replica and sends the Context back with its write. The write replaces just
// the values that the client had seen. Unlike with a Vector per replica, two clients that write through one replica
// without having seen each other's value are recognized as concurrent, and unlike with a Vector entry per client, the
// metadata grows with the replicas only and values do not multiply.
//
// For each replica it keeps the number n of writes known, and the values of the newest ones, those after a number
// removed: of its writes 1..n, those up to removed were seen by a later write or deleted. As both numbers only grow, a
// merge takes the greater of each.
//
// The zero value is a key never written. Reading is safe from many goroutines, changing is not; values are copied by
// assignment.
type DVVSet[T any] struct {
	entries []siblings[T] // by id, n never 0
}

// siblings are the writes through one replica, of which values are the newest, oldest first.
type siblings[T any] struct {
	id     coterie.NodeID
	n      uint64
	values []T
}

func (s *siblings[T]) removed() uint64 { return s.n - uint64(len(s.values)) }

// Context returns all writes that the set knows of, for a client to hand back with its write.
func (s DVVSet[T]) Context() Vector {
	v := Vector{entries: make([]entry, len(s.entries))}
	for i := range s.entries {
		v.entries[i] = entry{s.entries[i].id, s.entries[i].n}
	}
	return v
}

// Len returns the number of values: 0 for a key deleted or never written, over 1 for a conflict.
func (s DVVSet[T]) Len() (n int) {
	for i := range s.entries {
		n += len(s.entries[i].values)
	}
	return n
}

// All yields the values, each with the write that made it, by replica and number. The set must not change meanwhile.
func (s DVVSet[T]) All() iter.Seq2[Dot, T] {
	return func(yield func(Dot, T) bool) {
		for i := range s.entries {
			e := &s.entries[i]
			for j, value := range e.values {
				if !yield(Dot{e.id, e.removed() + uint64(j) + 1}, value) {
					return
				}
			}
		}
	}
}

// Values returns the values in the order of All.
func (s DVVSet[T]) Values() []T {
	values := make([]T, 0, s.Len())
	for i := range s.entries {
		values = append(values, s.entries[i].values...)
	}
	return values
}

// Write adds a value written through replica id by a client that had read context, and returns the event that the
// write is. The values which the client had seen go. Only the replica itself may write under its id.
func (s *DVVSet[T]) Write(id coterie.NodeID, context Vector, value T) Dot {
	s.Discard(context)
	i, found := s.find(id)
	if !found {
		s.entries = slices.Insert(s.entries, i, siblings[T]{id: id})
	}
	e := &s.entries[i]
	e.n++
	e.values = append(e.values, value)
	return Dot{id, e.n}
}

// Discard takes out the values that context has seen: a delete by a client that had read context.
func (s *DVVSet[T]) Discard(context Vector) {
	for _, c := range context.entries {
		i, found := s.find(c.id)
		if !found {
			s.entries = slices.Insert(s.entries, i, siblings[T]{id: c.id})
		}
		s.entries[i].raise(c.n, c.n, nil)
	}
}

// Merge adds what another replica knows of the key: values that either has not, and goes without those that the other
// has seen replaced. It is a semilattice join. It leaves o as it is and shares no memory with it but that of values.
func (s *DVVSet[T]) Merge(o DVVSet[T]) {
	for j := range o.entries {
		from := &o.entries[j]
		i, found := s.find(from.id)
		if !found {
			s.entries = slices.Insert(s.entries, i, siblings[T]{id: from.id})
		}
		s.entries[i].raise(from.n, from.removed(), from.values)
	}
}

// Compare tells how the histories stand: Before if a merge would change s but not o.
func (s DVVSet[T]) Compare(o DVVSet[T]) Ordering {
	known := s.Context().Compare(o.Context())
	gone := s.removedContext().Compare(o.removedContext())
	switch {
	case known == gone, gone == Equal:
		return known
	case known == Equal:
		return gone
	}
	return Concurrent
}

// removedContext returns the writes whose values are gone.
func (s DVVSet[T]) removedContext() (v Vector) {
	for i := range s.entries {
		if n := s.entries[i].removed(); n > 0 {
			v.entries = append(v.entries, entry{s.entries[i].id, n})
		}
	}
	return v
}

// Clone returns a copy that shares nothing with s but what the values themselves refer to.
func (s DVVSet[T]) Clone() DVVSet[T] {
	c := DVVSet[T]{entries: slices.Clone(s.entries)}
	for i := range c.entries {
		c.entries[i].values = slices.Clone(c.entries[i].values)
	}
	return c
}

func (s DVVSet[T]) find(id coterie.NodeID) (int, bool) {
	return slices.BinarySearchFunc(s.entries, id, func(e siblings[T], id coterie.NodeID) int {
		switch {
		case e.id == id:
			return 0
		case e.id < id:
			return -1
		}
		return 1
	})
}

// raise makes n and removed at least the given ones; values are those of the writes removed+1..n.
func (s *siblings[T]) raise(n, removed uint64, values []T) {
	if n > s.n {
		// Ours that are not removed, then theirs that are new to us.
		ours := s.values
		if gone := removed - min(removed, s.removed()); gone > 0 {
			ours = ours[min(gone, uint64(len(ours))):]
		}
		theirs := values[max(s.n, removed)-removed:]
		s.values = append(append(make([]T, 0, len(ours)+len(theirs)), ours...), theirs...)
		s.n = n
		return
	}
	if gone := removed - min(removed, s.removed()); gone > 0 {
		s.values = slices.Delete(s.values, 0, int(gone))
	}
}

// AppendBinaryFunc appends the encoding of s: a format byte, the number of replicas, and for each, in the order of
// ids, the id, the number of writes, the number of values and, each with its length, what encode appends for them.
func (s DVVSet[T]) AppendBinaryFunc(b []byte, encode func([]byte, T) ([]byte, error)) ([]byte, error) {
	b = append(b, format)
	b = wire.AppendUvarint(b, uint64(len(s.entries)))
	var scratch []byte
	for i := range s.entries {
		e := &s.entries[i]
		b = wire.AppendString(b, e.id)
		b = wire.AppendUvarint(b, e.n)
		b = wire.AppendUvarint(b, uint64(len(e.values)))
		for _, value := range e.values {
			var err error
			if scratch, err = encode(scratch[:0], value); err != nil {
				return nil, fmt.Errorf("clock: sibling set: %w", err)
			}
			b = wire.AppendBytes(b, scratch)
		}
	}
	return b, nil
}

// UnmarshalBinaryFunc sets s from its encoding, with decode for the values; the bytes it is given are part of b.
// Malformed bytes, or an error of decode, give an error and leave s as it was; a newer format a *coterie.FormatError.
func (s *DVVSet[T]) UnmarshalBinaryFunc(b []byte, decode func([]byte) (T, error)) error {
	r := wire.NewReader(b)
	if err := readFormat(&r, "sibling set"); err != nil {
		return err
	}
	var entries []siblings[T]
	for range r.Count(3) {
		e := siblings[T]{id: coterie.NodeID(r.String()), n: r.Uvarint()}
		for range r.Count(1) {
			raw := r.Bytes()
			if r.Err() != nil {
				break
			}
			value, err := decode(raw)
			if err != nil {
				return fmt.Errorf("clock: sibling set: %w", err)
			}
			e.values = append(e.values, value)
		}
		switch {
		case r.Err() != nil:
		case len(entries) > 0 && e.id <= entries[len(entries)-1].id:
			r.Fail("id %q after %q", e.id, entries[len(entries)-1].id)
		case e.n == 0 || e.n >= MaxTime || uint64(len(e.values)) > e.n:
			r.Fail("%d values of %d writes through %q", len(e.values), e.n, e.id)
		}
		if r.Err() != nil {
			break
		}
		entries = append(entries, e)
	}
	if err := r.Done(); err != nil {
		return fmt.Errorf("clock: sibling set: %w", err)
	}
	s.entries = entries
	return nil
}

// dvvJSON is one replica of a DVVSet in JSON.
type dvvJSON[T any] struct {
	Writes uint64 `json:"writes"`
	Values []T    `json:"values"`
}

// MarshalJSON returns an object of replicas, {"a":{"writes":3,"values":["x"]}}.
func (s DVVSet[T]) MarshalJSON() ([]byte, error) {
	m := make(map[coterie.NodeID]dvvJSON[T], len(s.entries))
	for _, e := range s.entries {
		m[e.id] = dvvJSON[T]{e.n, append([]T{}, e.values...)}
	}
	return json.Marshal(m)
}

// UnmarshalJSON sets s from an object of replicas. An error leaves s as it was.
func (s *DVVSet[T]) UnmarshalJSON(b []byte) error {
	var m map[coterie.NodeID]dvvJSON[T]
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("clock: sibling set: %w", err)
	}
	entries := make([]siblings[T], 0, len(m))
	for _, id := range slices.Sorted(maps.Keys(m)) {
		e := m[id]
		if e.Writes == 0 || e.Writes >= MaxTime || uint64(len(e.Values)) > e.Writes {
			return fmt.Errorf("clock: sibling set: %w: %d values of %d writes through %q",
				wire.ErrMalformed, len(e.Values), e.Writes, id)
		}
		entries = append(entries, siblings[T]{id, e.Writes, e.Values})
	}
	s.entries = entries
	return nil
}
