package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

const (
	writers  = 32
	kills    = 2
	patience = time.Minute // for anything
)

// plan is what happens to the cluster.
type plan struct {
	keys        int
	serve       bool
	reconfigure bool
	soak        time.Duration
}

// demonstrate loads a cluster, kills its leaders meanwhile or does what else the plan says, and checks what is left.
func demonstrate(ctx context.Context, todo plan) (err error) {
	pairs, err := identifiers(todo.keys)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "raftkv-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	limited, cancel := context.WithTimeout(ctx, patience+todo.soak)
	defer cancel()
	c, err := startCluster(limited, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()

	if todo.reconfigure {
		if err := c.reserve(); err != nil {
			return err
		}
	}
	l := &load{cluster: c, pairs: pairs, plan: todo}
	if err := l.run(limited); err != nil {
		return err
	}
	lost, duplicated, err := l.check(limited)
	if err != nil {
		return err
	}
	l.report(lost, duplicated)
	if todo.serve {
		if err := c.invite(ctx); err != nil {
			return err
		}
	}
	if lost > 0 || duplicated > 0 {
		return errors.New("the replicas are not what was acknowledged")
	}
	return nil
}

// load is the writing of pairs, and what was seen of it.
type load struct {
	*cluster
	pairs []pair
	plan  plan
	took  time.Duration

	killing sync.Mutex // held from a kill until the replica is back

	mu         sync.Mutex // guards what follows
	acked      []pair
	latencies  []time.Duration
	killed     time.Time // when a leader was killed and no write was acknowledged since; zero otherwise
	leaderless []time.Duration

	disturbances string // what was done to the cluster, in words
}

func (l *load) run(ctx context.Context) error {
	start := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	todo := make(chan pair)
	g.Go(func() error {
		defer close(todo)
		if l.plan.soak > 0 || l.plan.reconfigure {
			return l.disturb(ctx, todo)
		}
		for i, p := range l.pairs {
			if kill := i * (kills + 1) / len(l.pairs); kill > 0 && i == (kill*len(l.pairs)+kills)/(kills+1) {
				g.Go(func() error { return l.killLeader(ctx) })
			}
			select {
			case todo <- p:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range writers {
		g.Go(func() error { return l.write(ctx, todo) })
	}
	finished := make(chan struct{})
	go l.progress(start, finished)
	err := g.Wait()
	close(finished)
	l.took = time.Since(start)
	return err
}

// write is one client: it finds the leader, and tries each write until it is acknowledged, exactly once.
func (l *load) write(ctx context.Context, todo <-chan pair) error {
	client, err := consensus.Dial(ctx, consensus.ClientConfig{Addrs: l.urls})
	if err != nil {
		return err
	}
	for p := range todo {
		begin := time.Now()
		if _, err := client.Propose(ctx, []byte(p.key+"="+p.value)); err != nil {
			return fmt.Errorf("write %s: %w", p.key, err)
		}
		l.acknowledged(p, begin)
	}
	return client.Close()
}

func (l *load) acknowledged(p pair, begin time.Time) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = append(l.acked, p)
	l.latencies = append(l.latencies, now.Sub(begin))
	if !l.killed.IsZero() {
		l.leaderless = append(l.leaderless, now.Sub(l.killed))
		l.killed = time.Time{}
	}
}

// killLeader kills the leader's process and starts it again when another one leads.
func (l *load) killLeader(ctx context.Context) error {
	l.killing.Lock() // one after another, with the last one back
	defer l.killing.Unlock()
	id, err := l.leader(ctx)
	if err != nil {
		return err
	}
	if err := l.kill(id); err != nil {
		return err
	}
	l.mu.Lock()
	l.killed = time.Now()
	l.mu.Unlock()
	if _, err := l.leader(ctx); err != nil {
		return err
	}
	return l.start(id)
}

// check reads everything from every replica.
func (l *load) check(ctx context.Context) (lost, duplicated int, err error) {
	for _, id := range l.ids {
		b, err := l.clients[id].Read(ctx, nil)
		if err != nil {
			return 0, 0, fmt.Errorf("read at %s: %w", id, err)
		}
		var have store
		if err := json.Unmarshal(b, &have); err != nil {
			return 0, 0, err
		}
		for _, p := range l.acked {
			switch i := have[p.key]; {
			case i.Writes == 0 || i.Value != p.value:
				lost++
			case i.Writes > 1:
				duplicated++
			}
		}
	}
	return lost, duplicated, nil
}

// progress shows a line while the load runs, on a terminal.
func (l *load) progress(start time.Time, finished <-chan struct{}) {
	if info, err := os.Stdout.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return
	}
	for {
		select {
		case <-time.After(100 * time.Millisecond):
			l.mu.Lock()
			line := fmt.Sprintf("%6d of %d writes, %3.1f s, %d failovers", len(l.acked), len(l.pairs), time.Since(start).Seconds(), len(l.leaderless))
			if !l.killed.IsZero() {
				line += ", no leader"
			}
			l.mu.Unlock()
			fmt.Printf("\r\033[K%s", line)
		case <-finished:
			fmt.Print("\r\033[K")
			return
		}
	}
}

func (l *load) report(lost, duplicated int) {
	slices.Sort(l.latencies)
	at := func(percent int) time.Duration {
		return l.latencies[(len(l.latencies)-1)*percent/100].Round(10 * time.Microsecond)
	}
	var without time.Duration
	for _, d := range l.leaderless {
		without += d
	}
	fmt.Printf("writes      %d, each on %d replicas\n", len(l.acked), len(l.ids))
	fmt.Printf("writes/s    %.0f\n", float64(len(l.acked))/l.took.Seconds())
	fmt.Printf("p50         %v\n", at(50))
	fmt.Printf("p99         %v\n", at(99))
	if l.plan.soak > 0 || l.plan.reconfigure {
		fmt.Printf("disturbed   %s\n", l.disturbances)
	} else {
		fmt.Printf("leaderless  %v, after %d kills\n", without.Round(time.Millisecond), len(l.leaderless))
	}
	fmt.Printf("lost %d\n", lost)
	fmt.Printf("duplicated %d\n", duplicated)
}

// invite prints what to try and waits for an interrupt.
func (c *cluster) invite(ctx context.Context) error {
	leader, err := c.leader(ctx)
	if err != nil {
		return err
	}
	var follower coterie.NodeID
	for _, id := range c.ids {
		if id != leader {
			follower = id
		}
	}
	fmt.Printf(`
The cluster stays up until you press Ctrl-C. Try:

	curl -d 'greeting=hello' %[1]s/propose
	curl -d greeting %[2]s/read             # every replica answers reads, linearizably
	curl -d errors.Is %[2]s/read
	curl -i -d 'greeting=hi' %[2]s/propose  # a follower says who leads
	curl %[1]s/status
	kill -9 %[3]d  # the leader

Logs and data are in %[4]s.
`, c.urls[leader], c.urls[follower], c.running[leader].Process.Pid, c.dir)
	<-ctx.Done()
	return nil
}
