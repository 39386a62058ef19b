package hashring

import (
	"fmt"
	"iter"
	"math/big"
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// Maglev fills a table of prime size by letting the nodes take turns, each along a permutation of its own (Eisenbud et
// al., 2016, section 3.4). Shares differ by at most one entry a turn, so it is the most even scheme, and a lookup is
// one hash and one load. The price is movement: when a node joins or leaves, a few keys move between others too (with
// the default size and 100 nodes about 1% of them). Use it for caches and connection tables that can bear that.
//
// The owner depends on the set of nodes and weights alone. A change builds the table anew, about 0.1 us an entry. It is
// safe for concurrent use.
type Maglev[N comparable] struct {
	set[N, entries]
	prime uint64
}

// entries is the ranks of the owners.
type entries struct {
	owner []uint32
	prime uint64
}

// NewMaglev makes a Maglev of nodes. The error names the field of Config that is wrong, or is ErrDuplicate or
// ErrCapacity.
func NewMaglev[N comparable](cfg Config[N], nodes ...N) (*Maglev[N], error) {
	n, err := cfg.naming()
	if err != nil {
		return nil, err
	}
	m := &Maglev[N]{}
	if err := m.size(cfg.TableSize); err != nil {
		return nil, err
	}
	return m, m.init(n, nodes, m.fill)
}

func (m *Maglev[N]) size(table int) error {
	if table == 0 {
		table = 65_537
	}
	if table < 3 || table > 1<<28 || !big.NewInt(int64(table)).ProbablyPrime(0) { // exact below 2^64
		return fmt.Errorf("hashring: Config.TableSize %d is not a prime up to 2^28", table)
	}
	m.prime = uint64(table)
	return nil
}

// fill lets the nodes take turns until the table is full; a lighter one sits out the turns that its weight denies it.
func (m *Maglev[N]) fill(_ *placed[N, entries], members []member[N]) (*entries, error) {
	if uint64(len(members)) > m.prime {
		return nil, fmt.Errorf("%d nodes, %d entries: %w", len(members), m.prime, ErrCapacity)
	}
	e := &entries{owner: make([]uint32, m.prime), prime: m.prime}
	if len(members) == 0 {
		return e, nil
	}
	walkers := make([]walker, len(members))
	credit := make([]float64, len(members))
	heaviest := 0.0
	for i := range members {
		walkers[i] = walker{mix(members[i].hash) % m.prime, mix(members[i].hash+1)%(m.prime-1) + 1}
		heaviest = max(heaviest, members[i].weight)
	}
	taken := make([]bool, m.prime)
	for left := m.prime; ; {
		for i := range walkers {
			if credit[i] += members[i].weight / heaviest; credit[i] < 1 {
				continue
			}
			credit[i]--
			w := &walkers[i]
			for taken[w.next] {
				w.next = (w.next + w.skip) % m.prime
			}
			taken[w.next] = true
			e.owner[w.next] = uint32(i)
			if left--; left == 0 {
				return e, nil
			}
		}
	}
}

// walker is one node's way through the table: a permutation, for the size is prime.
type walker struct{ next, skip uint64 }

// Locate returns the node that owns a key.
func (m *Maglev[N]) Locate(key string) N { return m.LocateHash(xxhash.Sum64String(key)) }

// LocateHash returns the node that owns a hash.
func (m *Maglev[N]) LocateHash(hash uint64) N {
	p := m.placed.Load()
	return p.nodes[p.place.owner[p.place.entry(hash)]]
}

// entry scales the hash to the table, which is faster than a remainder and as even.
func (e *entries) entry(hash uint64) uint64 {
	hi, _ := bits.Mul64(hash, e.prime)
	return hi
}

// LocateN returns n nodes for a key, spread over the failure domains.
func (m *Maglev[N]) LocateN(key string, n int) []N {
	return spread(m.Order(xxhash.Sum64String(key)), n, m.naming.spreads(m.Domains))
}

// Order yields the owner of a hash, then the others in rendezvous order.
func (m *Maglev[N]) Order(hash uint64) iter.Seq[N] {
	p := m.placed.Load()
	return func(yield func(N) bool) {
		if len(p.members) == 0 {
			return
		}
		first := int(p.place.owner[p.place.entry(hash)])
		if !yield(p.nodes[first]) {
			return
		}
		for _, i := range rank(p.members, hash) {
			if i != first && !yield(p.nodes[i]) {
				return
			}
		}
	}
}
