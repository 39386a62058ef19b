//go:build race

package paxos

// checked turns on the checks of invariants.
const checked = true
