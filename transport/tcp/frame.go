package tcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// A connection is a stream of frames:
//
//	format byte | kind byte | length, 4 bytes | CRC32C, 4 bytes | payload of that length
//
// Numbers are big endian. The checksum is that of the payload, continued from the word kind<<28 | length, so that it
// covers the header as well.
const (
	frameFormat = 1
	headerSize  = 10
	// maxLength is the most that a length may be, for it shares a word with the kind.
	maxLength = 1<<28 - 1
)

// kind is what a frame is for.
type kind byte

const (
	kindHello   kind = 1 // the first frame of who connected: who it is, and whom it wants to reach
	kindWelcome kind = 2 // the answer to it: come in, or why not
	kindData    kind = 3 // a payload
	kindPing    kind = 4 // from who connected, empty: are you there?
	kindPong    kind = 5 // the answer to it, empty
)

var (
	errTooLarge = errors.New("frame over the limit")
	errFrame    = errors.New("bad frame")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is that of a frame with a payload in two parts.
func checksum(k kind, head, payload []byte) uint32 {
	sum := uint32(k)<<28 | uint32(len(head)+len(payload))
	if len(head) > 0 {
		sum = crc32.Update(sum, castagnoli, head)
	}
	return crc32.Update(sum, castagnoli, payload)
}

// appendFrame appends a frame whose checksum is known.
func appendFrame(b []byte, k kind, sum uint32, head, payload []byte) []byte {
	b = append(b, frameFormat, byte(k))
	b = binary.BigEndian.AppendUint32(b, uint32(len(head)+len(payload)))
	b = binary.BigEndian.AppendUint32(b, sum)
	return append(append(b, head...), payload...)
}

// newFrame is a frame on its own.
func newFrame(k kind, payload []byte) []byte {
	return appendFrame(make([]byte, 0, headerSize+len(payload)), k, checksum(k, nil, payload), nil, payload)
}

// frameSize is the size of the frame at the start of b, which is one that appendFrame made.
func frameSize(b []byte) int { return headerSize + int(binary.BigEndian.Uint32(b[2:])) }

// header is what stands ahead of a payload.
type header struct {
	kind   kind
	length int
	sum    uint32
}

// parseHeader reads the header at the start of b, which has headerSize bytes at least, of a frame whose payload may
// have limit bytes.
func parseHeader(b []byte, limit int) (header, error) {
	if b[0] > frameFormat {
		return header{}, &coterie.FormatError{What: "tcp frame", Got: b[0], Max: frameFormat}
	}
	if b[0] != frameFormat {
		return header{}, fmt.Errorf("%w: format %d", errFrame, b[0])
	}
	h := header{kind: kind(b[1]), sum: binary.BigEndian.Uint32(b[6:])}
	if h.kind < kindHello || h.kind > kindPong {
		return header{}, fmt.Errorf("%w: unknown kind %d", errFrame, b[1])
	}
	length := binary.BigEndian.Uint32(b[2:])
	if uint64(length) > uint64(limit) {
		return header{}, fmt.Errorf("%w: %d bytes, at most %d", errTooLarge, length, limit)
	}
	h.length = int(length)
	return h, nil
}

// Sizes of the chunks that a frameReader reads into: they grow with the traffic, so that an idle connection is cheap.
const (
	minChunk = 512
	maxChunk = 64 << 10
)

// frameReader takes frames off a stream. The payloads it returns are parts of its chunks, which are never used again:
// they may be kept for ever, and small ones cost no allocation each.
type frameReader struct {
	from       io.Reader
	limit      int // bytes of a payload
	chunk      []byte
	start, end int // what has been read of chunk and not been taken
	size       int // of the newest chunk, but for those that a large frame made
}

// next returns the next frame. At the end of the stream the error is io.EOF, or io.ErrUnexpectedEOF within a frame.
func (r *frameReader) next() (kind, []byte, error) {
	for {
		have, need := r.chunk[r.start:r.end], headerSize
		if len(have) >= headerSize {
			h, err := parseHeader(have, r.limit)
			if err != nil {
				return 0, nil, err
			}
			need += h.length
			if len(have) >= need {
				r.start += need
				return h.open(have[headerSize:need:need])
			}
		}
		if err := r.fill(need); err != nil {
			return 0, nil, err
		}
	}
}

// open verifies a payload.
func (h header) open(payload []byte) (kind, []byte, error) {
	if checksum(h.kind, nil, payload) != h.sum {
		return 0, nil, fmt.Errorf("%w: wrong checksum", errFrame)
	}
	if len(payload) == 0 {
		payload = nil // rather than keep a chunk
	}
	return h.kind, payload, nil
}

// fill reads some more, of a frame that has need bytes in all. The room for a large frame doubles as it arrives: a
// length alone, which anybody can claim, allocates nothing.
func (r *frameReader) fill(need int) error {
	have := r.chunk[r.start:r.end]
	if r.end == len(r.chunk) {
		r.size = min(max(2*r.size, minChunk), maxChunk)
		r.chunk = make([]byte, max(r.size, min(need, 2*len(have))))
		r.start, r.end = 0, copy(r.chunk, have)
	}
	n, err := r.from.Read(r.chunk[r.end:])
	r.end += n
	switch {
	case n > 0:
		return nil // an error will come again
	case err == io.EOF && len(have) > 0:
		return io.ErrUnexpectedEOF
	case err == nil:
		return io.ErrNoProgress
	}
	return err
}

// maxHello bounds the payload of hello and welcome frames.
const maxHello = 4 << 10

// hello says who connects and whom it wants to reach.
type hello struct{ from, to coterie.NodeID }

func (h hello) encode() []byte { return wire.AppendString(wire.AppendString(nil, h.from), h.to) }

func decodeHello(payload []byte) (hello, error) {
	r := wire.NewReader(payload)
	h := hello{from: coterie.NodeID(r.String()), to: coterie.NodeID(r.String())}
	if r.Err() == nil && (h.from == "" || h.to == "") {
		r.Fail("empty node id")
	}
	if err := r.Done(); err != nil {
		return hello{}, fmt.Errorf("hello: %w", err)
	}
	return h, nil
}

// welcome answers a hello: the reason for which it is refused, or none.
type welcome struct{ refusal string }

func (w welcome) encode() []byte { return wire.AppendString(nil, w.refusal) }

func decodeWelcome(payload []byte) (welcome, error) {
	r := wire.NewReader(payload)
	w := welcome{refusal: r.String()}
	if err := r.Done(); err != nil {
		return welcome{}, fmt.Errorf("welcome: %w", err)
	}
	return w, nil
}
