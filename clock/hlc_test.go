package clock

import (
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// step is how far a packed timestamp's wall part moves at once.
const step = 65536 * time.Nanosecond

var epoch = time.Unix(0, 27_000_000_000_000*int64(step)) // in 2026, a whole number of steps

// fakeWall is a wall clock that a test sets.
type fakeWall struct{ ns atomic.Int64 }

func newFakeWall() *fakeWall {
	w := &fakeWall{}
	w.ns.Store(epoch.UnixNano())
	return w
}

func (w *fakeWall) now() time.Time         { return time.Unix(0, w.ns.Load()) }
func (w *fakeWall) move(d time.Duration)   { w.ns.Add(int64(d)) }
func (w *fakeWall) packed() uint64         { return uint64(w.ns.Load()) &^ logicalMask }
func (w *fakeWall) ahead(ts Timestamp) int { return int(ts.Time) - int(w.packed()) }

func mustHLC(t require.TestingT, cfg HLCConfig) *HLC {
	h, err := NewHLC(cfg)
	require.NoError(t, err)
	return h
}

func TestHLCFollowsTheWallClock(t *testing.T) {
	w := newFakeWall()
	h := mustHLC(t, HLCConfig{Node: "a", Now: w.now})
	first := h.Now()
	require.Equal(t, Timestamp{w.packed(), "a"}, first)
	require.True(t, first.Wall().Equal(epoch))
	require.Equal(t, uint16(1), h.Now().Logical())
	w.move(step)
	second := h.Now()
	require.True(t, second.Wall().Equal(epoch.Add(step)))
	require.Zero(t, second.Logical())
	require.Equal(t, second, h.Last())
	require.Zero(t, h.Ahead())
}

// A wall clock that goes back does not take the timestamps with it.
func TestHLCIsMonotonicAcrossBackwardSteps(t *testing.T) {
	w := newFakeWall()
	h := mustHLC(t, HLCConfig{Now: w.now})
	before := h.Now()
	w.move(-time.Hour)
	for range 100 {
		now := h.Now()
		require.Equal(t, before.Time+1, now.Time)
		before = now
	}
	require.Equal(t, uint64(100), h.Metrics().Behind)
	require.InDelta(t, time.Hour, h.Metrics().MaxBehind, float64(step))
	require.InDelta(t, time.Hour, h.Ahead(), float64(step))
}

// The receive rule at equal wall time: a remote with the higher counter must win, or the receipt is not after the send.
func TestHLCReceiveAtEqualWallTime(t *testing.T) {
	w := newFakeWall()
	h := mustHLC(t, HLCConfig{Node: "a", Now: w.now})
	h.Now()
	remote := Timestamp{w.packed() + 40, "b"}
	got, err := h.Update(remote)
	require.NoError(t, err)
	require.Equal(t, Timestamp{remote.Time + 1, "a"}, got)
	require.Equal(t, remote.Time+2, h.Now().Time)
	got, err = h.Update(remote) // now the local counter is the higher one
	require.NoError(t, err)
	require.Equal(t, remote.Time+3, got.Time)
}

func TestHLCRefusesTheFarFuture(t *testing.T) {
	w := newFakeWall()
	h := mustHLC(t, HLCConfig{Now: w.now, MaxOffset: 500 * time.Millisecond})
	last := h.Now()
	for _, ahead := range []time.Duration{500*time.Millisecond + step, time.Hour} {
		_, err := h.Update(Timestamp{Time: w.packed() + uint64(ahead)})
		require.ErrorIs(t, err, ErrOffset)
	}
	_, err := h.Update(Timestamp{Time: math.MaxUint64})
	require.ErrorIs(t, err, ErrOffset)
	require.Equal(t, last, h.Last())

	got, err := h.Update(Timestamp{Time: w.packed() + uint64(499*time.Millisecond)})
	require.NoError(t, err)
	require.Greater(t, got.Time, w.packed()+uint64(499*time.Millisecond))
	m := h.Metrics()
	require.Equal(t, []uint64{4, 3, 1}, []uint64{m.Updates, m.Rejected, m.Ahead})
	require.Greater(t, m.MaxAhead, time.Hour)
}

// A counter that is used up flows over into the wall part and the order goes on.
func TestHLCCounterOverflow(t *testing.T) {
	w := newFakeWall()
	h := mustHLC(t, HLCConfig{Now: w.now})
	var last Timestamp
	for range logicalMask + 10 {
		now := h.Now()
		require.True(t, last.Before(now))
		last = now
	}
	require.Less(t, w.ahead(last), 2*int(step))
}

func TestHLCConfigErrorsNameTheField(t *testing.T) {
	_, err := NewHLC(HLCConfig{MaxOffset: -1, Window: -1, Floor: Timestamp{Time: math.MaxUint64}})
	for _, field := range []string{"MaxOffset", "Window", "Floor"} {
		require.ErrorContains(t, err, field)
	}
	full := errors.New("disk full")
	_, err = NewHLC(HLCConfig{Persist: func(Timestamp) error { return full }})
	require.ErrorIs(t, err, full)
	require.ErrorIs(t, err, ErrNotPersisted)
}

// disk is what Persist writes to, and survives a restart.
type disk struct {
	mu    sync.Mutex
	upper Timestamp
	fail  error
	calls int
}

func (d *disk) persist(upper Timestamp) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	if d.fail != nil {
		return d.fail
	}
	d.upper = upper
	return nil
}

// Whatever the wall clocks of the incarnations say, no restart issues a timestamp that is not after all before, and
// none is issued above the persisted bound.
func TestHLCNeverGoesBackAcrossRestarts(t *testing.T) {
	check(t, func(t *rapid.T) {
		w, d := newFakeWall(), &disk{}
		cfg := HLCConfig{Now: w.now, MaxOffset: time.Minute, Persist: d.persist,
			Window: time.Duration(rapid.IntRange(1, 50).Draw(t, "window")) * time.Millisecond}
		h := mustHLC(t, cfg)
		last := Timestamp{}
		issued := func(ts Timestamp) {
			require.True(t, last.Before(ts), "%v is not after %v", ts, last)
			require.LessOrEqual(t, ts.Time, d.upper.Time)
			last = ts
		}
		t.Repeat(map[string]func(*rapid.T){
			"now":  func(*rapid.T) { issued(h.Now()) },
			"move": func(t *rapid.T) { w.move(time.Duration(rapid.IntRange(-20, 40).Draw(t, "ms")) * time.Millisecond) },
			"fail": func(t *rapid.T) {
				d.fail = nil
				if rapid.Bool().Draw(t, "fails") {
					d.fail = errors.New("disk full")
				}
			},
			"update": func(t *rapid.T) {
				remote := Timestamp{Time: w.packed() + uint64(rapid.IntRange(0, 1000).Draw(t, "ms"))*uint64(time.Millisecond)}
				before := h.Last()
				got, err := h.Update(remote)
				if err != nil {
					require.ErrorIs(t, err, ErrNotPersisted)
					require.ErrorIs(t, err, d.fail)
					require.Equal(t, before, h.Last())
					return
				}
				require.True(t, remote.Before(got))
				issued(got)
			},
			"restart": func(t *rapid.T) {
				if d.fail != nil {
					t.Skip("a clock does not start without its bound")
				}
				cfg.Floor = d.upper
				h = mustHLC(t, cfg)
			},
		})
	})
}

func TestHLCPersistsAheadByWindow(t *testing.T) {
	w, d := newFakeWall(), &disk{}
	h := mustHLC(t, HLCConfig{Now: w.now, Persist: d.persist})
	require.Equal(t, w.packed()+uint64(time.Second), d.upper.Time)
	for range 100_000 {
		h.Now()
		w.move(100 * time.Microsecond)
	}
	require.InDelta(t, 21, d.calls, 2) // 10 s, each half of a second
	d.fail = errors.New("disk full")
	w.move(time.Hour)
	stuck := h.Now()
	require.False(t, stuck.IsZero())
	require.LessOrEqual(t, stuck.Time, d.upper.Time)
	require.ErrorIs(t, h.Err(), d.fail)
	require.Equal(t, uint64(1), h.Metrics().PersistErrors)
	d.fail = nil
	require.Equal(t, w.packed(), h.Now().Time)
	require.NoError(t, h.Err())
}

// Also a clock that only counts, since the wall clock stands, moves its bound ahead of need.
func TestHLCPersistsAheadWhileCounting(t *testing.T) {
	w, d := newFakeWall(), &disk{}
	h := mustHLC(t, HLCConfig{Now: w.now, Persist: d.persist, Window: time.Millisecond})
	for range 510_000 {
		h.Now()
	}
	require.Equal(t, 2, d.calls)
}

// However the wall clock or a peer runs up to the bound while it cannot be moved, a quarter of the Window is left.
func TestHLCKeepsRoomBelowTheBound(t *testing.T) {
	w, d := newFakeWall(), &disk{}
	h := mustHLC(t, HLCConfig{Now: w.now, Persist: d.persist, Window: 100 * time.Millisecond})
	d.fail = errors.New("disk full")
	for range 3000 { // 195 ms
		require.False(t, h.Now().IsZero())
		w.move(step)
		_, err := h.Update(Timestamp{Time: d.upper.Time - 1})
		require.ErrorIs(t, err, ErrNotPersisted)
	}
	require.Less(t, h.Last().Time, d.upper.Time-uint64(24*time.Millisecond))
	_, err := h.Update(Timestamp{Time: 1}) // what asks for no room is still taken
	require.NoError(t, err)
}

// With the room below the bound used up and no way to move it, the clock issues nothing rather than something unsafe.
func TestHLCWithoutRoomIssuesZero(t *testing.T) {
	w, d := newFakeWall(), &disk{}
	h := mustHLC(t, HLCConfig{Now: w.now, Persist: d.persist, Window: time.Millisecond})
	d.fail = errors.New("disk full")
	w.move(time.Second)
	n := 0
	for !h.Now().IsZero() {
		n++
	}
	require.Equal(t, int(time.Millisecond)+1, n) // the bound itself included
	require.True(t, h.Now().IsZero())
	require.Equal(t, d.upper, h.Last())
	d.fail = nil
	require.Equal(t, w.packed(), h.Now().Time)
}

func TestHLCConcurrentTimestampsAreUniqueAndBelowTheBound(t *testing.T) {
	d := &disk{}
	h := mustHLC(t, HLCConfig{Persist: d.persist, Window: time.Millisecond})
	const each, workers = 5000, 4
	got := make([][]uint64, workers)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			for range each {
				now := h.Now()
				d.mu.Lock()
				upper := d.upper.Time
				d.mu.Unlock()
				if now.Time > upper {
					t.Errorf("%d is above the bound %d", now.Time, upper)
				}
				got[i] = append(got[i], now.Time)
			}
		})
	}
	wg.Wait()
	all := slices.Concat(got...)
	for _, mine := range got {
		require.True(t, slices.IsSorted(mine))
	}
	slices.Sort(all)
	require.Len(t, slices.Compact(all), each*workers)
}

func TestHLCDoesNotAllocate(t *testing.T) {
	d := &disk{}
	h := mustHLC(t, HLCConfig{Node: "a", Persist: d.persist})
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_, _ = h.Update(h.Now())
	}))
}
