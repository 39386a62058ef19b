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
