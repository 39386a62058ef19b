package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/coterie-go/coterie/internal/wire"
)

// messageOverhead is what a message of a stream counts for beside its bytes, so that empty ones are bounded too.
const messageOverhead = 32

// errCredit is what a peer does that sends more than it may.
var errCredit = errors.New("rpc: stream message without credit")

// stream is one end of a stream, of either side. What a sender may send is bounded by credit that the receiver gives:
// the window at first, and what was received since. So what waits at the receiver is at most the window (or two
// messages, if these are larger), the goroutine that reads a connection never waits for a stream, and a slow
// receiver stops its own sender and nobody else.
//
// Invariants: 0 <= credit; 0 <= granted <= window; granted + what waits + what is to be returned = window.
type stream struct {
	ctx    context.Context
	id     uint64
	out    *outbox
	limit  int // bytes of a message
	window int // bytes that may wait

	readable, writable chan struct{} // of capacity 1: look again
	finished           chan struct{} // closed when err is set

	mu      sync.Mutex // guards what follows
	inbox   [][]byte   // messages that wait
	granted int        // credit that the peer has left
	due     int        // credit of messages taken, not yet returned to the peer
	credit  int        // what may be sent to the peer
	most    int        // the largest credit the peer gives: a message that costs more costs that
	ended   bool       // the peer sends no more messages
	closed  bool       // this side sends no more messages
	err     error      // how the call ended, io.EOF if well
	answer  []byte     // with io.EOF: the payload of the response
}

func newStream(ctx context.Context, id uint64, out *outbox, limit, window, credit int) *stream {
	return &stream{
		ctx: ctx, id: id, out: out, limit: limit, window: window, granted: window, credit: credit, most: credit,
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1), finished: make(chan struct{}),
	}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// cost is what a message of some bytes takes of the credit of a window. Half a window buys any: a quarter may be owed
// by a receiver that waits for the next message, and must not be missed.
func cost(size, window int) int { return min(size+messageOverhead, (window+1)/2) }

// deliver takes a message that came. It never blocks; an error is the peer's fault.
func (s *stream) deliver(payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	price := cost(len(payload), s.window)
	switch {
	case s.err != nil:
		return nil // crossed with the end
	case s.ended:
		return fmt.Errorf("%w: after the end", errCredit)
	case price > s.granted:
		return errCredit
	}
	s.granted -= price
	s.inbox = append(s.inbox, payload)
	nudge(s.readable)
	return nil
}

// addCredit takes credit that came.
func (s *stream) addCredit(amount uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	const most = 1 << 40
	if amount == 0 || amount > most || uint64(s.credit)+amount > most {
		return fmt.Errorf("%w: credit of %d more than %d", errCredit, amount, s.credit)
	}
	s.most = max(s.most, int(amount)) // the first one is the window
	s.credit += int(amount)
	nudge(s.writable)
	return nil
}

// end notes that the peer sends no more.
func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	nudge(s.readable)
}

// finish ends the stream: what has come before can still be received, nothing can be sent.
func (s *stream) finish(err error, answer []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	if err == nil {
		err = io.EOF
	}
	s.err, s.answer = err, answer
	close(s.finished)
	nudge(s.readable)
	nudge(s.writable)
}

// recv returns the next message, io.EOF after the last.
func (s *stream) recv() ([]byte, error) {
	for {
		s.mu.Lock()
		if len(s.inbox) > 0 {
			p := s.inbox[0]
			s.inbox[0] = nil
			s.inbox = s.inbox[1:]
			s.due += cost(len(p), s.window)
			back := 0
			if s.due >= (s.window+3)/4 && s.err == nil && !s.ended {
				back, s.due = s.due, 0
				s.granted += back
			}
			s.mu.Unlock()
			if back > 0 {
				s.out.pushNote(kindCredit, note{s.id, uint64(back)})
			}
			return p, nil
		}
		err, ended := s.err, s.ended
		s.mu.Unlock()
		switch {
		case err != nil:
			return nil, err
		case ended:
			return nil, io.EOF
		}
		select {
		case <-s.readable:
		case <-s.ctx.Done():
			return nil, s.ctx.Err()
		}
	}
}

// send sends a message when there is credit for it.
func (s *stream) send(payload []byte) error {
	if len(payload) > s.limit {
		return fmt.Errorf("rpc: stream message of %d bytes, at most %d: %w", len(payload), s.limit, ErrTooLarge)
	}
	for {
		s.mu.Lock()
		price := cost(len(payload), s.most)
		enough := s.most > 0 && s.credit >= price
		if s.err != nil || s.closed {
			err := s.err
			s.mu.Unlock()
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrClosedPipe
			}
			return err
		}
		if enough {
			s.credit -= price
			s.mu.Unlock()
			var b [10]byte
			return s.out.push(kindMessage, wire.AppendUvarint(b[:0], s.id), payload, 0, behind)
		}
		s.mu.Unlock()
		select {
		case <-s.writable:
		case <-s.finished:
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
}

// closeSend tells the peer that no more messages come.
func (s *stream) closeSend() {
	s.mu.Lock()
	done := s.closed || s.err != nil
	s.closed = true
	s.mu.Unlock()
	if !done {
		s.out.pushNote(kindEnd, note{id: s.id})
	}
}

// Stream is one side of a call that sends any number of messages of type Out and receives any number of type In, in
// order. One goroutine may send while another receives; neither Send nor Recv may be called by two at once. A side
// that does not receive stops the other's Send when Config.Window is full, and no other call.
type Stream[Out, In any] struct {
	s       *stream
	codec   Codec
	buf     []byte
	release func() // of a client: gives the call up if it has not ended
}

// Context is the call's: in a handler it ends when the caller gives up or the connection breaks.
func (s *Stream[Out, In]) Context() context.Context { return s.s.ctx }

// Send sends a message, and blocks while the other side is not ready to take it. It returns the context's error,
// ErrTooLarge, how the call ended, or io.ErrClosedPipe after CloseSend or when the call has ended well.
func (s *Stream[Out, In]) Send(v Out) error {
	b, err := s.codec.Append(s.buf[:0], &v)
	if err != nil {
		return fmt.Errorf("rpc: encode: %w", err)
	}
	s.buf = b
	return s.s.send(b)
}

// Recv returns the next message. After the last it returns io.EOF: in a handler when the caller has called CloseSend,
// for a caller when the handler has returned nil. Otherwise it is the context's error, or how the call ended: an
// *Error, or coterie.ErrUnknownOutcome when the connection broke.
func (s *Stream[Out, In]) Recv() (v In, err error) {
	p, err := s.s.recv()
	if err != nil {
		return v, err
	}
	if err := s.codec.Decode(p, &v); err != nil {
		return v, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	return v, nil
}

// CloseSend tells the other side that no more messages come. In a handler it does nothing: to return does that.
func (s *Stream[Out, In]) CloseSend() {
	if s.release != nil {
		s.s.closeSend()
	}
}

// Close gives the call up if it has not ended. A caller calls it in any case; in a handler it does nothing. Closing
// twice is harmless.
func (s *Stream[Out, In]) Close() error {
	if s.release != nil {
		s.release()
	}
	return nil
}
