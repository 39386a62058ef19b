package suzuki

import (
	"fmt"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// format is the first byte of every message and record.
const format = 1

type kind byte

const (
	kindRequest kind = iota + 1
	kindToken
	kindReclaim // of who regenerates
	kindPromise // the answer to it
	kindNotice  // what a node knows, to one that seems to know less
)

// message is any message; which fields count depends on the kind.
type message struct {
	kind     kind
	name     string
	number   uint64 // of the sender's last request: Request, Promise
	promised uint64 // epoch: all but Token
	seen     stamp  // Request, Notice
	flag     bool   // Request: it is repeated. Promise: the sender waits. Notice: the sender has the token
	token    token  // Token
}

func head(kind byte) []byte { return []byte{format, kind} }

func (m message) encode() []byte {
	b := wire.AppendString(head(byte(m.kind)), m.name)
	switch m.kind {
	case kindRequest:
		b = wire.AppendUvarint(b, m.number)
		b = wire.AppendUvarint(b, m.promised)
		b = wire.AppendBool(appendStamp(b, m.seen), m.flag)
	case kindToken:
		b = appendToken(b, m.token)
	case kindReclaim:
		b = wire.AppendUvarint(b, m.promised)
	case kindPromise:
		b = wire.AppendUvarint(b, m.number)
		b = wire.AppendBool(wire.AppendUvarint(b, m.promised), m.flag)
	case kindNotice:
		b = wire.AppendUvarint(b, m.promised)
		b = wire.AppendBool(appendStamp(b, m.seen), m.flag)
	}
	return b
}

func appendStamp(b []byte, s stamp) []byte {
	return wire.AppendUvarint(wire.AppendUvarint(b, s.epoch), s.seq)
}

func appendToken(b []byte, t token) []byte {
	b = appendStamp(b, t.stamp)
	for _, number := range t.ln {
		b = wire.AppendUvarint(b, number)
	}
	b = wire.AppendUvarint(b, uint64(len(t.queue)))
	for _, i := range t.queue {
		b = wire.AppendUvarint(b, uint64(i))
	}
	return b
}

// decode reads a message among so many peers.
func decode(payload []byte, peers int) (message, error) {
	r := wire.NewReader(payload)
	if f := r.Byte(); f > format {
		return message{}, &coterie.FormatError{What: "suzuki message", Got: f, Max: format}
	} else if f == 0 {
		r.Fail("format 0")
	}
	m := message{kind: kind(r.Byte()), name: r.String()}
	switch m.kind {
	case kindRequest:
		m.number, m.promised, m.seen, m.flag = r.Uvarint(), readEpoch(&r), readStamp(&r), r.Bool()
	case kindToken:
		m.token = readToken(&r, peers)
	case kindReclaim:
		m.promised = readEpoch(&r)
	case kindPromise:
		m.number, m.promised, m.flag = r.Uvarint(), readEpoch(&r), r.Bool()
	case kindNotice:
		m.promised, m.seen, m.flag = readEpoch(&r), readStamp(&r), r.Bool()
	default:
		r.Fail("kind %d", m.kind)
	}
	if err := r.Done(); err != nil {
		return message{}, fmt.Errorf("suzuki: message: %w", err)
	}
	return m, nil
}

func readEpoch(r *wire.Reader) uint64 { return uint64(r.Int(maxEpoch)) }

func readStamp(r *wire.Reader) stamp {
	s := stamp{epoch: readEpoch(r), seq: r.Uvarint()}
	if s.seq > maxSeq {
		r.Fail("sequence number %d", s.seq)
	}
	return s
}

// readToken reads a token. Its queue names each peer at most once.
func readToken(r *wire.Reader, peers int) token {
	t := token{stamp: readStamp(r)}
	if peers > r.Len() {
		r.Fail("ended early")
		return token{}
	}
	t.ln = make([]uint64, peers)
	for i := range t.ln {
		t.ln[i] = r.Uvarint()
	}
	queued := make([]bool, peers)
	for range r.Count(1) {
		i := r.Int(peers - 1)
		if queued[i] {
			r.Fail("peer %d is queued twice", i)
			return token{}
		}
		queued[i] = true
		t.queue = append(t.queue, i)
	}
	return t
}

// String is what Describe says of a message.
func (m message) String() string {
	switch m.kind {
	case kindRequest:
		return fmt.Sprintf("Request %q number=%#x epoch=%d again=%t", m.name, m.number, m.promised, m.flag)
	case kindToken:
		return fmt.Sprintf("Token %q %v", m.name, m.token)
	case kindReclaim:
		return fmt.Sprintf("Reclaim %q epoch=%d", m.name, m.promised)
	case kindPromise:
		return fmt.Sprintf("Promise %q epoch=%d number=%#x waiting=%t", m.name, m.promised, m.number, m.flag)
	default: // kindNotice: decode makes no other
	}
	return fmt.Sprintf("Notice %q epoch=%d seen=%v alive=%t", m.name, m.promised, m.seen, m.flag)
}

// String gives epoch, sequence number and queue.
func (t token) String() string { return fmt.Sprintf("%v queue=%v", t.stamp, t.queue) }

// String gives epoch and sequence number, "2/17".
func (s stamp) String() string { return fmt.Sprintf("%d/%d", s.epoch, s.seq) }
