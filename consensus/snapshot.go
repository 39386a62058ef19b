package consensus

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/coterie-go/coterie"
)

// ErrCorruptSnapshot is returned by Start, and stops a running replica, when a snapshot's file is not what the journal
// says it is. Remove the node's data and let it join again as a new one, or repair the disk.
var ErrCorruptSnapshot = errors.New("consensus: corrupt snapshot")

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// snapshotName is unlike that of any other snapshot of this node and of every other node's, so that none is replaced
// while a record names it.
func snapshotName(node coterie.NodeID, index uint64) string {
	return fmt.Sprintf("%020d-%016x", index, xxhash.Sum64String(string(node)))
}

// save writes a snapshot; it is durable on return. It gives up when stop is set.
func save(store coterie.Snapshots, name string, c *Capture, stop *atomic.Bool) (Snapshot, error) {
	w, err := store.Create(name)
	if err != nil {
		return Snapshot{}, fmt.Errorf("consensus: snapshot %s: %w", name, err)
	}
	hash := xxhash.New()
	buffered := bufio.NewWriterSize(io.MultiWriter(w, hash), 64<<10)
	size, err := c.WriteTo(stoppable{buffered, stop})
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		abort(store, name, w)
		return Snapshot{}, fmt.Errorf("consensus: snapshot %s: %w", name, err)
	}
	if err := w.Close(); err != nil {
		return Snapshot{}, fmt.Errorf("consensus: snapshot %s: %w", name, err)
	}
	return Snapshot{Name: name, Size: size, Checksum: hash.Sum64()}, nil
}

// stoppable is a writer that ends when stop, if there is one, is set.
type stoppable struct {
	w    io.Writer
	stop *atomic.Bool
}

func (s stoppable) Write(p []byte) (int, error) {
	if s.stop != nil && s.stop.Load() {
		return 0, coterie.ErrClosed
	}
	return s.w.Write(p)
}

// abort gives up a snapshot under way.
func abort(store coterie.Snapshots, name string, w io.WriteCloser) {
	if a, ok := w.(interface{ Abort() }); ok {
		a.Abort()
		return
	}
	// It becomes visible, and is removed at once; a crash in between leaves an orphan for the next Start.
	_ = w.Close()
	_ = store.Remove(name)
}

// load restores the machine from a snapshot. It reads it twice, for a state machine must not see what is corrupt.
func load(store coterie.Snapshots, m *Machine, in Installed) error {
	if err := verify(store, in.Snapshot); err != nil {
		return err
	}
	r, err := store.Open(in.Snapshot.Name)
	if err != nil {
		return fmt.Errorf("consensus: snapshot %s: %w", in.Snapshot.Name, err)
	}
	err = m.Restore(in.Index, r)
	_ = r.Close() // read only: nothing is lost
	if err != nil {
		return fmt.Errorf("consensus: snapshot %s: %w", in.Snapshot.Name, err)
	}
	m.Written(in.Snapshot.Size)
	return nil
}

func verify(store coterie.Snapshots, s Snapshot) error {
	r, err := store.Open(s.Name)
	if err != nil {
		return fmt.Errorf("consensus: snapshot %s: %w", s.Name, err)
	}
	hash := xxhash.New()
	size, err := io.Copy(hash, r)
	_ = r.Close() // read only: nothing is lost
	switch {
	case err != nil:
		return fmt.Errorf("consensus: snapshot %s: %w", s.Name, err)
	case size != s.Size:
		return fmt.Errorf("%w: %s has %d bytes, the journal says %d", ErrCorruptSnapshot, s.Name, size, s.Size)
	case hash.Sum64() != s.Checksum:
		return fmt.Errorf("%w: %s has checksum %016x, the journal says %016x", ErrCorruptSnapshot, s.Name, hash.Sum64(), s.Checksum)
	}
	return nil
}

// readHeader takes the header off a snapshot; rest reads the application's state.
func readHeader(r io.Reader) (header []byte, rest io.Reader, err error) {
	buffered := bufio.NewReaderSize(r, 64<<10)
	format, err := buffered.ReadByte()
	if err != nil {
		return nil, nil, fmt.Errorf("consensus: snapshot header: %w", err)
	}
	if format > snapshotFormat {
		return nil, nil, &coterie.FormatError{What: "consensus snapshot", Got: format, Max: snapshotFormat}
	}
	if format == 0 {
		return nil, nil, errors.New("consensus: snapshot header: format 0")
	}
	length, err := binary.ReadUvarint(buffered)
	if err != nil {
		return nil, nil, fmt.Errorf("consensus: snapshot header: %w", err)
	}
	// A length that lies costs no more than what is there.
	header, err = io.ReadAll(io.LimitReader(buffered, int64(min(length, math.MaxInt64))))
	if err == nil && uint64(len(header)) < length {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, nil, fmt.Errorf("consensus: snapshot header: %w", err)
	}
	return header, buffered, nil
}
