package pbft

import (
	"fmt"
	"testing"
	"time"

	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
)

// TestCalm runs groups of every size without faults; of one and three replicas none may lie.
func TestCalm(t *testing.T) {
	for _, n := range []int{1, 3, 4, 7} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			simtest.Seeds(t, testsize.N(3, 30), func(t *testing.T, seed uint64) {
				c := newCluster(options{nodes: n, seed: seed})
				if err := c.run(); err != nil {
					t.Fatal(err)
				}
				if c.acked < 100 {
					t.Fatalf("only %d operations: %s", c.acked, c.describe())
				}
			})
		})
	}
}

// TestSwarm runs many groups through many climates of faults: none may disagree, apply anything twice, show a client
// something that is not linearizable, or stay down once the faults are over.
func TestSwarm(t *testing.T) {
	for _, n := range []int{4, 7} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			var seen Metrics
			runs := 0
			simtest.Seeds(t, testsize.N(20, 1000), func(t *testing.T, seed uint64) {
				o := options{
					nodes: n, seed: seed, faults: true, link: sim.Link{Loss: 0.02, Duplicate: 0.05, Reorder: 0.1},
				}
				if seed%2 == 0 { // one replica is away for so long that only a snapshot brings it back
					o.config = func(cfg *Config) { cfg.SnapshotBytes = 500 }
					o.script = func(c *cluster) {
						c.w.After(300*time.Millisecond, func() { c.w.Crash("d") })
						c.w.After(o.length-500*time.Millisecond, func() { c.w.Restart("d") })
					}
					o.length, o.think = 4*time.Second, 10*time.Millisecond
				}
				c := newCluster(o)
				if err := c.run(); err != nil {
					t.Fatal(err)
				}
				runs++
				for _, k := range c.cores {
					seen.ViewChanges += k.metrics.ViewChanges
					seen.Checkpoints += k.metrics.Checkpoints
					seen.Installs += k.metrics.Installs
					seen.Caught += k.metrics.Caught
					seen.Vouched += k.metrics.Vouched
				}
			})
			if runs < 20 {
				return // one seed alone, or the race detector's few
			}
			t.Logf("%+v", seen)
			for name, n := range map[string]uint64{
				"view changes": seen.ViewChanges, "checkpoints": seen.Checkpoints, "installed snapshots": seen.Installs,
				"batches caught up": seen.Caught, "snapshots": seen.Vouched,
			} {
				if n == 0 {
					t.Errorf("the weather was too fine: no %s", name)
				}
			}
		})
	}
}

func TestDeterministic(t *testing.T) {
	simtest.RequireDeterministic(t, func(trace *sim.Trace) {
		c := newCluster(options{nodes: 4, seed: 5, faults: true, link: sim.Link{Loss: 0.02}, trace: trace})
		if err := c.run(); err != nil {
			t.Fatal(err)
		}
	})
}
