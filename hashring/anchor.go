package hashring

import (
	"fmt"
	"iter"
	"math/bits"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// Anchor is AnchorHash (Mendelson et al., 2020): as even as the hash, any node may be removed, and a change costs a few
// writes, whatever the number of nodes. Beyond its first capacity it grows as MementoHash does (Coluzzi et al., 2023),
// by jump consistent hashing over the added buckets. A node that joins takes keys from others and moves none between
// them; one that leaves moves only its own.
//
// The owner depends on the history of additions and removals: processes agree only if they make the same changes in
// the same order, or take each other's state by AppendBinary. Every node has weight 1. It takes about 150 B a node.
//
// It is safe for concurrent use. Locate and LocateHash take no lock (they look again if a writer interfered); the other
// methods wait for writers.
type Anchor[N comparable] struct {
	naming naming[N]

	version atomic.Uint64 // odd while a writer is at work
	tables  atomic.Pointer[anchorTables[N]]

	mu      sync.Mutex // serializes writers, guards what follows
	where   map[string]uint32
	removed []uint32 // buckets without a node, the last removed at the end
	l, w    []uint32 // of the paper: where a bucket stands among the working ones, and these
	domains map[string][]string
}

// anchorTables is what readers look at. Arrays are of one length; each bucket's entry of a is A of the paper: 0 for a
// bucket that works, else how many worked after its removal.
type anchorTables[N comparable] struct {
	first   uint32 // buckets that the first hash chooses from
	size    atomic.Uint32
	working atomic.Uint32
	a, k    []atomic.Uint32
	nodes   []atomic.Pointer[N]
}

// NewAnchor makes an Anchor of nodes in their order. The error names the field of Config that is wrong, or is
// ErrDuplicate.
func NewAnchor[N comparable](cfg Config[N], nodes ...N) (*Anchor[N], error) {
	n, err := cfg.naming()
	if err != nil {
		return nil, err
	}
	if cfg.Capacity < 0 || cfg.Capacity > 1<<30 {
		return nil, fmt.Errorf("hashring: Config.Capacity %d is not within 0 and 2^30", cfg.Capacity)
	}
	a := &Anchor[N]{naming: n}
	capacity := max(cfg.Capacity, len(nodes), 1)
	a.reset(capacity, capacity)
	return a, a.Add(nodes...)
}

// reset makes all buckets removed ones, the lowest last.
func (a *Anchor[N]) reset(capacity, first int) {
	t := newAnchorTables[N](capacity)
	t.first = uint32(first)
	t.size.Store(uint32(capacity))
	a.l, a.w = make([]uint32, capacity), make([]uint32, capacity)
	a.removed = make([]uint32, 0, capacity)
	a.where, a.domains = make(map[string]uint32), make(map[string][]string)
	for b := range uint32(capacity) {
		t.k[b].Store(b)
		a.l[b], a.w[b] = b, b
		t.a[b].Store(b)
	}
	for b := capacity - 1; b >= 0; b-- {
		a.removed = append(a.removed, uint32(b))
	}
	a.tables.Store(t)
}

func newAnchorTables[N comparable](length int) *anchorTables[N] {
	return &anchorTables[N]{
		a: make([]atomic.Uint32, length), k: make([]atomic.Uint32, length), nodes: make([]atomic.Pointer[N], length),
	}
}

// Locate returns the node that owns a key.
func (a *Anchor[N]) Locate(key string) N { return a.LocateHash(xxhash.Sum64String(key)) }

// LocateHash returns the node that owns a hash.
func (a *Anchor[N]) LocateHash(hash uint64) (owner N) {
	for {
		version := a.version.Load()
		if version&1 == 0 {
			t := a.tables.Load()
			var node *N
			if t.working.Load() > 0 {
				node = t.nodes[a.bucket(t, hash, version)].Load()
			}
			if a.version.Load() == version {
				if node != nil {
					owner = *node
				}
				return owner
			}
		}
		runtime.Gosched()
	}
}

// bucket is GETBUCKET of the paper. It gives up, with any bucket, when a writer has changed the version.
func (a *Anchor[N]) bucket(t *anchorTables[N], hash, version uint64) uint32 {
	first, _ := bits.Mul64(hash, uint64(t.first))
	b := uint32(first)
	if size := t.size.Load(); size > t.first {
		b = uint32(jump(hash, int(b), int(t.first), int(size)))
	}
	for steps := 1; ; steps++ {
		limit := t.a[b].Load()
		if limit == 0 {
			return b
		}
		hash = mix(hash ^ uint64(b))
		next, _ := bits.Mul64(hash, uint64(limit))
		h := uint32(next)
		for t.a[h].Load() >= limit {
			h = t.k[h].Load()
			if steps++; steps&63 == 0 && a.version.Load() != version {
				return 0
			}
		}
		b = h
	}
}

// Add adds nodes, all or none: to the buckets that were freed last, then to new ones. The error is ErrDuplicate.
func (a *Anchor[N]) Add(nodes ...N) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	members := make([]member[N], len(nodes))
	names := make(map[string]bool, len(nodes))
	for i, node := range nodes {
		m := a.naming.member(node, 1)
		if _, there := a.where[m.name]; there || names[m.name] {
			return fmt.Errorf("add %q: %w", m.name, ErrDuplicate)
		}
		names[m.name] = true
		members[i] = m
	}
	a.version.Add(1)
	defer a.version.Add(1)
	for i := range members {
		a.add(&members[i])
	}
	return nil
}

// add gives a node a bucket.
func (a *Anchor[N]) add(m *member[N]) {
	if len(a.removed) == 0 {
		a.grow()
	}
	node := m.node // not to hold on to all of m
	a.where[m.name] = a.addBucket(&node)
	if len(m.domains) > 0 {
		a.domains[m.name] = m.domains
	}
}

// addBucket is ADDBUCKET of the paper.
func (a *Anchor[N]) addBucket(node *N) uint32 {
	t := a.tables.Load()
	last := len(a.removed) - 1
	b := a.removed[last]
	a.removed = a.removed[:last]
	n := t.working.Load()
	t.a[b].Store(0)
	a.l[a.w[n]] = n
	a.w[a.l[b]] = b
	t.k[b].Store(b)
	t.nodes[b].Store(node)
	t.working.Store(n + 1)
	return b
}

// grow makes one bucket more, which counts as just removed. All others work.
func (a *Anchor[N]) grow() {
	t := a.tables.Load()
	size := t.size.Load()
	if int(size) == len(t.a) {
		grown := newAnchorTables[N](2 * len(t.a))
		grown.first = t.first
		grown.working.Store(t.working.Load())
		for b := range size {
			grown.a[b].Store(t.a[b].Load())
			grown.k[b].Store(t.k[b].Load())
			grown.nodes[b].Store(t.nodes[b].Load())
		}
		a.tables.Store(grown)
		t = grown
	}
	t.k[size].Store(size)
	t.a[size].Store(size)
	a.l, a.w = append(a.l, size), append(a.w, size)
	a.removed = append(a.removed, size)
	t.size.Store(size + 1)
}

// Remove takes nodes away, all or none. The error is ErrUnknown.
func (a *Anchor[N]) Remove(nodes ...N) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tables.Load()
	names := make([]string, len(nodes))
	twice := make(map[string]bool, len(nodes))
	for i, node := range nodes {
		names[i] = a.naming.name(node)
		b, ok := a.where[names[i]]
		if !ok || *t.nodes[b].Load() != node || twice[names[i]] {
			return fmt.Errorf("remove %q: %w", names[i], ErrUnknown)
		}
		twice[names[i]] = true
	}
	a.version.Add(1)
	defer a.version.Add(1)
	for _, name := range names {
		a.remove(name)
	}
	return nil
}

func (a *Anchor[N]) remove(name string) {
	a.removeBucket(a.where[name])
	delete(a.where, name)
	delete(a.domains, name)
}

// removeBucket is REMOVEBUCKET of the paper.
func (a *Anchor[N]) removeBucket(b uint32) {
	t := a.tables.Load()
	a.removed = append(a.removed, b)
	n := t.working.Load() - 1
	t.working.Store(n)
	t.a[b].Store(n)
	a.w[a.l[b]] = a.w[n]
	a.l[a.w[n]] = a.l[b]
	t.k[b].Store(a.w[n])
	t.nodes[b].Store(nil)
}

// SetWeight returns ErrWeight for any weight but 1, and ErrUnknown.
func (a *Anchor[N]) SetWeight(node N, weight float64) error {
	return onlyOne(a.naming.name(node), a.Weight(node) != 0, weight)
}

// Weight returns 1, or 0 if the node is not there.
func (a *Anchor[N]) Weight(node N) float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.where[a.naming.name(node)]; !ok {
		return 0
	}
	return 1
}

// Domains returns a node's failure domains, outermost first.
func (a *Anchor[N]) Domains(node N) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.domains[a.naming.name(node)]
}

// LocateN returns n nodes for a key, spread over the failure domains.
func (a *Anchor[N]) LocateN(key string, n int) []N {
	return spread(a.Order(xxhash.Sum64String(key)), n, a.naming.spreads(a.Domains))
}

// Order yields the owner of a hash, the owners of its further hashes, and at last the rest in rendezvous order.
func (a *Anchor[N]) Order(hash uint64) iter.Seq[N] {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tables.Load()
	var near []N // of one moment
	for h, i := hash, 0; i < min(2*len(a.where), probes); h, i = mix(h), i+1 {
		if node := *t.nodes[a.bucket(t, h, a.version.Load())].Load(); !slices.Contains(near, node) {
			near = append(near, node)
		}
	}
	return nearThenRanked(near, hash, func() []member[N] {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.byName()
	})
}

// byName returns the members by name; mu is held.
func (a *Anchor[N]) byName() []member[N] {
	t := a.tables.Load()
	members := make([]member[N], 0, len(a.where))
	for name, b := range a.where {
		members = append(members, member[N]{node: *t.nodes[b].Load(), name: name, hash: a.naming.hash(name), weight: 1, domains: a.domains[name]})
	}
	slices.SortFunc(members, func(x, y member[N]) int { return x.before(&y) })
	return members
}

// Nodes yields the nodes, in an order that depends on their names alone.
func (a *Anchor[N]) Nodes() iter.Seq[N] {
	a.mu.Lock()
	defer a.mu.Unlock()
	return nodesOf(a.byName())
}

// Len is the number of nodes.
func (a *Anchor[N]) Len() int { return int(a.tables.Load().working.Load()) }
