package rpc

import (
	"container/list"
	"fmt"
	"sync"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// log journals what a table learns. Whoever finds nobody flushing appends all that waits, with one sync.
type log struct {
	journal  coterie.Journal
	snapshot func() []byte // the whole table, as a record

	// The table's mutex guards what follows.
	waiting  [][]byte
	next     *batch        // of waiting
	flushing chan struct{} // nil if nobody flushes
	records  int           // since the newest snapshot
	size     int           // bytes of these
	large    int           // bytes of the newest snapshot
	err      error         // of the journal: final
}

// batch is what one Append makes durable.
type batch struct {
	flushed chan struct{}
	err     error // set before flushed is closed
}

func (l *log) add(record []byte) *batch {
	if l.next == nil {
		l.next = &batch{flushed: make(chan struct{})}
	}
	l.waiting = append(l.waiting, record)
	l.records++
	l.size += len(record)
	return l.next
}

// minSnapshot is how many bytes of records there are before a snapshot, at least.
const minSnapshot = 256 << 10

// flush appends what waits until nothing does.
func (l *log) flush(mu *sync.Mutex) {
	mu.Lock()
	defer mu.Unlock()
	for l.next != nil {
		b, records := l.next, l.waiting
		l.next, l.waiting, l.flushing = nil, nil, b.flushed
		keep := 0
		if l.size > max(minSnapshot, 2*l.large) {
			record := l.snapshot()
			records = append(records, record)
			l.records, l.size, l.large, keep = 0, 0, len(record), 1
		}
		err := l.err
		if err == nil {
			mu.Unlock()
			err = l.journal.Append(records...)
			if err == nil && keep > 0 {
				err = l.journal.Keep(keep)
			}
			mu.Lock()
		}
		l.err, b.err = err, err
		close(b.flushed)
	}
	l.flushing = nil
}

// The records of a table: a format byte, what it is, and fields.
const (
	recordFormat = 1

	recordOpened   = 1 // a session
	recordBegun    = 2 // a call, before its handler runs
	recordEnded    = 3 // a call, with its answer
	recordSnapshot = 4 // all there is, in place of what came before
)

type record struct {
	what    byte
	tag     tag
	failure *Error
	payload []byte
}

func (r record) encode() []byte {
	b := []byte{recordFormat, r.what}
	b = wire.AppendUvarint(b, r.tag.session)
	if r.what == recordOpened {
		return b
	}
	b = wire.AppendUvarint(wire.AppendUvarint(b, r.tag.seq), r.tag.low)
	if r.what == recordBegun {
		return b
	}
	return appendOutcome(b, r.failure, r.payload)
}

func appendOutcome(b []byte, failure *Error, payload []byte) []byte {
	p := response{err: failure}
	return wire.AppendBytes(wire.AppendBytes(b, p.appendHead(nil)), payload)
}

func readOutcome(r *wire.Reader) (*Error, []byte) {
	var p response
	if head := r.Bytes(); r.Err() == nil {
		if err := p.decode(head); err != nil {
			r.Fail("%v", err)
		}
	}
	return p.err, r.Bytes()
}

// decodeRecord reads any record but a snapshot.
func decodeRecord(b []byte) (rec record, err error) {
	r := wire.NewReader(b)
	if format := r.Byte(); r.Err() == nil && format > recordFormat {
		return record{}, &coterie.FormatError{What: "rpc session record", Got: format, Max: recordFormat}
	} else if r.Err() == nil && format < recordFormat {
		r.Fail("format %d", format)
	}
	rec.what = r.Byte()
	if rec.what < recordOpened || rec.what > recordSnapshot {
		r.Fail("unknown record %d", rec.what)
	}
	if rec.what == recordSnapshot {
		rec.payload = r.Rest()
		return rec, wrapRecord(r.Err())
	}
	rec.tag.session = r.Uvarint()
	if rec.what != recordOpened {
		rec.tag.seq, rec.tag.low = r.Uvarint(), r.Uvarint()
	}
	if rec.what == recordEnded {
		rec.failure, rec.payload = readOutcome(&r)
	}
	if t := rec.tag; r.Err() == nil && (t.session == 0 || rec.what != recordOpened && (t.low == 0 || t.seq < t.low || t.seq-t.low >= window && rec.what == recordBegun)) {
		r.Fail("call %d of session %d with %d the oldest", t.seq, t.session, t.low)
	}
	return rec, wrapRecord(r.Done())
}

func wrapRecord(err error) error {
	if err != nil {
		return fmt.Errorf("rpc: session record: %w", err)
	}
	return nil
}

// replay takes back a record, before the first call.
func (t *table) replay(b []byte) error {
	rec, err := decodeRecord(b)
	if err != nil {
		return err
	}
	if rec.what == recordSnapshot {
		return t.decode(rec.payload)
	}
	t.log.size += len(b)
	s := t.findLocked(rec.tag.session)
	if rec.what == recordOpened {
		if s == nil {
			t.addLocked(rec.tag.session, true)
		}
		return nil
	}
	if s == nil {
		return nil // forgotten since
	}
	seq := rec.tag.seq
	switch o := s.calls[seq]; {
	case rec.what == recordBegun:
		t.forgetLocked(s, rec.tag.low)
		if o == nil && seq >= s.low {
			s.calls[seq] = &outcome{failure: lost}
		}
	case o != nil:
		t.bytes += len(rec.payload) - len(o.payload)
		o.failure, o.payload = rec.failure, rec.payload
		t.shrinkLocked()
	}
	return nil
}

// encodeLocked encodes the sessions that are journalled. A call that runs is one that has begun.
func (t *table) encodeLocked() []byte {
	b := []byte{recordFormat, recordSnapshot}
	n := uint64(0)
	for el := t.order.Front(); el != nil; el = el.Next() {
		if el.Value.(*session).durable {
			n++
		}
	}
	b = wire.AppendUvarint(b, n)
	for el := t.order.Front(); el != nil; el = el.Next() {
		s := el.Value.(*session)
		if !s.durable {
			continue
		}
		b = wire.AppendUvarint(wire.AppendUvarint(b, s.id), s.low)
		b = wire.AppendUvarint(b, uint64(len(s.calls)))
		for seq := s.low; seq-s.low < window; seq++ {
			o := s.calls[seq]
			if o == nil {
				continue
			}
			failure, payload := o.failure, o.payload
			if o.running() {
				failure, payload = lost, nil
			}
			b = appendOutcome(wire.AppendUvarint(b, seq-s.low), failure, payload)
		}
	}
	return b
}

// running reports whether a call has no outcome yet.
func (o *outcome) running() bool {
	if o.done == nil {
		return false
	}
	select {
	case <-o.done:
		return false
	default:
		return true
	}
}

// decode replaces the table by what a snapshot has.
func (t *table) decode(b []byte) error {
	type entry struct {
		s     *session
		bytes int
	}
	r := wire.NewReader(b)
	var all []entry
	for range r.Count(3) {
		e := entry{s: &session{id: r.Uvarint(), low: r.Uvarint(), durable: true, calls: make(map[uint64]*outcome)}}
		for range r.Count(3) {
			at := r.Uvarint()
			failure, payload := readOutcome(&r)
			if at >= window || e.s.calls[e.s.low+at] != nil {
				r.Fail("call %d after the oldest", at)
			}
			e.s.calls[e.s.low+at] = &outcome{failure: failure, payload: payload}
			e.bytes += len(payload)
		}
		if r.Err() == nil && (e.s.id == 0 || e.s.low == 0) {
			r.Fail("session %d from call %d", e.s.id, e.s.low)
		}
		all = append(all, e)
	}
	if err := r.Done(); err != nil {
		return wrapRecord(err)
	}
	t.sessions = make(map[uint64]*list.Element, len(all))
	t.order.Init()
	t.bytes = 0
	for _, e := range all {
		if t.sessions[e.s.id] == nil {
			t.sessions[e.s.id] = t.order.PushBack(e.s)
			t.bytes += e.bytes
		}
	}
	t.shrinkLocked()
	t.log.size, t.log.large = 0, len(b)
	return nil
}
