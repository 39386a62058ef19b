package paxos_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/paxos"
	"github.com/coterie-go/coterie/quorum"
	"github.com/coterie-go/coterie/transport/sim"
)

// A cluster of one node. For three, each gets the addresses of all in Voters, a Dir and a TLS identity of its own.
func ExampleStart() {
	dir, err := os.MkdirTemp("", "paxos")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	node, err := paxos.Start(paxos.Config{
		ID: "a", Voters: map[coterie.NodeID]string{"a": "127.0.0.1:0"}, Dir: dir, StateMachine: &counter{},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer node.Close()

	ctx := context.Background()
	session, err := node.NewSession(ctx) // tries again until there is a leader, and never applies a command twice
	if err != nil {
		fmt.Println(err)
		return
	}
	result, err := session.Propose(ctx, []byte("42"))
	fmt.Println(string(result), err)
	sum, err := node.Read(ctx, nil)
	fmt.Println(string(sum), err)
	// Output:
	// 42 <nil>
	// 42 <nil>
}

// Five members of which any two are enough to replicate, so that a commit waits for one answer; four are needed to
// elect (Howard, Malkhi and Spiegelman 2016).
func ExampleConfig_flexible() {
	cfg := paxos.Config{
		ID: "a", Seed: 1, Voters: map[coterie.NodeID]string{"a": "", "b": "", "c": "", "d": "", "e": ""},
		Quorums: func(members []coterie.NodeID) (quorum.ReadWrite, error) {
			return quorum.FlexiblePaxos(2, members...)
		},
	}
	_, err := paxos.NewCore(cfg)
	fmt.Println(err)
	// Output: <nil>
}

// The roles are plain values: two proposers compete for one value, and the second finds what the first has begun.
func ExampleProposer() {
	majority, err := quorum.Symmetric(quorum.Majority("a", "b", "c"))
	if err != nil {
		fmt.Println(err)
		return
	}
	var a, b, c paxos.Acceptor
	p, q := paxos.NewProposer("p", majority), paxos.NewProposer("q", majority)
	learner := paxos.NewLearner(majority)

	ballot := p.Begin([]byte("red"))
	told, _ := a.Prepare(ballot)
	p.Promise("a", ballot, told)
	told, _ = b.Prepare(ballot)
	proposal, _ := p.Promise("b", ballot, told)
	fmt.Println("a accepts", a.Accept(proposal)) // b hears of it too late
	learner.Accepted("a", proposal)

	ballot = q.Begin([]byte("blue"))
	told, _ = a.Prepare(ballot)
	q.Promise("a", ballot, told)
	told, _ = c.Prepare(ballot)
	next, _ := q.Promise("c", ballot, told)
	_, ok := b.Prepare(ballot)
	fmt.Println("b promises", ok, "and then accepts the old proposal", b.Accept(proposal))
	fmt.Printf("proposed in %v: %s\n", next.Ballot, next.Value)
	c.Accept(next)
	a.Accept(next)
	learner.Accepted("c", next)
	fmt.Println("chosen", learner.Accepted("a", next))
	// Output:
	// a accepts true
	// b promises true and then accepts the old proposal false
	// proposed in 1.q: red
	// chosen true
}

// Three nodes choose one of two values, on the simulator.
func ExampleSynod() {
	ids := []coterie.NodeID{"a", "b", "c"}
	majority, err := quorum.Symmetric(quorum.Majority(ids...))
	if err != nil {
		fmt.Println(err)
		return
	}
	w, err := sim.New(sim.Config{Seed: 1, Link: sim.Link{Loss: 0.2}})
	if err != nil {
		fmt.Println(err)
		return
	}
	learned := map[coterie.NodeID]string{}
	for i, id := range ids {
		_ = w.Add(id, sim.Node{New: func(incarnation uint64) (coterie.Core, sim.App) {
			s, err := paxos.NewSynod(paxos.SynodConfig{ID: id, Quorums: majority, Seed: incarnation*10 + uint64(i)})
			if err != nil {
				panic(err)
			}
			return s, sim.EventFunc(func(_ time.Time, event any) {
				if e, ok := event.(paxos.Chosen); ok {
					learned[id] = string(e.Value)
				}
			})
		}})
	}
	for _, id := range ids[:2] {
		_ = w.Do(id, func(now time.Time, core coterie.Core) { _ = core.(*paxos.Synod).Propose(now, []byte("of "+id)) })
	}
	_ = w.RunUntil(func() bool { return len(learned) == 3 }, time.Minute)
	fmt.Println(learned["a"] == learned["b"], learned["b"] == learned["c"])
	// Output: true true
}
