package wal

import (
	"encoding/binary"

	"github.com/coterie-go/coterie/internal/wire"
)

// batch is what one write and one sync make durable. Its buffer starts with room for a mark, so that the usual batch
// is written from where it was gathered.
type batch struct {
	number  uint64
	buf     []byte
	touched []touch
}

// touch is a stream's part of a batch.
type touch struct {
	s     *stream
	first uint64 // sequence number of its first record in the batch
	low   uint64 // when it was gathered
	count uint64
	bytes int64
	keep  bool // the disk does not know low yet
}

// maxSpareBuffer is the largest buffer that is kept for the next batch.
const maxSpareBuffer = 4 << 20

func newBatch(number uint64) *batch {
	return &batch{number: number, buf: make([]byte, markSize, 4<<10)}
}

// reset makes the batch ready to gather again.
func (b *batch) reset(number uint64) *batch {
	if cap(b.buf) > maxSpareBuffer {
		return newBatch(number)
	}
	clear(b.touched)
	b.number, b.buf, b.touched = number, b.buf[:markSize], b.touched[:0]
	return b
}

// gather puts records into the pending batch, mu held, and returns the batch's number.
func (l *Log) gather(s *stream, records [][]byte) uint64 {
	b := l.pending
	if s.batch != b.number {
		s.batch, s.touch = b.number, len(b.touched)
		b.touched = append(b.touched, touch{s: s, first: s.next, low: s.low, keep: s.low > s.savedLow})
	}
	t := &b.touched[s.touch]
	for _, r := range records {
		b.buf = append(startRecord(b.buf, kindData, s.id, len(r)), r...)
		t.bytes += int64(headSize + len(r))
		l.metrics.Bytes += uint64(len(r))
	}
	t.count += uint64(len(records))
	s.next += uint64(len(records))
	l.metrics.Records += uint64(len(records))
	return b.number
}

// commit returns when a batch is written, mu held on call and return. The first to find no leader leads, for all who
// have gathered by then; those who come while it writes make the next batch.
func (l *Log) commit(number uint64) error {
	for l.done < number {
		if l.err != nil {
			return l.err
		}
		if l.busy {
			l.turn[number&1].Wait()
			continue
		}
		l.lead()
	}
	return nil
}

// lead writes the pending batch, mu held on call and return.
func (l *Log) lead() {
	b := l.pending
	l.pending, l.spare = l.spare.reset(b.number+1), nil
	l.busy = true
	l.mu.Unlock()
	err := l.write(b)
	l.mu.Lock()
	l.busy = false
	l.spare = b
	if err != nil {
		l.poison(err)
	} else {
		l.account(b)
		l.done = b.number
		l.turn[b.number&1].Broadcast()
		l.turn[l.pending.number&1].Signal()
	}
	l.idle.Broadcast()
}

// account notes where the batch's records stand, mu held.
func (l *Log) account(b *batch) {
	seg := l.head.seg
	seg.end = l.head.off
	for i := range b.touched {
		t := &b.touched[i]
		t.s.wrote(seg, t.first, t.first+t.count-1, t.bytes)
		t.s.savedLow = max(t.s.savedLow, t.low)
	}
	l.metrics.Batches++
}

// wrote notes that the records with these sequence numbers stand in the segment.
func (s *stream) wrote(seg *segment, first, last uint64, bytes int64) {
	if n := len(s.spans); n == 0 || s.spans[n-1].seg != seg {
		s.spans = append(s.spans, span{seg: seg, first: first})
		seg.refs++
	}
	sp := &s.spans[len(s.spans)-1]
	sp.last = last
	sp.bytes += bytes
}

// write puts a batch behind the head's records and syncs it, in a new segment if this one is full. Only the leader
// calls it, without mu.
func (l *Log) write(b *batch) error {
	for rolled := false; ; rolled = true {
		need := int64(len(b.buf) + len(l.notes(b)))
		if l.head.off+need <= l.head.seg.size {
			break
		}
		if err := l.roll(need + maxNotes(b)); err != nil {
			return err
		}
		if rolled {
			continue // what was moved took the room
		}
		if err := l.moveQuiet(); err != nil {
			return err
		}
	}
	if err := l.put(b); err != nil {
		return err
	}
	for i := range b.touched {
		b.touched[i].s.named = l.head.seg.number
	}
	if l.cfg.NoSync {
		return nil
	}
	return l.syncHead()
}

// put writes a batch into the head. It starts with a mark if all before it is durable.
func (l *Log) put(b *batch) error {
	out := b.buf
	if notes := l.notes(b); len(notes) > 0 {
		out = append(make([]byte, markSize, len(b.buf)+len(notes)), notes...)
		out = append(out, b.buf[markSize:]...)
	}
	h := &l.head
	if h.durable {
		h.chain = seal(out[markSize:], putMark(out, h.seg.salt, h.off))
	} else {
		out = out[markSize:]
		h.chain = seal(out, h.chain)
	}
	if _, err := h.f.WriteAt(out, h.off); err != nil {
		return err
	}
	h.off += int64(len(out))
	h.marked, h.durable = len(out) == markSize, false
	return nil
}

// notes are the records that must stand before a batch's own: the names of streams new to the segment, and what the
// disk does not know yet of their Keep.
func (l *Log) notes(b *batch) []byte {
	var notes []byte
	for i := range b.touched {
		t := &b.touched[i]
		switch {
		case t.s.named != l.head.seg.number:
			notes = appendNote(notes, kindName, t.s.id, naming{t.first, t.low, t.s.name}.append)
		case t.keep:
			notes = appendNote(notes, kindKeep, t.s.id, func(b []byte) []byte { return wire.AppendUvarint(b, t.low) })
		}
	}
	return notes
}

// maxNotes bounds the bytes of notes of a batch.
func maxNotes(b *batch) int64 {
	return int64(len(b.touched)) * (headSize + 2*binary.MaxVarintLen64 + maxName)
}

// appendNote appends a record whose body is appended by a function.
func appendNote(b []byte, kind byte, stream uint32, body func([]byte) []byte) []byte {
	at := len(b)
	b = body(startRecord(b, kind, stream, 0))
	binary.LittleEndian.PutUint32(b[at+4:], uint32(len(b)-at-headSize))
	return b
}

// syncHead makes the head durable. Only the leader calls it.
func (l *Log) syncHead() error {
	if l.head.durable {
		return nil
	}
	if err := l.head.f.Sync(); err != nil {
		return err
	}
	l.head.durable = true
	l.syncs.Add(1)
	return nil
}
