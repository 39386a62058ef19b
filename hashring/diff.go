package hashring

import (
	"iter"
	"math"
	"math/bits"
)

// Range is a part of the hash space, both ends included.
type Range struct{ First, Last uint64 }

// Move is what one node hands to another. From is the zero N where there was no node before, To where there is none now.
type Move[N comparable] struct {
	From, To   N
	Share      float64 // of the hash space
	Ranges     []Range // of hashes, rising; nil if the plan is not exact
	Partitions []int   // of two Tables of one size, rising
}

// Plan is what must move for one placement to become another.
type Plan[N comparable] struct {
	Moves []Move[N] // in the order of the first hash that each holds
	// Exact is true for Table, Ring and Maglev, whose owners change at known places of the hash space. For the others
	// shares are measured on 2^20 hashes spread over the space, each share p give or take sqrt(p)/1000.
	Exact bool
}

// Share is the part of the hash space that moves.
func (p Plan[N]) Share() (total float64) {
	for _, m := range p.Moves {
		total += m.Share
	}
	return total
}

// segmented is a placement whose owner is constant over ranges of hashes.
type segmented[N comparable] interface {
	// segments yields each range's last hash with its owner, rising, up to the greatest hash.
	segments() iter.Seq2[uint64, N]
}

// Diff tells which part of the hash space moves from whom to whom when old becomes new. Both may be of any scheme, and
// must not change meanwhile; Clone or UnmarshalBinary keeps an old one.
func Diff[N comparable](before, after Locator[N]) Plan[N] {
	a, exact := before.(segmented[N])
	b, also := after.(segmented[N])
	d := differ[N]{index: make(map[[2]N]int)}
	if !exact || !also {
		const samples = 1 << 20
		for i := range uint64(samples) {
			hash := i<<44 + mix(i)>>20
			if from, to := before.LocateHash(hash), after.LocateHash(hash); from != to {
				d.move(from, to).Share += 1.0 / samples
			}
		}
		return Plan[N]{Moves: d.moves}
	}
	d.merge(a.segments(), b.segments())
	one, ok := before.(*Table[N])
	two, ok2 := after.(*Table[N])
	if ok && ok2 && one.bits == two.bits {
		for i := range d.moves {
			d.moves[i].partitions(one)
		}
	}
	return Plan[N]{Moves: d.moves, Exact: true}
}

type differ[N comparable] struct {
	index map[[2]N]int
	moves []Move[N]
}

func (d *differ[N]) move(from, to N) *Move[N] {
	i, ok := d.index[[2]N{from, to}]
	if !ok {
		i = len(d.moves)
		d.index[[2]N{from, to}] = i
		d.moves = append(d.moves, Move[N]{From: from, To: to})
	}
	return &d.moves[i]
}

// merge walks both placements at once, from boundary to boundary.
func (d *differ[N]) merge(before, after iter.Seq2[uint64, N]) {
	nextA, stopA := iter.Pull2(before)
	defer stopA()
	nextB, stopB := iter.Pull2(after)
	defer stopB()
	lastA, from, _ := nextA()
	lastB, to, _ := nextB()
	for first := uint64(0); ; {
		last := min(lastA, lastB)
		if from != to {
			d.move(from, to).add(Range{first, last})
		}
		if last == math.MaxUint64 {
			return
		}
		first = last + 1
		if lastA == last {
			lastA, from, _ = nextA()
		}
		if lastB == last {
			lastB, to, _ = nextB()
		}
	}
}

func (m *Move[N]) add(r Range) {
	m.Share += (float64(r.Last-r.First) + 1) / (1 << 63) / 2
	if n := len(m.Ranges); n > 0 && m.Ranges[n-1].Last+1 == r.First {
		m.Ranges[n-1].Last = r.Last
		return
	}
	m.Ranges = append(m.Ranges, r)
}

func (m *Move[N]) partitions(t *Table[N]) {
	for _, r := range m.Ranges {
		for p := t.Partition(r.First); p <= t.Partition(r.Last); p++ {
			m.Partitions = append(m.Partitions, p)
		}
	}
}

func (t *Table[N]) segments() iter.Seq2[uint64, N] {
	p := t.placed.Load()
	return func(yield func(uint64, N) bool) {
		for i := range uint64(1) << t.bits {
			last := (i+1)<<(63-t.bits)<<1 - 1
			if !yield(last, p.nodes[p.place.owner(last)]) {
				return
			}
		}
	}
}

func (r *Ring[N]) segments() iter.Seq2[uint64, N] {
	p := r.placed.Load()
	return func(yield func(uint64, N) bool) {
		points := p.place.points
		place := uint64(math.MaxUint64)
		for _, point := range points {
			if at := point | (1<<rankBits - 1); at != place {
				place = at
				if !yield(place, p.nodes[rankOf(point)]) {
					return
				}
			}
		}
		first := 0
		if len(points) > 0 {
			if place == math.MaxUint64 {
				return
			}
			first = rankOf(points[0])
		}
		yield(math.MaxUint64, p.nodes[first])
	}
}

func (m *Maglev[N]) segments() iter.Seq2[uint64, N] {
	p := m.placed.Load()
	return func(yield func(uint64, N) bool) {
		for i, owner := range p.place.owner {
			last := uint64(math.MaxUint64)
			if next := uint64(i) + 1; next < p.place.prime {
				quo, rem := bits.Div64(next, 0, p.place.prime) // next * 2^64 / prime
				last = quo
				if rem == 0 {
					last--
				}
			}
			if !yield(last, p.nodes[owner]) {
				return
			}
		}
	}
}
