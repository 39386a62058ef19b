package mvcc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/txn"
)

// Errors of transactions. They come wrapped: test with errors.Is.
var (
	// ErrConflict is returned by Commit and Prepare of a transaction that was aborted because another one, concurrent
	// with it, was first. It is a txn.ErrAborted too. Begin anew and try again; Update does.
	ErrConflict = fmt.Errorf("mvcc: conflict: %w", txn.ErrAborted)
	// ErrReadOnly is returned by Put and Delete in a View.
	ErrReadOnly = errors.New("mvcc: transaction is read-only")
	// ErrEnded is returned for the use of a transaction that was committed or aborted.
	ErrEnded = errors.New("mvcc: transaction has ended")
	// ErrPrepared is returned for further work in a prepared transaction.
	ErrPrepared = errors.New("mvcc: transaction is prepared")
)

// Level is how strictly a store keeps transactions apart.
type Level uint8

const (
	// Serializable is serializable snapshot isolation (Cahill, Roehm and Fekete, 2008): as if one transaction ran after
	// another. Reads, also of what was not there and of ranges, are remembered until no concurrent transaction is left.
	Serializable Level = iota
	// Snapshot is snapshot isolation (Berenson et al., 1995): every transaction reads the state as of its begin, and of
	// two that write one key the first to commit wins. It allows write skew.
	Snapshot
)

// Config configures a Store. The zero value is a serializable store in memory.
type Config struct {
	Level Level // default Serializable
	// Journal makes the store durable: Open replays it, and a commit is in it before it is visible or acknowledged. The
	// Store calls it from one goroutine and does not close it. Default nil: in memory.
	Journal coterie.Journal
	// Clock gives commits their timestamps; it may be shared with other stores of the node. Default: one of its own.
	Clock *clock.HLC
	// CheckpointBytes is how much may be appended to the journal, at least, before the store writes its whole state
	// anew and lets go of what came before; more if the state itself is larger. Default 64 MiB.
	CheckpointBytes int
}

// Store is a multi-version key-value store. It is safe for concurrent use; its transactions are used by one goroutine at
// a time each. With a Journal it owns one goroutine, which has ended when Close returns.
type Store struct {
	cfg   Config
	index index

	visible atomic.Uint64 // commits up to this time are seen by those that begin now

	mu       sync.Mutex     // guards what follows, and all changes of the index
	known    map[txn.ID]*Tx // transactions with an ID, open and prepared
	recent   []*footprint   // of serializable transactions that ended, by commit time, while they matter
	deleted  []tombstone    // in the order of their commits
	last     uint64         // the newest commit time given out
	failure  error          // why nothing is accepted any more
	queue    []*logged      // what waits for the journal
	wake     chan struct{}  // one token: the queue is not empty, or the store closes
	closing  bool
	ended    chan struct{} // closed when the journal's goroutine has ended
	appended int           // bytes since the last checkpoint
	kept     int           // records since its begin
	live     int           // bytes of the newest versions, about

	active activeSet

	commits, conflicts, skews atomic.Uint64
}

// tombstone is a deletion whose record can go once everybody sees it.
type tombstone struct {
	record *record
	time   uint64
}

// Open makes a store, and replays its journal if it has one. The error names what cannot be replayed.
func Open(cfg Config) (*Store, error) {
	if cfg.Level > Snapshot {
		return nil, fmt.Errorf("mvcc: Config.Level %d is unknown", cfg.Level)
	}
	if cfg.CheckpointBytes < 0 {
		return nil, errors.New("mvcc: Config.CheckpointBytes is negative")
	}
	if cfg.CheckpointBytes == 0 {
		cfg.CheckpointBytes = 64 << 20
	}
	s := &Store{cfg: cfg, known: make(map[txn.ID]*Tx), wake: make(chan struct{}, 1), ended: make(chan struct{})}
	s.index.init()
	s.active.init()
	if cfg.Journal != nil {
		if err := cfg.Journal.Replay(s.replay); err != nil {
			return nil, fmt.Errorf("mvcc: replay: %w", err)
		}
	}
	if err := s.startClock(); err != nil {
		return nil, err
	}
	s.visible.Store(s.last)
	if cfg.Journal == nil {
		close(s.ended)
		return s, nil
	}
	go s.log()
	return s, nil
}

// startClock makes sure that new timestamps are above all that were replayed.
func (s *Store) startClock() error {
	floor := clock.Timestamp{Time: s.last}
	if s.cfg.Clock == nil {
		c, err := clock.NewHLC(clock.HLCConfig{Floor: floor})
		if err != nil {
			return fmt.Errorf("mvcc: clock: %w", err)
		}
		s.cfg.Clock = c
		return nil
	}
	if s.last == 0 {
		return nil
	}
	if _, err := s.cfg.Clock.Update(floor); err != nil {
		return fmt.Errorf("mvcc: the journal is ahead of Config.Clock: %w", err)
	}
	return nil
}

// Get returns a key's newest committed value, and whether there is one: a transaction of one read. It takes no lock.
// Nobody may change the value.
func (s *Store) Get(key string) ([]byte, bool) {
	r := s.index.find(key)
	if r == nil {
		return nil, false
	}
	for {
		now := s.visible.Load()
		if v := r.at(now); v != nil {
			return v.value, true
		}
		if s.visible.Load() == now { // else what was seen at that time may have been cut off meanwhile
			return nil, false
		}
	}
}

// Update runs f in a transaction and commits it, again from the beginning as long as the error is ErrConflict and ctx
// allows. Another error of f aborts the transaction and is returned. If ctx ends while the commit waits for the journal,
// the error is coterie.ErrUnknownOutcome too.
func (s *Store) Update(ctx context.Context, f func(tx *Tx) error) error {
	return s.try(ctx, false, f)
}

// try runs f in transactions until one does not fail by a conflict.
func (s *Store) try(ctx context.Context, readOnly bool, f func(tx *Tx) error) error {
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		if err := ctx.Err(); err != nil {
			return err
		}
		tx := s.Begin()
		tx.readOnly = readOnly
		err := f(tx)
		if err == nil {
			err = tx.Commit(ctx, tx.id)
		} else {
			tx.drop()
		}
		if !errors.Is(err, ErrConflict) {
			return err
		}
		if err := s.settle(ctx, pause); err != nil {
			return err
		}
	}
}

// The pauses of a transaction that is tried again: its rival may be prepared, and wait for others.
const (
	shortestPause = 10 * time.Microsecond
	longestPause  = 10 * time.Millisecond
)

// settle waits until what has been committed is seen, and for a while if a prepared transaction may be in the way.
func (s *Store) settle(ctx context.Context, pause time.Duration) error {
	s.mu.Lock()
	var l *logged
	if s.visible.Load() < s.last && s.failure == nil {
		l = s.enqueue(nil, 0)
	}
	prepared := len(s.known) > 0
	s.mu.Unlock()
	if l != nil {
		return l.wait(ctx)
	}
	if !prepared {
		return nil
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// View runs f in a read-only transaction. In a Serializable store it runs f again if what f saw fits no serial order, as
// long as ctx allows, so that f must have no other effects than its last run's.
func (s *Store) View(ctx context.Context, f func(tx *Tx) error) error {
	return s.try(ctx, true, f)
}

// Begin starts a transaction, which must be ended by Commit or Abort: until then the store keeps what it can see.
func (s *Store) Begin() *Tx {
	tx := &Tx{store: s}
	s.active.begin(tx, &s.visible)
	return tx
}

// Join returns the transaction under an ID, and begins it at the first call: the work that this store has in a
// transaction across nodes. The error is ErrPrepared once it is prepared.
func (s *Store) Join(id txn.ID) (*Tx, error) {
	if id == "" {
		return nil, errors.New("mvcc: Join without an ID")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return nil, s.failure
	}
	tx := s.known[id]
	if tx == nil {
		tx = &Tx{store: s, id: id}
		s.active.begin(tx, &s.visible)
		s.known[id] = tx
	}
	if tx.state == statePrepared {
		return nil, fmt.Errorf("join %s: %w", id, ErrPrepared)
	}
	return tx, nil
}

// Err tells why the store accepts nothing any more: an error of its journal, or ErrClosed. It is nil while it works.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// Close ends the store once the commits under way are in the journal. Closing twice is harmless.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.failure == nil {
		s.failure = fmt.Errorf("mvcc: %w", coterie.ErrClosed)
	}
	s.closing = true
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	<-s.ended
	if err := s.Err(); !errors.Is(err, coterie.ErrClosed) {
		return err
	}
	return nil
}

// Metrics counts what a Store has done and holds.
type Metrics struct {
	Commits    uint64
	Conflicts  uint64 // transactions aborted because another was first to write a key
	Skews      uint64 // transactions aborted because what they had read would have fit no serial order
	Keys       int    // including deleted ones that somebody may still see
	Active     int    // transactions under way
	Prepared   int
	Remembered int // ended transactions whose reads and writes are still remembered
}

// Metrics returns the counters.
func (s *Store) Metrics() Metrics {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := Metrics{
		Commits: s.commits.Load(), Conflicts: s.conflicts.Load(), Skews: s.skews.Load(),
		Keys: s.index.count, Active: s.active.len(), Remembered: len(s.recent),
	}
	for _, tx := range s.known {
		if tx.state == statePrepared {
			m.Prepared++
		}
	}
	return m
}

// activeSet is the transactions under way, by the time of their snapshots.
type activeSet struct {
	mu   sync.Mutex // guards the list; taken after Store.mu
	list Tx         // the ring's ends
	n    int
}

func (a *activeSet) init() { a.list.before, a.list.after = &a.list, &a.list }

// begin gives a transaction its snapshot and notes it, in one step: what it can see is kept from then on.
func (a *activeSet) begin(tx *Tx, visible *atomic.Uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	tx.snapshot = visible.Load()
	tx.before, tx.after = a.list.before, &a.list
	tx.before.after, a.list.before = tx, tx
	a.n++
}

func (a *activeSet) end(tx *Tx) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if tx.after == nil {
		return
	}
	tx.before.after, tx.after.before = tx.after, tx.before
	tx.before, tx.after = nil, nil
	a.n--
}

// oldest is the time before which nobody looks, now or later.
func (a *activeSet) oldest(visible *atomic.Uint64) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if first := a.list.after; first != &a.list {
		return first.snapshot
	}
	return visible.Load()
}

func (a *activeSet) len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.n
}
