// Package testsize says how much a test should do: a little by default, a tenth under the race detector, much when
// COTERIE_SOAK=1 is set. Every test that loops over seeds or draws from rapid asks it, so that the size of the suite
// is set in one place.
package testsize

import (
	"flag"
	"os"
	"strconv"
)

// Soak reports whether COTERIE_SOAK=1 asks for the long form of tests.
func Soak() bool { return os.Getenv("COTERIE_SOAK") == "1" }

// Race reports whether the race detector is on.
func Race() bool { return race }

// N is how many seeds or rounds to run: usual, a tenth of it under the race detector (at least one), or soak when the
// long form is asked for.
func N(usual, soak int) int {
	if Soak() {
		return soak
	}
	if race {
		return max(usual/10, 1)
	}
	return usual
}

// TB is the part of testing.TB that Checks needs.
type TB interface {
	Helper()
	Cleanup(func())
}

// Checks sets how many checks rapid makes in the rest of this test, scaled as by N; a -rapid.checks given on the
// command line or in RAPID_CHECKS counts instead. The test must not run in parallel with others.
func Checks(t TB, usual, soak int) {
	t.Helper()
	f := flag.Lookup("rapid.checks")
	if f == nil || os.Getenv("RAPID_CHECKS") != "" || given(f.Name) {
		return
	}
	old := f.Value.String()
	if err := f.Value.Set(strconv.Itoa(N(usual, soak))); err != nil {
		panic("testsize: " + err.Error())
	}
	t.Cleanup(func() { _ = f.Value.Set(old) })
}

// given reports whether the flag stands on the command line; f.Value.Set in Checks does not count.
func given(name string) (found bool) {
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}
