// Package inlet holds the handler of a transport and keeps the promise of Receive and Close: when they return, no
// call of the old handler is under way.
//
// It takes no lock while a handler runs, so that a handler may send, also to its own node, and a new handler may be
// set while an old one runs in other goroutines.
package inlet

import (
	"sync"
	"sync/atomic"

	"github.com/coterie-go/coterie"
)

// Handler is what coterie.Transport.Receive takes.
type Handler = func(from coterie.NodeID, payload []byte)

// Inlet is the handler of one transport. The zero value has none. Every method is safe for concurrent use.
type Inlet struct {
	current atomic.Pointer[registration]
}

// registration is one handler and the number of its calls under way.
type registration struct {
	handle Handler
	calls  atomic.Int64  // under way; plus retired once the handler is replaced
	idle   chan struct{} // closed when it is retired and no call is under way
	once   sync.Once     // closes idle: a caller that came too late counts down to retired again
}

const retired = int64(1) << 62

// Set makes handle, nil for none, the handler and waits until no call of the one before is under way. It may not be
// called from within a handler.
func (in *Inlet) Set(handle Handler) {
	var next *registration
	if handle != nil {
		next = &registration{handle: handle, idle: make(chan struct{})}
	}
	if old := in.current.Swap(next); old != nil && old.calls.Add(retired) != retired {
		<-old.idle
	}
}

// Deliver calls the handler, and reports false if there is none.
func (in *Inlet) Deliver(from coterie.NodeID, payload []byte) bool {
	r := in.current.Load()
	return r != nil && r.call(from, payload)
}

// call calls the handler, unless it was replaced since it was looked up: that is as good as a message that came a
// little earlier, and was lost.
func (r *registration) call(from coterie.NodeID, payload []byte) bool {
	if r.calls.Add(1) > retired {
		r.leave()
		return false
	}
	r.handle(from, payload)
	r.leave()
	return true
}

func (r *registration) leave() {
	if r.calls.Add(-1) == retired {
		r.once.Do(func() { close(r.idle) })
	}
}
