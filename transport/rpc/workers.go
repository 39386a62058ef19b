package rpc

import "sync"

// workers run calls on goroutines that are used again: a fresh one grows its stack anew for every call.
type workers struct {
	max   int // goroutines, at most
	queue int // calls that may wait for one
	run   func(*call, []byte) []byte

	wg   sync.WaitGroup
	give chan *call // to idle goroutines; of capacity maxIdle, so that no giver waits

	mu      sync.Mutex // guards what follows
	running int        // goroutines, idle or not
	idle    int        // goroutines to which no call was given
	waiting []*call
	closed  bool
}

// maxIdle is how many goroutines wait for calls; those that find so many end.
const maxIdle = 256

func newWorkers(most, queue int, run func(*call, []byte) []byte) *workers {
	return &workers{max: most, queue: queue, run: run, give: make(chan *call, maxIdle)}
}

// start has a call run and never blocks. It reports false if there is no room for it.
func (w *workers) start(c *call) bool {
	w.mu.Lock()
	switch {
	case w.closed:
		w.mu.Unlock()
		return false
	case w.idle > 0:
		w.idle--
		w.give <- c // under the lock, lest it is closed; there is room
		w.mu.Unlock()
		return true
	case w.running < w.max:
		w.running++
		w.wg.Add(1)
		w.mu.Unlock()
		go w.work(c)
		return true
	}
	defer w.mu.Unlock()
	if len(w.waiting) >= w.queue {
		return false
	}
	c.waited = true
	w.waiting = append(w.waiting, c)
	return true
}

func (w *workers) work(c *call) {
	defer w.wg.Done()
	var scratch []byte
	for c != nil {
		scratch = w.run(c, scratch[:0])
		if cap(scratch) > maxScratch {
			scratch = nil
		}
		c = w.next()
	}
}

// maxScratch is how large a buffer for encoding is kept.
const maxScratch = 64 << 10

// next returns a call to run, or nil to end.
func (w *workers) next() *call {
	w.mu.Lock()
	if len(w.waiting) > 0 {
		c := w.waiting[0]
		w.waiting[0] = nil
		w.waiting = w.waiting[1:]
		w.mu.Unlock()
		return c
	}
	if w.closed || w.idle >= maxIdle {
		w.running--
		w.mu.Unlock()
		return nil
	}
	w.idle++
	w.mu.Unlock()
	return <-w.give
}

// close ends the idle goroutines and waits for the others.
func (w *workers) close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		w.running -= w.idle
		w.idle = 0
		close(w.give) // what was given before is taken first
	}
	w.mu.Unlock()
	w.wg.Wait()
}
