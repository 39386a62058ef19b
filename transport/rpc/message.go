package rpc

import (
	"fmt"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// kind is what a frame, or a payload over a Transport, is for.
type kind = byte

const (
	kindHello    kind = 1  // the first frame of who connected: who it is, and whom it wants to reach
	kindWelcome  kind = 2  // the answer: come in, or why not
	kindRequest  kind = 3  // starts a call
	kindResponse kind = 4  // ends it
	kindCancel   kind = 5  // the caller has given up
	kindMessage  kind = 6  // one message of a stream, in either direction
	kindEnd      kind = 7  // the caller sends no more messages
	kindCredit   kind = 8  // so many bytes more may be sent on a stream
	kindPing     kind = 9  // are you there?
	kindPong     kind = 10 // the answer to it
	kindGoAway   kind = 11 // from the server: what is under way will be answered, start nothing new
)

// Bodies are a call's number, then fields, then a payload up to the end. A field is a key, twice its tag, and a varint;
// or twice its tag and one more, a length and so many bytes. Key 0 ends the fields. A reader skips fields that it does
// not know.
const (
	fieldMethod     = 1 // of a request: bytes
	fieldTimeout    = 2 // microseconds, from 1
	fieldTrace      = 3 // bytes, the four parts of a traceparent
	fieldTraceState = 4 // bytes
	fieldSession    = 5
	fieldSeq        = 6
	fieldLow        = 7
	fieldStream     = 8 // bytes that the caller may be sent at first; its presence makes the call a stream

	fieldCode    = 1 // of a response
	fieldMessage = 2 // bytes
	fieldDetail  = 3 // bytes
	fieldNotRun  = 4 // 1

	fieldFrom = 1 // of hello: bytes
	fieldTo   = 2 // bytes

	fieldRefusal = 1 // of welcome: bytes
	fieldRefCode = 2 // of welcome: why, a Code
)

// maxHello bounds the body of hello and welcome.
const maxHello = 4 << 10

func putInt(b []byte, tag, v uint64) []byte {
	if v == 0 {
		return b
	}
	return wire.AppendUvarint(wire.AppendUvarint(b, tag<<1), v)
}

func putBytes[S ~string | ~[]byte](b []byte, tag uint64, v S) []byte {
	if len(v) == 0 {
		return b
	}
	b = wire.AppendUvarint(wire.AppendUvarint(b, tag<<1|1), uint64(len(v)))
	return append(b, v...)
}

// field takes the next field off a body; tag is 0 at the end of the fields and after an error.
func field(r *wire.Reader) (tag, v uint64, p []byte) {
	key := r.Uvarint()
	switch {
	case key == 0:
		return 0, 0, nil
	case key == 1:
		r.Fail("field without a tag")
		return 0, 0, nil
	case key&1 == 1:
		p = r.Bytes()
	default:
		v = r.Uvarint()
	}
	if r.Err() != nil {
		return 0, 0, nil
	}
	return key >> 1, v, p
}

// tag names a call of a session, by which a server tells a repetition.
type tag struct{ session, seq, low uint64 }

// request is what a call sends.
type request struct {
	id      uint64
	method  []byte // part of the frame, when decoded
	timeout uint64 // microseconds; 0 for none
	trace   Trace
	tag     tag    // zero for a call that may be repeated, or cannot be
	window  uint64 // of a stream
	payload []byte
}

// appendHead encodes a request but for its payload.
func (q *request) appendHead(b []byte) []byte {
	b = wire.AppendUvarint(b, q.id)
	b = putBytes(b, fieldMethod, q.method)
	b = putInt(b, fieldTimeout, q.timeout)
	if !q.trace.IsZero() {
		b = wire.AppendUvarint(wire.AppendUvarint(b, fieldTrace<<1|1), traceSize)
		b = q.trace.appendBinary(b)
		b = putBytes(b, fieldTraceState, q.trace.State)
	}
	b = putInt(b, fieldSession, q.tag.session)
	b = putInt(b, fieldSeq, q.tag.seq)
	b = putInt(b, fieldLow, q.tag.low)
	b = putInt(b, fieldStream, q.window)
	return append(b, 0)
}

// decode reads a request, whose parts are then parts of body. Trace context that is malformed is left out, as W3C
// Trace Context asks for (section 4.3).
func (q *request) decode(body []byte) error {
	r := wire.NewReader(body)
	q.id = r.Uvarint()
	for {
		t, v, p := field(&r)
		if t == 0 {
			break
		}
		switch t {
		case fieldMethod:
			q.method = p
		case fieldTimeout:
			q.timeout = v
		case fieldTrace:
			setBinary(&q.trace, p)
		case fieldTraceState:
			q.trace.State = string(p)
		case fieldSession:
			q.tag.session = v
		case fieldSeq:
			q.tag.seq = v
		case fieldLow:
			q.tag.low = v
		case fieldStream:
			q.window = v
		}
	}
	if q.trace.TraceID == [16]byte{} {
		q.trace = Trace{}
	}
	if t := q.tag; r.Err() == nil && t != (tag{}) && (t.session == 0 || t.seq == 0 || t.low == 0 || t.low > t.seq) {
		r.Fail("call %d of session %d with %d the oldest", t.seq, t.session, t.low)
	}
	q.payload = r.Rest()
	if err := r.Err(); err != nil {
		return fmt.Errorf("rpc: request: %w", err)
	}
	return nil
}

// response is what answers a call.
type response struct {
	id      uint64
	err     *Error // nil for OK
	payload []byte
}

func (p *response) appendHead(b []byte) []byte {
	b = wire.AppendUvarint(b, p.id)
	if e := p.err; e != nil {
		b = putInt(b, fieldCode, uint64(e.Code))
		b = putBytes(b, fieldMessage, e.Message)
		b = putBytes(b, fieldDetail, e.Detail)
		if e.NotRun {
			b = putInt(b, fieldNotRun, 1)
		}
	}
	return append(b, 0)
}

func (p *response) decode(body []byte) error {
	r := wire.NewReader(body)
	p.id = r.Uvarint()
	e := Error{}
	for {
		t, v, b := field(&r)
		if t == 0 {
			break
		}
		switch t {
		case fieldCode:
			if v > 255 {
				r.Fail("code %d", v)
			}
			e.Code = Code(v)
		case fieldMessage:
			e.Message = string(b)
		case fieldDetail:
			e.Detail = string(b)
		case fieldNotRun:
			e.NotRun = v != 0
		}
	}
	p.payload = r.Rest()
	if err := r.Err(); err != nil {
		return fmt.Errorf("rpc: response: %w", err)
	}
	if e.Code != OK {
		failure := e // so that a call that succeeds allocates none
		p.err = &failure
	}
	return nil
}

// note is a body of a number and, of a credit, an amount.
type note struct{ id, amount uint64 }

func decodeNote(body []byte, amount bool) (n note, err error) {
	r := wire.NewReader(body)
	n.id = r.Uvarint()
	if amount {
		n.amount = r.Uvarint()
	}
	if err := r.Done(); err != nil {
		return note{}, fmt.Errorf("rpc: note: %w", err)
	}
	return n, nil
}

// decodeMessage splits the body of a stream's message.
func decodeMessage(body []byte) (id uint64, payload []byte, err error) {
	r := wire.NewReader(body)
	id = r.Uvarint()
	if err := r.Err(); err != nil {
		return 0, nil, fmt.Errorf("rpc: stream message: %w", err)
	}
	return id, r.Rest(), nil
}

// hello says who connects, if it does, and whom it wants to reach, if it cares.
type hello struct{ from, to coterie.NodeID }

func (h hello) encode() []byte {
	return append(putBytes(putBytes(nil, fieldFrom, h.from), fieldTo, h.to), 0)
}

func decodeHello(body []byte) (h hello, err error) {
	r := wire.NewReader(body)
	for {
		t, _, p := field(&r)
		if t == 0 {
			break
		}
		switch t {
		case fieldFrom:
			h.from = coterie.NodeID(p)
		case fieldTo:
			h.to = coterie.NodeID(p)
		}
	}
	if err := r.Done(); err != nil {
		return hello{}, fmt.Errorf("rpc: hello: %w", err)
	}
	return h, nil
}

// welcome answers a hello: the reason for which it is refused, or none.
type welcome struct {
	refusal string
	code    Code
}

func (w welcome) encode() []byte {
	return append(putInt(putBytes(nil, fieldRefusal, w.refusal), fieldRefCode, uint64(w.code)), 0)
}

func decodeWelcome(body []byte) (w welcome, err error) {
	r := wire.NewReader(body)
	for {
		t, v, p := field(&r)
		if t == 0 {
			break
		}
		switch t {
		case fieldRefusal:
			w.refusal = string(p)
		case fieldRefCode:
			w.code = Code(v)
		}
	}
	if err := r.Done(); err != nil {
		return welcome{}, fmt.Errorf("rpc: welcome: %w", err)
	}
	return w, nil
}
