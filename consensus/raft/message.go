package raft

import (
	"fmt"
	"math"

	"github.com/cespare/xxhash/v2"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/internal/wire"
)

// format is the first byte of every message and record.
const format = 1

// kind is the second byte of every message and record. An append is both.
type kind byte

const (
	kindAppend        kind = iota + 1 // AppendEntries; its bytes are also the record of its entries
	kindAppendReply                   // what the follower has on disk, or where the logs part
	kindVote                          // RequestVote, also the pre-vote
	kindVoteReply                     //
	kindSnapshot                      // one chunk of InstallSnapshot
	kindSnapshotReply                 // how far the snapshot is written
	kindTimeoutNow                    // leadership transfer: campaign now
	kindRead                          // a follower asks for a read index
	kindReadReply                     //
	kindIntroduce                     // the leader says who and where the members are, to one that cannot know it
	kindState                         // record: term and vote
	kindBase                          // record: what stands before the log: a snapshot, the members
)

func (k kind) String() string {
	names := [...]string{
		kindAppend: "AppendEntries", kindAppendReply: "AppendReply", kindVote: "RequestVote", kindVoteReply: "VoteReply",
		kindSnapshot: "InstallSnapshot", kindSnapshotReply: "SnapshotReply", kindTimeoutNow: "TimeoutNow",
		kindRead: "ReadIndex", kindReadReply: "ReadReply", kindIntroduce: "Introduce", kindState: "State", kindBase: "Base",
	}
	if k == 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind(%d)", byte(k))
	}
	return names[k]
}

// message is any message or record, decoded. What a field means depends on the kind; the encoders below say it.
type message struct {
	kind  kind
	term  uint64
	index uint64 // the entry before (append), the last (vote, snapshot), matched or refused (reply), read index
	at    uint64 // term of the entry at index
	hint  uint64 // reply: refused, but the logs may agree here; snapshot: offset
	round uint64 // the leader's round, echoed by replies; reads: the number of the question
	epoch uint64 // index of the leader's configuration, echoed by replies; reads: names the asking incarnation

	commit  uint64
	count   int               // of entries
	body    []byte            // the entries, encoded; the chunk
	entries []consensus.Entry // the entries, decoded behind the end of the log

	refused bool
	pre     bool // the vote is a pre-vote
	forced  bool // the vote was asked for by the leader itself: no one need protect it; append: be quiet
	calm    bool // append: the leader will be silent for long
	vote    coterie.NodeID
	members Membership
	snap    consensus.Snapshot
}

// header starts a message or record of a kind.
func header(b []byte, k kind, term uint64) []byte {
	return wire.AppendUvarint(append(b, format, byte(k)), term)
}

// encode appends the message to b. Entries of an append stand in body.
func (m *message) encode(b []byte) []byte {
	b = header(b, m.kind, m.term)
	switch m.kind {
	case kindAppend:
		b = appendHeader(b, m)
		b = append(b, m.body...)
	case kindAppendReply:
		b = wire.AppendBool(b, m.refused)
		b = wire.AppendUvarint(b, m.index)
		b = wire.AppendUvarint(b, m.hint)
		b = wire.AppendUvarint(b, m.at)
		b = wire.AppendUvarint(b, m.round)
		b = wire.AppendUvarint(b, m.epoch)
	case kindVote:
		b = wire.AppendBool(b, m.pre)
		b = wire.AppendBool(b, m.forced)
		b = wire.AppendUvarint(b, m.index)
		b = wire.AppendUvarint(b, m.at)
	case kindVoteReply:
		b = wire.AppendBool(b, m.pre)
		b = wire.AppendBool(b, m.refused)
	case kindSnapshot:
		b = wire.AppendUvarint(b, m.index)
		b = wire.AppendUvarint(b, m.at)
		b = wire.AppendUvarint(b, m.epoch)
		b = appendMembership(b, m.members)
		b = appendSnapshot(b, m.snap)
		b = wire.AppendUvarint(b, m.hint)
		b = wire.AppendBytes(b, m.body)
		b = wire.AppendUint64(b, xxhash.Sum64(m.body))
	case kindSnapshotReply:
		b = wire.AppendUvarint(b, m.index)
		b = wire.AppendUvarint(b, m.hint)
		b = wire.AppendUvarint(b, m.epoch)
	case kindTimeoutNow:
	case kindRead:
		b = wire.AppendUvarint(b, m.epoch)
		b = wire.AppendUvarint(b, m.round)
	case kindReadReply:
		b = wire.AppendUvarint(b, m.epoch)
		b = wire.AppendUvarint(b, m.round)
		b = wire.AppendBool(b, m.refused)
		b = wire.AppendUvarint(b, m.index)
		b = wire.AppendUvarint(b, m.at)
	case kindIntroduce:
		b = appendMembership(b, m.members)
	case kindState:
		b = wire.AppendString(b, m.vote)
	case kindBase:
		b = wire.AppendString(b, m.vote)
		b = wire.AppendUvarint(b, m.index)
		b = wire.AppendUvarint(b, m.at)
		b = appendMembership(b, m.members)
		b = appendSnapshot(b, m.snap)
	}
	return b
}

// appendHeader appends what an AppendEntries says before its entries.
func appendHeader(b []byte, m *message) []byte {
	b = wire.AppendUvarint(b, m.index)
	b = wire.AppendUvarint(b, m.at)
	b = wire.AppendUvarint(b, m.commit)
	b = wire.AppendUvarint(b, m.round)
	b = wire.AppendUvarint(b, m.epoch)
	b = wire.AppendBool(b, m.calm)
	return wire.AppendUvarint(b, uint64(m.count))
}

// appendEntry appends one entry of a batch that a leader of the given term sends: how many terms older it is and
// whether it is the protocol's own, then the command.
func appendEntry(b []byte, e *consensus.Entry, term uint64) []byte {
	head := (term - e.Term) << 1
	if e.Internal {
		head |= 1
	}
	return wire.AppendBytes(wire.AppendUvarint(b, head), e.Command)
}

func appendSnapshot(b []byte, s consensus.Snapshot) []byte {
	b = wire.AppendString(b, s.Name)
	b = wire.AppendUvarint(b, uint64(s.Size))
	return wire.AppendUint64(b, s.Checksum)
}

func readSnapshot(r *wire.Reader) consensus.Snapshot {
	s := consensus.Snapshot{Name: r.String()}
	s.Size = int64(min(r.Uvarint(), math.MaxInt64))
	s.Checksum = r.Uint64()
	return s
}

// maxIndex bounds every index and term from outside, so that no sum of two overflows.
const maxIndex = 1 << 62

func readNumber(r *wire.Reader) uint64 {
	v := r.Uvarint()
	if v > maxIndex {
		r.Fail("number %d out of range", v)
	}
	return v
}

// decode reads all of a message or record but the entries of an append, which readEntries takes from body.
func (m *message) decode(payload []byte) error {
	*m = message{}
	r := wire.NewReader(payload)
	if f := r.Byte(); f != format && r.Err() == nil {
		if f > format {
			return &coterie.FormatError{What: "raft message", Got: f, Max: format}
		}
		r.Fail("format %d", f)
	}
	m.kind = kind(r.Byte())
	m.term = readNumber(&r)
	if m.kind == kindAppend {
		return m.decodeAppend(&r)
	}
	switch m.kind {
	case kindAppendReply:
		m.refused = r.Bool()
		m.index, m.hint, m.at = readNumber(&r), readNumber(&r), readNumber(&r)
		m.round, m.epoch = r.Uvarint(), readNumber(&r)
	case kindVote:
		m.pre, m.forced = r.Bool(), r.Bool()
		m.index, m.at = readNumber(&r), readNumber(&r)
	case kindVoteReply:
		m.pre, m.refused = r.Bool(), r.Bool()
	case kindSnapshot:
		m.index, m.at, m.epoch = readNumber(&r), readNumber(&r), readNumber(&r)
		m.members, m.snap = readMembership(&r), readSnapshot(&r)
		m.hint, m.body = readNumber(&r), r.Bytes()
		if sum := r.Uint64(); r.Err() == nil && sum != xxhash.Sum64(m.body) {
			r.Fail("chunk does not have its checksum")
		}
		if m.hint+uint64(len(m.body)) > uint64(m.snap.Size) {
			r.Fail("chunk ends beyond the snapshot")
		}
		if m.at > m.term || len(m.members.Voters()) == 0 {
			r.Fail("snapshot of term %d with %d voters", m.at, len(m.members.Voters()))
		}
	case kindSnapshotReply:
		m.index, m.hint, m.epoch = readNumber(&r), readNumber(&r), readNumber(&r)
	case kindTimeoutNow:
	case kindRead:
		m.epoch, m.round = r.Uvarint(), r.Uvarint()
	case kindReadReply:
		m.epoch, m.round, m.refused = r.Uvarint(), r.Uvarint(), r.Bool()
		m.index, m.at = readNumber(&r), readNumber(&r)
	case kindIntroduce:
		m.members = readMembership(&r)
	case kindState:
		m.vote = coterie.NodeID(r.String())
	case kindBase:
		m.vote = coterie.NodeID(r.String())
		m.index, m.at = readNumber(&r), readNumber(&r)
		m.members, m.snap = readMembership(&r), readSnapshot(&r)
	default:
		r.Fail("unknown %v", m.kind)
	}
	return r.Done()
}

// wrong is the error of a message or record that no correct node sends or saves.
func (m *message) wrong(what string) error {
	return fmt.Errorf("raft: %v of term %d %s", m.kind, m.term, what)
}

func (m *message) decodeAppend(r *wire.Reader) error {
	m.index, m.at, m.commit = readNumber(r), readNumber(r), readNumber(r)
	m.round, m.epoch = r.Uvarint(), readNumber(r)
	m.calm = r.Bool()
	m.count = r.Count(2)
	if m.at > m.term {
		r.Fail("entry %d is of term %d, after the leader's %d", m.index, m.at, m.term)
	}
	m.body = r.Rest()
	return r.Err()
}

// readEntries decodes the entries of an append into into, which has room for m.count. Commands are parts of the
// payload. Entry terms never decrease (§5.3), nor exceed the leader's.
func (m *message) readEntries(into []consensus.Entry) error {
	r := wire.NewReader(m.body)
	before := m.at
	for i := range into {
		head := r.Uvarint()
		command := r.Bytes()
		older := head >> 1
		if older > m.term-before {
			r.Fail("entry %d is of an older term than the one before", m.index+1+uint64(i))
			break
		}
		before = m.term - older
		e := consensus.Entry{Term: before, Internal: head&1 == 1, Command: command}
		if e.Internal && len(command) > 0 {
			if _, err := decodeMembership(command); err != nil {
				return fmt.Errorf("entry %d: %w", m.index+1+uint64(i), err)
			}
		}
		into[i] = e
	}
	return r.Done()
}

// Describe returns a line about a message or record, for traces.
func (c *Core) Describe(payload []byte) string { return describe(payload) }

func describe(payload []byte) string {
	var m message
	if err := m.decode(payload); err != nil {
		return err.Error()
	}
	head := fmt.Sprintf("%v term=%d", m.kind, m.term)
	switch m.kind {
	case kindAppend:
		return fmt.Sprintf("%s prev=%d/%d entries=%d commit=%d", head, m.index, m.at, m.count, m.commit)
	case kindAppendReply:
		if m.refused {
			return fmt.Sprintf("%s refused=%d hint=%d/%d", head, m.index, m.hint, m.at)
		}
		return fmt.Sprintf("%s match=%d", head, m.index)
	case kindVote:
		return fmt.Sprintf("%s pre=%t last=%d/%d", head, m.pre, m.index, m.at)
	case kindVoteReply:
		return fmt.Sprintf("%s pre=%t granted=%t", head, m.pre, !m.refused)
	case kindSnapshot:
		return fmt.Sprintf("%s last=%d/%d offset=%d bytes=%d of %d", head, m.index, m.at, m.hint, len(m.body), m.snap.Size)
	case kindSnapshotReply:
		return fmt.Sprintf("%s last=%d offset=%d", head, m.index, m.hint)
	case kindReadReply:
		return fmt.Sprintf("%s index=%d", head, m.index)
	case kindState:
		return fmt.Sprintf("%s vote=%s", head, m.vote)
	case kindBase:
		return fmt.Sprintf("%s last=%d/%d snapshot=%q %v", head, m.index, m.at, m.snap.Name, m.members)
	case kindTimeoutNow, kindRead, kindIntroduce:
	}
	return head
}
