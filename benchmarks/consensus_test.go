package benchmarks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/consensus/paxos"
	"github.com/coterie-go/coterie/consensus/raft"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

// consensusProtocols are the library's protocols. Each starts its usual number of replicas on one network.
var consensusProtocols = []struct {
	name  string
	start func(network *transport.Network, ids []coterie.NodeID) ([]consensus.Replica, error)
	nodes int
}{
	{"raft", consensusRaft, 3},
	{"paxos", consensusPaxos, 3},
	{"pbft", consensusPBFT, 4},
}

// BenchmarkConsensus measures commits of real replicas of every protocol in one process: bytes on the wire, journals in
// memory, 64 proposers, commands of 16 bytes.
func BenchmarkConsensus(b *testing.B) {
	for _, p := range consensusProtocols {
		b.Run(fmt.Sprintf("protocol=%s/impl=coterie", p.name), func(b *testing.B) {
			network := transport.NewNetwork(transport.NetworkConfig{Direct: true})
			var ids []coterie.NodeID
			for i := range p.nodes {
				ids = append(ids, coterie.NodeID(rune('a'+i)))
			}
			replicas, err := p.start(network, ids)
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				for _, r := range replicas {
					if err := r.Close(); err != nil {
						b.Error(err)
					}
				}
			}()
			propose := consensusLeader(replicas)
			command := bytes.Repeat([]byte("x"), 16)
			for range 64 { // until there is a leader and everything is warm
				if err := propose(command); err != nil {
					b.Fatal(err)
				}
			}
			raftMeasure(b, 64, "commits/s", func() error { return propose(command) })
		})
	}
}

// consensusLeader returns a function that proposes to whichever replica takes it.
func consensusLeader(replicas []consensus.Replica) func(command []byte) error {
	var leader atomic.Pointer[consensus.Replica]
	leader.Store(&replicas[0])
	ctx := context.Background()
	return func(command []byte) error {
		for {
			_, err := (*leader.Load()).Propose(ctx, command)
			if !errors.Is(err, coterie.ErrNotLeader) {
				return err
			}
			for i := range replicas {
				if s := replicas[i].Status(); s.Leader == s.ID {
					leader.Store(&replicas[i])
				}
			}
			time.Sleep(time.Millisecond)
		}
	}
}

func consensusVoters(ids []coterie.NodeID) map[coterie.NodeID]string {
	voters := map[coterie.NodeID]string{}
	for _, id := range ids {
		voters[id] = ""
	}
	return voters
}

func consensusRaft(network *transport.Network, ids []coterie.NodeID) (replicas []consensus.Replica, err error) {
	for _, id := range ids {
		n, err := raft.Start(raft.Config{
			ID: id, Voters: consensusVoters(ids), StateMachine: raftNothing{}, Transport: network.Join(id),
			Journal: &host.MemoryJournal{}, Snapshots: &raftFiles{},
		})
		if err != nil {
			return replicas, err
		}
		replicas = append(replicas, n)
	}
	return replicas, nil
}

func consensusPaxos(network *transport.Network, ids []coterie.NodeID) (replicas []consensus.Replica, err error) {
	for _, id := range ids {
		n, err := paxos.Start(paxos.Config{
			ID: id, Voters: consensusVoters(ids), StateMachine: raftNothing{}, Transport: network.Join(id),
			Journal: &host.MemoryJournal{}, Snapshots: &raftFiles{},
		})
		if err != nil {
			return replicas, err
		}
		replicas = append(replicas, n)
	}
	return replicas, nil
}
