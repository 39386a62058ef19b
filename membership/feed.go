package membership

import (
	"iter"
	"slices"
	"sync"

	"github.com/coterie-go/coterie"
)

// Feed hands events to those who subscribed. It is what a membership protocol builds its Events and Watch on; who
// uses such a protocol has no need of it.
//
// A subscriber who is slow holds up nobody and costs at most one waiting change for each member: changes of one member
// that wait are joined into one, so that some between are missed, and the last one never is.
//
// The zero value is ready to use. Its methods are safe for concurrent use.
type Feed[T any] struct {
	deliver  sync.Mutex // held while watchers are called; guards what follows
	watchers []*watcher
	readers  []*reader[T]
	closed   bool
}

type watcher struct {
	f    func(coterie.NodeID, coterie.Liveness)
	last map[coterie.NodeID]coterie.Liveness
}

func (w *watcher) tell(id coterie.NodeID, l coterie.Liveness) {
	if old, ok := w.last[id]; ok && old == l {
		return
	}
	w.last[id] = l
	w.f(id, l)
}

// reader is one iteration over the events.
type reader[T any] struct {
	mu      sync.Mutex // guards what follows
	known   map[coterie.NodeID]Member[T]
	changed map[coterie.NodeID]Event[T] // the latest, of those that changed since they were read
	order   []coterie.NodeID            // of changed, oldest first
	signal  chan struct{}
	closed  bool
}

// Publish hands events to all subscribers, in order. It does not wait for readers, but it does for the functions of
// Watch.
func (f *Feed[T]) Publish(events ...Event[T]) {
	f.deliver.Lock()
	defer f.deliver.Unlock()
	for i := range events {
		e := &events[i]
		for _, w := range f.watchers {
			if e.Kind == EventForget {
				delete(w.last, e.Member.ID)
				continue
			}
			w.tell(e.Member.ID, e.Member.State.Liveness())
		}
		for _, r := range f.readers {
			r.put(e)
		}
	}
}

// Watch is coterie.Detector's. present is asked for the members as they are; it may be ahead of the events by those
// that are about to be published.
func (f *Feed[T]) Watch(present func() []Member[T], tell func(coterie.NodeID, coterie.Liveness)) (cancel func()) {
	f.deliver.Lock()
	defer f.deliver.Unlock()
	w := &watcher{f: tell, last: make(map[coterie.NodeID]coterie.Liveness)}
	for _, m := range present() {
		w.tell(m.ID, m.State.Liveness())
	}
	if !f.closed {
		f.watchers = append(f.watchers, w)
	}
	return func() {
		f.deliver.Lock()
		defer f.deliver.Unlock()
		f.watchers = slices.DeleteFunc(f.watchers, func(other *watcher) bool { return other == w })
	}
}

// Events returns an iteration over what changes from now on, preceded by a join of each member that is present. It
// waits for the next event until the feed is closed, and may be ended by break at any time. Each iteration over what
// is returned subscribes anew.
func (f *Feed[T]) Events(present func() []Member[T]) iter.Seq[Event[T]] {
	return func(yield func(Event[T]) bool) {
		r := f.subscribe(present)
		defer f.unsubscribe(r)
		for {
			for {
				e, ok := r.take()
				if !ok {
					break
				}
				if !yield(e) {
					return
				}
			}
			if r.isClosed() {
				return
			}
			<-r.signal
		}
	}
}

func (f *Feed[T]) subscribe(present func() []Member[T]) *reader[T] {
	r := &reader[T]{
		known:   make(map[coterie.NodeID]Member[T]),
		changed: make(map[coterie.NodeID]Event[T]),
		signal:  make(chan struct{}, 1),
	}
	f.deliver.Lock()
	defer f.deliver.Unlock()
	for _, m := range present() {
		r.put(&Event[T]{Kind: EventJoin, Member: m})
	}
	r.closed = f.closed
	f.readers = append(f.readers, r)
	return r
}

func (f *Feed[T]) unsubscribe(r *reader[T]) {
	f.deliver.Lock()
	defer f.deliver.Unlock()
	f.readers = slices.DeleteFunc(f.readers, func(other *reader[T]) bool { return other == r })
}

// Close ends every iteration when it has read what waits for it. Later events are dropped.
func (f *Feed[T]) Close() {
	f.deliver.Lock()
	defer f.deliver.Unlock()
	f.closed = true
	for _, r := range f.readers {
		r.mu.Lock()
		r.closed = true
		r.mu.Unlock()
		r.wake()
	}
	f.watchers, f.readers = nil, nil
}

func (r *reader[T]) wake() {
	select {
	case r.signal <- struct{}{}:
	default:
	}
}

func (r *reader[T]) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed && len(r.order) == 0
}

func (r *reader[T]) put(e *Event[T]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := e.Member.ID
	if _, waiting := r.changed[id]; !waiting {
		r.order = append(r.order, id)
	}
	r.changed[id] = *e
	r.wake()
}

// take returns the change of the member that has waited longest, as one event.
func (r *reader[T]) take() (Event[T], bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.order) > 0 {
		id := r.order[0]
		r.order = r.order[1:]
		latest := r.changed[id]
		delete(r.changed, id)
		last, known := r.known[id]
		if latest.Kind == EventForget {
			delete(r.known, id)
			if known {
				return latest, true
			}
			continue
		}
		r.known[id] = latest.Member
		if kind, changed := transition(last, known, latest.Member); changed {
			return Event[T]{kind, latest.Member}, true
		}
	}
	return Event[T]{}, false
}

// transition names the change between two states of a member.
func transition[T any](last Member[T], known bool, next Member[T]) (Kind, bool) {
	wasGone := !known || last.State > Suspect
	same := known && last.State == next.State
	switch {
	case same && last.Incarnation == next.Incarnation && last.Life == next.Life && last.Err == next.Err: //nolint:errorlint // the same value or another
		return 0, false
	case same:
		return EventUpdate, true
	}
	switch next.State {
	case Alive:
		if wasGone {
			return EventJoin, true
		}
		return EventTrust, true
	case Suspect:
		return EventSuspect, true
	case Unreachable:
		return EventFail, true
	case Dead:
		return EventDead, true
	default:
		return EventLeave, true
	}
}
