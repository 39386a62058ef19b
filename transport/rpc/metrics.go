package rpc

import (
	"errors"
	"math/bits"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/internal/frame"
)

// MethodMetrics counts the calls of one method. A rate is the difference of two snapshots over the time between them.
type MethodMetrics struct {
	Calls    uint64        // that ended
	Errors   uint64        // of these, those with an error
	Running  int64         // under way now
	Duration time.Duration // of all calls that ended together; a server counts from the request's arrival

	// Histogram counts the calls that ended by duration: element 0 those under 1 microsecond, element i those from
	// 2^(i-1) to under 2^i microseconds, the last those that took longer too.
	Histogram [32]uint64

	Retries uint64 // of a client: tries after the first
	Hedges  uint64 // of a client: tries beside one that was under way
}

// meter is MethodMetrics under construction.
type meter struct {
	running         atomic.Int64
	failures        atomic.Uint64
	nanos           atomic.Int64
	retries, hedges atomic.Uint64
	histogram       [32]atomic.Uint64
}

func (m *meter) observe(d time.Duration, failed bool) {
	if failed {
		m.failures.Add(1)
	}
	m.nanos.Add(int64(d))
	m.histogram[min(bits.Len64(uint64(max(d, 0)/time.Microsecond)), len(m.histogram)-1)].Add(1)
}

func (m *meter) metrics() MethodMetrics {
	out := MethodMetrics{
		Errors: m.failures.Load(), Running: m.running.Load(), Duration: time.Duration(m.nanos.Load()),
		Retries: m.retries.Load(), Hedges: m.hedges.Load(),
	}
	for i := range m.histogram {
		out.Histogram[i] = m.histogram[i].Load()
		out.Calls += out.Histogram[i]
	}
	return out
}

// ServerMetrics counts what a Server has done since it was made.
type ServerMetrics struct {
	Methods   map[string]MethodMetrics // by name
	Connected int                      // connections now
	Accepted  uint64                   // connections that were let in

	Canceled       uint64 // calls whose caller gave up
	Panics         uint64 // handlers that panicked
	Repeats        uint64 // requests not executed, because they had been before
	RefusedRepeats uint64 // requests refused, because it could not be told whether they had been before

	// What was turned away or cut off, by reason.
	UnknownMethods    uint64 // requests for a method that there is not
	Overloaded        uint64 // requests over MaxCalls and MaxQueue
	TooLarge          uint64 // requests and frames over MaxMessage
	BadFrames         uint64 // garbage: a wrong format, kind, checksum or body, a message without credit
	BadCertificates   uint64 // TLS handshakes that failed: no certificate, an expired or wrong one, an older TLS, no TLS
	Strangers         uint64 // clients that look for another node
	OverLimit         uint64 // connections over MaxConns or MaxHandshakes
	HandshakeTimeouts uint64 // connections that did not say in time who they are
	IdleTimeouts      uint64 // connections that fell silent or made no progress
}

// counters are ServerMetrics under construction.
type counters struct {
	accepted, canceled, panics, repeats, refusedRepeats            atomic.Uint64
	unknownMethods, overloaded, tooLarge, badFrames                atomic.Uint64
	badCertificates, strangers, overLimit, handshakes, idleTimeout atomic.Uint64
}

// Metrics returns the counters.
func (s *Server) Metrics() ServerMetrics {
	c := &s.counters
	m := ServerMetrics{
		Methods: make(map[string]MethodMetrics), Accepted: c.accepted.Load(), Canceled: c.canceled.Load(),
		Panics: c.panics.Load(), Repeats: c.repeats.Load(), RefusedRepeats: c.refusedRepeats.Load(),
		UnknownMethods: c.unknownMethods.Load(), Overloaded: c.overloaded.Load(), TooLarge: c.tooLarge.Load(),
		BadFrames: c.badFrames.Load(), BadCertificates: c.badCertificates.Load(), Strangers: c.strangers.Load(),
		OverLimit: c.overLimit.Load(), HandshakeTimeouts: c.handshakes.Load(), IdleTimeouts: c.idleTimeout.Load(),
	}
	for name, method := range *s.methods.Load() {
		if name != methodSession {
			m.Methods[name] = method.metrics()
		}
	}
	s.mu.Lock()
	m.Connected = len(s.conns)
	s.mu.Unlock()
	return m
}

// count counts why a connection ended.
func (c *counters) count(err error) {
	var format *coterie.FormatError
	switch {
	case errors.Is(err, errTLS) && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed),
		errors.Is(err, transport.ErrIdentity):
		c.badCertificates.Add(1)
	case errors.Is(err, errHandshake):
		c.handshakes.Add(1)
	case errors.Is(err, errElsewhere):
		c.strangers.Add(1)
	case errors.Is(err, errSilent):
		c.idleTimeout.Add(1)
	case errors.Is(err, frame.ErrTooLarge):
		c.tooLarge.Add(1)
	case errors.Is(err, frame.ErrBad), errors.Is(err, errProtocol), errors.Is(err, errCredit),
		errors.Is(err, wire.ErrMalformed), errors.As(err, &format):
		c.badFrames.Add(1)
	}
}

// ClientMetrics counts what a Client, and all that With made of it, have done since it was made.
type ClientMetrics struct {
	Methods    map[string]MethodMetrics // by name
	Dials      uint64                   // attempts to connect
	DialErrors uint64                   // of these, those that failed
	Broken     uint64                   // connections that ended before they were to
}
