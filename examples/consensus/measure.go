package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
	"github.com/coterie-go/coterie/transport/sim"
)

// commandsPerRow is how many commands a simulated cluster commits for the latencies of a row.
const commandsPerRow = 400

// row is what was measured of one protocol, network and number of replicas.
type row struct {
	protocol, network, survives string
	nodes                       int
	messages, bytes             float64 // per commit
	roundTrips                  float64 // of a commit
	p50, p99, recovery          time.Duration
	rate                        float64 // commits per second of real time; 0 if not measured
}

// compare measures every protocol on every network in every size.
func compare(chosen []protocol, o options) ([]row, error) {
	var rows []row
	for _, p := range chosen {
		var sizes []int
		for _, nodes := range []int{3, 5, 7} {
			sizes = append(sizes, max(nodes, p.least))
		}
		for _, nodes := range slices.Compact(sizes) {
			rate := 0.0
			if o.real > 0 {
				var err error
				if rate, err = throughput(p, nodes, o.real); err != nil {
					return nil, fmt.Errorf("%s with %d real replicas: %w", p.name, nodes, err)
				}
			}
			for _, net := range networks {
				r, err := measure(p, net, nodes, o.seed)
				if err != nil {
					return nil, fmt.Errorf("%s with %d replicas on a %s: %w", p.name, nodes, net.name, err)
				}
				r.rate = rate
				rows = append(rows, r)
			}
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		if a.network != b.network {
			return slices.IndexFunc(networks, func(n network) bool { return n.name == a.network }) -
				slices.IndexFunc(networks, func(n network) bool { return n.name == b.network })
		}
		return a.nodes - b.nodes
	})
	return rows, nil
}

func measure(p protocol, net network, nodes int, seed uint64) (row, error) {
	r := row{protocol: p.name, network: net.name, nodes: nodes, survives: p.survives(nodes)}
	for _, step := range []func(*row, protocol, network, uint64) error{countMessages, countRoundTrips, latencies, recovery} {
		if err := step(&r, p, net, seed); err != nil {
			return row{}, err
		}
	}
	return r, nil
}

// countMessages lets one client commit, and compares with an idle cluster.
func countMessages(r *row, p protocol, net network, seed uint64) error {
	c, err := newCluster(p, net, r.nodes, sim.Config{Seed: seed})
	if err != nil {
		return err
	}
	if err := c.ready(); err != nil {
		return err
	}
	at, before := c.Elapsed(), c.Stats()
	if err := c.Run(20 * net.timeout); err != nil {
		return err
	}
	idle := c.Stats()
	quiet := float64(c.Elapsed() - at)
	at = c.Elapsed()
	const commands = 100
	if _, err := c.load(1, commands); err != nil {
		return err
	}
	busy, after := float64(c.Elapsed()-at), c.Stats()
	share := busy / quiet
	r.messages = (float64(after.Sent-idle.Sent) - share*float64(idle.Sent-before.Sent)) / commands
	r.bytes = (float64(after.Bytes-idle.Bytes) - share*float64(idle.Bytes-before.Bytes)) / commands
	return nil
}

// countRoundTrips measures a commit where only messages take time, and all the same.
func countRoundTrips(r *row, p protocol, net network, seed uint64) error {
	const oneWay = 5 * time.Millisecond
	net.link, net.timeout = sim.Link{Latency: sim.Fixed(oneWay)}, time.Second
	c, err := newCluster(p, net, r.nodes, sim.Config{Seed: seed, Disk: sim.Disk{Sync: sim.Fixed(0)}, StepTime: -1})
	if err != nil {
		return err
	}
	if err := c.ready(); err != nil {
		return err
	}
	took, err := c.load(1, 9)
	if err != nil {
		return err
	}
	slices.Sort(took)
	r.roundTrips = float64(took[len(took)/2]) / float64(2*oneWay)
	return nil
}

func latencies(r *row, p protocol, net network, seed uint64) error {
	c, err := newCluster(p, net, r.nodes, sim.Config{Seed: seed})
	if err != nil {
		return err
	}
	if err := c.ready(); err != nil {
		return err
	}
	took, err := c.load(16, commandsPerRow)
	if err != nil {
		return err
	}
	slices.Sort(took)
	r.p50, r.p99 = took[len(took)/2], took[len(took)*99/100]
	return nil
}

func recovery(r *row, p protocol, net network, seed uint64) error {
	var all []time.Duration
	for i := range uint64(5) {
		c, err := newCluster(p, net, r.nodes, sim.Config{Seed: seed*5 + i})
		if err != nil {
			return err
		}
		if err := c.ready(); err != nil {
			return err
		}
		d, err := c.crash()
		if err != nil {
			return err
		}
		all = append(all, d)
	}
	slices.Sort(all)
	r.recovery = all[len(all)/2]
	return nil
}

// throughput runs real replicas in this process for a while, with 64 proposers at the leader.
func throughput(p protocol, nodes int, length time.Duration) (perSecond float64, err error) {
	net := transport.NewNetwork(transport.NetworkConfig{Direct: true})
	var ids []coterie.NodeID
	for i := range nodes {
		ids = append(ids, coterie.NodeID(rune('a'+i)))
	}
	var replicas []consensus.Replica
	defer func() {
		for _, r := range replicas {
			err = errors.Join(err, r.Close())
		}
	}()
	for i, id := range ids {
		r, err := p.start(setup{id: id, ids: ids, seed: uint64(i + 1), timeout: 500 * time.Millisecond}, parts{
			transport: net.Join(id), journal: &host.MemoryJournal{}, snapshots: new(folder), machine: nothing{},
		})
		if err != nil {
			return 0, err
		}
		replicas = append(replicas, r)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	leader, err := firstCommit(ctx, replicas)
	if err != nil {
		return 0, err
	}
	var commits atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for range 64 {
		wg.Go(func() {
			for time.Since(begin) < length {
				if _, err := leader.Propose(ctx, command); err == nil {
					commits.Add(1)
				} else if ctx.Err() != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return float64(commits.Load()) / time.Since(begin).Seconds(), nil
}

// firstCommit waits until a replica leads and has committed something.
func firstCommit(ctx context.Context, replicas []consensus.Replica) (consensus.Replica, error) {
	for {
		for _, r := range replicas {
			if s := r.Status(); s.Leader != s.ID {
				continue
			}
			if _, err := r.Propose(ctx, command); err == nil {
				return r, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}
