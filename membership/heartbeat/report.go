package heartbeat

import (
	"fmt"
	"strings"
	"time"

	"github.com/coterie-go/coterie"
)

// Report tells who hears whom, as far as one member knows.
type Report struct {
	// Groups are the members that hear each other, directly or by way of others of the group, both ways. The first is
	// this member's own; the others are of members whose heartbeats come here by others' mouths only, or not both ways.
	Groups [][]coterie.NodeID
	// Silent are those of whom nothing new has come for Timeout, by nobody.
	Silent []coterie.NodeID
	// Majority says whether this member's own group has more than half of all members.
	Majority bool
}

// Split reports whether some of the members are not in this member's group.
func (r Report) Split() bool { return len(r.Groups) > 1 || len(r.Silent) > 0 }

// String is like "[a b c] [d] silent [e]: majority".
func (r Report) String() string {
	var b strings.Builder
	for _, g := range r.Groups {
		fmt.Fprintf(&b, "%v ", g)
	}
	if len(r.Silent) > 0 {
		fmt.Fprintf(&b, "silent %v", r.Silent)
	}
	text := strings.TrimRight(b.String(), " ")
	if r.Majority {
		return text + ": majority"
	}
	return text + ": no majority"
}

// Report tells at a time who hears whom.
func (c *Core) Report(now time.Time) Report {
	c.peers[c.me].row.hears = c.hears()
	c.peers[c.me].freshAt = now
	var r Report
	grouped := make([]bool, len(c.peers))
	group := func(first int) {
		var members set
		for queue := []int{first}; len(queue) > 0; queue = queue[1:] {
			i := queue[0]
			members.add(i)
			grouped[i] = true
			for j := range c.peers {
				if !grouped[j] && c.fresh(now, j) && c.peers[i].row.hears.has(j) && c.peers[j].row.hears.has(i) {
					grouped[j] = true
					queue = append(queue, j)
				}
			}
		}
		r.Groups = append(r.Groups, c.names(members))
	}
	group(c.me)
	r.Majority = 2*len(r.Groups[0]) > len(c.peers)
	var silent set
	for i := range c.peers {
		switch {
		case grouped[i]:
		case c.fresh(now, i):
			group(i)
		default:
			silent.add(i)
		}
	}
	r.Silent = c.names(silent)
	return r
}

// fresh reports whether a member's row is not older than the time-out.
func (c *Core) fresh(now time.Time, i int) bool {
	p := &c.peers[i]
	return p.row.life != 0 && now.Sub(p.freshAt) < c.cfg.Timeout
}

func (c *Core) names(s set) (names []coterie.NodeID) {
	for i, id := range c.cfg.Members {
		if s.has(i) {
			names = append(names, id)
		}
	}
	return names
}
