package kv

import (
	"context"
	"time"

	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/internal/wire"
)

// waiting is who waits for a change on this replica.
type waiting struct {
	keys  map[string]map[*waiter]struct{} // for the deletion of a key
	spans map[*waiter]Span                // for any change in a span
}

// waiter is told by one value in its channel.
type waiter struct{ woken chan struct{} }

func newWaiting() waiting {
	return waiting{keys: map[string]map[*waiter]struct{}{}, spans: map[*waiter]Span{}}
}

func (w *waiter) wake() {
	select {
	case w.woken <- struct{}{}:
	default: // it has been told and will look
	}
}

// tell wakes whoever waits for one of the events. It costs as much as there are spans watched, and for deletions only
// those who wait for these very keys: a hand-over in a long queue wakes the next one.
func (w *waiting) tell(events []Event) {
	for i := range events {
		e := &events[i]
		if e.Deleted() && len(w.keys) > 0 {
			for x := range w.keys[e.KV.Key] {
				x.wake()
			}
		}
		for x, span := range w.spans {
			if span.Contains(e.KV.Key) {
				x.wake()
			}
		}
	}
}

// tellAll wakes everyone: the state was replaced.
func (w *waiting) tellAll() {
	for _, xs := range w.keys {
		for x := range xs {
			x.wake()
		}
	}
	for x := range w.spans {
		x.wake()
	}
}

func (w *waiting) addKeys(x *waiter, keys []string) {
	for _, k := range keys {
		if w.keys[k] == nil {
			w.keys[k] = map[*waiter]struct{}{}
		}
		w.keys[k][x] = struct{}{}
	}
}

func (w *waiting) removeKeys(x *waiter, keys []string) {
	for _, k := range keys {
		if delete(w.keys[k], x); len(w.keys[k]) == 0 {
			delete(w.keys, k)
		}
	}
}

// Query answers from the state as it is, without waiting.
func (s *Store) Query(b []byte) ([]byte, error) {
	q, err := readQuery(b)
	if err != nil {
		return appendFault(0, err), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a, _ := s.answer(&q)
	return a, nil
}

// answer answers a query, and reports whether that is worth the end of a wait: a fault is.
func (s *Store) answer(q *query) (b []byte, final bool) {
	b = answer(s.revision)
	switch q.kind {
	case queryGet:
		v, err := s.at(q.get.Revision)
		if err != nil {
			return appendFault(s.revision, err), true
		}
		budget := maxAnswer
		res := v.read(&q.get, &budget)
		return appendResult(b, &res), true
	case queryWatch:
		b, some, err := s.appendWatch(b, q.span, q.from)
		if err != nil {
			return appendFault(s.revision, err), true
		}
		return b, some
	case queryTurn:
		if s.revision < q.turn.Revision { // it is there, as far as the asker knows, and not at its turn, as far as is known
			return wire.AppendBool(wire.AppendBool(b, true), false), false
		}
		there, blockers := s.ahead(&q.turn)
		if s.bug == bugGrantDead {
			there = true
		}
		turn := len(blockers) == 0
		return wire.AppendBool(wire.AppendBool(b, there), there && turn), turn
	case queryLease:
		l := s.leases.byID[q.lease]
		if l == nil {
			return appendFault(s.revision, ErrNoLease), true
		}
		b = wire.AppendVarint(wire.AppendVarint(b, int64(l.ttl)), int64(l.expires.Sub(s.now)))
		return wire.AppendUvarint(b, uint64(len(l.keys))), true
	case queryStatus:
		b = wire.AppendUvarint(b, s.oldest())
		b = wire.AppendUvarint(wire.AppendUvarint(b, uint64(s.root.len())), uint64(s.bytes))
		return wire.AppendUvarint(b, uint64(len(s.leases.byID))), true
	}
	return b, true
}

// wait answers a query that can wait as soon as that is worth it; it reports false if it was not in time. It asks no
// other replica, and so answers from what this one has applied: what it says of a revision is true for ever, but there
// may be newer ones.
func (s *Store) wait(ctx context.Context, q *query) (b []byte, ok bool) {
	timer := time.NewTimer(q.wait)
	defer timer.Stop()
	x := &waiter{woken: make(chan struct{}, 1)}
	var keys []string
	s.mu.Lock()
	defer func() {
		s.waiting.removeKeys(x, keys)
		delete(s.waiting.spans, x)
		s.mu.Unlock()
	}()
	if q.kind == queryTurn && s.revision < q.turn.Revision {
		return nil, false // a read that asks the others will know
	}
	if q.kind == queryWatch {
		if q.from == 0 {
			q.from = s.revision + 1 // from now, not from when the wait is over
		}
		s.waiting.spans[x] = q.span
	}
	for {
		if b, ok := s.answer(q); ok {
			return b, true
		}
		if q.kind == queryTurn {
			s.waiting.removeKeys(x, keys)
			_, keys = s.ahead(&q.turn)
			s.waiting.addKeys(x, append(keys, q.turn.Key))
			keys = append(keys, q.turn.Key)
		}
		s.mu.Unlock()
		select {
		case <-x.woken:
			s.mu.Lock()
		case <-timer.C:
			s.mu.Lock()
			return nil, false
		case <-ctx.Done():
			s.mu.Lock()
			return nil, false
		}
	}
}

// Watchable is a replica whose Read waits: a watch is answered when there is news, by the Store of this node, and not
// by polling. Give it to Client on the node itself, and to consensus.Serve for clients far away. store must be the
// state machine of the replica.
//
// A watch that was quiet for its time, a second for those of Client, asks the replica itself then: one that was cut off
// from the others does not leave its watchers in the dark for longer.
func Watchable(replica consensus.Replica, store *Store) consensus.Replica {
	return &watchable{Replica: replica, store: store}
}

type watchable struct {
	consensus.Replica
	store *Store
}

// Read answers a query linearizably, but for one that waits.
func (w *watchable) Read(ctx context.Context, b []byte) ([]byte, error) {
	q, err := readQuery(b)
	if err != nil || q.wait == 0 || q.kind != queryWatch && q.kind != queryTurn {
		return w.Replica.Read(ctx, b)
	}
	if a, ok := w.store.wait(ctx, &q); ok {
		return a, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q.wait = 0
	return w.Replica.Read(ctx, q.encode())
}
