package membership

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
)

// Codec turns metadata into bytes and back. Both functions must be safe for concurrent use.
type Codec[T any] struct {
	Encode func(T) ([]byte, error)
	Decode func([]byte) (T, error)
}

// JSON is the Codec that a person can read.
func JSON[T any]() Codec[T] {
	return Codec[T]{
		Encode: func(v T) ([]byte, error) { return json.Marshal(v) },
		Decode: func(b []byte) (v T, err error) {
			err = json.Unmarshal(b, &v)
			return v, err
		},
	}
}

// Group is a membership protocol as a node of it shows it: package swim has one.
type Group interface {
	// Members returns the members as they are now, this node included, sorted by ID.
	Members() []Member[[]byte]
	// Events returns an iteration over the changes, preceded by a join of each present member; see Feed.Events.
	Events() iter.Seq[Event[[]byte]]
	// Update replaces this node's metadata.
	Update(ctx context.Context, meta []byte) error
}

// Typed is a Group whose members' metadata are values of T. It is as safe for concurrent use as the Group.
type Typed[T any] struct {
	group Group
	codec Codec[T]
}

// As shows a group with metadata of type T.
func As[T any](group Group, codec Codec[T]) Typed[T] { return Typed[T]{group, codec} }

// Members returns the members as they are now, sorted by ID. One whose metadata cannot be decoded has an Err.
func (t Typed[T]) Members() []Member[T] {
	raw := t.group.Members()
	members := make([]Member[T], len(raw))
	for i, m := range raw {
		members[i] = t.decode(m)
	}
	return members
}

// Events is the group's.
func (t Typed[T]) Events() iter.Seq[Event[T]] {
	return func(yield func(Event[T]) bool) {
		for e := range t.group.Events() {
			if !yield(Event[T]{e.Kind, t.decode(e.Member)}) {
				return
			}
		}
	}
}

// Update replaces this node's metadata. Errors are those of encoding and of the group.
func (t Typed[T]) Update(ctx context.Context, meta T) error {
	b, err := t.codec.Encode(meta)
	if err != nil {
		return fmt.Errorf("membership: encode metadata: %w", err)
	}
	return t.group.Update(ctx, b)
}

func (t Typed[T]) decode(m Member[[]byte]) Member[T] {
	typed := Member[T]{
		ID: m.ID, Address: m.Address, State: m.State,
		Incarnation: m.Incarnation, Life: m.Life, Since: m.Since, Err: m.Err,
	}
	if m.Err == nil {
		var err error
		if typed.Meta, err = t.codec.Decode(m.Meta); err != nil {
			typed.Err = fmt.Errorf("membership: decode metadata of %s: %w", m.ID, err)
		}
	}
	return typed
}
