package hashring

import (
	"cmp"
	"fmt"
	"iter"
	"math"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Ring is consistent hashing with virtual nodes (Karger et al., 1997): each node stands at many points of a circle,
// and a key belongs to the first point at or after its own place. An index over the top bits of the place makes a
// lookup a hash, a load and a few comparisons. With V points a node, the fullest of 100 nodes has about 2.5/sqrt(V)
// above the mean: 20% with the default 256.
//
// The owner depends on the set of nodes and weights alone; a node that joins takes keys from others and moves none
// between them, one that leaves moves only its own, to the next on the circle. It takes 8 B a point and 1 to 2 B for the
// index; a change copies both. It is safe for concurrent use.
type Ring[N comparable] struct {
	set[N, circle]
	virtual int
}

// circle is the points, sorted: 40 bits of place, then 24 of the node's rank, by which the name decides where points
// of two nodes fall together.
type circle struct {
	points []uint64
	index  []uint32 // by the top bits of a place: the first point that has them or higher ones
	shift  uint
}

const rankBits = 24

// NewRing makes a Ring of nodes. The error names the field of Config that is wrong, or is ErrDuplicate or ErrCapacity.
func NewRing[N comparable](cfg Config[N], nodes ...N) (*Ring[N], error) {
	n, err := cfg.naming()
	if err != nil {
		return nil, err
	}
	r := &Ring[N]{}
	if err := r.size(cfg.VirtualNodes); err != nil {
		return nil, err
	}
	return r, r.init(n, nodes, r.draw)
}

func (r *Ring[N]) size(virtual int) error {
	if virtual == 0 {
		virtual = 256
	}
	if virtual < 1 || virtual > 1<<20 {
		return fmt.Errorf("hashring: Config.VirtualNodes %d is not within 1 and 2^20", virtual)
	}
	r.virtual = virtual
	return nil
}

// draw makes the circle, of the old one if most of it stays.
func (r *Ring[N]) draw(old *placed[N, circle], members []member[N]) (*circle, error) {
	if len(members) >= 1<<rankBits {
		return nil, fmt.Errorf("%d nodes: %w", len(members), ErrCapacity)
	}
	const mostPoints = 1 << 27
	total := 0
	for i := range members {
		total += r.copies(members[i].weight)
	}
	if total > mostPoints {
		return nil, fmt.Errorf("%d points: %w", total, ErrCapacity)
	}
	c := &circle{points: make([]uint64, 0, total)}
	width := uint(max(bits.Len(uint(total/2))-1, 0)) // a bucket has two to four points
	c.shift = 63 - width
	c.index = make([]uint32, (1<<width)+1)
	if old == nil {
		c.points = r.points(members, members)
	} else {
		ranks, joined := r.stay(old.members, members)
		c.merge(old.place.points, ranks, r.points(joined, members))
	}
	c.number()
	return c, nil
}

// gone is the rank of a node that leaves the circle.
const gone = math.MaxUint32

// stay returns the new ranks of the nodes that are as they were, and the nodes that are not.
func (r *Ring[N]) stay(old, members []member[N]) (ranks []uint32, joined []member[N]) {
	ranks = make([]uint32, len(old))
	next := 0
	for i := range old {
		for next < len(members) && members[next].before(&old[i]) < 0 {
			joined = append(joined, members[next])
			next++
		}
		ranks[i] = gone
		if next < len(members) && members[next].before(&old[i]) == 0 {
			if r.copies(members[next].weight) == r.copies(old[i].weight) {
				ranks[i] = uint32(next)
			} else {
				joined = append(joined, members[next])
			}
			next++
		}
	}
	return ranks, append(joined, members[next:]...)
}

// points returns the sorted points of some of the members.
func (r *Ring[N]) points(some, members []member[N]) []uint64 {
	total := 0
	for i := range some {
		total += r.copies(some[i].weight)
	}
	points := make([]uint64, 0, total)
	rank := 0
	for i := range some {
		for members[rank].before(&some[i]) != 0 {
			rank++
		}
		for j := range r.copies(some[i].weight) {
			points = append(points, mix(some[i].hash^mix(uint64(j)))>>rankBits<<rankBits|uint64(rank))
		}
	}
	return sorted(points)
}

// sorted sorts evenly spread numbers: by their top bits in one pass, then the few of each bucket.
func sorted(points []uint64) []uint64 {
	const few = 1 << 10
	if len(points) <= few {
		slices.Sort(points)
		return points
	}
	shift := 66 - uint(bits.Len(uint(len(points)))) // four to eight of them in a bucket
	ends := make([]uint32, 1<<(64-shift)+1)
	for _, p := range points {
		ends[p>>shift+1]++
	}
	for i := 1; i < len(ends); i++ {
		ends[i] += ends[i-1]
	}
	placed := make([]uint64, len(points))
	for _, p := range points {
		placed[ends[p>>shift]] = p
		ends[p>>shift]++
	}
	first := uint32(0)
	for _, end := range ends[:len(ends)-1] {
		slices.Sort(placed[first:end])
		first = end
	}
	return placed
}

// merge puts the old points under their new ranks and the sorted new ones on the circle. Ranks keep their order, so
// the points do.
func (c *circle) merge(old []uint64, ranks []uint32, joined []uint64) {
	move := func(points []uint64) {
		for _, p := range points {
			if rank := ranks[rankOf(p)]; rank != gone {
				c.points = append(c.points, p>>rankBits<<rankBits|uint64(rank))
			}
		}
	}
	for _, point := range joined {
		n, _ := slices.BinarySearchFunc(old, point, func(p, point uint64) int {
			rank := ranks[rankOf(p)] // of points in one place: one that is gone is the joined node itself, or nobody joins
			return cmp.Compare(p>>rankBits<<rankBits|uint64(rank&(1<<rankBits-1)), point)
		})
		move(old[:n])
		old = old[n:]
		c.points = append(c.points, point)
	}
	move(old)
}

// number notes where each bucket begins.
func (c *circle) number() {
	for i, p := range c.points {
		c.index[p>>1>>c.shift+1] = uint32(i + 1)
	}
	for b := 1; b < len(c.index); b++ {
		c.index[b] = max(c.index[b], c.index[b-1])
	}
}

func (r *Ring[N]) copies(weight float64) int {
	return max(int(math.Round(float64(r.virtual)*weight)), 1)
}

// at returns the position of the first point at or after a hash, 0 past the last.
func (c *circle) at(hash uint64) int {
	i := int(c.index[hash>>1>>c.shift])
	place := hash >> rankBits << rankBits
	for i < len(c.points) && c.points[i] < place {
		i++
	}
	if i == len(c.points) {
		return 0
	}
	return i
}

func rankOf(point uint64) int { return int(point & (1<<rankBits - 1)) }

// Locate returns the node that owns a key.
func (r *Ring[N]) Locate(key string) N { return r.LocateHash(xxhash.Sum64String(key)) }

// LocateHash returns the node that owns a hash.
func (r *Ring[N]) LocateHash(hash uint64) N {
	p := r.placed.Load()
	if len(p.place.points) == 0 {
		return p.nodes[0]
	}
	return p.nodes[rankOf(p.place.points[p.place.at(hash)])]
}

// LocateN returns n nodes for a key, spread over the failure domains.
func (r *Ring[N]) LocateN(key string, n int) []N {
	return spread(r.Order(xxhash.Sum64String(key)), n, r.naming.spreads(r.Domains))
}

// Order yields all nodes as they come along the circle.
func (r *Ring[N]) Order(hash uint64) iter.Seq[N] {
	p := r.placed.Load()
	return func(yield func(N) bool) {
		points := p.place.points
		if len(points) == 0 {
			return
		}
		taken := make([]uint64, (len(p.members)+63)/64)
		left := len(p.members)
		for i := p.place.at(hash); left > 0; i++ {
			if i == len(points) {
				i = 0
			}
			node := rankOf(points[i])
			if bit := uint64(1) << (node & 63); taken[node>>6]&bit == 0 {
				taken[node>>6] |= bit
				left--
				if !yield(p.nodes[node]) {
					return
				}
			}
		}
	}
}
