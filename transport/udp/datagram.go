package udp

import (
	"fmt"
	"hash/crc32"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// A datagram is a format byte, a CRC32C of what follows it, the ids of sender and receiver, and the payload.
const (
	format     = 1
	headerSize = 1 + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendDatagram(b []byte, from, to coterie.NodeID, payload []byte) []byte {
	start := len(b)
	b = append(b, format, 0, 0, 0, 0)
	b = wire.AppendString(b, from)
	b = wire.AppendString(b, to)
	b = append(b, payload...)
	sum := crc32.Checksum(b[start+headerSize:], castagnoli)
	b[start+1], b[start+2], b[start+3], b[start+4] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
	return b
}

// readDatagram returns the parts of a datagram, which it does not copy.
func readDatagram(b []byte) (from, to, payload []byte, err error) {
	r := wire.NewReader(b)
	if got := r.Byte(); r.Err() == nil && got != format {
		if got > format {
			return nil, nil, nil, &coterie.FormatError{What: "udp datagram", Got: got, Max: format}
		}
		return nil, nil, nil, fmt.Errorf("udp: datagram of format %d", got)
	}
	sum := r.Uint32()
	if r.Err() == nil && crc32.Checksum(b[headerSize:], castagnoli) != sum {
		r.Fail("wrong checksum")
	}
	from, to = r.Bytes(), r.Bytes()
	if r.Err() == nil && (len(from) == 0 || len(from) > maxID || len(to) == 0 || len(to) > maxID) {
		r.Fail("ids of %d and %d bytes", len(from), len(to))
	}
	if r.Err() != nil {
		return nil, nil, nil, fmt.Errorf("udp: datagram: %w", r.Err())
	}
	return from, to, r.Rest(), nil
}
