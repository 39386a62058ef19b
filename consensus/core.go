package consensus

import (
	"time"

	"github.com/coterie-go/coterie"
)

// Core is a consensus protocol: a coterie.Core by which nodes agree on one log of commands. Calls ask, events answer.
//
// Its events are Committed, ReadAt, Rejected, Installed, Leader, Superseded, perhaps SnapshotDue and, while a snapshot travels, ReadChunk
// and WriteChunk; a protocol may add its own. An event is delivered when what it rests on is durable, possibly some
// calls later, and what it points to never changes.
//
// After its first Tick a Core emits Installed if its journal names a snapshot, then Committed from the index after
// that (from 1 without one), in order and without gaps, each index once per incarnation.
type Core interface {
	coterie.Core
	// Propose asks to append a command to the log. The id names the proposal: it is not 0, and not used twice in an
	// incarnation. The answer comes exactly once: Committed holds an entry with the id, or Rejected.
	Propose(now time.Time, id uint64, command []byte)
	// Read asks for a point in the log whose state is fit to answer a linearizable read that begins now. The ids are
	// of the same kind as those of proposals. The answer comes exactly once: ReadAt or Rejected.
	Read(now time.Time, id uint64)
	// Applied says that the state machine has applied all through index. A core emits at most Config.MaxUnapplied bytes
	// of commands (or one command) beyond it.
	Applied(now time.Time, index uint64)
	// Compact says that the snapshot holds the state through index, which has been applied, and that its file is
	// durable. The core saves a record that names it and may then forget the log up to index. If it has one as new
	// already, this one is Superseded.
	Compact(now time.Time, index uint64, snapshot Snapshot)
	// ChunkRead answers a ReadChunk. The data may be shorter than asked for only at the snapshot's end.
	ChunkRead(now time.Time, id uint64, data []byte, err error)
	// ChunkWritten answers a WriteChunk. On an error nothing of the snapshot is left, and it must be written anew.
	ChunkWritten(now time.Time, id uint64, err error)
}

// Snapshot names a snapshot of the state machine in the node's coterie.Snapshots.
type Snapshot struct {
	Name     string // of the file; equal content may have another name on another node
	Size     int64  // bytes
	Checksum uint64 // xxhash64 of the content
}

// Entry is one position of the log.
type Entry struct {
	ID       uint64 // what this node's Propose called it; 0 if another node or incarnation proposed it
	Term     uint64 // the term, ballot or view it was first proposed in
	Internal bool   // the protocol's own (a leader's first entry, a configuration): no command for the state machine
	Command  []byte
}

// Committed is an event: these entries are decided.
type Committed struct {
	Index   uint64  // of the first entry
	Entries []Entry // never changed, so that it may share the core's log
}

// ReadAt is an event, the answer to Read: a state that has applied Index may answer the read.
type ReadAt struct {
	ID    uint64
	Index uint64
}

// Rejected is an event, the other answer to Propose and Read. Err is a *coterie.NotLeaderError or
// coterie.ErrOverloaded if nothing was or will be done, coterie.ErrUnknownOutcome if a proposal may yet be committed.
type Rejected struct {
	ID  uint64
	Err error
}

// Installed is an event: the state machine must be restored from the snapshot, which holds the state through Index.
// The entries up to Index that were not yet emitted never will be.
type Installed struct {
	Index    uint64
	Snapshot Snapshot
}

// Leader is an event: the leader that this node knows of, or the term, has changed. ID is empty if none is known.
type Leader struct {
	ID   coterie.NodeID
	Term uint64
}

// SnapshotDue is an event: the state after the entries emitted so far is to be captured now, whatever Config says of
// when. A protocol whose nodes compare their snapshots, because they do not trust each other, emits it at the same
// index on each. If a snapshot is being written, none is captured, and Compact is not called for this one.
type SnapshotDue struct{}

// Superseded is an event: no durable record names this snapshot any more; its file may be removed.
type Superseded struct {
	Name string
}

// ReadChunk is an event: read Limit bytes at Offset of the named snapshot and call ChunkRead.
type ReadChunk struct {
	ID     uint64 // names the answer
	Name   string
	Offset int64
	Limit  int
}

// WriteChunk is an event: append Data, which stands at Offset, to the snapshot under way and call ChunkWritten. Offset
// 0 begins it anew. The chunk that reaches Snapshot.Size ends it: its checksum is compared and it is made durable
// before ChunkWritten says so.
type WriteChunk struct {
	ID       uint64 // names the answer
	Snapshot Snapshot
	Offset   int64
	Data     []byte
}
