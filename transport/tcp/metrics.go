package tcp

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/transport"
)

// Metrics counts what a Transport has done since it started.
type Metrics struct {
	Sent          uint64 // payloads written to peers
	SentBytes     uint64 // bytes written to peers, with framing
	Writes        uint64 // writes that took: Sent/Writes payloads shared one
	Received      uint64 // payloads that arrived whole
	ReceivedBytes uint64 // bytes of them, without framing
	Unhandled     uint64 // payloads that arrived while there was no handler

	Dropped uint64 // payloads dropped, the oldest first, because a peer's queue was full
	Lost    uint64 // payloads in a write that failed: some of them may have arrived

	Dials      uint64 // attempts to connect
	DialErrors uint64 // of these, those that failed or were refused
	Broken     uint64 // connections made that ended before they were to
	Accepted   uint64 // connections of peers that were let in
	Replaced   uint64 // connections closed because the same peer made a newer one
	Connected  int    // peers connected to this node now

	// What came to this node's address and was turned away or cut off, by reason.
	Strangers         uint64 // nodes that are not among the peers, or look for another node
	BadCertificates   uint64 // TLS handshakes that failed: no certificate, a wrong one, an older TLS, no TLS
	HandshakeTimeouts uint64 // connections that did not say in time who they are
	OverLimit         uint64 // connections over MaxConns or MaxHandshakes
	IdleTimeouts      uint64 // connections, of either direction, that fell silent or made no progress
	TooLarge          uint64 // frames that claim to be larger than MaxPayload
	BadFrames         uint64 // garbage: a wrong format, kind, checksum or hello, or an end within a frame
}

// counters are Metrics under construction.
type counters struct {
	sent, sentBytes, writes, received, receivedBytes, unhandled atomic.Uint64
	lost, dials, dialErrors, broken, accepted, replaced         atomic.Uint64
	strangers, badCertificates, handshakeTimeouts, overLimit    atomic.Uint64
	idleTimeouts, tooLarge, badFrames                           atomic.Uint64
}

// Metrics returns the counters.
func (t *Transport) Metrics() Metrics {
	c := &t.counters
	m := Metrics{
		Sent: c.sent.Load(), SentBytes: c.sentBytes.Load(), Writes: c.writes.Load(),
		Received: c.received.Load(), ReceivedBytes: c.receivedBytes.Load(), Unhandled: c.unhandled.Load(),
		Lost: c.lost.Load(), Dials: c.dials.Load(), DialErrors: c.dialErrors.Load(), Broken: c.broken.Load(),
		Accepted: c.accepted.Load(), Replaced: c.replaced.Load(),
		Strangers: c.strangers.Load(), BadCertificates: c.badCertificates.Load(),
		HandshakeTimeouts: c.handshakeTimeouts.Load(), OverLimit: c.overLimit.Load(),
		IdleTimeouts: c.idleTimeouts.Load(), TooLarge: c.tooLarge.Load(), BadFrames: c.badFrames.Load(),
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	m.Connected = len(t.inbound)
	m.Dropped = t.removedDropped
	for _, p := range *t.peers.Load() {
		m.Dropped += p.queue.droppedFrames()
	}
	return m
}

// Reasons to turn a connection away.
var (
	errStranger  = errors.New("not among the peers")
	errElsewhere = errors.New("not the node looked for")
	errOverLimit = errors.New("too many connections")
	errReplaced  = errors.New("replaced by a newer connection")
)

// countGreeting counts why a connection was turned away before it was let in.
func (c *counters) countGreeting(err error) {
	switch {
	case errors.Is(err, errOverLimit):
		c.overLimit.Add(1)
	case errors.Is(err, errStranger), errors.Is(err, errElsewhere):
		c.strangers.Add(1)
	case isTimeout(err):
		c.handshakeTimeouts.Add(1)
	case errors.Is(err, errTLS), errors.Is(err, transport.ErrIdentity):
		c.badCertificates.Add(1)
	default:
		c.countStream(err)
	}
}

// countStream counts why a connection that was let in ended.
func (c *counters) countStream(err error) {
	var format *coterie.FormatError
	switch {
	case isTimeout(err):
		c.idleTimeouts.Add(1)
	case errors.Is(err, errTooLarge):
		c.tooLarge.Add(1)
	case errors.Is(err, errFrame), errors.Is(err, wire.ErrMalformed), errors.As(err, &format):
		c.badFrames.Add(1)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &timeout) && timeout.Timeout()
}

// errTLS is what a failed TLS handshake is.
var errTLS = errors.New("tls handshake")
