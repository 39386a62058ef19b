package abd

import (
	"cmp"
	"fmt"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// format is the version of messages and records, their first byte.
const format = 1

// The kinds of messages, the second byte.
const (
	msgQuery  = 1 // round, whether the value is wanted, key
	msgReport = 2 // round, register
	msgStore  = 3 // round, key, register
	msgStored = 4 // round
)

// maxSeq bounds the sequence number of a timestamp: no honest node gets there.
const maxSeq = 1 << 62

// maxID bounds the writer's name in a timestamp.
const maxID = 1 << 10

// timestamp orders the writes of one register: by sequence number, then by writer. The nonce keeps the writes of two
// incarnations of a writer apart, of which the second may have forgotten what the first had begun.
type timestamp struct {
	seq    uint64
	writer coterie.NodeID
	nonce  uint64
}

func (t timestamp) compare(u timestamp) int {
	return cmp.Or(cmp.Compare(t.seq, u.seq), cmp.Compare(t.writer, u.writer), cmp.Compare(t.nonce, u.nonce))
}

func (t timestamp) after(u timestamp) bool { return t.compare(u) > 0 }

func (t timestamp) String() string { return fmt.Sprintf("%d.%s.%04x", t.seq, t.writer, t.nonce>>48) }

type message struct {
	kind      byte
	round     uint64
	wantValue bool
	key       string
	register
}

// encode returns the payload.
func (m message) encode() []byte {
	b := make([]byte, 0, 48+len(m.key)+len(m.at.writer)+len(m.value))
	b = wire.AppendUint64(append(b, format, m.kind), m.round)
	switch m.kind {
	case msgQuery:
		b = wire.AppendString(wire.AppendBool(b, m.wantValue), m.key)
	case msgStore:
		b = appendRegister(wire.AppendString(b, m.key), m.register)
	case msgReport:
		b = appendRegister(b, m.register)
	}
	return b
}

// decodeMessage reads a payload, of which the value is a part.
func decodeMessage(payload []byte, maxKey, maxValue int) (message, error) {
	if len(payload) > 0 && payload[0] > format {
		return message{}, &coterie.FormatError{What: "abd message", Got: payload[0], Max: format}
	}
	r := wire.NewReader(payload)
	if r.Byte() != format {
		r.Fail("no format byte")
	}
	m := message{kind: r.Byte(), round: r.Uint64()}
	switch m.kind {
	case msgQuery:
		m.wantValue, m.key = r.Bool(), r.String()
	case msgStore:
		m.key = r.String()
		m.register = readRegister(&r)
		if m.at == (timestamp{}) {
			r.Fail("store without a timestamp")
		}
	case msgReport:
		m.register = readRegister(&r)
	case msgStored:
	default:
		r.Fail("kind %d", m.kind)
	}
	if len(m.key) > maxKey || len(m.value) > maxValue {
		r.Fail("key of %d and value of %d bytes; limits %d and %d", len(m.key), len(m.value), maxKey, maxValue)
	}
	if err := r.Done(); err != nil {
		return message{}, fmt.Errorf("abd: message: %w", err)
	}
	return m, nil
}

// appendRegister appends the timestamp, and the value as the rest: it must come last. A value that was not asked for and
// that of a register never written are nil, which is not the same as empty.
func appendRegister(b []byte, r register) []byte {
	b = wire.AppendString(wire.AppendUvarint(b, r.at.seq), r.at.writer)
	b = wire.AppendBool(wire.AppendUint64(b, r.at.nonce), r.value != nil)
	return append(b, r.value...)
}

func readRegister(r *wire.Reader) register {
	var reg register
	reg.at.seq = r.Uvarint()
	writer := r.Bytes()
	reg.at.nonce = r.Uint64()
	if reg.at.seq > maxSeq || len(writer) > maxID {
		r.Fail("timestamp %d of a writer with a name of %d bytes", reg.at.seq, len(writer))
	}
	reg.at.writer = coterie.NodeID(writer)
	if r.Bool() {
		if reg.value = r.Rest(); reg.value == nil {
			reg.value = []byte{}
		}
	}
	return reg
}

// encodeRecord returns the journal record of a stored register.
func encodeRecord(key string, r register) []byte {
	b := make([]byte, 0, 32+len(key)+len(r.at.writer)+len(r.value))
	return appendRegister(wire.AppendString(append(b, format), key), r)
}

func decodeRecord(record []byte) (string, register, error) {
	if len(record) > 0 && record[0] > format {
		return "", register{}, &coterie.FormatError{What: "abd record", Got: record[0], Max: format}
	}
	r := wire.NewReader(record)
	if r.Byte() != format {
		r.Fail("no format byte")
	}
	key := r.String()
	reg := readRegister(&r)
	if err := r.Done(); err != nil {
		return "", register{}, fmt.Errorf("abd: record: %w", err)
	}
	return key, reg, nil
}

// Describe says what a payload or a record is.
func (c *Core) Describe(payload []byte) string {
	if m, err := decodeMessage(payload, c.cfg.MaxKey, c.cfg.MaxValue); err == nil {
		switch m.kind {
		case msgQuery:
			return fmt.Sprintf("Query key=%q round=%d", m.key, m.round)
		case msgStore:
			return fmt.Sprintf("Store key=%q at=%v round=%d", m.key, m.at, m.round)
		case msgReport:
			return fmt.Sprintf("Report at=%v round=%d", m.at, m.round)
		case msgStored:
			return fmt.Sprintf("Stored round=%d", m.round)
		}
	}
	key, r, err := decodeRecord(payload)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("register key=%q at=%v", key, r.at)
}
