package quorum

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/coterie-go/coterie"
)

// Threshold is the System of any k of the nodes, each of which must be named once.
func Threshold(k int, nodes ...coterie.NodeID) System { return threshold("Threshold", k, nodes) }

// Weighted is the System of all sets of nodes whose weights sum to need or more (Gifford 1979). Weights must be at
// least 0; a node of weight 0 takes part in no decision. For a weighted majority need is total/2 + 1.
func Weighted(weights map[coterie.NodeID]int, need int) System {
	if len(weights) > MaxNodes {
		return invalid("Weighted has %d nodes; at most %d", len(weights), MaxNodes)
	}
	ids := slices.Sorted(maps.Keys(weights))
	ws, total := make([]int, len(ids)), 0
	for i, id := range ids {
		ws[i] = weights[id]
		if ws[i] < 0 || ws[i] > math.MaxInt-total {
			return invalid("Weighted gives node %q the weight %d: negative, or too much together", id, ws[i])
		}
		total += ws[i]
	}
	if need < 1 || need > total {
		return invalid("Weighted needs %d of a total weight of %d", need, total)
	}
	return newSystem(ids, gate{need: need, terms: group(ws)})
}

// Grid reads any whole row and writes one node of every row (after Cheung, Ammar and Ahamad 1992). Rows may differ
// in length. Reads cost a row's length, writes the number of rows; swap them with NewReadWrite(g.Write(), g.Read()).
func Grid(rows ...[]coterie.NodeID) (ReadWrite, error) {
	wholes := make([]System, len(rows))
	for i, row := range rows {
		wholes[i] = threshold(fmt.Sprintf("row %d of Grid", i), len(row), row)
	}
	if err := distinct("Grid", slices.Concat(rows...)); err != nil {
		return ReadWrite{}, err
	}
	return FromReads(choose("Grid", 1, wholes))
}

// Tree is the tree quorum protocol (Agrawal and El Abbadi 1991): the nodes are a binary tree in the order of a heap,
// the root first; a quorum is a path from the root to a leaf, in which a node that is missing is replaced by paths from
// both of its children. In the best case a quorum has log n nodes. Its quorums meet one another.
func Tree(nodes ...coterie.NodeID) System {
	if len(nodes) == 0 {
		return invalid("Tree of no nodes")
	}
	if err := distinct("Tree", nodes); err != nil {
		return broken(err)
	}
	var at func(i int) System
	at = func(i int) System {
		parts := []System{Node(nodes[i])}
		for child := 2*i + 1; child <= 2*i+2 && child < len(nodes); child++ {
			parts = append(parts, at(child))
		}
		return Choose(min(2, len(parts)), parts...)
	}
	return at(0)
}

// Hierarchical is a majority of groups, each by its own quorum (Kumar 1991). Groups may again be Hierarchical. Of n
// nodes in groups of three at every level a quorum has n^0.63 nodes.
func Hierarchical(groups ...System) System {
	return choose("Hierarchical", len(groups)/2+1, groups)
}

// NRW reads any r and writes any w of the n nodes, as in Dynamo (DeCandia et al. 2007). Unless r + w > n it returns a
// *DisjointError that names two quorums. Writes meet one another if 2w > n.
func NRW(nodes []coterie.NodeID, r, w int) (ReadWrite, error) {
	return NewReadWrite(threshold("NRW reading", r, nodes), threshold("NRW writing", w, nodes))
}

// FlexiblePaxos replicates to any phase2 of the nodes, its writes, and elects by the fewest that meet all of those,
// its reads (Howard, Malkhi and Spiegelman 2016).
func FlexiblePaxos(phase2 int, nodes ...coterie.NodeID) (ReadWrite, error) {
	return FromWrites(threshold("FlexiblePaxos", phase2, nodes))
}

// FastPaxos returns the quorums of Fast Paxos (Lamport 2006, §2.2): classic quorums are majorities, and fast quorums
// are the smallest sets such that any two of them and a classic one have a node in common.
func FastPaxos(nodes ...coterie.NodeID) (classic, fast System) {
	n := len(nodes)
	c := n/2 + 1
	return threshold("FastPaxos", c, nodes), threshold("FastPaxos", (2*n-c)/2+1, nodes)
}

// Byzantine is the System of quorums of which any two have a correct node in common while at most f of n >= 3f+1 nodes
// lie: dissemination quorums (Malkhi and Reiter 1998, §5), which is what PBFT counts. With n = 3f+1 a quorum is 2f+1
// nodes. It needs at least 4 nodes; f is (n-1)/3. For data that is not signed use Masking.
func Byzantine(nodes ...coterie.NodeID) System {
	n := len(nodes)
	if n < 4 {
		return invalid("Byzantine of %d nodes; to survive one it takes 4", n)
	}
	f := (n - 1) / 3
	return threshold("Byzantine", (n+f)/2+1, nodes)
}

// Masking is the System of quorums of which any two have 2f+1 nodes in common while at most f of n >= 4f+1 nodes lie,
// so that a value that f+1 nodes of a quorum vouch for is true without signatures (Malkhi and Reiter 1998, §4). With
// n = 4f+1 a quorum is 3f+1 nodes. It needs at least 5 nodes; f is (n-1)/4.
func Masking(nodes ...coterie.NodeID) System {
	n := len(nodes)
	if n < 5 {
		return invalid("Masking of %d nodes; to survive one it takes 5", n)
	}
	f := (n - 1) / 4
	return threshold("Masking", (n+2*f)/2+1, nodes)
}

func distinct(what string, ids []coterie.NodeID) error {
	seen := make(map[coterie.NodeID]bool, len(ids))
	for _, id := range ids {
		if seen[id] {
			return fmt.Errorf("quorum: %s names node %q twice", what, id)
		}
		seen[id] = true
	}
	return nil
}
