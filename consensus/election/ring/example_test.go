package ring_test

import (
	"fmt"
	"log"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/election/ring"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

// The greatest of three leads until it stops. The order of Peers is the ring.
func Example() {
	network := transport.NewNetwork(transport.NetworkConfig{})
	ids := []coterie.NodeID{"a", "b", "c"}
	var nodes []*ring.Node
	for _, id := range ids {
		node, err := ring.Start(ring.Config{
			ID: id, Peers: ids, Transport: network.Join(id), Journal: &host.MemoryJournal{}, Timeout: 200 * time.Millisecond,
		})
		if err != nil {
			log.Fatal(err)
		}
		defer node.Close()
		nodes = append(nodes, node)
	}
	await := func(want coterie.NodeID) {
		for leader := coterie.NodeID(""); leader != want; leader, _ = nodes[0].Leader() {
			time.Sleep(5 * time.Millisecond)
		}
		fmt.Println(want, "leads")
	}
	await("c")
	nodes[2].Close()
	await("b")
	// Output:
	// c leads
	// b leads
}
