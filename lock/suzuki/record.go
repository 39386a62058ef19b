package suzuki

import (
	"errors"
	"fmt"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// The kinds of records begin where those of messages do not reach.
const (
	recordStart   byte = iota + 16 // an incarnation
	recordName                     // all that is saved of one name
	recordSummary                  // an incarnation and all names; what is older may be forgotten
)

var errNotRecord = errors.New("no record")

// record is any record.
type record struct {
	incarnation uint64
	names       []*name
}

func appendStart(b []byte, incarnation uint64) []byte {
	return wire.AppendUvarint(append(b, head(recordStart)...), incarnation)
}

func appendName(b []byte, n *name) []byte {
	b = wire.AppendString(b, n.name)
	b = appendStamp(wire.AppendUvarint(b, n.promised), n.seen)
	b = append(b, byte(n.place))
	if n.place == elsewhere {
		return b
	}
	return appendToken(wire.AppendUvarint(b, uint64(n.to)), n.token)
}

// summary is all that must not be forgotten, in one record.
func (c *Core) summary() []byte {
	count := 0
	for _, n := range c.list {
		if n.saved {
			count++
		}
	}
	b := wire.AppendUvarint(head(recordSummary), c.incarnation)
	b = wire.AppendUvarint(b, uint64(count))
	for _, n := range c.list {
		if n.saved {
			b = appendName(b, n)
		}
	}
	return b
}

func readName(r *wire.Reader, peers int) *name {
	n := &name{name: r.String(), promised: readEpoch(r), seen: readStamp(r), place: place(r.Byte())}
	switch n.place {
	case elsewhere:
	case here, sent:
		n.to = r.Int(peers - 1)
		n.token = readToken(r, peers)
	default:
		r.Fail("place %d", n.place)
	}
	return n
}

func decodeRecord(b []byte, peers int) (record, error) {
	r := wire.NewReader(b)
	if f := r.Byte(); f > format {
		return record{}, &coterie.FormatError{What: "suzuki record", Got: f, Max: format}
	} else if f == 0 {
		r.Fail("format 0")
	}
	var rec record
	switch kind := r.Byte(); kind {
	case recordStart:
		rec.incarnation = r.Uvarint()
	case recordName:
		rec.names = append(rec.names, readName(&r, peers))
	case recordSummary:
		rec.incarnation = r.Uvarint()
		for range r.Count(5) {
			rec.names = append(rec.names, readName(&r, peers))
		}
	default:
		return record{}, fmt.Errorf("suzuki: %w: kind %d", errNotRecord, kind)
	}
	if err := r.Done(); err != nil {
		return record{}, fmt.Errorf("suzuki: record: %w", err)
	}
	return rec, nil
}

// Replay takes back a record. Errors: it is malformed, of other peers, or of a newer format (*coterie.FormatError). What
// was saved is taken back also beyond Config.MaxNames.
func (c *Core) Replay(b []byte) error {
	rec, err := decodeRecord(b, len(c.peers))
	if err != nil {
		return err
	}
	c.incarnation = max(c.incarnation, rec.incarnation)
	c.records++
	for _, saved := range rec.names {
		n := c.names[saved.name]
		if n == nil {
			n = c.begin(saved.name)
		}
		n.promised, n.seen, n.place, n.to, n.token = saved.promised, saved.seen, saved.place, saved.to, saved.token
		n.saved = true
	}
	return nil
}

// String is what Describe says of a record.
func (r record) String() string {
	if len(r.names) != 1 {
		return fmt.Sprintf("incarnation=%d names=%d", r.incarnation, len(r.names))
	}
	n := r.names[0]
	at := [...]string{"elsewhere", "here", "sent"}[n.place]
	return fmt.Sprintf("State %q epoch=%d seen=%v token=%s", n.name, n.promised, n.seen, at)
}
