package twophase

import (
	"maps"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/txn"
)

// Open is an unfinished transaction as one node sees it, in one role.
type Open struct {
	ID          txn.ID
	Coordinator coterie.NodeID
	Phase       Phase
	Since       time.Time        // when the node heard of it, or voting began; zero if before its start
	Waiting     []coterie.NodeID // at the coordinator: who has not voted, or not acknowledged
}

// Status is what a node knows of its unfinished transactions.
type Status struct {
	ID           coterie.NodeID
	Epoch        uint64 // number of this start of the node
	Coordinating []Open // sorted by ID
	Taking       []Open // those in which the resource takes part, sorted by ID
	InDoubt      int    // of Taking, those that voted yes and wait for the decision
}

// Status tells which transactions are unfinished, and what they wait for.
func (c *Core) Status() Status {
	s := Status{ID: c.cfg.ID, Epoch: c.epoch}
	for _, id := range slices.Sorted(maps.Keys(c.coord)) {
		t := c.coord[id]
		open := Open{ID: id, Coordinator: c.cfg.ID, Phase: t.phase, Since: t.since}
		switch t.phase {
		case Voting:
			open.Waiting = t.waiting(saidNothing)
		case Committing:
			open.Waiting = t.waiting(saidYes)
		default:
		}
		s.Coordinating = append(s.Coordinating, open)
	}
	for _, id := range slices.Sorted(maps.Keys(c.part)) {
		p := c.part[id]
		s.Taking = append(s.Taking, Open{ID: id, Coordinator: p.coordinator, Phase: p.phase, Since: p.since})
		if p.phase == Prepared {
			s.InDoubt++
		}
	}
	return s
}
