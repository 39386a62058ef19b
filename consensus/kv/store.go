package kv

import (
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// Config tells a Store its bounds. It must be the same on every replica of a cluster; change it on all of them while
// none runs.
type Config struct {
	MaxBytes     int64 // of keys and values, 64 bytes more for each key; default 1 GiB; beyond it a write is ErrFull
	HistorySize  int   // revisions that can be read and watched from beside the newest; default 10,000
	HistoryBytes int64 // of the keys and values they wrote; default 64 MiB; the oldest go first

	// Validate may refuse a Txn: it sees the state before and after, and what would change. Its error goes to the
	// client as ErrInvalid, with its text. It must be deterministic, change nothing, and not use the Store. What goes with a lease that
	// ends is not asked for. Default none.
	Validate func(before, after View, changes []Event) error
}

func (c Config) withDefaults() Config {
	if c.MaxBytes == 0 {
		c.MaxBytes = 1 << 30
	}
	if c.HistorySize == 0 {
		c.HistorySize = 10_000
	}
	if c.HistoryBytes == 0 {
		c.HistoryBytes = 64 << 20
	}
	return c
}

// Store is the state machine: give it to a replica, raft.Start for one, and use it through a Client. It may be read
// and watched beside that on its own node, by any goroutine: see View and Watchable.
type Store struct {
	cfg        Config
	priorities priorities
	bug        bug

	mu sync.Mutex // guards what follows
	state
	waiting waiting
}

// state is what a snapshot holds.
type state struct {
	now      time.Time // the log's clock
	root     *node     // the newest revision
	revision uint64
	sequence uint64     // of the newest sequential key
	bytes    int64      // of root
	history  []revision // those that can be read, one by one, the newest last: the present one
	past     int64      // bytes of the events in history
	leases   leases
}

// revision is one state of the past and what made it.
type revision struct {
	number uint64
	root   *node
	events []Event // what changed; unknown, and never asked for, for the oldest
	bytes  int64
}

// New makes an empty Store. The error names the field of the Config.
func New(cfg Config) (*Store, error) {
	for name, v := range map[string]int64{
		"MaxBytes": cfg.MaxBytes, "HistorySize": int64(cfg.HistorySize), "HistoryBytes": cfg.HistoryBytes,
	} {
		if v < 0 {
			return nil, fmt.Errorf("kv: Config.%s %d is negative", name, v)
		}
	}
	s := &Store{cfg: cfg.withDefaults(), priorities: newPriorities()}
	s.state = emptyState()
	s.waiting = newWaiting()
	return s, nil
}

func emptyState() state {
	return state{history: []revision{{}}, leases: newLeases()}
}

// oldest is the oldest revision that can be read.
func (s *state) oldest() uint64 { return s.history[0].number }

// Apply executes a command. One that is refused or malformed changes nothing and answers with the reason.
func (s *Store) Apply(e coterie.Entry) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = e.Time
	// First what has ended: nothing may lean on it, and no renewal may come too late and still count.
	s.expire()
	if len(e.Command) == 0 {
		return nil // a tick
	}
	c, err := readCommand(e.Command)
	if err != nil {
		return appendFault(s.revision, err)
	}
	b, err := s.execute(e.Index, &c)
	if err != nil {
		return appendFault(s.revision, err)
	}
	return b
}

func (s *Store) execute(index uint64, c *command) ([]byte, error) {
	switch c.kind {
	case cmdTxn:
		return s.transact(&c.txn)
	case cmdGrant:
		// The index of an entry is never used again.
		s.leases.grant(index, c.ttl, s.now)
		return wire.AppendUvarint(answer(s.revision), index), nil
	case cmdKeepAlive:
		if !s.leases.renew(c.lease, s.now) && s.bug != bugLateRenewal {
			return nil, fmt.Errorf("%w: %d", ErrNoLease, c.lease)
		}
	case cmdRevoke:
		if !s.revoke(c.lease) {
			return nil, fmt.Errorf("%w: %d", ErrNoLease, c.lease)
		}
	case cmdCompact:
		if c.revision > s.revision {
			return nil, fmt.Errorf("%w: %d after %d", ErrFuture, c.revision, s.revision)
		}
		if c.revision > s.oldest() {
			s.compact(c.revision)
		}
	}
	return answer(s.revision), nil
}

// Deadline is when the next lease ends by the log's clock, zero if there is none.
func (s *Store) Deadline() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leases.next()
}

// View is the state at one revision. It stays what it is, costs nothing to keep but memory, and is safe for concurrent
// use.
type View struct {
	revision uint64
	root     *node
}

// View is the newest state of this replica, without asking others: it may lag behind that of the cluster.
func (s *Store) View() View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view()
}

func (s *state) view() View { return View{s.revision, s.root} }

// Revision is the revision it is of, from 1; 0 is the empty state at the beginning.
func (v View) Revision() uint64 { return v.revision }

// Len is how many keys there are in a span.
func (v View) Len(s Span) int { return v.root.count(s) }

// Get returns what a key has.
func (v View) Get(key string) (KV, bool) {
	if k := v.root.get(key); k != nil {
		return *k, true
	}
	return KV{}, false
}

// All yields the keys of a span in their order.
func (v View) All(s Span) iter.Seq[KV] {
	return func(yield func(KV) bool) {
		for k := range v.root.all(s, false) {
			if !yield(*k) {
				return
			}
		}
	}
}

// at is the state at a revision, 0 for the newest.
func (s *state) at(number uint64) (View, error) {
	switch {
	case number == 0:
		return s.view(), nil
	case number > s.revision:
		return View{}, fmt.Errorf("%w: asked for %d, the newest is %d", ErrFuture, number, s.revision)
	case number < s.oldest():
		return View{}, &CompactedError{Asked: number, Oldest: s.oldest()}
	}
	r := s.history[number-s.oldest()]
	return View{r.number, r.root}, nil
}
