package quorum_test

import (
	"context"
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/quorum"
)

func Example() {
	a, b, c, d := quorum.Node("a"), quorum.Node("b"), quorum.Node("c"), quorum.Node("d")
	rw, err := quorum.FromReads(quorum.Or(quorum.And(a, b), quorum.And(c, d)))
	if err != nil {
		panic(err)
	}
	fmt.Println(rw)
	fmt.Println("resilience", rw.Resilience())
	fmt.Println(rw.IsRead(rw.Set("a", "b")), rw.IsWrite(rw.Set("a", "b")), rw.IsWrite(rw.Set("a", "d")))
	// Output:
	// reads (a & b) | (c & d), writes (a | b) & (c | d)
	// resilience 1
	// true false true
}

// Joint consensus: both the old and the new configuration must agree.
func ExampleAnd() {
	joint := quorum.And(quorum.Majority("a", "b", "c"), quorum.Majority("c", "d", "e"))
	vote := quorum.NewTally(joint, 4)
	for _, id := range []coterie.NodeID{"a", "b", "c", "d"} {
		fmt.Println(id, vote.Add(id, true))
	}
	// Output:
	// a pending
	// b pending
	// c pending
	// d won
}

func ExampleSystem_Availability() {
	for _, n := range []coterie.NodeID{"3", "5"} {
		nodes := []coterie.NodeID{"a", "b", "c", "d", "e"}[:n[0]-'0']
		fmt.Printf("%d nodes: %.6f\n", len(nodes), quorum.Majority(nodes...).Availability(0.01))
	}
	// Output:
	// 3 nodes: 0.999702
	// 5 nodes: 0.999990
}

// The example of Whittaker et al. 2021: two nodes are near and slow, two are far and fast.
func ExampleSearch() {
	model := quorum.Model{
		ReadFraction: 1,
		Nodes: map[coterie.NodeID]quorum.Profile{
			"a": {Reads: 200, Writes: 100, Latency: 4 * time.Second},
			"b": {Reads: 200, Writes: 100, Latency: 4 * time.Second},
			"c": {Reads: 100, Writes: 50, Latency: time.Second},
			"d": {Reads: 100, Writes: 50, Latency: time.Second},
		},
		Optimize:   quorum.Latency,
		MaxLoad:    1.0 / 150,
		MaxNetwork: 2,
	}
	found, err := quorum.Search(context.Background(), quorum.SearchConfig{Nodes: []coterie.NodeID{"a", "b", "c", "d"}, Model: model})
	if err != nil {
		panic(err)
	}
	fmt.Println(found.System.Read(), found.Report.Latency)
	// Output: a | b | c | d 1s
}
