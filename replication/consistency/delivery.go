package consistency

import (
	"fmt"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
)

// Delivery is one message handed to the application of one node.
type Delivery struct {
	At   coterie.NodeID // who delivered it
	From coterie.NodeID // who sent it
	Name string         // for reports
	Time clock.Vector   // vector time of its sending, in which that event of From is counted
}

// Misdelivery is a pair of messages that one node delivered against causal order: the sending of Early happened
// before that of Late, but Late was delivered first. Both are indices of the trace.
type Misdelivery struct {
	At          coterie.NodeID
	Late, Early int
}

// CausalDelivery returns all pairs of messages that a node delivered against causal order (Birman, Schiper and
// Stephenson 1991, §3), in the order of the trace, which lists each node's deliveries in their order; those of
// different nodes may be mixed in any way. A message that was never delivered is not missed. Where nothing is wrong it
// takes time linear in the size of the trace.
func CausalDelivery(trace []Delivery) []Misdelivery {
	type node struct {
		delivered []int
		known     clock.Vector // of every delivered message's time, the highest counts
	}
	nodes := make(map[coterie.NodeID]*node)
	var found []Misdelivery
	for i := range trace {
		d := &trace[i]
		n := nodes[d.At]
		if n == nil {
			n = &node{}
			nodes[d.At] = n
		}
		// Who knows as many of the sender's events as this message counts was sent after it, or is it.
		if n.known.Get(d.From) >= d.Time.Get(d.From) {
			for _, j := range n.delivered {
				if d.Time.Compare(trace[j].Time) == clock.Before {
					found = append(found, Misdelivery{At: d.At, Late: j, Early: i})
				}
			}
		}
		n.known.Merge(d.Time)
		n.delivered = append(n.delivered, i)
	}
	return found
}

// Explain says in a sentence what went wrong, given the trace.
func (m Misdelivery) Explain(trace []Delivery) string {
	early, late := &trace[m.Early], &trace[m.Late]
	return fmt.Sprintf("%s delivered %q of %s before %q of %s, which had been sent before it", m.At, late.Name, late.From,
		early.Name, early.From)
}
