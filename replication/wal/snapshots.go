package wal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/replication/wal/internal/vfs"
)

// Snapshots is a folder of snapshots, each one file: the coterie.Snapshots on disk. A snapshot replaces the one of
// its name wholly or not at all, also across a crash: it is written under another name, synced, renamed, and the
// folder synced. Every method is safe for concurrent use. One process at a time may have the folder open; give it to
// the node that holds the log.
type Snapshots struct {
	dir string
	fs  vfs.FS

	mu   sync.Mutex // guards tmps
	tmps uint64     // counts temporary names
}

var _ coterie.Snapshots = (*Snapshots)(nil)

// OpenSnapshots opens a folder of snapshots, making it if need be, and removes what unfinished ones left in it.
func OpenSnapshots(dir string) (*Snapshots, error) { return openSnapshots(vfs.OS{}, dir) }

func openSnapshots(fsys vfs.FS, dir string) (*Snapshots, error) {
	if dir == "" {
		return nil, errors.New("wal: the snapshots' folder has no name")
	}
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	names, err := fsys.List(dir)
	if err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, tmpSufx) {
			if err := fsys.Remove(filepath.Join(dir, name)); err != nil {
				return nil, fmt.Errorf("wal: %w", err)
			}
		}
	}
	// A snapshot may be seen whose rename is not durable yet; it must be before anyone relies on it.
	if err := fsys.SyncDir(dir); err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	return &Snapshots{dir: dir, fs: fsys}, nil
}

// path returns the file of a snapshot. Names must be plain file names on every system.
func (s *Snapshots) path(name string) (string, error) {
	bad := name == "" || len(name) > maxName-32 || name[0] == '.' || strings.HasSuffix(name, tmpSufx) ||
		strings.ContainsAny(name, "/\\:\x00") || !filepath.IsLocal(name)
	if bad {
		return "", fmt.Errorf("wal: %q cannot name a snapshot", name)
	}
	return filepath.Join(s.dir, name), nil
}

// Create starts a snapshot. It is durable and visible when the writer's Close returns nil; after an error of Write or
// Close, after Abort (which every writer has) and after a crash before Close it is not there, and one of the name
// that was there before still is. Only if Close fails in its very last step, syncing the folder, the new one is
// visible although a crash may yet bring the old one back.
//
// A name is a plain file name: no path, no leading dot, no ".tmp" at its end.
func (s *Snapshots) Create(name string) (io.WriteCloser, error) {
	path, err := s.path(name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.tmps++
	tmp := path + "." + strconv.FormatUint(s.tmps, 10) + tmpSufx
	s.mu.Unlock()
	f, err := s.fs.Create(tmp, 0)
	if err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	w := &snapshotWriter{fs: s.fs, f: f, path: path, tmp: tmp}
	w.buf = bufio.NewWriterSize(&appender{f: f}, chunkSize)
	return w, nil
}

// Open reads a snapshot, whose reader goes on reading the same bytes when it is replaced or removed meanwhile. One
// that is not there gives an error that is fs.ErrNotExist.
func (s *Snapshots) Open(name string) (io.ReadCloser, error) {
	path, err := s.path(name)
	if err != nil {
		return nil, err
	}
	f, err := s.fs.Open(path)
	if err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("wal: %w", err), f.Close())
	}
	return snapshotReader{io.NewSectionReader(f, 0, size), f}, nil
}

// Remove deletes a snapshot; one that is not there is no error.
func (s *Snapshots) Remove(name string) error {
	path, err := s.path(name)
	if err != nil {
		return err
	}
	if err := s.fs.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("wal: %w", err)
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	return nil
}

// Names lists the snapshots, sorted.
func (s *Snapshots) Names() ([]string, error) {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		_, err := s.path(name)
		return err != nil
	})
	slices.Sort(names)
	return names, nil
}

// snapshotReader reads a file from its start.
type snapshotReader struct {
	*io.SectionReader
	io.Closer
}

// appender writes a file from its start.
type appender struct {
	f   vfs.File
	off int64
}

func (a *appender) Write(b []byte) (int, error) {
	n, err := a.f.WriteAt(b, a.off)
	a.off += int64(n)
	return n, err
}

// snapshotWriter writes one snapshot. It is not safe for concurrent use.
type snapshotWriter struct {
	fs        vfs.FS
	f         vfs.File
	buf       *bufio.Writer
	path, tmp string
	err       error // of the first Write that failed
	done      bool
	result    error // of Close
}

var errAborted = errors.New("wal: the snapshot was given up")

func (w *snapshotWriter) Write(b []byte) (int, error) {
	if w.done {
		return 0, fmt.Errorf("wal: %s: %w", w.path, coterie.ErrClosed)
	}
	n, err := w.buf.Write(b)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("wal: %w", err)
	}
	return n, err
}

// Close makes the snapshot durable and visible. Closing twice returns the same again.
func (w *snapshotWriter) Close() error {
	if !w.done {
		w.done, w.result = true, w.finish()
	}
	return w.result
}

func (w *snapshotWriter) finish() error {
	err := w.err
	if err == nil {
		err = w.buf.Flush()
	}
	if err == nil {
		err = w.f.Sync()
	}
	if err := errors.Join(err, w.f.Close()); err != nil {
		return errors.Join(fmt.Errorf("wal: %w", err), w.fs.Remove(w.tmp))
	}
	if err := w.fs.Rename(w.tmp, w.path); err != nil {
		return errors.Join(fmt.Errorf("wal: %w", err), w.fs.Remove(w.tmp))
	}
	if err := w.fs.SyncDir(filepath.Dir(w.path)); err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	return nil
}

// Abort gives the snapshot up and removes what was written; after Close it does nothing.
func (w *snapshotWriter) Abort() {
	if w.done {
		return
	}
	w.done, w.result = true, errAborted
	_ = w.f.Close()
	_ = w.fs.Remove(w.tmp) // else OpenSnapshots will
}
