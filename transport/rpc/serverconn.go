package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/internal/frame"
)

// Reasons to turn a connection away or cut it off.
var (
	errTLS       = errors.New("tls handshake")
	errElsewhere = errors.New("not the node looked for")
	errSilent    = errors.New("silent for too long")
	errProtocol  = errors.New("frame out of place")
	errHandshake = errors.New("no hello in time")
)

// serverConn is a connection that a client made.
type serverConn struct {
	server  *Server
	raw     net.Conn
	conn    net.Conn // raw, or TLS over it
	out     outbox
	pulse   pulse
	from    coterie.NodeID
	greeted bool // guarded by server.mu
	reason  atomic.Pointer[error]
	running atomic.Int64 // calls under way

	mu    sync.Mutex // guards calls
	calls map[uint64]*call
}

// admit starts to serve a connection, unless there are too many.
func (s *Server) admit(raw net.Conn) {
	c := &serverConn{server: s, raw: raw, calls: make(map[uint64]*call)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.draining || len(s.conns) >= s.cfg.MaxConns || s.greeting >= s.cfg.MaxHandshakes {
		if !s.closed && !s.draining {
			s.counters.overLimit.Add(1)
		}
		_ = raw.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.greeting++
	s.wg.Add(1)
	go c.serve()
}

// cut closes the connection. The goroutine that serves it sees to the rest.
func (c *serverConn) cut(reason error) {
	c.reason.CompareAndSwap(nil, &reason)
	_ = c.raw.Close()
}

func (c *serverConn) serve() {
	s := c.server
	defer s.wg.Done()
	timer := time.AfterFunc(s.cfg.HandshakeTimeout, func() { c.cut(errHandshake) })
	reader, err := c.greet()
	timer.Stop()
	s.mu.Lock()
	s.greeting--
	c.greeted = err == nil
	if err == nil && s.draining {
		c.out.pushNote(kindGoAway, note{})
	}
	s.mu.Unlock()
	if err == nil {
		s.counters.accepted.Add(1)
		err = c.read(reader)
	}
	if reason := c.reason.Load(); reason != nil {
		err = *reason
	}
	s.counters.count(err)
	level := slog.LevelDebug
	if !errors.Is(err, io.EOF) && !errors.Is(err, coterie.ErrClosed) && !errors.Is(err, net.ErrClosed) {
		level = slog.LevelWarn
	}
	s.cfg.Logger.Log(s.ctx, level, "rpc: connection ended", "peer", c.from, "address", c.raw.RemoteAddr(), "error", err)
	c.end(fmt.Errorf("rpc: connection ended: %w", err))
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// end ends every call, but for those that a client of at-most-once will ask for again.
func (c *serverConn) end(err error) {
	_ = c.raw.Close()
	c.out.close(err)
	c.mu.Lock()
	calls := c.calls
	c.calls = nil
	c.mu.Unlock()
	for _, each := range calls {
		if each.stream != nil {
			each.stream.finish(context.Canceled, nil)
		}
		if each.tag.session == 0 || c.server.ctx.Err() != nil {
			each.cancel(context.Canceled)
		}
	}
}

// greet finds out who connects and lets it in, or says why not.
func (c *serverConn) greet() (*frame.Reader, error) {
	cfg := &c.server.cfg
	c.conn = c.raw
	if cfg.Identity != nil {
		secure := tls.Server(c.raw, cfg.Identity.ServerTLS())
		if err := secure.HandshakeContext(c.server.ctx); err != nil {
			return nil, fmt.Errorf("%w: %w", errTLS, err)
		}
		c.conn = secure
	}
	c.out.to, c.out.fail = c.conn, c.cut
	reader := &frame.Reader{From: heardReader{c.conn, &c.pulse}, Limit: maxHello, What: "rpc frame"}
	k, body, err := reader.Next()
	if err != nil {
		return nil, err
	}
	if k != kindHello {
		return nil, fmt.Errorf("%w: kind %d in place of hello", errProtocol, k)
	}
	h, err := decodeHello(body)
	if err != nil {
		return nil, err
	}
	var w welcome
	if h.to != "" && h.to != cfg.ID {
		err = fmt.Errorf("%w: this is %q, not %q", errElsewhere, cfg.ID, h.to)
	} else if secure, ok := c.conn.(*tls.Conn); ok {
		err = transport.CheckPeer(secure.ConnectionState(), h.from)
	}
	if err != nil {
		w = welcome{refusal: err.Error(), code: Failed}
	}
	c.from = h.from
	if _, werr := c.conn.Write(frame.New(kindWelcome, w.encode())); err == nil {
		err = werr
	}
	reader.Limit = cfg.MaxMessage + maxOverhead
	return reader, err
}

// read takes frames until the connection ends.
func (c *serverConn) read(reader *frame.Reader) error {
	var now time.Time
	for {
		fresh := !reader.Buffered()
		if fresh {
			c.out.awaitRoom(c.server.cfg.QueueBytes)
		}
		k, body, err := reader.Next()
		if err != nil {
			return err
		}
		if fresh {
			now = time.Now() // once for all that one read brings
		}
		switch k {
		case kindRequest:
			err = c.request(body, now)
		case kindCancel, kindEnd:
			err = c.note(k, body)
		case kindCredit:
			err = c.note(k, body)
		case kindMessage:
			err = c.message(body)
		case kindPing:
			c.out.pushNote(kindPong, note{})
		default:
			err = fmt.Errorf("%w: kind %d", errProtocol, k)
		}
		if err != nil {
			return err
		}
	}
}

// request starts a call. An error is for what a client of this package does not do.
func (c *serverConn) request(body []byte, now time.Time) error {
	var q request
	if err := q.decode(body); err != nil {
		return err
	}
	each, failure := c.server.newCall(&q, c, now)
	if failure != nil {
		c.refuse(q.id, failure)
		return nil
	}
	each.peer = c.from
	if q.window > 0 {
		cfg := &c.server.cfg
		each.stream = newStream(each, q.id, &c.out, cfg.MaxMessage, cfg.Window, int(min(q.window, 1<<30)))
	}
	c.mu.Lock()
	if c.calls[q.id] != nil {
		c.mu.Unlock()
		return fmt.Errorf("%w: call %d is under way", errProtocol, q.id)
	}
	c.calls[q.id] = each
	c.mu.Unlock()
	c.running.Add(1)
	if failure := c.server.start(each); failure != nil {
		c.forget(each)
		c.refuse(q.id, failure)
		return nil
	}
	if each.stream != nil {
		c.out.pushNote(kindCredit, note{q.id, uint64(c.server.cfg.Window)})
	}
	return nil
}

// refuse answers a call that does not run.
func (c *serverConn) refuse(id uint64, failure *Error) {
	p := response{id: id, err: failure}
	_ = c.out.push(kindResponse, p.appendHead(nil), nil, 0, behind)
}

func (c *serverConn) lookup(id uint64) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[id]
}

// note takes a word about a call; if that has ended meanwhile, it is too late for it.
func (c *serverConn) note(k kind, body []byte) error {
	n, err := decodeNote(body, k == kindCredit)
	if err != nil {
		return err
	}
	each := c.lookup(n.id)
	switch {
	case each == nil:
		return nil
	case k == kindCancel:
		c.server.counters.canceled.Add(1)
		each.cancel(context.Canceled)
		return nil
	case each.stream == nil:
		return fmt.Errorf("%w: kind %d for call %d, which is no stream", errProtocol, k, n.id)
	case k == kindCredit:
		return each.stream.addCredit(n.amount)
	}
	each.stream.end()
	return nil
}

func (c *serverConn) message(body []byte) error {
	id, payload, err := decodeMessage(body)
	if err != nil {
		return err
	}
	each := c.lookup(id)
	switch {
	case each == nil:
		return nil
	case each.stream == nil:
		return fmt.Errorf("%w: message for call %d, which is no stream", errProtocol, id)
	case len(payload) > c.server.cfg.MaxMessage:
		return fmt.Errorf("%w: message of %d bytes", frame.ErrTooLarge, len(payload))
	}
	return each.stream.deliver(payload)
}

// forget takes a call off the connection.
func (c *serverConn) forget(each *call) (others bool) {
	c.mu.Lock()
	delete(c.calls, each.id)
	c.mu.Unlock()
	return c.running.Add(-1) > 0
}

func (c *serverConn) quiet(each *call) { c.forget(each) }

func (c *serverConn) answer(each *call, buf []byte, failure *Error, payload []byte) []byte {
	if each.stream != nil {
		each.stream.finish(nil, nil)
	}
	by := inline
	if c.forget(each) {
		by = crowded
	}
	p := response{id: each.id, err: failure}
	var small [16]byte
	head := small[:0]
	if failure == nil {
		head = append(wire.AppendUvarint(head, p.id), 0)
	} else {
		head, payload = p.appendHead(nil), nil
	}
	_ = c.out.push(kindResponse, head, payload, 0, by) // if the connection is broken the client knows
	if cap(payload) > cap(buf) && failure == nil && each.stream == nil && each.tag.session == 0 {
		return payload // the buffer has grown
	}
	return buf
}
