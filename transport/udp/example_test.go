package udp_test

import (
	"fmt"
	"log"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport/udp"
)

func Example() {
	a, err := udp.Start(udp.Config{ID: "a", Listen: "127.0.0.1:0"})
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close()
	b, err := udp.Start(udp.Config{ID: "b", Listen: "127.0.0.1:0", Peers: map[coterie.NodeID]string{"a": a.Addr().String()}})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()

	done := make(chan string)
	a.Receive(func(from coterie.NodeID, payload []byte) { done <- fmt.Sprintf("%s says %s", from, payload) })
	if err := b.Send("a", []byte("hello")); err != nil { // one datagram; on loopback it arrives
		log.Fatal(err)
	}
	fmt.Println(<-done)
	// Output: b says hello
}
