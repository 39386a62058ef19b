package paxos

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/quorum"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
)

// drawOptions draws one run: which faults, which quorums, how fast the links and disks, how much work.
func drawOptions(seed uint64, nodes int) simOptions {
	r := rand.New(rand.NewPCG(seed, 1234))
	o := simOptions{
		nodes: nodes, seed: seed, length: 6 * time.Second, rate: 10 + 40*r.Float64(), readRate: 30 * r.Float64(), drift: 200,
		changes: r.IntN(3) == 0,
	}
	if testsize.Soak() {
		o.length = 20 * time.Second
	}
	if r.IntN(2) == 0 {
		o.link = &sim.Link{Loss: 0.15 * r.Float64(), Duplicate: 0.1 * r.Float64(), Reorder: 0.2 * r.Float64()}
	}
	if r.IntN(2) == 0 {
		o.disk = &sim.Disk{Slow: 0.2 * r.Float64(), Crash: 0.01 * r.Float64(), SlowFactor: 5}
	}
	lease, flexible := r.IntN(2) == 0, r.IntN(3) == 0
	o.config = func(c *Config) {
		c.LeaseReads = lease
		if flexible {
			c.Quorums = smallPhase2
		}
	}
	return o
}

// smallPhase2 replicates to the fewest nodes that leave phase 1 a chance with one down.
func smallPhase2(members []coterie.NodeID) (quorum.ReadWrite, error) {
	return quorum.FlexiblePaxos(min(2, len(members)), members...)
}

// TestSwarm runs many clusters through many climates of faults, and none may break agreement, validity or integrity,
// show a client a history that is not linearizable, or stay down once the faults are over.
func TestSwarm(t *testing.T) {
	for _, nodes := range []int{3, 5, 7} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			simtest.Seeds(t, testsize.N(40, 1000), func(t *testing.T, seed uint64) {
				if err := newSimCluster(drawOptions(seed, nodes)).run(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// TestSwarmIsDeterministic: the same seed is the same run, byte for byte.
func TestSwarmIsDeterministic(t *testing.T) {
	for seed := range uint64(testsize.N(5, 50)) {
		simtest.RequireDeterministic(t, func(trace *sim.Trace) {
			o := drawOptions(seed+1, 3)
			o.trace, o.length = trace, 3*time.Second
			if err := newSimCluster(o).run(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestSimFindsPlantedBugs shows that the invariants have teeth: each bug is found within a thousand seeds, in a climate
// that lets it show, and in that climate the real Core has none.
func TestSimFindsPlantedBugs(t *testing.T) {
	for _, p := range []struct {
		name    string
		bugs    bugs
		climate func(*simOptions)
		near    uint64 // the short form begins here, a little before the seed that found it last
	}{
		{"reports of phase 1 ignored", bugs{ignoreReports: true}, anyWeather, 1},
		{"own vote counted before it is durable", bugs{countUnsaved: true}, slowDisks, 20},
		{"reported values taken for chosen", bugs{learnReports: true}, duels, 1},
		{"values of other ballots taken for chosen", bugs{hearAny: true}, duels, 1},
		{"reads before what was found is chosen", bugs{readEarly: true}, duels, 4},
		{"read confirmed by a round that began earlier", bugs{oldRound: true}, duels, 160},
		{"lease that does not end", bugs{leaseForever: true}, duels, 1},
		{"lease that acceptors do not keep", bugs{noLease: true}, leases, 118},
		{"members changed at once", bugs{configAtOnce: true}, changing, 184},
	} {
		t.Run(p.name, func(t *testing.T) {
			run := func(seed uint64, b bugs) error {
				o := drawOptions(seed, 3+2*int(seed%2))
				o.length = 6 * time.Second
				p.climate(&o)
				if b.leaseForever {
					leases(&o)
				}
				o.bugs = b
				return newSimCluster(o).run()
			}
			first := p.near
			if testsize.Soak() {
				first = 1
			}
			for seed := first; seed < first+uint64(testsize.N(6, 1000)); seed++ {
				if err := run(seed, bugs{}); err != nil {
					t.Fatalf("seed %d, without the bug: %v", seed, err)
				}
			}
			for seed := first; seed <= 1000; seed++ {
				if err := run(seed, p.bugs); err != nil {
					t.Logf("found at seed %d: %.300v", seed, err)
					return
				}
			}
			t.Fatal("not found within 1,000 seeds")
		})
	}
}

func anyWeather(*simOptions) {}

// duels makes nodes compete: leaders are cut off and crash in the middle of their proposals, and messages take as long
// as time-outs differ.
func duels(o *simOptions) {
	o.noFaults, o.changes, o.rate, o.readRate = true, false, 80, 80
	o.link = &sim.Link{Latency: sim.Uniform(time.Millisecond, 40*time.Millisecond), Duplicate: 0.3, Loss: 0.1}
	o.script = func(s *simCluster) {
		s.every(100*time.Millisecond, func() {
			n := s.target()
			switch s.rand.IntN(3) {
			case 0:
				if s.w.Up(n.id) {
					s.w.Crash(n.id)
					s.w.After(time.Duration(s.rand.IntN(100))*time.Millisecond, func() { s.w.Restart(n.id) })
				}
			case 1:
				s.w.Partition([]coterie.NodeID{n.id})
				s.w.After(time.Duration(s.rand.IntN(400))*time.Millisecond, s.w.Heal)
			default:
				other := s.ids[s.rand.IntN(len(s.ids))]
				s.w.Cut(n.id, other)
				s.w.After(time.Duration(s.rand.IntN(300))*time.Millisecond, s.w.Heal)
			}
		})
	}
}

// leases lets leaders trust them, while they are cut off from all others but not from their clients.
func leases(o *simOptions) {
	duels(o)
	o.link = nil
	config := o.config
	o.config = func(c *Config) {
		config(c)
		c.LeaseReads = true
	}
}

// changing changes members again and again, with few slots between a change and its effect.
func changing(o *simOptions) {
	duels(o)
	o.changes = true
	config := o.config
	o.config = func(c *Config) {
		config(c)
		c.Alpha = 8
	}
}

// slowDisks lets leaders crash while they save, and whoever has accepted their last proposals be cut off.
func slowDisks(o *simOptions) {
	o.nodes, o.noFaults, o.changes, o.rate = 3, true, false, 100
	o.link, o.disk = nil, &sim.Disk{Sync: sim.Exponential(time.Millisecond, 15*time.Millisecond)}
	o.script = func(s *simCluster) {
		s.every(300*time.Millisecond, func() {
			n := s.target()
			if !s.w.Up(n.id) {
				return
			}
			s.w.Crash(n.id)
			s.w.After(5*time.Millisecond, func() { s.w.Restart(n.id) })
			other := s.ids[s.rand.IntN(len(s.ids))]
			s.w.Partition([]coterie.NodeID{other})
			s.w.After(time.Duration(300+s.rand.IntN(400))*time.Millisecond, s.w.Heal)
		})
	}
}
