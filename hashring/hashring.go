package hashring

import (
	"iter"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Locator is what every scheme offers. It is safe for concurrent use: readers see the nodes before a change or after
// it, writers wait for each other. Locate and LocateHash take no lock and allocate nothing.
//
// Without nodes Locate and LocateHash return the zero N, LocateN nothing.
type Locator[N comparable] interface {
	// Locate returns the node that owns a key.
	Locate(key string) N
	// LocateHash is Locate for a key's 64-bit hash, which must be well mixed; Hash makes one.
	LocateHash(hash uint64) N
	// LocateN returns n distinct nodes for a key, its owner first, in order of preference, all nodes if there are
	// fewer than n, none if n < 1. The first k of LocateN(key, n) are LocateN(key, k). If Config.Domains is set, the
	// nodes are spread over as many of the outermost domains as can be, then over those within.
	LocateN(key string, n int) []N
	// Order yields all nodes in a key's order of preference, not spread.
	Order(hash uint64) iter.Seq[N]
	Add(nodes ...N) error
	Remove(nodes ...N) error
	SetWeight(node N, weight float64) error
	// Weight returns a node's weight, 0 if it is not there.
	Weight(node N) float64
	// Domains returns a node's failure domains, outermost first; nil without Config.Domains.
	Domains(node N) []string
	Nodes() iter.Seq[N]
	Len() int
}

// Config tells how nodes are named and sizes a scheme. The zero value is right for nodes of a string or integer type,
// or with a String method.
type Config[N comparable] struct {
	// Name names a node, by which alone it is placed; two nodes must not share one. Default: the string itself, String(),
	// or the number in decimal.
	Name func(N) string
	// Parse is the inverse of Name, for UnmarshalBinary. Default for string types: the name itself.
	Parse func(string) (N, error)
	// Domains returns what a node fails together with, outermost first: {"zone-a", "rack-3"}. It is asked once, when
	// the node is added. Default nil: LocateN spreads over nothing.
	Domains func(N) []string

	Partitions   int // of a Table, a power of two; default 262,144
	Replicas     int // of a Table: nodes kept for each partition; default 3
	VirtualNodes int // of a Ring: points of a node of weight 1; default 256
	TableSize    int // of a Maglev, a prime; default 65,537
	Capacity     int // of an Anchor: nodes it has room for before it grows; default the nodes it is made with

	hashName func(string) uint64 // tests force collisions by it
}

// Hash is the hash by which Locate places a key: 64-bit xxHash.
func Hash(key string) uint64 { return xxhash.Sum64String(key) }

// New makes a Table, the scheme for whoever has no reason to pick another.
func New[N comparable](cfg Config[N], nodes ...N) (*Table[N], error) { return NewTable(cfg, nodes...) }

// spread takes n nodes from a key's order of preference, each the first among those whose domains have been used least
// so far, outermost domain first. What it takes does not depend on n, so that a prefix is stable.
func spread[N comparable](order iter.Seq[N], n int, domains func(N) []string) []N {
	if n < 1 {
		return nil
	}
	if domains == nil {
		taken := make([]N, 0, min(n, 16))
		for node := range order {
			taken = append(taken, node)
			if len(taken) == n {
				break
			}
		}
		return taken
	}
	rest := slices.Collect(order)
	n = min(n, len(rest))
	taken := make([]N, 0, n)
	used := map[string]int{}
	for len(taken) < n {
		best, bestUse := 0, []int(nil)
		for i, node := range rest {
			if use := domainUse(used, domains(node)); bestUse == nil || slices.Compare(use, bestUse) < 0 {
				best, bestUse = i, use
			}
		}
		for _, path := range domainPaths(domains(rest[best])) {
			used[path]++
		}
		taken = append(taken, rest[best])
		rest = slices.Delete(rest, best, best+1)
	}
	return taken
}

// domainPaths names each domain with those around it: racks of one name in two zones are two racks.
func domainPaths(domains []string) []string {
	paths := make([]string, len(domains))
	for i := range domains {
		paths[i] = strings.Join(domains[:i+1], "\x00")
	}
	return paths
}

// domainUse counts how often each of the domains has been used.
func domainUse(used map[string]int, domains []string) []int {
	use := make([]int, 0, len(domains)+1)
	for _, path := range domainPaths(domains) {
		use = append(use, used[path])
	}
	return append(use, 0)
}
