package consensus

import (
	"slices"
	"sync"
)

// mailbox is an unbounded queue for one goroutine: what is put into it is bounded by those who put.
type mailbox struct {
	signal chan struct{} // one token: there is something

	mu    sync.Mutex // guards items
	items []any
}

func newMailbox() *mailbox { return &mailbox{signal: make(chan struct{}, 1)} }

// put never blocks.
func (m *mailbox) put(item any) {
	m.mu.Lock()
	m.items = append(m.items, item)
	first := len(m.items) == 1
	m.mu.Unlock()
	if first {
		select {
		case m.signal <- struct{}{}:
		default:
		}
	}
}

// take swaps the items for an empty slice, and waits until there are some.
func (m *mailbox) take(done []any) []any {
	clear(done)
	if cap(done) > 4096 {
		done = nil // what one burst made larger is not held for ever
	}
	for {
		m.mu.Lock()
		if taken := m.items; len(taken) > 0 {
			m.items = done[:0]
			m.mu.Unlock()
			return taken
		}
		m.mu.Unlock()
		<-m.signal
	}
}

// takeFirst takes the first item of a type out. It is for a time before the goroutine runs.
func takeFirst[T any](m *mailbox) (item T, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.items {
		if item, ok = m.items[i].(T); ok {
			m.items = slices.Delete(m.items, i, i+1)
			return item, true
		}
	}
	return item, false
}
