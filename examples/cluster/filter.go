package main

import (
	"maps"
	"sync"

	"github.com/coterie-go/coterie"
)

// filter is what cuts the network and pauses members.
type filter struct {
	mu     sync.Mutex // guards what follows
	side   map[coterie.NodeID]int
	paused map[coterie.NodeID]bool
}

// partition puts members on one side, all others are on the other; none heals the network.
func (f *filter) partition(ids ...coterie.NodeID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.side = make(map[coterie.NodeID]int)
	for _, id := range ids {
		f.side[id] = 1
	}
}

// pause makes a member deaf and dumb, as a process that is stopped, until it is resumed.
func (f *filter) pause(id coterie.NodeID, paused bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.paused == nil {
		f.paused = make(map[coterie.NodeID]bool)
	}
	f.paused[id] = paused
}

func (f *filter) lets(from, to coterie.NodeID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.side[from] == f.side[to] && !f.paused[from] && !f.paused[to]
}

// state returns the members on the small side of a cut, and those paused.
func (f *filter) state() (side map[coterie.NodeID]int, paused map[coterie.NodeID]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	side, paused = make(map[coterie.NodeID]int), make(map[coterie.NodeID]bool)
	maps.Copy(side, f.side)
	maps.Copy(paused, f.paused)
	return side, paused
}

// filtered is a transport behind the filter.
type filtered struct {
	coterie.Transport
	filter *filter
}

// Send loses what the filter does not let through.
func (t *filtered) Send(to coterie.NodeID, payload []byte) error {
	if !t.filter.lets(t.LocalID(), to) {
		return nil
	}
	return t.Transport.Send(to, payload)
}

// Receive drops what was under way when the filter closed.
func (t *filtered) Receive(handle func(from coterie.NodeID, payload []byte)) {
	if handle == nil {
		t.Transport.Receive(nil)
		return
	}
	t.Transport.Receive(func(from coterie.NodeID, payload []byte) {
		if t.filter.lets(from, t.LocalID()) {
			handle(from, payload)
		}
	})
}
