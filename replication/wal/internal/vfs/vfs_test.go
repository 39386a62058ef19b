package vfs

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The file system in memory does what the operating system's does, as far as a log can tell.
func TestFileSystemsAgree(t *testing.T) {
	for name, fsys := range map[string]FS{"os": OS{}, "mem": NewMem()} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "b")
			_, err := fsys.List(dir)
			require.ErrorIs(t, err, fs.ErrNotExist)
			require.NoError(t, fsys.MkdirAll(dir))
			require.NoError(t, fsys.MkdirAll(dir))
			path := filepath.Join(dir, "two")
			_, err = fsys.Open(path)
			require.ErrorIs(t, err, fs.ErrNotExist)
			require.ErrorIs(t, fsys.Remove(path), fs.ErrNotExist)

			f, err := fsys.Create(path, 5000)
			require.NoError(t, err)
			b := make([]byte, 6000)
			n, err := f.ReadAt(b, 0)
			require.Equal(t, 5000, n)
			require.ErrorIs(t, err, io.EOF)
			require.Equal(t, make([]byte, 6000), b)
			_, err = f.WriteAt([]byte("xyz"), 6000)
			require.NoError(t, err)
			size, err := f.Size()
			require.NoError(t, err)
			require.Equal(t, int64(6003), size)
			require.NoError(t, f.Sync())
			require.NoError(t, f.Truncate(6001))
			n, err = f.ReadAt(b[:3], 5999)
			require.Equal(t, "\x00x", string(b[:n]))
			require.ErrorIs(t, err, io.EOF)
			_, err = f.ReadAt(b[:1], 7000)
			require.ErrorIs(t, err, io.EOF)
			require.NoError(t, f.Close())

			one := filepath.Join(dir, "one")
			f, err = fsys.Create(one, 0)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			names, err := fsys.List(dir)
			require.NoError(t, err)
			require.Equal(t, []string{"one", "two"}, names)
			require.NoError(t, fsys.Rename(path, one))
			require.NoError(t, fsys.SyncDir(dir))
			names, err = fsys.List(dir)
			require.NoError(t, err)
			require.Equal(t, []string{"one"}, names)
			f, err = fsys.Open(one)
			require.NoError(t, err)
			size, err = f.Size()
			require.NoError(t, err)
			require.Equal(t, int64(6001), size)
			require.NoError(t, f.Close())
			require.NoError(t, fsys.Remove(one))

			lock, err := fsys.Lock(filepath.Join(dir, "LOCK"))
			require.NoError(t, err)
			_, err = fsys.Lock(filepath.Join(dir, "LOCK"))
			require.ErrorIs(t, err, ErrLocked)
			require.NoError(t, lock.Close())
			lock, err = fsys.Lock(filepath.Join(dir, "LOCK"))
			require.NoError(t, err)
			require.NoError(t, lock.Close())
		})
	}
}

// What a crash of the file system in memory keeps and loses.
func TestMemCrash(t *testing.T) {
	m := NewMem()
	require.NoError(t, m.MkdirAll("d"))
	f, err := m.Create("d/f", 2048)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("old"), 1022) // over two sectors
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	require.NoError(t, m.SyncDir("d"))
	_, err = f.WriteAt([]byte("new"), 1022)
	require.NoError(t, err)
	_, err = m.Create("d/g", 0)
	require.NoError(t, err)

	read := func(m *Mem) string {
		f, err := m.Open("d/f")
		require.NoError(t, err)
		b := make([]byte, 3)
		_, err = f.ReadAt(b, 1022)
		require.NoError(t, err)
		return string(b)
	}
	crash := func(keep ...bool) *Mem {
		c := m.Clone()
		c.Crash(func() bool {
			k := keep[0]
			keep = keep[1:]
			return k
		})
		require.Empty(t, keep)
		return c
	}
	require.Equal(t, "old", read(crash(false, false, false)))
	require.Equal(t, "new", read(crash(true, true, true)))
	torn := crash(true, false, false)
	require.Equal(t, "ned", read(torn))
	names, err := torn.List("d")
	require.NoError(t, err)
	require.Equal(t, []string{"f"}, names)
	require.Equal(t, "new", read(m))

	// A sync that fails is believed by the next one.
	injected := errors.New("injected")
	m.Hook = func(op Op) *Fault {
		if op.Kind == "sync" {
			return &Fault{Err: injected}
		}
		return nil
	}
	require.ErrorIs(t, f.Sync(), injected)
	m.Hook = nil
	require.NoError(t, f.Sync())
	require.Equal(t, "new", read(m))
	m.Crash(func() bool { return true })
	require.Equal(t, "old", read(m))
	_, err = f.WriteAt([]byte("x"), 0)
	require.ErrorIs(t, err, ErrDown)
}
