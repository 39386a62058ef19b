//go:build !unix

package main

import (
	"errors"
	"os"
)

// canStop is false where processes cannot be stopped: nothing stale is written then.
const canStop = false

func stopProcess(*os.Process) error     { return errors.ErrUnsupported }
func continueProcess(*os.Process) error { return errors.ErrUnsupported }
