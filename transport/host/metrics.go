package host

import "sync/atomic"

// Metrics counts what a Host has done since it started.
type Metrics struct {
	Rounds     uint64 // times the inbox was taken
	Steps      uint64 // messages given to the core
	Ticks      uint64
	Syncs      uint64 // appends to the journal
	Records    uint64 // records in them
	Sent       uint64 // messages given to the transport
	Unsendable uint64 // of those, refused by the transport with an error
	Malformed  uint64 // messages the core refused with an error
	Refused    uint64 // messages Config.Check refused
	Dropped    uint64 // messages that found the inbox full
}

type metrics struct {
	rounds, steps, ticks, syncs, records, sent, unsendable, malformed, refused, dropped atomic.Uint64
}

// Metrics returns the counters; each is exact, but they are not read at one moment.
func (h *Host[C]) Metrics() Metrics {
	m := &h.metrics
	return Metrics{
		Rounds:     m.rounds.Load(),
		Steps:      m.steps.Load(),
		Ticks:      m.ticks.Load(),
		Syncs:      m.syncs.Load(),
		Records:    m.records.Load(),
		Sent:       m.sent.Load(),
		Unsendable: m.unsendable.Load(),
		Malformed:  m.malformed.Load(),
		Refused:    m.refused.Load(),
		Dropped:    m.dropped.Load(),
	}
}
