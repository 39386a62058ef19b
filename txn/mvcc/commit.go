package mvcc

import (
	"context"
	"fmt"
	"math"

	"github.com/coterie-go/coterie/txn"
)

// commit ends a transaction that is not prepared.
func (s *Store) commit(ctx context.Context, tx *Tx) error {
	if tx.state == stateEnded {
		return ErrEnded
	}
	if err := ctx.Err(); err != nil {
		tx.dropKnown()
		return err
	}
	if len(tx.writes) == 0 && (s.cfg.Level == Snapshot || tx.saw() == 0) {
		tx.dropKnown()
		return nil
	}
	defer tx.dropKnown()
	s.mu.Lock()
	if s.failure != nil {
		s.mu.Unlock()
		return s.Err()
	}
	foot, err := s.validate(tx)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	if len(tx.writes) == 0 {
		s.remember(foot, s.last+1, tx) // concurrent with all that began until now
		s.mu.Unlock()
		return nil
	}
	time, err := s.install(tx, foot)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	s.commits.Add(1)
	if s.cfg.Journal == nil {
		s.visible.Store(time)
		s.mu.Unlock()
		return nil
	}
	l := s.enqueue(encodeCommit(time, tx.writes), time)
	s.mu.Unlock()
	return l.wait(ctx)
}

// dropKnown ends a transaction and forgets its ID.
func (tx *Tx) dropKnown() {
	if tx.id != "" {
		tx.store.mu.Lock()
		delete(tx.store.known, tx.id)
		tx.store.mu.Unlock()
	}
	tx.drop()
}

// saw is how much a serializable transaction has read.
func (tx *Tx) saw() int { return len(tx.reads) + len(tx.ranges) }

// validate refuses a transaction that is not the first to write one of its keys, or that fits no serial order with those
// that ended before. What it marks on them stands only if it returns nil. The caller holds mu.
func (s *Store) validate(tx *Tx) (*footprint, error) {
	for key := range tx.writes {
		r := s.index.find(key)
		if r == nil {
			continue
		}
		if v := r.head.Load(); r.prepared != nil && r.prepared != tx || v != nil && v.time > tx.snapshot {
			s.conflicts.Add(1)
			return nil, fmt.Errorf("%w: %q was written by another transaction", ErrConflict, key)
		}
	}
	if s.cfg.Level == Snapshot {
		return nil, nil
	}
	foot, ok := s.antidependencies(tx)
	if !ok {
		s.skews.Add(1)
		return nil, fmt.Errorf("%w: what was read fits no serial order", ErrConflict)
	}
	return foot, nil
}

// install gives the transaction its commit time and adds its versions, which nobody sees yet. The caller holds mu.
func (s *Store) install(tx *Tx, foot *footprint) (time uint64, err error) {
	time = s.cfg.Clock.Now().Time
	if time <= s.last {
		return 0, fmt.Errorf("mvcc: the clock gave no timestamp: %w", s.cfg.Clock.Err())
	}
	s.last = time
	oldest := s.active.oldest(&s.visible)
	for key, w := range tx.writes {
		s.put(key, &version{time: time, value: w.value, deleted: w.deleted, writer: foot}, oldest)
	}
	s.remember(foot, time, tx)
	s.forget(oldest)
	return time, nil
}

// put adds a version to a key and cuts off those that nobody can see any more. The caller holds mu.
func (s *Store) put(key string, v *version, oldest uint64) {
	r := s.index.insert(key)
	old := r.head.Load()
	v.next.Store(old)
	r.head.Store(v)
	if old != nil && !old.deleted {
		s.live -= len(key) + len(old.value)
	}
	if v.deleted {
		s.deleted = append(s.deleted, tombstone{r, v.time})
	} else {
		s.live += len(key) + len(v.value)
	}
	for ; old != nil; old = old.next.Load() {
		if old.time <= oldest {
			old.next.Store(nil)
			return
		}
	}
}

// forget drops what mattered only to transactions that are over. The caller holds mu.
func (s *Store) forget(oldest uint64) {
	n := 0
	for n < len(s.recent) && s.recent[n].commit <= oldest {
		s.recent[n].writes, s.recent[n].ranges = nil, nil
		s.recent[n] = nil
		n++
	}
	s.recent = s.recent[n:]
	n = 0
	for n < len(s.deleted) && s.deleted[n].time <= oldest {
		if r := s.deleted[n].record; r.head.Load().time == s.deleted[n].time && r.prepared == nil {
			s.index.remove(r)
		}
		s.deleted[n] = tombstone{}
		n++
	}
	s.deleted = s.deleted[n:]
}

// footprint is what others must know of a serializable transaction that has ended, or is prepared: what it wrote and
// scanned (the point reads stand on the records), and whether it has an antidependency in or out. Guarded by Store.mu.
type footprint struct {
	commit  uint64 // math.MaxUint64 while it is prepared
	in, out bool   // a concurrent transaction read what it overwrote; it read what a concurrent one overwrote
	writes  []string
	ranges  []span
}

// antidependencies finds the edges between a transaction and those concurrent with it that ended before or are
// prepared. By Cahill et al. (section 3.2), every execution that is not serializable has a transaction with an edge in
// and one out, to and from concurrent ones. The last of such a three to end refuses to: whichever it is. It returns
// false then, else the transaction's footprint, with the edges marked on the others. The caller holds mu.
func (s *Store) antidependencies(tx *Tx) (*footprint, bool) {
	e := edges{foot: &footprint{commit: math.MaxUint64, ranges: tx.ranges}}
	for r := range tx.reads {
		for v := r.head.Load(); v != nil && v.time > tx.snapshot; v = v.next.Load() {
			e.to(v.writer)
		}
		if r.prepared != nil && r.prepared != tx {
			e.to(r.prepared.foot)
		}
	}
	for key := range tx.writes {
		e.foot.writes = append(e.foot.writes, key)
		if r := s.index.find(key); r != nil {
			for _, reader := range r.readers {
				if reader.commit > tx.snapshot {
					e.from(reader)
				}
			}
		}
	}
	concurrent := func(other *footprint) {
		for _, key := range other.writes {
			for _, span := range tx.ranges {
				if span.contains(key) {
					e.to(other)
				}
			}
		}
		for _, span := range other.ranges {
			for key := range tx.writes {
				if span.contains(key) {
					e.from(other)
				}
			}
		}
	}
	for i := len(s.recent) - 1; i >= 0 && s.recent[i].commit > tx.snapshot; i-- {
		concurrent(s.recent[i])
	}
	for _, other := range s.known {
		if other.state == statePrepared && other != tx {
			concurrent(other.foot)
		}
	}
	if e.refused || e.foot.in && e.foot.out {
		return nil, false
	}
	for _, other := range e.out {
		other.in = true
	}
	for _, other := range e.in {
		other.out = true
	}
	return e.foot, true
}

// edges collects the antidependencies of one transaction.
type edges struct {
	foot    *footprint
	in, out []*footprint
	refused bool // another one, which has ended, would have both
}

// to notes that the transaction read what other overwrote.
func (e *edges) to(other *footprint) {
	if other == nil || other == e.foot {
		return
	}
	e.foot.out = true
	e.out = append(e.out, other)
	e.refused = e.refused || other.out
}

// from notes that other read what the transaction overwrites.
func (e *edges) from(other *footprint) {
	e.foot.in = true
	e.in = append(e.in, other)
	e.refused = e.refused || other.in
}

// remember keeps a footprint, and its reads on their records, for those that are concurrent with it. The caller holds
// mu.
func (s *Store) remember(foot *footprint, commit uint64, tx *Tx) {
	if foot == nil {
		return
	}
	foot.commit = commit
	s.recent = append(s.recent, foot)
	s.noteReads(foot, tx)
}

func (s *Store) noteReads(foot *footprint, tx *Tx) {
	oldest := s.active.oldest(&s.visible)
	for r := range tx.reads {
		kept := r.readers[:0]
		for _, reader := range r.readers {
			if reader.commit > oldest && reader != foot {
				kept = append(kept, reader)
			}
		}
		clear(r.readers[len(kept):])
		r.readers = append(kept, foot)
	}
}

// Prepare promises that the transaction under an ID can be committed; see Tx.Prepare. The error is txn.ErrUnknown for an
// ID that was never joined, or is finished.
func (s *Store) Prepare(ctx context.Context, id txn.ID) (txn.Vote, error) {
	s.mu.Lock()
	tx := s.known[id]
	switch {
	case s.failure != nil:
		defer s.mu.Unlock()
		return txn.No, s.failure
	case tx == nil:
		s.mu.Unlock()
		return txn.No, fmt.Errorf("mvcc: prepare %q: %w", id, txn.ErrUnknown)
	case tx.state == statePrepared:
		l := tx.promise
		s.mu.Unlock()
		return txn.Yes, l.wait(ctx)
	case len(tx.writes) == 0:
		s.mu.Unlock()
		if err := s.commit(ctx, tx); err != nil {
			return txn.No, err
		}
		return txn.ReadOnly, nil
	}
	foot, err := s.validate(tx)
	if err != nil {
		delete(s.known, id)
		s.mu.Unlock()
		tx.drop()
		return txn.No, err
	}
	s.promise(tx, foot)
	if s.cfg.Journal != nil {
		tx.promise = s.enqueue(encodePrepared(tx), 0)
	}
	l := tx.promise
	s.mu.Unlock()
	if err := l.wait(ctx); err != nil {
		return txn.No, err
	}
	return txn.Yes, nil
}

// promise makes a transaction a prepared one, that holds its keys. The caller holds mu.
func (s *Store) promise(tx *Tx, foot *footprint) {
	tx.state = statePrepared
	tx.foot = foot
	if tx.foot == nil {
		tx.foot = &footprint{commit: math.MaxUint64}
	}
	for key := range tx.writes {
		s.index.insert(key).prepared = tx
	}
	if foot != nil {
		s.noteReads(foot, tx)
	}
}

// Commit makes the writes of a prepared transaction visible. Of an ID that is not there it returns nil, for the
// transaction was committed before; of one that is not prepared, txn.ErrContradiction.
func (s *Store) Commit(ctx context.Context, id txn.ID) error {
	s.mu.Lock()
	tx := s.known[id]
	switch {
	case s.failure != nil:
		defer s.mu.Unlock()
		return s.failure
	case tx == nil:
		s.mu.Unlock()
		return nil
	case tx.state != statePrepared:
		s.mu.Unlock()
		return fmt.Errorf("mvcc: commit of %q, which is not prepared: %w", id, txn.ErrContradiction)
	}
	foot := tx.foot
	if s.cfg.Level == Snapshot {
		foot = nil
	}
	time, err := s.install(tx, foot)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	s.release(tx)
	s.commits.Add(1)
	if s.cfg.Journal == nil {
		s.visible.Store(time)
		s.mu.Unlock()
		return nil
	}
	l := s.enqueue(encodeDecided(id, time), time)
	s.mu.Unlock()
	return l.wait(ctx)
}

// Abort ends the transaction under an ID without effect, prepared or not. Of an ID that is not there it returns nil.
func (s *Store) Abort(ctx context.Context, id txn.ID) error {
	s.mu.Lock()
	tx := s.known[id]
	switch {
	case s.failure != nil:
		defer s.mu.Unlock()
		return s.failure
	case tx == nil:
		s.mu.Unlock()
		return nil
	case tx.state != statePrepared:
		delete(s.known, id)
		s.mu.Unlock()
		tx.drop()
		return nil
	}
	if tx.foot != nil { // its reads and writes never were
		tx.foot.commit, tx.foot.writes, tx.foot.ranges = 0, nil, nil
	}
	s.release(tx)
	if s.cfg.Journal == nil {
		s.mu.Unlock()
		return nil
	}
	l := s.enqueue(encodeDecided(id, 0), 0)
	s.mu.Unlock()
	return l.wait(ctx)
}

// release lets go of what a prepared transaction held. The caller holds mu.
func (s *Store) release(tx *Tx) {
	for key := range tx.writes {
		if r := s.index.find(key); r != nil && r.prepared == tx {
			r.prepared = nil
			if r.head.Load() == nil {
				s.index.remove(r) // made for the promise alone
			}
		}
	}
	delete(s.known, tx.id)
	tx.drop()
}

// Prepared lists the transactions that wait for a decision: after a restart, those whose coordinator must be asked.
func (s *Store) Prepared(ctx context.Context) ([]txn.ID, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return nil, s.failure
	}
	var ids []txn.ID
	for id, tx := range s.known {
		if tx.state == statePrepared {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
