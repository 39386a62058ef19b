package raft

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

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
			simtest.Seeds(t, testsize.N(20, 1000), func(t *testing.T, seed uint64) {
				s := newSimCluster(drawOptions(seed, nodes))
				if err := s.run(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}
