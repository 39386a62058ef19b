package udp

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/coterie-go/coterie"
)

// Config configures a Transport.
type Config struct {
	ID     coterie.NodeID            // required: this node
	Listen string                    // address to receive at, "host:port"; required, but with Conn; port 0 picks one
	Peers  map[coterie.NodeID]string // the other nodes' addresses, "host:port"; SetPeer changes them

	// RefuseUnknown drops what comes from nodes that are not among the peers. It keeps out mistakes, not enemies.
	RefuseUnknown bool

	MaxDatagram int // bytes of the largest payload that goes by datagram, 1 to 60,000; default 1400
	ReadBuffer  int // bytes that the kernel may hold until they are read, as far as it lets; default 1 MiB

	// Stream carries payloads above MaxDatagram; without one they are refused. If it has a method SetPeer, as package
	// tcp has, it is told of a peer's address, the same as here, when something is to be sent there. The Transport
	// takes it over: it sets its handler, and Close closes it.
	Stream coterie.Transport
	// StreamIdle closes a peer's stream, by SetPeer with no address, when nothing was sent on it for so long. Stream
	// must then accept unknown peers. Default 0, never.
	StreamIdle time.Duration

	Conn   net.PacketConn // receives instead of Listen, a *net.UDPConn or what behaves like one; Close closes it
	Logger *slog.Logger   // what cannot be sent or understood; default silent
}

func (c Config) withDefaults() Config {
	c.MaxDatagram = cmp.Or(c.MaxDatagram, 1400)
	c.ReadBuffer = cmp.Or(c.ReadBuffer, 1<<20)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// maxID bounds a node's id, so that two of them and the largest datagram fit a UDP packet.
const maxID = 1 << 10

// validate names every field that is wrong.
func (c Config) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("udp: Config."+format, args...))
		}
	}
	check(c.ID != "", "ID is required")
	check(len(c.ID) <= maxID, "ID is longer than %d bytes", maxID)
	check(c.Listen != "" || c.Conn != nil, "Listen is required")
	check(c.MaxDatagram >= 1 && c.MaxDatagram <= 60_000, "MaxDatagram is %d, not 1 to 60,000", c.MaxDatagram)
	check(c.ReadBuffer >= 0, "ReadBuffer is negative")
	check(c.StreamIdle >= 0, "StreamIdle is negative")
	for id, address := range c.Peers {
		if err := checkPeer(id, address); err != nil {
			errs = append(errs, fmt.Errorf("udp: Config.Peers: %w", err))
		}
	}
	if c.Stream != nil {
		check(c.Stream.LocalID() == c.ID, "Stream is that of %q, not of %q", c.Stream.LocalID(), c.ID)
		_, book := c.Stream.(addressBook)
		check(book || c.StreamIdle == 0, "StreamIdle needs a Stream that has SetPeer")
	}
	return errors.Join(errs...)
}

func checkPeer(id coterie.NodeID, address string) error {
	if id == "" {
		return errors.New("empty node id")
	}
	if len(id) > maxID {
		return fmt.Errorf("node id of %d bytes, at most %d", len(id), maxID)
	}
	if _, port, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("address of %s: %w", id, err)
	} else if _, err := net.LookupPort("udp", port); err != nil {
		return fmt.Errorf("address of %s: %w", id, err)
	}
	return nil
}
