package rpc

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/coterie-go/coterie"
)

// Info says what an Interceptor is around.
type Info struct {
	Method string
	Peer   coterie.NodeID // at a server the caller, see Peer; at a client the server, if it is known
	Stream bool
}

// Next is the rest of a call: the interceptors further in, and the handler or the network.
type Next func(ctx context.Context, request any) (answer any, err error)

// Interceptor is called around every call, of a server or of a client, and calls next, once, more often or not at all.
// For a unary call the request and the answer are what the handler takes and returns, and must stay of these types; for
// a stream they are nil, at a server next returns when the handler does, and at a client when the stream is open. A
// client's interceptor is around all the tries of a call. It is called by many goroutines at once.
type Interceptor func(ctx context.Context, info Info, request any, next Next) (answer any, err error)

// intercept wraps next in the interceptors, the first outermost.
func intercept(all []Interceptor, info Info, next Next) Next {
	for _, each := range slices.Backward(all) {
		inner := next
		next = func(ctx context.Context, request any) (any, error) { return each(ctx, info, request, inner) }
	}
	return next
}

// as is the answer of an interceptor, which is a caller's bug if it has the wrong type.
func as[T any](v any) (T, error) {
	t, ok := v.(T)
	if !ok && v != nil {
		return t, fmt.Errorf("rpc: an interceptor made a %T of a %T", v, t)
	}
	return t, nil
}

// Handle registers a function for the unary calls of a method. Its context ends when the caller gives up, the call's
// deadline comes, the connection breaks (unless the call is at-most-once: its caller will ask again) or the Server
// closes. An error that it returns reaches the caller with its code, see CodeOf. If it panics the caller gets code
// Internal. It is called by many goroutines at once.
//
// Handle panics if the method is registered already, or its name is empty or longer than 255 bytes.
func Handle[Req, Resp any](s *Server, method string, fn func(ctx context.Context, req Req) (Resp, error)) {
	codec, all := s.cfg.Codec, s.cfg.Intercept
	call := fn
	if len(all) > 0 {
		call = func(ctx context.Context, req Req) (resp Resp, err error) {
			v, err := intercept(all, Info{Method: method, Peer: Peer(ctx)}, func(ctx context.Context, v any) (any, error) {
				req, err := as[Req](v)
				if err != nil {
					return nil, err
				}
				return fn(ctx, req)
			})(ctx, req)
			if err != nil {
				return resp, err
			}
			return as[Resp](v)
		}
	}
	s.handle(newMethod(method, func(ctx context.Context, payload, buf []byte) ([]byte, error) {
		req, err := decode[Req](codec, payload)
		if err != nil {
			return nil, &Error{Code: BadRequest, Message: "rpc: decode request: " + err.Error(), NotRun: true}
		}
		resp, err := call(ctx, req)
		if err != nil {
			return nil, err
		}
		b, err := encode(codec, buf, resp)
		if err != nil {
			return nil, &Error{Code: Internal, Message: "rpc: encode answer: " + err.Error()}
		}
		return b, nil
	}, nil))
}

func newMethod(name string, unary func(context.Context, []byte, []byte) ([]byte, error), stream func(context.Context, *stream) error) *method {
	return &method{name: name, unary: unary, stream: stream}
}

// HandleStream registers a function for the streams of a method, in both directions: it receives what the caller
// sends and sends what the caller receives. When it returns the stream has ended; see Handle for the rest.
func HandleStream[Req, Resp any](s *Server, method string, fn func(ctx context.Context, stream *Stream[Resp, Req]) error) {
	codec, all := s.cfg.Codec, s.cfg.Intercept
	s.handle(newMethod(method, nil, func(ctx context.Context, in *stream) error {
		typed := &Stream[Resp, Req]{s: in, codec: codec}
		_, err := intercept(all, Info{Method: method, Peer: Peer(ctx), Stream: true}, func(ctx context.Context, _ any) (any, error) {
			return nil, fn(ctx, typed)
		})(ctx, nil)
		return err
	}))
}

// HandleServerStream registers a function for calls of one request and any number of answers, which it gives to send.
func HandleServerStream[Req, Resp any](s *Server, method string, fn func(ctx context.Context, req Req, send func(Resp) error) error) {
	HandleStream(s, method, func(ctx context.Context, stream *Stream[Resp, Req]) error {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		return fn(ctx, req, stream.Send)
	})
}

// HandleClientStream registers a function for calls of any number of requests and one answer. The sequence ends with
// the caller's last request, or with an error; the function may stop before.
func HandleClientStream[Req, Resp any](s *Server, method string, fn func(ctx context.Context, reqs iter.Seq2[Req, error]) (Resp, error)) {
	HandleStream(s, method, func(ctx context.Context, stream *Stream[Resp, Req]) error {
		resp, err := fn(ctx, received(stream))
		if err != nil {
			return err
		}
		return stream.Send(resp)
	})
}
