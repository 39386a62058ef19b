package hashring

import (
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// JumpBucket places a hash in one of n buckets, 0 if n < 1. When n grows by one, only the keys of the new bucket move
// (Lamping and Veach, 2014). It needs no memory and takes about ln(n) steps.
func JumpBucket(hash uint64, n int) int { return jump(hash, 0, 1, n) }

// jump goes on from a state: the key is in bucket b of so many, and jumps to later ones as n grows.
func jump(hash uint64, b, of, n int) int {
	for j := of - 1; ; {
		hash = hash*2862933555777941757 + 1
		j = int(float64(j+1) * (float64(1<<31) / float64(hash>>33+1)))
		if j >= n {
			return b
		}
		b = j
	}
}

// Jump is jump consistent hashing over the nodes in the order of their addition: as even as the hash, and no memory
// but for the nodes. Only the node that was added last can be removed (a shard number, not a server that fails), and
// processes agree only if they add in the same order, or take each other's state by AppendBinary. Every node has
// weight 1.
//
// It is safe for concurrent use; Locate and LocateHash take no lock.
type Jump[N comparable] struct {
	naming naming[N]

	mu      sync.Mutex // serializes writers
	members atomic.Pointer[[]member[N]]
}

// NewJump makes a Jump of nodes in their order. The error names the field of Config that is wrong, or is ErrDuplicate.
func NewJump[N comparable](cfg Config[N], nodes ...N) (*Jump[N], error) {
	n, err := cfg.naming()
	if err != nil {
		return nil, err
	}
	j := &Jump[N]{naming: n}
	j.members.Store(new([]member[N]))
	return j, j.Add(nodes...)
}

// Locate returns the node that owns a key.
func (j *Jump[N]) Locate(key string) N { return j.LocateHash(xxhash.Sum64String(key)) }

// LocateHash returns the node that owns a hash.
func (j *Jump[N]) LocateHash(hash uint64) (owner N) {
	members := *j.members.Load()
	if len(members) == 0 {
		return owner
	}
	return members[JumpBucket(hash, len(members))].node
}

// LocateN returns n nodes for a key, spread over the failure domains.
func (j *Jump[N]) LocateN(key string, n int) []N {
	return spread(j.Order(xxhash.Sum64String(key)), n, j.naming.spreads(j.Domains))
}

// Order yields the owner of a hash, the owners of its further hashes, and at last the rest in rendezvous order.
func (j *Jump[N]) Order(hash uint64) iter.Seq[N] {
	members := *j.members.Load()
	var near []N
	for h, i := hash, 0; i < min(2*len(members), probes); h, i = mix(h), i+1 {
		if node := members[JumpBucket(h, len(members))].node; !slices.Contains(near, node) {
			near = append(near, node)
		}
	}
	return nearThenRanked(near, hash, func() []member[N] { return members })
}

// probes is how many further hashes Order tries in schemes that have no order of their own.
const probes = 32

// nearThenRanked yields the near nodes, then the others in rendezvous order.
func nearThenRanked[N comparable](near []N, hash uint64, all func() []member[N]) iter.Seq[N] {
	return func(yield func(N) bool) {
		for _, node := range near {
			if !yield(node) {
				return
			}
		}
		members := all()
		for _, i := range rank(members, hash) {
			if node := members[i].node; !slices.Contains(near, node) && !yield(node) {
				return
			}
		}
	}
}

// Add appends nodes, all or none. The error is ErrDuplicate.
func (j *Jump[N]) Add(nodes ...N) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	members := slices.Clone(*j.members.Load())
	names := make(map[string]bool, len(members)+len(nodes))
	for i := range members {
		names[members[i].name] = true
	}
	for _, node := range nodes {
		m := j.naming.member(node, 1)
		if names[m.name] {
			return fmt.Errorf("add %q: %w", m.name, ErrDuplicate)
		}
		names[m.name] = true
		members = append(members, m)
	}
	j.members.Store(&members)
	return nil
}

// Remove takes away the nodes that were added last, the newest first, all or none. The error is ErrNotLast or
// ErrUnknown.
func (j *Jump[N]) Remove(nodes ...N) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	members := *j.members.Load()
	for _, node := range nodes {
		switch last := len(members) - 1; {
		case last >= 0 && members[last].node == node:
			members = members[:last:last]
		case slices.ContainsFunc(members, func(m member[N]) bool { return m.node == node }):
			return fmt.Errorf("remove %q: %w", j.naming.name(node), ErrNotLast)
		default:
			return fmt.Errorf("remove %q: %w", j.naming.name(node), ErrUnknown)
		}
	}
	j.members.Store(&members)
	return nil
}

// SetWeight returns ErrWeight for any weight but 1, and ErrUnknown.
func (j *Jump[N]) SetWeight(node N, weight float64) error {
	return onlyOne(j.naming.name(node), j.find(node) != nil, weight)
}

// onlyOne is SetWeight of the schemes that have no weights.
func onlyOne(name string, known bool, weight float64) error {
	switch {
	case !known:
		return fmt.Errorf("weight of %q: %w", name, ErrUnknown)
	case weight != 1:
		return fmt.Errorf("weight of %q: this scheme has none but 1: %w", name, ErrWeight)
	}
	return nil
}

func (j *Jump[N]) find(node N) *member[N] {
	members := *j.members.Load()
	i := slices.IndexFunc(members, func(m member[N]) bool { return m.node == node })
	if i < 0 {
		return nil
	}
	return &members[i]
}

// Weight returns 1, or 0 if the node is not there.
func (j *Jump[N]) Weight(node N) float64 {
	if j.find(node) == nil {
		return 0
	}
	return 1
}

// Domains returns a node's failure domains, outermost first.
func (j *Jump[N]) Domains(node N) []string {
	if m := j.find(node); m != nil {
		return m.domains
	}
	return nil
}

// Nodes yields the nodes, oldest first.
func (j *Jump[N]) Nodes() iter.Seq[N] { return nodesOf(*j.members.Load()) }

func nodesOf[N comparable](members []member[N]) iter.Seq[N] {
	return func(yield func(N) bool) {
		for i := range members {
			if !yield(members[i].node) {
				return
			}
		}
	}
}

// Len is the number of nodes.
func (j *Jump[N]) Len() int { return len(*j.members.Load()) }
