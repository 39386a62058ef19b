package clock

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
)

func mustWide(t require.TestingT, cfg HLCConfig) *WideHLC {
	h, err := NewWideHLC(cfg)
	require.NoError(t, err)
	return h
}

func TestWideHLCReceiveRule(t *testing.T) {
	w := newFakeWall()
	h := mustWide(t, HLCConfig{Node: "a", Now: w.now, MaxOffset: time.Second})
	first := h.Now()
	require.Equal(t, WideTimestamp{w.now().UnixNano(), 0, "a"}, first)
	got, err := h.Update(WideTimestamp{first.Wall, 40, "b"})
	require.NoError(t, err)
	require.Equal(t, WideTimestamp{first.Wall, 41, "a"}, got)
	require.Equal(t, uint32(42), h.Now().Logical)
	w.move(1)
	require.Equal(t, WideTimestamp{first.Wall + 1, 0, "a"}, h.Now())

	_, err = h.Update(WideTimestamp{Wall: first.Wall + int64(time.Second) + 2})
	require.ErrorIs(t, err, ErrOffset)
	got, err = h.Update(WideTimestamp{Wall: first.Wall + 1, Logical: math.MaxUint32})
	require.NoError(t, err)
	require.Equal(t, WideTimestamp{first.Wall + 2, 0, "a"}, got)
	w.move(-time.Hour)
	require.Equal(t, WideTimestamp{first.Wall + 2, 1, "a"}, h.Now())
	require.Equal(t, uint64(1), h.Metrics().Behind)
	require.Equal(t, uint64(1), h.Metrics().Rejected)
}

func TestWideHLCNeverGoesBackAcrossRestarts(t *testing.T) {
	check(t, func(t *rapid.T) {
		w, d := newFakeWall(), &disk{}
		cfg := HLCConfig{Now: w.now, MaxOffset: time.Minute, Persist: d.persist, Window: 10 * time.Millisecond}
		h := mustWide(t, cfg)
		var last WideTimestamp
		issued := func(ts WideTimestamp) {
			require.True(t, last.Before(ts), "%v is not after %v", ts, last)
			require.Less(t, ts.Wall, int64(d.upper.Time))
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
				remote := WideTimestamp{Wall: w.now().UnixNano() + int64(rapid.IntRange(0, 1e9).Draw(t, "ns"))}
				got, err := h.Update(remote)
				if err != nil {
					require.ErrorIs(t, err, ErrNotPersisted)
					require.ErrorIs(t, h.Err(), d.fail)
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
				h = mustWide(t, cfg)
			},
		})
	})
}

func TestWideHLCConfigErrors(t *testing.T) {
	_, err := NewWideHLC(HLCConfig{MaxOffset: -1})
	require.ErrorContains(t, err, "MaxOffset")
	full := errors.New("disk full")
	_, err = NewWideHLC(HLCConfig{Persist: func(Timestamp) error { return full }})
	require.ErrorIs(t, err, full)
}

func TestWideTimestampEncodingKeepsOrder(t *testing.T) {
	check(t, func(t *rapid.T) {
		draw := rapid.Custom(func(t *rapid.T) WideTimestamp {
			return WideTimestamp{rapid.Int64Range(0, 3).Draw(t, "wall"), rapid.Uint32().Draw(t, "logical"),
				coterie.NodeID(rapid.String().Draw(t, "node"))}
		})
		a, b := draw.Draw(t, "a"), draw.Draw(t, "b")
		x, _ := a.MarshalBinary()
		y, _ := b.MarshalBinary()
		require.Equal(t, a.Compare(b), slices.Compare(x, y))
		var got WideTimestamp
		require.NoError(t, got.UnmarshalBinary(x))
		require.Equal(t, a, got)
		x, err := json.Marshal(b)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(x, &got))
		require.Equal(t, b, got)
	})
}

func TestWideHLCDoesNotAllocate(t *testing.T) {
	h := mustWide(t, HLCConfig{})
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = h.Update(h.Now()) }))
}

func FuzzWideTimestampUnmarshal(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 7, 'a'})
	f.Add([]byte{1, 0xff, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		old := WideTimestamp{7, 1, "old"}
		got := old
		if got.UnmarshalBinary(b) != nil {
			require.Equal(t, old, got)
			return
		}
		again, err := got.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, b, again)
	})
}
