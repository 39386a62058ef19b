package clock

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
)

// logicalMask covers the bits of a packed timestamp that count events within one step of the wall clock.
const logicalMask = 1<<16 - 1

// The defaults of HLCConfig.
const (
	DefaultMaxOffset = 2 * time.Second
	DefaultWindow    = time.Second
)

// ErrOffset is returned by Update for a timestamp further ahead of the wall clock than MaxOffset; the clock is as it
// was. Either the sender's clock is wrong or one's own.
var ErrOffset = errors.New("clock: timestamp too far ahead of the wall clock")

// ErrNotPersisted is returned by Update for a timestamp that lies beyond the persisted upper bound, when that cannot
// be moved because Persist fails; it comes wrapped with Persist's error. The clock is as it was.
var ErrNotPersisted = errors.New("clock: upper bound not persisted")

// HLCConfig configures a hybrid logical clock; the zero value is a clock on time.Now that persists nothing.
type HLCConfig struct {
	Node      coterie.NodeID   // stamped on every Timestamp, so that all nodes' timestamps are totally ordered; may be empty
	Now       func() time.Time // the wall clock, safe for concurrent use; default time.Now
	MaxOffset time.Duration    // Update refuses what is further ahead of Now; default 2 s

	// Persist makes an upper bound of all timestamps durable before any above the previous bound is issued. One call
	// at a time is made, by NewHLC and then from within Now or Update, each time half of Window is used up; other
	// callers go on meanwhile. Default nil: a restarted clock may then go back behind what it issued before, if the
	// wall clock has gone back.
	Persist func(upper Timestamp) error
	Window  time.Duration // how far ahead of the clock each upper bound lies; default 1 s
	Floor   Timestamp     // after a restart, the last upper bound persisted: every timestamp will be after it
}

func (c HLCConfig) withDefaults() HLCConfig {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.MaxOffset == 0 {
		c.MaxOffset = DefaultMaxOffset
	}
	if c.Window == 0 {
		c.Window = DefaultWindow
	}
	return c
}

func (c HLCConfig) validate() error {
	var errs []error
	if c.MaxOffset < 0 {
		errs = append(errs, fmt.Errorf("field MaxOffset: %v is negative", c.MaxOffset))
	}
	// A window of a few wall steps would persist at nearly every call.
	if c.Window < time.Millisecond || c.Window > time.Hour {
		errs = append(errs, fmt.Errorf("field Window: %v is not within 1ms and 1h", c.Window))
	}
	if c.Floor.Time > MaxTime {
		errs = append(errs, fmt.Errorf("field Floor: %d: %w", c.Floor.Time, ErrOverflow))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clock: HLCConfig: %w", err)
	}
	return nil
}

// HLC is a hybrid logical clock (Kulkarni, Demirbas, Madappa, Avva and Leone, "Logical Physical Clocks and Consistent
// Snapshots in Globally Distributed Databases", 2014). Its timestamps keep Lamport's condition, so that what happened
// before has the smaller one, and stay close to wall time.
//
// Packed as in §6.2 of the paper, a timestamp's 64 bits are nanoseconds since 1970 in which the lowest 16 bits count
// events instead. The paper's two cases for equal and for advancing wall time then are one: the next timestamp is the
// greatest of the last one plus 1, the received one plus 1, and the wall clock. A counter that is used up flows over
// into the wall part.
//
// Guarantees: Now and Update return strictly increasing values, greater than any that Update accepted, also while the
// wall clock goes back, and, with Persist and Floor, across restarts. A timestamp is ahead of the wall clock by no more
// than the greatest of MaxOffset, how far the wall clock has gone back, and, after a restart, Window; plus a nanosecond
// per event. A restarted clock that is ahead by more than its peers' MaxOffset is refused by them until the wall clock
// has caught up: Ahead tells, so a server can wait before it serves, or choose a Window below MaxOffset.
//
// An HLC is safe for concurrent use.
type HLC struct {
	cfg HLCConfig

	// The newest timestamp, on a cache line of its own: every call of every processor writes it, and what they only
	// read should not leave their caches with it.
	_    [64]byte
	last atomic.Uint64
	_    [64]byte

	// Of renew <= upper, the second is never passed; from the first on, one caller moves both. Without Persist both
	// are the greatest possible.
	renew, upper atomic.Uint64

	persisting sync.Mutex // held during Persist
	skew       skew

	errMu sync.Mutex // guards err
	err   error      // of the newest Persist
}

// NewHLC starts a clock. With Persist it persists a first upper bound. Errors name the field, or are Persist's.
func NewHLC(cfg HLCConfig) (*HLC, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	h := &HLC{cfg: cfg}
	start := h.wall()
	// Not from 0, else a clock whose Persist fails at once would count on from 1970.
	h.last.Store(max(cfg.Floor.Time, max(start, 1)-1))
	h.renew.Store(math.MaxUint64)
	h.upper.Store(math.MaxUint64)
	if cfg.Persist != nil {
		if err := h.persist(max(cfg.Floor.Time, start)); err != nil {
			return nil, fmt.Errorf("clock: NewHLC: %w: %w", ErrNotPersisted, err)
		}
	}
	return h, nil
}

// Now returns the timestamp of a local event or a send, greater than all before.
//
// It has no error to check, since it can do without Persist for a while: when that fails, the clock stops following
// the wall clock and counts on through the last quarter of the Window below the last bound, which by default has room
// for 250 million timestamps; Err tells, every call tries again, and Update refuses what lies in that quarter or
// beyond. Should the room be used up, Now returns the zero Timestamp, the only one that IsZero, and issues none that a restart could issue again.
func (h *HLC) Now() Timestamp {
	wall := h.wall()
	// Mostly an event is not the first in its step of the wall clock. Then counting on is enough, which unlike an
	// exchange cannot lose a race and try again. If racing calls took the count over the bound all the same, what is
	// beyond it is not issued.
	if last := h.last.Load(); last >= wall && last+1 < h.renew.Load() {
		if next := h.last.Add(1); next <= h.upper.Load() {
			if last > wall|logicalMask {
				h.skew.behind(last, wall)
			}
			return Timestamp{next, h.cfg.Node}
		}
	}
	for {
		last := h.last.Load()
		next := max(last+1, wall)
		if next >= h.renew.Load() {
			if next = h.extend(last+1, next, true); next == 0 {
				return Timestamp{}
			}
		}
		if h.last.CompareAndSwap(last, next) {
			if last > wall|logicalMask {
				h.skew.behind(last, wall)
			}
			return Timestamp{next, h.cfg.Node}
		}
	}
}

// Update takes over a timestamp received from elsewhere and returns that of the receipt, which is greater than both
// the received one and all before. One further than MaxOffset ahead of the wall clock gives ErrOffset; ErrNotPersisted
// is the other possible error. The clock is then as it was.
func (h *HLC) Update(remote Timestamp) (Timestamp, error) {
	wall := h.wall()
	if err := h.skew.check(remote.Time&^logicalMask, wall, h.cfg.MaxOffset); err != nil {
		return Timestamp{}, err
	}
	for {
		last := h.last.Load()
		least := max(last, remote.Time) + 1
		next := max(least, wall)
		if next >= h.renew.Load() {
			if next = h.extend(least, next, remote.Time <= last); next == 0 {
				return Timestamp{}, fmt.Errorf("clock: update to %v: %w: %w", remote, ErrNotPersisted, h.Err())
			}
		}
		if h.last.CompareAndSwap(last, next) {
			return Timestamp{next, h.cfg.Node}, nil
		}
	}
}

// Last returns the newest timestamp issued, without making one; of a new clock, where it starts from.
func (h *HLC) Last() Timestamp { return Timestamp{h.last.Load(), h.cfg.Node} }

// Ahead returns how far the clock is ahead of the wall clock, 0 if it is not.
func (h *HLC) Ahead() time.Duration {
	last, wall := h.last.Load(), h.wall()
	if last <= wall|logicalMask {
		return 0
	}
	return time.Duration(last - wall)
}

// Err returns the error of the newest call of Persist, nil if it succeeded.
func (h *HLC) Err() error {
	h.errMu.Lock()
	defer h.errMu.Unlock()
	return h.err
}

// Metrics returns what the clock has seen so far.
func (h *HLC) Metrics() HLCMetrics { return h.skew.metrics() }

// wall reads the wall clock as a packed timestamp. Times before 1970 read as 1970.
func (h *HLC) wall() uint64 {
	return uint64(max(h.cfg.Now().UnixNano(), 0)) &^ logicalMask
}

// extend is called when the wanted timestamp has reached the bound's renewal. It returns the timestamp to issue: want,
// or the least allowed one while the bound cannot be moved, or 0 if there is none. The last quarter below the bound is
// kept for counting on by one: a wall clock or a peer that ran up to the bound would leave no room.
func (h *HLC) extend(least, want uint64, counting bool) uint64 {
	reserve := uint64(h.cfg.Window) / 4
	// Below the reserve one caller persists and the rest go on; beyond it they must wait for that.
	if want <= h.upper.Load()-reserve {
		if !h.persisting.TryLock() {
			return want
		}
	} else {
		h.persisting.Lock()
	}
	defer h.persisting.Unlock()
	if want >= h.renew.Load() {
		_ = h.persist(want) // Err keeps the error; what it means for the timestamp follows
	}
	switch upper := h.upper.Load(); {
	case want <= upper-reserve:
		return want
	case least <= upper-reserve, counting && least <= upper:
		return least
	}
	return 0
}

// persist moves the upper bound to Window ahead of from. The caller holds persisting, or is NewHLC.
func (h *HLC) persist(from uint64) error {
	upper := from + uint64(h.cfg.Window)
	err := h.cfg.Persist(Timestamp{upper, h.cfg.Node})
	h.errMu.Lock()
	h.err = err
	h.errMu.Unlock()
	if err != nil {
		h.skew.persistErrors.Add(1)
		return err
	}
	h.upper.Store(upper)
	h.renew.Store(upper - uint64(h.cfg.Window)/2)
	return nil
}
