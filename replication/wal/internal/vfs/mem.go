package vfs

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
)

// Mem is a file system in memory for tests, with a disk below it: what was not synced may be lost in a crash, sector
// by sector and name by name, in any order. Faults are injected by a hook.
//
// A sync that fails marks what it should have written as written, as Linux does (Rebello et al., "Can Applications
// Recover from fsync Failures?", 2020): reads go on showing it, later syncs do not write it, and a crash loses it.
type Mem struct {
	// SectorSize is what a crash keeps or loses as one; default 512 bytes. Set it before use.
	SectorSize int
	// Hook, if set, is called before each operation that changes something, with the lock held; a Fault makes it fail.
	Hook func(Op) *Fault

	mu    sync.Mutex // guards all below
	dirs  map[string]*memDir
	locks map[string]bool
	boots int // handles of an earlier boot are dead
	ops   int
}

// Op is an operation about to be done.
type Op struct {
	Number int    // counts from 0
	Kind   string // create, write, sync, truncate, rename, remove, syncdir
	Name   string // of the file or folder
	Size   int    // bytes of a write
}

// Fault makes an operation fail.
type Fault struct {
	Err   error
	Wrote int  // bytes of a write that are done nevertheless
	Down  bool // the machine goes down in a sync: what it should have written is for Crash to decide
}

// ErrDown is returned by handles from before a crash.
var ErrDown = errors.New("vfs: the machine went down")

type memDir struct{ seen, disk map[string]*inode }

// inode is a file: what reads see, what the disk holds, and the sectors that differ by writes not yet synced.
type inode struct {
	seen, disk []byte
	dirty      map[int]bool
}

// NewMem returns an empty file system.
func NewMem() *Mem {
	return &Mem{SectorSize: 512, dirs: map[string]*memDir{}, locks: map[string]bool{}}
}

// Clone returns a copy with its own disk, without a hook and without locks; handles are of the original only.
func (m *Mem) Clone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMem()
	c.SectorSize = m.SectorSize
	copies := map[*inode]*inode{}
	for dir, d := range m.dirs {
		cd := &memDir{map[string]*inode{}, map[string]*inode{}}
		for from, to := range map[*map[string]*inode]map[string]*inode{&d.seen: cd.seen, &d.disk: cd.disk} {
			for name, ino := range *from {
				if copies[ino] == nil {
					copies[ino] = &inode{slices.Clone(ino.seen), slices.Clone(ino.disk), maps.Clone(ino.dirty)}
				}
				to[name] = copies[ino]
			}
		}
		c.dirs[dir] = cd
	}
	return c
}

// Crash is a power failure: of each name and each sector that was not synced, keep decides whether it reached the
// disk. Open files are dead, locks are free.
func (m *Mem) Crash(keep func() bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.boots++
	clear(m.locks)
	done := map[*inode]bool{}
	for _, dir := range slices.Sorted(maps.Keys(m.dirs)) {
		d := m.dirs[dir]
		names := maps.Clone(d.disk)
		maps.Copy(names, d.seen)
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if d.disk[name] != d.seen[name] && keep() {
				if d.disk[name] = d.seen[name]; d.seen[name] == nil {
					delete(d.disk, name)
				}
			}
			if ino := d.disk[name]; ino != nil && !done[ino] {
				done[ino] = true
				m.settle(ino, keep)
			}
		}
		d.seen = maps.Clone(d.disk)
	}
}

// settle makes a file what the disk holds after a crash.
func (m *Mem) settle(ino *inode, keep func() bool) {
	if len(ino.seen) != len(ino.disk) && keep() {
		ino.disk = resize(ino.disk, len(ino.seen))
	}
	for _, s := range slices.Sorted(maps.Keys(ino.dirty)) {
		from := s * m.SectorSize
		if to := min(from+m.SectorSize, len(ino.seen), len(ino.disk)); from < to && keep() {
			copy(ino.disk[from:to], ino.seen[from:to])
		}
	}
	ino.seen, ino.dirty = slices.Clone(ino.disk), map[int]bool{}
}

func resize(b []byte, size int) []byte {
	if size <= len(b) {
		return slices.Clone(b[:size])
	}
	return append(slices.Clone(b), make([]byte, size-len(b))...)
}

// begin counts an operation and asks the hook.
func (m *Mem) begin(kind, name string, size int) *Fault {
	op := Op{m.ops, kind, name, size}
	m.ops++
	if m.Hook == nil {
		return nil
	}
	return m.Hook(op)
}

// Ops returns how many operations were begun.
func (m *Mem) Ops() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ops
}

// Edit changes a file on the disk, as rot, a misdirected write or a hand would.
func (m *Mem) Edit(name string, change func([]byte) []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ino := m.dirs[filepath.Dir(name)].seen[filepath.Base(name)]
	ino.disk = change(slices.Clone(ino.seen))
	ino.seen = slices.Clone(ino.disk)
}

// MkdirAll makes the folder.
func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dirs[dir] == nil {
		m.dirs[dir] = &memDir{map[string]*inode{}, map[string]*inode{}}
	}
	return nil
}

// List names the files.
func (m *Mem) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dirs[dir] == nil {
		return nil, &fs.PathError{Op: "list", Path: dir, Err: fs.ErrNotExist}
	}
	return slices.Sorted(maps.Keys(m.dirs[dir].seen)), nil
}

// Create makes a file.
func (m *Mem) Create(name string, size int64) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[filepath.Dir(name)]
	if d == nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrNotExist}
	}
	if fault := m.begin("create", name, int(size)); fault != nil {
		return nil, fault.Err
	}
	ino := &inode{seen: make([]byte, size), dirty: map[int]bool{}}
	d.seen[filepath.Base(name)] = ino
	return &memFile{m, ino, name, m.boots}, nil
}

// Open opens a file.
func (m *Mem) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := m.dirs[filepath.Dir(name)]; d != nil && d.seen[filepath.Base(name)] != nil {
		return &memFile{m, d.seen[filepath.Base(name)], name, m.boots}, nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// Rename renames a file within its folder.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if fault := m.begin("rename", from, 0); fault != nil {
		return fault.Err
	}
	d := m.dirs[filepath.Dir(from)]
	d.seen[filepath.Base(to)] = d.seen[filepath.Base(from)]
	delete(d.seen, filepath.Base(from))
	return nil
}

// Remove deletes a file.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[filepath.Dir(name)]
	if d.seen[filepath.Base(name)] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	if fault := m.begin("remove", name, 0); fault != nil {
		return fault.Err
	}
	delete(d.seen, filepath.Base(name))
	return nil
}

// SyncDir makes the folder's names durable.
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if fault := m.begin("syncdir", dir, 0); fault != nil {
		return fault.Err
	}
	m.dirs[dir].disk = maps.Clone(m.dirs[dir].seen)
	return nil
}

// Lock takes a lock; its file is not a file of the folder.
func (m *Mem) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[name] {
		return nil, ErrLocked
	}
	m.locks[name] = true
	return &memLock{m, name, m.boots}, nil
}

type memLock struct {
	m    *Mem
	name string
	boot int
}

func (l *memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.boot == l.m.boots {
		delete(l.m.locks, l.name)
	}
	return nil
}

type memFile struct {
	m    *Mem
	ino  *inode
	name string
	boot int
}

func (f *memFile) down() error {
	if f.boot != f.m.boots {
		return ErrDown
	}
	return nil
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.down(); err != nil {
		return 0, err
	}
	if off >= int64(len(f.ino.seen)) {
		return 0, io.EOF
	}
	n := copy(b, f.ino.seen[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.down(); err != nil {
		return 0, err
	}
	var err error
	if fault := f.m.begin("write", f.name, len(b)); fault != nil {
		b, err = b[:min(fault.Wrote, len(b))], fault.Err
	}
	if end := int(off) + len(b); len(b) > 0 && end > len(f.ino.seen) {
		f.ino.seen = resize(f.ino.seen, end)
	}
	copy(f.ino.seen[min(int(off), len(f.ino.seen)):], b)
	for s := int(off) / f.m.SectorSize; s*f.m.SectorSize < int(off)+len(b); s++ {
		f.ino.dirty[s] = true
	}
	return len(b), err
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.down(); err != nil {
		return err
	}
	if fault := f.m.begin("sync", f.name, 0); fault != nil {
		if !fault.Down {
			clear(f.ino.dirty)
		}
		return fault.Err
	}
	f.ino.disk = resize(f.ino.disk, len(f.ino.seen))
	for s := range f.ino.dirty {
		from := s * f.m.SectorSize
		if to := min(from+f.m.SectorSize, len(f.ino.seen)); from < to {
			copy(f.ino.disk[from:to], f.ino.seen[from:to])
		}
	}
	clear(f.ino.dirty)
	return nil
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.down(); err != nil {
		return err
	}
	if fault := f.m.begin("truncate", f.name, int(size)); fault != nil {
		return fault.Err
	}
	f.ino.seen = resize(f.ino.seen, int(size))
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return int64(len(f.ino.seen)), f.down()
}

func (f *memFile) Close() error { return nil }
