package swim_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/membership"
	"github.com/coterie-go/coterie/membership/swim"
	"github.com/coterie-go/coterie/transport/sim"
	"github.com/stretchr/testify/require"
)

// cluster is a simulated group. Each member's seed is the first.
type cluster struct {
	t      *testing.T
	w      *sim.World
	ids    []coterie.NodeID
	events func(at coterie.NodeID, now time.Time, e membership.Event[[]byte])
	other  func(at coterie.NodeID, event any)
}

func nodeID(i int) coterie.NodeID { return coterie.NodeID(fmt.Sprintf("n%03d", i)) }

func newCluster(t *testing.T, n int, cfg sim.Config, shape func(i int, c swim.Config) swim.Config) *cluster {
	t.Helper()
	w, err := sim.New(cfg)
	require.NoError(t, err)
	c := &cluster{t: t, w: w}
	for i := range n {
		id := nodeID(i)
		c.ids = append(c.ids, id)
		require.NoError(t, w.Add(id, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) {
			config := swim.Config{ID: id, Seed: cfg.Seed*1e6 + uint64(i)*1000 + incarnation, Seeds: []coterie.NodeID{nodeID(0), nodeID(1)}}
			if shape != nil {
				config = shape(i, config)
			}
			core, err := swim.NewCore(config)
			require.NoError(t, err)
			return core, sim.EventFunc(func(now time.Time, event any) {
				if e, ok := event.(membership.Event[[]byte]); ok {
					if c.events != nil {
						c.events(id, now, e)
					}
				} else if c.other != nil {
					c.other(id, event)
				}
			})
		}}))
	}
	return c
}

func (c *cluster) core(id coterie.NodeID) *swim.Core { return c.w.Core(id).(*swim.Core) }

// agree reports whether all that run see exactly those who run as alive.
func (c *cluster) agree() bool {
	for _, id := range c.ids {
		if c.w.Up(id) && !c.sees(id, func(other coterie.NodeID) bool { return c.w.Up(other) }) {
			return false
		}
	}
	return true
}

func (c *cluster) sees(id coterie.NodeID, alive func(coterie.NodeID) bool) bool {
	core := c.core(id)
	for _, other := range c.ids {
		m, ok := core.Member(other)
		if (ok && m.State == membership.Alive) != alive(other) {
			return false
		}
	}
	return true
}

// until runs in steps of 10 ms until the condition holds, and returns how long that took.
func (c *cluster) until(what string, limit time.Duration, cond func() bool) time.Duration {
	c.t.Helper()
	begin := c.w.Elapsed()
	for !cond() {
		require.NoError(c.t, c.w.Run(10*time.Millisecond))
		if took := c.w.Elapsed() - begin; took > limit {
			c.dump()
			c.t.Fatalf("seed %d: %s: not within %v", c.w.Seed(), what, limit)
		}
	}
	return c.w.Elapsed() - begin
}

func (c *cluster) dump() {
	for _, id := range c.ids[:min(len(c.ids), 12)] {
		if !c.w.Up(id) {
			c.t.Logf("%s is down", id)
			continue
		}
		line := ""
		for _, m := range c.core(id).Members() {
			if m.State != membership.Alive {
				line += fmt.Sprintf(" %s=%v@%d", m.ID, m.State, m.Incarnation)
			}
		}
		c.t.Logf("%s: %d members, not alive:%s; %+v", id, len(c.core(id).Members()), line, c.core(id).Metrics())
	}
}

func TestJoinDetectHeal(t *testing.T) {
	for _, n := range []int{2, 3, 8, 32} {
		c := newCluster(t, n, sim.Config{Seed: 1}, nil)
		t.Log(n, "join", c.until("join", 10*time.Second, c.agree))
		c.w.Crash(c.ids[n-1])
		t.Log(n, "crash", c.until("crash", 60*time.Second, c.agree))
		c.w.Restart(c.ids[n-1])
		t.Log(n, "restart", c.until("restart", 60*time.Second, c.agree))
		c.w.Partition(c.ids[:n/2], c.ids[n/2:])
		t.Log(n, "partition", c.until("partition", 120*time.Second, func() bool {
			for i, id := range c.ids {
				if !c.sees(id, func(other coterie.NodeID) bool { return (other < nodeID(n/2)) == (i < n/2) }) {
					return false
				}
			}
			return true
		}))
		require.NoError(t, c.w.Run(10*time.Minute))
		c.w.Heal()
		t.Log(n, "heal", c.until("heal", 120*time.Second, c.agree))
		t.Logf("%+v", c.core(c.ids[0]).Metrics())
	}
}
