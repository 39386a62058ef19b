package wire

import (
	"bytes"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie/internal/testsize"
)

// Any fields, written one after another, are read back, and nothing is left over.
func TestRoundTrip(t *testing.T) {
	testsize.Checks(t, 1000, 100_000)
	rapid.Check(t, func(t *rapid.T) {
		kinds := rapid.SliceOf(rapid.IntRange(0, 6)).Draw(t, "kinds")
		var b []byte
		var reads []func(r *Reader)
		for _, kind := range kinds {
			switch kind {
			case 0:
				v := rapid.Uint64().Draw(t, "uvarint")
				b = AppendUvarint(b, v)
				reads = append(reads, func(r *Reader) { require.Equal(t, v, r.Uvarint()) })
			case 1:
				v := rapid.Int64().Draw(t, "varint")
				b = AppendVarint(b, v)
				reads = append(reads, func(r *Reader) { require.Equal(t, v, r.Varint()) })
			case 2:
				v := rapid.Uint64().Draw(t, "uint64")
				b = AppendUint64(b, v)
				reads = append(reads, func(r *Reader) { require.Equal(t, v, r.Uint64()) })
			case 3:
				v := rapid.Uint32().Draw(t, "uint32")
				b = AppendUint32(b, v)
				reads = append(reads, func(r *Reader) { require.Equal(t, v, r.Uint32()) })
			case 4:
				v := rapid.Bool().Draw(t, "bool")
				b = AppendBool(b, v)
				reads = append(reads, func(r *Reader) { require.Equal(t, v, r.Bool()) })
			case 5:
				v := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes")
				b = AppendBytes(b, v)
				reads = append(reads, func(r *Reader) { require.True(t, bytes.Equal(v, r.Bytes())) })
			case 6:
				v := rapid.String().Draw(t, "string")
				b = AppendString(b, v)
				reads = append(reads, func(r *Reader) { require.Equal(t, v, r.String()) })
			}
		}
		r := NewReader(b)
		for _, read := range reads {
			read(&r)
		}
		require.NoError(t, r.Done())
	})
}

func TestErrorsStick(t *testing.T) {
	r := NewReader([]byte{1, 2})
	require.Zero(t, r.Uint64())
	require.ErrorIs(t, r.Err(), ErrMalformed)
	first := r.Err()
	require.Zero(t, r.Byte())
	require.Zero(t, r.Uvarint())
	require.Nil(t, r.Bytes())
	require.Empty(t, r.String())
	require.Zero(t, r.Len())
	r.Fail("another reason")
	require.Equal(t, first, r.Done())
}

func TestValuesOutOfRange(t *testing.T) {
	for name, read := range map[string]func(r *Reader){
		"bool":         func(r *Reader) { r.Bool() },
		"count":        func(r *Reader) { r.Count(1) },
		"count of big": func(r *Reader) { r.Count(100) },
		"length":       func(r *Reader) { r.Bytes() },
		"limit":        func(r *Reader) { r.Int(8) },
		"fixed":        func(r *Reader) { r.Fixed(5) },
		"negative":     func(r *Reader) { r.Fixed(-1) },
		"left over":    func(*Reader) {},
	} {
		r := NewReader([]byte{9, 1})
		read(&r)
		require.ErrorIs(t, r.Done(), ErrMalformed, name)
	}
	huge := AppendUvarint(nil, math.MaxUint64)
	for _, read := range []func(r *Reader){
		func(r *Reader) { r.Bytes() }, func(r *Reader) { r.Count(0) }, func(r *Reader) { r.Int(math.MaxInt) },
	} {
		r := NewReader(huge)
		read(&r)
		require.ErrorIs(t, r.Err(), ErrMalformed)
	}
	r := NewReader(bytes.Repeat([]byte{0xff}, 11))
	r.Uvarint()
	require.ErrorIs(t, r.Err(), ErrMalformed)
}

// What a Reader returns cannot grow into the input behind it.
func TestBytesAreClipped(t *testing.T) {
	b := AppendBytes(nil, []byte("ab"))
	b = append(b, "cd"...)
	r := NewReader(b)
	got := append(r.Bytes(), "XX"...)
	require.Equal(t, "abXX", string(got))
	require.Equal(t, "cd", string(r.Rest()))
	require.NoError(t, r.Done())
}

// Any bytes, read in any way, give values within the input or an error, and never a panic.
func FuzzReader(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8}, []byte("some input \xff\xff\xff"))
	f.Fuzz(func(t *testing.T, script, input []byte) {
		r := NewReader(input)
		total := 0
		for _, op := range script {
			switch op % 10 {
			case 0:
				r.Uvarint()
			case 1:
				r.Varint()
			case 2:
				r.Uint64()
			case 3:
				r.Uint32()
			case 4:
				r.Bool()
			case 5:
				total += len(r.Bytes())
			case 6:
				total += len(r.String())
			case 7:
				if n := r.Count(int(op)); n > len(input) {
					t.Fatalf("count %d of %d bytes", n, len(input))
				}
			case 8:
				total += len(r.Fixed(int(op)))
			case 9:
				total += len(r.Rest())
			}
		}
		if total > len(input) {
			t.Fatalf("took %d of %d bytes", total, len(input))
		}
		if err := r.Done(); err != nil && r.Err() == nil {
			t.Fatal("Done failed, Err did not")
		}
	})
}
