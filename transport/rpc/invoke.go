package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"
)

// Call makes a unary call and returns its answer. How often the method may be executed is in Options.Semantics. The
// context's deadline and end travel to the server. Errors: an *Error with what the handler returned or why it did not
// run; ErrUnreachable, coterie.ErrOverloaded, ErrTooLarge: nothing was done; coterie.ErrUnknownOutcome: it may or may
// not have been, or may yet be; the context's error, with ErrUnknownOutcome if the request was sent;
// coterie.ErrClosed.
func Call[Req, Resp any](ctx context.Context, c *Client, method string, req Req) (Resp, error) {
	if len(c.cfg.Intercept) == 0 {
		return invoke[Req, Resp](ctx, c, method, req)
	}
	next := intercept(c.cfg.Intercept, Info{Method: method, Peer: c.cfg.Peer}, func(ctx context.Context, v any) (any, error) {
		req, err := as[Req](v)
		if err != nil {
			return nil, err
		}
		return invoke[Req, Resp](ctx, c, method, req)
	})
	v, err := next(ctx, req)
	if err != nil {
		var none Resp
		return none, err
	}
	return as[Resp](v)
}

func invoke[Req, Resp any](ctx context.Context, c *Client, method string, req Req) (resp Resp, err error) {
	m := c.method(method)
	began := time.Now()
	m.running.Add(1)
	resp, err = encodeAndCall[Req, Resp](ctx, c, m, req)
	m.running.Add(-1)
	m.observe(time.Since(began), err != nil)
	return resp, err
}

// encodings are buffers that requests are encoded in.
var encodings = sync.Pool{New: func() any { return new([]byte) }}

func encodeAndCall[Req, Resp any](ctx context.Context, c *Client, m *clientMethod, req Req) (resp Resp, err error) {
	codec := c.cfg.Codec
	payload, plain := asIs(codec, req)
	if !plain {
		buf := encodings.Get().(*[]byte)
		defer encodings.Put(buf)
		if payload, err = encode(codec, (*buf)[:0], req); err != nil {
			return resp, fmt.Errorf("rpc: encode request: %w", err)
		}
		if cap(payload) <= maxScratch {
			*buf = payload
		}
	}
	if len(payload) > c.cfg.MaxMessage || len(m.name) == 0 || len(m.name) > maxMethod {
		return resp, c.refuse(m, len(payload))
	}
	answer, err := c.do(ctx, m, payload)
	if err != nil {
		return resp, err
	}
	resp, err = decode[Resp](codec, answer)
	if err != nil {
		return resp, fmt.Errorf("rpc: decode the answer of %s: %w", m.name, err)
	}
	return resp, nil
}

// refuse says what is wrong with a request that must not be sent.
func (c *clientCore) refuse(m *clientMethod, size int) error {
	if size > c.cfg.MaxMessage {
		return fmt.Errorf("rpc: request of %d bytes, at most %d: %w", size, c.cfg.MaxMessage, ErrTooLarge)
	}
	return fmt.Errorf("rpc: a method's name has 1 to %d bytes, not %d: %w", maxMethod, len(m.name), ErrUnknownMethod)
}

// asIs returns the bytes of a value that travels as it is, without the allocation that an interface costs.
func asIs[T any](codec Codec, v T) ([]byte, bool) {
	switch codec.(type) {
	case auto, binaryCodec:
		b, ok := any(v).([]byte)
		return b, ok
	}
	return nil, false
}

func encode[T any](codec Codec, buf []byte, v T) ([]byte, error) {
	if b, ok := asIs(codec, v); ok {
		return append(buf, b...), nil
	}
	return encodeBy(codec, buf, v)
}

func encodeBy[T any](codec Codec, buf []byte, v T) ([]byte, error) { return codec.Append(buf, &v) }

func decode[T any](codec Codec, data []byte) (T, error) {
	switch codec.(type) {
	case auto, binaryCodec:
		var v T
		if b, ok := any(&v).(*[]byte); ok {
			*b = data
			return v, nil
		}
	}
	return decodeBy[T](codec, data)
}

func decodeBy[T any](codec Codec, data []byte) (v T, err error) {
	err = codec.Decode(data, &v)
	return v, err
}

// Open opens a stream in both directions. It returns before the server has answered: an unknown method is an error of
// Recv. Close the stream in any case. A stream is not tried again, whatever the Semantics: if it ends with
// coterie.ErrUnknownOutcome the handler may have received what was sent. Over an Endpoint there are none.
func Open[Req, Resp any](ctx context.Context, c *Client, method string) (*Stream[Req, Resp], error) {
	m := c.method(method)
	if len(m.name) == 0 || len(m.name) > maxMethod {
		return nil, c.refuse(m, 0)
	}
	l, ok := c.link.(*connLink)
	if !ok {
		return nil, errors.New("rpc: an Endpoint carries no streams")
	}
	var s *stream
	var release func()
	open := func(ctx context.Context, _ any) (any, error) {
		var err error
		s, release, err = l.open(ctx, m)
		return nil, err
	}
	info := Info{Method: method, Peer: c.cfg.Peer, Stream: true}
	if _, err := intercept(c.cfg.Intercept, info, open)(ctx, nil); err != nil {
		if release != nil {
			release()
		}
		return nil, err
	}
	if s == nil {
		return nil, errors.New("rpc: an interceptor did not open the stream")
	}
	return &Stream[Req, Resp]{s: s, codec: c.cfg.Codec, release: release}, nil
}

// received is what a stream receives, until its end, an error, or the consumer's break.
func received[Out, In any](stream *Stream[Out, In]) iter.Seq2[In, error] {
	return func(yield func(In, error) bool) {
		for {
			v, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// CallServerStream calls a method of HandleServerStream. The sequence yields its answers, and an error, if there is
// one, last. To break out of it gives the call up.
func CallServerStream[Req, Resp any](ctx context.Context, c *Client, method string, req Req) iter.Seq2[Resp, error] {
	return func(yield func(Resp, error) bool) {
		var none Resp
		stream, err := Open[Req, Resp](ctx, c, method)
		if err != nil {
			yield(none, err)
			return
		}
		defer func() { _ = stream.Close() }()
		if err := stream.Send(req); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			yield(none, err)
			return
		}
		stream.CloseSend()
		received(stream)(yield)
	}
}

// CallClientStream calls a method of HandleClientStream with a sequence of requests. If the handler answers before it
// has received all of them, the rest is not sent.
func CallClientStream[Req, Resp any](ctx context.Context, c *Client, method string, reqs iter.Seq[Req]) (resp Resp, err error) {
	stream, err := Open[Req, Resp](ctx, c, method)
	if err != nil {
		return resp, err
	}
	defer func() { _ = stream.Close() }()
	for req := range reqs {
		if err := stream.Send(req); errors.Is(err, ErrTooLarge) {
			return resp, err
		} else if err != nil {
			break // Recv tells why
		}
	}
	stream.CloseSend()
	resp, err = stream.Recv()
	if errors.Is(err, io.EOF) {
		err = &Error{Code: Internal, Message: "rpc: no answer"}
	}
	return resp, err
}
