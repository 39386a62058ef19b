package tokenring

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// A message is: format byte | kind | incarnation | name | fields of its kind.
const (
	format = 1

	kindToken   = 1 // epoch, seq, incarnation of the receiver, hops
	kindWant    = 2 // hops
	kindProbe   = 3 // number
	kindStatus  = 4 // number, here, epoch promised, epoch and seq of the token when last seen
	kindClaim   = 5 // epoch
	kindPromise = 6 // epoch
	kindRefuse  = 7 // epoch claimed, epoch promised
)

type message struct {
	kind        byte
	incarnation uint64
	name        string
	token       position
	to          uint64
	hops        int
	number      uint64
	here        bool
	epoch       uint64
}

func (m message) encode() []byte {
	b := wire.AppendUvarint([]byte{format, m.kind}, m.incarnation)
	b = wire.AppendString(b, m.name)
	switch m.kind {
	case kindToken:
		b = wire.AppendUvarint(wire.AppendUvarint(b, m.token.epoch), m.token.seq)
		b = wire.AppendUvarint(wire.AppendUvarint(b, m.to), uint64(m.hops))
	case kindWant:
		b = wire.AppendUvarint(b, uint64(m.hops))
	case kindProbe:
		b = wire.AppendUvarint(b, m.number)
	case kindStatus:
		b = wire.AppendBool(wire.AppendUvarint(b, m.number), m.here)
		b = wire.AppendUvarint(wire.AppendUvarint(wire.AppendUvarint(b, m.epoch), m.token.epoch), m.token.seq)
	case kindClaim, kindPromise:
		b = wire.AppendUvarint(b, m.epoch)
	case kindRefuse:
		b = wire.AppendUvarint(wire.AppendUvarint(b, m.number), m.epoch)
	}
	return b
}

// maxHops bounds what is read; a ring is shorter.
const maxHops = 1 << 20

func decode(payload []byte) (message, error) {
	r := wire.NewReader(payload)
	if f := r.Byte(); r.Err() == nil && f > format {
		return message{}, &coterie.FormatError{What: "tokenring message", Got: f, Max: format}
	} else if f == 0 {
		r.Fail("format 0")
	}
	m := message{kind: r.Byte(), incarnation: r.Uvarint(), name: r.String()}
	readToken := func() {
		m.token = position{epoch: r.Uvarint(), seq: r.Uvarint()}
		if m.token.epoch > maxEpoch || m.token.seq > maxSeq {
			r.Fail("token out of range")
		}
	}
	readEpoch := func() uint64 {
		e := r.Uvarint()
		if e > maxEpoch {
			r.Fail("epoch %d", e)
		}
		return e
	}
	switch m.kind {
	case kindToken:
		readToken()
		m.to, m.hops = r.Uvarint(), r.Int(maxHops)
	case kindWant:
		m.hops = r.Int(maxHops)
	case kindProbe:
		m.number = r.Uvarint()
	case kindStatus:
		m.number, m.here, m.epoch = r.Uvarint(), r.Bool(), readEpoch()
		readToken()
	case kindClaim, kindPromise:
		m.epoch = readEpoch()
	case kindRefuse:
		m.number, m.epoch = readEpoch(), readEpoch()
	default:
		r.Fail("kind %d", m.kind)
	}
	if m.incarnation == 0 {
		r.Fail("incarnation 0")
	}
	if err := r.Done(); err != nil {
		return message{}, fmt.Errorf("tokenring: %w", err)
	}
	return m, nil
}

// valid checks what depends on the ring.
func (c *Core) valid(sender int, m message) error {
	n := len(c.peers)
	switch {
	case (m.kind == kindToken || m.kind == kindWant) && m.hops >= n:
		return fmt.Errorf("tokenring: %w: %d hops in a ring of %d", wire.ErrMalformed, m.hops, n)
	case m.kind == kindWant && m.hops == 0, m.kind == kindToken && m.token.epoch == 0:
		return fmt.Errorf("tokenring: %w: zero", wire.ErrMalformed)
	case m.kind == kindClaim && (m.epoch < uint64(n) || m.epoch%uint64(n) != uint64(sender)):
		return fmt.Errorf("tokenring: %w: epoch %d claimed by %q", wire.ErrMalformed, m.epoch, c.peers[sender])
	}
	return nil
}

// Describe is coterie.Describer's.
func (c *Core) Describe(payload []byte) string {
	m, err := decode(payload)
	if err != nil {
		if _, names, rerr := decodeRecord(payload); rerr == nil {
			return fmt.Sprintf("Record names=%d", len(names))
		}
		return err.Error()
	}
	switch m.kind {
	case kindToken:
		return fmt.Sprintf("Token %q epoch=%d seq=%d hops=%d", m.name, m.token.epoch, m.token.seq, m.hops)
	case kindWant:
		return fmt.Sprintf("Want %q hops=%d", m.name, m.hops)
	case kindProbe:
		return fmt.Sprintf("Probe %q", m.name)
	case kindStatus:
		return fmt.Sprintf("Status %q here=%v promised=%d seen=%d/%d", m.name, m.here, m.epoch, m.token.epoch, m.token.seq)
	case kindClaim:
		return fmt.Sprintf("Claim %q epoch=%d", m.name, m.epoch)
	case kindPromise:
		return fmt.Sprintf("Promise %q epoch=%d", m.name, m.epoch)
	}
	return fmt.Sprintf("Refuse %q epoch=%d promised=%d", m.name, m.number, m.epoch)
}

// A record is: format byte | kindRecord | incarnation | count | names and what was promised for each. It adds to those
// before it; one with all names makes them superfluous.
const kindRecord = 128

func appendRecord(incarnation uint64, rings []*ring) []byte {
	b := wire.AppendUvarint([]byte{format, kindRecord}, incarnation)
	b = wire.AppendUvarint(b, uint64(len(rings)))
	for _, r := range rings {
		b = wire.AppendUvarint(wire.AppendString(b, r.name), r.promised)
	}
	return b
}

func decodeRecord(record []byte) (incarnation uint64, promised map[string]uint64, err error) {
	r := wire.NewReader(record)
	if f := r.Byte(); r.Err() == nil && f > format {
		return 0, nil, &coterie.FormatError{What: "tokenring record", Got: f, Max: format}
	} else if f == 0 {
		r.Fail("format 0")
	}
	if kind := r.Byte(); kind != kindRecord {
		r.Fail("kind %d", kind)
	}
	incarnation = r.Uvarint()
	count := r.Count(2)
	promised = make(map[string]uint64, count)
	for range count {
		name, epoch := r.String(), r.Uvarint()
		if epoch > maxEpoch {
			r.Fail("epoch %d", epoch)
		}
		promised[name] = max(promised[name], epoch)
	}
	if err := r.Done(); err != nil {
		return 0, nil, errors.Join(errors.New("tokenring: record"), err)
	}
	return incarnation, promised, nil
}

// Replay is coterie.Core's. Names are taken back even if they are more than Config.MaxNames.
func (c *Core) Replay(record []byte) error {
	incarnation, promised, err := decodeRecord(record)
	if err != nil {
		return err
	}
	c.last = max(c.last, incarnation)
	for name, epoch := range promised {
		r := c.names[name]
		if r == nil {
			r = &ring{name: name}
			c.names[name] = r
		}
		r.promised = max(r.promised, epoch)
	}
	c.records++
	return nil
}

// save adds a record. Every so often it holds all there is, and takes the place of those before it.
func (c *Core) save(r *ring) {
	c.records++
	var rings []*ring
	if r != nil {
		rings = append(rings, r)
	}
	summary := c.records > max(64, 2*len(c.names))
	if summary {
		rings = nil
		for _, name := range slices.Sorted(maps.Keys(c.names)) {
			rings = append(rings, c.names[name])
		}
	}
	c.out.Save(appendRecord(c.incarnation, rings))
	if summary {
		c.out.Keep(1)
		c.records = 1
	}
}
