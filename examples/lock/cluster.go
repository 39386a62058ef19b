package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/consensus/kv"
	"github.com/coterie-go/coterie/consensus/raft"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/rpc"
)

// cluster is the three replicas of the store that the lock is in.
type cluster struct {
	nodes   []*raft.Node
	servers []*rpc.Server
	addrs   []string // name=host:port, for the workers
}

// startCluster starts them in this process, each with a disk and an address of its own.
func startCluster(dir string) (*cluster, error) {
	ca, err := transport.NewThrowawayCA()
	if err != nil {
		return nil, err
	}
	c := &cluster{}
	voters := map[coterie.NodeID]string{}
	for _, id := range []coterie.NodeID{"a", "b", "c"} {
		l, err := net.Listen("tcp", "127.0.0.1:0") // for a free port
		if err != nil {
			return nil, err
		}
		voters[id] = l.Addr().String()
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	for id := range voters {
		if err := c.start(id, voters, ca, filepath.Join(dir, string(id))); err != nil {
			return nil, errors.Join(err, c.stop())
		}
	}
	return c, nil
}

func (c *cluster) start(id coterie.NodeID, voters map[coterie.NodeID]string, ca *transport.ThrowawayCA, dir string) error {
	identity, err := ca.Identity(id)
	if err != nil {
		return err
	}
	store, err := kv.New(kv.Config{})
	if err != nil {
		return err
	}
	node, err := raft.Start(raft.Config{ID: id, Voters: voters, Dir: dir, TLS: identity, StateMachine: store})
	if err != nil {
		return err
	}
	c.nodes = append(c.nodes, node)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server, err := rpc.NewServer(rpc.ServerConfig{ID: id})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	consensus.Serve(server, kv.Watchable(node, store))
	c.servers = append(c.servers, server)
	c.addrs = append(c.addrs, fmt.Sprintf("%s=%s", id, l.Addr()))
	go func() { _ = server.Serve(l) }() // until stop
	return nil
}

func (c *cluster) stop() error {
	var errs []error
	for _, s := range c.servers {
		errs = append(errs, s.Close())
	}
	for _, n := range c.nodes {
		errs = append(errs, n.Close())
	}
	return errors.Join(errs...)
}

// dial reaches the replicas from another process.
func dial(ctx context.Context, replicas []string) (coterie.Replica, error) {
	addrs := map[coterie.NodeID]string{}
	for _, r := range replicas {
		id, addr, _ := strings.Cut(r, "=")
		addrs[coterie.NodeID(id)] = addr
	}
	return consensus.Dial(ctx, consensus.ClientConfig{Addrs: addrs})
}
