//go:build !race

package raft

// checked turns on the checks of invariants; a test sets it.
var checked = false
