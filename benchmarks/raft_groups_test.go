package benchmarks

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/consensus/raft"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
	"github.com/coterie-go/coterie/transport/sim"
)

// BenchmarkRaftIdleGroups measures a thousand groups of three replicas in one process that have nothing to do, each
// replica with a Host of its own on a channel of its node's Mux, a heartbeat a second: what they cost the processor,
// and the memory of one replica.
func BenchmarkRaftIdleGroups(b *testing.B) {
	for _, quiesce := range []bool{false, true} {
		b.Run(fmt.Sprintf("groups=1000/quiesce=%t/impl=coterie", quiesce), func(b *testing.B) {
			if testing.Short() {
				b.Skip("takes longer than 2 s")
			}
			idleGroups(b, 1000, quiesce)
		})
	}
}

func idleGroups(b *testing.B, groups int, quiesce bool) {
	network := transport.NewNetwork(transport.NetworkConfig{Direct: true})
	voters := map[coterie.NodeID]string{"a": "", "b": "", "c": ""}
	before := heapInUse()
	var hosts []*host.Host[*raft.Core]
	var muxes []*transport.Mux
	for _, id := range []coterie.NodeID{"a", "b", "c"} {
		mux := transport.NewMux(network.Join(id))
		muxes = append(muxes, mux)
		for g := range groups {
			cfg := raft.Config{
				ID: id, Voters: voters, Seed: uint64(g+1)*31 + uint64(id[0]), HeartbeatInterval: time.Second, ElectionTimeout: 3 * time.Second,
			}
			if quiesce {
				cfg.QuiesceAfter = time.Second
			}
			core, err := raft.NewCore(cfg)
			if err != nil {
				b.Fatal(err)
			}
			h, err := host.Start(core, host.Config{Transport: mux.Channel(uint64(g)), Journal: &host.MemoryJournal{}})
			if err != nil {
				b.Fatal(err)
			}
			hosts = append(hosts, h)
		}
	}
	time.Sleep(12 * time.Second) // elections, and the first beats after which a group is quiet
	b.ResetTimer()
	for range b.N {
		cpu, begin := raftCPU(), time.Now()
		time.Sleep(5 * time.Second)
		b.ReportMetric(100*float64(raftCPU()-cpu)/float64(time.Since(begin)), "cpu-%")
	}
	b.StopTimer()
	b.ReportMetric(float64(heapInUse()-before)/float64(len(hosts)), "heap-B/replica")
	for _, h := range hosts {
		_ = h.Close()
	}
	for _, m := range muxes {
		_ = m.Close()
	}
}

// heapInUse is the memory of the heap and of goroutine stacks, after a collection.
func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// simRaft is the application of one simulated node: it checks that all apply the same.
type simRaft struct {
	world *sim.World
	id    coterie.NodeID
	all   *simRaftHistory
	index uint64
	sum   uint64
}

// simRaftHistory is what every node must have applied, and who led.
type simRaftHistory struct {
	sums    []uint64
	leaders map[uint64]coterie.NodeID
	broken  error
}

func (s *simRaft) Event(_ time.Time, event any) {
	switch e := event.(type) {
	case consensus.Committed:
		for i, entry := range e.Entries {
			s.index = e.Index + uint64(i)
			s.sum = s.sum*1000003 + entry.Term
			for _, c := range entry.Command {
				s.sum = s.sum*31 + uint64(c)
			}
			if s.index == uint64(len(s.all.sums)) {
				s.all.sums = append(s.all.sums, s.sum)
			} else if s.all.sums[s.index] != s.sum {
				s.all.broken = fmt.Errorf("%s applies another history at %d", s.id, s.index)
			}
		}
		last := s.index
		_ = s.world.Do(s.id, func(now time.Time, core coterie.Core) { core.(*raft.Core).Applied(now, last) })
	case consensus.Leader:
		if e.ID == s.id {
			if other, ok := s.all.leaders[e.Term]; ok && other != s.id {
				s.all.broken = fmt.Errorf("%s and %s lead term %d", other, s.id, e.Term)
			}
			s.all.leaders[e.Term] = s.id
		}
	}
}

// BenchmarkRaftSim measures how many seconds of a cluster of three are simulated in one: 50 proposals a second, 5% of
// messages lost, a modelled disk, all kinds of faults, and after every event the check that one leads a term and all
// apply the same.
func BenchmarkRaftSim(b *testing.B) {
	b.Run("nodes=3/impl=coterie", func(b *testing.B) {
		b.ReportAllocs()
		const length = 60 * time.Second
		committed := 0
		for n := range b.N {
			committed += simulateRaft(b, uint64(n+1), length)
		}
		b.ReportMetric(length.Seconds()*float64(b.N)/b.Elapsed().Seconds(), "sim-s/s")
		b.ReportMetric(float64(committed)/length.Seconds()/float64(b.N), "commits/sim-s")
	})
}

func simulateRaft(b *testing.B, seed uint64, length time.Duration) int {
	world, err := sim.New(sim.Config{Seed: seed, Link: sim.Link{Loss: 0.05}, Disk: sim.Disk{Slow: 0.1, Crash: 0.0001}, MaxDrift: 200})
	if err != nil {
		b.Fatal(err)
	}
	ids := []coterie.NodeID{"a", "b", "c"}
	voters := map[coterie.NodeID]string{"a": "", "b": "", "c": ""}
	history := &simRaftHistory{sums: []uint64{0}, leaders: map[uint64]coterie.NodeID{}}
	for i, id := range ids {
		err := world.Add(id, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) {
			core, err := raft.NewCore(raft.Config{ID: id, Voters: voters, Seed: seed*97 + incarnation*7 + uint64(i)})
			if err != nil {
				b.Fatal(err)
			}
			return core, &simRaft{world: world, id: id, all: history}
		}})
		if err != nil {
			b.Fatal(err)
		}
	}
	world.Invariant("figure 3", func(*sim.World) error { return history.broken })
	if err := world.Apply(sim.DrawSchedule(seed, sim.Limits{Nodes: ids, Length: length, MaxRate: 0.2, MaxDown: 1})); err != nil {
		b.Fatal(err)
	}
	id := uint64(0)
	command := []byte("sixteen bytes ok")
	leader := coterie.NodeID("a")
	var propose func()
	propose = func() {
		id++
		term := uint64(0)
		for t, who := range history.leaders {
			if t > term {
				term, leader = t, who
			}
		}
		_ = world.Do(leader, func(now time.Time, core coterie.Core) { core.(*raft.Core).Propose(now, id, command) })
		world.After(20*time.Millisecond, propose)
	}
	world.After(0, propose)
	if err := world.Run(length); err != nil {
		b.Fatal(err)
	}
	return len(history.sums)
}
