package main

import (
	"bytes"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"
)

// folder is a coterie.Snapshots in memory.
type folder struct {
	mu    sync.Mutex // guards files
	files map[string][]byte
}

type file struct {
	bytes.Buffer
	in   *folder
	name string
}

// Close makes the snapshot visible.
func (f *file) Close() error {
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	if f.in.files == nil {
		f.in.files = map[string][]byte{}
	}
	f.in.files[f.name] = f.Bytes()
	return nil
}

func (f *folder) Create(name string) (io.WriteCloser, error) { return &file{in: f, name: name}, nil }

func (f *folder) Open(name string) (io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, ok := f.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (f *folder) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.files, name)
	return nil
}

func (f *folder) Names() ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.files)), nil
}
