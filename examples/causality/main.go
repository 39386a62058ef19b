// Causality shows what each kind of clock can tell: three simulated nodes, whose wall clocks disagree, exchange
// messages and stamp every event by wall clock, Lamport clock, vector clock and hybrid clock. A table then compares how
// each orders all pairs of events with what really happened before what, and the run is written as a log for ShiViz
// and as an HTML space-time diagram.
//
//	go run ./examples/causality [-seed 1] [-out folder]
//	go run ./examples/causality -ntp host:123    asks a real time server instead
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/transport/sim"
)

func main() {
	seed := flag.Uint64("seed", 1, "what the run is drawn from; not 0")
	out := flag.String("out", filepath.Join(os.TempDir(), "coterie-causality"), "folder for the diagrams")
	server := flag.String("ntp", "", "host:port of an NTP server to ask instead")
	flag.Parse()
	var text strings.Builder
	var err error
	if *server != "" {
		err = askNTP(&text, *server)
	} else {
		err = run(&text, *seed, *out)
	}
	fmt.Print(text.String())
	if err != nil {
		fmt.Fprintln(os.Stderr, "causality:", err)
		os.Exit(1)
	}
}

// run simulates, prints the table and writes the diagrams.
func run(stdout *strings.Builder, seed uint64, out string) error {
	trace := &sim.Trace{}
	events, err := simulate(seed, trace)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d events at three nodes whose wall clocks are up to 10 ms off; the first twelve:\n\n", len(events))
	fmt.Fprintf(stdout, "  %-6s %-14s %-16s %-8s %-18s %s\n", "event", "what", "wall clock", "lamport", "vector", "hybrid")
	for _, e := range events[:12] {
		fmt.Fprintf(stdout, "  %-6v %-14s %-16s %-8d %-18v %s+%d\n", e.id, e.what, e.wall.Format("05.000000000"), e.scalar.Time,
			e.vector, e.hybrid.Wall().UTC().Format("05.000000"), e.hybrid.Logical())
	}
	verdicts := judge(events)
	fmt.Fprintf(stdout, "\n  %-14s %23s   %28s   %s\n", "", "cause and effect", "concurrent", "1 ms apart in real time")
	fmt.Fprintf(stdout, "  %-14s %11s %11s   %11s %16s   %11s %11s\n", "clock", "right", "wrong", "recognized", "ordered anyway", "right", "wrong")
	for _, v := range verdicts {
		fmt.Fprintf(stdout, "  %-14s %11d %11d   %11d %16d   %11d %11d\n", v.clock, v.causeRight, v.causeWrong,
			v.concurrent, v.ordered, v.realRight, v.realWrong)
	}
	if err := writeDiagrams(stdout, trace, out); err != nil {
		return err
	}
	return verify(verdicts)
}

// simulate runs three nodes for as long as they have something to say.
func simulate(seed uint64, trace *sim.Trace) ([]event, error) {
	w, err := sim.New(sim.Config{Seed: seed, MaxSkew: 10 * time.Millisecond, Trace: trace})
	if err != nil {
		return nil, err
	}
	var events []event
	ids := []coterie.NodeID{"a", "b", "c"}
	for i, id := range ids {
		peers := []coterie.NodeID{ids[(i+1)%3], ids[(i+2)%3]}
		var made *node
		err = w.Add(id, sim.Node{New: func(uint64) (coterie.Core, sim.App) {
			var failed error
			if made, failed = newNode(id, peers, w.Clock(id).Now, seed, 15); failed != nil {
				panic(failed) // the config is the program's own
			}
			return made, sim.EventFunc(func(_ time.Time, e any) { events = append(events, e.(event)) })
		}})
		if err != nil {
			return nil, err
		}
	}
	return events, errors.Join(w.Run(time.Second), func() error {
		if len(events) != 3*15*2 {
			return fmt.Errorf("%d events instead of 90", len(events))
		}
		return nil
	}())
}

func writeDiagrams(stdout *strings.Builder, trace *sim.Trace, out string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, d := range []struct {
		name  string
		write func(io.Writer) error
	}{{"causality.shiviz.log", trace.WriteShiViz}, {"causality.html", trace.WriteHTML}} {
		path := filepath.Join(out, d.name)
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		if err := errors.Join(d.write(f), f.Close()); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "\nwrote %s", path)
	}
	fmt.Fprintln(stdout)
	return nil
}

// verify checks that the clocks keep what they promise.
func verify(verdicts []verdict) error {
	for _, v := range verdicts {
		switch {
		case v.clock != "wall" && v.causeWrong > 0:
			return fmt.Errorf("the %s clock put %d effects before their causes", v.clock, v.causeWrong)
		case v.clock == "vector" && v.ordered > 0:
			return fmt.Errorf("the vector clock ordered %d concurrent pairs", v.ordered)
		}
	}
	return nil
}

// verdict counts how one clock orders pairs of events.
type verdict struct {
	clock                  string
	causeRight, causeWrong int // of the pairs of which one happened before the other
	concurrent, ordered    int // of the others: found to be concurrent, or given an order that is not there
	realRight, realWrong   int // of all pairs a millisecond or more apart
}

// judge compares every pair of events with the definition of happened-before: the order of events at each node, and
// from each sending to its receipt, and what follows by going on from one to the next.
func judge(events []event) []verdict {
	before := happenedBefore(events)
	clocks := []struct {
		name    string
		compare func(a, b event) clock.Ordering
	}{
		{"wall", func(a, b event) clock.Ordering { return clock.Ordering(a.wall.Compare(b.wall)) }},
		{"lamport", func(a, b event) clock.Ordering { return clock.Ordering(a.scalar.Compare(b.scalar)) }},
		{"vector", func(a, b event) clock.Ordering { return a.vector.Compare(b.vector) }},
		{"hybrid", func(a, b event) clock.Ordering { return clock.Ordering(a.hybrid.Compare(b.hybrid)) }},
	}
	verdicts := make([]verdict, len(clocks))
	for i, c := range clocks {
		v := &verdicts[i]
		v.clock = c.name
		for _, a := range events {
			for _, b := range events {
				if a.id.Compare(b.id) < 0 {
					v.count(c.compare(a, b), before[[2]clock.Dot{a.id, b.id}], before[[2]clock.Dot{b.id, a.id}], b.truth.Sub(a.truth))
				}
			}
		}
	}
	return verdicts
}

func (v *verdict) count(got clock.Ordering, ab, ba bool, apart time.Duration) {
	switch {
	case ab && got == clock.Before, ba && got == clock.After:
		v.causeRight++
	case ab || ba:
		v.causeWrong++
	case got == clock.Concurrent:
		v.concurrent++
	default:
		v.ordered++
	}
	if apart.Abs() < time.Millisecond || got == clock.Concurrent {
		return
	}
	if (got == clock.Before) == (apart > 0) {
		v.realRight++
	} else {
		v.realWrong++
	}
}

// happenedBefore is the definition, by walking back from each event to all its causes.
func happenedBefore(events []event) map[[2]clock.Dot]bool {
	byID := map[clock.Dot]event{}
	for _, e := range events {
		byID[e.id] = e
	}
	before := map[[2]clock.Dot]bool{}
	for _, e := range events {
		todo := []clock.Dot{e.id}
		for len(todo) > 0 {
			d := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			for _, cause := range []clock.Dot{{Node: d.Node, Seq: d.Seq - 1}, byID[d].cause} {
				if pair := [2]clock.Dot{cause, e.id}; !cause.IsZero() && !before[pair] {
					before[pair] = true
					todo = append(todo, cause)
				}
			}
		}
	}
	return before
}
