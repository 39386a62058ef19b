package hashring

import (
	"errors"
	"math"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// ErrEmpty is returned by Bounded.Acquire when there is no node.
var ErrEmpty = errors.New("hashring: no nodes")

// Bounded is consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2018) over any Locator: a key
// goes to the first node in its order of preference that has room, and no node holds more than
// ceil((1+epsilon) * its weight's share of all that is held). With a small epsilon loads are even, with a large one
// keys stay where they are.
//
// Change the nodes through the Bounded, which forgets what a removed node held. It is safe for concurrent use.
type Bounded[N comparable] struct {
	Locator[N]
	epsilon float64

	mu     sync.Mutex // guards what follows
	load   map[N]int
	total  int
	weight float64 // of all nodes; 0 if it must be summed anew
}

// NewBounded makes a layer over nodes. The error is for an epsilon that is not a positive number.
func NewBounded[N comparable](nodes Locator[N], epsilon float64) (*Bounded[N], error) {
	if !(epsilon > 0) || math.IsInf(epsilon, 0) {
		return nil, errors.New("hashring: NewBounded: epsilon is not a positive number")
	}
	return &Bounded[N]{Locator: nodes, epsilon: epsilon, load: make(map[N]int)}, nil
}

// Acquire picks a node for a key and counts one more on it until Done. The error is ErrEmpty; while there are nodes
// there is room.
func (b *Bounded[N]) Acquire(key string) (N, error) {
	hash := xxhash.Sum64String(key)
	b.mu.Lock()
	defer b.mu.Unlock()
	node := b.LocateHash(hash)
	if !b.room(node) {
		var found bool
		if node, found = b.next(hash); !found {
			return node, ErrEmpty
		}
	}
	b.load[node]++
	b.total++
	return node, nil
}

// next finds the first node with room; mu is held.
func (b *Bounded[N]) next(hash uint64) (N, bool) {
	for node := range b.Order(hash) {
		if b.room(node) {
			return node, true
		}
	}
	var none N
	return none, false
}

// Done gives back one that Acquire counted on a node. For a node that has been removed it does nothing.
func (b *Bounded[N]) Done(node N) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch held := b.load[node]; held {
	case 0:
		return
	case 1:
		delete(b.load, node)
	default:
		b.load[node] = held - 1
	}
	b.total--
}

// room reports whether a node may take one more; mu is held.
func (b *Bounded[N]) room(node N) bool {
	limit := b.limit(node, b.total+1)
	return limit > 0 && b.load[node] < limit
}

func (b *Bounded[N]) limit(node N, total int) int {
	own := b.Weight(node)
	if own == 0 {
		return 0
	}
	if b.weight == 0 {
		for n := range b.Nodes() {
			b.weight += b.Weight(n)
		}
	}
	return int(math.Ceil((1 + b.epsilon) * float64(total) * own / b.weight))
}

// Load is what a node holds.
func (b *Bounded[N]) Load(node N) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.load[node]
}

// Limit is the most that a node may hold of all that is held now.
func (b *Bounded[N]) Limit(node N) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.limit(node, b.total)
}

// Add adds nodes as the Locator does.
func (b *Bounded[N]) Add(nodes ...N) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.weight = 0
	return b.Locator.Add(nodes...)
}

// Remove takes nodes away as the Locator does; what they hold no longer counts.
func (b *Bounded[N]) Remove(nodes ...N) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.Locator.Remove(nodes...); err != nil {
		return err
	}
	b.weight = 0
	for _, node := range nodes {
		b.total -= b.load[node]
		delete(b.load, node)
	}
	return nil
}

// SetWeight changes a node's share and bound.
func (b *Bounded[N]) SetWeight(node N, weight float64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.weight = 0
	return b.Locator.SetWeight(node, weight)
}
