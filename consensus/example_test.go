package consensus

import (
	"context"
	"fmt"

	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

// exampleReplica runs the least core there is.
func exampleReplica() *Driver[*solo] {
	d, err := Start(&solo{id: "a"}, Config{
		Transport: transport.NewNetwork(transport.NetworkConfig{}).Join("a"),
		Journal:   new(host.MemoryJournal), Snapshots: newMemory(), StateMachine: new(tally),
	})
	if err != nil {
		panic(err)
	}
	return d
}

// A protocol that implements Core becomes a coterie.Replica; raft.Start does so for Raft.
func Example() {
	net := transport.NewNetwork(transport.NetworkConfig{})
	replica, err := Start(&solo{id: "a"}, Config{
		Transport: net.Join("a"), Journal: new(host.MemoryJournal), Snapshots: newMemory(), StateMachine: new(tally),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer replica.Close()
	total, err := replica.Propose(context.Background(), []byte("40"))
	fmt.Println(string(total), err)
	total, err = replica.Propose(context.Background(), []byte("2"))
	fmt.Println(string(total), err)
	// Output:
	// 40 <nil>
	// 42 <nil>
}
