package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/internal/wire"
)

// event is something that happened at a node, stamped by every clock there is.
type event struct {
	id     clock.Dot // which event of which node
	cause  clock.Dot // a receipt's sending; zero for others
	what   string
	wall   time.Time // the node's own wall clock, skewed
	truth  time.Time // the simulator's time, which no node knows
	scalar clock.Timestamp
	vector clock.Vector
	hybrid clock.Timestamp
}

// String names the event, as traces show it.
func (e event) String() string {
	return fmt.Sprintf("%v %s lamport=%d %v", e.id, e.what, e.scalar.Time, e.vector)
}

// node sends messages to random peers at random times and stamps every sending and every receipt. It is a
// coterie.Core.
type node struct {
	id     coterie.NodeID
	peers  []coterie.NodeID
	wall   func() time.Time
	random *rand.Rand
	out    coterie.Outbox
	next   time.Time
	left   int // sendings to come

	scalar clock.Lamport
	vector clock.Vector
	hybrid *clock.HLC
	seq    uint64
}

func newNode(id coterie.NodeID, peers []coterie.NodeID, wall func() time.Time, seed uint64, sendings int) (*node, error) {
	hybrid, err := clock.NewHLC(clock.HLCConfig{Node: id, Now: wall})
	if err != nil {
		return nil, err
	}
	return &node{id: id, peers: peers, wall: wall, random: rand.New(rand.NewPCG(seed, uint64(id[0]))), left: sendings, hybrid: hybrid}, nil
}

// stamp emits an event with what the clocks show after it.
func (n *node) stamp(now time.Time, what string, cause clock.Dot, scalar uint64, hybrid clock.Timestamp) event {
	n.seq++
	n.vector.Tick(n.id)
	e := event{id: clock.Dot{Node: n.id, Seq: n.seq}, cause: cause, what: what, wall: n.wall(), truth: now,
		scalar: clock.Timestamp{Time: scalar, Node: n.id}, vector: n.vector.Clone(), hybrid: hybrid}
	n.out.Emit(e)
	return e
}

// Tick sends, when it is time.
func (n *node) Tick(now time.Time) {
	if n.next.IsZero() || now.Before(n.next) || n.left == 0 {
		n.plan(now)
		return
	}
	n.left--
	to := n.peers[n.random.IntN(len(n.peers))]
	e := n.stamp(now, "sends to "+string(to), clock.Dot{}, n.scalar.Tick(), n.hybrid.Now())
	n.out.Send(to, encode(e))
	n.plan(now)
}

// plan draws the time of the next sending, unless one is planned.
func (n *node) plan(now time.Time) {
	if !n.next.After(now) {
		n.next = now.Add(time.Duration(1+n.random.IntN(8)) * time.Millisecond)
	}
}

// Step receives: each clock takes over what the message carries, and counts the receipt as an event of its own.
func (n *node) Step(now time.Time, from coterie.NodeID, payload []byte) error {
	sent, err := decode(payload)
	if err != nil {
		return err
	}
	// The two that can refuse come first, so that a refused message changes no clock but the one that took it.
	hybrid, err := n.hybrid.Update(sent.hybrid)
	if err != nil {
		return err
	}
	scalar, err := n.scalar.Witness(sent.scalar.Time)
	if err != nil {
		return err
	}
	n.vector.Merge(sent.vector) // stamp ticks
	n.stamp(now, "hears from "+string(from), sent.id, scalar, hybrid)
	return nil
}

// Replay refuses: the node saves nothing.
func (*node) Replay([]byte) error { return fmt.Errorf("a record that was never saved") }

// Ready ends a batch.
func (n *node) Ready() coterie.Ready {
	if n.left > 0 {
		n.out.Wake(n.next)
	}
	return n.out.Take()
}

// Describe tells what a message says.
func (*node) Describe(payload []byte) string {
	e, err := decode(payload)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%v lamport=%d vector=%v", e.id, e.scalar.Time, e.vector)
}

func encode(e event) []byte {
	b := wire.AppendString(nil, e.id.Node)
	for _, v := range []uint64{e.id.Seq, e.scalar.Time, e.hybrid.Time} {
		b = wire.AppendUvarint(b, v)
	}
	b, _ = e.vector.AppendBinary(b)
	return b
}

func decode(payload []byte) (e event, err error) {
	r := wire.NewReader(payload)
	e.id = clock.Dot{Node: coterie.NodeID(r.String()), Seq: r.Uvarint()}
	e.scalar = clock.Timestamp{Time: r.Uvarint(), Node: e.id.Node}
	e.hybrid = clock.Timestamp{Time: r.Uvarint(), Node: e.id.Node}
	vector := r.Rest()
	if err := r.Done(); err != nil {
		return event{}, err
	}
	return e, e.vector.UnmarshalBinary(vector)
}
