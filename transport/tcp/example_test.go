package tcp_test

import (
	"fmt"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/tcp"
)

// Two nodes talk over TLS. Each knows the other's address and proves by its certificate who it is.
func Example() {
	ca, err := transport.NewThrowawayCA() // transport.LoadIdentity reads certificates that last
	if err != nil {
		fmt.Println(err)
		return
	}
	start := func(id coterie.NodeID) *tcp.Transport {
		identity, err := ca.Identity(id)
		if err != nil {
			panic(err)
		}
		node, err := tcp.Start(tcp.Config{ID: id, Listen: "127.0.0.1:0", Identity: identity})
		if err != nil {
			panic(err)
		}
		return node
	}
	alice, bob := start("alice"), start("bob")
	defer alice.Close()
	defer bob.Close()
	_ = alice.SetPeer("bob", bob.Addr().String())
	_ = bob.SetPeer("alice", alice.Addr().String())

	heard := make(chan string, 1)
	bob.Receive(func(from coterie.NodeID, payload []byte) { heard <- fmt.Sprintf("%s says %s", from, payload) })
	if err := alice.Send("bob", []byte("hello")); err != nil {
		fmt.Println(err)
	}
	fmt.Println(<-heard)
	// Output: alice says hello
}
