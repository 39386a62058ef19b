// Package simtest helps tests that run package sim: it runs a test for many seeds and tells which one failed, draws
// schedules of faults that shrink, and checks that a run repeats itself byte for byte.
//
// Use Seeds for the usual test over many worlds. Use Schedules where a failure shall be made small: rapid then looks
// for the fewest and mildest faults that still break the invariant. Use RequireDeterministic once per protocol: a Core
// that depends on the order of a map, on real time or on global randomness cannot be replayed. It is for tests only.
package simtest

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport/sim"
)

// SeedVariable is the environment variable that makes Seeds run one seed only.
const SeedVariable = "COTERIE_SEED"

// Seeds runs f for the seeds 1 to n, each as a subtest, and stops at the first that fails, saying how to run it again.
// If COTERIE_SEED is set, it runs that seed alone, be it within n or not.
func Seeds(t *testing.T, n int, f func(t *testing.T, seed uint64)) {
	t.Helper()
	if text := os.Getenv(SeedVariable); text != "" {
		seed, err := strconv.ParseUint(text, 0, 64)
		if err != nil || seed == 0 {
			t.Fatalf("simtest: %s=%q is not a seed: it must be a number from 1", SeedVariable, text)
		}
		runSeed(t, seed, f)
		return
	}
	for seed := uint64(1); seed <= uint64(max(n, 0)); seed++ {
		if !runSeed(t, seed, f) {
			return
		}
	}
}

// runSeed reports whether the seed passed. The hint comes from a deferred call, so that it is printed for a panic too.
func runSeed(t *testing.T, seed uint64, f func(t *testing.T, seed uint64)) bool {
	t.Helper()
	return t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
		done := false
		defer func() {
			if t.Failed() || !done && !t.Skipped() {
				t.Logf("replay this run with %s=%d go test -run '^%s$'", SeedVariable, seed, parentName(t.Name()))
			}
		}()
		f(t, seed)
		done = true
	})
}

// parentName makes of a subtest's name the pattern that runs its parents and all of theirs.
func parentName(name string) string {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '/' {
			return name[:i]
		}
	}
	return name
}

// Schedules generates schedules within the limits, for rapid: a failing one shrinks to fewer, earlier, shorter and
// milder faults. Kinds stand in the order of Limits.Kinds, the mildest first.
func Schedules(limits sim.Limits) *rapid.Generator[sim.Schedule] {
	limits = limits.WithDefaults()
	faults := rapid.SliceOfN(Faults(limits), 0, 20)
	return rapid.Custom(func(t *rapid.T) sim.Schedule {
		return limits.Bounded(faults.Draw(t, "faults"))
	})
}

// Faults generates single faults within the limits.
func Faults(limits sim.Limits) *rapid.Generator[sim.Fault] {
	limits = limits.WithDefaults()
	return rapid.Custom(func(t *rapid.T) sim.Fault {
		at := milliseconds(t, "at", limits.Length-time.Millisecond)
		f := sim.Fault{
			At:       at,
			Duration: time.Millisecond + milliseconds(t, "duration", min(limits.MaxFor, limits.Length-at)-time.Millisecond),
			Kind:     rapid.SampledFrom(limits.Kinds).Draw(t, "kind"),
			Nodes:    someNodes(t, "nodes", limits.Nodes, 1),
		}
		drawDetails(t, &f, limits)
		return f
	})
}

func drawDetails(t *rapid.T, f *sim.Fault, limits sim.Limits) {
	switch f.Kind {
	case sim.FaultCut:
		f.To = someNodes(t, "to", others(limits.Nodes, f.Nodes), 0)
	case sim.FaultLink:
		f.To = someNodes(t, "to", others(limits.Nodes, f.Nodes), 0)
		f.Link = &sim.Link{
			Latency:   sim.Uniform(0, time.Millisecond+milliseconds(t, "latency", 100*time.Millisecond)),
			Loss:      percent(t, "loss", limits.MaxLoss),
			Duplicate: percent(t, "duplicate", 0.2),
			Reorder:   percent(t, "reorder", 0.2),
		}
	case sim.FaultDisk:
		f.Disk = &sim.Disk{
			Sync:  sim.Exponential(0, time.Millisecond+milliseconds(t, "sync", 50*time.Millisecond)),
			Crash: percent(t, "crash", 0.1),
		}
	case sim.FaultDrift:
		f.Drift = rapid.Float64Range(-limits.MaxDrift, limits.MaxDrift).Draw(t, "drift")
	case sim.FaultJump:
		f.Jump = time.Duration(rapid.Int64Range(-limits.MaxJump.Milliseconds(), limits.MaxJump.Milliseconds()).Draw(t, "jump")) * time.Millisecond
	case sim.FaultCrash, sim.FaultPause, sim.FaultStall, sim.FaultPartition:
	}
}

// milliseconds are what schedules are drawn in, so that they are pleasant to read when they have shrunk.
func milliseconds(t *rapid.T, name string, most time.Duration) time.Duration {
	return time.Duration(rapid.Int64Range(0, max(most.Milliseconds(), 0)).Draw(t, name)) * time.Millisecond
}

func percent(t *rapid.T, name string, most float64) float64 {
	return float64(rapid.IntRange(0, int(most*100)).Draw(t, name)) / 100
}

func someNodes(t *rapid.T, name string, nodes []coterie.NodeID, least int) []coterie.NodeID {
	if len(nodes) == 0 {
		return nil
	}
	return rapid.SliceOfNDistinct(rapid.SampledFrom(nodes), least, len(nodes), rapid.ID[coterie.NodeID]).Draw(t, name)
}

func others(nodes, not []coterie.NodeID) []coterie.NodeID {
	return slices.DeleteFunc(slices.Clone(nodes), func(id coterie.NodeID) bool { return slices.Contains(not, id) })
}

// TB is the part of testing.TB, and of *rapid.T, that RequireDeterministic needs.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// RequireDeterministic makes the run twice, each with a Trace of its own to be put into Config.Trace, and fails the
// test at the first line in which the two traces differ. An empty trace fails too: the run did not use it.
func RequireDeterministic(t TB, run func(trace *sim.Trace)) {
	t.Helper()
	var texts [2]bytes.Buffer
	for i := range texts {
		trace := &sim.Trace{}
		run(trace)
		if trace.Len() == 0 {
			t.Fatalf("simtest: the trace is empty; the run must put it into sim.Config.Trace")
		}
		if err := trace.WriteJSON(&texts[i]); err != nil {
			t.Fatalf("simtest: %v", err)
		}
	}
	a, b := bytes.SplitAfter(texts[0].Bytes(), []byte("\n")), bytes.SplitAfter(texts[1].Bytes(), []byte("\n"))
	a, b = a[:len(a)-1], b[:len(b)-1] // after the last newline is nothing
	for i := range min(len(a), len(b)) {
		if !bytes.Equal(a[i], b[i]) {
			t.Fatalf("simtest: the same run gave two traces; they differ in line %d:\n%s%s", i+1, a[i], b[i])
		}
	}
	if len(a) != len(b) {
		t.Fatalf("simtest: the same run gave traces of %d and %d lines, one the beginning of the other", len(a), len(b))
	}
}
