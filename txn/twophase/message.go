package twophase

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/txn"
)

// format is the first byte of every message and of every record.
const format = 1

// maxReason is how many bytes of a participant's reason for a No travel.
const maxReason = 256

// maxID is the longest ID in bytes that is read: a node's name and two numbers.
const maxID = 1024

// kind says what a message is.
type kind byte

const (
	kindStarted  kind = iota + 1 // a node to itself: its epoch is durable
	kindPrepare                  // coordinator to participants
	kindVote                     // and back
	kindDecision                 // coordinator to participants, of its own accord
	kindAck                      // participant: its commit is durable
	kindInquire                  // of a participant without news: to the coordinator or, by the peer flag, to a participant
	kindAnswer                   // to an inquiry, or to a vote that came too late; perhaps out of date
)

func (k kind) String() string {
	names := [...]string{"", "Started", "Prepare", "Vote", "Decision", "Ack", "Inquire", "Answer"}
	if int(k) < len(names) {
		return names[k]
	}
	return "kind(" + strconv.Itoa(int(k)) + ")"
}

// outcome is what a decision or an answer tells.
type outcome byte

const (
	pending outcome = iota // the coordinator still gathers votes
	committed
	aborted
	readOnly // never sent: the participant left before the decision
)

func (o outcome) String() string {
	return [...]string{"pending", "committed", "aborted", "read-only"}[o]
}

// message is any message; which fields count depends on the kind.
type message struct {
	kind    kind
	id      txn.ID
	epoch   uint64           // Started
	low     position         // Prepare: the coordinator asks for no vote on anything before
	members []coterie.NodeID // Prepare
	vote    txn.Vote         // Vote
	reason  string           // Vote
	outcome outcome          // Decision, Answer
	peer    bool             // Inquire
}

func (m *message) encode() []byte {
	b := append(make([]byte, 0, 2+10+len(m.id)+8), format, byte(m.kind))
	if m.kind == kindStarted {
		return wire.AppendUvarint(b, m.epoch)
	}
	b = wire.AppendString(b, m.id)
	switch m.kind {
	case kindPrepare:
		b = wire.AppendUvarint(b, m.low.epoch)
		b = wire.AppendUvarint(b, m.low.seq)
		b = appendNodes(b, m.members)
	case kindVote:
		b = append(b, byte(m.vote))
		b = wire.AppendString(b, m.reason)
	case kindDecision, kindAnswer:
		b = append(b, byte(m.outcome))
	case kindInquire:
		b = wire.AppendBool(b, m.peer)
	case kindAck:
	default: // kindStarted is done
	}
	return b
}

func decodeMessage(payload []byte) (m message, err error) {
	r := wire.NewReader(payload)
	if f := r.Byte(); f > format {
		return m, &coterie.FormatError{What: "twophase message", Got: f, Max: format}
	} else if f < format {
		r.Fail("format %d", f)
	}
	m.kind = kind(r.Byte())
	if m.kind == kindStarted {
		m.epoch = r.Uvarint()
		return m, r.Done()
	}
	m.id = readID(&r)
	switch m.kind {
	case kindPrepare:
		m.low = position{epoch: r.Uvarint(), seq: r.Uvarint()}
		m.members = readNodes(&r)
		if r.Err() == nil && len(m.members) == 0 {
			r.Fail("no members")
		}
	case kindVote:
		m.vote = txn.Vote(r.Byte())
		m.reason = r.String()
		if m.vote > txn.ReadOnly || len(m.reason) > maxReason {
			r.Fail("%v with a reason of %d bytes", m.vote, len(m.reason))
		}
	case kindDecision, kindAnswer:
		m.outcome = outcome(r.Byte())
		if m.outcome > aborted || m.kind == kindDecision && m.outcome == pending {
			r.Fail("outcome %d", byte(m.outcome))
		}
	case kindInquire:
		m.peer = r.Bool()
	case kindAck:
	default:
		r.Fail("kind %d", byte(m.kind))
	}
	return m, r.Done()
}

// String is what diagrams show.
func (m *message) String() string {
	switch m.kind {
	case kindStarted:
		return fmt.Sprintf("Started epoch=%d", m.epoch)
	case kindVote:
		return fmt.Sprintf("Vote %s %v", m.id, m.vote)
	case kindDecision, kindAnswer:
		return fmt.Sprintf("%v %s %v", m.kind, m.id, m.outcome)
	default:
		return fmt.Sprintf("%v %s", m.kind, m.id)
	}
}

func appendNodes(b []byte, nodes []coterie.NodeID) []byte {
	b = wire.AppendUvarint(b, uint64(len(nodes)))
	for _, n := range nodes {
		b = wire.AppendString(b, n)
	}
	return b
}

// readNodes takes a list of names, none empty and none twice.
func readNodes(r *wire.Reader) []coterie.NodeID {
	nodes := make([]coterie.NodeID, r.Count(2))
	for i := range nodes {
		nodes[i] = coterie.NodeID(r.String())
	}
	if err := checkNodes(nodes); err != nil {
		r.Fail("%v", err)
		return nil
	}
	return nodes
}

func checkNodes(nodes []coterie.NodeID) error {
	const few = 16 // up to so many, looking is cheaper than a map
	var seen map[coterie.NodeID]bool
	if len(nodes) > few {
		seen = make(map[coterie.NodeID]bool, len(nodes))
	}
	for i, n := range nodes {
		if n == "" {
			return errors.New("a node without a name")
		}
		if seen[n] || len(nodes) <= few && slices.Contains(nodes[:i], n) {
			return fmt.Errorf("node %q twice", n)
		}
		if seen != nil {
			seen[n] = true
		}
	}
	return nil
}

func readID(r *wire.Reader) txn.ID {
	p := r.Bytes()
	if len(p) > maxID {
		r.Fail("transaction ID of %d bytes", len(p))
		return ""
	}
	id := txn.ID(p)
	if _, _, err := parseID(id); err != nil && r.Err() == nil {
		r.Fail("%v", err)
	}
	return id
}

// position is a place in the order in which one coordinator begins transactions.
type position struct{ epoch, seq uint64 }

func (p position) before(o position) bool {
	return p.epoch < o.epoch || p.epoch == o.epoch && p.seq < o.seq
}

// makeID names a transaction: "node/epoch/seq". The epoch counts the node's starts and is durable before it is used.
func makeID(node coterie.NodeID, at position) txn.ID {
	b := make([]byte, 0, len(node)+16)
	b = append(b, node...)
	b = strconv.AppendUint(append(b, '/'), at.epoch, 10)
	b = strconv.AppendUint(append(b, '/'), at.seq, 10)
	return txn.ID(b)
}

// parseID tells who coordinates a transaction, and where it stands in the order of its coordinator.
func parseID(id txn.ID) (coordinator coterie.NodeID, at position, err error) {
	s := string(id)
	j := strings.LastIndexByte(s, '/')
	i := strings.LastIndexByte(s[:max(j, 0)], '/')
	if i < 1 {
		return "", position{}, fmt.Errorf("twophase: %q is no transaction of this package: %w", id, txn.ErrUnknown)
	}
	at.epoch, err = strconv.ParseUint(s[i+1:j], 10, 64)
	if err == nil {
		at.seq, err = strconv.ParseUint(s[j+1:], 10, 64)
	}
	if node := coterie.NodeID(s[:i]); err == nil && makeID(node, at) == id { // one spelling only: no "01"
		return node, at, nil
	}
	return "", position{}, fmt.Errorf("twophase: %q is no transaction of this package: %w", id, txn.ErrUnknown)
}
