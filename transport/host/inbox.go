package host

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
)

// item is a message, a call that somebody waits for, or one that nobody does.
type item[C coterie.Core] struct {
	from    coterie.NodeID
	payload []byte
	call    *call[C]
	post    func(now time.Time, core C)
}

// call is a Do under way.
type call[C coterie.Core] struct {
	run   func(now time.Time, core C)
	state atomic.Int32
	done  chan struct{} // closed when run has returned, or never will be called
}

const (
	callWaiting int32 = iota
	callGivenUp       // its ctx ended first
	callStarted
	callRan
)

// inbox holds what waits for the host's goroutine, and by the bounds of Config for no longer than it must.
type inbox[C coterie.Core] struct {
	host   *Host[C]
	signal chan struct{} // one token: there is something, and the goroutine sleeps
	places chan struct{} // one token for each Do under way
	checks sync.WaitGroup

	mu       sync.Mutex // guards what follows
	items    []item[C]
	waiting  load // the messages in items
	checking load // the messages with senders
	sleeping bool
	ended    bool
	senders  map[coterie.NodeID]*sender // those with messages that wait for Check
}

// load is a number of messages and the bytes of their payloads.
type load struct{ count, bytes int }

func (l *load) add(payload []byte)  { l.count++; l.bytes += len(payload) }
func (l *load) drop(payload []byte) { l.count--; l.bytes -= len(payload) }

// sender is the queue of one peer's messages that wait for Check; its goroutine lives while there are any.
type sender struct{ queue [][]byte }

func newInbox[C coterie.Core](h *Host[C]) *inbox[C] {
	in := &inbox[C]{host: h, signal: make(chan struct{}, 1), places: make(chan struct{}, h.cfg.InboxCount)}
	if h.cfg.Check != nil {
		in.senders = make(map[coterie.NodeID]*sender)
	}
	return in
}

// put adds a call; false if the host has ended.
func (in *inbox[C]) put(it item[C]) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended {
		return false
	}
	in.items = append(in.items, it)
	in.rouse()
	return true
}

// rouse wakes the goroutine if it sleeps. The caller holds mu.
func (in *inbox[C]) rouse() {
	if in.sleeping {
		in.sleeping = false
		select {
		case in.signal <- struct{}{}:
		default:
		}
	}
}

// receive is the transport's handler.
func (in *inbox[C]) receive(from coterie.NodeID, payload []byte) {
	in.mu.Lock()
	if in.ended || in.full(len(payload)) {
		in.mu.Unlock()
		in.host.metrics.dropped.Add(1)
		return
	}
	if in.senders == nil {
		in.waiting.add(payload)
		in.items = append(in.items, item[C]{from: from, payload: payload})
		in.rouse()
		in.mu.Unlock()
		return
	}
	in.checking.add(payload)
	s := in.senders[from]
	if s == nil {
		s = new(sender)
		in.senders[from] = s
		in.checks.Go(func() { in.check(from, s) })
	}
	s.queue = append(s.queue, payload)
	in.mu.Unlock()
}

// full reports whether a message of so many bytes finds no place; one that is alone always does. The caller holds mu.
func (in *inbox[C]) full(size int) bool {
	count, bytes := in.waiting.count+in.checking.count, in.waiting.bytes+in.checking.bytes
	return count > 0 && (count >= in.host.cfg.InboxCount || bytes+size > in.host.cfg.InboxBytes)
}

// check passes on what Config.Check lets through, until the sender's queue is empty.
func (in *inbox[C]) check(from coterie.NodeID, s *sender) {
	var queue [][]byte
	for {
		in.mu.Lock()
		if len(s.queue) == 0 || in.ended {
			delete(in.senders, from)
			in.mu.Unlock()
			return
		}
		queue, s.queue = s.queue, queue[:0]
		in.mu.Unlock()
		for i, payload := range queue {
			err := in.callCheck(from, payload)
			in.mu.Lock()
			in.checking.drop(payload)
			if err == nil && !in.ended {
				in.waiting.add(payload)
				in.items = append(in.items, item[C]{from: from, payload: payload})
				in.rouse()
			}
			in.mu.Unlock()
			if err != nil {
				in.host.metrics.refused.Add(1)
				in.host.cfg.Log.Warn("message refused", "node", in.host.id, "from", from, "err", err)
			}
			queue[i] = nil
		}
	}
}

// callCheck makes a panic of Check an error: it saw a stranger's bytes, and the core has not.
func (in *inbox[C]) callCheck(from coterie.NodeID, payload []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("check: %w", newPanicError(r, input{what: "a message", from: from, payload: payload}.String()))
		}
	}()
	return in.host.cfg.Check(from, payload)
}

// sleep reports whether there is nothing to do; from then on the next item gives a signal.
func (in *inbox[C]) sleep() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.sleeping = len(in.items) == 0
	return in.sleeping
}

// take swaps the items for the slice of a batch that has been worked off.
func (in *inbox[C]) take(worked []item[C]) []item[C] {
	const small = 4096 // a slice that one burst made larger is not held for ever
	if cap(worked) > small && len(worked) < cap(worked)/8 {
		worked = nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.sleeping = false
	taken := in.items
	in.items = worked[:0]
	in.waiting = load{}
	return taken
}

// runCall runs a call unless its caller has given up.
func (in *inbox[C]) runCall(now time.Time, c *call[C]) {
	<-in.places
	if !c.state.CompareAndSwap(callWaiting, callStarted) {
		return
	}
	defer close(c.done)
	c.run(now, in.host.core)
	c.state.Store(callRan)
}

// end makes the inbox take no more, and returns what was left.
func (in *inbox[C]) end() []item[C] {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ended = true
	return in.items
}

// abandon tells the callers of what will not run.
func abandon[C coterie.Core](items []item[C]) {
	for i := range items {
		if c := items[i].call; c != nil && c.state.CompareAndSwap(callWaiting, callGivenUp) {
			close(c.done)
		}
	}
}
