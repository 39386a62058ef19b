package hashring

import (
	"cmp"
	"iter"
	"math"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Rendezvous gives a key to the node whose hash together with the key's is highest (Thaler and Ravishankar, 1998), and
// by the logarithm method in proportion to weights (Schindelhauer and Schomaker, 2005). It holds nothing but the nodes,
// its balance is that of the hash alone, and LocateN is its natural form; a lookup looks at every node. Use it for up
// to a few dozen nodes, or to order the few candidates that something else has picked.
//
// The owner depends on the set of nodes alone. It is safe for concurrent use.
type Rendezvous[N comparable] struct {
	set[N, scores]
}

// scores is what a lookup runs over.
type scores struct {
	seeds   []uint64
	weights []float64 // nil if all are equal
}

// NewRendezvous makes a Rendezvous of nodes. The error names the field of Config that is wrong, or is ErrDuplicate.
func NewRendezvous[N comparable](cfg Config[N], nodes ...N) (*Rendezvous[N], error) {
	n, err := cfg.naming()
	if err != nil {
		return nil, err
	}
	r := &Rendezvous[N]{}
	return r, r.init(n, nodes, newScores[N])
}

func newScores[N comparable](_ *placed[N, scores], members []member[N]) (*scores, error) {
	s := &scores{seeds: make([]uint64, len(members))}
	equal := true
	for i := range members {
		s.seeds[i] = mix(members[i].hash)
		equal = equal && members[i].weight == members[0].weight
	}
	if !equal {
		s.weights = make([]float64, len(members))
		for i := range members {
			s.weights[i] = members[i].weight
		}
	}
	return s, nil
}

// score mixes a key's hash with a node's seed: one wide multiplication, its halves folded.
func score(hash, seed uint64) uint64 {
	hi, lo := bits.Mul64(hash^seed, seed|1)
	return hi ^ lo
}

// distance turns a score into an exponential random number of rate weight; the least of several is a node's with a
// probability in proportion to its weight. It falls as the score rises, so that equal weights keep the scores' order.
func distance(score uint64, weight float64) float64 {
	return -math.Log((float64(score>>11)+0.5)/(1<<53)) / weight
}

// Locate returns the node that owns a key.
func (r *Rendezvous[N]) Locate(key string) N { return r.LocateHash(xxhash.Sum64String(key)) }

// LocateHash returns the node that owns a hash.
func (r *Rendezvous[N]) LocateHash(hash uint64) N {
	p := r.placed.Load()
	return p.nodes[p.place.best(hash)]
}

func (s *scores) best(hash uint64) int {
	best := 0
	if s.weights != nil {
		least := math.Inf(1)
		for i, seed := range s.seeds {
			if d := distance(score(hash, seed), s.weights[i]); d < least {
				best, least = i, d
			}
		}
		return best
	}
	var most uint64
	for i, seed := range s.seeds {
		if v := score(hash, seed); v > most {
			best, most = i, v
		}
	}
	return best
}

// LocateN returns n nodes for a key, spread over the failure domains.
func (r *Rendezvous[N]) LocateN(key string, n int) []N {
	return spread(r.Order(xxhash.Sum64String(key)), n, r.naming.spreads(r.Domains))
}

// Order yields all nodes by falling score.
func (r *Rendezvous[N]) Order(hash uint64) iter.Seq[N] {
	p := r.placed.Load()
	return func(yield func(N) bool) {
		for _, i := range rank(p.members, hash) {
			if !yield(p.nodes[i]) {
				return
			}
		}
	}
}

// rank returns the members' indices in a hash's order of preference.
func rank[N comparable](members []member[N], hash uint64) []int {
	type ranked struct {
		index    int
		score    uint64
		distance float64
	}
	all := make([]ranked, len(members))
	equal := true
	for i := range members {
		v := score(hash, mix(members[i].hash))
		all[i] = ranked{i, v, distance(v, members[i].weight)}
		equal = equal && members[i].weight == members[0].weight
	}
	slices.SortFunc(all, func(a, b ranked) int {
		if equal { // as best does, which does not lose the last bits
			return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.index, b.index))
		}
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.index, b.index))
	})
	order := make([]int, len(all))
	for i := range all {
		order[i] = all[i].index
	}
	return order
}
