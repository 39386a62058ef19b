package wal

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coterie-go/coterie/replication/wal/internal/vfs"
)

const lockName = "LOCK"

// Open opens the log in Config.Dir, or starts one. It reads all of it and checks every byte that was acknowledged.
// A torn tail is cut: Recovery tells of it. What it found is durable when it returns, whatever the process before may
// have failed to sync.
//
// Errors: ErrLocked; *OwnerError for another node's log; *CorruptionError for damage; *coterie.FormatError for a log
// that a newer version wrote; and those of the file system. None changes anything that was in the log.
func Open(cfg Config) (*Log, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if err := cfg.fs.MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	lock, err := cfg.fs.Lock(filepath.Join(cfg.Dir, lockName))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, fmt.Errorf("%w: %s", ErrLocked, cfg.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	l := &Log{cfg: cfg, fs: cfg.fs, lock: lock, pending: newBatch(1), spare: newBatch(0), streams: map[string]*stream{}}
	l.idle.L, l.turn[0].L, l.turn[1].L = &l.mu, &l.mu, &l.mu
	if err := l.recover(); err != nil {
		if l.head.f != nil {
			err = errors.Join(err, l.head.f.Close())
		}
		return nil, errors.Join(err, lock.Close())
	}
	l.root = l.Stream("")
	return l, nil
}

// recover reads the folder and makes the head ready. Nobody else knows the log yet, so no lock is needed.
func (l *Log) recover() error {
	segments, err := l.listSegments()
	if err != nil {
		return err
	}
	if len(segments) == 0 {
		h, err := l.newHead(header{number: 1, size: min(firstSegmentSize, l.cfg.SegmentSize)})
		if err != nil {
			return fmt.Errorf("wal: %w", err)
		}
		l.install(h)
		return nil
	}
	for i, seg := range segments[:len(segments)-1] {
		if err := l.scanFull(seg, segments[i+1]); err != nil {
			return err
		}
	}
	if err := l.scanHead(segments[len(segments)-1]); err != nil {
		return err
	}
	l.recovered.Segments = len(segments)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.streams {
		s.savedLow = s.low
		s.release()
	}
	return l.removeUnneeded()
}

// listSegments sweeps leftovers away, reads all headers and checks that they belong together.
func (l *Log) listSegments() ([]*segment, error) {
	names, err := l.fs.List(l.cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	var numbers []uint64
	for _, name := range names {
		if number, ok := segmentNumber(name); ok {
			numbers = append(numbers, number)
		}
		if _, ok := segmentNumber(strings.TrimSuffix(name, tmpSufx)); ok && strings.HasSuffix(name, tmpSufx) {
			if err := l.fs.Remove(filepath.Join(l.cfg.Dir, name)); err != nil {
				return nil, fmt.Errorf("wal: %w", err)
			}
		}
	}
	// The names seen may be in memory only, if the process before died between a rename and its sync.
	if err := l.fs.SyncDir(l.cfg.Dir); err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	slices.Sort(numbers)
	segments := make([]*segment, len(numbers))
	for i := len(numbers) - 1; i >= 0; i-- { // newest first, so that another node's log is told before any damage to it
		if segments[i], err = l.readHeader(numbers[i]); err != nil {
			return nil, err
		}
	}
	for i := 1; i < len(segments); i++ {
		prev, seg := segments[i-1], segments[i]
		switch {
		case seg.number != prev.number+1:
			return nil, &CorruptionError{Segment: l.path(prev.number + 1), Reason: "the segment is missing"}
		case seg.prevSalt != prev.salt || seg.prevEnd < headerSize || seg.prevEnd > prev.size:
			return nil, &CorruptionError{Segment: seg.path, Reason: "the segment does not follow the one before"}
		}
	}
	return segments, nil
}

func (l *Log) readHeader(number uint64) (*segment, error) {
	path := l.path(number)
	f, err := l.fs.Open(path)
	if err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	b := make([]byte, headerSize)
	err = readFull(f, b, 0)
	if err := errors.Join(corrupt(path, err), f.Close()); err != nil {
		return nil, err
	}
	h, err := decodeHeader(b)
	if err != nil {
		return nil, headerError(path, err)
	}
	if h.number != number {
		return nil, &CorruptionError{Segment: path, Reason: fmt.Sprintf("the header is of segment %d", h.number)}
	}
	if h.owner != l.cfg.Owner {
		return nil, &OwnerError{Dir: l.cfg.Dir, Owner: h.owner, Want: l.cfg.Owner}
	}
	return &segment{header: h, path: path}, nil
}

// scanFull reads a segment that has a next one, which tells where it ends.
func (l *Log) scanFull(seg, next *segment) error {
	seg.end = next.prevEnd
	f, err := l.fs.Open(seg.path)
	if err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	s := scanner{log: l, seg: seg, r: newReader(f, seg.salt, seg.end, false)}
	err = s.run()
	if err == nil && s.r.off != seg.end {
		err = &recordError{s.r.off, fmt.Sprintf("zeros where records up to %d were durable", seg.end)}
	}
	l.segments = append(l.segments, seg)
	return errors.Join(corrupt(seg.path, err), f.Close())
}

// scanHead reads the last segment and makes it the head. Its records end at zeros, or where the last batch was torn.
func (l *Log) scanHead(seg *segment) error {
	f, err := l.fs.Open(seg.path)
	if err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	l.head.f = f
	size, err := f.Size()
	if err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	if size < seg.size {
		return &CorruptionError{seg.path, size, fmt.Sprintf("the file was cut: it had %d bytes before it was used", seg.size)}
	}
	s := scanner{log: l, seg: seg, r: newReader(f, seg.salt, seg.size, false)}
	var bad *recordError
	if err := s.run(); err != nil && (!errors.As(err, &bad) || s.meaning) {
		return corrupt(seg.path, err)
	}
	seg.end = s.r.off
	clean, mark, err := remains(f, seg.salt, seg.end, seg.size)
	if err != nil {
		return corrupt(seg.path, err)
	}
	if mark > 0 {
		reason := "zeros"
		if bad != nil {
			reason = bad.reason
		}
		return &CorruptionError{seg.path, seg.end, fmt.Sprintf("%s, but it was durable before the mark at %d was written", reason, mark)}
	}
	if err := settle(f, s.settled, seg.end); err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	l.segments = append(l.segments, seg)
	l.head = head{seg: seg, f: f, off: seg.end, chain: s.r.chain, durable: true, marked: s.marked}
	if clean {
		return nil
	}
	l.recovered.Torn = &TornTail{Segment: seg.path, Offset: seg.end}
	l.cfg.Logger.Warn("wal: cut a torn tail", "segment", seg.path, "offset", seg.end)
	// What lies behind stays there, unread for ever: the next segment says where this one ends.
	if err := l.roll(0); err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	return nil
}

// settle makes the last batch durable. It may stand in the system's cache only, and after a failed sync no other
// sync would write it, since the system took it for written (the "fsyncgate" of 2018); so it is written again.
func settle(f vfs.File, from, to int64) error {
	buf := make([]byte, min(windowSize, to-from))
	for from < to {
		b := buf[:min(int64(len(buf)), to-from)]
		if err := readFull(f, b, from); err != nil {
			return err
		}
		if _, err := f.WriteAt(b, from); err != nil {
			return err
		}
		from += int64(len(b))
	}
	return f.Sync()
}

// scanner takes the records of one segment into the state of their streams.
type scanner struct {
	log     *Log
	seg     *segment
	r       *reader
	byID    map[uint32]*scanned
	settled int64 // all before was durable when the process before wrote its last batch
	marked  bool  // the last record is a mark
	meaning bool  // the record is sound, but what it says cannot be
}

// scanned is what a stream number means in a segment.
type scanned struct {
	s    *stream
	move moving // copies still to come, and the first of all
	left uint64
	size int64
}

// run reads to the end; the error is a *recordError or the file's.
func (s *scanner) run() error {
	s.byID, s.settled = map[uint32]*scanned{}, headerSize
	for {
		rec, err := s.r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if s.marked = rec.kind == kindMark; s.marked {
			s.settled = rec.offset
			continue
		}
		if err := s.take(rec); err != nil {
			s.meaning = true
			return &recordError{rec.offset, err.Error()}
		}
	}
}

func (s *scanner) take(rec record) error {
	if rec.kind == kindName {
		return s.name(rec)
	}
	sc := s.byID[rec.stream]
	if sc == nil {
		return fmt.Errorf("record of stream %d, which has no name", rec.stream)
	}
	st := sc.s
	switch rec.kind {
	case kindData:
		s.log.recovered.Records++
		st.wrote(s.seg, st.next, st.next, int64(headSize+len(rec.body)))
		st.next++
	case kindKeep:
		low, err := decodeKeep(rec.body)
		if err != nil || low > st.next {
			return errors.Join(err, fmt.Errorf("keep of stream %q out of order", st.name))
		}
		st.low = max(st.low, low)
	case kindMove:
		m, err := decodeMoving(rec.body)
		if err != nil || m.first+m.count != st.next {
			return errors.Join(err, fmt.Errorf("move of stream %q out of order", st.name))
		}
		sc.move, sc.left, sc.size = m, m.count, 0
	case kindCopy:
		if sc.left == 0 {
			return fmt.Errorf("copy in stream %q without a move", st.name)
		}
		sc.left--
		sc.size += int64(headSize + len(rec.body))
		if sc.left == 0 {
			st.moved(s.seg, sc.move, sc.size)
		}
	}
	return nil
}

// name gives a number its meaning. A stream that is seen for the first time starts here: what was before it is gone,
// or comes again by a move.
func (s *scanner) name(rec record) error {
	n, err := decodeNaming(rec.body)
	if err != nil {
		return err
	}
	_, known := s.log.streams[n.name]
	st := s.log.stream(n.name)
	switch {
	case st == nil:
		return errors.New("too many streams")
	case !known:
		st.next, st.low = n.next, n.next
	case st.next != n.next:
		return fmt.Errorf("stream %q goes on at record %d where %d was to come", n.name, n.next, st.next)
	default:
		st.low = max(st.low, n.low)
	}
	s.byID[rec.stream] = &scanned{s: st}
	return nil
}

// moved notes that all that the stream needs up to the copies stands in the segment.
func (s *stream) moved(seg *segment, m moving, bytes int64) {
	for _, sp := range s.spans {
		sp.seg.refs--
	}
	s.spans = s.spans[:0]
	s.low = m.first
	s.wrote(seg, m.first, m.first+m.count-1, bytes)
}

// corrupt turns a *recordError into what the user sees.
func corrupt(path string, err error) error {
	if bad, ok := errors.AsType[*recordError](err); ok {
		return &CorruptionError{Segment: path, Offset: bad.offset, Reason: bad.reason}
	}
	if err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	return nil
}
