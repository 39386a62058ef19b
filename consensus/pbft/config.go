package pbft

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/transport"
)

// Config configures a Node, or a Core, which needs ID, Voters, Keys, Key and Seed and of the rest what the protocol
// knows of. A Node needs ID, Voters, Keys, Key, StateMachine and Dir.
//
// Voters, Keys, CheckpointInterval, SnapshotBytes, MaxCommandBytes and MaxBatchBytes are part of the protocol: they
// must be the same on every replica.
type Config struct {
	// ID names this replica for ever.
	ID coterie.NodeID
	// Voters are the replicas and their addresses, 3f+1 of them to bear f that lie. An address may be empty if the
	// Transport knows it.
	Voters map[coterie.NodeID]string
	// Keys are the public keys of all Voters.
	Keys map[coterie.NodeID]ed25519.PublicKey
	// Key is this replica's own key, known to nobody else.
	Key ed25519.PrivateKey

	// StateMachine is the application. Its snapshots must be the same bytes on every replica for the same state, or no
	// replica can be brought up to date by one: it is taken only if f+1 replicas vouch for its digest.
	StateMachine coterie.StateMachine
	// Dir is the node's folder, for its log and its snapshots.
	Dir string
	// TLS proves to the other nodes who this one is, and they to it. Without it everything travels in the clear; the
	// messages are signed either way.
	TLS *transport.Identity
	// Listen is where to accept the other nodes, if not at the node's own address in Voters.
	Listen string
	// Transport is used instead of TCP at the addresses; the node does not close it.
	Transport coterie.Transport
	// Journal and Snapshots are used instead of Dir; the node does not close them.
	Journal   coterie.Journal
	Snapshots coterie.Snapshots
	// Driver says how the state machine is driven: how many proposals may wait, how long sessions live. Its Transport,
	// Journal, Snapshots, StateMachine and Check are set by Start, and when to take snapshots is the protocol's to say.
	Driver consensus.Config
	// Log hears of what goes wrong; default silent.
	Log *slog.Logger

	// Seed is what the replica draws its timers' beginning from. NewCore wants one; Start draws one if it is 0.
	Seed uint64

	// ViewTimeout is how long a replica waits for a request to be executed before it suspects the primary. It doubles
	// with every view that brings nothing. Default 1 s.
	ViewTimeout time.Duration
	// StatusInterval is how often a replica tells the others how far it is, so that they repeat what it lacks. Default
	// a quarter of ViewTimeout.
	StatusInterval time.Duration
	// CheckpointInterval is how many sequence numbers (batches) lie between two checkpoints, the paper's K. The log
	// window L is twice as much. Default 64.
	CheckpointInterval int
	// SnapshotBytes is how many bytes of log, each command counted 64 bytes longer, are executed between two snapshots,
	// which are taken at checkpoints. Default 64 MiB.
	SnapshotBytes int

	// MaxCommandBytes is the longest command; longer ones are ErrTooLarge. Default 1 MiB.
	MaxCommandBytes int
	// MaxBatchBytes is how many bytes of requests one sequence number carries; it always carries one. Default 512 KiB.
	MaxBatchBytes int
	// MaxInflight is how many sequence numbers a primary assigns before the first of them is executed. More make
	// smaller batches, each of which costs the same signatures. Default 2.
	MaxInflight int
	// MaxPendingBytes is how many bytes of this replica's own commands may wait for execution; more are ErrOverloaded.
	// Default 64 MiB.
	MaxPendingBytes int
	// MaxUnapplied is how many bytes of commands may be emitted beyond Applied; one batch always may. Default 16 MiB.
	MaxUnapplied int
	// SnapshotChunkBytes is the size of the pieces a snapshot travels in. Default 256 KiB.
	SnapshotChunkBytes int

	hashed bool // tests of many seeds: signatures are hashes, which anybody could make, but are quick
}

// ErrTooLarge is the cause of a Rejected, and returned by Propose, for a command over Config.MaxCommandBytes.
var ErrTooLarge = errors.New("pbft: command too large")

func (cfg Config) withDefaults() Config {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	if cfg.ViewTimeout == 0 {
		cfg.ViewTimeout = time.Second
	}
	if cfg.StatusInterval == 0 {
		cfg.StatusInterval = cfg.ViewTimeout / 4
	}
	set(&cfg.CheckpointInterval, 64)
	set(&cfg.SnapshotBytes, 64<<20)
	set(&cfg.MaxCommandBytes, 1<<20)
	set(&cfg.MaxBatchBytes, 512<<10)
	set(&cfg.MaxInflight, 2)
	set(&cfg.MaxPendingBytes, 64<<20)
	set(&cfg.MaxUnapplied, 16<<20)
	set(&cfg.SnapshotChunkBytes, 256<<10)
	return cfg
}

// validate joins all faults of a Config with its defaults.
func (cfg Config) validate() error {
	errs := []error{cfg.validateGroup()}
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("pbft: Config."+format, args...)) }
	if _, ok := cfg.Voters[cfg.ID]; !ok || cfg.ID == "" {
		bad("Voters does not name the replica itself, %q", cfg.ID)
	}
	if cfg.Seed == 0 {
		bad("Seed is 0")
	}
	if len(cfg.Key) != ed25519.PrivateKeySize {
		bad("Key has %d bytes, not %d", len(cfg.Key), ed25519.PrivateKeySize)
	} else if key := cfg.Keys[cfg.ID]; !key.Equal(cfg.Key.Public()) {
		bad("Key is not the one whose public half Keys names for %q", cfg.ID)
	}
	if cfg.StatusInterval <= 0 || cfg.ViewTimeout < cfg.StatusInterval {
		bad("ViewTimeout %v is less than StatusInterval %v", cfg.ViewTimeout, cfg.StatusInterval)
	}
	for _, f := range []struct {
		name  string
		value int
	}{
		{"SnapshotBytes", cfg.SnapshotBytes}, {"MaxInflight", cfg.MaxInflight}, {"MaxPendingBytes", cfg.MaxPendingBytes},
		{"MaxUnapplied", cfg.MaxUnapplied}, {"SnapshotChunkBytes", cfg.SnapshotChunkBytes},
	} {
		if f.value < 0 {
			bad("%s %d is negative", f.name, f.value)
		}
	}
	return errors.Join(errs...)
}

// validateGroup finds the faults of what all replicas share.
func (cfg Config) validateGroup() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("pbft: Config."+format, args...)) }
	if len(cfg.Voters) == 0 {
		bad("Voters is empty")
	}
	if len(cfg.Voters) > maxReplicas {
		bad("Voters has %d replicas, over %d", len(cfg.Voters), maxReplicas)
	}
	for _, id := range slices.Sorted(maps.Keys(cfg.Voters)) {
		if id == "" {
			bad("Voters names a replica \"\"")
		}
		if len(cfg.Keys[id]) != ed25519.PublicKeySize {
			bad("Keys has %d bytes for %q, not %d", len(cfg.Keys[id]), id, ed25519.PublicKeySize)
		}
	}
	if cfg.CheckpointInterval < 1 || cfg.CheckpointInterval > 1<<16 {
		bad("CheckpointInterval %d is not within 1 and 65,536", cfg.CheckpointInterval)
	}
	if cfg.MaxCommandBytes < 0 {
		bad("MaxCommandBytes %d is negative", cfg.MaxCommandBytes)
	}
	if cfg.MaxBatchBytes < 0 {
		bad("MaxBatchBytes %d is negative", cfg.MaxBatchBytes)
	}
	return errors.Join(errs...)
}

// maxReplicas bounds what a message may name.
const maxReplicas = 256
