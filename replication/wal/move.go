package wal

import (
	"errors"
	"fmt"
)

// A stream that keeps a few records and goes quiet would hold its old segment for ever, and with it, since segments
// go oldest first, all that came after. So when the log starts a segment, has grown to more than twice of what its
// streams need, and all streams in the oldest segment need little, their records are said again in the new one: a
// move record, then copies with the same sequence numbers. The move counts when its last copy is there; until then
// the originals are what Replay gives, and they go only after a sync of the copies. Each byte of a copy is paid for
// by bytes of garbage, and a log with one stream never copies, for all it holds behind its oldest segment is needed.

// moveLimit is how many bytes may be moved into a segment.
func moveLimit(seg *segment) int64 { return seg.size / 4 }

var errTooMuch = errors.New("more to move than estimated")

// live estimates the bytes of a span that the stream still needs, by the share of its records.
func (sp span) live(low uint64) int64 {
	if low <= sp.first {
		return sp.bytes
	}
	return int64(float64(sp.bytes) * float64(sp.last+1-low) / float64(sp.last+1-sp.first))
}

func (s *stream) live() (bytes int64) {
	for _, sp := range s.spans {
		bytes += sp.live(s.low)
	}
	return bytes
}

// move is one stream's records to say again.
type move struct {
	s     *stream
	r     replayer
	parts []part
}

// moveQuiet moves the streams that hold the oldest segment into the head, which is new and empty. Only the leader
// calls it, without mu.
func (l *Log) moveQuiet() error {
	l.mu.Lock()
	moves := l.quiet()
	if len(moves) == 0 {
		l.mu.Unlock()
		return nil
	}
	l.reading++ // no segment goes
	l.mu.Unlock()
	b, err := l.copies(moves)
	if err == nil {
		err = l.put(b)
	}
	if err == nil {
		err = l.syncHead() // also where appends are not: the originals go
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reading--
	l.idle.Broadcast()
	if errors.Is(err, errTooMuch) {
		return nil
	}
	if err != nil {
		return err
	}
	l.head.seg.end = l.head.off
	for _, m := range moves {
		l.accountMove(m)
	}
	return l.removeUnneeded()
}

// accountMove notes where a stream stands now, mu held.
func (l *Log) accountMove(m move) {
	s, low := m.s, m.s.low // Keep may have let go more meanwhile
	count := m.r.end - m.r.next
	var bytes int64
	for _, sp := range s.spans {
		bytes += sp.live(m.r.next)
	}
	s.moved(l.head.seg, moving{m.r.next, count}, bytes)
	s.named = l.head.seg.number
	s.savedLow = max(s.savedLow, s.low)
	s.low = max(s.low, low)
	s.release()
	l.metrics.Moved += count
	l.cfg.Logger.Info("wal: moved a quiet stream", "stream", s.name, "records", count)
}

// quiet picks the streams to move, mu held: all that need the oldest segment, or none.
func (l *Log) quiet() (moves []move) {
	disk, live := l.sizes()
	if disk <= 2*(live+l.cfg.SegmentSize) {
		return nil
	}
	var bytes int64
	for _, s := range l.streams {
		if len(s.spans) == 0 || s.spans[0].seg != l.segments[0] {
			continue
		}
		if bytes += s.live(); bytes > moveLimit(l.head.seg) {
			return nil
		}
		m := move{s: s, r: replayer{name: s.name, next: s.low}}
		m.parts, m.r.end = s.parts()
		m.r.next = max(m.r.next, s.spans[0].first)
		moves = append(moves, m)
	}
	return moves
}

// copies reads the records of the moves into a batch, with all the names it needs.
func (l *Log) copies(moves []move) (*batch, error) {
	b := newBatch(0)
	for _, m := range moves {
		r, id := m.r, m.s.id
		b.buf = appendNote(b.buf, kindName, id, naming{r.end, r.next, m.s.name}.append)
		b.buf = appendNote(b.buf, kindMove, id, moving{r.next, r.end - r.next}.append)
		r.f = func(record []byte) error {
			b.buf = append(startRecord(b.buf, kindCopy, id, len(record)), record...)
			if int64(len(b.buf)) > 2*moveLimit(l.head.seg) {
				return errTooMuch
			}
			return nil
		}
		if err := r.run(l, m.parts); err != nil {
			return nil, fmt.Errorf("move of stream %q: %w", m.s.name, err)
		}
	}
	return b, nil
}
