package frame

import (
	"bytes"
	"encoding/binary"
	"io"
	"runtime"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func TestReaderEnds(t *testing.T) {
	whole := New(3, []byte("payload"))
	for n := 1; n < len(whole); n++ {
		_, _, err := (&Reader{From: bytes.NewReader(whole[:n]), Limit: 100}).Next()
		require.Equal(t, io.ErrUnexpectedEOF, err, "cut after %d bytes", n)
	}
	_, _, err := (&Reader{From: bytes.NewReader(nil)}).Next()
	require.Equal(t, io.EOF, err)
}

// A length within the limit, of a frame that does not come, costs no more than what did come.
func TestClaimedLengthAllocatesLittle(t *testing.T) {
	header := New(3, nil)
	binary.BigEndian.PutUint32(header[2:], 64<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := (&Reader{From: bytes.NewReader(append(header, make([]byte, 1000)...)), Limit: 64 << 20}).Next()
	runtime.ReadMemStats(&after)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

func FuzzFrame(f *testing.F) {
	f.Add(New(3, []byte("payload")))
	f.Add(append(New(1, []byte("a")), New(2, nil)...))
	f.Add([]byte{2, 3, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := Reader{From: iotest.OneByteReader(bytes.NewReader(stream)), Limit: 1000}
		var again []byte
		for {
			kind, payload, err := r.Next()
			if err != nil {
				break
			}
			again = append(again, New(kind, payload)...)
		}
		require.True(t, bytes.HasPrefix(stream, again))
	})
}
