package wal

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/replication/wal/internal/vfs"
)

// Config says where a log is and whose. Only Dir is required.
type Config struct {
	Dir   string         // required; the folder, made if it is not there; nothing else may live in it
	Owner coterie.NodeID // the node whose memory this is, at most 255 bytes; Open refuses another node's log

	// SegmentSize is the size of a full segment in bytes, reserved on the disk at once; default 64 MiB, at least 4 KiB.
	// The first segments of a log are smaller, from 1 MiB on, each twice the one before.
	SegmentSize int64

	// NoSync leaves syncs to the operating system, but for one at the end of each segment and at Close. What Append
	// has returned then survives the end of the process, not that of the machine, which may also take what Keep let go
	// for it: only for what can be made again.
	NoSync bool

	// Logger hears of a torn tail that was cut at Open and of streams that were moved; nil is silent.
	Logger *slog.Logger

	fs vfs.FS // nil is the operating system's
}

const (
	defaultSegmentSize = 64 << 20
	firstSegmentSize   = 1 << 20
	minSegmentSize     = 4 << 10
)

func (c Config) withDefaults() Config {
	if c.SegmentSize == 0 {
		c.SegmentSize = defaultSegmentSize
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.fs == nil {
		c.fs = vfs.OS{}
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("wal: Config.Dir is empty"))
	}
	if len(c.Owner) > maxOwner {
		errs = append(errs, fmt.Errorf("wal: Config.Owner has %d bytes; at most %d", len(c.Owner), maxOwner))
	}
	if c.SegmentSize != 0 && c.SegmentSize < minSegmentSize {
		errs = append(errs, fmt.Errorf("wal: Config.SegmentSize is %d; at least %d", c.SegmentSize, minSegmentSize))
	}
	return errors.Join(errs...)
}

// Log is a log in a folder, and itself the coterie.Journal of its default stream, the one with the empty name. Every
// method is safe for concurrent use: appends made at the same time, through any of its streams, share one sync.
//
// Invariants, held while mu is free:
//   - segments have numbers that count up by one, and only the last is written to;
//   - each segment but the last is durable up to the next one's prevEnd;
//   - at most one goroutine, the leader, has busy and with it the head: it writes one batch at a time, in order;
//   - a record acknowledged stands in the segments from its stream's first span on.
type Log struct {
	cfg  Config
	fs   vfs.FS
	lock io.Closer
	root *Stream

	mu        sync.Mutex   // guards all below
	idle      sync.Cond    // hears of the end of busy, removing and reading
	turn      [2]sync.Cond // waiting for a batch, by its number's parity: a batch wakes its own appenders only
	err       error        // what poisoned the log
	closed    bool
	busy      bool   // a leader writes
	reading   int    // Replays under way: no segment may go
	removing  bool   // a goroutine removes segments
	pending   *batch // gathers what comes while the leader writes
	spare     *batch
	done      uint64 // number of the newest batch written
	streams   map[string]*stream
	lastID    uint32
	segments  []*segment // oldest first
	metrics   Metrics
	recovered Recovery

	syncs atomic.Uint64
	head  head // the leader's, or mu's while nobody is busy
}

var _ coterie.Journal = (*Log)(nil)

// segment is one file of the log.
type segment struct {
	header
	path string
	end  int64 // records written and acknowledged end here
	refs int   // streams that need it
}

// head is the file being written.
type head struct {
	seg     *segment
	f       vfs.File
	off     int64  // next byte to write
	chain   uint32 // crc of the last record
	durable bool   // all before off is synced
	marked  bool   // the last record is a mark
}

// stream is the state of one stream; a Stream is a handle on it.
type stream struct {
	id       uint32
	name     string
	next     uint64 // sequence number of the next record to come, from 1
	low      uint64 // oldest one that Keep has not let go
	savedLow uint64 // low as the log on disk tells it
	named    uint64 // number of the newest segment that has its name in it by this process
	batch    uint64 // number of the batch that touches it, the place in there is touch
	touch    int
	spans    []span // where its records stand, oldest first
}

// span is a stream's part of a segment.
type span struct {
	seg   *segment
	first uint64 // sequence numbers of its oldest and newest record in it
	last  uint64
	bytes int64
}

// Metrics counts what a log has done since Open, and what it holds.
type Metrics struct {
	Records  uint64 // appended
	Bytes    uint64 // of their bodies
	Batches  uint64 // writes; Records / Batches is how many records shared one
	Syncs    uint64 // of segments
	Moved    uint64 // records said again so that an old segment could go
	Removed  uint64 // segments removed
	Segments int    // held now
	DiskSize int64  // bytes of those segments
	LiveSize int64  // about how many of those bytes are of records that a stream still needs
}

// Recovery tells what Open found.
type Recovery struct {
	Segments int
	Records  uint64    // of all streams, also those that Keep had let go but whose segment was still there
	Torn     *TornTail // nil if the log ended cleanly
}

// TornTail is the end of a batch that was being written when the process or the machine stopped: nobody was told
// that it was durable.
type TornTail struct {
	Segment string // path of the file
	Offset  int64  // where the log now ends
}

// Metrics returns the counters.
func (l *Log) Metrics() Metrics {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.metrics
	m.Syncs = l.syncs.Load()
	m.Segments = len(l.segments)
	m.DiskSize, m.LiveSize = l.sizes()
	return m
}

func (l *Log) sizes() (disk, live int64) {
	for i, seg := range l.segments {
		if i == len(l.segments)-1 {
			disk += seg.size
		} else {
			disk += seg.end
		}
	}
	for _, s := range l.streams {
		live += s.live()
	}
	return disk, live
}

// Recovery tells what Open found on the disk.
func (l *Log) Recovery() Recovery { return l.recovered }

// Append makes the records durable in the default stream, in order and all of them or, after a crash, some of the
// first; they are on return. The records are copied. An error is final (ErrPoisoned), but for one about the records
// themselves or ErrClosed, when nothing was written.
func (l *Log) Append(records ...[]byte) error { return l.root.Append(records...) }

// Replay calls f with each record of the default stream, oldest first; see Stream.Replay.
func (l *Log) Replay(f func(record []byte) error) error { return l.root.Replay(f) }

// Keep allows all but the newest records of the default stream to be forgotten; see Stream.Keep.
func (l *Log) Keep(newest int) error { return l.root.Keep(newest) }

// usable returns why nothing can be done, mu held.
func (l *Log) usable() error {
	if l.closed {
		return fmt.Errorf("wal: %s: %w", l.cfg.Dir, coterie.ErrClosed)
	}
	return l.err
}

// poison stops the log for good and tells all who wait, mu held.
func (l *Log) poison(err error) {
	if l.err == nil {
		l.err = fmt.Errorf("%w: %w", ErrPoisoned, err)
	}
	l.turn[0].Broadcast()
	l.turn[1].Broadcast()
}

// Close writes what is being appended, marks the end so that damage to any record before it is told from a torn
// tail, and releases the folder. Later calls of any stream's methods return coterie.ErrClosed. Closing twice is
// harmless.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	for l.busy || l.removing || l.reading > 0 || (l.err == nil && len(l.pending.touched) > 0) {
		l.idle.Wait()
	}
	err := l.err
	if err == nil {
		l.busy = true
		l.mu.Unlock()
		err = l.seal()
		l.mu.Lock()
		l.busy = false
	} else {
		err = nil // whoever waited for the append that failed has been told
	}
	return errors.Join(err, l.head.f.Close(), l.lock.Close())
}

// seal writes a last mark, and what the disk does not know yet of Keep. Only Close calls it, as the leader.
func (l *Log) seal() error {
	if err := l.syncHead(); err != nil {
		return err
	}
	b := newBatch(0)
	for _, s := range l.streams {
		if s.low > s.savedLow {
			b.touched = append(b.touched, touch{s: s, first: s.next, low: s.low, keep: true})
		}
	}
	if len(b.touched) == 0 && l.head.marked {
		return nil
	}
	if err := l.write(b); err != nil {
		return err
	}
	return l.syncHead()
}
