package tcp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
)

// errRefused is what a peer's refusal to let this node in is.
var errRefused = errors.New("refused by the peer")

// peer is what this node sends to another: a queue, and the goroutine that connects and writes.
type peer struct {
	t       *Transport
	id      coterie.NodeID
	queue   *queue
	running atomic.Bool // the goroutine was started

	ctx  context.Context // ends with the peer, or the Transport
	stop context.CancelFunc
	rush chan struct{} // has an element when a pause before the next attempt should end; of capacity 1

	mu      sync.Mutex // guards address and leave
	address string
	leave   context.CancelFunc // ends the connection, or attempt, under way
}

func newPeer(t *Transport, id coterie.NodeID, address string) *peer {
	p := &peer{t: t, id: id, queue: newQueue(t.cfg.QueueBytes), address: address, rush: make(chan struct{}, 1)}
	p.ctx, p.stop = context.WithCancel(t.ctx)
	return p
}

// move makes the peer leave the connection to its old address.
func (p *peer) move(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.address == address {
		return
	}
	p.address = address
	if p.leave != nil {
		p.leave()
	}
	p.hurry()
}

// hurry ends a pause between attempts to connect.
func (p *peer) hurry() {
	select {
	case p.rush <- struct{}{}:
	default:
	}
}

// attempt returns what the next attempt needs: the context that move ends, and the address as it is now.
func (p *peer) attempt() (context.Context, context.CancelFunc, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, cancel := context.WithCancel(p.ctx)
	p.leave = cancel
	return ctx, cancel, p.address
}

// run connects when there is something to send, writes, and connects again when that fails.
func (p *peer) run() {
	defer p.t.wg.Done()
	defer p.stop()
	failures := 0
	for p.awaitWork() {
		ctx, cancel, address := p.attempt()
		began := time.Now()
		err := p.connectAndWrite(ctx, address)
		moved := ctx.Err() != nil
		cancel()
		if p.ctx.Err() != nil {
			return
		}
		if moved || time.Since(began) > p.t.cfg.MaxBackoff {
			failures = 0 // a connection that lasts clears the record, one that is lost at once does not
		}
		if moved {
			continue
		}
		p.t.cfg.Logger.Debug("tcp: connection failed", "node", p.t.cfg.ID, "peer", p.id, "address", address, "error", err)
		p.pause(failures)
		failures++
	}
}

// awaitWork returns true when there is something to send, false when the peer is removed.
func (p *peer) awaitWork() bool {
	for p.queue.empty() {
		select {
		case <-p.queue.wake:
		case <-p.ctx.Done():
			return false
		}
	}
	return p.ctx.Err() == nil
}

// pause waits before the next attempt: longer after each failure, and not as long as others do, lest all of a
// restarted node's peers come back in the same instant.
func (p *peer) pause(failures int) {
	longest := p.t.cfg.MaxBackoff
	if failures < 30 {
		longest = min(longest, p.t.cfg.MinBackoff<<failures)
	}
	timer := time.NewTimer(longest - rand.N(longest/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.rush:
	case <-p.ctx.Done():
	}
}

// connectAndWrite makes a connection and writes to it until it breaks or ctx ends.
func (p *peer) connectAndWrite(ctx context.Context, address string) error {
	t := p.t
	t.counters.dials.Add(1)
	out, err := p.connect(ctx, address)
	if err != nil {
		if ctx.Err() == nil {
			t.counters.dialErrors.Add(1)
		}
		return err
	}
	t.cfg.Logger.Debug("tcp: connected", "node", t.cfg.ID, "peer", p.id, "address", address)
	err = p.converse(ctx, out)
	if ctx.Err() == nil {
		t.counters.broken.Add(1)
		t.counters.countStream(err)
	}
	return err
}

// outbound is a connection that this node made.
type outbound struct {
	raw    net.Conn
	conn   net.Conn // raw, or TLS over it
	reader *frameReader
	silent atomic.Bool // a ping is not answered yet
}

// connect dials and says hello.
func (p *peer) connect(ctx context.Context, address string) (*outbound, error) {
	cfg := &p.t.cfg
	ctx, cancel := context.WithTimeout(ctx, cfg.HandshakeTimeout)
	defer cancel()
	raw, err := cfg.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	out := &outbound{raw: raw, conn: raw}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	if cfg.Identity != nil {
		secure := tls.Client(raw, p.clientTLS())
		err = secure.HandshakeContext(ctx)
		out.conn = secure
	}
	if err == nil {
		err = p.greet(out)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = raw.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		return nil, err
	}
	return out, nil
}

func (p *peer) clientTLS() *tls.Config {
	c := p.t.cfg.Identity.ClientTLS(p.id)
	c.DynamicRecordSizingDisabled = true // for throughput; a batch is written at once
	return c
}

// greet says hello and reads the answer.
func (p *peer) greet(out *outbound) error {
	if _, err := out.conn.Write(newFrame(kindHello, hello{from: p.t.cfg.ID, to: p.id}.encode())); err != nil {
		return err
	}
	out.reader = &frameReader{from: out.conn, limit: maxHello}
	kind, payload, err := out.reader.next()
	if err != nil {
		return err
	}
	if kind != kindWelcome {
		return fmt.Errorf("%w: kind %d in place of welcome", errFrame, kind)
	}
	w, err := decodeWelcome(payload)
	if err == nil && w.refusal != "" {
		err = fmt.Errorf("%w: %q", errRefused, w.refusal)
	}
	return err
}

// converse writes what is queued, and pings, while another goroutine reads the answers to these, until either fails.
func (p *peer) converse(ctx context.Context, out *outbound) error {
	stop := context.AfterFunc(ctx, func() { _ = out.raw.Close() })
	defer stop()
	var listenErr error
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		listenErr = out.listen()
		_ = out.raw.Close() // a write under way ends too
	}()
	err := p.write(out, gone)
	_ = out.raw.Close()
	<-gone
	if err == nil || isClosed(err) {
		err = listenErr
	}
	return err
}

// write writes what is queued until that fails, or nil is returned because the connection is gone.
func (p *peer) write(out *outbound, gone <-chan struct{}) error {
	c, patience := &p.t.counters, p.t.cfg.IdleTimeout
	_ = out.raw.SetDeadline(time.Time{})
	ticker := time.NewTicker(max(patience/3, 1))
	defer ticker.Stop()
	ready := make(chan struct{}) // stands for wake where there may be more to write
	close(ready)
	for {
		wake := p.queue.wake
		if b := p.queue.take(); b.frames > 0 {
			n, err := out.writeAll(b.buf[b.head:], patience)
			c.sentBytes.Add(uint64(n))
			p.queue.recycle(b)
			if err != nil {
				c.lost.Add(uint64(b.frames))
				return err
			}
			c.sent.Add(uint64(b.frames))
			c.writes.Add(1)
			wake = ready
		}
		select {
		case <-gone:
			return nil
		case <-ticker.C:
			p.queue.trim()
			if err := out.ping(patience); err != nil {
				return err
			}
		case <-wake:
			if wake != ready {
				// Who woke this goroutine would be the only one to have sent: where many send at one moment, as the
				// hosts of many groups do, the others go first, and one write takes it all.
				runtime.Gosched()
			}
		}
	}
}

// maxWrite is how much must be written within a deadline.
const maxWrite = 256 << 10

// writeAll writes a block. A slow peer has time for each part of it, one that takes nothing at all is given up.
func (out *outbound) writeAll(block []byte, patience time.Duration) (written int, err error) {
	for written < len(block) {
		_ = out.raw.SetWriteDeadline(time.Now().Add(patience))
		n, err := out.conn.Write(block[written:min(written+maxWrite, len(block))])
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// ping asks for a sign of life, unless one is awaited already.
func (out *outbound) ping(patience time.Duration) error {
	if !out.silent.CompareAndSwap(false, true) {
		return nil
	}
	_ = out.raw.SetReadDeadline(time.Now().Add(patience))
	_, err := out.writeAll(ping, patience)
	return err
}

// listen reads the answers to pings until there is an error: the connection's end, or an answer that does not come.
func (out *outbound) listen() error {
	out.reader.limit = 0
	for {
		kind, _, err := out.reader.next()
		if err != nil {
			return err
		}
		if kind != kindPong {
			return fmt.Errorf("%w: kind %d out of place", errFrame, kind)
		}
		_ = out.raw.SetReadDeadline(time.Time{})
		out.silent.Store(false)
	}
}
