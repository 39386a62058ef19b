package paxos

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/quorum"
	"github.com/coterie-go/coterie/transport"
)

// Config configures a Node, or a Core, which needs ID, Voters and Seed and of the rest what the protocol knows of. A
// Node needs ID, Voters, StateMachine and Dir.
type Config struct {
	// ID names this node for ever.
	ID coterie.NodeID
	// Voters are the first members of a new cluster and their addresses, the same on every one of them. Once a node has
	// started, its journal says who the members are, and Voters only gives addresses. An address may be empty if the
	// Transport knows it.
	Voters map[coterie.NodeID]string
	// Join is set on a node that is added to a running cluster by Reconfigure: it begins without a configuration and
	// learns it. Voters then names members to be reached first.
	Join bool
	// Quorums makes the quorum system of a set of members, the same on every node: reads elect (phase 1), writes
	// replicate (phase 2), and every read quorum meets every write quorum. The members are sorted. Default
	// quorum.Majority for both.
	Quorums func(members []coterie.NodeID) (quorum.ReadWrite, error)

	// StateMachine is the application.
	StateMachine coterie.StateMachine
	// Dir is the node's folder, for its log and its snapshots.
	Dir string
	// TLS proves to the other nodes who this one is, and they to it. Without it everything travels in the clear.
	TLS *transport.Identity
	// Listen is where to accept the other nodes, if not at the node's own address in Voters.
	Listen string
	// Transport is used instead of TCP at the addresses; the node does not close it. If it has a method
	// SetPeer(id, address), that hears of the members' addresses.
	Transport coterie.Transport
	// Journal and Snapshots are used instead of Dir; the node does not close them.
	Journal   coterie.Journal
	Snapshots coterie.Snapshots
	// Driver says how the state machine is driven. Its Transport, Journal, Snapshots and StateMachine are set by Start.
	Driver consensus.Config
	// Log hears of what goes wrong; default silent.
	Log *slog.Logger

	// Seed is where time-outs are drawn from; another one for each incarnation. NewCore wants one; Start draws one if
	// it is 0.
	Seed uint64

	// ElectionTimeout is the silence of the leader after which a node begins a ballot of its own; each draws its own
	// between one and two of it. Default 1 s.
	ElectionTimeout time.Duration
	// HeartbeatInterval is the longest that a leader is silent. Default a tenth of ElectionTimeout.
	HeartbeatInterval time.Duration
	// LeaseReads lets a leader answer reads without asking, as long as a phase 2 quorum has promised to take part in
	// nobody else's ballot. They are linearizable only if no node's clock runs faster or slower than real time by more
	// than ClockDrift.
	LeaseReads bool
	// ClockDrift is how much clocks may gain or lose, as a fraction. Default 0.05; at most 0.5.
	ClockDrift float64

	// Alpha is how many slots beyond the last chosen one may be proposed, and so how many slots after the one that
	// holds it a new configuration comes into force (Lamport 2001, §3). It is the same on every node. Default 4096.
	Alpha int
	// MaxCommandBytes is the longest command; longer ones are ErrTooLarge. Default 1 MiB.
	MaxCommandBytes int
	// MaxMessageBytes is how many bytes of commands one message carries; it always carries one. Default 512 KiB.
	MaxMessageBytes int
	// MaxPendingBytes is how many bytes of commands may wait to be chosen; more are ErrOverloaded. Default 64 MiB.
	MaxPendingBytes int
	// MaxUnapplied is how many bytes of commands may be emitted beyond Applied. Default 16 MiB.
	MaxUnapplied int
	// TrailingEntries are kept in memory and in the journal before a snapshot, for nodes that are a little late.
	// Default 4096; negative is none.
	TrailingEntries int
	// SnapshotChunkBytes is the size of the pieces a snapshot travels in. Default 256 KiB.
	SnapshotChunkBytes int
}

// ErrTooLarge is returned for a command longer than Config.MaxCommandBytes. Nothing was done; make it shorter.
var ErrTooLarge = errors.New("paxos: command too large")

// ErrBusy is returned by Reconfigure while another configuration is on its way. Nothing was done; try later.
var ErrBusy = errors.New("paxos: a reconfiguration is under way")

// ErrInvalidChange is returned by Reconfigure for members that cannot be: none, or without a quorum system.
var ErrInvalidChange = errors.New("paxos: invalid members")

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
	if cfg.Quorums == nil {
		cfg.Quorums = majorities
	}
	set(&cfg.Alpha, 4096)
	set(&cfg.MaxCommandBytes, 1<<20)
	set(&cfg.MaxMessageBytes, 512<<10)
	set(&cfg.MaxPendingBytes, 64<<20)
	set(&cfg.MaxUnapplied, 16<<20)
	set(&cfg.TrailingEntries, 4096)
	set(&cfg.SnapshotChunkBytes, 256<<10)
	return cfg
}

func majorities(members []coterie.NodeID) (quorum.ReadWrite, error) {
	return quorum.Symmetric(quorum.Majority(members...))
}

// validate joins all faults of a Config with its defaults.
func (cfg Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("paxos: Config."+format, args...)) }
	if cfg.ID == "" {
		bad("ID is empty")
	}
	if cfg.Seed == 0 {
		bad("Seed is 0")
	}
	_, voter := cfg.Voters[cfg.ID]
	switch {
	case cfg.Join:
	case len(cfg.Voters) == 0:
		bad("Voters is empty; a node that is added to a cluster sets Join")
	case !voter:
		bad("Voters does not name the node itself, %q; a node that is added to a cluster sets Join", cfg.ID)
	default:
		if _, err := newConfiguration(0, cfg.members(), cfg.Quorums); err != nil {
			bad("Voters and Quorums: %w", err)
		}
	}
	if cfg.HeartbeatInterval <= 0 || cfg.ElectionTimeout < 2*cfg.HeartbeatInterval {
		bad("ElectionTimeout %v is less than twice HeartbeatInterval %v", cfg.ElectionTimeout, cfg.HeartbeatInterval)
	}
	if cfg.ClockDrift < 0 || cfg.ClockDrift > 0.5 {
		bad("ClockDrift %g is not within 0 and 0.5", cfg.ClockDrift)
	}
	if cfg.Alpha > 1<<20 {
		bad("Alpha %d is over 1,048,576", cfg.Alpha)
	}
	for _, f := range []struct {
		name  string
		value int
	}{
		{"Alpha", cfg.Alpha},
		{"MaxCommandBytes", cfg.MaxCommandBytes},
		{"MaxMessageBytes", cfg.MaxMessageBytes},
		{"MaxPendingBytes", cfg.MaxPendingBytes},
		{"MaxUnapplied", cfg.MaxUnapplied},
		{"SnapshotChunkBytes", cfg.SnapshotChunkBytes},
	} {
		if f.value < 0 {
			bad("%s %d is negative", f.name, f.value)
		}
	}
	return errors.Join(errs...)
}

// members returns the members that a new cluster begins with, none on a node that joins.
func (cfg Config) members() []Member {
	if cfg.Join {
		return nil
	}
	members := make([]Member, 0, len(cfg.Voters))
	for id, address := range cfg.Voters {
		members = append(members, Member{id, address})
	}
	slices.SortFunc(members, compareMembers)
	return members
}
