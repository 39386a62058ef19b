package crdt

import (
	"math"
	"math/bits"
	"strconv"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
)

// CausalCounter is a counter that can be reset: a reset takes back what its replica has seen, and increments
// concurrent to it survive. It is what an ORMap holds where a plain map would hold a PNCounter, and costs a dot per
// replica. (The embeddable counter of Riak maps; Baquero, Almeida and Lerche, "The Problem with Embedded CRDT
// Counters and a Solution", 2016. As there, an increment by a replica that is concurrent with a reset of its earlier
// increments keeps these too, for it replaces their sum.)
//
// The zero value is 0, ready to use. A copy made by assignment is the same counter. Reading is safe from many
// goroutines, changing is not.
//
//nolint:recvcheck // what reads has a value receiver, to work on results and map elements, as with clock.Vector
type CausalCounter struct{ s MVRegister[int64] }

// Add counts n, which may be negative, at replica id and returns the delta: the replica's one dot, with the sum of
// what it has counted. Only the replica itself may use its id. Sums stay at the ends of 64 bits.
func (c *CausalCounter) Add(id coterie.NodeID, n int64) (delta CausalCounter) {
	k, d := c.s.init(), delta.s.init()
	if l := k.findLane(id); l >= 0 {
		for _, chunk := range k.live[l].chunks {
			for _, e := range chunk { // one, but for what a foreign encoding may bring
				n = addInt64(n, e.payload)
				d.seen.Add(clock.Dot{Node: id, Seq: e.seq})
			}
		}
		k.live[l].chunks = nil
	}
	dot, _ := k.add(id, n)
	d.setSingle(dot, n, &singleton[int64]{})
	return delta
}

// Reset takes the counter to 0, but for what this replica has not seen, and returns the delta.
func (c *CausalCounter) Reset() (delta CausalCounter) { return CausalCounter{c.s.Clear()} }

// Value returns the sum.
func (c CausalCounter) Value() (n int64) {
	if c.s.s != nil {
		for _, v := range c.s.s.all() {
			n = addInt64(n, v)
		}
	}
	return n
}

// Merge joins another replica's state, or a delta of it, into c.
func (c *CausalCounter) Merge(o CausalCounter) { c.s.Merge(o.s) }

// Clone returns a copy that shares nothing with c.
func (c CausalCounter) Clone() CausalCounter { return CausalCounter{c.s.Clone()} }

// Context returns the events that the counter has seen, as a copy.
func (c CausalCounter) Context() clock.DotSet { return c.s.Context() }

// AppendBinary appends the encoding of c. It never fails. Equal states have equal encodings.
func (c CausalCounter) AppendBinary(b []byte) ([]byte, error) {
	k := c.s.s
	if k == nil {
		k = &kernel[int64]{}
	}
	return appendKernel(b, kindCausalCounter, k, appendElem[int64])
}

// MarshalBinary returns the encoding of c.
func (c CausalCounter) MarshalBinary() ([]byte, error) { return c.AppendBinary(nil) }

// UnmarshalBinary sets c from an encoding. Malformed bytes give an error and leave c as it was; those of a newer
// format a *coterie.FormatError.
func (c *CausalCounter) UnmarshalBinary(b []byte) error {
	k, err := readKernel(b, kindCausalCounter, readElem[int64])
	if err != nil {
		return err
	}
	c.s.s = &k
	return nil
}

// MarshalJSON returns the sum.
func (c CausalCounter) MarshalJSON() ([]byte, error) {
	return strconv.AppendInt(nil, c.Value(), 10), nil
}

// addInt64 adds, and stays at the ends of the range.
func addInt64(a, b int64) int64 {
	switch sum := a + b; {
	case a > 0 && b > 0 && sum < 0:
		return math.MaxInt64
	case a < 0 && b < 0 && sum >= 0:
		return math.MinInt64
	default:
		return sum
	}
}

// addUint64 adds, and stays at the end of the range.
func addUint64(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	if carry != 0 {
		return math.MaxUint64
	}
	return sum
}
