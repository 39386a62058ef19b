package mvcc

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/txn"
)

// A journal's record begins with the format byte and its kind. Records need no order but that a decision follows its
// promise: of two values of a key the one with the later time counts, so that a checkpoint may be written beside
// commits, and replaying more than it needs changes nothing.
const (
	format = 1

	kindCommit   = 1 // time, writes
	kindPrepared = 2 // id, writes, keys read, ranges read
	kindDecided  = 3 // id, time; 0 is an abort
	kindState    = 4 // of a checkpoint: key, time, value
)

// logged is a record on its way to the journal.
type logged struct {
	record []byte // nil only waits
	time   uint64 // becomes visible with it; 0 if nothing does
	err    error  // written before done is closed
	done   chan struct{}
}

// wait returns when the record is durable. A nil logged is: there is no journal.
func (l *logged) wait(ctx context.Context) error {
	if l == nil {
		return nil
	}
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
		return fmt.Errorf("mvcc: %w: %w", coterie.ErrUnknownOutcome, ctx.Err())
	}
}

// enqueue hands a record to the journal's goroutine. The caller holds mu, so that the order is that of commit times.
func (s *Store) enqueue(record []byte, time uint64) *logged {
	l := &logged{record: record, time: time, done: make(chan struct{})}
	s.queue = append(s.queue, l)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return l
}

// log is the journal's goroutine: all that waits goes in with one sync, and is seen after it.
func (s *Store) log() {
	defer close(s.ended)
	for range s.wake {
		for s.flush() {
		}
		s.mu.Lock()
		closing, due := s.closing, s.appended > max(s.cfg.CheckpointBytes, 2*s.live)
		s.mu.Unlock()
		if closing {
			for s.flush() {
			}
			return
		}
		if due {
			s.checkpoint()
		}
	}
}

// flush appends what waits, false if nothing does.
func (s *Store) flush() bool {
	s.mu.Lock()
	queue, failure := s.queue, s.failure
	s.queue = nil
	s.mu.Unlock()
	if len(queue) == 0 {
		return false
	}
	records := make([][]byte, 0, len(queue))
	for _, l := range queue {
		if l.record != nil {
			records = append(records, l.record)
		}
	}
	err := failure
	if errors.Is(failure, coterie.ErrClosed) { // what was accepted before Close is still written
		err = nil
	}
	if err == nil && len(records) > 0 {
		err = s.append(records)
	}
	for _, l := range queue {
		if l.err = err; err == nil && l.time > 0 {
			s.visible.Store(l.time)
		}
	}
	for _, l := range queue {
		close(l.done)
	}
	return true
}

// append makes records durable; an error is the end of the store.
func (s *Store) append(records [][]byte) error {
	size := 0
	for _, r := range records {
		size += len(r)
	}
	err := s.cfg.Journal.Append(records...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.appended += size
	s.kept += len(records)
	if err != nil {
		err = fmt.Errorf("mvcc: journal: %w", err)
		s.failure = err
	}
	return err
}

// checkpoint writes the state anew, what is prepared first, and lets go of what came before. Commits go on between its
// records.
func (s *Store) checkpoint() {
	tx := s.Begin()
	defer tx.drop()
	s.mu.Lock()
	s.appended, s.kept = 0, 0
	for _, p := range s.known {
		if p.state == statePrepared {
			s.enqueue(encodePrepared(p), 0)
		}
	}
	s.mu.Unlock()
	s.flush()
	const size = 256 << 10
	var chunk []byte
	for r := s.index.first.next[0].Load(); r != nil; r = r.next[0].Load() {
		v := r.at(tx.snapshot)
		if v == nil {
			continue
		}
		if chunk == nil {
			chunk = append(make([]byte, 0, size+len(r.key)+len(v.value)+32), format, kindState)
		}
		chunk = wire.AppendString(chunk, r.key)
		chunk = wire.AppendUvarint(chunk, v.time)
		chunk = wire.AppendBytes(chunk, v.value)
		if len(chunk) >= size {
			if s.append([][]byte{chunk}) != nil {
				return
			}
			chunk = nil
			s.flush()
		}
	}
	if chunk != nil && s.append([][]byte{chunk}) != nil {
		return
	}
	s.mu.Lock()
	kept := s.kept
	s.mu.Unlock()
	if kept == 0 {
		return
	}
	if err := s.cfg.Journal.Keep(kept); err != nil {
		s.mu.Lock()
		s.failure = fmt.Errorf("mvcc: journal: %w", err)
		s.mu.Unlock()
	}
}

func appendWrites(b []byte, writes map[string]write) []byte {
	b = wire.AppendUvarint(b, uint64(len(writes)))
	for key, w := range writes {
		b = wire.AppendString(b, key)
		if b = wire.AppendBool(b, w.deleted); !w.deleted {
			b = wire.AppendBytes(b, w.value)
		}
	}
	return b
}

func encodeCommit(time uint64, writes map[string]write) []byte {
	b := []byte{format, kindCommit}
	b = wire.AppendUvarint(b, time)
	return appendWrites(b, writes)
}

func encodePrepared(tx *Tx) []byte {
	b := []byte{format, kindPrepared}
	b = wire.AppendString(b, tx.id)
	b = appendWrites(b, tx.writes)
	b = wire.AppendUvarint(b, uint64(len(tx.reads)))
	for r := range tx.reads {
		b = wire.AppendString(b, r.key)
	}
	b = wire.AppendUvarint(b, uint64(len(tx.ranges)))
	for _, span := range tx.ranges {
		b = wire.AppendString(b, span.from)
		b = wire.AppendString(b, span.to)
		b = wire.AppendBool(b, span.open)
	}
	return b
}

func encodeDecided(id txn.ID, time uint64) []byte {
	b := []byte{format, kindDecided}
	b = wire.AppendString(b, id)
	return wire.AppendUvarint(b, time)
}

func readWrites(r *wire.Reader) map[string]write {
	n := r.Count(2)
	writes := make(map[string]write, n)
	for range n {
		key := r.String()
		w := write{deleted: r.Bool()}
		if !w.deleted {
			w.value = r.Bytes()
		}
		if _, twice := writes[key]; twice {
			r.Fail("key %q twice", key)
		}
		if r.Err() != nil {
			return nil
		}
		writes[key] = w
	}
	return writes
}

// replay takes back one record. It is decoded wholly before anything changes.
func (s *Store) replay(record []byte) error {
	r := wire.NewReader(record)
	if f := r.Byte(); f > format {
		return &coterie.FormatError{What: "mvcc record", Got: f, Max: format}
	} else if f != format {
		r.Fail("format %d", f)
	}
	s.appended += len(record)
	switch kind := r.Byte(); kind {
	case kindCommit:
		return s.replayCommit(&r)
	case kindPrepared:
		return s.replayPrepared(&r)
	case kindDecided:
		return s.replayDecided(&r)
	case kindState:
		return s.replayState(&r)
	default:
		r.Fail("kind %d", kind)
	}
	return r.Done()
}

func (s *Store) replayCommit(r *wire.Reader) error {
	time := r.Uvarint()
	writes := readWrites(r)
	if err := r.Done(); err != nil {
		return err
	}
	s.replayWrites(time, writes)
	return nil
}

func (s *Store) replayWrites(time uint64, writes map[string]write) {
	s.last = max(s.last, time)
	for key, w := range writes {
		if old := s.index.insert(key).head.Load(); old == nil || old.time < time {
			s.put(key, &version{time: time, value: w.value, deleted: w.deleted}, math.MaxUint64)
		}
	}
}

func (s *Store) replayState(r *wire.Reader) error {
	type item struct {
		key   string
		time  uint64
		value []byte
	}
	var items []item
	for r.Len() > 0 {
		items = append(items, item{r.String(), r.Uvarint(), r.Bytes()})
	}
	if err := r.Done(); err != nil {
		return err
	}
	for _, i := range items {
		s.replayWrites(i.time, map[string]write{i.key: {value: i.value}})
	}
	return nil
}

func (s *Store) replayPrepared(r *wire.Reader) error {
	tx := &Tx{store: s, id: txn.ID(r.String()), reads: make(map[*record]struct{})}
	tx.writes = readWrites(r)
	reads := make([]string, r.Count(1))
	for i := range reads {
		reads[i] = r.String()
	}
	tx.ranges = make([]span, r.Count(3))
	for i := range tx.ranges {
		tx.ranges[i] = span{from: r.String(), to: r.String(), open: r.Bool()}
	}
	if tx.id == "" {
		r.Fail("prepared without an id")
	}
	if err := r.Done(); err != nil {
		return err
	}
	if s.known[tx.id] != nil { // said again by a checkpoint
		return nil
	}
	foot := &footprint{commit: math.MaxUint64, ranges: tx.ranges}
	for key := range tx.writes {
		foot.writes = append(foot.writes, key)
	}
	if s.cfg.Level == Snapshot {
		foot = nil
	}
	for _, key := range reads {
		tx.reads[s.index.insert(key)] = struct{}{}
	}
	s.promise(tx, foot)
	s.known[tx.id] = tx
	return nil
}

func (s *Store) replayDecided(r *wire.Reader) error {
	id, time := txn.ID(r.String()), r.Uvarint()
	if err := r.Done(); err != nil {
		return err
	}
	tx := s.known[id]
	if tx == nil { // prepared before what the journal kept
		return nil
	}
	if time > 0 {
		s.replayWrites(time, tx.writes)
	} else if tx.foot != nil {
		tx.foot.commit, tx.foot.writes, tx.foot.ranges = 0, nil, nil
	}
	s.release(tx)
	return nil
}
