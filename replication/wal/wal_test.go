package wal

import (
	"fmt"
	"io"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/replication/wal/internal/vfs"
)

// replay reads all of a journal.
func replay(t *testing.T, j coterie.Journal) []string {
	t.Helper()
	var got []string
	require.NoError(t, j.Replay(func(r []byte) error {
		got = append(got, string(r))
		return nil
	}))
	return got
}

func mustOpen(t *testing.T, cfg Config) *Log {
	t.Helper()
	l, err := Open(cfg)
	require.NoError(t, err)
	return l
}

func TestReopenGivesBackWhatWasAppended(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, Config{Dir: dir, Owner: "a", SegmentSize: minSegmentSize})
	var want, wantB []string
	b := l.Stream("b")
	for i := range 300 {
		want = append(want, fmt.Sprint("record ", i))
		require.NoError(t, l.Append([]byte(want[i])))
		wantB = append(wantB, fmt.Sprint("b", i), "")
		require.NoError(t, b.Append([]byte(wantB[2*i]), nil))
	}
	require.Equal(t, want, replay(t, l))
	require.Equal(t, wantB, replay(t, b))
	require.Greater(t, l.Metrics().Segments, 2)
	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Append(nil), coterie.ErrClosed)

	l = mustOpen(t, Config{Dir: dir, Owner: "a", SegmentSize: minSegmentSize})
	require.Nil(t, l.Recovery().Torn)
	require.Equal(t, want, replay(t, l))
	require.Equal(t, wantB, replay(t, l.Stream("b")))
	require.NoError(t, l.Keep(3))
	require.NoError(t, l.Stream("b").Keep(1))
	require.Less(t, l.Metrics().Segments, 3)
	require.Equal(t, want[297:], replay(t, l))
	require.NoError(t, l.Append([]byte("more")))
	require.NoError(t, l.Close())

	l = mustOpen(t, Config{Dir: dir, Owner: "a", SegmentSize: minSegmentSize})
	require.Equal(t, append(want[297:], "more"), replay(t, l))
	require.Equal(t, wantB[599:], replay(t, l.Stream("b")))
	require.NoError(t, l.Close())
}

func TestOpenRefusesAnotherNodesLog(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, Config{Dir: dir, Owner: "a"})
	_, err := Open(Config{Dir: dir, Owner: "a"})
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, l.Close())
	_, err = Open(Config{Dir: dir, Owner: "b"})
	var owner *OwnerError
	require.ErrorAs(t, err, &owner)
	require.Equal(t, OwnerError{Dir: dir, Owner: "a", Want: "b"}, *owner)
	require.NoError(t, mustOpen(t, Config{Dir: dir, Owner: "a"}).Close())
}

func TestConfigErrorsNameTheField(t *testing.T) {
	for field, cfg := range map[string]Config{
		"Config.Dir":         {},
		"Config.Owner":       {Dir: "x", Owner: coterie.NodeID(make([]byte, maxOwner+1))},
		"Config.SegmentSize": {Dir: "x", SegmentSize: minSegmentSize - 1},
	} {
		_, err := Open(cfg)
		require.ErrorContains(t, err, field)
	}
	_, err := Open(Config{Dir: "/dev/null/x"})
	require.Error(t, err)
}

// A host closes its journal; the stream can be taken again, in the same process, while the log is open.
func TestStreamIsTakenAgain(t *testing.T) {
	l := mustOpen(t, Config{Dir: t.TempDir()})
	s := l.Stream("s")
	require.Equal(t, "s", s.Name())
	require.NoError(t, s.Append([]byte("one")))
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Append([]byte("two")), coterie.ErrClosed)
	require.ErrorIs(t, s.Keep(1), coterie.ErrClosed)
	require.ErrorIs(t, s.Replay(nil), coterie.ErrClosed)
	s = l.Stream("s")
	require.Equal(t, []string{"one"}, replay(t, s))
	require.NoError(t, s.Append([]byte("two")))
	require.Equal(t, []string{"one", "two"}, replay(t, s))

	long := l.Stream(string(make([]byte, maxName+1)))
	require.ErrorContains(t, long.Append([]byte("x")), "256 bytes")
	require.Error(t, long.Keep(1))
	require.Error(t, long.Replay(nil))
	require.NoError(t, long.Close())
	require.Empty(t, long.Name())
	require.Error(t, s.Keep(-1))
	require.NoError(t, s.Keep(5))
	require.NoError(t, s.Keep(0))
	require.Empty(t, replay(t, s))
	require.NoError(t, s.Append())
	require.NoError(t, s.Append([]byte("three")))
	require.Equal(t, []string{"three"}, replay(t, s))
	require.NoError(t, l.Close())
}

// Replay returns the error of its function as it is, stops there, and gives records that stay as they are.
func TestReplayHandsRecordsOver(t *testing.T) {
	l := mustOpen(t, Config{Dir: t.TempDir(), SegmentSize: 256 << 10})
	var want [][]byte
	for i := range 100 {
		want = append(want, fmt.Appendf(nil, "%d %0*d", i, i*200, 0))
		require.NoError(t, l.Append(want[i]))
	}
	var got [][]byte
	require.NoError(t, l.Replay(func(r []byte) error {
		got = append(got, r)
		_ = append(r, "must not reach the next"...)
		return nil
	}))
	require.Equal(t, want, got)
	n := 0
	err := l.Replay(func([]byte) error {
		if n++; n == 3 {
			return io.ErrNoProgress
		}
		return nil
	})
	require.Equal(t, io.ErrNoProgress, err)
	require.Equal(t, 3, n)
	require.NoError(t, l.Close())
}

// Damage that comes while the log is open is found by Replay.
func TestReplayFindsDamage(t *testing.T) {
	mem := vfs.NewMem()
	l := mustOpen(t, Config{Dir: "d", fs: mem})
	require.NoError(t, l.Append([]byte("one"), []byte("two")))
	mem.Edit(l.segments[0].path, func(b []byte) []byte {
		b[l.head.off-1] ^= 1
		return b
	})
	var got []string
	err := l.Replay(func(r []byte) error { got = append(got, string(r)); return nil })
	var corrupt *CorruptionError
	require.ErrorAs(t, err, &corrupt)
	require.Equal(t, l.head.off-headSize-3, corrupt.Offset)
	require.ErrorContains(t, err, corrupt.Segment)
	require.Equal(t, []string{"one"}, got)
}

// Replay holds one piece of the log at a time.
func TestReplayNeedsConstantMemory(t *testing.T) {
	l := mustOpen(t, Config{Dir: t.TempDir(), NoSync: true})
	for range 64 {
		require.NoError(t, l.Append(make([]byte, 512<<10)))
	}
	require.NoError(t, l.Close())
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	l = mustOpen(t, Config{Dir: l.cfg.Dir, NoSync: true})
	peak := uint64(0)
	require.NoError(t, l.Replay(func([]byte) error {
		runtime.GC()
		runtime.ReadMemStats(&after)
		peak = max(peak, after.HeapAlloc)
		return nil
	}))
	require.Less(t, peak, before.HeapAlloc+4<<20)
	require.NoError(t, l.Close())
}
