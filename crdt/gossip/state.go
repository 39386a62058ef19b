package gossip

import (
	"bytes"

	"github.com/cespare/xxhash/v2"

	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/internal/wire"
)

// Replicated is a CRDT as a Core sees it: by bytes. State makes one of any type of package crdt; a *text.Text is one.
type Replicated interface {
	// AppendBinary appends the whole state.
	AppendBinary(b []byte) ([]byte, error)
	// MergeBinary merges an encoded state or delta. An error leaves the state as it was.
	MergeBinary(b []byte) error
	// AppendDigest appends a digest of the state; equal states have equal digests.
	AppendDigest(b []byte) ([]byte, error)
	// AppendDiff appends a delta of what a state with a digest lacks, nothing if it lacks nothing.
	AppendDiff(b, digest []byte) ([]byte, error)
	// Version returns the events that the state comprises, without gaps; empty if the type does not tell.
	Version() clock.Vector
	// Stable collects what the frontiers allow and returns how much; see text.Text for what settled is. 0 for a type
	// that keeps nothing.
	Stable(frontier, settled clock.Vector) int
}

// value is what the types of package crdt are.
type value[T any] interface {
	*T
	Merge(T)
	AppendBinary(b []byte) ([]byte, error)
	UnmarshalBinary(b []byte) error
}

// State makes a type of package crdt replicated. The state stays the caller's to read and change, between the Core's
// steps: each change's delta goes to Core.Update.
func State[T any, P value[T]](s P) Replicated { return &state[T, P]{s} }

type state[T any, P value[T]] struct{ s P }

func (x *state[T, P]) AppendBinary(b []byte) ([]byte, error) { return x.s.AppendBinary(b) }

func (x *state[T, P]) MergeBinary(b []byte) error {
	var delta T
	if err := P(&delta).UnmarshalBinary(b); err != nil {
		return err
	}
	x.s.Merge(delta)
	return nil
}

// differ is a type with digests of its own.
type differ[T any] interface {
	AppendDigest(b []byte) ([]byte, error)
	Diff(digest []byte) (T, error)
}

// AppendDigest appends the type's own digest or, for a type without one, a hash of its encoding.
func (x *state[T, P]) AppendDigest(b []byte) ([]byte, error) {
	if d, ok := any(x.s).(differ[T]); ok {
		return d.AppendDigest(b)
	}
	whole, err := x.s.AppendBinary(nil)
	return wire.AppendUint64(b, xxhash.Sum64(whole)), err
}

func (x *state[T, P]) AppendDiff(b, digest []byte) ([]byte, error) {
	mine, err := x.AppendDigest(nil)
	if err != nil || bytes.Equal(mine, digest) {
		return b, err
	}
	d, ok := any(x.s).(differ[T])
	if !ok {
		return x.s.AppendBinary(b)
	}
	delta, err := d.Diff(digest)
	if err != nil {
		return b, err
	}
	var none T
	empty, err := P(&none).AppendBinary(nil)
	if err != nil {
		return b, err
	}
	diff, err := P(&delta).AppendBinary(nil)
	if err != nil || bytes.Equal(diff, empty) {
		return b, err
	}
	return append(b, diff...), nil
}

func (x *state[T, P]) Version() clock.Vector {
	switch s := any(x.s).(type) {
	case interface{ Context() clock.DotSet }:
		return s.Context().Vector()
	case interface{ Context() clock.Vector }:
		return s.Context()
	}
	return clock.Vector{}
}

func (x *state[T, P]) Stable(frontier, _ clock.Vector) int {
	if s, ok := any(x.s).(interface{ Stable(clock.Vector) int }); ok {
		return s.Stable(frontier)
	}
	return 0
}
