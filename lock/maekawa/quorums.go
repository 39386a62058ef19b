package maekawa

import (
	"errors"
	"fmt"
	"slices"

	"github.com/coterie-go/coterie"
)

// planes are difference sets of the finite projective planes, by number of points: each difference of two points modulo
// their number comes up once, so that a set and any shift of it share one point (J. Singer, "A Theorem in Finite
// Projective Geometry", 1938).
var planes = map[int][]int{
	3:  {0, 1},
	7:  {0, 1, 3},
	13: {0, 1, 3, 9},
	21: {0, 1, 4, 14, 16},
	31: {0, 1, 3, 8, 12, 18},
	57: {0, 1, 3, 13, 32, 36, 43, 52},
	73: {0, 1, 3, 7, 15, 31, 36, 54, 63},
	91: {0, 1, 3, 9, 27, 49, 56, 61, 77, 81},
}

// Quorums gives each peer a quorum: itself and so few others that any two quorums share a node, and that every node is
// in about as many. It is the line of a finite projective plane if there is one of so many points, else the row and the
// column of a grid (section 3 of the paper). The order of the peers does not matter.
func Quorums(peers []coterie.NodeID) map[coterie.NodeID][]coterie.NodeID {
	peers = slices.Sorted(slices.Values(peers))
	n := len(peers)
	quorums := make(map[coterie.NodeID][]coterie.NodeID, n)
	width := 1
	for width*width < n {
		width++
	}
	line := planes[n]
	for i, id := range peers {
		var q []coterie.NodeID
		for _, d := range line {
			q = append(q, peers[(i+d)%n])
		}
		for j := range peers {
			if line == nil && (j/width == i/width || j%width == i%width) {
				q = append(q, peers[j])
			}
		}
		quorums[id] = slices.Sorted(slices.Values(q))
	}
	return quorums
}

func (cfg Config) quorums() map[coterie.NodeID][]coterie.NodeID {
	if cfg.Quorums == nil {
		return Quorums(cfg.Peers)
	}
	return cfg.Quorums
}

// checkQuorums tells what is wrong with the quorums of a Config.
func (cfg Config) checkQuorums() error {
	if cfg.Quorums == nil {
		return nil
	}
	if len(cfg.Quorums) != len(cfg.Peers) {
		return fmt.Errorf("maekawa: Config.Quorums has %d quorums of %d peers", len(cfg.Quorums), len(cfg.Peers))
	}
	var errs []error
	for i, a := range cfg.Peers {
		members := make(map[coterie.NodeID]bool)
		for _, id := range cfg.Quorums[a] {
			if members[id] || !slices.Contains(cfg.Peers, id) {
				errs = append(errs, fmt.Errorf("maekawa: Config.Quorums of %s names %q twice, or it is no peer", a, id))
			}
			members[id] = true
		}
		for _, b := range cfg.Peers[:i+1] {
			if !slices.ContainsFunc(cfg.Quorums[b], func(id coterie.NodeID) bool { return members[id] }) {
				errs = append(errs, fmt.Errorf("maekawa: Config.Quorums of %s and %s share no node", b, a))
			}
		}
	}
	return errors.Join(errs...)
}
