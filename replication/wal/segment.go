package wal

import (
	"errors"
	"math/rand/v2"
	"path/filepath"

	"github.com/coterie-go/coterie/replication/wal/internal/vfs"
)

// roll ends the head and starts a segment with room for need bytes. Only the leader calls it, without mu.
//
// The order keeps three promises: the old segment is durable to its end before a header states so; the new one has
// its header and size before its name is seen; and its name is durable before a record in it is acknowledged.
func (l *Log) roll(need int64) error {
	if err := l.syncHead(); err != nil {
		return err
	}
	old := l.head
	size := max(min(2*old.seg.size, l.cfg.SegmentSize), need+headerSize)
	h := header{number: old.seg.number + 1, size: size, prevEnd: old.off, prevSalt: old.seg.salt}
	next, err := l.newHead(h)
	if err != nil {
		return err
	}
	// Room that was reserved and not used goes back; if that fails, or a crash undoes it, it is only room.
	_ = old.f.Truncate(old.off)
	_ = old.f.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.install(next)
	return nil
}

// newHead makes the file of a segment.
func (l *Log) newHead(h header) (head, error) {
	h.owner, h.salt = l.cfg.Owner, rand.Uint64()
	seg := &segment{header: h, path: l.path(h.number), end: headerSize}
	f, err := createSegment(l.fs, seg)
	return head{seg: seg, f: f, off: headerSize, chain: uint32(h.salt), durable: true}, err
}

// install makes a new head the log's, mu held.
func (l *Log) install(h head) {
	l.head = h
	l.segments = append(l.segments, h.seg)
}

func (l *Log) path(number uint64) string { return filepath.Join(l.cfg.Dir, segmentName(number)) }

// createSegment makes the file under a name that Open sweeps away, and gives it its own when it is whole.
func createSegment(fs vfs.FS, seg *segment) (vfs.File, error) {
	tmp := seg.path + tmpSufx
	if err := writeNew(fs, tmp, seg.encode(), seg.size); err != nil {
		return nil, errors.Join(err, fs.Remove(tmp))
	}
	if err := fs.Rename(tmp, seg.path); err != nil {
		return nil, err
	}
	if err := fs.SyncDir(filepath.Dir(seg.path)); err != nil {
		return nil, err
	}
	return fs.Open(seg.path)
}

// writeNew makes a file of a size, its first bytes given, and syncs it. It is closed again, since some systems rename
// no open file.
func writeNew(fs vfs.FS, name string, start []byte, size int64) error {
	f, err := fs.Create(name, size)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(start, 0); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}

// removeUnneeded removes the oldest segments that no stream needs, mu held on call and return. One at a time and each
// made durable before the next, oldest first, so that a crash leaves no gap.
func (l *Log) removeUnneeded() error {
	if l.removing || l.reading > 0 {
		return nil // who is at it will see
	}
	l.removing = true
	var err error
	for l.err == nil && l.reading == 0 && len(l.segments) > 1 && l.segments[0].refs == 0 {
		path := l.segments[0].path
		l.segments = append(l.segments[:0], l.segments[1:]...)
		l.metrics.Removed++
		l.mu.Unlock()
		err = l.fs.Remove(path)
		if err == nil {
			err = l.fs.SyncDir(l.cfg.Dir)
		}
		l.mu.Lock()
		if err != nil {
			l.poison(err)
			err = l.err
		}
	}
	l.removing = false
	l.idle.Broadcast()
	return err
}
