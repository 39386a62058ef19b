package heartbeat_test

import (
	"fmt"
	"log"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/membership"
	"github.com/coterie-go/coterie/membership/heartbeat"
	"github.com/coterie-go/coterie/membership/phi"
	"github.com/coterie-go/coterie/transport"
)

// Three members; the network between two of them and the third is cut.
func Example() {
	network := transport.NewNetwork(transport.NetworkConfig{})
	ids := []coterie.NodeID{"a", "b", "c"}
	var nodes []*heartbeat.Node
	for _, id := range ids {
		node, err := heartbeat.Start(heartbeat.Config{
			ID: id, Members: ids, Transport: network.Join(id), Interval: 20 * time.Millisecond, Timeout: 400 * time.Millisecond,
		})
		if err != nil {
			log.Fatal(err)
		}
		defer node.Close()
		nodes = append(nodes, node)
	}
	await := func(n *heartbeat.Node, want string) {
		for n.Report().String() != want {
			time.Sleep(5 * time.Millisecond)
		}
		fmt.Println(want)
	}
	await(nodes[0], "[a b c]: majority")
	network.Cut("a", "c")
	network.Cut("b", "c")
	await(nodes[0], "[a b] silent [c]: majority")
	await(nodes[2], "[c] silent [a b]: no majority")
	// Output:
	// [a b c]: majority
	// [a b] silent [c]: majority
	// [c] silent [a b]: no majority
}

// Any estimator judges the silence of a member.
func ExampleConfig_estimator() {
	network := transport.NewNetwork(transport.NetworkConfig{})
	node, err := heartbeat.Start(heartbeat.Config{
		ID: "a", Members: []coterie.NodeID{"a", "b"}, Transport: network.Join("a"),
		New: func() membership.Estimator {
			e, err := phi.New(phi.Config{Threshold: 10, Pause: time.Second, First: 500 * time.Millisecond})
			if err != nil {
				log.Fatal(err)
			}
			return e
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	for _, m := range node.Members() {
		fmt.Println(m.ID, m.State)
	}
	// Output:
	// a alive
	// b suspect
}
