package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrLocked is returned by Lock where another holder has the lock.
var ErrLocked = errors.New("locked by another holder")

// OS is the operating system's file system.
type OS struct{}

type osFile struct{ *os.File }

// MkdirAll makes the folder, from the top down, each synced into its parent.
func (o OS) MkdirAll(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: errors.New("is a file")}
	}
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := o.MkdirAll(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return o.SyncDir(parent)
}

// List reads the folder.
func (OS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Create makes the file and reserves its blocks where the system can.
func (OS) Create(name string, size int64) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	if size > 0 {
		if err := reserve(f, size); err != nil {
			return nil, errors.Join(&fs.PathError{Op: "reserve", Path: name, Err: err}, f.Close())
		}
	}
	return osFile{f}, nil
}

// Open opens the file.
func (OS) Open(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Rename renames the file.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove deletes the file.
func (OS) Remove(name string) error { return os.Remove(name) }

// SyncDir syncs the folder, where folders can be.
func (OS) SyncDir(dir string) error { return syncDir(dir) }

// Lock takes an exclusive lock on the file.
func (OS) Lock(name string) (io.Closer, error) { return lockFile(name) }

// Sync syncs the data, and of the rest what is needed to read it back.
func (f osFile) Sync() error {
	if err := syncData(f.File); err != nil {
		return &fs.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
	return nil
}

// Size asks for the size.
func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
