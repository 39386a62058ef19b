package clock

import (
	"encoding/json"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
)

func TestLamportWitness(t *testing.T) {
	var l Lamport
	require.Equal(t, uint64(1), l.Tick())
	got, err := l.Witness(10)
	require.NoError(t, err)
	require.Equal(t, uint64(11), got)
	got, err = l.Witness(3)
	require.NoError(t, err)
	require.Equal(t, uint64(12), got)
	require.Equal(t, uint64(12), l.Now())
}

// A clock that takes over the maximum wraps to 0 at its next tick, and all its later events are before all earlier ones.
func TestLamportRefusesTimesNearTheMaximum(t *testing.T) {
	var l Lamport
	l.Tick()
	for _, far := range []uint64{math.MaxUint64, math.MaxUint64 - 1, MaxTime + 1} {
		_, err := l.Witness(far)
		require.ErrorIs(t, err, ErrOverflow)
		require.Equal(t, uint64(1), l.Now())
	}
	got, err := l.Witness(MaxTime)
	require.NoError(t, err)
	require.Equal(t, uint64(MaxTime+1), got)
	require.Equal(t, uint64(MaxTime+2), l.Tick())
}

func TestLamportTimesAreUniqueUnderConcurrency(t *testing.T) {
	var l Lamport
	const each, workers = 2000, 4
	times := make([][]uint64, workers)
	var wg sync.WaitGroup
	for w := range times {
		wg.Go(func() {
			for i := range each {
				now := l.Tick()
				if i%3 == 0 {
					now, _ = l.Witness(now + uint64(i%7))
				}
				times[w] = append(times[w], now)
			}
		})
	}
	wg.Wait()
	var all []uint64
	for _, mine := range times {
		require.True(t, slices.IsSorted(mine))
		all = append(all, mine...)
	}
	slices.Sort(all)
	require.Len(t, slices.Compact(all), each*workers)
}

func TestLamportDoesNotAllocate(t *testing.T) {
	var l Lamport
	require.Zero(t, testing.AllocsPerRun(100, func() {
		l.Tick()
		_, _ = l.Witness(l.Now() + 1)
	}))
}

func TestTimestampOrderIsTotal(t *testing.T) {
	check(t, func(t *rapid.T) {
		draw := rapid.Custom(func(t *rapid.T) Timestamp {
			return Timestamp{rapid.Uint64Range(0, 2).Draw(t, "time"), coterie.NodeID(rapid.SampledFrom([]string{"a", "b", ""}).Draw(t, "node"))}
		})
		a, b, c := draw.Draw(t, "a"), draw.Draw(t, "b"), draw.Draw(t, "c")
		require.Equal(t, a == b, a.Compare(b) == 0)
		require.Equal(t, a.Compare(b), -b.Compare(a))
		require.Equal(t, a.Compare(b) < 0, a.Before(b))
		if a.Compare(b) <= 0 && b.Compare(c) <= 0 {
			require.LessOrEqual(t, a.Compare(c), 0)
		}
		if a.Time < b.Time {
			require.True(t, a.Before(b))
		}
	})
}

func TestTimestampEncodingRoundTripsAndKeepsOrder(t *testing.T) {
	check(t, func(t *rapid.T) {
		draw := rapid.Custom(func(t *rapid.T) Timestamp {
			return Timestamp{rapid.Uint64Range(0, MaxTime).Draw(t, "time"), coterie.NodeID(rapid.String().Draw(t, "node"))}
		})
		a, b := draw.Draw(t, "a"), draw.Draw(t, "b")
		x, err := a.MarshalBinary()
		require.NoError(t, err)
		y, err := b.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, a.Compare(b), slices.Compare(x, y))
		var got Timestamp
		require.NoError(t, got.UnmarshalBinary(x))
		require.Equal(t, a, got)
		x, err = json.Marshal(b)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(x, &got))
		require.Equal(t, b, got)
	})
}

func FuzzTimestampUnmarshal(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 1, 2, 'a'})
	f.Add([]byte{2, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		got := Timestamp{7, "old"}
		if got.UnmarshalBinary(b) != nil {
			require.Equal(t, Timestamp{7, "old"}, got)
			return
		}
		again, err := got.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, b, again)
	})
}
