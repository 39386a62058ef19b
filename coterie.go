package coterie

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// NodeID names a node for ever: a restart keeps it, a wiped disk must not, for a node that forgot what it promised
// is another node.
type NodeID string

// Core is one node's part of a protocol: a deterministic, single-threaded state machine. It does no I/O, starts no
// goroutine, reads no clock and draws randomness only from a seed in its Config, so that the same calls give the same
// effects, byte for byte. A host (transport/host) or the simulator (transport/sim) calls it and performs its effects.
//
// A Core is not safe for concurrent use.
type Core interface {
	// Replay takes back one record this node saved, oldest first, before any other call; it has no effects. The
	// record is never changed by anyone and may be kept.
	Replay(record []byte) error
	// Step takes one message. Messages may be lost, repeated, delayed and reordered, also those to oneself after a
	// restart. A malformed payload is an error and changes nothing. The payload is never changed by anyone and may be
	// kept.
	Step(now time.Time, from NodeID, payload []byte) error
	// Tick comes once after the last Replay, then when Ready.Wake has come: never earlier, perhaps later.
	Tick(now time.Time)
	// Ready ends a batch of calls: what to do since the last Ready. It is the place to encode what the batch made.
	Ready() Ready
}

// Ready lists the effects of a batch in the order a host performs them: Early sends, Save, Keep, the other sends,
// Events. Its slices are the core's again at its next Ready; the bytes they point to never change.
type Ready struct {
	Save   [][]byte   // make durable, in order, with one sync ...
	Keep   int        // ... then, if > 0, all but the newest Keep records may be forgotten
	Send   []Envelope // leaves when Save is durable; one to itself comes back to Step
	Events []any      // for the application, when Save is durable
	Wake   time.Time  // when to Tick next; zero is never
}

// Envelope is one message to one node. Its payload may be shared with other envelopes and with records.
type Envelope struct {
	To      NodeID
	Payload []byte
	Early   bool // promises nothing that rests on a Save still under way: need not wait for it
}

// Describer is implemented by a Core that can tell people what a payload or a record says; traces and diagrams use it.
type Describer interface {
	// Describe returns a short line, "AppendEntries term=2 prev=7/2 entries=3". It never fails: what it cannot
	// decode it says so of.
	Describe(payload []byte) string
}

// Transport carries payloads between nodes, best effort: it may lose, delay, repeat and reorder them, but it never
// alters one. Every method is safe for concurrent use.
type Transport interface {
	// LocalID is the node that this transport sends from.
	LocalID() NodeID
	// Send hands over one payload and never blocks; a full queue loses a message and counts it. The transport keeps
	// the payload, which nobody may change. An error tells of what will never work (an unknown peer, a payload over
	// the limit, a closed transport); nil promises nothing.
	Send(to NodeID, payload []byte) error
	// Receive sets the handler for payloads that arrive, nil for none; what arrives without a handler is lost. The
	// handler must not block, may keep the payload, must not change it, and may be called from several goroutines at
	// once, for one peer from one goroutine at a time. After Receive(nil) or Close returns, no call of the old handler
	// is under way; neither may be called from within the handler.
	Receive(handle func(from NodeID, payload []byte))
	// Close releases what the transport holds and waits for its goroutines. Closing twice is harmless.
	Close() error
}

// Journal is what a node remembers across a crash: an append-only log of records. One goroutine at a time calls it.
type Journal interface {
	// Replay calls f with each record, oldest first, and stops at its first error. It comes before the first Append.
	// The record passed to f is f's to keep.
	Replay(f func(record []byte) error) error
	// Append makes the records durable, in order: they are on return. An error is final: what was appended may or may
	// not be durable, and every later Append fails too.
	Append(records ...[]byte) error
	// Keep allows all but the newest records to be forgotten, now or later; Replay then starts at or before them.
	Keep(newest int) error
	// Close releases the journal. Closing twice is harmless.
	Close() error
}

// Snapshots is where state too big for a journal lives: a folder on disk, or the simulator's with the same crash
// rules. The journal keeps only a snapshot's name, position and checksum, and the file is durable before that record
// is saved. Every method is safe for concurrent use.
type Snapshots interface {
	// Create starts a snapshot, which is durable and visible when Close of the writer returns nil, or not at all. A
	// writer that also implements interface{ Abort() } is given up by it. An existing one of the name is replaced.
	Create(name string) (io.WriteCloser, error)
	// Open reads a snapshot; one that is not there gives an error that is fs.ErrNotExist.
	Open(name string) (io.ReadCloser, error)
	// Remove deletes a snapshot; one that is not there is no error.
	Remove(name string) error
	// Names lists the snapshots, sorted.
	Names() ([]string, error)
}

// Entry is one committed command of a replicated log.
type Entry struct {
	Index   uint64    // position in the log, from 1
	Time    time.Time // the log's own clock, equal on every replica, never decreasing
	Command []byte    // nobody may change it
}

// StateMachine is the application that a Replica keeps equal on every node. One goroutine calls it; only the write
// function that Snapshot returned runs beside Apply, on the view that was frozen when Snapshot returned.
//
// A StateMachine that also has the method Deadline() time.Time makes the leader propose an empty entry when that time
// of the log's clock has come, so that leases expire on an idle log; zero is never.
type StateMachine interface {
	// Apply executes one entry, deterministically, in log order, each exactly once. The result goes to the proposer.
	Apply(Entry) (result []byte)
	// Query answers from the current state and changes nothing. The error goes to the reader.
	Query(query []byte) (result []byte, err error)
	// Snapshot freezes the state and returns the function that writes it, which is called at most once.
	Snapshot() (write func(io.Writer) error, err error)
	// Restore replaces the state by one that a snapshot's write wrote.
	Restore(io.Reader) error
}

// Replica is one node of a replicated StateMachine. Every method is safe for concurrent use.
type Replica interface {
	// Propose replicates a command and returns what Apply returned for it. Errors: ErrNotLeader (it was not done;
	// *NotLeaderError may say where to go), ErrOverloaded (it was not done; try later), ErrUnknownOutcome (it may or
	// may not have been done, or may be later), ErrClosed.
	Propose(ctx context.Context, command []byte) (result []byte, err error)
	// Read answers a query linearizably: it sees every Propose that had returned when Read was called.
	Read(ctx context.Context, query []byte) (result []byte, err error)
	// Status tells what this node knows of itself now.
	Status() Status
	// Close stops the replica and waits for its goroutines. Closing twice is harmless.
	Close() error
}

// Status is what a Replica knows of itself at one moment.
type Status struct {
	ID        NodeID // this node
	Leader    NodeID // the leader it knows of, empty if none
	Term      uint64 // term, ballot or view: what the protocol counts leaders by
	Committed uint64 // index of the newest entry it knows to be committed
	Applied   uint64 // index of the newest entry its state machine has applied
}

// Liveness is a failure detector's opinion of a node.
type Liveness uint8

// The opinions of a Detector, in the order in which trust is lost.
const (
	Alive   Liveness = iota // heard of in time
	Suspect                 // late; may be slow, cut off or dead
	Dead                    // taken for dead
)

// String returns "alive", "suspect" or "dead".
func (l Liveness) String() string {
	switch l {
	case Alive:
		return "alive"
	case Suspect:
		return "suspect"
	case Dead:
		return "dead"
	}
	return fmt.Sprintf("liveness(%d)", uint8(l))
}

// Detector tells which nodes are alive, as far as can be told: it may be wrong in both directions for a while.
type Detector interface {
	// Watch calls f with the present opinion of every known node, then with every change, one call at a time. f must
	// not block. When cancel returns, f is not running and is not called again; cancel may not be called from f.
	Watch(f func(NodeID, Liveness)) (cancel func())
}

// Errors that packages share. They come wrapped: test with errors.Is.
var (
	// ErrNotLeader is returned by a node that does not lead; nothing was done. Retry at the leader: a
	// *NotLeaderError names it where it is known.
	ErrNotLeader = errors.New("coterie: not the leader")
	// ErrOverloaded is returned when a queue or a limit is full; nothing was done. Retry later, with backoff.
	ErrOverloaded = errors.New("coterie: overloaded")
	// ErrUnknownOutcome is returned when the operation may or may not have happened, or may still happen. Read the
	// state, or retry in a session that detects repetition.
	ErrUnknownOutcome = errors.New("coterie: outcome unknown")
	// ErrClosed is returned by whatever has been closed.
	ErrClosed = errors.New("coterie: closed")
	// ErrNoQuorum is returned when too few nodes answered.
	ErrNoQuorum = errors.New("coterie: no quorum")
)

// NotLeaderError is an ErrNotLeader that may know the leader.
type NotLeaderError struct {
	Leader NodeID // where to retry; empty if unknown
}

// Error names the leader if it is known.
func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return ErrNotLeader.Error() + ": no leader known"
	}
	return fmt.Sprintf("%v: %s is", ErrNotLeader, e.Leader)
}

// Is reports whether target is ErrNotLeader.
func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }

// FormatError is returned by a reader of a frame, segment, snapshot or value whose format byte is newer than what
// this version of the library knows.
type FormatError struct {
	What     string // what was read, "wal segment"
	Got, Max byte   // the format found and the newest one known
}

// Error says what to do: the data is from a newer version, or not what it should be.
func (e *FormatError) Error() string {
	return fmt.Sprintf("coterie: %s has format %d; this version reads up to %d", e.What, e.Got, e.Max)
}
