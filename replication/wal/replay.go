package wal

import (
	"errors"
	"fmt"
	"io"
)

// Replay calls f with each record of the stream that was durable when it was called, oldest first, and stops at f's
// first error, which it returns. It holds one piece of 64 KiB of the log in memory, or one record if that is larger;
// a record that f keeps holds its piece. Every record's checksum is tested again (*CorruptionError).
//
// It may also be called after appends, and beside them. f must not close the log.
func (s *Stream) Replay(f func(record []byte) error) error {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	if len(s.s.spans) == 0 {
		return nil
	}
	p := replayer{name: s.s.name, next: s.s.low, f: f}
	var parts []part
	parts, p.end = s.s.parts()
	l.reading++ // no segment goes
	l.mu.Unlock()
	err := p.run(l, parts)
	l.mu.Lock()
	l.reading--
	l.idle.Broadcast()
	if gone := l.removeUnneeded(); err == nil {
		err = gone
	}
	return err
}

// part is what of one segment is to be read.
type part struct {
	path string
	salt uint64
	end  int64
}

// parts lists where the stream's records stand, and the sequence number after the last; log.mu held.
func (s *stream) parts() (parts []part, end uint64) {
	for _, sp := range s.spans {
		parts = append(parts, part{sp.seg.path, sp.seg.salt, sp.seg.end})
		end = sp.last + 1
	}
	return parts, end
}

// replayer picks one stream's records out of segments.
type replayer struct {
	name string
	f    func([]byte) error
	next uint64 // sequence number of the next record for f
	end  uint64 // where to stop

	id   uint32 // the stream's number in this segment; 0 is not named yet
	data uint64 // sequence number of the next data record
	copy uint64 // of the next copy
}

func (p *replayer) run(l *Log, parts []part) error {
	for _, part := range parts {
		file, err := l.fs.Open(part.path)
		if err != nil {
			return fmt.Errorf("wal: %w", err)
		}
		p.id, p.data, p.copy = 0, 0, 0
		err = p.segment(newReader(file, part.salt, part.end, true))
		if _, ok := errors.AsType[*recordError](err); ok {
			err = corrupt(part.path, err)
		}
		if closed := file.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return err // as it is, if it is f's
		}
	}
	if p.next != p.end {
		last := parts[len(parts)-1]
		return &CorruptionError{last.path, last.end, fmt.Sprintf("stream %q ends before record %d", p.name, p.next)}
	}
	return nil
}

func (p *replayer) segment(r *reader) error {
	for p.next < p.end {
		rec, err := r.next()
		if errors.Is(err, io.EOF) {
			if r.off != r.end {
				return &recordError{r.off, "zeros where records were durable"}
			}
			return nil
		}
		if err != nil {
			return err
		}
		if err := p.take(rec); err != nil {
			return err
		}
	}
	return nil
}

func (p *replayer) take(rec record) error {
	switch {
	case rec.kind == kindName:
		n, err := decodeNaming(rec.body)
		if err != nil {
			return &recordError{rec.offset, err.Error()}
		}
		if n.name == p.name {
			p.id, p.data = rec.stream, n.next
		} else if rec.stream == p.id {
			p.id = 0
		}
	case rec.stream != p.id || p.id == 0:
	case rec.kind == kindData:
		p.data++
		return p.give(p.data-1, rec)
	case rec.kind == kindCopy:
		p.copy++
		return p.give(p.copy-1, rec)
	case rec.kind == kindMove:
		m, err := decodeMoving(rec.body)
		if err != nil {
			return &recordError{rec.offset, err.Error()}
		}
		p.copy = m.first
	}
	return nil
}

// give hands a record to f, unless f had it from another place or does not need it.
func (p *replayer) give(number uint64, rec record) error {
	if number < p.next {
		return nil
	}
	if number > p.next {
		return &recordError{rec.offset, fmt.Sprintf("stream %q lacks records from %d up to this, %d", p.name, p.next, number)}
	}
	p.next++
	return p.f(rec.body)
}
