package lock

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Locker gives leases of names. Every method is safe for concurrent use, also for one name: each call that succeeds has
// a Lease of its own, and two goroutines of a process exclude each other as two machines do.
type Locker interface {
	// Acquire waits until the name is free and returns its lease. Errors: that of ctx if it ends first, and then the
	// caller does not hold the lock and will not; an error of Options.Validate; errors.ErrUnsupported for options
	// that this Locker lacks; coterie.ErrClosed.
	Acquire(ctx context.Context, name string, o Options) (*Lease, error)
	// TryAcquire is Acquire that does not wait for other holders: ErrBusy if there are some. It still waits for the
	// network, as long as ctx allows.
	TryAcquire(ctx context.Context, name string, o Options) (*Lease, error)
}

// Mode is how a lock excludes others.
type Mode uint8

// The modes of a lock.
const (
	Exclusive Mode = iota // excludes everyone, or with a Limit all but so many
	Shared                // excludes the exclusive only
)

// String returns "exclusive" or "shared".
func (m Mode) String() string {
	switch m {
	case Exclusive:
		return "exclusive"
	case Shared:
		return "shared"
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// Options are those of one acquisition. The zero value is an exclusive lock of the Locker's default TTL.
type Options struct {
	TTL   time.Duration // how long a silent holder keeps the lock; default the Locker's; a Locker without leases ignores it
	Mode  Mode          // default Exclusive
	Limit int           // how many may hold the lock at once, a semaphore; default 1; everyone must use the same for a name
}

// Validate tells what no Locker accepts.
func (o Options) Validate() error {
	var errs []error
	if o.TTL < 0 {
		errs = append(errs, fmt.Errorf("lock: Options.TTL %v is negative", o.TTL))
	}
	if o.Mode > Shared {
		errs = append(errs, fmt.Errorf("lock: Options.Mode is unknown: %v", o.Mode))
	}
	if o.Limit < 0 {
		errs = append(errs, fmt.Errorf("lock: Options.Limit %d is negative", o.Limit))
	}
	if o.Mode == Shared && o.Limit > 1 {
		errs = append(errs, fmt.Errorf("lock: Options.Limit %d of a shared lock, which has none", o.Limit))
	}
	return errors.Join(errs...)
}

// Errors of locks. They come wrapped: test with errors.Is.
var (
	// ErrBusy is returned by TryAcquire when others hold the lock. Nothing was changed.
	ErrBusy = errors.New("lock: busy")
	// ErrLost is returned by a Lease that is held no more, or perhaps no more, though it was not released. What was
	// done since cannot be trusted to have been alone, unless a Fence was there.
	ErrLost = errors.New("lock: lost")
	// ErrReleased is returned by Err of a Lease that was given back.
	ErrReleased = errors.New("lock: released")
	// ErrStale is returned by a Fence for a token lower than one it has seen. Nothing was changed. A *StaleError says
	// more.
	ErrStale = errors.New("lock: stale token")
)

// Do acquires the lock, runs f and releases the lock. The context that f gets is cancelled, with ErrLost as its cause,
// the moment the lease may be lost; f should end then, and hand the token to every resource it writes to. Do returns
// the error of f, joined with ErrLost if the lease was lost before f returned, and with that of Release, which may take
// up to releaseTimeout after ctx has ended.
func Do(ctx context.Context, l Locker, name string, o Options, f func(ctx context.Context, token uint64) error) error {
	lease, err := l.Acquire(ctx, name, o)
	if err != nil {
		return err
	}
	inner, cancel := context.WithCancelCause(ctx)
	lease.onLost(func() { cancel(fmt.Errorf("%w: %s", ErrLost, name)) })
	release := func() error {
		cancel(nil)
		// The lock is given back even if ctx has ended: others wait for it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		return lease.Release(ctx)
	}
	panicked := true
	defer func() {
		if panicked {
			_ = release() // the panic is what to tell
		}
	}()
	err = f(inner, lease.Token())
	panicked = false
	return errors.Join(err, release())
}

// releaseTimeout is how long Do waits for the answer to its release.
const releaseTimeout = 5 * time.Second
