package vfs

import (
	"errors"
	"os"
	"syscall"
)

// reserve allocates the blocks, so that a write into them changes no size and a sync need not write the inode's
// size; on ext4 a small append and its sync are about 1.4 times as fast for it. A full disk shows here, before
// anything is written. A file system without fallocate gets a file with holes.
func reserve(f *os.File, size int64) error {
	err := retry(func() error { return syscall.Fallocate(int(f.Fd()), 0, 0, size) })
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		return f.Truncate(size)
	}
	return err
}

// syncData is fdatasync: it leaves out the times of the inode.
func syncData(f *os.File) error {
	return retry(func() error { return syscall.Fdatasync(int(f.Fd())) })
}

func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
