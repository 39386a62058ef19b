//go:build !linux

package vfs

import "os"

// reserve sets the size only; the blocks are found when they are written.
func reserve(f *os.File, size int64) error { return f.Truncate(size) }

// syncData is the full sync; on darwin that is F_FULLFSYNC, which also empties the drive's cache.
func syncData(f *os.File) error { return f.Sync() }
