package deadlock

import (
	"fmt"
	"strings"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// messageFormat is the format byte of messages.
const messageFormat = 1

const (
	kindProbe   = 1
	kindConfirm = 2
)

// message is a probe or a confirmation. The waiter of each edge of its path is the holder of the one before.
type message struct {
	kind   byte
	number uint64 // of the initiator's computation
	at     int    // of a confirmation: the edge whose waiter gets it; that of the first again at the end
	path   []Edge // from the initiator; of a confirmation back to it
}

// to is the process that gets the message.
func (m message) to() Process {
	if m.kind == kindConfirm {
		return m.path[m.at%len(m.path)].Waiter
	}
	return m.path[len(m.path)-1].Holder
}

func appendProcess(b []byte, p Process) []byte {
	return wire.AppendString(wire.AppendString(b, p.Node), p.Name)
}

func readProcess(r *wire.Reader) Process {
	p := Process{Node: coterie.NodeID(r.String()), Name: r.String()}
	if p.Node == "" || p.Name == "" {
		r.Fail("process without a name")
	}
	return p
}

func (m message) encode() []byte {
	b := []byte{messageFormat, m.kind}
	b = wire.AppendUvarint(b, m.number)
	b = wire.AppendUvarint(b, uint64(m.at))
	b = wire.AppendUvarint(b, uint64(len(m.path)))
	b = appendProcess(b, m.path[0].Waiter)
	for _, e := range m.path {
		b = wire.AppendUvarint(appendProcess(b, e.Holder), e.Version)
	}
	return b
}

func checkFormat(r *wire.Reader, what string, newest byte) error {
	format := r.Byte()
	if r.Err() == nil && format > newest {
		return &coterie.FormatError{What: what, Got: format, Max: newest}
	}
	if r.Err() == nil && format == 0 {
		r.Fail("format 0")
	}
	if err := r.Err(); err != nil {
		return fmt.Errorf("deadlock: %s: %w", what, err)
	}
	return nil
}

func decodeMessage(payload []byte) (message, error) {
	r := wire.NewReader(payload)
	if err := checkFormat(&r, "deadlock message", messageFormat); err != nil {
		return message{}, err
	}
	m := message{kind: r.Byte(), number: r.Uvarint()}
	at := r.Uvarint()
	n := r.Count(5)
	if n == 0 || at > uint64(n) {
		r.Fail("edge %d of %d", at, n)
		n = 0
	}
	m.at = int(at)
	m.path = make([]Edge, 0, n)
	waiter := readProcess(&r)
	for range n {
		e := Edge{Waiter: waiter, Holder: readProcess(&r), Version: r.Uvarint()}
		if e.Version == 0 {
			r.Fail("version 0")
		}
		m.path = append(m.path, e)
		waiter = e.Holder
	}
	switch {
	case r.Err() != nil:
	case m.kind == kindProbe && m.at == 0:
	case m.kind == kindConfirm && m.path[0].Waiter == waiter:
	default:
		r.Fail("kind %d at %d", m.kind, m.at)
	}
	if err := r.Done(); err != nil {
		return message{}, fmt.Errorf("deadlock: message: %w", err)
	}
	return m, nil
}

func describe(payload []byte) string {
	if len(payload) == 9 { // a record; no message is so short
		r := wire.NewReader(payload[1:])
		return fmt.Sprintf("Reserve numbers<%d", r.Uint64())
	}
	m, err := decodeMessage(payload)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	if m.kind == kindProbe {
		last := m.path[len(m.path)-1]
		fmt.Fprintf(&b, "Probe(%v, %v, %v)", m.path[0].Waiter, last.Waiter, last.Holder)
	} else {
		fmt.Fprintf(&b, "Confirm(%v) at=%d/%d", m.path[0].Waiter, m.at, len(m.path))
	}
	fmt.Fprintf(&b, " computation=%d", m.number)
	return b.String()
}
