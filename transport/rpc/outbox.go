package rpc

import (
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/transport/internal/frame"
)

// outbox writes frames to a connection. Who has one appends it to a buffer; the first to find nobody writing writes
// what is there, and the frames that others append meanwhile share the next write. A goroutine of its own for writing
// would cost a lone caller two switches for each call, and a write for each frame many callers a system call each.
type outbox struct {
	to   io.Writer
	fail func(error) // called once, with the error of a write

	moved atomic.Uint64 // writes that took
	busy  atomic.Bool   // a write is under way

	mu      sync.Mutex    // guards what follows
	buf     []byte        // frames that wait
	spare   []byte        // a buffer to fill next
	writing bool          // somebody writes, and will look again
	err     error         // set last
	room    chan struct{} // closed when buf is taken or nobody writes any more, if anybody waits for that
}

// how says who writes.
type how uint8

const (
	inline  how = iota // the caller, at once: nothing else is under way
	crowded            // the caller, once others that are about to run had their turn to append
	behind             // a goroutine: the caller must not block
)

const (
	maxSpare = 4 << 20   // a larger buffer is not kept
	maxWrite = 256 << 10 // bytes in one write, so that progress shows
)

// push adds a frame, and has it written. The error is that of an earlier write, ErrOverloaded if more than limit bytes
// would wait (0 for no limit), or nil, which promises nothing.
func (o *outbox) push(k kind, head, payload []byte, limit int, by how) error {
	sum := frame.Sum(k, head, payload) // outside of the lock: it takes the longest
	o.mu.Lock()
	if o.err != nil {
		err := o.err
		o.mu.Unlock()
		return err
	}
	if limit > 0 && len(o.buf) > 0 && len(o.buf)+len(head)+len(payload) > limit {
		o.mu.Unlock()
		return coterie.ErrOverloaded
	}
	o.buf = frame.Append(o.buf, k, sum, head, payload)
	if o.writing {
		o.mu.Unlock()
		return nil
	}
	o.writing = true
	o.mu.Unlock()
	switch by {
	case inline:
		o.flush(true)
	case crowded:
		runtime.Gosched()
		o.flush(true)
	default:
		go o.flush(false)
	}
	return nil
}

// pushNote adds a frame of a number, and an amount if that is not zero, without blocking.
func (o *outbox) pushNote(k kind, n note) {
	var b [24]byte
	body := wire.AppendUvarint(b[:0], n.id)
	if n.amount > 0 {
		body = wire.AppendUvarint(body, n.amount)
	}
	_ = o.push(k, nil, body, 0, behind) // if the connection is broken nobody misses it
}

// flush writes what waits until there is nothing, or once: then a goroutine sees to what has come meanwhile, for who
// called has a call of its own to wait for.
func (o *outbox) flush(once bool) {
	for {
		o.mu.Lock()
		if len(o.buf) == 0 || o.err != nil {
			o.writing = false
			o.wakeLocked()
			o.mu.Unlock()
			return
		}
		b := o.buf
		o.buf, o.spare = o.spare[:0], nil
		o.wakeLocked()
		o.mu.Unlock()

		err := o.write(b)

		o.mu.Lock()
		if cap(b) <= maxSpare {
			o.spare = b[:0]
		}
		if err != nil && o.err == nil {
			o.err = err
		}
		more := len(o.buf) > 0 && o.err == nil
		o.writing = more
		if !more {
			o.wakeLocked()
		}
		o.mu.Unlock()
		switch {
		case err != nil:
			o.fail(err)
			return
		case !more:
			return
		case once:
			go o.flush(false)
			return
		}
		runtime.Gosched() // for the frames of others that are ready to run
	}
}

func (o *outbox) write(b []byte) error {
	o.busy.Store(true)
	defer o.busy.Store(false)
	for len(b) > 0 {
		n, err := o.to.Write(b[:min(len(b), maxWrite)])
		if err != nil {
			return err
		}
		o.moved.Add(1)
		b = b[n:]
	}
	return nil
}

// close makes every later push fail.
func (o *outbox) close(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
	o.wakeLocked()
}

func (o *outbox) wakeLocked() {
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}

// trim lets go of the memory that a burst has left behind.
func (o *outbox) trim() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.writing && len(o.buf) == 0 {
		o.buf, o.spare = nil, nil
	}
}

// awaitRoom blocks while more than limit bytes wait: a peer that does not read its answers is not read from either.
func (o *outbox) awaitRoom(limit int) {
	for {
		o.mu.Lock()
		if len(o.buf) <= limit || o.err != nil {
			o.mu.Unlock()
			return
		}
		if o.room == nil {
			o.room = make(chan struct{})
		}
		room := o.room
		o.mu.Unlock()
		<-room
	}
}

// awaitEmpty blocks until everything is written or nothing more will be.
func (o *outbox) awaitEmpty() {
	for {
		o.mu.Lock()
		if !o.writing || o.err != nil {
			o.mu.Unlock()
			return
		}
		if o.room == nil {
			o.room = make(chan struct{})
		}
		room := o.room
		o.mu.Unlock()
		<-room
	}
}

// pulse tells whether a connection lives, of which nobody sets deadlines, for these cost as much as a small write. A
// ticker asks a few times within the patience that there is.
type pulse struct {
	heard atomic.Bool // something was read since the last beat
	mute  int         // beats without
	moved uint64      // as of the last beat
	stuck int         // beats with a write under way that did not move
}

// beats is how many make up the patience.
const beats = 4

// beat reports whether the connection has been silent, or stuck, for too long.
func (p *pulse) beat(o *outbox) (dead bool) {
	if p.heard.Swap(false) {
		p.mute = 0
	} else {
		p.mute++
	}
	switch moved := o.moved.Load(); {
	case moved != p.moved:
		p.moved, p.stuck = moved, 0
	case o.busy.Load():
		p.stuck++
	default:
		p.stuck = 0
		o.trim()
	}
	return p.mute > beats || p.stuck > beats
}

// heardReader notes what is read.
type heardReader struct {
	io.Reader
	pulse *pulse
}

func (h heardReader) Read(b []byte) (int, error) {
	n, err := h.Reader.Read(b)
	if !h.pulse.heard.Load() {
		h.pulse.heard.Store(true)
	}
	return n, err
}
