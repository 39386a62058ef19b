package kv

import (
	"hash/maphash"
	"iter"
)

// node is the root of an ordered map that is never changed: put and remove return another one, which shares all but the
// path to the key. So the state at every revision is a pointer, and freezing it is free. It is a treap (Seidel and
// Aragon, "Randomized search trees", 1996): ordered by key, and a heap by priorities that are hashes of the keys. Nil
// is the empty map.
type node struct {
	item        *KV // never changed
	priority    uint64
	size        int // of the whole tree
	left, right *node
}

// priorities is one seed for the process: the shape of a tree shows nowhere.
type priorities struct{ seed maphash.Seed }

func newPriorities() priorities { return priorities{maphash.MakeSeed()} }

func (n *node) len() int {
	if n == nil {
		return 0
	}
	return n.size
}

// with is a copy of n that has other children.
func (n *node) with(left, right *node) *node {
	return &node{item: n.item, priority: n.priority, size: left.len() + right.len() + 1, left: left, right: right}
}

func (n *node) get(key string) *KV {
	for n != nil {
		switch {
		case key < n.item.Key:
			n = n.left
		case key > n.item.Key:
			n = n.right
		default:
			return n.item
		}
	}
	return nil
}

// put returns the map with the item in the place of what had its key.
func (n *node) put(p priorities, item *KV) *node {
	return n.insert(&node{item: item, priority: maphash.String(p.seed, item.Key), size: 1})
}

func (n *node) insert(leaf *node) *node {
	switch {
	case n == nil:
		return leaf
	case leaf.item.Key == n.item.Key:
		same := n.with(n.left, n.right)
		same.item = leaf.item
		return same
	case leaf.priority > n.priority:
		// The key is not below: as it would have this very priority, n would have no less.
		left, right := n.split(leaf.item.Key)
		return leaf.with(left, right)
	case leaf.item.Key < n.item.Key:
		return n.with(n.left.insert(leaf), n.right)
	}
	return n.with(n.left, n.right.insert(leaf))
}

// split divides the map into what is below the key and what is above; the key itself must not be there.
func (n *node) split(key string) (below, above *node) {
	if n == nil {
		return nil, nil
	}
	if n.item.Key < key {
		below, above = n.right.split(key)
		return n.with(n.left, below), above
	}
	below, above = n.left.split(key)
	return below, n.with(above, n.right)
}

// remove returns the map without a key.
func (n *node) remove(key string) *node {
	switch {
	case n == nil:
		return nil
	case key < n.item.Key:
		return n.with(n.left.remove(key), n.right)
	case key > n.item.Key:
		return n.with(n.left, n.right.remove(key))
	}
	return join(n.left, n.right)
}

// join is the map of both; every key of a is below every key of b.
func join(a, b *node) *node {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		return a.with(a.left, join(a.right, b))
	}
	return b.with(join(a, b.left), b.right)
}

// rank is how many keys are below the key.
func (n *node) rank(key string) (rank int) {
	for n != nil {
		if n.item.Key < key {
			rank += n.left.len() + 1
			n = n.right
		} else {
			n = n.left
		}
	}
	return rank
}

// count is how many keys are in the span.
func (n *node) count(s Span) int {
	end := n.len()
	if s.To != "" {
		end = n.rank(s.To)
	}
	return max(0, end-n.rank(s.From))
}

// all yields the items of the span by ascending key, or descending.
func (n *node) all(s Span, descending bool) iter.Seq[*KV] {
	return func(yield func(*KV) bool) {
		if descending {
			n.descend(s, yield)
		} else {
			n.ascend(s, yield)
		}
	}
}

func (n *node) ascend(s Span, yield func(*KV) bool) bool {
	if n == nil {
		return true
	}
	if n.item.Key >= s.From && !n.left.ascend(s, yield) {
		return false
	}
	if s.Contains(n.item.Key) && !yield(n.item) {
		return false
	}
	return s.To != "" && n.item.Key >= s.To || n.right.ascend(s, yield)
}

func (n *node) descend(s Span, yield func(*KV) bool) bool {
	if n == nil {
		return true
	}
	if (s.To == "" || n.item.Key < s.To) && !n.right.descend(s, yield) {
		return false
	}
	if s.Contains(n.item.Key) && !yield(n.item) {
		return false
	}
	return n.item.Key < s.From || n.left.descend(s, yield)
}
