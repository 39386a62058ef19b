// Package vfs is the seam between the log and a file system: the few operations that a log needs, each with its
// durability spelled out, so that tests can run on a file system in memory that crashes.
package vfs

import "io"

// FS is a file system. Names are paths as of path/filepath. Every method is safe for concurrent use.
//
// Nothing that changes a folder (Create, Rename, Remove) is durable before SyncDir of that folder has returned nil.
type FS interface {
	// MkdirAll makes a folder and its parents; those that it makes are durable when it returns.
	MkdirAll(dir string) error
	// List names the files of a folder, sorted; folders in it are left out.
	List(dir string) ([]string, error)
	// Create makes an empty file, or empties the one there is, and gives it a size, with room on the disk for it
	// where the system can promise that. It reads as zeros.
	Create(name string, size int64) (File, error)
	// Open opens a file that exists, for reading and writing.
	Open(name string) (File, error)
	// Rename gives a file another name, in place of whatever had it.
	Rename(from, to string) error
	// Remove deletes a file.
	Remove(name string) error
	// SyncDir makes durable which files the folder holds.
	SyncDir(dir string) error
	// Lock takes a lock that ends with the process or with Close, and makes its file if need be. Where another holder
	// has it the error is ErrLocked.
	Lock(name string) (io.Closer, error)
}

// File is an open file. ReadAt and WriteAt may run beside each other.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes durable what was written and the file's size. After an error nothing is known of what was written
	// since the Sync before, also when a later one succeeds.
	Sync() error
	// Truncate sets the size.
	Truncate(size int64) error
	// Size returns the size in bytes.
	Size() (int64, error)
}
