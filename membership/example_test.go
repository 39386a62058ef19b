package membership_test

import (
	"context"
	"fmt"
	"log"

	"github.com/coterie-go/coterie/membership"
	"github.com/coterie-go/coterie/membership/swim"
	"github.com/coterie-go/coterie/transport"
)

// What members say of themselves is a type of the application.
func ExampleAs() {
	type server struct {
		Zone   string
		Weight int
	}
	network := transport.NewNetwork(transport.NetworkConfig{})
	node, err := swim.Start(swim.Config{ID: "a", Transport: network.Join("a")})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()

	servers := membership.As(node, membership.JSON[server]())
	if err := servers.Update(context.Background(), server{Zone: "eu", Weight: 3}); err != nil {
		log.Fatal(err)
	}
	for _, m := range servers.Members() {
		fmt.Println(m.ID, m.State, m.Meta.Zone, m.Meta.Weight)
	}
	// Output: a alive eu 3
}
