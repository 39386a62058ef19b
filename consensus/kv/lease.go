package kv

import (
	"container/heap"
	"maps"
	"slices"
	"time"
)

// leases are those that live, by the log's clock.
type leases struct {
	byID map[uint64]*lease
	heap expiries
}

type lease struct {
	id      uint64
	ttl     time.Duration
	expires time.Time
	keys    map[string]struct{}
	place   int // in the heap
}

func newLeases() leases { return leases{byID: map[uint64]*lease{}} }

func (l *leases) has(id uint64) bool { return l.byID[id] != nil }

func (l *leases) grant(id uint64, ttl time.Duration, now time.Time) {
	l.add(&lease{id: id, ttl: ttl, expires: now.Add(ttl), keys: map[string]struct{}{}})
}

func (l *leases) add(x *lease) {
	l.byID[x.id] = x
	heap.Push(&l.heap, x)
}

// renew reports whether there is such a lease.
func (l *leases) renew(id uint64, now time.Time) bool {
	x := l.byID[id]
	if x == nil {
		return false
	}
	x.expires = now.Add(x.ttl)
	heap.Fix(&l.heap, x.place)
	return true
}

func (l *leases) remove(x *lease) {
	heap.Remove(&l.heap, x.place)
	delete(l.byID, x.id)
}

// next is when the next one ends; zero if there is none.
func (l *leases) next() time.Time {
	if len(l.heap) == 0 {
		return time.Time{}
	}
	return l.heap[0].expires
}

// move notes that a key has gone from one lease to another.
func (l *leases) move(m move) {
	if x := l.byID[m.from]; x != nil {
		delete(x.keys, m.key)
	}
	if x := l.byID[m.to]; x != nil {
		x.keys[m.key] = struct{}{}
	}
}

// expire ends the leases whose time has come, each at a revision of its own if it had keys.
func (s *Store) expire() {
	for len(s.leases.heap) > 0 && !s.leases.heap[0].expires.After(s.now) {
		s.end(s.leases.heap[0])
	}
}

// revoke ends a lease and reports whether it was there.
func (s *Store) revoke(id uint64) bool {
	x := s.leases.byID[id]
	if x != nil {
		s.end(x)
	}
	return x != nil
}

func (s *Store) end(x *lease) {
	c := s.begin()
	for _, key := range slices.Sorted(maps.Keys(x.keys)) {
		c.delete(c.root.get(key))
	}
	c.commit()
	s.leases.remove(x)
}

// expiries is a heap of leases, the first to end on top.
type expiries []*lease

// Len is heap.Interface's.
func (h *expiries) Len() int { return len(*h) }

// Less orders leases of one time by id, so that all replicas end them in one order.
func (h *expiries) Less(i, j int) bool {
	a, b := (*h)[i], (*h)[j]
	if c := a.expires.Compare(b.expires); c != 0 {
		return c < 0
	}
	return a.id < b.id
}

// Swap is heap.Interface's.
func (h *expiries) Swap(i, j int) {
	a, b := (*h)[i], (*h)[j]
	(*h)[i], (*h)[j] = b, a
	a.place, b.place = j, i
}

// Push is heap.Interface's.
func (h *expiries) Push(x any) {
	l := x.(*lease)
	l.place = len(*h)
	*h = append(*h, l)
}

// Pop is heap.Interface's.
func (h *expiries) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return l
}
