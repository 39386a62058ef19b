package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// A segment is a file: a header, then records, then zeros up to the size the header states. The file had that size,
// durably, before its name appeared, so one that is shorter has been cut by something else than a crash.
//
// A record is a head of 12 bytes (little endian) and a body:
//
//	crc    uint32  CRC32C of all that follows in the record, continued from the crc of the record before it
//	length uint32  bytes of the body
//	kind   uint8
//	stream uint24  the stream's number, as the newest name record in this segment tells
//
// The chain of CRCs lets a record count only behind the one it was written behind: what an earlier life of the disk
// left there does not.
const (
	headerSize  = 512
	headSize    = 12
	markSize    = headSize + 16
	format      = 1
	magic       = "cotwal\n"
	maxOwner    = 255
	maxName     = 255
	maxRecord   = 1 << 30
	maxStreams  = 1 << 24
	maxSequence = 1 << 62 // of sequence numbers, so that they never wrap
	segmentSufx = ".wal"
	tmpSufx     = ".tmp"
)

// The kinds of records. Zero is none: zeros are the end.
const (
	kindMark = 1 + iota // all before this is durable: salt and offset of this record; starts a new chain
	kindName            // the stream number now means: next sequence number, oldest kept, name
	kindData            // one record of the stream; sequence numbers count up
	kindKeep            // the stream needs nothing older than this sequence number
	kindMove            // the next so many copies repeat the stream's records from this sequence number on
	kindCopy            // one record said again
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is the start of a segment.
type header struct {
	number   uint64 // of the segment, counting up
	size     int64  // of the file, bytes
	salt     uint64 // drawn for this segment
	prevEnd  int64  // where the segment before ends: it was durable up to there before this one was made; 0 for none
	prevSalt uint64
	owner    coterie.NodeID
}

func (h header) encode() []byte {
	b := make([]byte, headerSize)
	b[0] = format
	copy(b[1:], magic)
	le := binary.LittleEndian
	le.PutUint64(b[8:], h.salt)
	le.PutUint64(b[16:], h.number)
	le.PutUint64(b[24:], uint64(h.size))
	le.PutUint64(b[32:], uint64(h.prevEnd))
	le.PutUint64(b[40:], h.prevSalt)
	b[48] = byte(len(h.owner))
	copy(b[49:], h.owner)
	le.PutUint32(b[headerSize-4:], crc32.Checksum(b[:headerSize-4], castagnoli))
	return b
}

// decodeHeader reads a header; the error is a *coterie.FormatError or says what is wrong.
func decodeHeader(b []byte) (header, error) {
	if len(b) < headerSize {
		return header{}, fmt.Errorf("header of %d bytes ends early", len(b))
	}
	le := binary.LittleEndian
	if string(b[1:1+len(magic)]) != magic {
		return header{}, fmt.Errorf("no segment: the magic is missing")
	}
	if b[0] > format {
		return header{}, &coterie.FormatError{What: "wal segment", Got: b[0], Max: format}
	}
	if b[0] != format || crc32.Checksum(b[:headerSize-4], castagnoli) != le.Uint32(b[headerSize-4:headerSize]) {
		return header{}, fmt.Errorf("header checksum does not match")
	}
	h := header{
		salt:     le.Uint64(b[8:]),
		number:   le.Uint64(b[16:]),
		size:     int64(le.Uint64(b[24:])),
		prevEnd:  int64(le.Uint64(b[32:])),
		prevSalt: le.Uint64(b[40:]),
		owner:    coterie.NodeID(b[49 : 49+int(b[48])]),
	}
	if h.size < headerSize || h.prevEnd < 0 {
		return header{}, fmt.Errorf("header states sizes out of range")
	}
	return h, nil
}

// startRecord appends a record's head; the crc is filled in by seal.
func startRecord(b []byte, kind byte, stream uint32, length int) []byte {
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(length))
	return binary.LittleEndian.AppendUint32(b, uint32(kind)|stream<<8)
}

// seal fills in the CRCs of the records in b, which continue from chain, and returns the last one.
func seal(b []byte, chain uint32) uint32 {
	for len(b) > 0 {
		n := headSize + int(binary.LittleEndian.Uint32(b[4:]))
		chain = crc32.Update(chain, castagnoli, b[4:n])
		binary.LittleEndian.PutUint32(b, chain)
		b = b[n:]
	}
	return chain
}

// putMark writes the mark that stands at an offset of a segment, sealed, and returns its crc.
func putMark(b []byte, salt uint64, offset int64) uint32 {
	le := binary.LittleEndian
	le.PutUint32(b[4:], markSize-headSize)
	le.PutUint32(b[8:], kindMark)
	le.PutUint64(b[12:], salt)
	le.PutUint64(b[20:], uint64(offset))
	return seal(b[:markSize], uint32(salt))
}

// isMark tells whether b starts with the mark of that place.
func isMark(b []byte, salt uint64, offset int64) bool {
	if len(b) < markSize {
		return false
	}
	var want [markSize]byte
	putMark(want[:], salt, offset)
	return string(b[:markSize]) == string(want[:])
}

// naming is the body of a name record.
type naming struct {
	next, low uint64
	name      string
}

func (n naming) append(b []byte) []byte {
	return append(wire.AppendUvarint(wire.AppendUvarint(b, n.next), n.low), n.name...)
}

func decodeNaming(b []byte) (naming, error) {
	r := wire.NewReader(b)
	n := naming{next: r.Uvarint(), low: r.Uvarint()}
	name := r.Rest()
	if n.next == 0 || n.low == 0 || n.low > n.next || n.next > maxSequence {
		r.Fail("sequence numbers out of order")
	}
	if len(name) > maxName {
		r.Fail("name of %d bytes", len(name))
	}
	n.name = string(name)
	return n, r.Done()
}

// moving is the body of a move record.
type moving struct{ first, count uint64 }

func (m moving) append(b []byte) []byte {
	return wire.AppendUvarint(wire.AppendUvarint(b, m.first), m.count)
}

func decodeMoving(b []byte) (moving, error) {
	r := wire.NewReader(b)
	m := moving{first: r.Uvarint(), count: r.Uvarint()}
	if m.first == 0 || m.count == 0 || m.first > maxSequence || m.count > maxSequence {
		r.Fail("sequence numbers out of order")
	}
	return m, r.Done()
}

func decodeKeep(b []byte) (low uint64, err error) {
	r := wire.NewReader(b)
	low = r.Uvarint()
	return low, r.Done()
}

func segmentName(number uint64) string { return fmt.Sprintf("%016x%s", number, segmentSufx) }

// segmentNumber reads a file name; ok is false for one that is not a segment's.
func segmentNumber(name string) (number uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, segmentSufx)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	number, err := strconv.ParseUint(digits, 16, 64)
	return number, err == nil && segmentName(number) == name
}
