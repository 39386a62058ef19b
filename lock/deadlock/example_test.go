package deadlock_test

import (
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/lock/deadlock"
	"github.com/coterie-go/coterie/transport/sim"
)

// Three transactions wait for each other; the one that began last is to be aborted.
func ExampleGraph() {
	born := map[string]int64{"t1": 100, "t2": 300, "t3": 200}
	process := func(name string) deadlock.Process { return deadlock.Process{Node: "bank", Name: name} }
	var g deadlock.Graph
	g.Add(deadlock.Edge{Waiter: process("t1"), Holder: process("t2"), Version: 1})
	g.Add(deadlock.Edge{Waiter: process("t2"), Holder: process("t3"), Version: 1})
	g.Add(deadlock.Edge{Waiter: process("t3"), Holder: process("t1"), Version: 1})
	for cycle := range g.Cycles() {
		fmt.Println("cycle:", cycle.Processes())
	}
	victims, err := g.Victims(deadlock.Youngest(func(p deadlock.Process) time.Time {
		return time.Unix(born[p.Name], 0)
	}))
	fmt.Println("abort:", victims, err)
	// Output:
	// cycle: [t1@bank t2@bank t3@bank]
	// abort: [t2@bank] <nil>
}

// A collector asks two nodes one after the other and believes to see a circle. The second collection denies it.
func ExampleGraph_Confirmed() {
	p, q := deadlock.Process{Node: "a", Name: "p"}, deadlock.Process{Node: "b", Name: "q"}
	var first, second deadlock.Graph
	first.Add(deadlock.Edge{Waiter: p, Holder: q, Version: 1}) // of node a; then q lets go ...
	first.Add(deadlock.Edge{Waiter: q, Holder: p, Version: 1}) // ... and waits for p: of node b

	second.Add(deadlock.Edge{Waiter: p, Holder: q, Version: 2}) // p waits for q again: another wait
	second.Remove(deadlock.Edge{Waiter: p, Holder: q, Version: 2})
	second.Add(deadlock.Edge{Waiter: q, Holder: p, Version: 1})
	none, err := first.Confirmed(&second).Victims(func(c deadlock.Cycle) deadlock.Process { return c[0].Waiter })
	fmt.Println("to abort:", none, err)
	// Output:
	// to abort: [] <nil>
}

// Transfers on two nodes wait for each other; each node finds it by itself. A real node runs the core by host.Start of
// package transport/host.
func ExampleCore() {
	world, err := sim.New(sim.Config{Seed: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	peers := []coterie.NodeID{"a", "b"}
	for _, id := range peers {
		err := world.Add(id, sim.Node{New: func(uint64) (coterie.Core, sim.App) {
			core, err := deadlock.NewCore(deadlock.Config{ID: id, Peers: peers})
			if err != nil {
				panic(err)
			}
			return core, sim.EventFunc(func(_ time.Time, event any) {
				fmt.Println("node", id, "found", event.(deadlock.Deadlock).Cycle.Processes())
			})
		}})
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	p, q := deadlock.Process{Node: "a", Name: "p"}, deadlock.Process{Node: "b", Name: "q"}
	wait := func(at time.Duration, waiter, holder deadlock.Process) {
		world.After(at, func() {
			_ = world.Do(waiter.Node, func(now time.Time, core coterie.Core) {
				if _, err := core.(*deadlock.Core).Block(now, waiter, holder); err != nil {
					fmt.Println(err)
				}
			})
		})
	}
	wait(0, p, q)
	wait(20*time.Millisecond, q, p)
	if err := world.Run(time.Second); err != nil {
		fmt.Println(err)
	}
	// Output:
	// node b found [q@b p@a]
	// node a found [p@a q@b]
}
