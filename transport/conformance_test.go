package transport_test

import (
	"fmt"
	"testing"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/transporttest"
	"github.com/stretchr/testify/require"
)

const conformanceLimit = 1 << 20

func TestNetworkConforms(t *testing.T) {
	for _, direct := range []bool{false, true} {
		t.Run(fmt.Sprintf("direct=%v", direct), func(t *testing.T) {
			transporttest.Run(t, func(_ *testing.T, ids ...coterie.NodeID) *transporttest.Cluster {
				net := transport.NewNetwork(transport.NetworkConfig{Direct: direct, MaxPayload: conformanceLimit})
				c := &transporttest.Cluster{MaxPayload: conformanceLimit, Synchronous: direct}
				for _, id := range ids {
					c.Nodes = append(c.Nodes, net.Join(id))
				}
				c.Move = func(_ *testing.T, index int) coterie.Transport { return net.Join(ids[index]) }
				return c
			})
		})
	}
}

func TestMuxConforms(t *testing.T) {
	transporttest.Run(t, func(_ *testing.T, ids ...coterie.NodeID) *transporttest.Cluster {
		const headSize = 2 // of channels up to 127
		net := transport.NewNetwork(transport.NetworkConfig{MaxPayload: conformanceLimit})
		c := &transporttest.Cluster{MaxPayload: conformanceLimit - headSize}
		muxes := make([]*transport.Mux, len(ids))
		for i, id := range ids {
			muxes[i] = transport.NewMux(net.Join(id))
			c.Nodes = append(c.Nodes, muxes[i].Channel(7))
		}
		stranger := net.Join("stranger")
		c.Move = func(_ *testing.T, index int) coterie.Transport { return muxes[index].Channel(7) }
		c.Garbage = func(t *testing.T, index int, data []byte) { require.NoError(t, stranger.Send(ids[index], data)) }
		c.Close = func() {
			for _, m := range muxes {
				require.NoError(t, m.Close())
			}
			require.NoError(t, stranger.Close())
		}
		return c
	})
}
