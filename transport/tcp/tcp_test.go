package tcp_test

import (
	"maps"
	"net"
	"testing"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/tcp"
	"github.com/coterie-go/coterie/transport/transporttest"
	"github.com/stretchr/testify/require"
)

func conformance(secure bool) func(t *testing.T, ids ...coterie.NodeID) *transporttest.Cluster {
	return func(t *testing.T, ids ...coterie.NodeID) *transporttest.Cluster {
		const limit = 1 << 20
		ca, err := transport.NewThrowawayCA()
		require.NoError(t, err)
		addresses := make(map[coterie.NodeID]string)
		start := func(id coterie.NodeID) *tcp.Transport {
			cfg := tcp.Config{ID: id, Listen: "127.0.0.1:0", Peers: maps.Clone(addresses), MaxPayload: limit, QueueBytes: 4 << 20}
			if secure {
				cfg.Identity, err = ca.Identity(id)
				require.NoError(t, err)
			}
			node, err := tcp.Start(cfg)
			require.NoError(t, err)
			addresses[id] = node.Addr().String()
			return node
		}
		c := &transporttest.Cluster{MaxPayload: limit}
		nodes := make([]*tcp.Transport, len(ids))
		introduce := func() {
			for _, node := range nodes {
				for id, address := range addresses {
					_ = node.SetPeer(id, address)
				}
			}
		}
		for i, id := range ids {
			nodes[i] = start(id)
			c.Nodes = append(c.Nodes, nodes[i])
		}
		introduce()
		c.Move = func(_ *testing.T, index int) coterie.Transport {
			nodes[index] = start(ids[index])
			introduce()
			return nodes[index]
		}
		c.Garbage = func(t *testing.T, index int, data []byte) {
			conn, err := net.Dial("tcp", nodes[index].Addr().String())
			require.NoError(t, err)
			defer conn.Close()
			_, _ = conn.Write(data)
		}
		return c
	}
}

func TestConforms(t *testing.T)    { transporttest.Run(t, conformance(false)) }
func TestConformsTLS(t *testing.T) { transporttest.Run(t, conformance(true)) }
