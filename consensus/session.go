package consensus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/coterie-go/coterie"
)

// Replica is a coterie.Replica that knows sessions: a Driver, a protocol's Node, or a Client far away.
type Replica interface {
	coterie.Replica
	// OpenSession opens a session and returns its id, see NewSession.
	OpenSession(ctx context.Context) (id uint64, err error)
	// ProposeAs makes one try of a session's command, see Session.
	ProposeAs(ctx context.Context, tag Tag, command []byte) (result []byte, err error)
	// EndSession makes the replicas forget a session.
	EndSession(ctx context.Context, id uint64) error
}

// Session is a client whose every command is applied exactly once, however often it is sent: it numbers its commands
// and tries each again until it has the answer. The replicas remember the answers for as long as the Session may ask
// again, in their snapshots too.
//
// Its methods are safe for concurrent use; commands of concurrent calls are applied in any order. At most 1,024 are
// under way, counted from the oldest that is; more wait.
type Session struct {
	replica Replica
	id      uint64

	mu     sync.Mutex      // guards what follows
	next   uint64          // the number of the next command
	low    uint64          // the oldest number under way; next if there is none
	over   map[uint64]bool // those from low on that are not under way any more
	lowers chan struct{}   // closed when low rises
}

// NewSession opens a session with a replica. The error is what Propose returns once ctx has ended.
func NewSession(ctx context.Context, r Replica) (*Session, error) {
	s := &Session{replica: r, next: 1, low: 1, over: make(map[uint64]bool), lowers: make(chan struct{})}
	err := retry(ctx, func() (err error) {
		s.id, err = r.OpenSession(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("consensus: open a session: %w", err)
	}
	return s, nil
}

// ID is the session's id, the same on every replica.
func (s *Session) ID() uint64 { return s.id }

// Propose replicates a command and returns its result. It is tried again, with growing pauses, while there is no
// leader, the replica is overloaded, or the outcome is unknown, until ctx ends; the error is then ctx.Err() and that of
// the last try, and ErrUnknownOutcome if any try may have been done or may be done later. ErrSessionExpired says that
// the replicas have forgotten the session; ErrClosed that the replica is closed.
func (s *Session) Propose(ctx context.Context, command []byte) ([]byte, error) {
	tag, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer s.finish(tag.Seq)
	var result []byte
	err = retry(ctx, func() (err error) {
		result, err = s.replica.ProposeAs(ctx, tag, command)
		return err
	})
	return result, err
}

// Close makes the replicas forget the session. Propose must not be called any more.
func (s *Session) Close(ctx context.Context) error {
	return retry(ctx, func() error { return s.replica.EndSession(ctx, s.id) })
}

// begin numbers a command, when it is within the window.
func (s *Session) begin(ctx context.Context) (Tag, error) {
	for {
		s.mu.Lock()
		if s.next-s.low < sessionWindow {
			tag := Tag{Session: s.id, Seq: s.next, Low: s.low}
			s.next++
			s.mu.Unlock()
			return tag, nil
		}
		lowers := s.lowers
		s.mu.Unlock()
		select {
		case <-lowers:
		case <-ctx.Done():
			return Tag{}, ctx.Err()
		}
	}
}

// finish notes that a command is not under way any more: answered or given up.
func (s *Session) finish(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over[seq] = true
	if seq != s.low {
		return
	}
	for s.over[s.low] {
		delete(s.over, s.low)
		s.low++
	}
	close(s.lowers)
	s.lowers = make(chan struct{})
}

const (
	firstPause = 2 * time.Millisecond
	maxPause   = 200 * time.Millisecond
)

// retry calls try until it succeeds, fails for good, or ctx ends.
func retry(ctx context.Context, try func() error) error {
	unknown := false
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		err := try()
		again := retryable(err)
		unknown = unknown || errors.Is(err, coterie.ErrUnknownOutcome)
		if again && ctx.Err() == nil {
			timer := time.NewTimer(pause/2 + rand.N(pause)) // jitter, so that many clients do not come back at once
			select {
			case <-timer.C:
				continue
			case <-ctx.Done():
				timer.Stop()
				err = errors.Join(ctx.Err(), err)
			}
		}
		if err != nil && unknown && !errors.Is(err, coterie.ErrUnknownOutcome) {
			err = fmt.Errorf("%w: %w", coterie.ErrUnknownOutcome, err)
		}
		return err
	}
}

// retryable reports whether another try may fare better.
func retryable(err error) bool {
	for _, e := range []error{coterie.ErrNotLeader, coterie.ErrOverloaded, coterie.ErrUnknownOutcome, coterie.ErrNoQuorum} {
		if errors.Is(err, e) {
			return !errors.Is(err, coterie.ErrClosed)
		}
	}
	return errors.Is(err, errUnreachable)
}
