package pbft

import (
	"bytes"
	"container/list"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// A command of the log is, within the driver's envelope: one byte that says what it is, then
//
//	local:            the application's command, for whoever trusts the replica that proposed it
//	execute or query: public key (32) | timestamp (8) | the application's command or query | signature (64)
//
// The second is the REQUEST of a client, which it signs itself, so that no replica can make one up, and which it may
// give to several replicas: it is executed once, by its timestamp, and each copy is answered with the same reply
// (§4.1).
const (
	opLocal byte = iota
	opExecute
	opQuery
	opNothing // asks whether the replicas answer
)

const (
	clientHeader = 1 + ed25519.PublicKeySize + 8
	maxClients   = 1 << 16 // whose last reply is kept; the one idle for longest is forgotten first
)

// errStale is answered to a client's request that is older than one it has made since, or than what is still known of
// clients.
var errStale = errors.New("pbft: request is too old")

// maxAhead is how far a client's clock may be ahead of the log's. Without a bound one client could make everybody's
// requests too old, once it is forgotten.
const maxAhead = time.Minute

var errAhead = errors.New("pbft: the client's clock is more than a minute ahead of the log's")

func localCommand(command []byte) []byte {
	return append(append(make([]byte, 0, 1+len(command)), opLocal), command...)
}

// clientDomain keeps a client's signature from being one for anything else.
const clientDomain = "coterie pbft client 1\x00"

func clientText(op []byte) []byte {
	sum := sha256.Sum256(op)
	return append([]byte(clientDomain), sum[:]...)
}

// signedCommand is a client's request.
func signedCommand(key ed25519.PrivateKey, op byte, timestamp uint64, body []byte) []byte {
	b := make([]byte, 0, clientHeader+len(body)+ed25519.SignatureSize)
	b = append(append(b, op), key.Public().(ed25519.PublicKey)...)
	b = append(wire.AppendUint64(b, timestamp), body...)
	return append(b, ed25519.Sign(key, clientText(b))...)
}

// A reply is what a signed command's application made of it: a byte that is 0, then the result, or 1, then the text of
// an error.
func reply(result []byte, err error) []byte {
	if err != nil {
		return append([]byte{1}, err.Error()...)
	}
	return append([]byte{0}, result...)
}

// clients is the application's state machine with the table of clients before it (§4.1: a replica remembers the last
// reply it sent to each client). It is replicated, as the application is.
type clients struct {
	app   coterie.StateMachine
	byKey map[[ed25519.PublicKeySize]byte]*list.Element // of *client
	order list.List                                     // by the last use, oldest first
	floor uint64                                        // the newest timestamp of those forgotten
}

type client struct {
	key  [ed25519.PublicKeySize]byte
	last uint64 // timestamp of the last request executed
	said []byte // and its reply
}

// ticking is a clients whose application wants the log's clock moved on.
type ticking struct {
	*clients
	deadline interface{ Deadline() time.Time }
}

// Deadline is the application's.
func (t ticking) Deadline() time.Time { return t.deadline.Deadline() }

func newClients(app coterie.StateMachine) coterie.StateMachine {
	t := &clients{app: app, byKey: map[[ed25519.PublicKeySize]byte]*list.Element{}}
	if d, ok := app.(interface{ Deadline() time.Time }); ok {
		return ticking{t, d}
	}
	return t
}

// Apply executes one entry. What is no request is answered so by every replica, and changes nothing.
func (t *clients) Apply(e coterie.Entry) []byte {
	if len(e.Command) == 0 { // the driver's tick
		return t.app.Apply(e)
	}
	op, rest := e.Command[0], e.Command[1:]
	if op == opLocal {
		e.Command = rest
		return t.app.Apply(e)
	}
	if op > opNothing || len(e.Command) < clientHeader+ed25519.SignatureSize {
		return reply(nil, errors.New("pbft: not a request"))
	}
	signed := len(e.Command) - ed25519.SignatureSize
	key := [ed25519.PublicKeySize]byte(rest)
	if !ed25519.Verify(key[:], clientText(e.Command[:signed]), e.Command[signed:]) {
		return reply(nil, errors.New("pbft: not the client's signature"))
	}
	r := wire.NewReader(rest[ed25519.PublicKeySize:])
	timestamp := r.Uint64()
	e.Command = e.Command[clientHeader:signed]
	return t.execute(key, op, timestamp, e)
}

// execute executes a client's request unless it, or a newer one of that client, has been (§4.1).
func (t *clients) execute(key [ed25519.PublicKeySize]byte, op byte, timestamp uint64, e coterie.Entry) []byte {
	if at := e.Time.Add(maxAhead); int64(timestamp) < 0 || time.Unix(0, int64(timestamp)).After(at) {
		return reply(nil, errAhead)
	}
	el := t.byKey[key]
	if el == nil {
		if timestamp <= t.floor {
			return reply(nil, errStale)
		}
		el = t.order.PushBack(&client{key: key})
		t.byKey[key] = el
	}
	c := el.Value.(*client)
	switch {
	case timestamp == c.last && c.said != nil:
		return c.said
	case timestamp <= c.last:
		return reply(nil, errStale)
	}
	var result []byte
	var err error
	switch op {
	case opQuery:
		result, err = t.app.Query(e.Command)
	case opExecute:
		result = t.app.Apply(e)
	}
	c.last, c.said = timestamp, reply(result, err)
	t.order.MoveToBack(el)
	for t.order.Len() > maxClients {
		old := t.order.Remove(t.order.Front()).(*client)
		delete(t.byKey, old.key)
		t.floor = max(t.floor, old.last)
	}
	return c.said
}

// Query asks the application.
func (t *clients) Query(query []byte) ([]byte, error) { return t.app.Query(query) }

// clientsFormat stands before the table in a snapshot.
const clientsFormat = 1

// Snapshot freezes the table and the application. Equal states give equal bytes, if the application's do.
func (t *clients) Snapshot() (func(io.Writer) error, error) {
	write, err := t.app.Snapshot()
	if err != nil {
		return nil, err
	}
	b := wire.AppendUint64(nil, t.floor)
	b = wire.AppendUvarint(b, uint64(t.order.Len()))
	for el := t.order.Front(); el != nil; el = el.Next() {
		c := el.Value.(*client)
		b = append(b, c.key[:]...)
		b = wire.AppendUint64(b, c.last)
		b = wire.AppendBytes(b, c.said)
	}
	head := wire.AppendUint64([]byte{clientsFormat}, uint64(len(b)))
	return func(w io.Writer) error {
		if _, err := w.Write(append(head, b...)); err != nil {
			return err
		}
		return write(w)
	}, nil
}

// Restore replaces both.
func (t *clients) Restore(r io.Reader) error {
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("pbft: table of clients: %w", err)
	}
	if head[0] > clientsFormat {
		return &coterie.FormatError{What: "pbft table of clients", Got: head[0], Max: clientsFormat}
	}
	h := wire.NewReader(head[1:])
	size := h.Uint64()
	if head[0] == 0 || size > 1<<40 {
		return errors.New("pbft: table of clients is malformed")
	}
	var table bytes.Buffer // a size that lies costs no more than what is there
	if n, err := io.Copy(&table, io.LimitReader(r, int64(size))); err != nil || n < int64(size) {
		return fmt.Errorf("pbft: table of clients: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	fresh := &clients{app: t.app, byKey: map[[ed25519.PublicKeySize]byte]*list.Element{}}
	in := wire.NewReader(table.Bytes())
	fresh.floor = in.Uint64()
	for range in.Count(ed25519.PublicKeySize + 9) {
		c := &client{}
		copy(c.key[:], in.Fixed(len(c.key)))
		c.last, c.said = in.Uint64(), bytes.Clone(in.Bytes())
		fresh.byKey[c.key] = fresh.order.PushBack(c)
	}
	if err := in.Done(); err != nil {
		return fmt.Errorf("pbft: table of clients: %w", err)
	}
	if err := t.app.Restore(r); err != nil {
		return err
	}
	t.byKey, t.order, t.floor = fresh.byKey, list.List{}, fresh.floor
	for el := fresh.order.Front(); el != nil; el = el.Next() {
		c := el.Value.(*client)
		t.byKey[c.key] = t.order.PushBack(c)
	}
	return nil
}
