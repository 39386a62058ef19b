package clock

import (
	"math"
	"slices"

	"github.com/coterie-go/coterie"
)

// Next adds the event after the greatest one of a node and returns it: how a node names an event of its own. Only the
// node itself may do so, else one Dot names two events.
func (s *DotSet) Next(id coterie.NodeID) Dot {
	d := s.of(id)
	seq := d.last() + 1
	if seq == 0 {
		panic("clock: DotSet.Next beyond the maximum of 64 bits")
	}
	d.add(run{seq, seq})
	return Dot{id, seq}
}

// Add adds one event and reports whether it was new. The zero Dot is never added.
func (s *DotSet) Add(d Dot) bool {
	if d.Seq == 0 {
		return false
	}
	n := s.of(d.Node)
	if n.contains(d.Seq) {
		return false
	}
	n.add(run{d.Seq, d.Seq})
	return true
}

// AddRun adds the events from first to the one numbered last, both included; nothing if last is less.
func (s *DotSet) AddRun(first Dot, last uint64) {
	if from := max(first.Seq, 1); from <= last {
		s.of(first.Node).add(run{from, last})
	}
}

// Remove takes one event out of the set and reports whether it was in it.
func (s *DotSet) Remove(d Dot) bool {
	i, found := s.find(d.Node)
	if !found || !s.nodes[i].contains(d.Seq) {
		return false
	}
	s.nodes[i].subtract(&dots{runs: []run{{d.Seq, d.Seq}}})
	s.dropEmpty()
	return true
}

// Merge adds all events of o. It leaves o as it is and shares nothing with it; it allocates only where s grows.
func (s *DotSet) Merge(o DotSet) {
	i := 0
	for j := range o.nodes {
		from := &o.nodes[j]
		for i < len(s.nodes) && s.nodes[i].id != from.id && s.nodes[i].id < from.id {
			i++
		}
		if i == len(s.nodes) || s.nodes[i].id != from.id {
			s.mergeUnion(i, o.nodes[j:])
			return
		}
		s.nodes[i].merge(from)
	}
}

// mergeUnion merges b, whose first node s lacks and which belongs at i. It makes room once and merges from the back,
// so that nothing is overwritten before it is read.
func (s *DotSet) mergeUnion(i int, b []dots) {
	old, grown := len(s.nodes), 0
	for x, y := i, 0; y < len(b); y++ {
		for x < old && s.nodes[x].id < b[y].id {
			x++
		}
		if x == old || s.nodes[x].id != b[y].id {
			grown++
		}
	}
	s.nodes = slices.Grow(s.nodes, grown)[:old+grown]
	a := s.nodes
	x, w := old-1, len(a)-1
	for y := len(b) - 1; y >= 0; w-- {
		switch {
		case x >= i && a[x].id == b[y].id:
			a[w] = a[x]
			a[w].merge(&b[y])
			x--
			y--
		case x >= i && a[x].id > b[y].id:
			a[w] = a[x]
			x--
		default:
			a[w] = dots{id: b[y].id, upto: b[y].upto, runs: slices.Clone(b[y].runs)}
			y--
		}
	}
}

// Subtract takes all events of o out of the set and leaves o as it is.
func (s *DotSet) Subtract(o DotSet) {
	a, b := s.nodes, o.nodes
	emptied := false
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0].id == b[0].id:
			a[0].subtract(&b[0])
			emptied = emptied || a[0].last() == 0
			a, b = a[1:], b[1:]
		case a[0].id < b[0].id:
			a = a[1:]
		default:
			b = b[1:]
		}
	}
	if emptied {
		s.dropEmpty()
	}
}

// Reset empties the set and keeps its memory.
func (s *DotSet) Reset() {
	clear(s.nodes)
	s.nodes = s.nodes[:0]
}

func (s *DotSet) dropEmpty() {
	s.nodes = slices.DeleteFunc(s.nodes, func(d dots) bool { return d.last() == 0 })
}

// of returns the events of a node, made if need be; the caller adds one.
func (s *DotSet) of(id coterie.NodeID) *dots {
	i, found := s.find(id)
	if !found {
		s.nodes = slices.Insert(s.nodes, i, dots{id: id})
	}
	return &s.nodes[i]
}

// add adds a run, joins it with what it overlaps or touches, and compacts.
func (d *dots) add(r run) {
	switch {
	case r.to <= d.upto:
		return
	case r.from <= d.upto || r.from == d.upto+1:
		d.upto = r.to
		d.compact()
		return
	case r.from > d.last() && r.from-1 > d.last():
		d.runs = append(d.runs, r)
		return
	}
	i := d.search(r.from - 1) // the first run that r touches or precedes
	j := i
	for j < len(d.runs) && (r.to == math.MaxUint64 || d.runs[j].from <= r.to+1) {
		r = run{min(r.from, d.runs[j].from), max(r.to, d.runs[j].to)}
		j++
	}
	if i == j {
		d.runs = slices.Insert(d.runs, i, r)
		return
	}
	d.runs[i] = r
	d.runs = slices.Delete(d.runs, i+1, j)
}

// compact moves runs that the contiguous part has reached into it.
func (d *dots) compact() {
	n := 0
	for n < len(d.runs) && (d.upto == math.MaxUint64 || d.runs[n].from <= d.upto+1) {
		d.upto = max(d.upto, d.runs[n].to)
		n++
	}
	if n > 0 {
		d.runs = slices.Delete(d.runs, 0, n)
	}
}

// merge adds all events of o.
func (d *dots) merge(o *dots) {
	if o.upto > d.upto {
		d.upto = o.upto
	}
	d.compact()
	switch {
	case len(o.runs) == 0:
	case len(o.runs) <= 4 || len(d.runs) == 0:
		for _, r := range o.runs {
			d.add(r)
		}
	case d.covers(o): // a repeated delta or state adds nothing, and then should cost nothing
	default:
		d.mergeRuns(o.runs)
	}
}

// mergeRuns merges two sorted clouds in one pass: adding run by run would move the tail for each.
func (d *dots) mergeRuns(b []run) {
	a := d.runs
	out := make([]run, 0, len(a)+len(b))
	for len(a) > 0 || len(b) > 0 {
		var r run
		if len(b) == 0 || len(a) > 0 && a[0].from <= b[0].from {
			r, a = a[0], a[1:]
		} else {
			r, b = b[0], b[1:]
		}
		if n := len(out); n > 0 && r.from-1 <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, r.to)
		} else {
			out = append(out, r)
		}
	}
	d.runs = out
	for len(d.runs) > 0 && d.runs[0].to <= d.upto {
		d.runs = d.runs[1:]
	}
	d.compact()
}

// subtract takes all events of o away.
func (d *dots) subtract(o *dots) {
	if len(d.runs) == 0 && len(o.runs) == 0 {
		// What is left of 1..upto, if anything, no longer starts at 1.
		if left := (run{o.upto + 1, d.upto}); o.upto > 0 {
			d.upto = 0
			if left.from > 1 && left.from <= left.to {
				d.runs = []run{left}
			}
		}
		return
	}
	holes := o.runs
	if o.upto > 0 {
		holes = append([]run{{1, o.upto}}, o.runs...)
	}
	mine := d.runs
	if d.upto > 0 {
		mine = append([]run{{1, d.upto}}, d.runs...)
	}
	left := make([]run, 0, len(mine)+len(holes))
	for _, r := range mine {
		for len(holes) > 0 && holes[0].to < r.from {
			holes = holes[1:]
		}
		from, whole := r.from, true
		for _, h := range holes {
			if h.from > r.to {
				break
			}
			if h.from > from {
				left = append(left, run{from, h.from - 1})
			}
			if h.to >= r.to {
				whole = false
				break
			}
			from = h.to + 1
		}
		if whole {
			left = append(left, run{from, r.to})
		}
	}
	d.upto, d.runs = 0, left
	d.compact()
}
