package suzuki_test

import (
	"context"
	"fmt"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/lock/suzuki"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

// Two nodes take turns. A token is larger than all before it.
func Example() {
	network := transport.NewNetwork(transport.NetworkConfig{})
	peers := []coterie.NodeID{"a", "b"}
	var nodes []*suzuki.Node
	for _, id := range peers {
		port := network.Join(id)
		defer func() { _ = port.Close() }()
		node, err := suzuki.Start(suzuki.Config{ID: id, Peers: peers, Transport: port, Journal: &host.MemoryJournal{}})
		if err != nil {
			fmt.Println(err)
			return
		}
		defer func() { _ = node.Close() }()
		nodes = append(nodes, node)
	}
	ctx, last := context.Background(), uint64(0)
	for i, node := range []*suzuki.Node{nodes[0], nodes[1], nodes[1], nodes[0]} {
		lease, err := node.Acquire(ctx, "ledger", lock.Options{})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(i, lease.Token() > last, lease.Release(ctx))
		last = lease.Token()
	}
	// Output:
	// 0 true <nil>
	// 1 true <nil>
	// 2 true <nil>
	// 3 true <nil>
}
