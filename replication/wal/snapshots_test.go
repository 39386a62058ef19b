package wal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/replication/wal/internal/vfs"
)

func writeSnapshot(s coterie.Snapshots, name, content string) error {
	w, err := s.Create(name)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, iotest.HalfReader(strings.NewReader(content))); err != nil {
		return errors.Join(err, w.Close())
	}
	return w.Close()
}

func readSnapshot(t *testing.T, s coterie.Snapshots, name string) string {
	t.Helper()
	r, err := s.Open(name)
	require.NoError(t, err)
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	return string(b)
}

func TestSnapshots(t *testing.T) {
	dir := t.TempDir() + "/deep/er"
	s, err := OpenSnapshots(dir)
	require.NoError(t, err)
	_, err = s.Open("one")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, s.Remove("one"))
	require.NoError(t, writeSnapshot(s, "two", "2"))
	require.NoError(t, writeSnapshot(s, "one", "1"))
	big := strings.Repeat("0123456789", 50_000)
	old, err := s.Open("one")
	require.NoError(t, err)
	require.NoError(t, writeSnapshot(s, "one", big))
	require.Equal(t, big, readSnapshot(t, s, "one"))
	b, err := io.ReadAll(old)
	require.NoError(t, err)
	require.Equal(t, "1", string(b))
	require.NoError(t, old.Close())

	w, err := s.Create("three")
	require.NoError(t, err)
	_, err = w.Write([]byte("3"))
	require.NoError(t, err)
	names, err := s.Names()
	require.NoError(t, err)
	require.Equal(t, []string{"one", "two"}, names)
	w.(interface{ Abort() }).Abort()
	require.Error(t, w.Close())
	_, err = w.Write([]byte("3"))
	require.ErrorIs(t, err, coterie.ErrClosed)
	_, err = s.Open("three")
	require.ErrorIs(t, err, fs.ErrNotExist)

	_, err = s.Create("left") // never closed
	require.NoError(t, err)
	s, err = OpenSnapshots(dir)
	require.NoError(t, err)
	left, err := vfs.OS{}.List(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"one", "two"}, left)
	require.NoError(t, s.Remove("two"))
	names, err = s.Names()
	require.NoError(t, err)
	require.Equal(t, []string{"one"}, names)
	for _, bad := range []string{"", ".", "..", "a/b", `a\b`, "../x", ".x", "x.tmp", "c:x", strings.Repeat("x", 256)} {
		_, err := s.Create(bad)
		require.Error(t, err, bad)
		_, err = s.Open(bad)
		require.Error(t, err, bad)
		require.Error(t, s.Remove(bad), bad)
	}
	_, err = OpenSnapshots("")
	require.Error(t, err)
}

// A snapshot that replaces another: whatever step fails or is lost in a crash, the old one or the new one is there
// wholly, the new one if Close said so, and nothing else is left.
func TestSnapshotReplaceIsAtomic(t *testing.T) {
	old, content := strings.Repeat("o", 1500), strings.Repeat("n", 2500)
	for k := 0; ; k++ {
		n, down := k/2, k%2 == 0
		mem := vfs.NewMem()
		s, err := openSnapshots(mem, "d")
		require.NoError(t, err)
		require.NoError(t, writeSnapshot(s, "s", old))
		mem.Hook = failFrom(mem.Ops()+n, down)
		done := writeSnapshot(s, "s", content)
		if done != nil {
			require.ErrorIs(t, done, errInjected)
		}
		for i, keep := range subsets(uint64(n), 20) {
			c := mem.Clone()
			if i > 0 { // else the process alone ends
				c.Crash(keep)
			}
			at := fmt.Sprintf("operation %d, down %v, subset %d", n, down, i)
			s, err := openSnapshots(c, "d")
			require.NoError(t, err, at)
			got := readSnapshot(t, s, "s")
			require.True(t, got == content || got == old && done != nil, at)
			left, err := c.List("d")
			require.NoError(t, err, at)
			require.Equal(t, []string{"s"}, left, at)
			c.Crash(never) // what was seen stays
			s, err = openSnapshots(c, "d")
			require.NoError(t, err, at)
			require.Equal(t, got, readSnapshot(t, s, "s"), at)
		}
		if done == nil {
			require.Greater(t, n, 4)
			return
		}
	}
}

// A disk that fills up while a snapshot is written gives an error and leaves the one before.
func TestSnapshotNoSpace(t *testing.T) {
	mem := vfs.NewMem()
	s, err := openSnapshots(mem, "d")
	require.NoError(t, err)
	require.NoError(t, writeSnapshot(s, "s", "old"))
	mem.Hook = func(op vfs.Op) *vfs.Fault {
		if op.Kind == "write" {
			return &vfs.Fault{Err: errInjected, Wrote: 7}
		}
		return nil
	}
	require.ErrorIs(t, writeSnapshot(s, "s", strings.Repeat("n", 200_000)), errInjected)
	require.ErrorIs(t, writeSnapshot(s, "s", "n"), errInjected)
	require.Equal(t, "old", readSnapshot(t, s, "s"))
	left, err := mem.List("d")
	require.NoError(t, err)
	require.Equal(t, []string{"s"}, left)
}
