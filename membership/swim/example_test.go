package swim_test

import (
	"context"
	"fmt"
	"log"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/membership/swim"
	"github.com/coterie-go/coterie/transport/udp"
)

func Example() {
	first, err := udp.Start(udp.Config{ID: "a", Listen: "127.0.0.1:0"})
	if err != nil {
		log.Fatal(err)
	}
	defer first.Close()
	second, err := udp.Start(udp.Config{
		ID: "b", Listen: "127.0.0.1:0", Peers: map[coterie.NodeID]string{"a": first.Addr().String()},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer second.Close()

	a, err := swim.Start(swim.Config{ID: "a", Transport: first, Meta: []byte("rack 1")})
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close()
	b, err := swim.Start(swim.Config{ID: "b", Transport: second})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	if err := b.Join(context.Background(), "a"); err != nil {
		log.Fatal(err)
	}
	for _, m := range b.Members() {
		fmt.Printf("%s is %v %q\n", m.ID, m.State, m.Meta)
	}
	// Output:
	// a is alive "rack 1"
	// b is alive ""
}
