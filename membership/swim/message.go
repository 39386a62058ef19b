package swim

import (
	"fmt"
	"math"

	"github.com/cespare/xxhash/v2"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/membership"
)

// Kinds of messages. A packet holds any number of them.
const (
	kindPing     = 1 // answer by an ack of the same number
	kindPingReq  = 2 // ping the target for me; answer by an ack, or by a nack before I give up
	kindAck      = 3
	kindNack     = 4  // the target has not answered yet, but this member is there
	kindRecord   = 5  // what is known of a member
	kindDigest   = 6  // the hash of my view: if yours is another, send me your records
	kindSync     = 7  // first of its packet, whose records are from a whole view
	kindUser     = 8  // a broadcast of the application
	kindMetaGet  = 9  // send me metadata from this offset on
	kindMetaPart = 10 // a part of metadata
	kindPadding  = 11 // bytes that make a packet too large for a datagram
)

// message is one of them, decoded. Slices are parts of the packet.
type message struct {
	kind    byte
	padded  bool   // of kindPing and kindAck: it came, or is to go, by a stream
	reply   bool   // of kindSync: send me your view too, if it has another hash
	number  uint64 // of a probe, a broadcast; of kindDigest and kindSync the hash, of kindMeta* the sum
	target  []byte // of kindPingReq, kindUser (origin), kindMetaGet and kindMetaPart
	payload []byte // of kindUser and kindMetaPart
	rec     record // of kindRecord; of kindUser its life
	offset  uint32
}

// record is what one member says of another, or of itself.
type record struct {
	id       []byte
	state    membership.State
	inc      uint32
	life     uint32
	addr     []byte
	by       []byte // of a suspicion: who suspects
	metaSize uint32
	metaSum  uint64 // of metadata that is not in the record
	meta     []byte // if inline
	inline   bool
}

// inlineMeta is how many bytes of metadata travel in a record; more is fetched.
const inlineMeta = 256

// maxIncarnation bounds what is believed of an incarnation, so that a member can always refute once more.
const maxIncarnation = math.MaxUint32 / 2

func readRecord(r *wire.Reader) (rec record) {
	rec.state = membership.State(r.Byte())
	if rec.state > membership.Left {
		r.Fail("state %d", rec.state)
	}
	rec.id = readID(r)
	rec.inc = uint32(r.Int(maxIncarnation))
	rec.life = r.Uint32()
	rec.addr = r.Bytes()
	if len(rec.addr) > maxID {
		r.Fail("address of %d bytes", len(rec.addr))
	}
	if rec.state == membership.Suspect {
		rec.by = readID(r)
	}
	rec.metaSize = uint32(r.Int(MaxMeta))
	rec.inline = rec.metaSize <= inlineMeta
	if rec.inline {
		rec.meta = r.Fixed(int(rec.metaSize))
	} else {
		rec.metaSum = r.Uint64()
	}
	return rec
}

func readID(r *wire.Reader) []byte {
	id := r.Bytes()
	if len(id) == 0 || len(id) > maxID {
		r.Fail("id of %d bytes", len(id))
	}
	return id
}

func appendProbe(b []byte, kind byte, number uint64) []byte {
	return wire.AppendUvarint(append(b, kind), number)
}

// appendPadded appends a ping or ack that is to travel by the stream, and what makes it too large for anything else.
func appendPadded(b []byte, kind byte, number uint64, size int) []byte {
	b = appendProbe(b, kind, number)
	b = append(b, kindPadding)
	return wire.AppendBytes(b, make([]byte, size))
}

func appendPingReq(b []byte, number uint64, target string) []byte {
	return wire.AppendString(appendProbe(b, kindPingReq, number), target)
}

func appendUser(b []byte, origin string, life uint32, number uint64, payload []byte) []byte {
	b = wire.AppendString(append(b, kindUser), origin)
	b = wire.AppendUvarint(wire.AppendUint32(b, life), number)
	return wire.AppendBytes(b, payload)
}

// decode appends the messages of a packet, checked, to into.
func decode(into []message, packet []byte) ([]message, error) {
	r := wire.NewReader(packet)
	for r.Len() > 0 {
		into = append(into, message{kind: r.Byte()})
		m := &into[len(into)-1]
		switch m.kind {
		case kindPing, kindAck, kindNack:
			m.number = r.Uvarint()
		case kindPingReq:
			m.number, m.target = r.Uvarint(), readID(&r)
		case kindRecord:
			m.rec = readRecord(&r)
		case kindDigest:
			m.number = r.Uint64()
		case kindSync:
			m.reply, m.number = r.Bool(), r.Uint64()
		case kindUser:
			m.target, m.rec.life, m.number, m.payload = readID(&r), r.Uint32(), r.Uvarint(), r.Bytes()
		case kindMetaGet, kindMetaPart:
			m.target, m.number, m.offset = readID(&r), r.Uint64(), uint32(r.Int(MaxMeta))
			if m.kind == kindMetaPart {
				m.payload = r.Bytes()
			}
		case kindPadding:
			_ = r.Bytes()
			if n := len(into) - 1; n > 0 {
				into[n-1].padded = true
			}
			into = into[:len(into)-1]
		default:
			r.Fail("message of unknown kind %d", m.kind)
		}
		if r.Err() != nil {
			break
		}
	}
	if err := r.Done(); err != nil {
		return into[:0], fmt.Errorf("swim: packet: %w", err)
	}
	return into, nil
}

func sumMeta(meta string) uint64 { return xxhash.Sum64String(meta) }
