package ricart_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/lock/ricart"
	"github.com/coterie-go/coterie/replication/wal"
	"github.com/coterie-go/coterie/transport"
)

// Three nodes of one process; in production each has a network transport and a disk of its own.
func Example() {
	dir, err := os.MkdirTemp("", "ricart")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	network := transport.NewNetwork(transport.NetworkConfig{})
	peers := []coterie.NodeID{"a", "b", "c"}
	var nodes []*ricart.Node
	for _, id := range peers {
		log, err := wal.Open(wal.Config{Dir: filepath.Join(dir, string(id)), Owner: id})
		if err != nil {
			fmt.Println(err)
			return
		}
		defer log.Close()
		node, err := ricart.Start(ricart.Config{ID: id, Peers: peers, Transport: network.Join(id), Journal: log})
		if err != nil {
			fmt.Println(err)
			return
		}
		defer node.Close()
		nodes = append(nodes, node)
	}
	var last uint64
	for i, node := range nodes {
		err := lock.Do(context.Background(), node, "report", lock.Options{}, func(_ context.Context, token uint64) error {
			fmt.Println(peers[i], "writes the report, token larger:", token > last)
			last = token
			return nil
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// a writes the report, token larger: true
	// b writes the report, token larger: true
	// c writes the report, token larger: true
}
