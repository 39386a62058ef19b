// Package wire is the append-style varint codec that every message and record type uses: functions that append a
// field to a byte slice, and a Reader that takes fields off one and remembers its first error.
//
// A decoder built on it reads every field, then asks Done once; it changes no state before that. Lengths are checked
// against what is left of the input before anything is allocated, so hostile bytes cost no more than their own size.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// ErrMalformed is what every error of a Reader is: the input ended early, had bytes left over or held a value out of
// its range.
var ErrMalformed = errors.New("malformed input")

// AppendUvarint appends v in 1 to 10 bytes.
func AppendUvarint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

// AppendVarint appends v, zigzag coded, in 1 to 10 bytes.
func AppendVarint(b []byte, v int64) []byte { return binary.AppendVarint(b, v) }

// AppendUint64 appends v in 8 bytes, big endian, so that order of bytes is order of values.
func AppendUint64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

// AppendUint32 appends v in 4 bytes, big endian.
func AppendUint32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }

// AppendBool appends one byte, 1 for true.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// AppendBytes appends a length and the bytes of p.
func AppendBytes(b, p []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(p))), p...)
}

// AppendString appends a length and the bytes of s, any string type.
func AppendString[S ~string](b []byte, s S) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Reader takes fields off a byte slice. After its first error it returns zero values only. Bytes that it returns are
// sub-slices of the input. It is a value: a copy reads on from the same place.
type Reader struct {
	rest []byte
	err  error
}

// NewReader returns a Reader of b, which must not change while the Reader or what it returned is in use.
func NewReader(b []byte) Reader { return Reader{rest: b} }

// Fail makes the Reader fail, with a reason, unless it has failed already: for a value that the caller finds out of
// its range. Later reads return zero values.
func (r *Reader) Fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
	r.rest = nil
}

// Err returns the first error so far.
func (r *Reader) Err() error { return r.err }

// Done returns the first error, or one if bytes are left over.
func (r *Reader) Done() error {
	if r.err == nil && len(r.rest) > 0 {
		r.Fail("%d bytes left over", len(r.rest))
	}
	return r.err
}

// Len returns how many bytes are left.
func (r *Reader) Len() int { return len(r.rest) }

// Rest takes all that is left.
func (r *Reader) Rest() []byte {
	p := r.rest
	r.rest = nil
	return p
}

// Uvarint takes an unsigned varint.
func (r *Reader) Uvarint() uint64 {
	if len(r.rest) > 0 && r.rest[0] < 0x80 {
		v := r.rest[0]
		r.rest = r.rest[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.Fail("bad varint")
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// Varint takes a zigzag coded varint.
func (r *Reader) Varint() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.Fail("bad varint")
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// Int takes an unsigned varint that must be at most limit, for sizes and small numbers.
func (r *Reader) Int(limit int) int {
	v := r.Uvarint()
	if v > uint64(limit) || v > math.MaxInt {
		r.Fail("number %d over its limit %d", v, limit)
		return 0
	}
	return int(v)
}

// Count takes the number of elements that follow, each of at least minSize bytes (1 if less), and fails if so many
// cannot be left: what it returns is safe to allocate by.
func (r *Reader) Count(minSize int) int {
	v := r.Uvarint()
	if v > uint64(len(r.rest)/max(minSize, 1)) {
		r.Fail("count %d over what is left", v)
		return 0
	}
	return int(v)
}

// Uint64 takes 8 bytes, big endian.
func (r *Reader) Uint64() uint64 {
	if p := r.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

// Uint32 takes 4 bytes, big endian.
func (r *Reader) Uint32() uint32 {
	if p := r.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

// Byte takes one byte.
func (r *Reader) Byte() byte {
	if len(r.rest) == 0 {
		r.Fail("ended early")
		return 0
	}
	v := r.rest[0]
	r.rest = r.rest[1:]
	return v
}

// Bool takes one byte, which must be 0 or 1.
func (r *Reader) Bool() bool {
	v := r.Byte()
	if v > 1 {
		r.Fail("bad bool %d", v)
	}
	return v == 1
}

// Bytes takes a length and so many bytes, which are part of the input; nil if there are none.
func (r *Reader) Bytes() []byte {
	n := r.Uvarint()
	if n == 0 {
		return nil
	}
	if n > uint64(len(r.rest)) {
		r.Fail("length %d over the %d bytes left", n, len(r.rest))
		return nil
	}
	return r.take(int(n))
}

// String takes a length and so many bytes, as a copy.
func (r *Reader) String() string { return string(r.Bytes()) }

// Fixed takes exactly n bytes, which are part of the input.
func (r *Reader) Fixed(n int) []byte { return r.take(n) }

func (r *Reader) take(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.Fail("ended early")
		return nil
	}
	p := r.rest[:n:n]
	r.rest = r.rest[n:]
	return p
}
