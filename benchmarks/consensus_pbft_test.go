package benchmarks

import (
	"crypto/ed25519"
	"crypto/sha256"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/consensus/pbft"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

func consensusPBFT(network *transport.Network, ids []coterie.NodeID) (replicas []consensus.Replica, err error) {
	keys := map[coterie.NodeID]ed25519.PublicKey{}
	key := func(id coterie.NodeID) ed25519.PrivateKey {
		seed := sha256.Sum256([]byte(id))
		return ed25519.NewKeyFromSeed(seed[:])
	}
	for _, id := range ids {
		keys[id] = key(id).Public().(ed25519.PublicKey)
	}
	for _, id := range ids {
		n, err := pbft.Start(pbft.Config{
			ID: id, Voters: consensusVoters(ids), Keys: keys, Key: key(id), StateMachine: raftNothing{},
			Transport: network.Join(id), Journal: &host.MemoryJournal{}, Snapshots: &raftFiles{},
		})
		if err != nil {
			return replicas, err
		}
		replicas = append(replicas, n)
	}
	return replicas, nil
}
