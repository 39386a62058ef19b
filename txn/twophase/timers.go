package twophase

import (
	"container/heap"
	"time"
)

// timer stands in a transaction, in either role, and says when it wants attention.
type timer struct {
	at   time.Time
	slot int // one more than its place in the heap; 0 if it is in none
	fire func(now time.Time)
}

// timers is a heap of timers, the earliest first. Ties go by heap order, which depends on the calls alone.
type timers []*timer

func (h *timers) Len() int           { return len(*h) }
func (h *timers) Less(i, j int) bool { return (*h)[i].at.Before((*h)[j].at) }

func (h *timers) Swap(i, j int) {
	s := *h
	s[i], s[j] = s[j], s[i]
	s[i].slot, s[j].slot = i+1, j+1
}

// Push is for package heap.
func (h *timers) Push(x any) {
	t := x.(*timer)
	*h = append(*h, t)
	t.slot = len(*h)
}

// Pop is for package heap.
func (h *timers) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	t.slot = 0
	return t
}

// set moves a timer to a time, or takes it out if the time is zero.
func (h *timers) set(t *timer, at time.Time) {
	t.at = at
	switch {
	case at.IsZero() && t.slot > 0:
		heap.Remove(h, t.slot-1)
	case at.IsZero():
	case t.slot > 0:
		heap.Fix(h, t.slot-1)
	default:
		heap.Push(h, t)
	}
}

// run fires all that are due by now, each once.
func (h *timers) run(now time.Time) {
	for len(*h) > 0 && !(*h)[0].at.After(now) {
		t := (*h)[0]
		h.set(t, time.Time{})
		t.fire(now)
	}
}

// next is when the earliest is due; zero if there is none.
func (h *timers) next() time.Time {
	if len(*h) == 0 {
		return time.Time{}
	}
	return (*h)[0].at
}
