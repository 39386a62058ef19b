package wal

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
)

// replay reads all of a journal.
func replay(t testing.TB, j coterie.Journal) []string {
	t.Helper()
	var got []string
	require.NoError(t, j.Replay(func(r []byte) error {
		got = append(got, string(r))
		return nil
	}))
	return got
}

func mustOpen(t testing.TB, cfg Config) *Log {
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
