package clock

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/coterie-go/coterie"
)

// Dot names one event: the Seq-th of a node, counted from 1 (Almeida et al., "Scalable and Accurate Causality
// Tracking for Eventually Consistent Stores", 2014). The zero Dot names none.
type Dot struct {
	Node coterie.NodeID `json:"node"`
	Seq  uint64         `json:"seq"`
}

// Compare returns -1, 0 or +1 in a total order by Node, then Seq, which says nothing about causality between nodes.
func (d Dot) Compare(o Dot) int {
	if d.Node != o.Node {
		return strings.Compare(string(d.Node), string(o.Node))
	}
	return cmp.Compare(d.Seq, o.Seq)
}

// IsZero reports whether d names no event.
func (d Dot) IsZero() bool { return d.Seq == 0 }

// String returns "node:seq".
func (d Dot) String() string { return fmt.Sprintf("%s:%d", d.Node, d.Seq) }
