package crdt

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"reflect"
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/internal/wire"
)

// format is the first byte of every encoding; the second says which type it is of, so that a state of one type is not
// taken for another's.
const format = 1

// kind is the second byte of an encoding. The numbers are for ever.
type kind byte

const (
	kindGCounter kind = iota + 1
	kindPNCounter
	kindBoundedCounter
	kindGSet
	kindTwoPhaseSet
	kindLWWSet
	kindORSet
	kindRWSet
	kindEWFlag
	kindDWFlag
	kindLWWRegister
	kindMVRegister
	kindLWWMap
	kindORMap
	kindList
	kindCausalCounter
)

var kindNames = [...]string{
	"?", "grow-only counter", "counter", "bounded counter", "grow-only set", "two-phase set", "last-writer-wins set",
	"observed-remove set", "remove-wins set", "enable-wins flag", "disable-wins flag", "last-writer-wins register",
	"multi-value register", "last-writer-wins map", "observed-remove map", "list", "causal counter",
}

func (k kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", byte(k))
}

func appendHead(b []byte, k kind) []byte { return append(b, format, byte(k)) }

// readHead takes the first two bytes.
func readHead(r *wire.Reader, k kind) error {
	if got := r.Byte(); r.Err() == nil && got != format {
		if got > format {
			return &coterie.FormatError{What: "crdt " + k.String(), Got: got, Max: format}
		}
		r.Fail("format %d", got)
	}
	if got := kind(r.Byte()); r.Err() == nil && got != k {
		r.Fail("a %v", got)
	}
	return nil
}

// decoded wraps the error of a decoder.
func decoded(k kind, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("crdt: %v: %w", k, err)
}

// appendElem appends an element: strings as their bytes, numbers as varints or 8 bytes, what encodes itself by that
// (BinaryAppender, BinaryMarshaler), and everything else as JSON.
func appendElem[E any](b []byte, e E) ([]byte, error) {
	switch v := any(&e).(type) {
	case *string:
		return append(b, *v...), nil
	case *[]byte:
		return append(b, *v...), nil
	case *int:
		return wire.AppendVarint(b, int64(*v)), nil
	case *uint64:
		return wire.AppendUvarint(b, *v), nil
	case *struct{}:
		return b, nil
	case encoding.BinaryAppender:
		return v.AppendBinary(b)
	case encoding.BinaryMarshaler:
		p, err := v.MarshalBinary()
		return append(b, p...), err
	}
	switch v := reflect.ValueOf(&e).Elem(); v.Kind() {
	case reflect.String:
		return append(b, v.String()...), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return wire.AppendVarint(b, v.Int()), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return wire.AppendUvarint(b, v.Uint()), nil
	case reflect.Bool:
		return wire.AppendBool(b, v.Bool()), nil
	case reflect.Float32, reflect.Float64:
		return wire.AppendUint64(b, math.Float64bits(v.Float())), nil
	default:
		p, err := json.Marshal(e)
		return append(b, p...), err
	}
}

var errElement = errors.New("element out of its type's range")

// readElem is the reverse of appendElem. The element shares nothing with b.
func readElem[E any](b []byte) (e E, err error) {
	switch v := any(&e).(type) {
	case *string:
		*v = string(b)
		return e, nil
	case *[]byte:
		*v = bytes.Clone(b)
		return e, nil
	case *struct{}:
		if len(b) > 0 {
			err = errElement
		}
		return e, err
	case encoding.BinaryUnmarshaler:
		// The value may keep what it is given.
		return e, v.UnmarshalBinary(bytes.Clone(b))
	}
	r := wire.NewReader(b)
	switch v := reflect.ValueOf(&e).Elem(); v.Kind() {
	case reflect.String:
		v.SetString(string(b))
		return e, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n := r.Varint()
		if v.OverflowInt(n) {
			return e, errElement
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		n := r.Uvarint()
		if v.OverflowUint(n) {
			return e, errElement
		}
		v.SetUint(n)
	case reflect.Bool:
		v.SetBool(r.Bool())
	case reflect.Float32, reflect.Float64:
		f := math.Float64frombits(r.Uint64())
		if math.IsNaN(f) { // is not equal to itself: no key of a map finds it
			return e, errElement
		}
		v.SetFloat(f)
	default:
		return e, json.Unmarshal(b, &e)
	}
	return e, r.Done()
}

// appendSized appends what f appends, after its length.
func appendSized(b []byte, f func([]byte) ([]byte, error)) ([]byte, error) {
	start := len(b)
	b, err := f(append(b, 0)) // a length under 128 takes one byte, and is most often so
	if err != nil {
		return b[:start], err
	}
	n := uint64(len(b) - start - 1)
	if n < 0x80 {
		b[start] = byte(n)
		return b, nil
	}
	var length [10]byte
	return slices.Replace(b, start, start+1, wire.AppendUvarint(length[:0], n)...), nil
}

// appendKernel appends the encoding of a kernel: the context with its length, then for each replica with live dots, in
// the order of ids, its id, their number and for each the gap before it and the payload with its length.
func appendKernel[P any](b []byte, k kind, s *kernel[P], enc func([]byte, P) ([]byte, error)) ([]byte, error) {
	b, err := appendSized(appendHead(b, k), s.seen.AppendBinary)
	if err != nil {
		return b, err
	}
	lanes := s.lanes()
	b = wire.AppendUvarint(b, uint64(len(lanes)))
	for _, l := range lanes {
		n := 0
		for _, chunk := range l.chunks {
			n += len(chunk)
		}
		b = wire.AppendUvarint(wire.AppendString(b, l.id), uint64(n))
		last := uint64(0)
		for _, chunk := range l.chunks {
			for i := range chunk {
				b = wire.AppendUvarint(b, chunk[i].seq-last-1)
				last = chunk[i].seq
				if b, err = appendSized(b, func(b []byte) ([]byte, error) { return enc(b, chunk[i].payload) }); err != nil {
					return b, fmt.Errorf("crdt: %v: %w", k, err)
				}
			}
		}
	}
	return b, nil
}

// lanes returns the replicas with live dots, in the order of ids.
func (k *kernel[P]) lanes() []*lane[P] {
	lanes := make([]*lane[P], 0, len(k.live))
	for l := range k.live {
		if len(k.live[l].chunks) > 0 {
			lanes = append(lanes, &k.live[l])
		}
	}
	slices.SortFunc(lanes, func(a, b *lane[P]) int { return clock.Dot{Node: a.id}.Compare(clock.Dot{Node: b.id}) })
	return lanes
}

// readKernel is the reverse of appendKernel.
func readKernel[P any](b []byte, k kind, dec func([]byte) (P, error)) (s kernel[P], err error) {
	r := wire.NewReader(b)
	if err := readHead(&r, k); err != nil {
		return s, err
	}
	if p := r.Bytes(); r.Err() == nil {
		if err := s.seen.UnmarshalBinary(p); err != nil {
			return s, decoded(k, err)
		}
	}
	for range r.Count(4) {
		id := coterie.NodeID(r.String())
		n := r.Count(2)
		switch {
		case r.Err() != nil:
		case n == 0:
			r.Fail("no dot of %q", id)
		case len(s.live) > 0 && id <= s.live[len(s.live)-1].id:
			r.Fail("id %q out of order", id)
		}
		if r.Err() != nil {
			break
		}
		s.live = append(s.live, lane[P]{id: id})
		readLane(&r, &s, n, dec)
	}
	if err := r.Done(); err != nil {
		return kernel[P]{}, decoded(k, err)
	}
	return s, nil
}

// readLane takes the n live dots of the last lane.
func readLane[P any](r *wire.Reader, s *kernel[P], n int, dec func([]byte) (P, error)) {
	l := &s.live[len(s.live)-1]
	last := uint64(0)
	for range n {
		seq := last + r.Uvarint() + 1
		p := r.Bytes()
		switch {
		case r.Err() != nil:
			return
		case seq <= last || !s.seen.Contains(clock.Dot{Node: l.id, Seq: seq}):
			r.Fail("dot %d of %q out of order or not in the context", seq, l.id)
			return
		}
		payload, err := dec(p)
		if err != nil {
			r.Fail("%v", err)
			return
		}
		last = seq
		l.insert(seq, payload)
	}
}

// jsonArray returns the elements of a sequence as a JSON array, sorted by their encodings, so that equal sets look
// equal.
func jsonArray[E any](all iter.Seq[E]) ([]byte, error) {
	var parts [][]byte
	for e := range all {
		p, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	slices.SortFunc(parts, bytes.Compare)
	return append(append([]byte{'['}, bytes.Join(parts, []byte{','})...), ']'), nil
}
