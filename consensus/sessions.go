package consensus

import (
	"container/list"
	"errors"
	"fmt"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// ErrSessionExpired is returned for a command of a session that the replicas have forgotten: it was idle for longer
// than Config.SessionTTL, or the table was full and it was idle for longest. The command was not applied now; whether
// an earlier attempt was cannot be told any more. Open a new session.
var ErrSessionExpired = errors.New("consensus: session expired")

// sessionWindow is how far sequence numbers may run ahead of the lowest unacknowledged one: what the table keeps of
// one session at most. It is part of the replicated state machine, as the order of its steps is.
const sessionWindow = 1024

// sessions is the table by which a command of a session is applied once: for each session the results of the commands
// that its client may propose again. It is part of the replicated state, equal on every replica and in every snapshot
// (Ongaro, Consensus: Bridging Theory and Practice, 2014, §6.3; Lee et al., RIFL, 2015).
//
// Invariant: the list orders the sessions by the log time of their last use, oldest first.
type sessions struct {
	limits limits
	byID   map[uint64]*list.Element // of *session
	order  list.List
	bytes  int // of results
}

type session struct {
	id     uint64
	active int64 // log time of the last use
	low    uint64
	window []answer // of the sequence numbers from low on
}

// answer is the result of one command of a session.
type answer struct {
	applied bool
	result  []byte
}

func newSessions() *sessions {
	return &sessions{byID: make(map[uint64]*list.Element)}
}

// open adds a session under a new id, and makes room for it.
func (t *sessions) open(id uint64, l limits, now int64) {
	t.limits = l
	t.expire(now)
	t.byID[id] = t.order.PushBack(&session{id: id, active: now, low: 1})
	t.shrink()
}

// end forgets a session.
func (t *sessions) end(id uint64) {
	if el := t.byID[id]; el != nil {
		t.remove(el)
	}
}

// expire forgets the sessions that have been idle for too long.
func (t *sessions) expire(now int64) {
	for el := t.order.Front(); el != nil && el.Value.(*session).active <= now-t.limits.ttl; el = t.order.Front() {
		t.remove(el)
	}
}

// shrink forgets the sessions idle for longest until the table is within its limits; it spares the newest.
func (t *sessions) shrink() {
	for t.order.Len() > 1 && (t.order.Len() > t.limits.count || t.bytes > t.limits.bytes) {
		t.remove(t.order.Front())
	}
}

func (t *sessions) remove(el *list.Element) {
	s := t.order.Remove(el).(*session)
	delete(t.byID, s.id)
	for i := range s.window {
		t.bytes -= len(s.window[i].result)
	}
}

// apply applies the entry unless its command has been applied before, and returns its result either way. An error
// means that it was not applied by this call.
func (t *sessions) apply(tag Tag, now int64, sm coterie.StateMachine, entry coterie.Entry) ([]byte, error) {
	el := t.byID[tag.Session]
	if el == nil {
		return nil, fmt.Errorf("%w: session %d", ErrSessionExpired, tag.Session)
	}
	s := el.Value.(*session)
	s.active = now
	t.order.MoveToBack(el)
	t.acknowledge(s, tag.Low)
	switch {
	case tag.Seq < s.low:
		return nil, fmt.Errorf("consensus: command %d of session %d was given up: %w", tag.Seq, s.id, coterie.ErrUnknownOutcome)
	case tag.Seq-s.low >= sessionWindow:
		return nil, fmt.Errorf("consensus: command %d of session %d, of which %d is the oldest unacknowledged: %w",
			tag.Seq, s.id, s.low, coterie.ErrOverloaded)
	}
	at := int(tag.Seq - s.low)
	for len(s.window) <= at {
		s.window = append(s.window, answer{})
	}
	if a := s.window[at]; a.applied {
		return a.result, nil
	}
	result := sm.Apply(entry)
	s.window[at] = answer{applied: true, result: result}
	t.bytes += len(result)
	t.shrink()
	return result, nil
}

// acknowledge forgets the results below low.
func (t *sessions) acknowledge(s *session, low uint64) {
	if low <= s.low {
		return
	}
	n := int(min(low-s.low, uint64(len(s.window))))
	for i := range n {
		t.bytes -= len(s.window[i].result)
	}
	clear(s.window[:n])
	s.window = s.window[n:]
	s.low = low
}

// append encodes the table. Equal tables give equal bytes.
func (t *sessions) append(b []byte) []byte {
	b = appendLimits(b, t.limits)
	b = wire.AppendUvarint(b, uint64(t.order.Len()))
	for el := t.order.Front(); el != nil; el = el.Next() {
		s := el.Value.(*session)
		b = wire.AppendUvarint(b, s.id)
		b = wire.AppendUvarint(b, uint64(s.active))
		b = wire.AppendUvarint(b, s.low)
		b = wire.AppendUvarint(b, uint64(len(s.window)))
		for _, a := range s.window {
			b = wire.AppendBool(b, a.applied)
			if a.applied {
				b = wire.AppendBytes(b, a.result)
			}
		}
	}
	return b
}

// readSessions decodes a table. It checks what apply and expire rely on.
func readSessions(r *wire.Reader) *sessions {
	t := newSessions()
	t.limits = readLimits(r)
	var last int64
	for range r.Count(4) {
		s := &session{id: r.Uvarint(), active: int64(r.Uvarint()), low: r.Uvarint()}
		if s.active < last || s.low == 0 || t.byID[s.id] != nil {
			r.Fail("session %d out of order", s.id)
		}
		last = s.active
		n := r.Count(1)
		if n > sessionWindow {
			r.Fail("session %d with %d results", s.id, n)
			return t
		}
		for range n {
			a := answer{applied: r.Bool()}
			if a.applied {
				a.result = r.Bytes()
				t.bytes += len(a.result)
			}
			s.window = append(s.window, a)
		}
		if r.Err() != nil {
			return t
		}
		t.byID[s.id] = t.order.PushBack(s)
	}
	return t
}
