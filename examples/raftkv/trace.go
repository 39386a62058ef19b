package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/consensus/raft"
	"github.com/coterie-go/coterie/transport/sim"
)

// simulate runs the same replicas on the simulator, where nothing but the seed decides what happens: a client writes,
// the leader crashes twice, the links lose messages. It writes the diagram of it all.
func simulate(file string) error {
	trace := new(sim.Trace)
	w, err := sim.New(sim.Config{Seed: 7, Trace: trace, Link: sim.Link{Loss: 0.01}})
	if err != nil {
		return err
	}
	s := &simulation{World: w, ids: []coterie.NodeID{"a", "b", "c"}, stores: map[coterie.NodeID]store{}}
	for _, id := range s.ids {
		if err := w.Add(id, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) { return s.replica(id, incarnation) }}); err != nil {
			return err
		}
	}
	w.After(0, s.try)
	for crash := range 2 {
		if err := w.RunUntil(func() bool { return s.done > 8*(crash+1) }, 10*time.Second); err != nil {
			return err
		}
		leader := s.ids[s.target]
		w.Crash(leader)
		w.After(150*time.Millisecond, func() { w.Restart(leader) })
	}
	if err := w.RunUntil(func() bool { return s.done == writes }, 10*time.Second); err != nil {
		return err
	}
	if err := w.Run(200 * time.Millisecond); err != nil {
		return err
	}
	lost, duplicated := 0, 0
	for _, id := range s.ids {
		for n := range writes {
			switch i := s.stores[id][fmt.Sprint("key", n)]; {
			case i.Writes == 0:
				lost++
			case i.Writes > 1:
				duplicated++
			}
		}
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := errors.Join(trace.WriteHTML(out), out.Close()); err != nil {
		return err
	}
	fmt.Printf("%d writes in %v of simulated time, 2 crashes: see %s\nlost %d\nduplicated %d\n",
		s.done, w.Elapsed().Round(time.Millisecond), file, lost, duplicated)
	return nil
}

const writes = 24

// simulation is a world of replicas and one client.
type simulation struct {
	*sim.World
	ids    []coterie.NodeID
	stores map[coterie.NodeID]store

	session uint64
	done    int // writes acknowledged
	target  int // whom the client asks
	attempt int
}

// replica is what raft.Start makes of a Core, without goroutines.
func (s *simulation) replica(id coterie.NodeID, incarnation uint64) (coterie.Core, sim.App) {
	core, err := raft.NewCore(raft.Config{
		ID: id, Voters: map[coterie.NodeID]string{"a": "", "b": "", "c": ""}, Seed: s.Seed()<<16 | incarnation<<8 | uint64(id[0]),
		ElectionTimeout: 100 * time.Millisecond,
	})
	if err != nil {
		panic(err)
	}
	s.stores[id] = store{}
	return core, consensus.NewInline(consensus.InlineConfig{
		ID: id, World: s.World, Config: consensus.Config{StateMachine: s.stores[id], SnapshotEntries: 10, Clock: s.Clock(id).Now},
	})
}

// try sends the next write, or opens the session, and asks another replica if no answer comes.
func (s *simulation) try() {
	s.attempt++
	attempt := s.attempt
	answer := func(o consensus.Outcome) {
		if attempt == s.attempt {
			s.answered(o)
		}
	}
	replica, up := s.App(s.ids[s.target]).(*consensus.Inline)
	switch {
	case s.done == writes:
		return
	case up && s.session == 0:
		replica.OpenSession(answer)
	case up:
		seq := uint64(s.done + 1)
		replica.Propose(consensus.Tag{Session: s.session, Seq: seq, Low: seq}, fmt.Appendf(nil, "key%d=value", s.done), answer)
	}
	s.After(50*time.Millisecond, func() {
		if attempt == s.attempt {
			s.target = (s.target + 1) % len(s.ids)
			s.try()
		}
	})
}

func (s *simulation) answered(o consensus.Outcome) {
	switch {
	case o.Err != nil:
		s.target = (s.target + 1) % len(s.ids)
	case s.session == 0:
		s.session = o.Index
	default:
		s.done++
	}
	s.attempt++ // this one is over
	s.After(5*time.Millisecond, s.try)
}
