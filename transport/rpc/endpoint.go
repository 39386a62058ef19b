package rpc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// endpointFormat is the first byte of every payload of an Endpoint: then come the kind and the body of a frame.
const endpointFormat = 1

// Endpoint makes calls travel over a coterie.Transport, such as a channel of a transport.Mux: those that come are for
// a Server, and those that go are of the Clients that have it in their config, one for each peer. What a Transport
// does to messages a call's Semantics deal with: a request that is repeated or late is not executed again, unless the
// call is AtLeastOnce. Every method is safe for concurrent use.
type Endpoint struct {
	transport coterie.Transport
	server    *Server
	malformed atomic.Uint64

	mu      sync.Mutex // guards what follows
	next    uint64
	calls   map[uint64]*datagramCall // of clients
	running map[remoteCall]*call     // of the server
	closed  bool
}

type datagramCall struct {
	to coterie.NodeID
	w  *waiter
}

// remoteCall names a call of another node.
type remoteCall struct {
	from coterie.NodeID
	id   uint64
}

// NewEndpoint takes over a transport: it sets its handler. The server may be nil, on a node that only calls.
func NewEndpoint(t coterie.Transport, s *Server) *Endpoint {
	e := &Endpoint{
		transport: t, server: s, next: rand.Uint64() >> 1, // other than that of an earlier incarnation
		calls: make(map[uint64]*datagramCall), running: make(map[remoteCall]*call),
	}
	if s != nil {
		s.mu.Lock()
		s.endpoints[e] = struct{}{}
		s.mu.Unlock()
	}
	t.Receive(e.receive)
	return e
}

// Malformed is how many payloads came that are not of an Endpoint.
func (e *Endpoint) Malformed() uint64 { return e.malformed.Load() }

// Close takes no more from the transport, which stays open. Calls under way return coterie.ErrUnknownOutcome, and
// those of others lose their context. Closing twice is harmless.
func (e *Endpoint) Close() error {
	e.transport.Receive(nil)
	e.mu.Lock()
	e.closed = true
	calls := e.calls
	e.calls = nil
	e.mu.Unlock()
	for _, each := range calls {
		each.w.err = fmt.Errorf("rpc: endpoint: %w (%w)", coterie.ErrClosed, coterie.ErrUnknownOutcome)
		each.w.done <- struct{}{}
	}
	e.cancelRunning()
	if e.server != nil {
		e.server.mu.Lock()
		delete(e.server.endpoints, e)
		e.server.mu.Unlock()
	}
	return nil
}

func (e *Endpoint) cancelRunning() {
	e.mu.Lock()
	running := make([]*call, 0, len(e.running))
	for _, c := range e.running {
		running = append(running, c)
	}
	e.mu.Unlock()
	for _, c := range running {
		c.cancel(context.Canceled)
	}
}

// receive is the transport's handler: it does not block.
func (e *Endpoint) receive(from coterie.NodeID, payload []byte) {
	if len(payload) < 2 || payload[0] != endpointFormat {
		e.malformed.Add(1)
		return
	}
	var err error
	switch body := payload[2:]; payload[1] {
	case kindRequest:
		err = e.request(from, body)
	case kindResponse:
		err = e.response(from, body)
	case kindCancel:
		var n note
		if n, err = decodeNote(body, false); err == nil {
			e.mu.Lock()
			c := e.running[remoteCall{from, n.id}]
			e.mu.Unlock()
			if c != nil {
				e.server.counters.canceled.Add(1)
				c.cancel(context.Canceled)
			}
		}
	default:
		err = errProtocol
	}
	if err != nil {
		e.malformed.Add(1)
	}
}

func (e *Endpoint) request(from coterie.NodeID, body []byte) error {
	var q request
	if err := q.decode(body); err != nil {
		return err
	}
	if e.server == nil {
		_ = e.send(from, &response{id: q.id, err: refusal(UnknownMethod, "no server at %s", e.transport.LocalID())})
		return nil
	}
	c, failure := e.server.newCall(&q, e, time.Now())
	if failure != nil {
		_ = e.send(from, &response{id: q.id, err: failure})
		return nil
	}
	c.peer = from
	key := remoteCall{from, q.id}
	e.mu.Lock()
	if e.closed || e.running[key] != nil { // the same request once more
		e.mu.Unlock()
		return nil
	}
	e.running[key] = c
	e.mu.Unlock()
	if failure := e.server.start(c); failure != nil {
		e.quiet(c)
		_ = e.send(from, &response{id: q.id, err: failure})
	}
	return nil
}

func (e *Endpoint) quiet(c *call) {
	e.mu.Lock()
	delete(e.running, remoteCall{c.peer, c.id})
	e.mu.Unlock()
}

func (e *Endpoint) answer(c *call, buf []byte, failure *Error, payload []byte) []byte {
	e.quiet(c)
	p := response{id: c.id, err: failure, payload: payload}
	if failure != nil {
		p.payload = nil
	}
	if err := e.send(c.peer, &p); err != nil {
		_ = e.send(c.peer, &response{id: c.id, err: &Error{Code: TooLarge, Message: clip("rpc: answer: "+err.Error(), 1<<10)}})
	}
	return buf
}

func (e *Endpoint) send(to coterie.NodeID, p *response) error {
	b := append(make([]byte, 0, 32+len(p.payload)), endpointFormat, kindResponse)
	return e.transport.Send(to, append(p.appendHead(b), p.payload...))
}

func (e *Endpoint) response(from coterie.NodeID, body []byte) error {
	var p response
	if err := p.decode(body); err != nil {
		return err
	}
	e.mu.Lock()
	each := e.calls[p.id]
	if each == nil || each.to != from {
		e.mu.Unlock()
		return nil // given up, or answered before
	}
	delete(e.calls, p.id)
	e.mu.Unlock()
	each.w.answer = p
	each.w.done <- struct{}{}
	return nil
}

// endpointLink carries a client's calls over an Endpoint.
type endpointLink struct {
	core  *clientCore
	on    *Endpoint
	to    coterie.NodeID
	ended chan struct{}
	once  sync.Once
}

func newEndpointLink(c *clientCore) *endpointLink {
	return &endpointLink{core: c, on: c.cfg.Endpoint, to: c.cfg.Peer, ended: make(chan struct{})}
}

func (l *endpointLink) close() { l.once.Do(func() { close(l.ended) }) }

func (l *endpointLink) call(ctx, outer context.Context, q *request) ([]byte, error) {
	e := l.on
	w := &waiter{done: make(chan struct{}, 1)}
	e.mu.Lock()
	select {
	case <-l.ended:
		e.mu.Unlock()
		return nil, fmt.Errorf("rpc: client: %w", coterie.ErrClosed)
	default:
	}
	if e.closed {
		e.mu.Unlock()
		return nil, fmt.Errorf("rpc: endpoint: %w", coterie.ErrClosed)
	}
	if len(e.calls) >= l.core.cfg.MaxCalls {
		e.mu.Unlock()
		return nil, fmt.Errorf("rpc: %d calls under way: %w", l.core.cfg.MaxCalls, coterie.ErrOverloaded)
	}
	e.next++
	q.id = e.next
	e.calls[q.id] = &datagramCall{to: l.to, w: w}
	e.mu.Unlock()
	if deadline, ok := outer.Deadline(); ok {
		q.timeout = uint64(max(time.Until(deadline)/time.Microsecond, 1))
	}
	b := append(make([]byte, 0, 64+len(q.method)+len(q.payload)), endpointFormat, kindRequest)
	if err := e.transport.Send(l.to, append(q.appendHead(b), q.payload...)); err != nil {
		e.forget(q.id)
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	var err error
	select {
	case <-w.done:
		if w.err != nil {
			return nil, w.err
		}
		if w.answer.err != nil {
			return nil, w.answer.err
		}
		return w.answer.payload, nil
	case <-l.ended:
		err = fmt.Errorf("rpc: client: %w (%w)", coterie.ErrClosed, coterie.ErrUnknownOutcome)
	case <-ctx.Done():
		err = fmt.Errorf("rpc: call %s: %w (%w)", q.method, ctx.Err(), coterie.ErrUnknownOutcome)
	}
	e.forget(q.id)
	if outer.Err() != nil || l.gone() {
		_ = e.transport.Send(l.to, wire.AppendUvarint([]byte{endpointFormat, kindCancel}, q.id))
	}
	return nil, err
}

func (l *endpointLink) gone() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

func (e *Endpoint) forget(id uint64) {
	e.mu.Lock()
	delete(e.calls, id)
	e.mu.Unlock()
}
