package consensus

import (
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// kind is the first byte of a command in the log, and its format byte: a kind that this version does not know is from
// a newer one, and stops the replica rather than be applied differently from its peers.
type kind byte

const (
	kindPlain kind = iota + 1 // a command of no session
	kindOf                    // a command of a session
	kindOpen                  // opens a session, named by the index of this entry
	kindEnd                   // ends a session
	kindTick                  // moves the log's clock on
)

const maxKind = byte(kindTick)

// envelope is what the driver wraps around a command. Its stamp is the proposing leader's wall clock.
type envelope struct {
	kind   kind
	stamp  int64  // Unix nanoseconds
	tag    Tag    // of kindOf; of kindEnd the Session alone
	limits limits // of kindOpen
	body   []byte // of kindPlain and kindOf
}

// Tag names one command of a session, so that it is applied once however often it is proposed.
type Tag struct {
	Session uint64 // what NewSession was answered
	Seq     uint64 // of the command, from 1; the same in every retry of it, and of no other
	Low     uint64 // no command below it will be proposed again, so that their results may be forgotten; 1 to Seq
}

// limits bound the table of sessions. They travel in the log, so that replicas whose configs differ agree.
type limits struct {
	ttl   int64 // nanoseconds of the log's clock
	count int
	bytes int
}

// The encoding is kind | stamp (8 bytes) | kindOf: session, seq, seq-low; kindOpen: limits; kindEnd: session | body.
// The stamp has a fixed place, so that a batch is stamped when it leaves.

const stampAt = 1

func (e *envelope) append(b []byte) []byte {
	b = append(b, byte(e.kind))
	b = wire.AppendUint64(b, uint64(e.stamp))
	switch e.kind {
	case kindOf:
		b = wire.AppendUvarint(b, e.tag.Session)
		b = wire.AppendUvarint(b, e.tag.Seq)
		b = wire.AppendUvarint(b, e.tag.Seq-e.tag.Low)
	case kindOpen:
		b = appendLimits(b, e.limits)
	case kindEnd:
		b = wire.AppendUvarint(b, e.tag.Session)
	case kindPlain, kindTick:
	}
	return append(b, e.body...)
}

// maxHeader is the most bytes an envelope has around its body.
const maxHeader = 64

func appendLimits(b []byte, l limits) []byte {
	b = wire.AppendUvarint(b, uint64(l.ttl))
	b = wire.AppendUvarint(b, uint64(l.count))
	return wire.AppendUvarint(b, uint64(l.bytes))
}

func readLimits(r *wire.Reader) limits {
	l := limits{ttl: int64(r.Uvarint()), count: r.Int(1 << 40), bytes: r.Int(1 << 60)}
	if l.ttl < 0 {
		r.Fail("negative time to live")
	}
	return l
}

// setStamp stamps an encoded envelope. A wall clock outside 1970 to 2262 stands still at its end.
func setStamp(b []byte, stamp int64) {
	_ = wire.AppendUint64(b[:stampAt], uint64(stamp))
}

func stampOf(wall time.Time) int64 {
	const last = 1<<63 - 1
	switch {
	case wall.Unix() < 0:
		return 0
	case wall.Unix() >= last/int64(time.Second):
		return last
	}
	return wall.UnixNano()
}

// logTime is a stamp as a time.
func logTime(stamp int64) time.Time { return time.Unix(0, stamp).UTC() }

// CheckCommand returns an error if the command is none that a driver proposes: malformed, or of a newer version of this
// library (a *coterie.FormatError), which stops the replicas that would apply it. A protocol whose nodes may lie refuses
// such commands before it accepts them; one that trusts its nodes need not ask.
func CheckCommand(command []byte) error {
	_, err := decode(command)
	return err
}

// decode takes an envelope apart; its body is part of b. A *coterie.FormatError is from a newer version; any other
// error is one that every version makes of these bytes.
func decode(b []byte) (envelope, error) {
	r := wire.NewReader(b)
	e := envelope{kind: kind(r.Byte())}
	if byte(e.kind) > maxKind {
		return envelope{}, &coterie.FormatError{What: "command", Got: byte(e.kind), Max: maxKind}
	}
	e.stamp = int64(r.Uint64())
	if e.stamp < 0 {
		r.Fail("negative stamp")
	}
	switch e.kind {
	case kindPlain:
		e.body = r.Rest()
	case kindOf:
		e.tag.Session, e.tag.Seq = r.Uvarint(), r.Uvarint()
		behind := r.Uvarint()
		if behind >= e.tag.Seq {
			r.Fail("sequence number %d with %d below it", e.tag.Seq, behind)
		}
		e.tag.Low = e.tag.Seq - behind
		e.body = r.Rest()
	case kindOpen:
		e.limits = readLimits(&r)
	case kindEnd:
		e.tag.Session = r.Uvarint()
	case kindTick:
	default:
		r.Fail("kind %d", e.kind)
	}
	if err := r.Done(); err != nil {
		return envelope{}, err
	}
	return e, nil
}
