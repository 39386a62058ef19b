package crdt

import (
	"iter"
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
)

// kernel is the causal core of every type whose operations are named by dots: the dots seen (the causal context) and,
// for those of them that nothing has superseded, a payload. It is the DotFun of Almeida, Shoker and Baquero, "Delta
// State Replicated Data Types" (2018), §7.2; each type adds at most an index of its own.
//
// What keeps a merge proportional to the smaller side is the order: the live dots of a replica are sorted by their
// numbers, so that a delta's few dots are found by search and two full states are compared in one walk.
//
// Invariant: every live dot is in the context.
type kernel[P any] struct {
	seen clock.DotSet
	live []lane[P] // in the order of arrival: a lane's place is the small handle of its replica
}

// ref names a live dot by the handle of its replica.
type ref struct {
	lane uint32
	seq  uint64
}

// maxChunk is how many entries a chunk holds: an insertion moves at most so many.
const maxChunk = 256

// lane is the live dots of one replica, sorted, in chunks none of which is empty.
type lane[P any] struct {
	id     coterie.NodeID
	chunks [][]entry[P]
}

type entry[P any] struct {
	seq     uint64
	payload P
}

// spot is the place of an entry within a lane.
type spot struct{ chunk, i int }

// singleton is the memory of a kernel with one live dot: most deltas are such, and take one allocation by it.
type singleton[P any] struct {
	lanes   [1]lane[P]
	chunks  [1][]entry[P]
	entries [1]entry[P]
}

// setSingle makes k the kernel of one live dot and no other.
func (k *kernel[P]) setSingle(d clock.Dot, payload P, mem *singleton[P]) {
	mem.entries[0] = entry[P]{d.Seq, payload}
	mem.chunks[0] = mem.entries[:]
	mem.lanes[0] = lane[P]{d.Node, mem.chunks[:]}
	k.live = mem.lanes[:]
	k.seen.Add(d)
}

// laneOf returns the handle of a replica, which it gets at its first use. Replicas are few: a scan is faster than a
// map, and comparing an id with itself costs nothing.
func (k *kernel[P]) laneOf(id coterie.NodeID) uint32 {
	if i := k.findLane(id); i >= 0 {
		return uint32(i)
	}
	k.live = append(k.live, lane[P]{id: id})
	return uint32(len(k.live) - 1)
}

func (k *kernel[P]) findLane(id coterie.NodeID) int {
	for i := range k.live {
		if k.live[i].id == id {
			return i
		}
	}
	return -1
}

// dot returns what r names.
func (k *kernel[P]) dot(r ref) clock.Dot { return clock.Dot{Node: k.live[r.lane].id, Seq: r.seq} }

// add names a new event of replica id and makes it live with a payload.
func (k *kernel[P]) add(id coterie.NodeID, payload P) (clock.Dot, ref) {
	d := k.seen.Next(id)
	return d, k.insert(d, payload)
}

// insert makes d live; the caller adds it to the context.
func (k *kernel[P]) insert(d clock.Dot, payload P) ref {
	l := k.laneOf(d.Node)
	k.live[l].insert(d.Seq, payload)
	return ref{l, d.Seq}
}

// remove makes the dot live no more; it stays in the context.
func (k *kernel[P]) remove(r ref) {
	l := &k.live[r.lane]
	if at, found := l.find(r.seq); found {
		l.removeAt(at)
	}
}

// get returns the payload of a live dot.
func (k *kernel[P]) get(r ref) (payload P, found bool) {
	l := &k.live[r.lane]
	at, found := l.find(r.seq)
	if found {
		payload = l.chunks[at.chunk][at.i].payload
	}
	return payload, found
}

// all yields the live dots, each replica's in order. The kernel must not change meanwhile.
func (k *kernel[P]) all() iter.Seq2[ref, P] {
	return func(yield func(ref, P) bool) {
		for l := range k.live {
			for _, chunk := range k.live[l].chunks {
				for i := range chunk {
					if !yield(ref{uint32(l), chunk[i].seq}, chunk[i].payload) {
						return
					}
				}
			}
		}
	}
}

// count returns the number of live dots.
func (k *kernel[P]) count() (n int) {
	for l := range k.live {
		for _, chunk := range k.live[l].chunks {
			n += len(chunk)
		}
	}
	return n
}

// merge joins o into k, whichever of the two is a state or a delta: dots live in one and unknown to the other come or
// stay, dots live in one and known to the other, but not live there, go (§7.2, join of causal CRDTs). It calls added
// and removed, either may be nil, for what changes; removed before the dot goes.
func (k *kernel[P]) merge(o *kernel[P], added, removed func(ref, P)) {
	k.mergeRemovals(o, removed)
	for l := range o.live {
		from := &o.live[l]
		to := -1
		for _, chunk := range from.chunks {
			for i := range chunk {
				e := &chunk[i]
				if k.seen.Contains(clock.Dot{Node: from.id, Seq: e.seq}) {
					continue
				}
				if to < 0 {
					to = int(k.laneOf(from.id))
				}
				k.live[to].insert(e.seq, e.payload)
				if added != nil {
					added(ref{uint32(to), e.seq}, e.payload)
				}
			}
		}
	}
	k.seen.Merge(o.seen)
}

// mergeRemovals takes out the dots that o has seen and that are live here but not in o.
func (k *kernel[P]) mergeRemovals(o *kernel[P], removed func(ref, P)) {
	var gone []uint64
	var none lane[P]
	node, mine, theirs := coterie.NodeID(""), -1, &none
	first := true
	for d, last := range o.seen.Runs() {
		if first || d.Node != node {
			first, node = false, d.Node
			mine, theirs = k.findLane(node), &none
			if i := o.findLane(node); i >= 0 {
				theirs = &o.live[i]
			}
		}
		if mine < 0 {
			continue
		}
		gone = k.live[mine].missing(theirs, d.Seq, last, gone[:0])
		for _, seq := range gone {
			r := ref{uint32(mine), seq}
			if removed != nil {
				payload, _ := k.get(r)
				removed(r, payload)
			}
			k.remove(r)
		}
	}
}

// missing appends the dots from..to that are live in l and not in o.
func (l *lane[P]) missing(o *lane[P], from, to uint64, gone []uint64) []uint64 {
	a, _ := l.find(from)
	b, _ := o.find(from)
	for a.chunk < len(l.chunks) {
		seq := l.chunks[a.chunk][a.i].seq
		if seq > to {
			break
		}
		for b.chunk < len(o.chunks) && o.chunks[b.chunk][b.i].seq < seq {
			b = o.next(b)
		}
		if b.chunk == len(o.chunks) || o.chunks[b.chunk][b.i].seq != seq {
			gone = append(gone, seq)
		}
		a = l.next(a)
	}
	return gone
}

// next returns the place after at; its chunk is len(l.chunks) at the end.
func (l *lane[P]) next(at spot) spot {
	if at.i+1 < len(l.chunks[at.chunk]) {
		return spot{at.chunk, at.i + 1}
	}
	return spot{at.chunk + 1, 0}
}

// find returns the place of the first entry that is not before seq, and whether it is seq's own.
func (l *lane[P]) find(seq uint64) (spot, bool) {
	lo, hi := 0, len(l.chunks)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if c := l.chunks[mid]; c[len(c)-1].seq < seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(l.chunks) {
		return spot{lo, 0}, false
	}
	c := l.chunks[lo]
	a, b := 0, len(c)
	for a < b {
		mid := int(uint(a+b) >> 1)
		if c[mid].seq < seq {
			a = mid + 1
		} else {
			b = mid
		}
	}
	return spot{lo, a}, c[a].seq == seq
}

// insert adds an entry that is not there. Most come at the end.
func (l *lane[P]) insert(seq uint64, payload P) {
	e := entry[P]{seq, payload}
	n := len(l.chunks)
	if n == 0 || (len(l.chunks[n-1]) >= maxChunk && l.chunks[n-1][len(l.chunks[n-1])-1].seq < seq) {
		l.chunks = append(l.chunks, []entry[P]{e})
		return
	}
	at, _ := l.find(seq)
	if at.chunk == n {
		l.chunks[n-1] = append(l.chunks[n-1], e)
		return
	}
	c := slices.Insert(l.chunks[at.chunk], at.i, e)
	l.chunks[at.chunk] = c
	if len(c) > maxChunk {
		half := len(c) / 2
		l.chunks = slices.Insert(l.chunks, at.chunk+1, slices.Clone(c[half:]))
		clear(c[half:]) // what payloads refer to
		l.chunks[at.chunk] = c[:half]
	}
}

// removeAt takes out one entry, and joins chunks that have become small, so that there are never many.
func (l *lane[P]) removeAt(at spot) {
	c := slices.Delete(l.chunks[at.chunk], at.i, at.i+1)
	l.chunks[at.chunk] = c
	switch next := at.chunk + 1; {
	case len(c) == 0:
		l.chunks = slices.Delete(l.chunks, at.chunk, next)
	case next < len(l.chunks) && len(c)+len(l.chunks[next]) <= maxChunk/2:
		l.chunks[at.chunk] = append(c, l.chunks[next]...)
		l.chunks = slices.Delete(l.chunks, next, next+1)
	}
}

// clone copies all but what payloads refer to.
func (k *kernel[P]) clone() kernel[P] {
	c := kernel[P]{seen: k.seen.Clone(), live: slices.Clone(k.live)}
	for l := range c.live {
		c.live[l].chunks = slices.Clone(c.live[l].chunks)
		for i, chunk := range c.live[l].chunks {
			c.live[l].chunks[i] = slices.Clone(chunk)
		}
	}
	return c
}
