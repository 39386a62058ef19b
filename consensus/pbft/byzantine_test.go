package pbft

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/coterie-go/coterie/transport/sim/simtest"
)

type liar = func(*cluster, *Core) coterie.Core

// TestByzantine has f replicas of each kind of liar, the first primary among them, and faults of every kind on top.
func TestByzantine(t *testing.T) {
	for _, n := range []int{4, 7} {
		for _, name := range slices.Sorted(maps.Keys(behaviours)) {
			t.Run(fmt.Sprint(n, name), func(t *testing.T) {
				simtest.Seeds(t, testsize.N(4, 250), func(t *testing.T, seed uint64) {
					liars := map[coterie.NodeID]liar{"a": behaviours[name]}
					if n == 7 {
						liars["b"] = behaviours[name] // they collude
					}
					c := newCluster(options{
						nodes: n, seed: seedOf(seed, uint64(n)), faults: seed%2 == 0, byzantine: liars,
						link: sim.Link{Loss: 0.01, Duplicate: 0.05, Reorder: 0.1},
					})
					if err := c.run(); err != nil {
						t.Fatal(err)
					}
					if c.acked == 0 {
						t.Fatal("nothing was done")
					}
				})
			})
		}
	}
}

// With one liar more than f, two honest replicas are told different things by a quorum each: the checker must see it.
func TestMoreLiarsThanFAreFound(t *testing.T) {
	found := 0
	runs := testsize.N(10, 100)
	for seed := range runs {
		c := newCluster(options{
			nodes: 4, seed: uint64(seed + 1), byzantine: map[coterie.NodeID]liar{"a": equivocating, "b": equivocating},
			length: 2 * time.Second, think: time.Millisecond, config: func(cfg *Config) { cfg.MaxInflight = 1 },
		})
		if err := c.run(); c.fail != nil {
			found++
			require.ErrorIs(t, err, c.fail)
		}
	}
	require.Greater(t, found, runs/10, "violations found in %d runs", runs)
}

// relab/hotstuff#106: a view change must get past any leader that is silent. Each replica in turn is; every seed makes
// progress after at most f+1 views.
func TestSilenceOfEachReplicaInTurn(t *testing.T) {
	for _, n := range []int{4, 7} {
		simtest.Seeds(t, testsize.N(2, 100), func(t *testing.T, seed uint64) {
			for i := range n {
				id := coterie.NodeID(rune('a' + i))
				c := newCluster(options{
					nodes: n, seed: seedOf(seed, uint64(n), uint64(i)), byzantine: map[coterie.NodeID]liar{id: silent},
					length: 2 * time.Second,
				})
				require.NoError(t, c.run())
				require.Positive(t, c.acked, "replica %s silent", id)
				for _, h := range c.honest {
					f := uint64((n - 1) / 3)
					require.LessOrEqual(t, c.cores[h].view, f+1, "replica %s silent: %s", id, c.describe())
				}
			}
		})
	}
}

// Jepsen, Tendermint 0.10.2: a replica that restarts must not sign two things for one view and number, nor forget what
// it has helped to commit. Honest replicas crash mid-view, losing what was not durable, beside a liar.
func TestRestartMidViewSignsNothingTwice(t *testing.T) {
	require.NoError(t, restarts(t, bugs{}, testsize.N(12, 300)))
}

func restarts(t *testing.T, b bugs, seeds int) error {
	t.Helper()
	for seed := range seeds {
		c := newCluster(options{
			nodes: 4, seed: uint64(seed + 1), bugs: b, length: 4 * time.Second, think: 5 * time.Millisecond,
			byzantine: map[coterie.NodeID]liar{"b": equivocating},
			link:      sim.Link{Loss: 0.05, Reorder: 0.2},
			script: func(c *cluster) {
				var again func()
				again = func() {
					if c.quiet {
						return
					}
					for _, id := range c.honest {
						if c.rand.IntN(2) == 0 {
							c.w.Crash(id)
							c.w.After(time.Duration(c.rand.IntN(60))*time.Millisecond, func() { c.w.Restart(id) })
						}
					}
					c.w.After(time.Duration(50+c.rand.IntN(300))*time.Millisecond, again)
				}
				c.w.After(100*time.Millisecond, again)
			},
		})
		if err := c.run(); err != nil {
			return fmt.Errorf("seed %d: %w", seed+1, err)
		}
	}
	return nil
}

// The tests above must be able to fail: each planted bug is found by them.
func TestPlantedBugsAreFound(t *testing.T) {
	if testsize.Race() {
		t.Skip("the same as without the race detector")
	}
	swarm := func(b bugs, liars map[coterie.NodeID]liar, change func(*options)) error {
		for seed := range uint64(40) {
			o := options{nodes: 4, seed: seed + 1, bugs: b, faults: true, byzantine: liars, link: sim.Link{Loss: 0.02, Reorder: 0.1}}
			if change != nil {
				change(&o)
			}
			if err := newCluster(o).run(); err != nil {
				return err
			}
		}
		return nil
	}
	equivocate := map[coterie.NodeID]liar{"a": equivocating}
	for _, bug := range []struct {
		name string
		run  func() error
	}{
		{"prepares without a record", func() error { return restarts(t, bugs{noSaveAccepted: true}, 40) }},
		{"a quorum of f+1", func() error { return swarm(bugs{smallQuorum: true}, equivocate, nil) }},
		{"votes are counted whatever they are on", func() error { return swarm(bugs{countAny: true}, equivocate, nil) }},
		{"no timer", func() error { return swarm(bugs{noTimer: true}, map[coterie.NodeID]liar{"a": silent}, nil) }},
		{"a new view begins empty", func() error { return swarm(bugs{newViewEmpty: true}, nil, nil) }},
		{"help is asked of one replica only", func() error {
			return swarm(bugs{helpFromFirst: true}, map[coterie.NodeID]liar{"a": silent}, nil)
		}},
		{"requests are executed twice", func() error { return swarm(bugs{executeTwice: true}, equivocate, nil) }},
	} {
		t.Run(bug.name, func(t *testing.T) {
			start := time.Now()
			err := bug.run()
			require.Error(t, err)
			t.Log(time.Since(start), err)
		})
	}
}
