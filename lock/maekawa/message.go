package maekawa

import (
	"fmt"
	"strings"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// kind is that of a message, by its name in the paper, or of a record.
type kind byte

const (
	kindRequest    kind = 1 // requester to arbiter: I want to enter
	kindGrant      kind = 2 // arbiter to requester: LOCKED in the paper
	kindFailed     kind = 3 // arbiter to requester: an older one goes first
	kindInquire    kind = 4 // arbiter to requester: can you enter? An older one has come
	kindRelinquish kind = 5 // requester to arbiter: I cannot yet; give it to the older one
	kindRelease    kind = 6 // requester to arbiter: I do not want it (any more)

	kindRecord kind = 16
)

var kindNames = map[kind]string{
	kindRequest: "Request", kindGrant: "Grant", kindFailed: "Failed", kindInquire: "Inquire",
	kindRelinquish: "Relinquish", kindRelease: "Release", kindRecord: "Record",
}

func (k kind) String() string {
	if name := kindNames[k]; name != "" {
		return name
	}
	return fmt.Sprintf("kind(%d)", byte(k))
}

const (
	format = 1
	// MaxNameLen is how long a name may be, in bytes.
	MaxNameLen = 1024
	// maxTime bounds Lamport times and incarnations, so that none ever overflows.
	maxTime = 1 << 62
)

// message is: format | kind | again | name | incarnation | time | number | clock.
type message struct {
	kind   kind
	again  bool // caused by one that was sent again
	name   string
	id     requestID // of the requester
	number uint64    // of the grant: Grant, Inquire, Relinquish; else 0
	clock  uint64    // Lamport time of the sender
}

func (m message) append(b []byte) []byte {
	b = wire.AppendBool(append(b, format, byte(m.kind)), m.again)
	b = appendID(wire.AppendString(b, m.name), m.id)
	return wire.AppendUvarint(wire.AppendUvarint(b, m.number), m.clock)
}

func appendID(b []byte, id requestID) []byte {
	return wire.AppendUvarint(wire.AppendUvarint(b, id.incarnation), id.time)
}

// String is like "Grant printer request=1/7 number=9 clock=9".
func (m message) String() string {
	s := fmt.Sprintf("%v %s request=%d/%d", m.kind, m.name, m.id.incarnation, m.id.time)
	if m.number != 0 {
		s += fmt.Sprintf(" number=%d", m.number)
	}
	s += fmt.Sprintf(" clock=%d", m.clock)
	if m.again {
		s += " again"
	}
	return s
}

// readHead takes the format and the kind.
func readHead(r *wire.Reader, what string) (kind, error) {
	switch f := r.Byte(); {
	case r.Err() != nil:
		return 0, r.Err()
	case f > format:
		return 0, &coterie.FormatError{What: "maekawa " + what, Got: f, Max: format}
	case f == 0:
		r.Fail("format 0")
	}
	return kind(r.Byte()), r.Err()
}

func readTime(r *wire.Reader) uint64 {
	v := r.Uvarint()
	if v >= maxTime {
		r.Fail("time %d is too large", v)
	}
	return v
}

func readID(r *wire.Reader) requestID {
	id := requestID{readTime(r), readTime(r)}
	if r.Err() == nil && (id.incarnation == 0 || id.time == 0) {
		r.Fail("request %d/%d", id.incarnation, id.time)
	}
	return id
}

func readName(r *wire.Reader) string {
	b := r.Bytes()
	if len(b) > MaxNameLen {
		r.Fail("name of %d bytes", len(b))
		return ""
	}
	return string(b)
}

func decodeMessage(b []byte) (message, error) {
	r := wire.NewReader(b)
	k, err := readHead(&r, "message")
	if err != nil {
		return message{}, err
	}
	m := message{kind: k, again: r.Bool(), name: readName(&r), id: readID(&r), number: readTime(&r), clock: readTime(&r)}
	if k < kindRequest || k > kindRelease {
		r.Fail("message of %v", k)
	}
	numbered := k == kindGrant || k == kindInquire || k == kindRelinquish
	if r.Err() == nil && (numbered != (m.number != 0) || m.number > m.clock) {
		r.Fail("%v of grant %d at %d", k, m.number, m.clock)
	}
	return m, r.Done()
}

// record is: format | kindRecord | summary | incarnation | clock | count | count times name, number and, unless that is
// 0, incarnation, time and node.
type record struct {
	summary     bool // of all grants: what was saved before is superfluous
	incarnation uint64
	clock       uint64
	grants      []savedGrant
}

// savedGrant is a grant that an arbiter has given, or by number 0 that nobody has it.
type savedGrant struct {
	name   string
	number uint64
	id     requestID
	node   coterie.NodeID
}

func (rec record) append(b []byte) []byte {
	b = wire.AppendBool(append(b, format, byte(kindRecord)), rec.summary)
	b = wire.AppendUvarint(wire.AppendUvarint(b, rec.incarnation), rec.clock)
	b = wire.AppendUvarint(b, uint64(len(rec.grants)))
	for _, g := range rec.grants {
		b = wire.AppendUvarint(wire.AppendString(b, g.name), g.number)
		if g.number != 0 {
			b = wire.AppendString(appendID(b, g.id), g.node)
		}
	}
	return b
}

// String is like "Record incarnation=1 clock=9 printer=b".
func (rec record) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%v incarnation=%d clock=%d", kindRecord, rec.incarnation, rec.clock)
	for _, g := range rec.grants {
		fmt.Fprintf(&s, " %s=%s", g.name, g.node)
	}
	return s.String()
}

func decodeRecord(b []byte) (record, error) {
	r := wire.NewReader(b)
	k, err := readHead(&r, "record")
	if err != nil {
		return record{}, err
	}
	if k != kindRecord {
		r.Fail("record of %v", k)
	}
	rec := record{summary: r.Bool(), incarnation: readTime(&r), clock: readTime(&r)}
	for range r.Count(2) {
		g := savedGrant{name: readName(&r), number: readTime(&r)}
		if g.number != 0 {
			g.id, g.node = readID(&r), coterie.NodeID(r.String())
		}
		rec.grants = append(rec.grants, g)
	}
	return rec, r.Done()
}
