package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/transport/internal/frame"
)

// connLink carries calls over a connection, and makes one when there is none.
type connLink struct {
	core   *clientCore
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	live   atomic.Pointer[clientConn] // takes new calls; nil if there is none

	waiters sync.Pool // of *waiter

	mu      sync.Mutex // guards what follows
	dialing *dialing   // nil if nobody dials
	conns   map[*clientConn]struct{}
	closed  bool
}

// dialing is an attempt to connect that calls wait for.
type dialing struct {
	done chan struct{}
	conn *clientConn
	err  error
}

func newConnLink(c *clientCore) *connLink {
	l := &connLink{core: c, conns: make(map[*clientConn]struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

func (l *connLink) close() {
	l.mu.Lock()
	l.closed = true
	conns := make([]*clientConn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	l.cancel()
	for _, c := range conns {
		c.end(coterie.ErrClosed)
	}
	l.wg.Wait()
}

// conn returns a connection that takes calls.
func (l *connLink) conn(ctx context.Context) (*clientConn, error) {
	if c := l.live.Load(); c != nil {
		return c, nil
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, fmt.Errorf("rpc: client: %w", coterie.ErrClosed)
	}
	if c := l.live.Load(); c != nil {
		l.mu.Unlock()
		return c, nil
	}
	d := l.dialing
	if d == nil {
		d = &dialing{done: make(chan struct{})}
		l.dialing = d
		l.wg.Add(1)
		go l.dial(d)
	}
	l.mu.Unlock()
	select {
	case <-d.done:
		return d.conn, d.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, ctx.Err())
	}
}

// dial connects, for all the calls that wait.
func (l *connLink) dial(d *dialing) {
	defer l.wg.Done()
	ctx, cancel := context.WithTimeout(l.ctx, l.core.cfg.DialTimeout)
	defer cancel()
	l.core.dials.Add(1)
	conn, reader, err := l.connect(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	defer close(d.done)
	l.dialing = nil
	switch {
	case l.closed:
		if err == nil {
			_ = conn.raw.Close()
		}
		d.err = fmt.Errorf("rpc: client: %w", coterie.ErrClosed)
	case err != nil:
		l.core.dialErrors.Add(1)
		d.err = fmt.Errorf("%w: %w", ErrUnreachable, err)
	default:
		d.conn = conn
		l.conns[conn] = struct{}{}
		l.live.Store(conn)
		l.wg.Add(2)
		go conn.read(reader)
		go conn.keep()
	}
}

func (l *connLink) connect(ctx context.Context) (*clientConn, *frame.Reader, error) {
	cfg := &l.core.cfg
	raw, err := cfg.Dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	c := &clientConn{link: l, raw: raw, conn: raw, calls: make(map[uint64]*waiter), done: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	if cfg.Identity != nil {
		secure := tls.Client(raw, cfg.Identity.ClientTLS(cfg.Peer))
		err = secure.HandshakeContext(ctx)
		c.conn = secure
	}
	c.out.to, c.out.fail = c.conn, c.end
	reader := &frame.Reader{From: heardReader{c.conn, &c.pulse}, Limit: maxHello, What: "rpc frame"}
	if err == nil {
		err = c.greet(reader)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = raw.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		return nil, nil, err
	}
	reader.Limit = cfg.MaxMessage + maxOverhead
	return c, reader, nil
}

// clientConn is a connection to the server.
type clientConn struct {
	link  *connLink
	raw   net.Conn
	conn  net.Conn // raw, or TLS over it
	out   outbox
	pulse pulse
	sent  atomic.Int64  // bytes of requests that are not answered
	done  chan struct{} // closed when err is set

	mu    sync.Mutex // guards what follows
	calls map[uint64]*waiter
	next  uint64
	away  bool  // the server takes no more calls
	err   error // why it ended
}

func (c *clientConn) greet(reader *frame.Reader) error {
	cfg := &c.link.core.cfg
	if _, err := c.conn.Write(frame.New(kindHello, hello{from: cfg.ID, to: cfg.Peer}.encode())); err != nil {
		return err
	}
	k, body, err := reader.Next()
	if err != nil {
		return err
	}
	if k != kindWelcome {
		return fmt.Errorf("%w: kind %d in place of welcome", errProtocol, k)
	}
	w, err := decodeWelcome(body)
	if err == nil && w.refusal != "" {
		err = fmt.Errorf("refused by the server: %q", w.refusal)
	}
	return err
}

// waiter is a call that waits for its answer.
type waiter struct {
	done   chan struct{} // of capacity 1: what follows is set
	answer response
	err    error // in place of an answer
	stream *stream
	size   int64

	head []byte // a buffer
}

// waiter takes one that serves again. Each link has its own: a channel must not leave a synctest bubble.
func (l *connLink) waiter() *waiter {
	if w, ok := l.waiters.Get().(*waiter); ok {
		return w
	}
	return &waiter{done: make(chan struct{}, 1)}
}

func (l *connLink) recycle(w *waiter) {
	w.answer, w.err, w.stream, w.size = response{}, nil, nil, 0
	if cap(w.head) <= 1<<10 {
		l.waiters.Put(w)
	}
}

// errAway is a connection that takes no more calls.
var errAway = errors.New("rpc: connection takes no more calls")

// register gives a call its number, and tells how many are under way with it.
func (c *clientConn) register(w *waiter) (id uint64, n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil || c.away:
		return 0, 0, errAway
	case len(c.calls) >= c.link.core.cfg.MaxCalls:
		return 0, 0, fmt.Errorf("rpc: %d calls under way: %w", len(c.calls), coterie.ErrOverloaded)
	}
	c.next++
	c.calls[c.next] = w
	c.sent.Add(w.size)
	return c.next, len(c.calls), nil
}

// take takes a call off the connection, nil if it is not there any more.
func (c *clientConn) take(id uint64) *waiter {
	c.mu.Lock()
	w := c.calls[id]
	delete(c.calls, id)
	last := c.away && len(c.calls) == 0
	c.mu.Unlock()
	if w != nil {
		c.sent.Add(-w.size)
	}
	if last {
		c.end(errAway)
	}
	return w
}

// maxInline is how many bytes may be without an answer for a caller to write itself: so much fits into the buffers of
// a connection, and the write does not block, be the server ever so slow.
const maxInline = 32 << 10

// start sends a request; w is then told of the answer. An error means that nothing was sent.
func (l *connLink) start(ctx, outer context.Context, q *request, w *waiter) (*clientConn, error) {
	for {
		c, err := l.conn(ctx)
		if err != nil {
			return nil, err
		}
		w.size = int64(len(q.payload)) + messageOverhead
		id, n, err := c.register(w)
		if errors.Is(err, errAway) {
			l.live.CompareAndSwap(c, nil)
			continue
		}
		if err != nil {
			return nil, err
		}
		q.id = id
		if deadline, ok := outer.Deadline(); ok {
			q.timeout = uint64(max(time.Until(deadline)/time.Microsecond, 1))
		}
		by := inline
		switch {
		case c.sent.Load() > maxInline:
			by = behind
		case n > 1:
			by = crowded
		}
		w.head = q.appendHead(w.head[:0])
		err = c.out.push(kindRequest, w.head, q.payload, l.core.cfg.QueueBytes, by)
		if err == nil {
			return c, nil
		}
		if c.take(id) == nil {
			<-w.done // the connection has ended, and said so
		}
		w.err = nil
		if errors.Is(err, coterie.ErrOverloaded) {
			return nil, fmt.Errorf("rpc: requests wait to be written: %w", err)
		}
		l.live.CompareAndSwap(c, nil)
	}
}

func (l *connLink) call(ctx, outer context.Context, q *request) ([]byte, error) {
	w := l.waiter()
	c, err := l.start(ctx, outer, q, w)
	if err != nil {
		l.recycle(w)
		return nil, err
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		if c.take(q.id) != nil {
			l.recycle(w)
			if outer.Err() != nil {
				c.out.pushNote(kindCancel, note{id: q.id})
			}
			return nil, fmt.Errorf("rpc: call %s: %w (%w)", q.method, ctx.Err(), coterie.ErrUnknownOutcome)
		}
		<-w.done
	}
	payload, failure, err := w.answer.payload, w.answer.err, w.err
	l.recycle(w)
	if err != nil {
		return nil, err
	}
	if failure != nil {
		return nil, failure
	}
	return payload, nil
}

// open starts a stream. release gives it up if it has not ended.
func (l *connLink) open(ctx context.Context, m *clientMethod) (s *stream, release func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	cfg := &l.core.cfg
	w := &waiter{stream: newStream(ctx, 0, nil, cfg.MaxMessage, cfg.Window, 0)}
	s = w.stream
	began := time.Now()
	m.running.Add(1)
	q := &request{method: m.name, trace: TraceOf(ctx), window: uint64(cfg.Window)}
	c, err := l.start(ctx, ctx, q, w)
	if err != nil {
		m.running.Add(-1)
		m.observe(time.Since(began), true)
		return nil, nil, err
	}
	// That the server answers cannot be seen yet: nobody has the stream, and what arrives for it is under its lock.
	s.mu.Lock()
	s.id, s.out = q.id, &c.out
	s.mu.Unlock()
	giveUp := func() {
		if c.take(q.id) != nil {
			c.out.pushNote(kindCancel, note{id: q.id})
			err := ctx.Err()
			if err == nil {
				err = context.Canceled
			}
			s.finish(err, nil)
		}
	}
	stop := context.AfterFunc(ctx, giveUp)
	var once sync.Once
	return s, func() {
		once.Do(func() {
			stop()
			giveUp()
			s.mu.Lock()
			failed := s.err != nil && !errors.Is(s.err, io.EOF)
			s.mu.Unlock()
			m.running.Add(-1)
			m.observe(time.Since(began), failed)
		})
	}, nil
}

// read takes frames until the connection ends.
func (c *clientConn) read(reader *frame.Reader) {
	defer c.link.wg.Done()
	for {
		k, body, err := reader.Next()
		if err == nil {
			err = c.frame(k, body)
		}
		if err != nil {
			c.end(err)
			return
		}
	}
}

func (c *clientConn) frame(k kind, body []byte) error {
	switch k {
	case kindResponse:
		return c.response(body)
	case kindMessage:
		id, payload, err := decodeMessage(body)
		if err != nil {
			return err
		}
		if s := c.stream(id); s != nil {
			return s.deliver(payload)
		}
	case kindCredit:
		n, err := decodeNote(body, true)
		if err != nil {
			return err
		}
		if s := c.stream(n.id); s != nil {
			return s.addCredit(n.amount)
		}
	case kindGoAway:
		c.link.live.CompareAndSwap(c, nil)
		c.mu.Lock()
		c.away = true
		last := len(c.calls) == 0
		c.mu.Unlock()
		if last {
			return errAway
		}
	case kindPong:
	default:
		return fmt.Errorf("%w: kind %d", errProtocol, k)
	}
	return nil
}

func (c *clientConn) stream(id uint64) *stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.calls[id]; w != nil {
		return w.stream
	}
	return nil
}

func (c *clientConn) response(body []byte) error {
	var p response
	if err := p.decode(body); err != nil {
		return err
	}
	w := c.take(p.id)
	switch {
	case w == nil: // given up meanwhile
	case w.stream == nil:
		w.answer = p
		w.done <- struct{}{}
	case p.err != nil:
		w.stream.finish(p.err, nil)
	default:
		w.stream.finish(nil, p.payload)
	}
	return nil
}

// end closes the connection, and tells the calls that it is over.
func (c *clientConn) end(reason error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = reason
	calls := c.calls
	c.calls = nil
	close(c.done)
	c.mu.Unlock()
	c.link.live.CompareAndSwap(c, nil)
	_ = c.raw.Close()
	c.out.close(reason)
	c.link.mu.Lock()
	delete(c.link.conns, c)
	c.link.mu.Unlock()
	if !errors.Is(reason, coterie.ErrClosed) && !errors.Is(reason, errAway) {
		c.link.core.broken.Add(1)
	}
	err := fmt.Errorf("rpc: the connection broke before the answer came: %w (%w)", coterie.ErrUnknownOutcome, reason)
	for _, w := range calls {
		if w.stream != nil {
			w.stream.finish(err, nil)
			continue
		}
		w.err = err
		w.done <- struct{}{}
	}
}

// keep asks the server for signs of life.
func (c *clientConn) keep() {
	defer c.link.wg.Done()
	ticker := time.NewTicker(max(c.link.core.cfg.IdleTimeout/beats, 1))
	defer ticker.Stop()
	ping := wire.AppendUvarint(nil, 0)
	for {
		select {
		case <-c.done:
			return
		case <-ticker.C:
		}
		if c.pulse.beat(&c.out) {
			c.end(errSilent)
			return
		}
		_ = c.out.push(kindPing, nil, ping, 0, behind) // if the connection is broken this ends
	}
}
