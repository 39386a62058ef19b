//go:build !race

package paxos

// checked turns on the checks of invariants; a test sets it.
var checked = false
