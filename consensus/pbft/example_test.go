package pbft_test

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/pbft"
	"github.com/coterie-go/coterie/transport"
)

// counter is a state machine that adds up.
type counter struct{ sum int64 }

func (c *counter) Apply(e coterie.Entry) []byte {
	n, _ := strconv.ParseInt(string(e.Command), 10, 64)
	c.sum += n
	return strconv.AppendInt(nil, c.sum, 10)
}

func (c *counter) Query([]byte) ([]byte, error) { return strconv.AppendInt(nil, c.sum, 10), nil }

func (c *counter) Snapshot() (func(io.Writer) error, error) {
	sum := c.sum
	return func(w io.Writer) error { return binary.Write(w, binary.BigEndian, sum) }, nil
}

func (c *counter) Restore(r io.Reader) error { return binary.Read(r, binary.BigEndian, &c.sum) }

// start starts four replicas on a network in one process. Where each runs on a machine of its own, it gets the addresses
// of all in Voters and a TLS identity instead of a Transport, and makes its key itself.
func start(dir string) (map[coterie.NodeID]*pbft.Node, error) {
	shared := pbft.Config{Voters: map[coterie.NodeID]string{}, Keys: map[coterie.NodeID]ed25519.PublicKey{}}
	private := map[coterie.NodeID]ed25519.PrivateKey{}
	for _, id := range []coterie.NodeID{"a", "b", "c", "d"} {
		public, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			return nil, err
		}
		shared.Voters[id], shared.Keys[id], private[id] = "", public, key
	}
	network := transport.NewNetwork(transport.NetworkConfig{})
	nodes := map[coterie.NodeID]*pbft.Node{}
	for id := range shared.Voters {
		cfg := shared
		cfg.ID, cfg.Key, cfg.StateMachine = id, private[id], &counter{}
		cfg.Transport, cfg.Dir = network.Join(id), filepath.Join(dir, string(id))
		node, err := pbft.Start(cfg)
		if err != nil {
			return nodes, err
		}
		nodes[id] = node
	}
	return nodes, nil
}

// Every replica takes proposals. Who asks one replica trusts it.
func ExampleStart() {
	dir, err := os.MkdirTemp("", "pbft")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	nodes, err := start(dir)
	for _, n := range nodes {
		defer n.Close()
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	result, err := nodes["b"].Propose(ctx, []byte("42"))
	fmt.Println(string(result), err)
	sum, err := nodes["c"].Read(ctx, nil)
	fmt.Println(string(sum), err)
	// Output:
	// 42 <nil>
	// 42 <nil>
}

// A client that believes no replica alone. One of the four makes up its answers.
func ExampleDial() {
	dir, err := os.MkdirTemp("", "pbft")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	nodes, err := start(dir)
	for _, n := range nodes {
		defer n.Close()
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	client, err := pbft.Dial(ctx, pbft.ClientConfig{ // with Addrs where the replicas are served by pbft.Serve
		Nodes: []coterie.NodeID{"a", "b", "c", "d"},
		Ask: func(ctx context.Context, to coterie.NodeID, signed []byte) ([]byte, error) {
			if to == "a" {
				return []byte("\x00a million"), nil
			}
			return nodes[to].Request(ctx, signed)
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	result, err := client.Propose(ctx, []byte("42"))
	fmt.Println(string(result), err)
	sum, err := client.Read(ctx, nil)
	fmt.Println(string(sum), err)
	// Output:
	// 42 <nil>
	// 42 <nil>
}

// A Verifier keeps out what is not signed by who it says it is from.
func ExampleVerifier_Verify() {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	v, err := pbft.NewVerifier(pbft.Config{
		Voters: map[coterie.NodeID]string{"a": ""}, Keys: map[coterie.NodeID]ed25519.PublicKey{"a": public},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(v.Verify("mallory", []byte{1, 3}))
	// Output: pbft: "mallory" is not a replica
}
