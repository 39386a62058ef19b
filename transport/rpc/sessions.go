package rpc

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// window is how far the numbers of a session's calls may run ahead of the oldest under way: what is remembered of one
// client at most.
const window = 1024

// table is what a server remembers of calls that must not be executed twice: for each session the calls that its
// client may send again, and their answers. A call of a session that the table does not have is refused, and so is one
// older than the session remembers; to forget is therefore safe.
//
// With a journal, that a call begins is durable before its handler runs. After a restart a call that had begun, and of
// which no answer was saved, is answered with ErrUnknownOutcome.
type table struct {
	maxSessions, maxBytes int

	mu       sync.Mutex // guards what follows; never held while the journal syncs
	sessions map[uint64]*list.Element
	order    list.List // of *session, the longest unused first
	bytes    int       // of answers
	log      *log      // nil without a journal
}

// session is one client.
type session struct {
	id      uint64
	durable bool // for at-most-once: answers are kept, and journalled; else only that a call came
	low     uint64
	calls   map[uint64]*outcome // those from low on that came
}

// outcome is what became of a call.
type outcome struct {
	done    chan struct{} // closed when what follows is set; nil if it was set by a replay
	failure *Error
	payload []byte
}

// lost is the outcome of a call that had begun before a restart.
var lost = &Error{Code: UnknownOutcome, Message: "rpc: the server restarted while the call ran: " + coterie.ErrUnknownOutcome.Error()}

func newTable(journal coterie.Journal, maxSessions, maxBytes int) (*table, error) {
	t := &table{maxSessions: maxSessions, maxBytes: maxBytes, sessions: make(map[uint64]*list.Element)}
	if journal == nil {
		return t, nil
	}
	t.log = &log{journal: journal, snapshot: t.encodeLocked}
	if err := journal.Replay(t.replay); err != nil {
		return nil, fmt.Errorf("rpc: replay ServerConfig.Journal: %w", err)
	}
	return t, nil
}

func (t *table) close() error {
	if t.log == nil {
		return nil
	}
	t.mu.Lock()
	for t.log.flushing != nil {
		flushing := t.log.flushing
		t.mu.Unlock()
		<-flushing
		t.mu.Lock()
	}
	t.mu.Unlock()
	return t.log.journal.Close()
}

// open adds a session.
func (t *table) open(durable bool) (uint64, error) {
	t.mu.Lock()
	id := rand.Uint64()
	for id == 0 || t.sessions[id] != nil {
		id = rand.Uint64()
	}
	t.addLocked(id, durable)
	if !durable || t.log == nil {
		t.mu.Unlock()
		return id, nil
	}
	return id, t.save(record{what: recordOpened, tag: tag{session: id}}, true)
}

func (t *table) addLocked(id uint64, durable bool) *session {
	s := &session{id: id, durable: durable, low: 1, calls: make(map[uint64]*outcome)}
	t.sessions[id] = t.order.PushBack(s)
	t.shrinkLocked()
	return s
}

// shrinkLocked forgets the sessions longest unused until the table is within its limits, but for the newest.
func (t *table) shrinkLocked() {
	for t.order.Len() > 1 && (t.order.Len() > t.maxSessions || t.bytes > t.maxBytes) {
		s := t.order.Remove(t.order.Front()).(*session)
		delete(t.sessions, s.id)
		for _, o := range s.calls {
			t.bytes -= len(o.payload)
		}
	}
}

func (t *table) findLocked(id uint64) *session {
	el := t.sessions[id]
	if el == nil {
		return nil
	}
	t.order.MoveToBack(el)
	return el.Value.(*session)
}

// forgetLocked drops what is older than the client will ask for.
func (t *table) forgetLocked(s *session, low uint64) {
	if low <= s.low {
		return
	}
	s.low = low
	for seq, o := range s.calls {
		if seq < low {
			t.bytes -= len(o.payload)
			delete(s.calls, seq)
		}
	}
}

// begin notes that a call came. It is to be run if mine is true; otherwise o is what became, or becomes, of it.
func (t *table) begin(g tag) (o *outcome, mine, durable bool, refused *Error) {
	t.mu.Lock()
	s := t.findLocked(g.session)
	if s == nil {
		t.mu.Unlock()
		return nil, false, false, refusal(SessionExpired, "session unknown: %v", ErrSessionExpired)
	}
	t.forgetLocked(s, g.low)
	switch {
	case g.seq < s.low:
		t.mu.Unlock()
		return nil, false, s.durable, refusal(UnknownOutcome, "call %d was given up", g.seq)
	case g.seq-s.low >= window:
		t.mu.Unlock()
		return nil, false, s.durable, refusal(Overloaded, "call %d, while %d is under way", g.seq, s.low)
	}
	if o := s.calls[g.seq]; o != nil {
		t.mu.Unlock()
		return o, false, s.durable, nil
	}
	o = &outcome{done: make(chan struct{})}
	s.calls[g.seq] = o
	if !s.durable || t.log == nil {
		t.mu.Unlock()
		return o, true, s.durable, nil
	}
	if err := t.save(record{what: recordBegun, tag: tag{session: s.id, seq: g.seq, low: s.low}}, true); err != nil {
		failure := refusal(Unavailable, "journal: %v", err)
		t.mu.Lock()
		o.failure = failure
		close(o.done)
		t.mu.Unlock()
		return nil, false, true, failure
	}
	return o, true, true, nil
}

// end notes what became of a call.
func (t *table) end(g tag, o *outcome, failure *Error, payload []byte) {
	t.mu.Lock()
	o.failure, o.payload = failure, payload
	close(o.done)
	s := t.findLocked(g.session)
	kept := s != nil && s.durable && s.calls[g.seq] == o
	if kept {
		t.bytes += len(payload)
		t.shrinkLocked()
	}
	if !kept || t.log == nil {
		t.mu.Unlock()
		return
	}
	// That the answer is durable too nobody waits for: without it, a repetition after a crash learns that the outcome
	// is unknown.
	_ = t.save(record{what: recordEnded, tag: tag{session: g.session, seq: g.seq, low: 1}, failure: failure, payload: payload}, false)
}

// save journals a record. t.mu is held, so that the order of records is that of what they tell, and released.
func (t *table) save(r record, wait bool) error {
	done := t.log.add(r.encode())
	if t.log.flushing == nil {
		t.log.flushing = done.flushed
		if wait {
			t.mu.Unlock()
			t.log.flush(&t.mu)
		} else {
			t.mu.Unlock()
			go t.log.flush(&t.mu)
		}
	} else {
		t.mu.Unlock()
	}
	if !wait {
		return nil
	}
	<-done.flushed
	return done.err
}

// runOnce runs a call of a session unless that was done before.
func (s *Server) runOnce(c *call, buf []byte) (payload []byte, failure *Error, silent bool) {
	o, mine, durable, refused := s.table.begin(c.tag)
	if refused != nil {
		s.counters.refusedRepeats.Add(1)
		return nil, refused, false
	}
	if mine {
		payload, failure = s.invoke(c, buf)
		payload = append([]byte(nil), payload...) // it outlives the buffer
		if !durable {
			s.table.end(c.tag, o, nil, nil)
			return payload, failure, false
		}
		s.table.end(c.tag, o, failure, payload)
		return payload, failure, false
	}
	s.counters.repeats.Add(1)
	if !durable {
		return nil, nil, true // a copy of a request that its client sent once
	}
	if o.done != nil {
		select {
		case <-o.done:
		case <-c.Done():
			return nil, toError(c.Err()), false
		}
	}
	return o.payload, o.failure, false
}

// methodSession opens a session; the request is a byte, 1 for at-most-once.
const methodSession = "coterie.rpc/session"

func (s *Server) openSession(_ context.Context, payload, buf []byte) ([]byte, error) {
	if len(payload) != 1 || payload[0] > 1 {
		return nil, fmt.Errorf("%w: session", ErrBadRequest)
	}
	id, err := s.table.open(payload[0] == 1)
	if err != nil {
		return nil, errors.Join(coterie.ErrClosed, err)
	}
	return wire.AppendUint64(buf, id), nil
}
