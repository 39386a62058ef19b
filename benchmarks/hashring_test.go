package benchmarks

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/buraksezer/consistent"
	"github.com/cespare/xxhash/v2"
	"github.com/dgryski/go-jump"
	"github.com/dgryski/go-rendezvous"
	stathat "stathat.com/c/consistent"

	"github.com/coterie-go/coterie/hashring"
)

// ringKeys are a million keys of 21 bytes.
func ringKeys() []string {
	keys := make([]string, 1<<20)
	for i := range keys {
		keys[i] = fmt.Sprintf("key:%017d", i)
	}
	return keys
}

func ringNodes(n int) []string {
	nodes := make([]string, n)
	for i := range nodes {
		nodes[i] = fmt.Sprintf("10.0.%d.%d:7000", i/256, i%256)
	}
	return nodes
}

type ringMember string

func (m ringMember) String() string { return string(m) }

type ringHasher struct{}

func (ringHasher) Sum64(b []byte) uint64 { return xxhash.Sum64(b) }

func ringBuraksezer(nodes []string) *consistent.Consistent {
	members := make([]consistent.Member, len(nodes))
	for i, n := range nodes {
		members[i] = ringMember(n)
	}
	return consistent.New(members, consistent.Config{
		PartitionCount: max(271, 10*len(nodes)+1), ReplicationFactor: 20, Load: 1.25, Hasher: ringHasher{},
	})
}

// ringScheme makes one of this library's schemes.
func ringScheme(b *testing.B, scheme string, nodes []string) hashring.Locator[string] {
	b.Helper()
	var l hashring.Locator[string]
	var err error
	cfg := hashring.Config[string]{}
	switch scheme {
	case "default":
		l, err = hashring.New(cfg, nodes...)
	case "ring":
		l, err = hashring.NewRing(cfg, nodes...)
	case "rendezvous":
		l, err = hashring.NewRendezvous(cfg, nodes...)
	case "maglev":
		if len(nodes) > 1000 {
			cfg.TableSize = 1_000_003
		}
		l, err = hashring.NewMaglev(cfg, nodes...)
	case "jump":
		l, err = hashring.NewJump(cfg, nodes...)
	case "anchor":
		l, err = hashring.NewAnchor(cfg, nodes...)
	}
	if err != nil {
		b.Fatal(err)
	}
	return l
}

var ringSchemes = []string{"default", "ring", "rendezvous", "maglev", "jump", "anchor"}

// ringBench runs locate over the keys.
func ringBench(b *testing.B, name string, keys []string, locate func(key string) string) {
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		total := 0
		for i := 0; b.Loop(); i++ {
			total += len(locate(keys[i&(1<<20-1)]))
		}
		runtime.KeepAlive(total)
	})
}

// BenchmarkLocate looks up string keys; impl=mod is the hash and a remainder, which is what placement costs at least.
// impl=buraksezer is v0.10.0 with 20 points a node and 10 partitions a node; stathat v1.0.0 has 20 points a node. Both
// build slowly: their 10,000 nodes are left out under -short.
func BenchmarkLocate(b *testing.B) {
	keys := ringKeys()
	for _, n := range []int{100, 10_000} {
		nodes := ringNodes(n)
		for _, scheme := range ringSchemes {
			l := ringScheme(b, scheme, nodes)
			ringBench(b, fmt.Sprintf("scheme=%s/nodes=%d/impl=coterie", scheme, n), keys, l.Locate)
		}
		ringBench(b, fmt.Sprintf("scheme=mod/nodes=%d/impl=mod", n), keys, func(key string) string {
			return nodes[xxhash.Sum64String(key)%uint64(len(nodes))]
		})
		ringBench(b, fmt.Sprintf("scheme=jump/nodes=%d/impl=jump", n), keys, func(key string) string {
			return nodes[jump.Hash(xxhash.Sum64String(key), len(nodes))]
		})
		r := rendezvous.New(nodes, xxhash.Sum64String)
		ringBench(b, fmt.Sprintf("scheme=rendezvous/nodes=%d/impl=rendezvous", n), keys, r.Lookup)
		if n > 1000 && testing.Short() {
			continue
		}
		s := stathat.New()
		s.Set(nodes)
		ringBench(b, fmt.Sprintf("scheme=ring/nodes=%d/impl=stathat", n), keys, func(key string) string {
			node, _ := s.Get(key)
			return node
		})
		c := ringBuraksezer(nodes)
		ringBench(b, fmt.Sprintf("scheme=ring/nodes=%d/impl=buraksezer", n), keys, func(key string) string {
			return c.LocateKey([]byte(key)).String()
		})
	}
}

// BenchmarkUpdate removes and adds one node; ns/op is for one of the two.
func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		nodes := ringNodes(n)
		for _, scheme := range ringSchemes {
			b.Run(fmt.Sprintf("scheme=%s/nodes=%d/impl=coterie", scheme, n), func(b *testing.B) {
				l := ringScheme(b, scheme, nodes)
				node := nodes[n-1]
				for b.Loop() {
					if err := l.Remove(node); err != nil {
						b.Fatal(err)
					}
					if err := l.Add(node); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2, "ns/update")
			})
		}
		if n > 1000 && testing.Short() {
			continue
		}
		b.Run(fmt.Sprintf("scheme=ring/nodes=%d/impl=buraksezer", n), func(b *testing.B) {
			c := ringBuraksezer(nodes)
			for b.Loop() {
				c.Remove(nodes[n-1])
				c.Add(ringMember(nodes[n-1]))
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2, "ns/update")
		})
	}
}

// BenchmarkBuild makes a placement of many nodes at once.
func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		nodes := ringNodes(n)
		for _, scheme := range ringSchemes {
			b.Run(fmt.Sprintf("scheme=%s/nodes=%d/impl=coterie", scheme, n), func(b *testing.B) {
				for b.Loop() {
					ringScheme(b, scheme, nodes)
				}
			})
		}
		if n > 1000 && testing.Short() {
			continue
		}
		b.Run(fmt.Sprintf("scheme=ring/nodes=%d/impl=stathat", n), func(b *testing.B) {
			for b.Loop() {
				s := stathat.New()
				for _, node := range nodes {
					s.Add(node)
				}
			}
		})
		b.Run(fmt.Sprintf("scheme=ring/nodes=%d/impl=buraksezer", n), func(b *testing.B) {
			for b.Loop() {
				ringBuraksezer(nodes)
			}
		})
	}
}

// ringSink keeps what BenchmarkRingMemory measures alive.
var ringSink any

// BenchmarkRingMemory measures the heap that a placement holds.
func BenchmarkRingMemory(b *testing.B) {
	const n = 1000
	nodes := ringNodes(n)
	measure := func(name string, build func() any) {
		b.Run(name, func(b *testing.B) {
			var held uint64
			for b.Loop() {
				ringSink = nil
				before := ringHeap()
				ringSink = build()
				held = ringHeap() - before
			}
			b.ReportMetric(float64(held)/n, "heap-B/node")
		})
	}
	for _, scheme := range ringSchemes {
		measure(fmt.Sprintf("scheme=%s/nodes=%d/impl=coterie", scheme, n), func() any { return ringScheme(b, scheme, nodes) })
	}
	measure(fmt.Sprintf("scheme=ring/nodes=%d/impl=buraksezer", n), func() any { return ringBuraksezer(nodes) })
	measure(fmt.Sprintf("scheme=ring/nodes=%d/impl=stathat", n), func() any {
		s := stathat.New()
		s.Set(nodes)
		return s
	})
}

func ringHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
