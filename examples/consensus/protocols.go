package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/consensus/paxos"
	"github.com/coterie-go/coterie/consensus/pbft"
	"github.com/coterie-go/coterie/consensus/raft"
)

// protocol is one entry of the comparison: all that it needs to know of a protocol.
type protocol struct {
	name     string
	least    int                    // replicas
	survives func(nodes int) string // so many faults
	core     func(setup) (consensus.Core, error)
	start    func(setup, parts) (consensus.Replica, error)
}

// setup is one replica's place in a cluster.
type setup struct {
	id      coterie.NodeID
	ids     []coterie.NodeID
	seed    uint64        // of this incarnation, not 0
	timeout time.Duration // after which a leader is suspected
}

func (s setup) voters() map[coterie.NodeID]string {
	voters := map[coterie.NodeID]string{}
	for _, id := range s.ids {
		voters[id] = ""
	}
	return voters
}

// parts is what a real replica runs on.
type parts struct {
	transport coterie.Transport
	journal   coterie.Journal
	snapshots coterie.Snapshots
	machine   coterie.StateMachine
}

// protocols lists those that are compared. One more joins by an entry.
func protocols() []protocol {
	return []protocol{
		{
			name: "raft", least: 3, survives: minority,
			core: func(s setup) (consensus.Core, error) {
				return raft.NewCore(raft.Config{ID: s.id, Voters: s.voters(), Seed: s.seed, ElectionTimeout: s.timeout})
			},
			start: func(s setup, r parts) (consensus.Replica, error) {
				return raft.Start(raft.Config{
					ID: s.id, Voters: s.voters(), Seed: s.seed, ElectionTimeout: s.timeout, Transport: r.transport,
					Journal: r.journal, Snapshots: r.snapshots, StateMachine: r.machine,
				})
			},
		},
		{
			name: "paxos", least: 3, survives: minority,
			core: func(s setup) (consensus.Core, error) {
				return paxos.NewCore(paxos.Config{ID: s.id, Voters: s.voters(), Seed: s.seed, ElectionTimeout: s.timeout})
			},
			start: func(s setup, r parts) (consensus.Replica, error) {
				return paxos.Start(paxos.Config{
					ID: s.id, Voters: s.voters(), Seed: s.seed, ElectionTimeout: s.timeout, Transport: r.transport,
					Journal: r.journal, Snapshots: r.snapshots, StateMachine: r.machine,
				})
			},
		},
		{
			name: "pbft", least: 4, survives: func(nodes int) string { return fmt.Sprintf("%d of any kind", (nodes-1)/3) },
			core: func(s setup) (consensus.Core, error) { return pbft.NewCore(pbftConfig(s)) },
			start: func(s setup, r parts) (consensus.Replica, error) {
				cfg := pbftConfig(s)
				cfg.Transport, cfg.Journal, cfg.Snapshots, cfg.StateMachine = r.transport, r.journal, r.snapshots, r.machine
				return pbft.Start(cfg)
			},
		},
	}
}

// pbftConfig gives every replica a key of its own. In the simulation nobody lies, so that no signature is verified there.
func pbftConfig(s setup) pbft.Config {
	cfg := pbft.Config{ID: s.id, Voters: s.voters(), Keys: map[coterie.NodeID]ed25519.PublicKey{}, Seed: s.seed, ViewTimeout: s.timeout}
	for _, id := range s.ids {
		secret := sha256.Sum256([]byte("an example's key of " + id))
		key := ed25519.NewKeyFromSeed(secret[:])
		cfg.Keys[id] = key.Public().(ed25519.PublicKey)
		if id == s.id {
			cfg.Key = key
		}
	}
	return cfg
}

func minority(nodes int) string { return fmt.Sprintf("%d crashed", (nodes-1)/2) }
