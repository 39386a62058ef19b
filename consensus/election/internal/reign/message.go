package reign

import (
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

const format = 1

// Kind says what a message is.
type Kind uint8

// The kinds of message.
const (
	Beat        Kind = iota + 1 // the leader is there
	Stale                       // the receiver leads by an epoch older than Epoch
	Election                    // bully: the sender asks a greater one; ring: Places go round
	Answer                      // bully: a greater one is there
	Coordinator                 // the sender (bully) or Places[0] (ring) leads by Epoch
	Chosen                      // ring: of those collected the receiver is the greatest
	Ack                         // ring: Number has come
	kinds
)

// String names the kind.
func (k Kind) String() string {
	names := [...]string{"?", "Beat", "Stale", "Election", "Answer", "Coordinator", "Chosen", "Ack"}
	if int(k) < len(names) {
		return names[k]
	}
	return "?"
}

// Message is what nodes send. A node's place is its rank among the ids.
type Message struct {
	Kind   Kind
	Epoch  uint64 // the greatest one the sender knows, or the one by which it leads
	Number uint64 // ring: of the hop, for its Ack
	Hops   int    // ring: how many it has made
	Places []int  // ring: the candidate or the leader; those collected
}

// Encode gives a message as a format byte, the kind, the checksum of the peers, then the fields.
func (c *Core) Encode(m Message) []byte {
	b := wire.AppendUint64([]byte{format, byte(m.Kind)}, c.sum)
	b = wire.AppendUvarint(b, m.Epoch)
	b = wire.AppendUvarint(b, m.Number)
	b = wire.AppendUvarint(b, uint64(m.Hops))
	b = wire.AppendUvarint(b, uint64(len(m.Places)))
	for _, p := range m.Places {
		b = append(b, byte(p))
	}
	return b
}

func checkFormat(r *wire.Reader, what string) error {
	if got := r.Byte(); r.Err() == nil && got != format {
		if got > format {
			return &coterie.FormatError{What: what, Got: got, Max: format}
		}
		return fmt.Errorf("election: %s of format %d", what, got)
	}
	return nil
}

func (c *Core) decode(payload []byte) (Message, error) {
	r := wire.NewReader(payload)
	if err := checkFormat(&r, "election message"); err != nil {
		return Message{}, err
	}
	m := Message{Kind: Kind(r.Byte())}
	if m.Kind == 0 || m.Kind >= kinds {
		r.Fail("kind %d", m.Kind)
	}
	if sum := r.Uint64(); r.Err() == nil && sum != c.sum {
		r.Fail("the sender was given other Peers")
	}
	m.Epoch, m.Number, m.Hops = r.Uvarint(), r.Uvarint(), r.Int(maxPeers)
	if m.Epoch > maxEpoch || m.Epoch != 0 && c.epochOf(m.Epoch) >= len(c.ranks) {
		r.Fail("epoch %d", m.Epoch)
	}
	seen := [maxPeers]bool{}
	for range r.Count(1) {
		p := int(r.Byte())
		if p >= len(c.ranks) || seen[p] {
			r.Fail("place %d", p)
			break
		}
		seen[p] = true
		m.Places = append(m.Places, p)
	}
	if err := r.Done(); err != nil {
		return Message{}, fmt.Errorf("election: %w", err)
	}
	return m, nil
}

// A record is a format byte and the greatest epoch that the node followed or led by.
func encodeRecord(epoch uint64) []byte { return wire.AppendUvarint([]byte{format}, epoch) }

func decodeRecord(record []byte) (uint64, error) {
	r := wire.NewReader(record)
	if err := checkFormat(&r, "election record"); err != nil {
		return 0, err
	}
	epoch := r.Uvarint()
	if epoch > maxEpoch {
		r.Fail("epoch %d", epoch)
	}
	if err := r.Done(); err != nil {
		return 0, fmt.Errorf("election: record: %w", err)
	}
	return epoch, nil
}

// Describe is coterie.Describer's.
func (c *Core) Describe(payload []byte) string {
	m, err := c.decode(payload)
	if err != nil {
		if epoch, err := decodeRecord(payload); err == nil {
			return fmt.Sprintf("record epoch=%d", epoch)
		}
		return err.Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%v epoch=%d", m.Kind, m.Epoch)
	for _, p := range m.Places {
		fmt.Fprintf(&b, " %s", c.ranks[p])
	}
	return b.String()
}

func sumOf(peers []coterie.NodeID) uint64 {
	h := fnv.New64a()
	for _, id := range peers {
		_, _ = h.Write(wire.AppendString(nil, id))
	}
	return h.Sum64()
}
