package paxos

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

// kind is the second byte of every message and record.
type kind byte

const (
	kindPrepare   kind = iota + 1 // phase 1a, for all slots from one on; also the question whether it would be answered
	kindPromise                   // phase 1b: what was accepted in those slots
	kindAccept                    // phase 2a, for a run of slots; without any it is a heartbeat. Also the record
	kindAccepted                  // phase 2b, for all slots accepted in a batch
	kindRefused                   // a higher ballot was promised
	kindLearn                     // asks for what is chosen from a slot on
	kindChosen                    // chosen values, for a run of slots. Also the record
	kindSnapshot                  // a piece of a snapshot, for slots whose values are gone
	kindRead                      // asks the leader for a slot fit for a read
	kindReadReply                 //
	kindState                     // record: the ballot promised
	kindBase                      // record: what stands before the log, and stands alone
)

func (k kind) String() string {
	names := [...]string{
		kindPrepare: "Prepare", kindPromise: "Promise", kindAccept: "Accept", kindAccepted: "Accepted", kindRefused: "Refused",
		kindLearn: "Learn", kindChosen: "Chosen", kindSnapshot: "Snapshot", kindRead: "ReadIndex", kindReadReply: "ReadReply",
		kindState: "State", kindBase: "Base",
	}
	if k == 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind(%d)", byte(k))
	}
	return names[k]
}

// message is any message or record, decoded. What a field means depends on the kind; encode says which it has.
type message struct {
	kind   kind
	ballot Ballot // the sender's, or the one answered; of refused and state the one promised
	first  uint64 // the first slot that the message is about
	chosen uint64 // the sender knows all slots through it to be chosen; of base and snapshot: the slot it ends with
	round  uint64 // the leader's round, echoed by answers; of a read the number of the question; of promise where to go on
	epoch  uint64 // of a read the asking incarnation
	start  uint64 // promise: slots through it are chosen and gone; base: the log's start; learn: the snapshot under way
	offset uint64 // learn, snapshot: where in the snapshot

	poll    bool // prepare, promise: no promise is asked for or made
	willing bool // promise: of a poll, it would be made; of a read: answered

	count int    // of the entries in body
	body  []byte // entries; the piece of a snapshot
	spans []span // accepted: slots
	confs []savedConf
	snap  consensus.Snapshot

	entries []consensus.Entry // the values, decoded
	metas   []meta            // what is to say of each; none if all were first proposed in this ballot
}

// span is a run of slots.
type span struct {
	first, last uint64
}

// meta is what a message says of a slot beside its value.
type meta struct {
	state  slotState
	ballot Ballot
	origin Ballot
}

// value is what is known of a slot.
type value struct {
	meta
	entry consensus.Entry
}

// value returns what the message says of one of its slots.
func (m *message) value(i int) value {
	if len(m.metas) > 0 {
		return value{m.metas[i], m.entries[i]}
	}
	return value{meta{accepted, m.ballot, m.ballot}, m.entries[i]}
}

// meta is value without the entry.
func (m *message) meta(i int) meta {
	if len(m.metas) > 0 {
		return m.metas[i]
	}
	return meta{accepted, m.ballot, m.ballot}
}

// savedConf is a configuration in a record or with a snapshot.
type savedConf struct {
	from    uint64
	members []Member
}

func header(b []byte, k kind, ballot Ballot) []byte {
	return appendBallot(append(b, format, byte(k)), ballot)
}

func (m *message) encode(b []byte) []byte {
	b = header(b, m.kind, m.ballot)
	switch m.kind {
	case kindPrepare:
		b = wire.AppendBool(b, m.poll)
		b = wire.AppendUvarint(b, m.first)
		b = wire.AppendUvarint(b, m.chosen)
	case kindPromise:
		b = wire.AppendBool(b, m.poll)
		b = wire.AppendBool(b, m.willing)
		for _, v := range [...]uint64{m.first, m.chosen, m.start, m.round, uint64(m.count)} {
			b = wire.AppendUvarint(b, v)
		}
		b = append(b, m.body...)
	case kindAccept, kindChosen:
		b = m.appendRunHeader(b)
		b = append(b, m.body...)
	case kindAccepted:
		b = wire.AppendUvarint(b, m.chosen)
		b = wire.AppendUvarint(b, m.round)
		b = wire.AppendUvarint(b, uint64(len(m.spans)))
		for _, s := range m.spans {
			b = wire.AppendUvarint(wire.AppendUvarint(b, s.first), s.last-s.first)
		}
	case kindRefused, kindState:
		b = wire.AppendUvarint(b, m.chosen)
	case kindLearn:
		for _, v := range [...]uint64{m.first, m.start, m.offset} {
			b = wire.AppendUvarint(b, v)
		}
	case kindSnapshot:
		b = wire.AppendUvarint(b, m.chosen)
		b = appendConfs(b, m.confs)
		b = appendSnapshot(b, m.snap)
		b = wire.AppendUvarint(b, m.offset)
		b = wire.AppendBytes(b, m.body)
		b = wire.AppendUint64(b, xxhash.Sum64(m.body))
	case kindRead, kindReadReply:
		b = wire.AppendBool(b, m.willing)
		for _, v := range [...]uint64{m.epoch, m.round, m.chosen} {
			b = wire.AppendUvarint(b, v)
		}
	case kindBase:
		b = wire.AppendUvarint(b, m.start)
		b = wire.AppendUvarint(b, m.chosen)
		b = appendConfs(b, m.confs)
		b = appendSnapshot(b, m.snap)
	}
	return b
}

// appendRunHeader appends what stands before the values of a run of slots.
func (m *message) appendRunHeader(b []byte) []byte {
	for _, v := range [...]uint64{m.first, m.chosen, m.round, uint64(m.count)} {
		b = wire.AppendUvarint(b, v)
	}
	return b
}

// A value in a run is head | origin, unless it is the message's ballot | command. The head says whether the value is the
// protocol's own and whether an origin follows.
const (
	headInternal = 1 << iota
	headOrigin
	headBallot // of promises: the ballot it was accepted in follows
	headChosen // of promises: it is chosen
	headEmpty  // of promises: nothing is known of this slot
	headEnd
)

// appendOwn appends a value that was first proposed in the message's ballot.
func appendOwn(b []byte, e *consensus.Entry) []byte {
	head := byte(0)
	if e.Internal {
		head = headInternal
	}
	return wire.AppendBytes(append(b, head), e.Command)
}

// appendOlder appends a value that was first proposed in another ballot.
func appendOlder(b []byte, e *consensus.Entry, origin Ballot) []byte {
	head := byte(headOrigin)
	if e.Internal {
		head |= headInternal
	}
	return wire.AppendBytes(appendBallot(append(b, head), origin), e.Command)
}

// appendReport appends a slot of a promise.
func (l *slotLog) appendReport(b []byte, s *slot, e *consensus.Entry) []byte {
	head := byte(headOrigin)
	if e.Internal {
		head |= headInternal
	}
	switch s.state {
	case empty:
		return append(b, headEmpty)
	case chosen:
		head |= headChosen
		b = append(b, head)
	case accepted:
		head |= headBallot
		b = appendBallot(append(b, head), l.ballot(s.ballot))
	}
	return wire.AppendBytes(appendBallot(b, l.ballot(s.origin)), e.Command)
}

// readValues decodes m.count values of body. Commands are parts of the payload.
func (m *message) readValues() error {
	r := wire.NewReader(m.body)
	m.entries, m.metas = m.entries[:0], m.metas[:0]
	plain := m.kind == kindAccept
	for i := range m.count {
		head := r.Byte()
		if plain && head&^headInternal != 0 {
			plain = false
			for range i {
				m.metas = append(m.metas, meta{accepted, m.ballot, m.ballot})
			}
		}
		origin := m.ballot
		if !plain {
			v := m.readMeta(&r, head)
			origin = v.origin
			m.metas = append(m.metas, v)
			if v.state == empty {
				m.entries = append(m.entries, consensus.Entry{})
				continue
			}
		}
		m.entries = append(m.entries, consensus.Entry{Term: origin.Round, Internal: head&headInternal != 0, Command: r.Bytes()})
		if r.Err() != nil {
			break
		}
	}
	return r.Done()
}

func (m *message) readMeta(r *wire.Reader, head byte) meta {
	switch {
	case head >= headEnd || m.kind != kindPromise && head >= headBallot, head&headEmpty != 0 && head != headEmpty:
		r.Fail("value head %d", head)
		return meta{}
	case head == headEmpty:
		return meta{}
	}
	v := meta{accepted, m.ballot, m.ballot}
	if head&headChosen != 0 || m.kind == kindChosen {
		v.state = chosen
	}
	if head&headBallot != 0 {
		v.ballot = readBallot(r, m.ballot)
	}
	if head&headOrigin != 0 {
		v.origin = readBallot(r, m.ballot)
	}
	if v.origin.IsZero() || v.state == accepted && v.ballot.Less(v.origin) {
		r.Fail("a value of ballot %v accepted in %v", v.origin, v.ballot)
	}
	return v
}

func appendConfs(b []byte, confs []savedConf) []byte {
	b = wire.AppendUvarint(b, uint64(len(confs)))
	for _, c := range confs {
		b = appendMembers(wire.AppendUvarint(b, c.from), c.members)
	}
	return b
}

func readConfs(r *wire.Reader) []savedConf {
	confs := make([]savedConf, r.Count(2))
	for i := range confs {
		confs[i] = savedConf{readNumber(r), readMembers(r)}
	}
	return confs
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

func readFormat(r *wire.Reader, what string) error {
	f := r.Byte()
	switch {
	case r.Err() != nil:
		return r.Err()
	case f > format:
		return &coterie.FormatError{What: what, Got: f, Max: format}
	case f < format:
		r.Fail("format %d", f)
	}
	return r.Err()
}

// decode reads a message or record, all but the values in body, which readValues takes.
func (m *message) decode(payload []byte, like Ballot) error {
	spans := m.spans[:0]
	*m = message{entries: m.entries[:0], metas: m.metas[:0], spans: spans}
	r := wire.NewReader(payload)
	if err := readFormat(&r, "paxos message"); err != nil {
		return err
	}
	m.kind = kind(r.Byte())
	m.ballot = readBallot(&r, like)
	switch m.kind {
	case kindPrepare:
		m.poll = r.Bool()
		m.first, m.chosen = readNumber(&r), readNumber(&r)
	case kindPromise:
		m.poll, m.willing = r.Bool(), r.Bool()
		m.first, m.chosen, m.start, m.round = readNumber(&r), readNumber(&r), readNumber(&r), readNumber(&r)
		m.count = r.Count(1)
		m.body = r.Rest()
	case kindAccept, kindChosen:
		m.first, m.chosen, m.round = readNumber(&r), readNumber(&r), r.Uvarint()
		m.count = r.Count(2)
		m.body = r.Rest()
		if m.first == 0 {
			r.Fail("slot 0")
		}
	case kindAccepted:
		m.chosen, m.round = readNumber(&r), r.Uvarint()
		m.readSpans(&r)
	case kindRefused, kindState:
		m.chosen = readNumber(&r)
	case kindLearn:
		m.first, m.start, m.offset = readNumber(&r), readNumber(&r), readNumber(&r)
	case kindSnapshot:
		m.chosen, m.confs, m.snap = readNumber(&r), readConfs(&r), readSnapshot(&r)
		m.offset, m.body = readNumber(&r), r.Bytes()
		if sum := r.Uint64(); r.Err() == nil && sum != xxhash.Sum64(m.body) {
			r.Fail("piece of a snapshot does not have its checksum")
		}
		if m.snap.Size < 0 || m.offset+uint64(len(m.body)) > uint64(m.snap.Size) {
			r.Fail("piece ends beyond the snapshot")
		}
	case kindRead, kindReadReply:
		m.willing = r.Bool()
		m.epoch, m.round, m.chosen = r.Uvarint(), r.Uvarint(), readNumber(&r)
	case kindBase:
		m.start, m.chosen, m.confs, m.snap = readNumber(&r), readNumber(&r), readConfs(&r), readSnapshot(&r)
		if m.start > m.chosen {
			r.Fail("log starts at %d, after the base %d", m.start, m.chosen)
		}
	default:
		r.Fail("unknown %v", m.kind)
	}
	return r.Done()
}

// readSpans reads runs of slots, in any order, for that is how slots are accepted.
func (m *message) readSpans(r *wire.Reader) {
	for range r.Count(2) {
		s := span{first: readNumber(r)}
		s.last = s.first + readNumber(r)
		m.spans = append(m.spans, s)
	}
}

// wrong is the error of a message or record that no correct node sends or saves.
func (m *message) wrong(what string) error {
	return fmt.Errorf("paxos: %v of ballot %v %s", m.kind, m.ballot, what)
}

// Describe returns a line about a message or record, for traces.
func (c *Core) Describe(payload []byte) string { return describe(payload) }

func describe(payload []byte) string {
	var m message
	if err := m.decode(payload, Ballot{}); err != nil {
		return err.Error()
	}
	head := fmt.Sprintf("%v ballot=%v", m.kind, m.ballot)
	switch m.kind {
	case kindPrepare:
		if m.poll {
			head = "Would you? " + head
		}
		return fmt.Sprintf("%s from=%d chosen=%d", head, m.first, m.chosen)
	case kindPromise:
		if m.poll {
			return fmt.Sprintf("Would %v ballot=%v willing=%t", m.kind, m.ballot, m.willing)
		}
		return fmt.Sprintf("%s from=%d accepted=%d", head, m.first, m.count)
	case kindAccept, kindChosen:
		return fmt.Sprintf("%s slots=%d+%d chosen=%d", head, m.first, m.count, m.chosen)
	case kindAccepted:
		return fmt.Sprintf("%s slots=%v", head, m.spans)
	case kindLearn:
		return fmt.Sprintf("%s from=%d offset=%d", head, m.first, m.offset)
	case kindSnapshot, kindBase:
		return fmt.Sprintf("%s through=%d snapshot=%q offset=%d", head, m.chosen, m.snap.Name, m.offset)
	case kindReadReply:
		return fmt.Sprintf("%s index=%d", head, m.chosen)
	case kindRefused, kindRead, kindState:
	}
	return head
}
