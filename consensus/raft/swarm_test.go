package raft

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
)

// drawOptions draws one run: which faults, how fast the links and disks, how much work.
func drawOptions(seed uint64, nodes int) simOptions {
	r := rand.New(rand.NewPCG(seed, 1234))
	o := simOptions{
		nodes: nodes, seed: seed, length: 8 * time.Second, rate: 10 + 60*r.Float64(), readRate: 30 * r.Float64(),
		drift: 200, changes: r.IntN(2) == 0, witness: nodes > 2 && r.IntN(8) == 0,
	}
	if testsize.Soak() {
		o.length = 30 * time.Second
	}
	if r.IntN(2) == 0 {
		o.link = &sim.Link{Loss: 0.15 * r.Float64(), Duplicate: 0.1 * r.Float64(), Reorder: 0.2 * r.Float64()}
	}
	if r.IntN(2) == 0 {
		o.disk = &sim.Disk{Slow: 0.2 * r.Float64(), Crash: 0.01 * r.Float64(), SlowFactor: 5}
	}
	lease, quiet := r.IntN(2) == 0, r.IntN(4) == 0
	o.config = func(c *Config) {
		c.LeaseReads = lease
		if quiet {
			c.QuiesceAfter = c.ElectionTimeout
		}
	}
	return o
}

// TestSwarm runs many clusters through many climates of faults, and none may break an invariant of figure 3, lose or
// repeat what a client was told, or stay down once the faults are over.
func TestSwarm(t *testing.T) {
	for _, nodes := range []int{3, 5, 7} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			var seen Counters
			runs := 0
			simtest.Seeds(t, testsize.N(60, 1000), func(t *testing.T, seed uint64) {
				s := newSimCluster(drawOptions(seed, nodes))
				if err := s.run(); err != nil {
					t.Fatal(err)
				}
				runs++
				for _, n := range s.order {
					m := n.core.metrics
					seen.Elections += m.Elections
					seen.Truncated += m.Truncated
					seen.Installs += m.Installs
					seen.Transfers += m.Transfers
					seen.ConfigChanges += m.ConfigChanges
					seen.Promotions += m.Promotions
					seen.LeaseReads += m.LeaseReads
					seen.ReadsForwarded += m.ReadsForwarded
					seen.Resigned += m.Resigned
				}
			})
			if runs < 60 {
				return // one seed alone, or the race detector's few
			}
			for name, n := range map[string]uint64{
				"elections": seen.Elections, "truncated entries": seen.Truncated, "installed snapshots": seen.Installs,
				"transfers": seen.Transfers, "changes of members": seen.ConfigChanges, "promotions": seen.Promotions,
				"lease reads": seen.LeaseReads, "follower reads": seen.ReadsForwarded, "leaders without a quorum": seen.Resigned,
			} {
				if n == 0 {
					t.Errorf("the weather was too fine: no %s", name)
				}
			}
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

// TestSimFindsPlantedBugs shows that the invariants have teeth: each bug that real implementations had is found within
// a thousand seeds, in a climate that lets it show, and in that climate the real Core has none.
func TestSimFindsPlantedBugs(t *testing.T) {
	for _, p := range []struct {
		name    string
		bugs    bugs
		climate func(*simOptions)
		near    uint64 // the short form begins here, a little before the seed that found it last
	}{
		{"vote not saved before the reply", bugs{forgetVote: true}, splitVotes, 9},
		{"commit by counting replicas of an old term", bugs{commitOldTerm: true}, churn, 603},
		{"own copy counted before it is durable", bugs{countUnsaved: true}, slowDisks, 1},
		{"election restriction dropped", bugs{anyCandidate: true}, anyWeather, 8},
		{"log not truncated on conflict", bugs{keepConflict: true}, anyWeather, 28},
		{"snapshot installed over newer entries", bugs{installOld: true}, anyWeather, 220},
		{"lease that does not end", bugs{leaseForever: true}, handovers, 1},
		{"lease that outlives a transfer", bugs{keepLease: true}, handovers, 1},
		{"read confirmed by a round that began earlier", bugs{oldRound: true}, handovers, 54},
		{"read before a commit in the leader's term", bugs{readEarly: true}, anyWeather, 119},
	} {
		t.Run(p.name, func(t *testing.T) {
			run := func(seed uint64, b bugs) error {
				o := drawOptions(seed, 3+2*int(seed%2))
				o.length = 8 * time.Second
				p.climate(&o)
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
					t.Logf("found at seed %d: %v", seed, err)
					return
				}
			}
			t.Fatal("not found within 1,000 seeds")
		})
	}
}

// TestLeaseNeedsTheClocksBound runs lease reads through handovers and cuts with clocks as bad as Config.ClockDrift allows,
// and finds nothing; with clocks beyond the bound it finds what is documented: a read that is out of date.
func TestLeaseNeedsTheClocksBound(t *testing.T) {
	run := func(seed uint64, clockDrift float64) error {
		o := drawOptions(seed, 3)
		handovers(&o)
		o.length, o.drift, o.link, o.disk, o.changes = 8*time.Second, 0, nil, nil, false
		config := o.config
		o.config = func(c *Config) {
			config(c)
			c.LeaseReads, c.ClockDrift = true, clockDrift
		}
		o.script = func(s *simCluster) {
			s.every(500*time.Millisecond, func() {
				n := s.target()
				s.w.Partition([]coterie.NodeID{n.id})
				s.w.After(time.Duration(s.rand.IntN(600))*time.Millisecond, s.w.Heal)
			})
		}
		s := newSimCluster(o)
		for _, id := range s.ids {
			s.w.Clock(id).SetDrift((s.rand.Float64() - 0.5) * 600_000)
		}
		return s.run()
	}
	for seed := range uint64(testsize.N(10, 1000)) {
		if err := run(seed+1, 0.3); err != nil {
			t.Fatalf("seed %d, within the bound: %v", seed+1, err)
		}
	}
	for seed := range uint64(1000) {
		if err := run(seed+1, 0.0001); err != nil {
			t.Logf("found at seed %d: %v", seed+1, err)
			return
		}
	}
	t.Fatal("clocks beyond the bound do no harm within 1,000 seeds")
}

func anyWeather(*simOptions) {}

// splitVotes makes elections collide: messages take as long as time-outs differ, and voters crash for a moment.
func splitVotes(o *simOptions) {
	o.link = &sim.Link{Latency: sim.Uniform(time.Millisecond, 60*time.Millisecond), Duplicate: 0.3}
	o.nodes, o.noFaults, o.changes, o.witness = 3, true, false, false
	o.script = func(s *simCluster) {
		s.every(60*time.Millisecond, func() {
			id := s.ids[s.rand.IntN(len(s.ids))]
			if s.w.Up(id) {
				s.w.Crash(id)
				s.w.After(time.Duration(s.rand.IntN(20))*time.Millisecond, func() { s.w.Restart(id) })
			}
		})
	}
}

// churn lets no leader live long, and each entry travel alone: the weather of the paper's figure 8.
func churn(o *simOptions) {
	o.nodes, o.noFaults, o.changes, o.witness, o.rate = 5, true, false, false, 100
	config := o.config
	o.config = func(c *Config) {
		config(c)
		c.MaxMessageBytes, c.MaxInflightMessages = 1, 1
	}
	o.script = func(s *simCluster) {
		s.every(80*time.Millisecond, func() {
			for _, n := range s.order {
				if s.w.Up(n.id) && n.core.role == Leader {
					s.w.Crash(n.id)
					s.w.After(time.Duration(s.rand.IntN(500))*time.Millisecond, func() { s.w.Restart(n.id) })
				}
			}
			cut := s.ids[s.rand.IntN(len(s.ids))]
			s.w.Partition([]coterie.NodeID{cut, s.ids[s.rand.IntN(len(s.ids))]})
		})
	}
}

// slowDisks lets messages arrive long before what they came from is durable, crashes leaders meanwhile, and cuts off one
// of the others.
func slowDisks(o *simOptions) {
	o.disk = &sim.Disk{Sync: sim.Uniform(time.Millisecond, 60*time.Millisecond)}
	o.nodes, o.noFaults, o.changes, o.witness, o.rate = 3, true, false, false, 100
	o.script = func(s *simCluster) {
		s.every(300*time.Millisecond, func() {
			for _, n := range s.order {
				if s.w.Up(n.id) && n.core.role == Leader {
					s.w.Crash(n.id)
					s.w.After(time.Duration(s.rand.IntN(20))*time.Millisecond, func() { s.w.Restart(n.id) })
				}
			}
			s.w.Partition([]coterie.NodeID{s.ids[s.rand.IntN(len(s.ids))]})
			s.w.After(250*time.Millisecond, s.w.Heal)
		})
	}
}

// handovers moves leadership often, and cuts off whoever had it.
func handovers(o *simOptions) {
	o.noFaults, o.readRate, o.rate = true, 200, 100
	config := o.config
	o.config = func(c *Config) {
		config(c)
		c.LeaseReads = o.bugs.leaseForever || o.bugs.keepLease
		c.QuiesceAfter = 0
	}
	o.script = func(s *simCluster) {
		s.every(200*time.Millisecond, func() {
			n := s.target()
			s.transfer()
			s.w.After(time.Duration(s.rand.IntN(4000))*time.Microsecond, func() { s.w.Partition([]coterie.NodeID{n.id}) })
			s.w.After(time.Duration(s.rand.IntN(400))*time.Millisecond, s.w.Heal)
		})
	}
}
