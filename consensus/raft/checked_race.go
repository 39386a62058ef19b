//go:build race

package raft

// checked turns on the checks of invariants.
const checked = true
