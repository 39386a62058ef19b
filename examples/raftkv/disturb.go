package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/raft"
)

// disturb keeps the writers busy with keys that are all different, until what the plan says has been done to the
// cluster.
func (l *load) disturb(ctx context.Context, todo chan<- pair) error {
	done := make(chan error, 1)
	go func() {
		if l.plan.reconfigure {
			done <- l.growAndShrink(ctx)
		} else {
			done <- l.harass(ctx)
		}
	}()
	for i := 0; ; i++ {
		p := l.pairs[i%len(l.pairs)]
		if round := i / len(l.pairs); round > 0 {
			p.key = fmt.Sprintf("%s#%d", p.key, round)
		}
		select {
		case todo <- p:
		case err := <-done:
			return err
		case <-ctx.Done():
			return errors.Join(ctx.Err(), <-done)
		}
	}
}

// settle is how long the load goes on between two changes.
const settle = time.Second

// newcomers are the replicas that join.
var newcomers = []coterie.NodeID{"d", "e"}

// reserve finds addresses for the newcomers, so that clients know them from the start.
func (c *cluster) reserve() error {
	addrs, err := freeAddrs(2 * len(newcomers))
	if err != nil {
		return err
	}
	for i, id := range newcomers {
		c.listen[id] = addrs[2*i]
		c.urls[id] = "http://" + addrs[2*i+1]
	}
	return nil
}

// growAndShrink adds two replicas, which become voters when they have caught up, and then removes two of the first
// three, the leader among them, in one step.
func (l *load) growAndShrink(ctx context.Context) error {
	if err := sleep(ctx, settle); err != nil {
		return err
	}
	var grow raft.Change
	for _, id := range newcomers {
		if err := l.create(ctx, id); err != nil {
			return err
		}
		grow.Set = append(grow.Set, raft.Member{ID: id, Address: l.listen[id], Role: raft.Learner, AutoPromote: true})
	}
	l.ids = append(l.ids, newcomers...)
	if err := l.reconfigure(ctx, grow, func(m raft.Membership) bool { return len(m.Voters()) == 5 && !m.Joint() }); err != nil {
		return err
	}
	if err := sleep(ctx, settle); err != nil {
		return err
	}
	leader, err := l.leader(ctx)
	if err != nil {
		return err
	}
	leave := []coterie.NodeID{leader}
	for _, id := range l.ids[:3] {
		if id != leader && len(leave) < 2 {
			leave = append(leave, id)
		}
	}
	left := func(m raft.Membership) bool { return len(m.Voters()) == 3 && !m.Joint() }
	if err := l.reconfigure(ctx, raft.Change{Remove: leave}, left); err != nil {
		return err
	}
	for _, id := range leave {
		if err := l.kill(id); err != nil {
			return err
		}
		l.ids = slices.DeleteFunc(l.ids, func(other coterie.NodeID) bool { return other == id })
	}
	if err := sleep(ctx, settle); err != nil {
		return err
	}
	l.disturbances = fmt.Sprintf("grown to 5 replicas, shrunk to %v by removing %v, the leader %s among them", l.ids, leave, leader)
	return nil
}

// reconfigure asks whoever leads until the members are as they should be.
func (l *load) reconfigure(ctx context.Context, change raft.Change, reached func(raft.Membership) bool) error {
	var last error
	for {
		leader, err := l.leader(ctx)
		if err != nil {
			return errors.Join(err, last)
		}
		var m raft.Membership
		if err := l.ask(ctx, leader, "GET", "/members", nil, &m); err == nil && reached(m) {
			return nil
		}
		// Asked again once it is under way it changes nothing, or is refused.
		last = l.ask(ctx, leader, "POST", "/members", change, nil)
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), last)
		}
	}
}

// harass kills, pauses and deposes replicas at random, one at a time, for as long as the plan says.
func (l *load) harass(ctx context.Context) error {
	counts := map[string]int{}
	for end := time.Now().Add(l.plan.soak); time.Now().Before(end); {
		id := l.ids[rand.IntN(len(l.ids))]
		if rand.IntN(2) == 0 {
			leader, err := l.leader(ctx)
			if err != nil {
				return err
			}
			id = leader
		}
		what, act := "kills", l.killAndRestart
		switch rand.IntN(3) {
		case 0:
			what, act = "pauses", l.pauseAndResume
		case 1:
			what, act = "transfers", l.depose
		}
		if err := act(ctx, id); err != nil {
			return fmt.Errorf("%s of %s: %w", what, id, err)
		}
		counts[what]++
		if err := sleep(ctx, time.Duration(rand.IntN(500))*time.Millisecond); err != nil {
			return err
		}
	}
	var words []string
	for _, what := range []string{"kills", "pauses", "transfers"} {
		words = append(words, fmt.Sprintf("%d %s", counts[what], what))
	}
	l.disturbances = strings.Join(words, ", ")
	return nil
}

func (l *load) killAndRestart(ctx context.Context, id coterie.NodeID) error {
	if err := l.kill(id); err != nil {
		return err
	}
	if err := sleep(ctx, time.Duration(rand.IntN(1500))*time.Millisecond); err != nil {
		return err
	}
	return l.start(id)
}

func (l *load) pauseAndResume(ctx context.Context, id coterie.NodeID) error {
	p := l.running[id].Process
	if err := pause(p); err != nil {
		return err
	}
	return errors.Join(sleep(ctx, time.Duration(rand.IntN(2500))*time.Millisecond), resume(p))
}

// depose hands leadership on, if there is a leader that is up to it.
func (l *load) depose(ctx context.Context, _ coterie.NodeID) error {
	leader, err := l.leader(ctx)
	if err != nil {
		return err
	}
	if err := l.ask(ctx, leader, "POST", "/transfer", nil, nil); err != nil && ctx.Err() != nil {
		return err
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
