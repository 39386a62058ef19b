package ricart

import (
	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// A message is: format byte | kind | time | name; the record, kindBound, is the same without a name.
const (
	format = 1

	kindRequest = 1
	kindReply   = 2 // its time is that of the request
	kindBound   = 3 // the record: no time over this one was seen or used
)

// message is every payload and record of the package.
type message struct {
	kind byte
	time uint64 // 1 to maxTime
	name string // empty in a bound
}

func (m message) encode() []byte {
	b := make([]byte, 0, 2+10+2+len(m.name))
	b = wire.AppendUvarint(append(b, format, m.kind), m.time)
	if m.kind == kindBound {
		return b
	}
	return wire.AppendString(b, m.name)
}

func decode(payload []byte) (message, error) {
	r := wire.NewReader(payload)
	if f := r.Byte(); f > format {
		return message{}, &coterie.FormatError{What: "ricart message", Got: f, Max: format}
	} else if f == 0 {
		r.Fail("format 0")
	}
	m := message{kind: r.Byte()}
	if m.kind < kindRequest || m.kind > kindBound {
		r.Fail("kind %d", m.kind)
	}
	m.time = r.Uvarint()
	if m.time == 0 || m.time > maxTime {
		r.Fail("time %d", m.time)
	}
	if m.kind != kindBound {
		m.name = r.String()
	}
	if err := r.Done(); err != nil {
		return message{}, err
	}
	return m, nil
}
