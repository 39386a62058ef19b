package transport_test

import (
	"fmt"
	"sync"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
)

// Two nodes of one process talk to each other.
func Example() {
	net := transport.NewNetwork(transport.NetworkConfig{})
	alice, bob := net.Join("alice"), net.Join("bob")
	defer alice.Close()
	defer bob.Close()

	var arrived sync.WaitGroup
	arrived.Add(1)
	bob.Receive(func(from coterie.NodeID, payload []byte) {
		fmt.Printf("%s says %s\n", from, payload)
		arrived.Done()
	})
	if err := alice.Send("bob", []byte("hello")); err != nil {
		fmt.Println(err)
	}
	arrived.Wait()
	// Output: alice says hello
}

// Two protocols share a transport, each on a channel of its own.
func ExampleMux() {
	net := transport.NewNetwork(transport.NetworkConfig{})
	alice, bob := transport.NewMux(net.Join("alice")), transport.NewMux(net.Join("bob"))
	defer alice.Close()
	defer bob.Close()

	const gossip, election = 1, 2 // both nodes know the numbers
	var arrived sync.WaitGroup
	arrived.Add(1)
	bob.Channel(election).Receive(func(from coterie.NodeID, payload []byte) {
		fmt.Printf("%s elects %s\n", from, payload)
		arrived.Done()
	})
	_ = alice.Channel(gossip).Send("bob", []byte("nobody listens")) // bob has not opened this one
	_ = alice.Channel(election).Send("bob", []byte("bob"))
	arrived.Wait()
	// Output: alice elects bob
}

// A node's certificate says who it is.
func ExampleIdentity() {
	ca, err := transport.NewThrowawayCA() // for demonstrations; LoadIdentity reads real certificates
	if err != nil {
		fmt.Println(err)
		return
	}
	alice, err := ca.Identity("alice")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(alice.Check("alice"))
	fmt.Println(alice.Check("bob"))
	// Output:
	// <nil>
	// transport: certificate does not name the node: "bob" is neither among DNS names [] nor URIs [coterie:alice]
}
