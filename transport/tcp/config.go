package tcp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
)

// Config configures a Transport.
type Config struct {
	ID     coterie.NodeID            // required: this node
	Listen string                    // address to accept peers at, "host:port"; required, but with Listener; port 0 picks one
	Peers  map[coterie.NodeID]string // the other nodes' addresses, "host:port"; SetPeer changes them

	// Identity proves by mutual TLS 1.3 who a node is. Without it everything travels in the clear and every node is
	// believed to be whom it says it is: for networks where nobody else is.
	Identity *transport.Identity

	// AcceptUnknown lets nodes connect that are not among the peers, as long as their certificate, if there is an
	// Identity, is theirs. By default they are refused.
	AcceptUnknown bool

	MaxPayload    int // bytes of one payload, sent or received, alike on every node; default 8 MiB
	QueueBytes    int // bytes waiting for one peer, and as many being written; then the oldest is dropped; default 16 MiB
	MaxConns      int // peers connected to this node at a time; one more is refused; default 1024
	MaxHandshakes int // connections that have not said yet who they are; for one more the oldest is closed; default 128

	HandshakeTimeout time.Duration // for dialling, TLS and hello together, on each side; default 5 s
	IdleTimeout      time.Duration // silence, or no progress, after which a connection is taken for dead; default 15 s
	MinBackoff       time.Duration // the first pause between attempts to connect, doubling; default 20 ms
	MaxBackoff       time.Duration // the longest; each is shortened at random by up to a half; default 1 s

	Listener net.Listener                                                // accepts peers instead of Listen; Close closes it
	Dial     func(ctx context.Context, address string) (net.Conn, error) // default a net.Dialer over tcp
	Logger   *slog.Logger                                                // connections made, lost and refused; default silent
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	c.MaxPayload = cmp.Or(c.MaxPayload, 8<<20)
	c.QueueBytes = cmp.Or(c.QueueBytes, 16<<20)
	c.MaxConns = cmp.Or(c.MaxConns, 1024)
	c.MaxHandshakes = cmp.Or(c.MaxHandshakes, 128)
	c.HandshakeTimeout = cmp.Or(c.HandshakeTimeout, 5*time.Second)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 15*time.Second)
	c.MinBackoff = cmp.Or(c.MinBackoff, 20*time.Millisecond)
	c.MaxBackoff = cmp.Or(c.MaxBackoff, max(time.Second, c.MinBackoff))
	if c.Dial == nil {
		var d net.Dialer
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", address)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate names every field that is wrong.
func (c Config) validate() error {
	var errs []error
	fail := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("tcp: Config."+format, args...))
	}
	switch {
	case c.ID == "":
		fail("ID is required")
	case len(c.ID) > maxID:
		fail("ID is longer than %d bytes", maxID)
	}
	if c.Listen == "" && c.Listener == nil {
		fail("Listen is required")
	}
	for id, address := range c.Peers {
		if err := checkPeer(id, address); err != nil {
			fail("Peers: %w", err)
		}
	}
	if c.Identity != nil {
		if err := c.Identity.Check(c.ID); err != nil {
			fail("Identity: %w", err)
		}
	}
	if c.MaxPayload < 0 || c.MaxPayload > maxLength {
		fail("MaxPayload is %d, not 1 to %d", c.MaxPayload, maxLength)
	}
	if c.QueueBytes < c.MaxPayload+headerSize {
		fail("QueueBytes is %d, less than a payload of MaxPayload %d takes", c.QueueBytes, c.MaxPayload)
	}
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"MaxConns", int64(c.MaxConns)},
		{"MaxHandshakes", int64(c.MaxHandshakes)},
		{"HandshakeTimeout", int64(c.HandshakeTimeout)},
		{"IdleTimeout", int64(c.IdleTimeout)},
		{"MinBackoff", int64(c.MinBackoff)},
	} {
		if f.value < 0 {
			fail("%s is negative", f.name)
		}
	}
	if c.MaxBackoff < c.MinBackoff {
		fail("MaxBackoff is less than MinBackoff")
	}
	return errors.Join(errs...)
}

// maxID bounds a node's id, so that a hello of two fits its frame.
const maxID = 1 << 10

func checkPeer(id coterie.NodeID, address string) error {
	if id == "" {
		return errors.New("empty node id")
	}
	if len(id) > maxID {
		return fmt.Errorf("node id of %d bytes, at most %d", len(id), maxID)
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("address of %s: %w", id, err)
	}
	return nil
}
