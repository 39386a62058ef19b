package sim

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
)

// Limits says what DrawSchedule may draw. Only Nodes is required.
type Limits struct {
	Nodes    []coterie.NodeID // required
	Length   time.Duration    // all faults are over by then; default 30 s
	Kinds    []FaultKind      // default all
	MaxDown  int              // nodes crashed, paused or with a hanging disk at one time; default all. Disk.Crash is not counted
	MaxFor   time.Duration    // the longest fault; default a quarter of Length
	MaxRate  float64          // faults per second of one kind, at most; default 1
	MaxDrift float64          // parts per million, either way; default 200
	MaxJump  time.Duration    // of a wall clock, either way; default 1 s
	MaxLoss  float64          // of a lossy link; default 0.3
}

// WithDefaults returns the limits with what is zero filled in.
func (l Limits) WithDefaults() Limits {
	l.Length = cmp.Or(max(l.Length, 0), 30*time.Second)
	if len(l.Kinds) == 0 {
		l.Kinds = FaultKinds()
	}
	l.MaxDown = cmp.Or(l.MaxDown, len(l.Nodes))
	l.MaxFor = cmp.Or(l.MaxFor, l.Length/4)
	l.MaxRate = cmp.Or(l.MaxRate, 1)
	l.MaxDrift = cmp.Or(l.MaxDrift, 200)
	l.MaxJump = cmp.Or(l.MaxJump, time.Second)
	l.MaxLoss = cmp.Or(l.MaxLoss, 0.3)
	return l
}

// DrawSchedule draws a schedule with rates of its own: each kind of fault is in it or not, by an even chance, and how
// often and how long is drawn per schedule, so that a thousand schedules are a thousand different climates rather than
// a thousand days of one (swarm testing: Groce et al., ISSTA 2012). It panics if Limits.Nodes is empty.
func DrawSchedule(seed uint64, limits Limits) Schedule {
	if len(limits.Nodes) == 0 {
		panic("sim: Limits.Nodes is empty")
	}
	limits = limits.WithDefaults()
	var s Schedule
	for _, kind := range limits.Kinds {
		src := newSource(seed, "schedule", coterie.NodeID(kind), "")
		if src.chance(0.5) {
			s = append(s, limits.drawKind(kind, &src)...)
		}
	}
	slices.SortStableFunc(s, func(a, b Fault) int { return cmp.Compare(a.At, b.At) })
	return limits.bound(s)
}

// drawKind draws all faults of a kind: their rate between one in the whole length and MaxRate, log-uniformly, and their
// usual duration.
func (l Limits) drawKind(kind FaultKind, src *source) []Fault {
	lowest := 1 / l.Length.Seconds()
	rate := lowest * math.Pow(max(l.MaxRate/lowest, 1), src.unit())
	usual := float64(10*time.Millisecond) * math.Pow(max(float64(l.MaxFor)/float64(10*time.Millisecond), 1), src.unit())
	var faults []Fault
	at := time.Duration(0)
	for {
		at += time.Duration(Exponential(0, time.Duration(float64(time.Second)/rate)).draw(src))
		if at >= l.Length {
			return faults
		}
		f := Fault{At: at, Kind: kind, Duration: min(time.Duration(Exponential(0, time.Duration(usual)).draw(src)), l.MaxFor, l.Length-at)}
		l.drawFault(&f, src)
		faults = append(faults, f)
	}
}

// drawFault fills in what its kind needs.
func (l Limits) drawFault(f *Fault, src *source) {
	f.Nodes = l.some(src, 1)
	switch f.Kind {
	case FaultPartition:
		f.Nodes = l.some(src, max(len(l.Nodes)/2, 1))
	case FaultCut:
		f.To = l.others(f.Nodes, src)
	case FaultLink:
		if src.chance(0.5) {
			f.Nodes = nil
		} else if src.chance(0.5) {
			f.To = l.others(f.Nodes, src)
		}
		f.Link = &Link{
			Latency: LogNormal(0, time.Duration(1+src.below(int64(20*time.Millisecond))), 2*src.unit()),
			Loss:    l.MaxLoss * src.unit(), Duplicate: 0.2 * src.unit(), Reorder: 0.2 * src.unit(),
		}
	case FaultDisk:
		f.Nodes = l.some(src, len(l.Nodes))
		f.Disk = &Disk{Sync: Exponential(time.Millisecond, time.Duration(1+src.below(int64(50*time.Millisecond)))), Crash: 0.1 * src.unit()}
	case FaultDrift:
		f.Drift = l.MaxDrift * (2*src.unit() - 1)
	case FaultJump:
		f.Jump = time.Duration(float64(l.MaxJump) * (2*src.unit() - 1))
	case FaultCrash, FaultPause, FaultStall:
	}
}

// some draws from 1 to most of the nodes.
func (l Limits) some(src *source, most int) []coterie.NodeID {
	nodes := slices.Clone(l.Nodes)
	n := 1 + int(src.below(int64(most)))
	for i := range n {
		j := i + int(src.below(int64(len(nodes)-i)))
		nodes[i], nodes[j] = nodes[j], nodes[i]
	}
	return nodes[:n:n]
}

// others draws some of the nodes not named, which is none if all are.
func (l Limits) others(not []coterie.NodeID, src *source) []coterie.NodeID {
	rest := Limits{Nodes: slices.DeleteFunc(slices.Clone(l.Nodes), func(id coterie.NodeID) bool { return slices.Contains(not, id) })}
	if len(rest.Nodes) == 0 {
		return nil
	}
	return rest.some(src, len(rest.Nodes))
}

// bound leaves out the faults that would hold more than MaxDown nodes at one time. s is in order of At.
func (l Limits) bound(s Schedule) Schedule {
	until := map[coterie.NodeID]time.Duration{}
	return slices.DeleteFunc(s, func(f Fault) bool {
		if f.Kind != FaultCrash && f.Kind != FaultPause && f.Kind != FaultStall {
			return false
		}
		held := len(f.Nodes)
		for id, end := range until {
			if end >= f.At && !slices.Contains(f.Nodes, id) {
				held++
			}
		}
		if held > l.MaxDown {
			return true
		}
		for _, id := range f.Nodes {
			until[id] = max(until[id], f.At+f.Duration)
		}
		return false
	})
}

// Bounded returns the schedule without the faults that would break MaxDown.
func (l Limits) Bounded(s Schedule) Schedule {
	s = slices.Clone(s)
	slices.SortStableFunc(s, func(a, b Fault) int { return cmp.Compare(a.At, b.At) })
	return l.WithDefaults().bound(s)
}
