// Package frame cuts a stream of bytes into frames with a kind, a length and a checksum.
//
//	format byte | kind byte | length, 4 bytes | CRC32C, 4 bytes | payload of that length
//
// Numbers are big endian. The checksum is that of the payload, continued from the word kind<<28 | length, so that it
// covers the header as well.
package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/coterie-go/coterie"
)

const (
	// Format is the first byte of every frame.
	Format = 1
	// HeaderSize is how many bytes stand ahead of a payload.
	HeaderSize = 10
	// MaxLength is the most that a payload may have, for its length shares a word with the kind.
	MaxLength = 1<<28 - 1
	// MaxKind is the largest kind.
	MaxKind = 15
)

// Errors of a Reader, beside those of the stream and *coterie.FormatError.
var (
	ErrTooLarge = errors.New("frame over the limit")
	ErrBad      = errors.New("bad frame")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sum is the checksum of a frame with a payload in two parts.
func Sum(kind byte, head, payload []byte) uint32 {
	sum := uint32(kind)<<28 | uint32(len(head)+len(payload))
	if len(head) > 0 {
		sum = crc32.Update(sum, castagnoli, head)
	}
	return crc32.Update(sum, castagnoli, payload)
}

// Append appends a frame whose checksum is known.
func Append(b []byte, kind byte, sum uint32, head, payload []byte) []byte {
	b = append(b, Format, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(head)+len(payload)))
	b = binary.BigEndian.AppendUint32(b, sum)
	return append(append(b, head...), payload...)
}

// New is a frame on its own.
func New(kind byte, payload []byte) []byte {
	return Append(make([]byte, 0, HeaderSize+len(payload)), kind, Sum(kind, nil, payload), nil, payload)
}

// Reader takes frames off a stream. The payloads it returns are parts of its chunks, which are never used again: they
// may be kept for ever, and small ones cost no allocation each.
type Reader struct {
	From  io.Reader
	Limit int    // bytes of a payload
	What  string // what a FormatError calls a frame

	chunk      []byte
	start, end int // what has been read of chunk and not been taken
	size       int // of the newest chunk, but for those that a large frame made
}

// Sizes of the chunks: they grow with the traffic, so that an idle connection is cheap.
const (
	minChunk = 512
	maxChunk = 64 << 10
)

// Buffered reports whether Next could return without reading from the stream.
func (r *Reader) Buffered() bool {
	have := r.chunk[r.start:r.end]
	return len(have) >= HeaderSize && len(have)-HeaderSize >= int(binary.BigEndian.Uint32(have[2:]))
}

// Next returns the next frame, of kind 1 to MaxKind. At the end of the stream the error is io.EOF, or
// io.ErrUnexpectedEOF within a frame.
func (r *Reader) Next() (kind byte, payload []byte, err error) {
	for {
		have, need := r.chunk[r.start:r.end], HeaderSize
		if len(have) >= HeaderSize {
			length, err := r.check(have)
			if err != nil {
				return 0, nil, err
			}
			need += length
			if len(have) >= need {
				r.start += need
				return open(have[:need:need])
			}
		}
		if err := r.fill(need); err != nil {
			return 0, nil, err
		}
	}
}

// check returns the length that a header claims.
func (r *Reader) check(header []byte) (int, error) {
	if header[0] > Format {
		return 0, &coterie.FormatError{What: r.What, Got: header[0], Max: Format}
	}
	if header[0] != Format {
		return 0, fmt.Errorf("%w: format %d", ErrBad, header[0])
	}
	if header[1] == 0 || header[1] > MaxKind {
		return 0, fmt.Errorf("%w: kind %d", ErrBad, header[1])
	}
	length := binary.BigEndian.Uint32(header[2:])
	if uint64(length) > uint64(r.Limit) {
		return 0, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, length, r.Limit)
	}
	return int(length), nil
}

// open verifies a whole frame.
func open(frame []byte) (kind byte, payload []byte, err error) {
	kind, payload = frame[1], frame[HeaderSize:]
	if Sum(kind, nil, payload) != binary.BigEndian.Uint32(frame[6:]) {
		return 0, nil, fmt.Errorf("%w: wrong checksum", ErrBad)
	}
	if len(payload) == 0 {
		payload = nil // rather than keep a chunk
	}
	return kind, payload, nil
}

// fill reads some more, of a frame that has need bytes in all. The room for a large frame doubles as it arrives: a
// length alone, which anybody can claim, allocates nothing.
func (r *Reader) fill(need int) error {
	have := r.chunk[r.start:r.end]
	if r.end == len(r.chunk) {
		r.size = min(max(2*r.size, minChunk), maxChunk)
		r.chunk = make([]byte, max(r.size, min(need, 2*len(have))))
		r.start, r.end = 0, copy(r.chunk, have)
	}
	n, err := r.From.Read(r.chunk[r.end:])
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
