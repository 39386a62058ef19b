package consensus

import (
	"fmt"

	"github.com/coterie-go/coterie"
)

// desk holds what waits for an answer, W being who waits, and gathers the next batch: what has been asked since the
// last one was handed to the core. It is the driver's and the simulator's, and as deterministic as its calls.
//
// Invariant: the id of a pending proposal is found in slots[id mod len(slots)].
type desk[W any] struct {
	maxCount int
	maxBytes int

	slots  []slot[W] // a power of two, at most half of it used
	lastID uint64
	handed uint64 // the ids up to this one have been handed to the core
	count  int    // of proposals and reads that wait
	bytes  int    // of them

	batch batch[W]
	reads map[uint64][]read[W] // by the id of the core's read that serves them
}

type slot[W any] struct {
	id      uint64 // 0 if free
	bytes   int
	waiting bool // false once nobody waits any more
	who     W
}

// batch is what the core is asked at one time. Its envelopes stand in one buffer, which is theirs for ever.
type batch[W any] struct {
	buf       []byte
	proposals []proposal
	reads     []read[W]
	readID    uint64
}

type proposal struct {
	id         uint64
	begin, end int // of the envelope in buf
}

type read[W any] struct {
	who   W
	query []byte
}

func newDesk[W any](maxCount, maxBytes int) *desk[W] {
	return &desk[W]{
		maxCount: maxCount,
		maxBytes: maxBytes,
		slots:    make([]slot[W], 64),
		reads:    make(map[uint64][]read[W]),
	}
}

// room reports whether one more that brings so many bytes may wait. One alone always may.
func (d *desk[W]) room(n int) error {
	if d.count > 0 && (d.count >= d.maxCount || d.bytes+n > d.maxBytes) {
		return fmt.Errorf("%w: %d proposals and reads of %d bytes wait", coterie.ErrOverloaded, d.count, d.bytes)
	}
	return nil
}

// empty reports whether nothing has been asked since the last take.
func (d *desk[W]) empty() bool { return len(d.batch.proposals) == 0 && len(d.batch.reads) == 0 }

// onlyReads reports whether there is nothing but reads to take.
func (d *desk[W]) onlyReads() bool { return len(d.batch.proposals) == 0 && len(d.batch.reads) > 0 }

// propose adds a proposal to the batch.
func (d *desk[W]) propose(e *envelope, who W) (id uint64) {
	id = d.newID()
	begin := len(d.batch.buf)
	d.batch.buf = e.append(d.batch.buf)
	n := len(d.batch.buf) - begin
	*d.slot(id) = slot[W]{id: id, bytes: n, waiting: true, who: who}
	d.count++
	d.bytes += n
	d.batch.proposals = append(d.batch.proposals, proposal{id, begin, len(d.batch.buf)})
	return id
}

// read adds a query to the batch.
func (d *desk[W]) read(query []byte, who W) {
	begin := len(d.batch.buf)
	d.batch.buf = append(d.batch.buf, query...)
	d.count++
	d.bytes += len(query)
	d.batch.reads = append(d.batch.reads, read[W]{who, d.batch.buf[begin:len(d.batch.buf):len(d.batch.buf)]})
}

// take stamps the batch and starts the next one, with the slices of a batch that is done with.
func (d *desk[W]) take(stamp int64, done batch[W]) batch[W] {
	taken := d.batch
	clear(done.proposals)
	// A buffer of the last one's size saves its growth, unless that was a burst.
	d.batch = batch[W]{buf: make([]byte, 0, min(len(taken.buf), maxBufferHint)), proposals: done.proposals[:0]}
	kept := taken.proposals[:0]
	for _, p := range taken.proposals {
		s := d.slot(p.id)
		if !s.waiting {
			d.free(s) // withdrawn before it was handed over
			continue
		}
		setStamp(taken.buf[p.begin:p.end], stamp)
		kept = append(kept, p)
	}
	taken.proposals = kept
	if len(taken.reads) > 0 {
		taken.readID = d.newID()
		d.reads[taken.readID] = taken.reads
	}
	d.handed = d.lastID
	return taken
}

const maxBufferHint = 64 << 10

// answered takes out whoever waits for the proposal; false if nobody does.
func (d *desk[W]) answered(id uint64) (who W, ok bool) {
	s := d.slot(id)
	if s.id != id || id == 0 {
		return who, false
	}
	who, ok = s.who, s.waiting
	d.free(s)
	return who, ok
}

// forsake tells that nobody waits for the proposal any more; false if it has been answered. A proposal that was not
// handed to the core yet never will be.
func (d *desk[W]) forsake(id uint64) (waited, handed bool) {
	s := d.slot(id)
	if s.id != id || !s.waiting {
		return false, true
	}
	var none W
	s.who, s.waiting = none, false
	return true, id <= d.handed
}

// answeredRead takes out the reads that the core's read serves.
func (d *desk[W]) answeredRead(id uint64) []read[W] {
	reads := d.reads[id]
	delete(d.reads, id)
	d.release(reads)
	return reads
}

func (d *desk[W]) release(reads []read[W]) {
	d.count -= len(reads)
	for i := range reads {
		d.bytes -= len(reads[i].query)
	}
}

// clear takes out everyone who waits.
func (d *desk[W]) clear(proposer func(who W, handed bool), reader func(who W)) {
	for i := range d.slots {
		if s := &d.slots[i]; s.id != 0 {
			if s.waiting {
				proposer(s.who, s.id <= d.handed)
			}
			d.free(s)
		}
	}
	for _, r := range d.batch.reads {
		reader(r.who)
	}
	d.release(d.batch.reads)
	for id := range d.reads {
		for _, r := range d.answeredRead(id) {
			reader(r.who)
		}
	}
	d.batch = batch[W]{}
}

func (d *desk[W]) free(s *slot[W]) {
	d.count--
	d.bytes -= s.bytes
	*s = slot[W]{}
}

func (d *desk[W]) slot(id uint64) *slot[W] { return &d.slots[id&uint64(len(d.slots)-1)] }

// newID returns the next id whose slot is free.
func (d *desk[W]) newID() uint64 {
	if 2*d.count >= len(d.slots) {
		d.grow()
	}
	for {
		d.lastID++
		if d.slot(d.lastID).id == 0 {
			return d.lastID
		}
	}
}

func (d *desk[W]) grow() {
	old := d.slots
	d.slots = make([]slot[W], 2*len(old))
	for i := range old {
		if id := old[i].id; id != 0 {
			*d.slot(id) = old[i]
		}
	}
}
