package transporttest_test

import (
	"testing"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/transporttest"
)

// Your transport passes the suite if a test like this one does.
func Example() {
	factory := func(_ *testing.T, ids ...coterie.NodeID) *transporttest.Cluster {
		net := transport.NewNetwork(transport.NetworkConfig{}) // yours in its place
		c := &transporttest.Cluster{MaxPayload: 16 << 20}
		for _, id := range ids {
			c.Nodes = append(c.Nodes, net.Join(id))
		}
		return c
	}
	_ = func(t *testing.T) { // TestConforms
		transporttest.Run(t, factory)
	}
	// Output:
}
