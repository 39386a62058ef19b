package tokenring_test

import (
	"context"
	"fmt"
	"log"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/lock/tokenring"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

// Three peers add to a counter, one at a time.
func Example() {
	network := transport.NewNetwork(transport.NetworkConfig{})
	ids := []coterie.NodeID{"a", "b", "c"}
	var nodes []*tokenring.Node
	for _, id := range ids {
		node, err := tokenring.Start(tokenring.Config{
			ID: id, Peers: ids, Transport: network.Join(id), Journal: &host.MemoryJournal{},
		})
		if err != nil {
			log.Fatal(err)
		}
		defer node.Close()
		nodes = append(nodes, node)
	}
	counter, newest := 0, uint64(0)
	for _, node := range nodes {
		err := lock.Do(context.Background(), node, "counter", lock.Options{}, func(_ context.Context, token uint64) error {
			counter++
			fmt.Println(counter, token > newest)
			newest = token
			return nil
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// 1 true
	// 2 true
	// 3 true
}
