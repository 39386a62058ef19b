package clock

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// WideTimestamp is a hybrid timestamp with the whole nanosecond and a counter of its own. WideTimestamps are totally
// ordered by Wall, Logical and Node.
type WideTimestamp struct {
	Wall    int64          `json:"wall,string"` // nanoseconds since 1970
	Logical uint32         `json:"logical"`     // events at the same Wall
	Node    coterie.NodeID `json:"node"`
}

// Compare returns -1, 0 or +1 as t is before, equal to or after u.
func (t WideTimestamp) Compare(u WideTimestamp) int {
	return cmp.Or(cmp.Compare(t.Wall, u.Wall), cmp.Compare(t.Logical, u.Logical),
		strings.Compare(string(t.Node), string(u.Node)))
}

// Before reports whether t is before u.
func (t WideTimestamp) Before(u WideTimestamp) bool { return t.Compare(u) < 0 }

// IsZero reports whether t is the zero WideTimestamp, which no clock issues.
func (t WideTimestamp) IsZero() bool { return t == WideTimestamp{} }

// Time returns Wall as a time.Time.
func (t WideTimestamp) Time() time.Time { return time.Unix(0, t.Wall) }

// String returns "wall.logical@node".
func (t WideTimestamp) String() string { return fmt.Sprintf("%d.%d@%s", t.Wall, t.Logical, t.Node) }

// next returns the time after t: the wide form, too, carries a counter that is used up into the wall part.
func (t WideTimestamp) next() WideTimestamp {
	if t.Logical == math.MaxUint32 {
		return WideTimestamp{Wall: t.Wall + 1}
	}
	return WideTimestamp{Wall: t.Wall, Logical: t.Logical + 1}
}

// AppendBinary appends the encoding of t: a format byte, 8 bytes of Wall, 4 of Logical, big endian, and Node, so that
// encodings compare as WideTimestamps from 1970 on do. It never fails.
func (t WideTimestamp) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, format)
	b = wire.AppendUint64(b, uint64(t.Wall))
	b = wire.AppendUint32(b, t.Logical)
	return append(b, t.Node...), nil
}

// MarshalBinary returns the encoding of t; see AppendBinary.
func (t WideTimestamp) MarshalBinary() ([]byte, error) { return t.AppendBinary(nil) }

// UnmarshalBinary sets t from its encoding. An error leaves t as it was; a newer format gives a *coterie.FormatError.
func (t *WideTimestamp) UnmarshalBinary(b []byte) error {
	r := wire.NewReader(b)
	if err := readFormat(&r, "wide timestamp"); err != nil {
		return err
	}
	u := WideTimestamp{Wall: int64(r.Uint64()), Logical: r.Uint32(), Node: coterie.NodeID(r.Rest())}
	if u.Wall < 0 {
		r.Fail("wall time %d", u.Wall)
	}
	if err := r.Done(); err != nil {
		return fmt.Errorf("clock: wide timestamp: %w", err)
	}
	*t = u
	return nil
}

// WideHLC is an HLC with WideTimestamps, for where the wall part must not be rounded: it has the guarantees of HLC,
// takes the same HLCConfig and counts the same metrics. It is behind a mutex, since its time does not fit an atomic
// word. It is safe for concurrent use.
//
// The upper bound that Persist gets is a Timestamp whose Time is in whole nanoseconds; as Floor it serves either form.
type WideHLC struct {
	cfg  HLCConfig
	skew skew

	mu    sync.Mutex // guards what follows, and is held during Persist
	last  WideTimestamp
	renew int64 // from this Wall on, the bound is to be moved
	upper int64 // every Wall is below it
	err   error // of the newest Persist
}

// NewWideHLC starts a clock; see NewHLC.
func NewWideHLC(cfg HLCConfig) (*WideHLC, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	h := &WideHLC{cfg: cfg, renew: math.MaxInt64, upper: math.MaxInt64}
	start := max(int64(cfg.Floor.Time)+1, h.wall())
	h.last = WideTimestamp{Wall: start - 1, Logical: math.MaxUint32}
	if cfg.Persist != nil {
		if err := h.persist(start); err != nil {
			return nil, fmt.Errorf("clock: NewWideHLC: %w: %w", ErrNotPersisted, err)
		}
	}
	return h, nil
}

// Now returns the timestamp of a local event or a send; see HLC.Now.
func (h *WideHLC) Now() WideTimestamp {
	wall := h.wall()
	h.mu.Lock()
	defer h.mu.Unlock()
	if behind := h.last.Wall - wall; behind > 0 {
		h.skew.behind(uint64(h.last.Wall), uint64(wall))
	}
	return h.issue(h.last.next(), wall)
}

// Update takes over a timestamp received from elsewhere; see HLC.Update.
func (h *WideHLC) Update(remote WideTimestamp) (WideTimestamp, error) {
	wall := h.wall()
	if err := h.skew.check(uint64(max(remote.Wall, 0)), uint64(wall), h.cfg.MaxOffset); err != nil {
		return WideTimestamp{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	least := h.last
	if seen := (WideTimestamp{Wall: remote.Wall, Logical: remote.Logical}); least.Before(seen) {
		least = seen
	}
	ts := h.issue(least.next(), wall)
	if ts.IsZero() {
		return ts, fmt.Errorf("clock: update to %v: %w: %w", remote, ErrNotPersisted, h.err)
	}
	return ts, nil
}

// Err returns the error of the newest call of Persist, nil if it succeeded.
func (h *WideHLC) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// Metrics returns what the clock has seen so far.
func (h *WideHLC) Metrics() HLCMetrics { return h.skew.metrics() }

// issue makes the greater of least and the wall time the newest, if the bound allows; else least, else none.
func (h *WideHLC) issue(least WideTimestamp, wall int64) WideTimestamp {
	want := least
	if wall > least.Wall {
		want = WideTimestamp{Wall: wall}
	}
	if want.Wall >= h.renew {
		_ = h.persist(want.Wall) // kept in err; without it, the old bound holds
	}
	if want.Wall >= h.upper {
		want = least
	}
	if want.Wall >= h.upper {
		return WideTimestamp{}
	}
	h.last = want
	want.Node = h.cfg.Node
	return want
}

// persist moves the upper bound to Window ahead of from.
func (h *WideHLC) persist(from int64) error {
	if from > math.MaxInt64-int64(h.cfg.Window) {
		h.err = errors.New("clock: at the end of 64 bits")
		return h.err
	}
	upper := from + int64(h.cfg.Window)
	if h.err = h.cfg.Persist(Timestamp{uint64(upper), h.cfg.Node}); h.err != nil {
		h.skew.persistErrors.Add(1)
		return h.err
	}
	h.upper, h.renew = upper, upper-int64(h.cfg.Window)/2
	return nil
}

func (h *WideHLC) wall() int64 { return max(h.cfg.Now().UnixNano(), 0) }
