package sim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coterie-go/coterie"
)

// FaultKind says what a Fault does.
type FaultKind string

// The kinds of Fault. Each ends after its Duration by itself.
const (
	FaultCrash     FaultKind = "crash"     // Nodes crash, and restart at the end
	FaultPause     FaultKind = "pause"     // Nodes stand still
	FaultStall     FaultKind = "stall"     // the disks of Nodes hang
	FaultPartition FaultKind = "partition" // Nodes and all others are cut off from each other
	FaultCut       FaultKind = "cut"       // links from Nodes to To are cut, one-way; none named is all
	FaultLink      FaultKind = "link"      // links from Nodes to To behave as Link; none named is all
	FaultDisk      FaultKind = "disk"      // disks of Nodes behave as Disk
	FaultDrift     FaultKind = "drift"     // clocks of Nodes go fast by Drift
	FaultJump      FaultKind = "jump"      // wall clocks of Nodes jump by Jump, and back at the end
)

// FaultKinds lists all kinds.
func FaultKinds() []FaultKind {
	return []FaultKind{FaultCrash, FaultPause, FaultStall, FaultPartition, FaultCut, FaultLink, FaultDisk, FaultDrift, FaultJump}
}

// Fault is one thing that goes wrong, as plain data.
type Fault struct {
	At       time.Duration    `json:"at"`              // when it begins, from the time of Apply
	Duration time.Duration    `json:"duration"`        // how long it lasts
	Kind     FaultKind        `json:"kind"`            // what happens
	Nodes    []coterie.NodeID `json:"nodes,omitempty"` // to which nodes
	To       []coterie.NodeID `json:"to,omitempty"`    // receivers, of FaultCut and FaultLink
	Link     *Link            `json:"link,omitempty"`  // of FaultLink
	Disk     *Disk            `json:"disk,omitempty"`  // of FaultDisk; Slow is not drawn again
	Drift    float64          `json:"drift,omitempty"` // of FaultDrift, parts per million
	Jump     time.Duration    `json:"jump,omitempty"`  // of FaultJump
}

// Schedule is what goes wrong in a run, and when. It is data: it can be drawn, shrunk, written as JSON, kept as a test.
type Schedule []Fault

// End is when the last fault is over, from the time of Apply.
func (s Schedule) End() time.Duration {
	end := time.Duration(0)
	for _, f := range s {
		end = max(end, f.At+f.Duration)
	}
	return end
}

// String gives one fault per line.
func (s Schedule) String() string {
	var b strings.Builder
	for _, f := range s {
		fmt.Fprintf(&b, "%v to %v: %v\n", f.At, f.At+f.Duration, f)
	}
	return b.String()
}

// String says what happens to whom.
func (f Fault) String() string {
	switch f.Kind {
	case FaultCut:
		return fmt.Sprintf("cut %s to %s", all(f.Nodes), all(f.To))
	case FaultLink:
		return fmt.Sprintf("link %s to %s %v", all(f.Nodes), all(f.To), f.Link)
	case FaultDisk:
		return fmt.Sprintf("disk %v %v", f.Nodes, f.Disk)
	case FaultDrift:
		return fmt.Sprintf("drift %v by %.3g ppm", f.Nodes, f.Drift)
	case FaultJump:
		return fmt.Sprintf("jump %v by %v", f.Nodes, f.Jump)
	case FaultCrash, FaultPause, FaultStall, FaultPartition:
	}
	return fmt.Sprintf("%s %v", f.Kind, f.Nodes)
}

// all names the nodes, of which none means all.
func all(nodes []coterie.NodeID) string {
	if len(nodes) == 0 {
		return "all"
	}
	return fmt.Sprint(nodes)
}

// Apply lets the faults of a schedule happen from now on. An error names the fault that is wrong, and then none happens.
func (w *World) Apply(s Schedule) error {
	for i, f := range s {
		if err := w.validate(f); err != nil {
			return fmt.Errorf("sim: fault %d (%s): %w", i, f.Kind, err)
		}
	}
	for _, f := range s {
		w.faults++
		id := w.faults
		w.After(f.At, func() { w.begin(f, id) })
	}
	return nil
}

// Play applies a schedule, runs the world until it is over and heals everything: what follows is the phase in which the
// protocol must make progress.
func (w *World) Play(s Schedule) error {
	if err := w.Apply(s); err != nil {
		return err
	}
	if err := w.Run(s.End()); err != nil {
		return err
	}
	w.HealAll()
	return w.err
}

func (w *World) validate(f Fault) error {
	for _, id := range slices.Concat(f.Nodes, f.To) {
		if _, ok := w.index[id]; !ok {
			return fmt.Errorf("%w %q", ErrUnknownNode, id)
		}
	}
	if f.At < 0 || f.Duration < 0 || f.At > longest || f.Duration > longest {
		return fmt.Errorf("its At %v and Duration %v must be from 0 to %v", f.At, f.Duration, longest)
	}
	switch f.Kind {
	case FaultCrash, FaultPause, FaultStall, FaultPartition, FaultCut:
	case FaultLink:
		if f.Link == nil {
			return errors.New("its Link is nil")
		}
		return f.Link.withDefaults().validate()
	case FaultDisk:
		if f.Disk == nil {
			return errors.New("its Disk is nil")
		}
		return f.Disk.withDefaults().validate()
	case FaultDrift:
		if !validDrift(f.Drift) {
			return fmt.Errorf("its Drift is %v ppm; it must be from -500,000 to 1,000,000", f.Drift)
		}
	case FaultJump:
		if f.Jump.Abs() > longest {
			return fmt.Errorf("its Jump is %v; it must be at most %v either way", f.Jump, longest)
		}
	default:
		return fmt.Errorf("unknown kind; known are %v", FaultKinds())
	}
	return nil
}

// begin lets a fault happen and queues its end. What ends by the clock (links, disks) needs no end of its own but for
// the trace.
func (w *World) begin(f Fault, id uint64) {
	if w.trace != nil {
		w.trace.add(entry{at: w.now, kind: traceFault, node: -1, peer: -1, id: id, text: f.String()})
	}
	until := w.now + int64(f.Duration)
	healed := w.healed
	switch f.Kind {
	case FaultPartition:
		w.split(until, [][]coterie.NodeID{f.Nodes})
	case FaultCut:
		w.eachLink(f, func(l *link) { l.cutUntil = max(l.cutUntil, until) })
	case FaultLink:
		set := f.Link.withDefaults()
		w.eachLink(f, func(l *link) { l.override, l.overrideUntil = &set, until })
	case FaultCrash, FaultPause, FaultStall, FaultDisk, FaultDrift, FaultJump:
		for _, id := range f.Nodes {
			w.must(id).suffer(f, until)
		}
	}
	w.After(f.Duration, func() {
		if w.trace != nil {
			w.trace.add(entry{at: w.now, kind: traceFaultEnd, node: -1, peer: -1, id: id})
		}
		if w.healed != healed {
			return // HealAll has undone it
		}
		for _, id := range f.Nodes {
			w.must(id).recover(f)
		}
	})
}

func (n *node) suffer(f Fault, until int64) {
	switch f.Kind {
	case FaultCrash:
		if n.up {
			n.crash()
			n.comeBack(int64(f.Duration))
		}
	case FaultPause:
		n.pause(until)
	case FaultStall:
		n.stall(until)
	case FaultDisk:
		n.disk.override, n.disk.overrideUntil = f.Disk.withDefaults(), until
	case FaultDrift:
		n.clock.SetDrift(f.Drift)
	case FaultJump:
		n.clock.Jump(f.Jump)
	case FaultPartition, FaultCut, FaultLink:
	}
}

func (n *node) recover(f Fault) {
	switch f.Kind {
	case FaultPause:
		n.goOn(traceResume)
	case FaultStall:
		n.goOn(traceUnstall)
	case FaultDrift:
		n.clock.SetDrift(0)
	case FaultJump:
		n.clock.Jump(-f.Jump)
	case FaultCrash, FaultPartition, FaultCut, FaultLink, FaultDisk:
	}
}

// eachLink calls f with each link from a node of Nodes to one of To; none named is all.
func (w *World) eachLink(f Fault, do func(*link)) {
	from, to := f.Nodes, f.To
	if len(from) == 0 {
		from = w.Nodes()
	}
	if len(to) == 0 {
		to = w.Nodes()
	}
	for _, a := range from {
		for _, b := range to {
			if a != b {
				do(w.must(a).link(w.must(b).index))
			}
		}
	}
}
