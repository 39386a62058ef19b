package abd_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/quorum"
	"github.com/coterie-go/coterie/quorum/abd"
	"github.com/coterie-go/coterie/replication/wal"
	"github.com/coterie-go/coterie/transport/tcp"
	"github.com/stretchr/testify/require"
)

// realNode is a node over TCP with its journal in files.
type realNode struct {
	*abd.Node
	link *tcp.Transport
	log  *wal.Log
}

func startReal(tb testing.TB, dir string, id coterie.NodeID, system quorum.ReadWrite, addresses map[coterie.NodeID]string) *realNode {
	tb.Helper()
	peers := map[coterie.NodeID]string{}
	for _, peer := range system.Nodes() {
		if peer != id {
			peers[peer] = "127.0.0.1:1" // until it is known
		}
	}
	link, err := tcp.Start(tcp.Config{ID: id, Listen: "127.0.0.1:0", Peers: peers})
	require.NoError(tb, err)
	addresses[id] = link.Addr().String()
	log, err := wal.Open(wal.Config{Dir: filepath.Join(dir, string(id)), Owner: id, SegmentSize: 1 << 16})
	require.NoError(tb, err)
	node, err := abd.Start(abd.Config{ID: id, System: system, Transport: link, Journal: log.Stream("abd"), Hedge: 20 * time.Millisecond})
	require.NoError(tb, err)
	return &realNode{node, link, log}
}

func (n *realNode) stop(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, n.Close())
	require.NoError(tb, n.link.Close())
	require.NoError(tb, n.log.Close())
}

// Registers over TCP and on real disks outlive the restart of every node, one after the other and all at once.
func TestRegistersOnRealDisks(t *testing.T) {
	system, err := quorum.Symmetric(quorum.Majority("a", "b", "c"))
	require.NoError(t, err)
	dir, addresses, nodes := t.TempDir(), map[coterie.NodeID]string{}, map[coterie.NodeID]*realNode{}
	start := func(id coterie.NodeID) {
		nodes[id] = startReal(t, dir, id, system, addresses)
		for _, n := range nodes {
			for peer, address := range addresses {
				if peer != n.link.LocalID() {
					require.NoError(t, n.link.SetPeer(peer, address))
				}
			}
		}
	}
	stop := func(id coterie.NodeID) {
		nodes[id].stop(t)
		delete(nodes, id)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	check := func(at coterie.NodeID, want string) {
		value, err := nodes[at].Read(ctx, "key")
		require.NoError(t, err)
		require.Equal(t, want, string(value))
	}
	for _, id := range system.Nodes() {
		start(id)
	}
	for i, id := range system.Nodes() {
		require.NoError(t, nodes[id].Write(ctx, "key", fmt.Append(nil, "by ", id)))
		stop(id)
		check(system.Nodes()[(i+1)%3], fmt.Sprint("by ", id))
		start(id)
	}
	for _, id := range system.Nodes() {
		stop(id)
	}
	for _, id := range system.Nodes() {
		start(id)
	}
	check("b", "by c")
	for _, id := range system.Nodes() {
		stop(id)
	}
}
