package wal

import (
	"fmt"

	"github.com/coterie-go/coterie"
)

// Stream is one of many journals that share a log and its syncs: a coterie.Journal of its own. Its methods are safe
// for concurrent use; records appended at the same time stand in either order.
type Stream struct {
	log    *Log
	s      *stream // nil if err is set
	err    error   // of the name
	closed bool    // guarded by log.mu
}

var _ coterie.Journal = (*Stream)(nil)

// Stream returns the stream of a name, new and empty if the log has none. A stream costs nothing until it is written
// to. A name has at most 255 bytes, else every method of the Stream returns an error; the empty name is the default
// stream.
//
// All handles of one name are the same journal. Closing one closes that handle, not the log, so that a host that
// stops and starts again in one process takes its stream again.
func (l *Log) Stream(name string) *Stream {
	if len(name) > maxName {
		return &Stream{log: l, err: fmt.Errorf("wal: stream name of %d bytes; at most %d", len(name), maxName)}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stream(name)
	if s == nil {
		return &Stream{log: l, err: fmt.Errorf("wal: more than %d streams", maxStreams)}
	}
	return &Stream{log: l, s: s}
}

// stream finds or makes a stream, mu held; nil if there are too many.
func (l *Log) stream(name string) *stream {
	s := l.streams[name]
	if s == nil && l.lastID < maxStreams-1 {
		l.lastID++
		s = &stream{id: l.lastID, name: name, next: 1, low: 1, savedLow: 1}
		l.streams[name] = s
	}
	return s
}

// Name returns the stream's name.
func (s *Stream) Name() string {
	if s.s == nil {
		return ""
	}
	return s.s.name
}

// usable returns why nothing can be done, log.mu held.
func (s *Stream) usable() error {
	if s.err != nil {
		return s.err
	}
	if s.closed {
		return fmt.Errorf("wal: stream %q: %w", s.s.name, coterie.ErrClosed)
	}
	return s.log.usable()
}

// Append makes the records durable, in order; they are on return. They stand together, no other record of the stream
// between them, and after a crash on the way some of the first of them may be there. The records are copied.
//
// An error is final (ErrPoisoned): the records may or may not be there at the next Open. Only for a record over 1 GiB
// and for ErrClosed it is not: then nothing was written.
func (s *Stream) Append(records ...[]byte) error {
	for _, r := range records {
		if len(r) > maxRecord {
			return fmt.Errorf("wal: record of %d bytes; at most %d", len(r), maxRecord)
		}
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	if err := s.usable(); err != nil || len(records) == 0 {
		return err
	}
	return s.log.commit(s.log.gather(s.s, records))
}

// Keep allows all but the newest records of the stream to be forgotten, of those that were durable when it was
// called. A segment that no stream needs is removed; none is ever rewritten. Replay then starts at the oldest of
// them, or before: after a restart, at what the disk had learnt of Keep by later appends or Close.
//
// A stream that keeps little and says nothing for long does not hold old segments: once the log is more than twice as
// big as what its streams still need, their records are said again at its head.
func (s *Stream) Keep(newest int) error {
	if newest < 0 {
		return fmt.Errorf("wal: Keep of %d records", newest)
	}
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	st := s.s
	if len(st.spans) == 0 {
		return nil
	}
	written := st.spans[len(st.spans)-1].last
	if uint64(newest) > written || written-uint64(newest) < st.low {
		return nil
	}
	st.low = written - uint64(newest) + 1
	st.release()
	return l.removeUnneeded()
}

// release lets go of the segments that hold only what Keep has let go.
func (s *stream) release() {
	n := 0
	for n < len(s.spans) && s.spans[n].last < s.low {
		s.spans[n].seg.refs--
		n++
	}
	s.spans = append(s.spans[:0], s.spans[n:]...)
}

// Close closes this handle, not the log. Closing twice is harmless.
func (s *Stream) Close() error {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.closed = true
	return nil
}
