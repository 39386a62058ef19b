package benchmarks

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/membership/phi"
	"github.com/coterie-go/coterie/membership/swim"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/tcp"
	"github.com/coterie-go/coterie/transport/udp"
)

// membershipGroup is a group of members on loopback, of either library with its defaults for a LAN.
type membershipGroup struct {
	b     *testing.B
	mu    sync.Mutex
	known map[string]map[string]time.Time // who was told when of whose end
	nodes []membershipNode
}

type membershipNode struct {
	id    string
	count func() int // members alive, as this one sees it
	join  func()
	crash func()
}

func (g *membershipGroup) heard(at, of string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known[of] == nil {
		g.known[of] = map[string]time.Time{}
	}
	if _, ok := g.known[of][at]; !ok {
		g.known[of][at] = time.Now()
	}
}

func newMembershipGroup(b *testing.B, impl string, n int) *membershipGroup {
	g := &membershipGroup{b: b, known: map[string]map[string]time.Time{}}
	var first string
	for i := range n {
		id := fmt.Sprintf("node-%03d", i)
		if impl == "coterie" {
			first = g.addCoterie(id, first)
		} else {
			first = g.addMemberlist(id, first)
		}
	}
	return g
}

func (g *membershipGroup) addCoterie(id, first string) string {
	nid := coterie.NodeID(id)
	var network *udp.Transport
	for network == nil {
		stream, err := tcp.Start(tcp.Config{ID: nid, Listen: "127.0.0.1:0", AcceptUnknown: true})
		membershipMust(g.b, err)
		cfg := udp.Config{ID: nid, Listen: stream.Addr().String(), Stream: stream, StreamIdle: time.Second}
		if first != "" {
			cfg.Peers = map[coterie.NodeID]string{"node-000": first}
		}
		if network, err = udp.Start(cfg); err != nil {
			membershipMust(g.b, stream.Close()) // the port is taken by another socket
		}
	}
	node, err := swim.Start(swim.Config{ID: nid, Transport: network})
	membershipMust(g.b, err)
	node.Watch(func(of coterie.NodeID, l coterie.Liveness) {
		if l == coterie.Dead {
			g.heard(id, string(of))
		}
	})
	g.nodes = append(g.nodes, membershipNode{
		id:    id,
		count: func() int { return node.Metrics().Members },
		join:  func() { membershipMust(g.b, node.Join(context.Background(), "node-000")) },
		crash: func() { membershipMust(g.b, node.Close()); membershipMust(g.b, network.Close()) },
	})
	if first == "" {
		first = network.Addr().String()
	}
	return first
}

// membershipEvents are memberlist's.
type membershipEvents struct {
	memberlist.EventDelegate
	g  *membershipGroup
	id string
}

func (e membershipEvents) NotifyJoin(*memberlist.Node)    {}
func (e membershipEvents) NotifyUpdate(*memberlist.Node)  {}
func (e membershipEvents) NotifyLeave(n *memberlist.Node) { e.g.heard(e.id, n.Name) }

func membershipMemberlistConfig(id string) *memberlist.Config {
	cfg := memberlist.DefaultLANConfig()
	cfg.Name, cfg.BindAddr, cfg.BindPort, cfg.AdvertisePort = id, "127.0.0.1", 0, 0
	cfg.Logger = log.New(io.Discard, "", 0)
	return cfg
}

func (g *membershipGroup) addMemberlist(id, first string) string {
	cfg := membershipMemberlistConfig(id)
	cfg.Events = membershipEvents{g: g, id: id}
	node, err := memberlist.Create(cfg)
	membershipMust(g.b, err)
	g.nodes = append(g.nodes, membershipNode{
		id:    id,
		count: node.NumMembers,
		join: func() {
			_, err := node.Join([]string{first})
			membershipMust(g.b, err)
		},
		crash: func() { membershipMust(g.b, node.Shutdown()) },
	})
	if first == "" {
		own := node.LocalNode()
		first = net.JoinHostPort(own.Addr.String(), fmt.Sprint(own.Port))
	}
	return first
}

func membershipMust(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// join lets all join the first at once, and returns when all see all.
func (g *membershipGroup) join() {
	var wg sync.WaitGroup
	for _, n := range g.nodes[1:] {
		wg.Go(n.join)
	}
	wg.Wait()
	g.until(func() bool {
		return !slices.ContainsFunc(g.nodes, func(n membershipNode) bool { return n.count() != len(g.nodes) })
	})
}

func (g *membershipGroup) until(condition func() bool) {
	g.b.Helper()
	for end := time.Now().Add(2 * time.Minute); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			g.b.Fatal("not within 2 minutes")
		}
	}
}

func (g *membershipGroup) close(except int) {
	var wg sync.WaitGroup
	for i, n := range g.nodes {
		if i != except {
			wg.Go(n.crash)
		}
	}
	wg.Wait()
}

func membershipHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkDetect crashes one member without a goodbye and waits until the first and until all others are told of it.
// The medians are first-ms and all-ms, the worst run is all-max-ms.
func BenchmarkDetect(b *testing.B) {
	for _, n := range []int{8, 32} {
		for _, impl := range []string{"coterie", "memberlist"} {
			b.Run(fmt.Sprintf("nodes=%d/impl=%s", n, impl), func(b *testing.B) {
				if testing.Short() {
					b.Skip("takes many seconds")
				}
				var first, all []float64
				var goroutines, heap float64
				for b.Loop() {
					before, heapBefore := runtime.NumGoroutine(), membershipHeap()
					g := newMembershipGroup(b, impl, n)
					g.join()
					time.Sleep(3 * time.Second) // streams of the join have closed
					if goroutines == 0 {        // later runs find what earlier ones left behind
						goroutines = float64(runtime.NumGoroutine()-before) / float64(n)
						heap = float64(membershipHeap()-heapBefore) / float64(n)
					}
					victim := g.nodes[n/2]
					crashed := time.Now()
					victim.crash()
					g.until(func() bool {
						g.mu.Lock()
						defer g.mu.Unlock()
						return len(g.known[victim.id]) >= n-1
					})
					var told []time.Duration
					for at, when := range g.known[victim.id] {
						if at != victim.id {
							told = append(told, when.Sub(crashed))
						}
					}
					first = append(first, float64(slices.Min(told).Milliseconds()))
					all = append(all, float64(slices.Max(told).Milliseconds()))
					g.close(n / 2)
				}
				slices.Sort(first)
				slices.Sort(all)
				b.ReportMetric(first[len(first)/2], "first-ms")
				b.ReportMetric(all[len(all)/2], "all-ms")
				b.ReportMetric(all[len(all)-1], "all-max-ms")
				b.ReportMetric(goroutines, "goroutines/node")
				b.ReportMetric(heap, "heap-B/node")
			})
		}
	}
}

// BenchmarkJoin lets members join one of them, all at once, until all see all. all-ms is the median.
func BenchmarkJoin(b *testing.B) {
	const n = 32
	for _, impl := range []string{"coterie", "memberlist"} {
		b.Run(fmt.Sprintf("nodes=%d/impl=%s", n, impl), func(b *testing.B) {
			if testing.Short() {
				b.Skip("takes seconds")
			}
			var all []float64
			for b.Loop() {
				g := newMembershipGroup(b, impl, n)
				begin := time.Now()
				g.join()
				all = append(all, float64(time.Since(begin).Milliseconds()))
				g.close(-1)
			}
			slices.Sort(all)
			b.ReportMetric(all[len(all)/2], "all-ms")
		})
	}
}

// BenchmarkView is the heap that a view of a thousand members takes at one of them, with addresses and 16 bytes of
// metadata.
func BenchmarkView(b *testing.B) {
	const n = 1000
	for _, impl := range []string{"coterie", "memberlist"} {
		b.Run(fmt.Sprintf("members=%d/impl=%s", n, impl), func(b *testing.B) {
			if testing.Short() {
				b.Skip("takes seconds")
			}
			var heap float64
			for b.Loop() {
				if impl == "coterie" {
					heap = membershipCoterieView(b, n)
				} else {
					heap = membershipMemberlistView(b, n)
				}
			}
			b.ReportMetric(heap/n, "heap-B/member")
		})
	}
}

func membershipMeta(i int) []byte { return fmt.Appendf(nil, "zone=eu rack=%03d", i) }

func membershipCoterieView(b *testing.B, n int) float64 {
	core := func(i int) *swim.Core {
		c, err := swim.NewCore(swim.Config{
			ID: coterie.NodeID(fmt.Sprintf("node-%03d", i)), Seed: uint64(i + 1),
			Address: fmt.Sprintf("127.0.0.1:%d", 10_000+i), Meta: membershipMeta(i),
		})
		membershipMust(b, err)
		return c
	}
	now := time.Now()
	viewer := core(0)
	viewer.Tick(now)
	before := membershipHeap()
	for i := 1; i < n; i++ {
		c := core(i)
		c.Tick(now)
		membershipMust(b, c.Join(now, "node-000"))
		for _, e := range c.Ready().Send {
			membershipMust(b, viewer.Step(now, coterie.NodeID(fmt.Sprintf("node-%03d", i)), e.Payload))
		}
		viewer.Ready()
	}
	for range 3000 { // until the news is told
		now = now.Add(10 * time.Millisecond)
		viewer.Tick(now)
		viewer.Ready()
	}
	heap := float64(membershipHeap() - before)
	if got := len(viewer.Members()); got != n {
		b.Fatalf("%d members", got)
	}
	return heap
}

func membershipMemberlistView(b *testing.B, n int) float64 {
	cfg := membershipMemberlistConfig("node-000")
	cfg.ProbeInterval, cfg.GossipInterval, cfg.RetransmitMult = time.Hour, time.Millisecond, 1
	viewer, err := memberlist.Create(cfg)
	membershipMust(b, err)
	defer func() { membershipMust(b, viewer.Shutdown()) }()
	own := viewer.LocalNode()
	before := membershipHeap()
	for i := 1; i < n; i++ {
		cfg := membershipMemberlistConfig(fmt.Sprintf("node-%03d", i))
		cfg.Delegate = membershipDelegate{meta: membershipMeta(i)}
		cfg.ProbeInterval, cfg.GossipInterval, cfg.PushPullInterval = time.Hour, time.Hour, 0
		node, err := memberlist.Create(cfg)
		membershipMust(b, err)
		_, err = node.Join([]string{net.JoinHostPort(own.Addr.String(), fmt.Sprint(own.Port))})
		membershipMust(b, err)
		membershipMust(b, node.Shutdown())
	}
	time.Sleep(3 * time.Second) // until the news is told
	heap := float64(membershipHeap() - before)
	if got := viewer.NumMembers(); got != n {
		b.Fatalf("%d members", got)
	}
	return heap
}

type membershipDelegate struct{ meta []byte }

func (d membershipDelegate) NodeMeta(int) []byte             { return d.meta }
func (d membershipDelegate) NotifyMsg([]byte)                {}
func (d membershipDelegate) GetBroadcasts(int, int) [][]byte { return nil }
func (d membershipDelegate) LocalState(bool) []byte          { return nil }
func (d membershipDelegate) MergeRemoteState([]byte, bool)   {}

// BenchmarkPhi is one heartbeat and one question for phi, in the range where phi is not simply 0.
func BenchmarkPhi(b *testing.B) {
	b.Run("impl=coterie", func(b *testing.B) {
		detector, err := phi.New(phi.Config{Pause: -1})
		membershipMust(b, err)
		now := time.Now()
		b.ReportAllocs()
		for b.Loop() {
			now = now.Add(time.Second)
			detector.Heartbeat(now)
			_ = detector.Phi(now.Add(1100 * time.Millisecond))
		}
	})
}

// BenchmarkSwimSim is a thousand members in the simulator, after they have joined.
func BenchmarkSwimSim(b *testing.B) {
	const n = 1000
	b.Run(fmt.Sprintf("nodes=%d/impl=coterie", n), func(b *testing.B) {
		if testing.Short() {
			b.Skip("takes seconds")
		}
		world, err := sim.New(sim.Config{Seed: 1})
		membershipMust(b, err)
		for i := range n {
			id := coterie.NodeID(fmt.Sprintf("node-%03d", i))
			membershipMust(b, world.Add(id, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) {
				core, err := swim.NewCore(swim.Config{ID: id, Seed: uint64(i+1)<<20 + incarnation, Seeds: []coterie.NodeID{"node-000"}})
				membershipMust(b, err)
				return core, nil
			}}))
		}
		membershipMust(b, world.RunUntil(func() bool {
			return world.Core("node-999").(*swim.Core).Metrics().Members == n
		}, time.Minute))
		membershipMust(b, world.Run(30*time.Second))
		for b.Loop() {
			membershipMust(b, world.Run(time.Second))
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sim-s/s")
	})
}
