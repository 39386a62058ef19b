package tcp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
)

// inbound is a connection that somebody made to this node. Payloads come by it; nothing but welcome and pongs goes.
type inbound struct {
	raw    net.Conn
	conn   net.Conn // raw, or TLS over it
	reader *frameReader
	from   coterie.NodeID        // empty until it is let in
	reason atomic.Pointer[error] // for which cut closed it
	done   chan struct{}         // closed when nothing more will be read from it
}

// cut closes the connection. The goroutine that serves it sees to the rest.
func (in *inbound) cut(reason error) {
	in.reason.CompareAndSwap(nil, &reason)
	_ = in.raw.Close()
}

// why is the reason for which the connection was cut, else err.
func (in *inbound) why(err error) error {
	if reason := in.reason.Load(); reason != nil {
		return *reason
	}
	return err
}

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }

// accept admits connections until the listener is closed.
func (t *Transport) accept() {
	defer t.wg.Done()
	pause := time.Duration(0)
	for {
		raw, err := t.listener.Accept()
		switch {
		case err == nil:
			pause = 0
			t.admit(raw)
		case t.ctx.Err() != nil:
			return
		default:
			// Most likely there is no file descriptor left. Those that end will make room; to spin until then helps
			// nobody.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			t.cfg.Logger.Warn("tcp: accept", "node", t.cfg.ID, "error", err, "retry", pause)
			select {
			case <-time.After(pause):
			case <-t.ctx.Done():
				return
			}
		}
	}
}

// admit starts to serve a connection. Of too many that have not said who they are the oldest goes, for it is the most
// likely never to say: who holds connections open without a word does not lock the peers out.
func (t *Transport) admit(raw net.Conn) {
	in := &inbound{raw: raw, done: make(chan struct{})}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		_ = raw.Close()
		return
	}
	if len(t.greeting) >= t.cfg.MaxHandshakes {
		t.greeting[0].cut(errOverLimit)
		t.greeting = slices.Delete(t.greeting, 0, 1)
	}
	t.greeting = append(t.greeting, in)
	t.wg.Add(1)
	go t.serve(in)
}

// serve greets a connection and reads from it until it ends.
func (t *Transport) serve(in *inbound) {
	defer t.wg.Done()
	defer func() { _ = in.raw.Close() }()
	before, err := t.greet(in)
	if before != nil {
		// Its goroutine may be calling the handler still, and a peer has one at a time.
		<-before.done
	}
	if err != nil {
		err = in.why(err)
		t.counters.countGreeting(err)
		t.log("tcp: turned away", in, err)
	} else {
		t.counters.accepted.Add(1)
		t.log("tcp: accepted", in, nil)
		if p := (*t.peers.Load())[in.from]; p != nil {
			p.hurry() // it is there again
		}
		err = in.why(t.read(in))
		t.counters.countStream(err)
		t.log("tcp: disconnected", in, err)
	}
	t.mu.Lock()
	if t.inbound[in.from] == in {
		delete(t.inbound, in.from)
	}
	t.mu.Unlock()
	close(in.done)
}

func (t *Transport) log(what string, in *inbound, err error) {
	level := slog.LevelDebug
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, coterie.ErrClosed) {
		level = slog.LevelWarn
	}
	t.cfg.Logger.Log(t.ctx, level, what, "node", t.cfg.ID, "peer", in.from, "address", in.raw.RemoteAddr(), "error", err)
}

// greet finds out who connects, and registers it if it may come in. before is the connection that it replaces.
func (t *Transport) greet(in *inbound) (before *inbound, err error) {
	defer t.greeted(in)
	_ = in.raw.SetDeadline(time.Now().Add(t.cfg.HandshakeTimeout))
	in.conn = in.raw
	if t.cfg.Identity != nil {
		secure := tls.Server(in.raw, t.cfg.Identity.ServerTLS())
		if err := secure.HandshakeContext(t.ctx); err != nil {
			return nil, fmt.Errorf("%w: %w", errTLS, err)
		}
		in.conn = secure
	}
	in.reader = &frameReader{from: in.conn, limit: maxHello}
	kind, payload, err := in.reader.next()
	if err != nil {
		return nil, err
	}
	if kind != kindHello {
		return nil, fmt.Errorf("%w: kind %d in place of hello", errFrame, kind)
	}
	h, err := decodeHello(payload)
	if err != nil {
		return nil, err
	}
	if secure, ok := in.conn.(*tls.Conn); ok {
		err = transport.CheckPeer(secure.ConnectionState(), h.from)
	}
	if err == nil {
		before, err = t.register(in, h)
	}
	var answer welcome
	if err != nil {
		answer.refusal = err.Error()
	}
	if _, werr := in.conn.Write(newFrame(kindWelcome, answer.encode())); err == nil && werr != nil {
		err = werr
	}
	return before, err
}

// greeted takes a connection off those that have not said who they are.
func (t *Transport) greeted(in *inbound) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.greeting = slices.DeleteFunc(t.greeting, func(other *inbound) bool { return other == in })
}

// register lets a connection in, or says why not. A peer has one connection to this node, the newest: if the one
// before seems to be alive here, that may be all there is of it.
func (t *Transport) register(in *inbound, h hello) (before *inbound, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, coterie.ErrClosed
	}
	if h.to != t.cfg.ID {
		return nil, fmt.Errorf("%w: this is %s, not %s", errElsewhere, t.cfg.ID, h.to)
	}
	if (*t.peers.Load())[h.from] == nil && !t.cfg.AcceptUnknown {
		return nil, fmt.Errorf("%s: %w", h.from, errStranger)
	}
	before = t.inbound[h.from]
	if before == nil && len(t.inbound) >= t.cfg.MaxConns {
		return nil, fmt.Errorf("%w: %d", errOverLimit, len(t.inbound))
	}
	if before != nil {
		before.cut(errReplaced)
		t.counters.replaced.Add(1)
	}
	in.from = h.from
	t.inbound[h.from] = in
	return before, nil
}

// read hands over what a peer sends until the connection ends.
func (t *Transport) read(in *inbound) error {
	source := &intake{in: in, t: t}
	defer source.count()
	in.reader.limit = t.cfg.MaxPayload
	in.reader.from = source
	_ = in.raw.SetDeadline(time.Time{})
	for {
		kind, payload, err := in.reader.next()
		if err != nil {
			return err
		}
		switch kind {
		case kindData:
			source.payloads++
			source.bytes += uint64(len(payload))
			if !t.inlet.Deliver(in.from, payload) {
				t.counters.unhandled.Add(1)
			}
		case kindPing:
			_ = in.raw.SetWriteDeadline(time.Now().Add(t.cfg.IdleTimeout))
			if _, err := in.conn.Write(pong); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: kind %d out of place", errFrame, kind)
		}
	}
}

var (
	ping = newFrame(kindPing, nil)
	pong = newFrame(kindPong, nil)
)

// intake is what a frameReader reads a peer's connection by: it gives up after a silence, and counts what came since
// the last read, for a counter that is touched at every small message costs as much as the message.
type intake struct {
	in       *inbound
	t        *Transport
	deadline time.Time // set last
	payloads uint64    // not counted yet
	bytes    uint64    // of these
}

// Read moves the deadline if that was done a while ago.
func (i *intake) Read(b []byte) (int, error) {
	i.count()
	patience := i.t.cfg.IdleTimeout
	if latest := time.Now().Add(patience); latest.Sub(i.deadline) > patience/16 {
		i.deadline = latest
		_ = i.in.raw.SetReadDeadline(latest)
	}
	return i.in.conn.Read(b)
}

func (i *intake) count() {
	if i.payloads > 0 {
		i.t.counters.received.Add(i.payloads)
		i.t.counters.receivedBytes.Add(i.bytes)
		i.payloads, i.bytes = 0, 0
	}
}
