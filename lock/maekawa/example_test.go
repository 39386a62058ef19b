package maekawa_test

import (
	"context"
	"fmt"
	"sync"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/lock/maekawa"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

// Seven nodes, of which each asks two others only, add to one counter.
func Example() {
	network := transport.NewNetwork(transport.NetworkConfig{})
	peers := []coterie.NodeID{"a", "b", "c", "d", "e", "f", "g"}
	var workers sync.WaitGroup
	var nodes []*maekawa.Node
	for _, id := range peers {
		node, err := maekawa.Start(maekawa.Config{
			ID: id, Peers: peers,
			Transport: network.Join(id),
			Journal:   &host.MemoryJournal{}, // in earnest, one on disk: replication/wal
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		defer node.Close()
		nodes = append(nodes, node)
	}
	count := 0
	for _, node := range nodes {
		workers.Go(func() {
			for range 10 {
				err := lock.Do(context.Background(), node, "counter", lock.Options{}, func(context.Context, uint64) error {
					count++
					return nil
				})
				if err != nil {
					fmt.Println(err)
				}
			}
		})
	}
	workers.Wait()
	fmt.Println(count)
	// Output: 70
}

// The quorums of seven nodes are the lines of the Fano plane.
func ExampleQuorums() {
	quorums := maekawa.Quorums([]coterie.NodeID{"a", "b", "c", "d", "e", "f", "g"})
	fmt.Println(quorums["a"], quorums["b"], quorums["g"])
	// Output: [a b d] [b c e] [a c g]
}
