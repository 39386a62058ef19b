package transport

import (
	"fmt"
	"maps"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/inlet"
	"github.com/coterie-go/coterie/internal/wire"
)

// muxFormat is the first byte of every payload that a Mux sends: the format, the channel number as a varint, and the
// channel's payload up to the end.
const muxFormat = 1

// Gatherer is what a transport may be besides: one that sends a payload given in two parts without joining them
// first. A Mux uses it to put a channel's number ahead of a payload that it may not change. Package tcp has it.
type Gatherer interface {
	coterie.Transport
	// SendParts sends head and payload as one payload, as Send would. Nobody may change either.
	SendParts(to coterie.NodeID, head, payload []byte) error
}

// Mux shares one transport among many protocols: each has a channel, known by its number, that is a transport of its
// own. Nodes talk on a channel if both have opened it; what comes for one that is not open is lost and counted. A
// channel costs a few hundred bytes and no goroutine, so that ten thousand Raft groups may share a connection.
//
// A payload is 2 to 11 bytes longer on the transport below than on a channel. It is copied once for that, unless the
// transport below is a Gatherer.
//
// Every method is safe for concurrent use.
type Mux struct {
	below  coterie.Transport
	gather Gatherer // below, if it is one
	once   sync.Once

	mu     sync.Mutex // guards opening and closing of channels; not taken to send or receive
	closed bool
	table  [muxShards]atomic.Pointer[map[uint64]*channel] // copied on write, in shards for the sake of many channels

	malformed, unknown, unhandled atomic.Uint64
}

const muxShards = 64

// NewMux takes over a transport: it sets its handler, and Close closes it.
func NewMux(below coterie.Transport) *Mux {
	m := &Mux{below: below}
	m.gather, _ = below.(Gatherer)
	for i := range m.table {
		m.table[i].Store(&map[uint64]*channel{})
	}
	below.Receive(m.deliver)
	return m
}

// Channel opens a channel, on which the node talks to those that opened the same number. Closing what it returns
// leaves the Mux and its other channels alone, and the number may be opened again. It panics if the channel is open:
// two protocols on one channel are a bug that no error would undo. On a closed Mux it returns a closed channel.
func (m *Mux) Channel(number uint64) coterie.Transport {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &channel{mux: m, number: number, head: wire.AppendUvarint([]byte{muxFormat}, number)}
	if m.closed {
		c.closed.Store(true)
		return c
	}
	shard := m.shard(number)
	if (*shard.Load())[number] != nil {
		panic(fmt.Sprintf("transport: Mux channel %d is open already", number))
	}
	next := maps.Clone(*shard.Load())
	next[number] = c
	shard.Store(&next)
	return c
}

// LocalID is the node that the Mux and its channels send from.
func (m *Mux) LocalID() coterie.NodeID { return m.below.LocalID() }

// Close closes every channel and the transport below. Closing twice is harmless.
func (m *Mux) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	err := m.below.Close()
	m.once.Do(func() {
		for i := range m.table {
			for _, c := range *m.table[i].Load() {
				_ = c.Close()
			}
		}
	})
	return err
}

// MuxMetrics counts what a Mux could not hand over since it was made.
type MuxMetrics struct {
	Malformed uint64 // payloads that do not start as a Mux's do
	Unknown   uint64 // payloads for a channel that is not open here
	Unhandled uint64 // payloads for a channel without a handler
}

// Metrics returns the counters.
func (m *Mux) Metrics() MuxMetrics {
	return MuxMetrics{Malformed: m.malformed.Load(), Unknown: m.unknown.Load(), Unhandled: m.unhandled.Load()}
}

// shard spreads numbers by a multiplicative hash, for numbers may have a stride.
func (m *Mux) shard(number uint64) *atomic.Pointer[map[uint64]*channel] {
	const golden = 0x9e3779b97f4a7c15
	return &m.table[number*golden>>(64-bits.TrailingZeros(muxShards))]
}

func (m *Mux) deliver(from coterie.NodeID, payload []byte) {
	number, rest, err := decodeMux(payload)
	if err != nil {
		m.malformed.Add(1)
		return
	}
	c := (*m.shard(number).Load())[number]
	switch {
	case c == nil:
		m.unknown.Add(1)
	case !c.inlet.Deliver(from, rest):
		m.unhandled.Add(1)
	}
}

// decodeMux takes the channel number off a payload.
func decodeMux(payload []byte) (number uint64, rest []byte, err error) {
	r := wire.NewReader(payload)
	if format := r.Byte(); r.Err() == nil && format > muxFormat {
		return 0, nil, &coterie.FormatError{What: "mux payload", Got: format, Max: muxFormat}
	} else if r.Err() == nil && format < muxFormat {
		r.Fail("mux payload of format %d", format)
	}
	number = r.Uvarint()
	if err := r.Err(); err != nil {
		return 0, nil, fmt.Errorf("transport: mux payload: %w", err)
	}
	if rest = r.Rest(); len(rest) == 0 {
		rest = nil
	}
	return number, rest, nil
}

// channel is one protocol's end of a Mux.
type channel struct {
	mux    *Mux
	number uint64
	head   []byte // format and number, ahead of every payload
	inlet  inlet.Inlet
	closed atomic.Bool
}

func (c *channel) LocalID() coterie.NodeID { return c.mux.below.LocalID() }

func (c *channel) Send(to coterie.NodeID, payload []byte) error {
	if c.closed.Load() {
		return fmt.Errorf("send on mux channel %d: %w", c.number, coterie.ErrClosed)
	}
	if c.mux.gather != nil {
		return c.mux.gather.SendParts(to, c.head, payload)
	}
	joined := make([]byte, 0, len(c.head)+len(payload))
	return c.mux.below.Send(to, append(append(joined, c.head...), payload...))
}

func (c *channel) Receive(handle func(from coterie.NodeID, payload []byte)) {
	c.inlet.Set(handle)
	if c.closed.Load() {
		c.inlet.Set(nil)
	}
}

func (c *channel) Close() error {
	c.closed.Store(true)
	c.mux.mu.Lock()
	if shard := c.mux.shard(c.number); (*shard.Load())[c.number] == c {
		next := maps.Clone(*shard.Load())
		delete(next, c.number)
		shard.Store(&next)
	}
	c.mux.mu.Unlock()
	c.inlet.Set(nil)
	return nil
}
