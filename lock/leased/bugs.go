package leased

// bug is a fault that a test plants to see that it is found.
type bug uint8

const (
	_             bug = iota
	bugGrantDead      // a waiter enters though its key has gone
	bugReleaseAny     // a release removes whoever holds the lock
)
