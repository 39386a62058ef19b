package tcp

import (
	"bytes"
	"encoding/hex"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestFrameGolden(t *testing.T) {
	want, err := os.ReadFile("testdata/golden/frames.hex")
	require.NoError(t, err)
	var lines []string
	for _, frame := range [][]byte{
		newFrame(kindHello, hello{"alice", "bob"}.encode()),
		newFrame(kindWelcome, welcome{}.encode()),
		newFrame(kindWelcome, welcome{"no"}.encode()),
		newFrame(kindData, []byte("payload")),
		newFrame(kindData, nil),
		ping,
		pong,
	} {
		lines = append(lines, hex.EncodeToString(frame))
	}
	require.Equal(t, strings.TrimSpace(string(want)), strings.Join(lines, "\n"))
}

// The checksum covers header and payload: no single bit can change unnoticed.
func TestEveryBitOfAFrameIsChecked(t *testing.T) {
	frame := newFrame(kindData, []byte("some payload"))
	for bit := range 8 * len(frame) {
		changed := bytes.Clone(frame)
		changed[bit/8] ^= 1 << (bit % 8)
		_, _, err := (&frameReader{from: bytes.NewReader(changed), limit: maxLength}).next()
		require.Error(t, err, "bit %d", bit)
	}
}

func TestNewerFormatIsAFormatError(t *testing.T) {
	frame := newFrame(kindData, nil)
	frame[0] = frameFormat + 1
	_, _, err := (&frameReader{from: bytes.NewReader(frame)}).next()
	var format *coterie.FormatError
	require.ErrorAs(t, err, &format)
	require.Equal(t, coterie.FormatError{What: "tcp frame", Got: frameFormat + 1, Max: frameFormat}, *format)
	frame[0] = 0
	_, _, err = (&frameReader{from: bytes.NewReader(frame)}).next()
	require.ErrorIs(t, err, errFrame)
}

// However a stream comes in pieces, the same frames are read off it, and stay as they are.
func TestFrameReaderReadsAnyPieces(t *testing.T) {
	testsize.Checks(t, 300, 10_000)
	rapid.Check(t, func(rt *rapid.T) {
		var stream []byte
		var want [][]byte
		for range rapid.IntRange(0, 20).Draw(rt, "frames") {
			size := rapid.OneOf(rapid.IntRange(0, 20), rapid.IntRange(400, 600), rapid.IntRange(60_000, 200_000)).Draw(rt, "size")
			payload := bytes.Repeat([]byte{byte(len(want) + 1)}, size)
			want = append(want, payload)
			stream = append(stream, newFrame(kindData, payload)...)
		}
		var from io.Reader = bytes.NewReader(stream)
		switch rapid.IntRange(0, 3).Draw(rt, "pieces") {
		case 0:
			from = iotest.HalfReader(from)
		case 1:
			from = iotest.DataErrReader(from)
		case 2:
			from = &pieces{from: from, size: func() int { return rapid.IntRange(1, 5000).Draw(rt, "piece") }}
		}
		r := frameReader{from: from, limit: 200_000}
		var got [][]byte
		for {
			kind, payload, err := r.next()
			if err != nil {
				require.Equal(rt, io.EOF, err)
				break
			}
			require.Equal(rt, kindData, kind)
			got = append(got, payload)
		}
		require.Len(rt, got, len(want))
		for i := range got {
			require.True(rt, bytes.Equal(want[i], got[i]), "payload %d", i)
			require.Equal(rt, len(got[i]), cap(got[i]), "to append to a payload would write over the next")
		}
	})
}

// pieces reads at most so many bytes at a time.
type pieces struct {
	from io.Reader
	size func() int
}

func (p *pieces) Read(b []byte) (int, error) { return p.from.Read(b[:min(len(b), p.size())]) }

func TestFrameReaderEnds(t *testing.T) {
	frame := newFrame(kindData, []byte("payload"))
	for n := 1; n < len(frame); n++ {
		_, _, err := (&frameReader{from: bytes.NewReader(frame[:n]), limit: 100}).next()
		require.Equal(t, io.ErrUnexpectedEOF, err, "cut after %d bytes", n)
	}
	_, _, err := (&frameReader{from: bytes.NewReader(nil)}).next()
	require.Equal(t, io.EOF, err)
}

func FuzzFrame(f *testing.F) {
	f.Add(newFrame(kindData, []byte("payload")))
	f.Add(append(newFrame(kindHello, hello{"a", "b"}.encode()), ping...))
	f.Add(newFrame(kindData, []byte("payload"))[:12])
	f.Add([]byte{2, 3, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 3, 255, 255, 255, 255, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := frameReader{from: iotest.OneByteReader(bytes.NewReader(stream)), limit: 1000}
		var again []byte
		for {
			kind, payload, err := r.next()
			if err != nil {
				break
			}
			again = append(again, newFrame(kind, payload)...)
		}
		if !bytes.HasPrefix(stream, again) {
			t.Fatalf("frames of %x encode to %x", stream, again)
		}
		if len(r.chunk) > 2*(headerSize+1000)+minChunk {
			t.Fatalf("a chunk of %d bytes for frames of 1000", len(r.chunk))
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add(hello{"a", "b"}.encode())
	f.Add([]byte{})
	f.Add([]byte{1, 'a', 0})
	f.Add([]byte{200, 1, 'a'})
	f.Fuzz(func(t *testing.T, payload []byte) {
		h, err := decodeHello(payload)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			require.Zero(t, h)
			return
		}
		again, err := decodeHello(h.encode())
		require.NoError(t, err)
		require.Equal(t, h, again)
		require.NotEmpty(t, h.from)
		require.NotEmpty(t, h.to)
	})
}

func FuzzWelcome(f *testing.F) {
	f.Add(welcome{}.encode())
	f.Add(welcome{"no"}.encode())
	f.Add([]byte{3, 'n'})
	f.Fuzz(func(t *testing.T, payload []byte) {
		w, err := decodeWelcome(payload)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		again, err := decodeWelcome(w.encode())
		require.NoError(t, err)
		require.Equal(t, w, again)
	})
}
