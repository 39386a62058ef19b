package consensus

import (
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"

	"github.com/coterie-go/coterie"
)

// clerk reads and writes the chunks of snapshots that travel between nodes.
type clerk struct {
	store   coterie.Snapshots
	readers []*chunkReader // those last used, oldest first
	writer  *chunkWriter   // the snapshot under way; nil if none is
}

// chunkReader is an open snapshot and the offset of its next byte. A peer asks for one chunk after the other.
type chunkReader struct {
	name   string
	offset int64
	file   io.ReadCloser
}

const maxReaders = 8 // as many followers can be sent a snapshot without opening it anew for each chunk

type chunkWriter struct {
	snapshot Snapshot
	written  int64
	hash     *xxhash.Digest
	file     io.WriteCloser
}

func (c *clerk) read(e ReadChunk) ([]byte, error) {
	if e.Offset < 0 || e.Limit < 0 {
		return nil, fmt.Errorf("consensus: snapshot %s: %d bytes at %d", e.Name, e.Limit, e.Offset)
	}
	r, err := c.reader(e.Name, e.Offset)
	if err != nil {
		return nil, err
	}
	data := make([]byte, e.Limit)
	n, err := io.ReadFull(r.file, data)
	r.offset += int64(n)
	if err != nil {
		_ = r.file.Close() // read only: nothing is lost
		if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("consensus: snapshot %s at %d: %w", e.Name, e.Offset, err)
		}
		return data[:n:n], nil
	}
	c.readers = append(c.readers, r)
	return data, nil
}

// reader takes a reader of the name at the offset out of those that are open, or opens one.
func (c *clerk) reader(name string, offset int64) (*chunkReader, error) {
	for i, r := range c.readers {
		if r.name == name && r.offset == offset {
			c.readers = append(c.readers[:i], c.readers[i+1:]...)
			return r, nil
		}
	}
	if len(c.readers) == maxReaders {
		_ = c.readers[0].file.Close() // read only: nothing is lost
		c.readers = append(c.readers[:0], c.readers[1:]...)
	}
	file, err := c.store.Open(name)
	if err != nil {
		return nil, fmt.Errorf("consensus: snapshot %s: %w", name, err)
	}
	if s, ok := file.(io.Seeker); ok {
		_, err = s.Seek(offset, io.SeekStart)
	} else if _, err = io.CopyN(io.Discard, file, offset); errors.Is(err, io.EOF) {
		err = nil // a chunk beyond the end is empty
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("consensus: snapshot %s at %d: %w", name, offset, err)
	}
	return &chunkReader{name: name, offset: offset, file: file}, nil
}

// write appends a chunk. On an error nothing of the snapshot is left.
func (c *clerk) write(e WriteChunk) error {
	if e.Offset == 0 {
		c.abort()
		file, err := c.store.Create(e.Snapshot.Name)
		if err != nil {
			return fmt.Errorf("consensus: snapshot %s: %w", e.Snapshot.Name, err)
		}
		c.writer = &chunkWriter{snapshot: e.Snapshot, hash: xxhash.New(), file: file}
	}
	err := c.append(e)
	if err != nil {
		c.abort()
		return fmt.Errorf("consensus: snapshot %s at %d: %w", e.Snapshot.Name, e.Offset, err)
	}
	return nil
}

func (c *clerk) append(e WriteChunk) error {
	w := c.writer
	switch {
	case w == nil || w.snapshot != e.Snapshot:
		return errors.New("not the snapshot under way")
	case w.written != e.Offset:
		return fmt.Errorf("%d bytes were written before", w.written)
	case int64(len(e.Data)) > w.snapshot.Size-w.written:
		return fmt.Errorf("%d bytes more than its size %d", w.written+int64(len(e.Data))-w.snapshot.Size, w.snapshot.Size)
	}
	if _, err := w.file.Write(e.Data); err != nil {
		return err
	}
	_, _ = w.hash.Write(e.Data) // never fails
	w.written += int64(len(e.Data))
	if w.written < w.snapshot.Size {
		return nil
	}
	if sum := w.hash.Sum64(); sum != w.snapshot.Checksum {
		return fmt.Errorf("%w: checksum %016x, the sender says %016x", ErrCorruptSnapshot, sum, w.snapshot.Checksum)
	}
	c.writer = nil
	return w.file.Close()
}

func (c *clerk) abort() {
	if c.writer != nil {
		abort(c.store, c.writer.snapshot.Name, c.writer.file)
		c.writer = nil
	}
}

// remove deletes a snapshot that no record names any more.
func (c *clerk) remove(name string) error {
	kept := c.readers[:0]
	for _, r := range c.readers {
		if r.name == name {
			_ = r.file.Close() // read only: nothing is lost
			continue
		}
		kept = append(kept, r)
	}
	clear(c.readers[len(kept):])
	c.readers = kept
	return c.store.Remove(name)
}

// removeOrphans deletes the snapshots that no record names: those under way when the node crashed, and those whose
// removal it did not live to see.
func removeOrphans(store coterie.Snapshots, names []string, named string) error {
	for _, name := range names {
		if name == named {
			continue
		}
		if err := store.Remove(name); err != nil {
			return fmt.Errorf("consensus: orphaned snapshot %s: %w", name, err)
		}
	}
	return nil
}

func (c *clerk) close() {
	c.abort()
	for _, r := range c.readers {
		_ = r.file.Close() // read only: nothing is lost
	}
	c.readers = nil
}
