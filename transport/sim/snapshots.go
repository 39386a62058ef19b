package sim

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"

	"github.com/coterie-go/coterie"
)

// Snapshots is the folder of snapshots on a node's disk. A snapshot is durable when Close of its writer has returned
// nil; one not closed when the node crashes is gone. A crash drawn by Disk.Crash may come within Close: the snapshot is
// there or not, Close returns an error, and the node is down when its batch ends. It is used within the simulation only,
// by one goroutine, unlike other Snapshots.
func (w *World) Snapshots(id coterie.NodeID) coterie.Snapshots { return snapshots{w.must(id)} }

type snapshots struct{ n *node }

func (s snapshots) Create(name string) (io.WriteCloser, error) {
	if name == "" {
		return nil, fmt.Errorf("sim: snapshot without a name")
	}
	return &snapshotWriter{n: s.n, name: name, gen: s.n.gen()}, nil
}

func (s snapshots) Open(name string) (io.ReadCloser, error) {
	content, ok := s.n.disk.files[name]
	if !ok {
		return nil, fmt.Errorf("sim: snapshot %q of %s: %w", name, s.n.id, fs.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(content)), nil
}

func (s snapshots) Remove(name string) error {
	delete(s.n.disk.files, name)
	return nil
}

func (s snapshots) Names() ([]string, error) {
	return slices.Sorted(maps.Keys(s.n.disk.files)), nil
}

type snapshotWriter struct {
	n      *node
	name   string
	gen    uint32
	buf    bytes.Buffer
	closed bool
}

func (f *snapshotWriter) usable() error {
	switch {
	case f.closed:
		return fmt.Errorf("sim: snapshot %q: %w", f.name, fs.ErrClosed)
	case !f.n.up || f.n.gen() != f.gen || f.n.dying:
		return errCrashed
	}
	return nil
}

func (f *snapshotWriter) Write(p []byte) (int, error) {
	if err := f.usable(); err != nil {
		return 0, err
	}
	return f.buf.Write(p)
}

// Abort gives the snapshot up.
func (f *snapshotWriter) Abort() { f.closed = true }

func (f *snapshotWriter) Close() error {
	if err := f.usable(); err != nil {
		return err
	}
	f.closed = true
	d := &f.n.disk
	if cfg := d.current(f.n.w.now); f.n.inLoop && d.src.chance(cfg.Crash) {
		if d.src.chance(0.5) {
			d.files[f.name] = f.buf.Bytes()
		}
		f.n.dying, f.n.downFor = true, cfg.Down.draw(&d.src)
		return errCrashed
	}
	d.files[f.name] = f.buf.Bytes()
	return nil
}
