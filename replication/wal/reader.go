package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/coterie-go/coterie/replication/wal/internal/vfs"
)

const (
	chunkSize  = 64 << 10  // of Replay: a record that is kept holds its chunk
	windowSize = 256 << 10 // of the scan at Open, one buffer used again
)

// record is one record as read.
type record struct {
	kind   byte
	stream uint32
	offset int64
	body   []byte
}

// recordError is a record that is not as it was written.
type recordError struct {
	offset int64
	reason string
}

func (e *recordError) Error() string { return fmt.Sprintf("offset %d: %s", e.offset, e.reason) }

// reader reads the records of one segment, holding one chunk of it at a time.
type reader struct {
	f     vfs.File
	salt  uint64
	fresh bool   // bodies may be kept: no chunk is filled twice
	chunk []byte // of the file, from offset at
	at    int64
	off   int64 // of the next record
	end   int64 // where records must end
	chain uint32
}

func newReader(f vfs.File, salt uint64, end int64, fresh bool) *reader {
	return &reader{f: f, salt: salt, fresh: fresh, off: headerSize, at: headerSize, end: end, chain: uint32(salt)}
}

// next returns the next record; io.EOF at the end (zeros, or the end given), a *recordError for one that is not sound.
func (r *reader) next() (record, error) {
	if r.off == r.end {
		return record{}, io.EOF
	}
	if r.end-r.off < headSize {
		return r.tail()
	}
	head, err := r.need(headSize)
	if err != nil {
		return record{}, err
	}
	le := binary.LittleEndian
	crc, length, last := le.Uint32(head), le.Uint32(head[4:]), le.Uint32(head[8:])
	rec := record{kind: byte(last), stream: last >> 8, offset: r.off}
	switch {
	case crc == 0 && length == 0 && last == 0:
		return record{}, io.EOF
	case rec.kind < kindMark || rec.kind > kindCopy:
		return record{}, &recordError{r.off, "no record of a known kind"}
	case int64(length) > r.end-r.off-headSize:
		return record{}, &recordError{r.off, "length over the end of the segment"}
	}
	whole, err := r.need(headSize + int(length))
	if err != nil {
		return record{}, err
	}
	if rec.kind == kindMark {
		if !isMark(whole, r.salt, r.off) {
			return record{}, &recordError{r.off, "mark does not match its place"}
		}
	} else if crc32.Update(r.chain, castagnoli, whole[4:]) != crc {
		return record{}, &recordError{r.off, "checksum does not match"}
	}
	r.chain = crc
	r.off += int64(len(whole))
	rec.body = whole[headSize:len(whole):len(whole)]
	return rec, nil
}

// tail judges the last few bytes of a segment, too few for a record.
func (r *reader) tail() (record, error) {
	rest, err := r.need(int(r.end - r.off))
	if err != nil {
		return record{}, err
	}
	if len(bytes.Trim(rest, "\x00")) > 0 {
		return record{}, &recordError{r.off, "bytes too few for a record"}
	}
	return record{}, io.EOF
}

// need returns the next n bytes, which the caller knows to lie before the end.
func (r *reader) need(n int) ([]byte, error) {
	if have := r.at + int64(len(r.chunk)) - r.off; have < int64(n) {
		if err := r.fill(n); err != nil {
			return nil, err
		}
	}
	from := int(r.off - r.at)
	return r.chunk[from : from+n], nil
}

// fill makes the chunk start at the next record and hold at least n bytes.
func (r *reader) fill(n int) error {
	size := windowSize
	if r.fresh {
		size = chunkSize
	}
	size = int(min(int64(max(size, n)), r.end-r.off))
	if r.fresh || cap(r.chunk) < size {
		r.chunk = make([]byte, size)
	}
	r.chunk, r.at = r.chunk[:size], r.off
	return readFull(r.f, r.chunk, r.off)
}

// readFull reads all of b; an end of the file within it is a *recordError at that place.
func readFull(f vfs.File, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return &recordError{off + int64(n), "the file ends early"}
	}
	return err
}

// remains looks through the rest of a segment: clean tells that it is all zeros, and mark where the first sound mark
// stands, 0 for none. A mark says that all before it was durable when it was written.
func remains(f vfs.File, salt uint64, from, end int64) (clean bool, mark int64, err error) {
	needle := binary.LittleEndian.AppendUint64(nil, salt)
	size := min(windowSize, end-from)
	buf, zeros := make([]byte, size), make([]byte, size)
	clean = true
	for from < end {
		b := buf[:min(int64(len(buf)), end-from)]
		if err := readFull(f, b, from); err != nil {
			return false, 0, err
		}
		clean = clean && bytes.Equal(b, zeros[:len(b)])
		for i := 0; !clean; {
			k := bytes.Index(b[i:], needle)
			if k < 0 {
				break
			}
			if i += k; i >= headSize && isMark(b[i-headSize:], salt, from+int64(i-headSize)) {
				return false, from + int64(i-headSize), nil
			}
			i++
		}
		if len(b) < markSize || from+int64(len(b)) == end {
			break
		}
		from += int64(len(b) - markSize + 1) // a mark may lie across two windows
	}
	return clean, 0, nil
}
