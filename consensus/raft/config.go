package raft

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/transport"
)

// Config configures a Node, or a Core, which needs ID, Voters and Seed and of the rest what the protocol knows of. A
// Node needs ID, Voters, StateMachine and Dir.
type Config struct {
	// ID names this node for ever.
	ID coterie.NodeID
	// Voters are the first voters of a new cluster and their addresses, the same on every one of them. Once a node has
	// started, its journal says who the members are, and Voters only gives addresses. An address may be empty if the
	// Transport knows it.
	Voters map[coterie.NodeID]string
	// Witnesses are first members that vote but hold no data, and their addresses.
	Witnesses map[coterie.NodeID]string
	// Join is set on a node that is added to a running cluster: it begins without a configuration and waits until a
	// leader, told by AddLearner or Reconfigure, brings it up to date. Voters then names members to be reached first.
	Join bool

	// StateMachine is the application. A witness has none.
	StateMachine coterie.StateMachine
	// Dir is the node's folder, for its log and its snapshots.
	Dir string
	// TLS proves to the other nodes who this one is, and they to it. Without it everything travels in the clear.
	TLS *transport.Identity
	// Listen is where to accept the other nodes, if not at the node's own address in Voters or Witnesses.
	Listen string
	// Transport is used instead of TCP at the addresses; the node does not close it. If it has a method
	// SetPeer(id, address), that hears of the members' addresses. Share one among many groups by transport.Mux.
	Transport coterie.Transport
	// Journal and Snapshots are used instead of Dir; the node does not close them. Share one wal.Log among many groups
	// by its streams.
	Journal   coterie.Journal
	Snapshots coterie.Snapshots
	// Driver says how the state machine is driven: when snapshots are taken, how many proposals may wait, how long
	// sessions live. Its Transport, Journal, Snapshots and StateMachine are set by Start.
	Driver consensus.Config
	// Log hears of what goes wrong; default silent.
	Log *slog.Logger

	// Seed is where election time-outs are drawn from; another one for each incarnation, else every restart would
	// repeat them. NewCore wants one; Start draws one if it is 0.
	Seed uint64

	// ElectionTimeout is the silence after which a follower campaigns; each draws its own between one and two of it.
	// Default 1 s.
	ElectionTimeout time.Duration
	// HeartbeatInterval is the longest that a leader is silent. Default a tenth of ElectionTimeout.
	HeartbeatInterval time.Duration
	// LeaseReads lets a leader answer reads without asking, as long as a majority has promised to elect nobody else.
	// They are linearizable only if no node's clock runs faster or slower than real time by more than ClockDrift.
	LeaseReads bool
	// ClockDrift is how much clocks may gain or lose, as a fraction; a lease is shorter for it. Default 0.05, which is
	// far more than a sound machine's; at most 0.5.
	ClockDrift float64
	// QuiesceAfter is how long a group must have nothing to do until its leader falls almost silent and its followers
	// stop to expect it; 0 is never. A quiet group wakes at the next proposal, read, message or Liveness.
	QuiesceAfter time.Duration

	// MaxCommandBytes is the longest command; longer ones are ErrTooLarge. Default 1 MiB.
	MaxCommandBytes int
	// MaxMessageBytes is how many bytes of commands one message carries; it always carries one. Default 512 KiB.
	MaxMessageBytes int
	// MaxInflightBytes and MaxInflightMessages are how much is sent to a follower before it answers. Default 4 MiB
	// and 256.
	MaxInflightBytes    int
	MaxInflightMessages int
	// MaxPendingBytes is how many bytes of commands may wait for commitment; more are ErrOverloaded. Default 64 MiB.
	MaxPendingBytes int
	// MaxUnapplied is how many bytes of commands may be emitted beyond Applied. Default 16 MiB.
	MaxUnapplied int
	// TrailingEntries are kept in memory and in the journal before a snapshot, for followers that are a little late, as
	// long as their commands are no more than TrailingBytes. Default 4096, negative is none; and 16 MiB.
	TrailingEntries int
	TrailingBytes   int
	// SnapshotChunkBytes is the size of the pieces a snapshot travels in. Default 256 KiB.
	SnapshotChunkBytes int

	// Trace, if set, is told every event of the protocol. It must not block, nor call the Core.
	Trace func(TraceEvent)
}

// withDefaults returns the Config with every default filled in.
func (cfg Config) withDefaults() Config {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	if cfg.ElectionTimeout == 0 {
		cfg.ElectionTimeout = time.Second
	}
	if cfg.HeartbeatInterval == 0 {
		cfg.HeartbeatInterval = cfg.ElectionTimeout / 10
	}
	if cfg.ClockDrift == 0 {
		cfg.ClockDrift = 0.05
	}
	set(&cfg.MaxCommandBytes, 1<<20)
	set(&cfg.MaxMessageBytes, 512<<10)
	set(&cfg.MaxInflightBytes, 4<<20)
	set(&cfg.MaxInflightMessages, 256)
	set(&cfg.MaxPendingBytes, 64<<20)
	set(&cfg.MaxUnapplied, 16<<20)
	set(&cfg.TrailingEntries, 4096)
	set(&cfg.TrailingBytes, 16<<20)
	set(&cfg.SnapshotChunkBytes, 256<<10)
	return cfg
}

// validate joins all faults of a Config with its defaults.
func (cfg Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("raft: Config."+format, args...)) }
	if cfg.ID == "" {
		bad("ID is empty")
	}
	if cfg.Seed == 0 {
		bad("Seed is 0")
	}
	_, voter := cfg.Voters[cfg.ID]
	_, witness := cfg.Witnesses[cfg.ID]
	switch {
	case len(cfg.Voters) == 0 && !cfg.Join:
		bad("Voters is empty; a node that is added to a cluster sets Join")
	case !cfg.Join && !voter && !witness:
		bad("Voters does not name the node itself, %q; a node that is added to a cluster sets Join", cfg.ID)
	}
	for id := range cfg.Voters {
		if _, both := cfg.Witnesses[id]; both {
			bad("Witnesses names %q, which is in Voters too", id)
		}
		if id == "" {
			bad("Voters names a node \"\"")
		}
	}
	if !cfg.Join && len(cfg.Voters) > 0 {
		if err := cfg.bootstrap().sound(); err != nil {
			bad("Voters and Witnesses: %w", err)
		}
	}
	if cfg.HeartbeatInterval <= 0 || cfg.ElectionTimeout < 2*cfg.HeartbeatInterval {
		bad("ElectionTimeout %v is less than twice HeartbeatInterval %v", cfg.ElectionTimeout, cfg.HeartbeatInterval)
	}
	if cfg.ClockDrift < 0 || cfg.ClockDrift > 0.5 {
		bad("ClockDrift %g is not within 0 and 0.5", cfg.ClockDrift)
	}
	if cfg.QuiesceAfter < 0 {
		bad("QuiesceAfter %v is negative", cfg.QuiesceAfter)
	}
	for name, v := range map[string]int{
		"MaxCommandBytes": cfg.MaxCommandBytes, "MaxMessageBytes": cfg.MaxMessageBytes,
		"MaxInflightBytes": cfg.MaxInflightBytes, "MaxInflightMessages": cfg.MaxInflightMessages,
		"MaxPendingBytes": cfg.MaxPendingBytes, "MaxUnapplied": cfg.MaxUnapplied,
		"SnapshotChunkBytes": cfg.SnapshotChunkBytes, "TrailingBytes": cfg.TrailingBytes,
	} {
		if v < 0 {
			bad("%s %d is negative", name, v)
		}
	}
	return errors.Join(errs...)
}

// settings is what a Core keeps of its Config: a thousand of them share a process.
type settings struct {
	ID                coterie.NodeID
	ElectionTimeout   time.Duration
	HeartbeatInterval time.Duration
	ClockDrift        float64
	QuiesceAfter      time.Duration
	LeaseReads        bool

	MaxCommandBytes     int
	MaxMessageBytes     int
	MaxInflightBytes    int
	MaxInflightMessages int
	MaxPendingBytes     int
	MaxUnapplied        int
	TrailingEntries     int
	TrailingBytes       int
	SnapshotChunkBytes  int

	Trace func(TraceEvent)
}

func (cfg Config) settings() settings {
	return settings{
		ID: cfg.ID, ElectionTimeout: cfg.ElectionTimeout, HeartbeatInterval: cfg.HeartbeatInterval, ClockDrift: cfg.ClockDrift,
		QuiesceAfter: cfg.QuiesceAfter, LeaseReads: cfg.LeaseReads,
		MaxCommandBytes: cfg.MaxCommandBytes, MaxMessageBytes: cfg.MaxMessageBytes, MaxInflightBytes: cfg.MaxInflightBytes,
		MaxInflightMessages: cfg.MaxInflightMessages, MaxPendingBytes: cfg.MaxPendingBytes, MaxUnapplied: cfg.MaxUnapplied,
		TrailingEntries: cfg.TrailingEntries, TrailingBytes: cfg.TrailingBytes, SnapshotChunkBytes: cfg.SnapshotChunkBytes, Trace: cfg.Trace,
	}
}

// bootstrap returns the configuration that a new cluster begins with.
func (cfg Config) bootstrap() Membership {
	if cfg.Join {
		return Membership{}
	}
	var m Membership
	for id, address := range maps.All(cfg.Voters) {
		m.Members = append(m.Members, Member{ID: id, Address: address})
	}
	for id, address := range maps.All(cfg.Witnesses) {
		m.Members = append(m.Members, Member{ID: id, Address: address, Role: Witness})
	}
	sortMembers(m.Members)
	return m
}
