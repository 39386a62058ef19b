package udp

import "sync/atomic"

// Metrics counts what a Transport has done since it started.
type Metrics struct {
	Sent          uint64 // datagrams
	SentBytes     uint64 // bytes of them, with what this package adds
	Received      uint64 // datagrams that made sense
	ReceivedBytes uint64 // bytes of their payloads
	Streamed      uint64 // payloads given to Config.Stream
	IdleStreams   uint64 // streams closed because of Config.StreamIdle
	SendErrors    uint64 // datagrams that the network refused
	ReadErrors    uint64 // errors that it reported on reading
	Unresolved    uint64 // datagrams lost because the host's name was not resolved yet
	Malformed     uint64 // datagrams that made no sense
	Misdirected   uint64 // datagrams for another node
	Strangers     uint64 // payloads of nodes that are not among the peers, refused
	Unhandled     uint64 // payloads that came while there was no handler
}

type counters struct {
	sent, sentBytes, received, receivedBytes, streamed, idleStreams, sendErrors atomic.Uint64
	readErrors, unresolved, malformed, misdirected, strangers, unhandled        atomic.Uint64
}

// Metrics returns the counters; those of Config.Stream are its own.
func (t *Transport) Metrics() Metrics {
	c := &t.counters
	return Metrics{
		Sent: c.sent.Load(), SentBytes: c.sentBytes.Load(),
		Received: c.received.Load(), ReceivedBytes: c.receivedBytes.Load(),
		Streamed: c.streamed.Load(), IdleStreams: c.idleStreams.Load(), SendErrors: c.sendErrors.Load(),
		ReadErrors: c.readErrors.Load(), Unresolved: c.unresolved.Load(), Malformed: c.malformed.Load(),
		Misdirected: c.misdirected.Load(), Strangers: c.strangers.Load(), Unhandled: c.unhandled.Load(),
	}
}
