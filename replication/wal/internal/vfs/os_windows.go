package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// syncDir does nothing: Windows has no sync of a folder; NTFS journals its names.
func syncDir(string) error { return nil }

// errSharingViolation is ERROR_SHARING_VIOLATION: another handle has the file open.
const errSharingViolation = syscall.Errno(32)

// lockFile opens the file so that nobody else can.
func lockFile(name string) (io.Closer, error) {
	path, err := syscall.UTF16PtrFromString(name)
	if err != nil {
		return nil, err
	}
	h, err := syscall.CreateFile(path, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil,
		syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		if errors.Is(err, errSharingViolation) {
			err = ErrLocked
		}
		return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
	}
	return os.NewFile(uintptr(h), name), nil
}
