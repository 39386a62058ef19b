package rpc

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"
)

// call is one call at its server, and the context of its handler.
type call struct {
	callContext
	from    origin
	id      uint64
	method  *method
	tag     tag
	payload []byte
	stream  *stream   // nil for a unary call
	began   time.Time // when the request was read
	waited  bool      // for a goroutine to run it
}

// origin is where a call came from.
type origin interface {
	// answer sends the response, and forgets the call. It may use buf, from its start, and returns it.
	answer(c *call, buf []byte, failure *Error, payload []byte) []byte
	// quiet forgets the call, to which nobody waits for a response.
	quiet(c *call)
}

// newCall makes a call of a request, or says why not.
func (s *Server) newCall(q *request, from origin, now time.Time) (*call, *Error) {
	m := (*s.methods.Load())[string(q.method)]
	switch {
	case m == nil:
		s.counters.unknownMethods.Add(1)
		return nil, refusal(UnknownMethod, "unknown method %.80q", q.method)
	case (m.stream != nil) != (q.window > 0):
		s.counters.unknownMethods.Add(1)
		return nil, refusal(UnknownMethod, "method %s: one side takes it for a stream, the other does not", m.name)
	case len(q.payload) > s.cfg.MaxMessage:
		s.counters.tooLarge.Add(1)
		return nil, refusal(TooLarge, "request of %d bytes, at most %d", len(q.payload), s.cfg.MaxMessage)
	}
	c := &call{from: from, id: q.id, method: m, tag: q.tag, payload: q.payload, began: now}
	c.trace = q.trace
	if q.timeout > 0 {
		const most = uint64(365 * 24 * time.Hour / time.Microsecond)
		c.deadline = c.began.Add(time.Duration(min(q.timeout, most)) * time.Microsecond)
	}
	return c, nil
}

// start has a call run, or says why not.
func (s *Server) start(c *call) *Error {
	if !s.accept() {
		return refusal(Unavailable, "the server is shutting down")
	}
	c.method.running.Add(1)
	if !s.workers.start(c) {
		c.method.running.Add(-1)
		s.active.Done()
		s.counters.overloaded.Add(1)
		return refusal(Overloaded, "too many calls")
	}
	return nil
}

// run runs a call and answers it, by means of a buffer.
func (s *Server) run(c *call, buf []byte) []byte {
	defer s.active.Done()
	var failure *Error
	payload := buf[:0]
	silent := false
	switch err := c.ended(); {
	case err != nil:
		failure = &Error{Code: CodeOf(err), Message: "rpc: ended while it waited", NotRun: true}
	case c.tag.session != 0:
		payload, failure, silent = s.runOnce(c, buf)
	default:
		payload, failure = s.invoke(c, buf)
	}
	c.method.observe(time.Since(c.began), failure != nil)
	c.method.running.Add(-1)
	c.cancel(context.Canceled)
	if silent {
		c.from.quiet(c)
		return buf
	}
	return c.from.answer(c, buf, failure, payload)
}

// ended tells whether the caller has stopped waiting before the handler began.
func (c *call) ended() error {
	if c.waited {
		return c.Err()
	}
	c.mu.Lock() // without a look at the clock, of which a call that just came has no need
	defer c.mu.Unlock()
	return c.err
}

// invoke calls the handler. The payload is built in buf if there is room.
func (s *Server) invoke(c *call, buf []byte) (payload []byte, failure *Error) {
	defer func() {
		if r := recover(); r != nil {
			s.counters.panics.Add(1)
			s.cfg.Logger.Error("rpc: handler panicked", "method", c.method.name, "panic", r, "stack", string(debug.Stack()))
			payload, failure = nil, &Error{Code: Internal, Message: fmt.Sprintf("rpc: method %s panicked", c.method.name)}
		}
	}()
	var err error
	if c.stream != nil {
		err = c.method.stream(c, c.stream)
		payload = c.stream.answer
	} else {
		payload, err = c.method.unary(c, c.payload, buf[:0])
	}
	if err != nil {
		return nil, toError(err)
	}
	if len(payload) > s.cfg.MaxMessage {
		return nil, &Error{Code: TooLarge, Message: fmt.Sprintf("rpc: answer of %d bytes, at most %d", len(payload), s.cfg.MaxMessage)}
	}
	return payload, nil
}
