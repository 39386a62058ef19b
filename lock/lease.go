package lock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Lease is one holding of a lock. Whoever was given it holds the lock until Release, or until Lost is closed. All its
// methods are safe for concurrent use.
type Lease struct {
	cfg  LeaseConfig
	lost chan struct{}

	mu       sync.Mutex // guards what follows
	state    state
	expires  time.Time
	timer    *time.Timer // nil if the lease does not end by time
	watching []func()    // called once when it is lost

	releasing chan struct{} // holds one while cfg.Release runs, and guards what follows
	released  bool          // cfg.Release has answered, with answer
	answer    error
}

type state uint8

const (
	held state = iota
	lost
	givenBack
)

// LeaseConfig is what the author of a Locker makes a Lease of.
type LeaseConfig struct {
	Name  string
	Token uint64 // larger than that of every earlier holder of the name
	// Expires is when the holder must stop believing in the lock, on its own monotonic clock: the moment at which the
	// request that was granted or renewed left, plus the TTL, minus a bound on how clocks differ. Zero is never.
	Expires time.Time
	// Release gives the lock back. It is called once, or again after an error that was not ErrLost, never twice at a
	// time, also for a Lease that was lost: what is left of it is tidied up. ErrLost says that it was held no more.
	// Required.
	Release func(ctx context.Context) error
}

// NewLease makes a Lease that is held; for authors of Lockers. It panics if cfg.Release is nil.
func NewLease(cfg LeaseConfig) *Lease {
	if cfg.Release == nil {
		panic("lock: NewLease without Release")
	}
	l := &Lease{cfg: cfg, lost: make(chan struct{}), releasing: make(chan struct{}, 1), expires: cfg.Expires}
	if !cfg.Expires.IsZero() {
		l.mu.Lock() // the timer may be quicker than its assignment
		defer l.mu.Unlock()
		l.timer = time.AfterFunc(time.Until(cfg.Expires), l.expire)
	}
	return l
}

// Name is the name that is locked.
func (l *Lease) Name() string { return l.cfg.Name }

// Token is the fencing token, larger than that of every earlier holder of this name. Send it with every write, to be
// checked at the resource by a Fence.
func (l *Lease) Token() uint64 { return l.cfg.Token }

// Lost is closed when the lock may be lost: because it could not be renewed in time by the holder's own clock, with no
// answer of any server needed, or because a server said so. It is not closed by Release. A process that was paused sees
// it closed only after it goes on: see the package comment.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

// Err is nil while the lock is held, ErrLost when it may be lost and ErrReleased after Release. It looks at the clock
// itself, and so is right at the moment it looks even if a pause delayed Lost.
func (l *Lease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look()
	switch l.state {
	case lost:
		return l.fault(ErrLost)
	case givenBack:
		return l.fault(ErrReleased)
	case held:
	}
	return nil
}

// Expires is until when the lock is held if it is not renewed any more; zero is for ever.
func (l *Lease) Expires() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expires
}

// Release gives the lock back. It returns ErrLost if the lock was lost before, also if only the servers know of that.
// On any other error, that of ctx for one, the lock may be held on until it expires, and Release may be called again;
// the caller does not hold it any more in either case. After an answer, Release returns the same again.
func (l *Lease) Release(ctx context.Context) error {
	l.mu.Lock()
	l.look()
	wasLost := l.state == lost
	if l.state == held {
		l.state = givenBack
		if l.timer != nil {
			l.timer.Stop()
		}
		l.watching = nil
	}
	l.mu.Unlock()

	select {
	case l.releasing <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("lock: release %s: %w", l.cfg.Name, ctx.Err())
	}
	defer func() { <-l.releasing }()
	if !l.released {
		err := l.cfg.Release(ctx)
		if err != nil && !errors.Is(err, ErrLost) && !wasLost {
			return fmt.Errorf("lock: release %s: %w", l.cfg.Name, err)
		}
		l.released, l.answer = true, err
		if wasLost {
			l.answer = l.fault(ErrLost)
		}
	}
	return l.answer
}

// Extend moves the end of a lease that is held; for authors of Lockers, when it is renewed. It reports whether the
// lease is held: one that has ended stays lost, however late the answer was that came too late.
func (l *Lease) Extend(expires time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look()
	if l.state != held {
		return false
	}
	if l.timer != nil && expires.After(l.expires) {
		l.expires = expires
		l.timer.Reset(time.Until(expires))
	}
	return true
}

// Lose tells a lease that is held that it is lost; for authors of Lockers.
func (l *Lease) Lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lose()
}

// expire is the timer's. A reset may have come in between.
func (l *Lease) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look()
}

// look loses the lease if its time is over. The caller holds mu.
func (l *Lease) look() {
	if !l.expires.IsZero() && !time.Now().Before(l.expires) {
		l.lose()
	}
}

func (l *Lease) lose() {
	if l.state != held {
		return
	}
	l.state = lost
	if l.timer != nil {
		l.timer.Stop()
	}
	close(l.lost)
	for _, f := range l.watching {
		f()
	}
	l.watching = nil
}

// onLost calls f once when the lease is lost, at once if it is. f must not block or call the Lease.
func (l *Lease) onLost(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == lost {
		f()
		return
	}
	l.watching = append(l.watching, f)
}

func (l *Lease) fault(err error) error {
	return fmt.Errorf("%w: %s, token %d", err, l.cfg.Name, l.cfg.Token)
}
