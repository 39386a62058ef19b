package crdt

import (
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
)

// Stability works out the causally stable frontier: which events every replica has (Baquero, Almeida and Shoker, "Pure
// Operation-Based Replicated Data Types", 2017, §4). What a type keeps against events that are concurrent to those can
// go: give the frontier to its Stable.
//
// Each replica tells the others, with or after the deltas that it has sent, which events it comprises; Ack notes it. A
// frontier only rests on what a replica said once one's own state comprises that too, for only then is nothing still to
// come that the replica did before.
//
// A replica that is silent holds the frontier up for ever, until it is evicted, which is for the application to decide:
// what an evicted replica has done that nobody has seen is lost, and merging its state may bring back what was removed.
// So its messages must be refused (Evicted tells), and it comes back under a new id, from a copy of another's state.
//
// The zero value has no members. It is not safe for concurrent use.
type Stability struct {
	members []acknowledged
	evicted []coterie.NodeID
}

// acknowledged is a replica with what it said last that was covered here, and what it said since.
type acknowledged struct {
	id           coterie.NodeID
	ready        clock.Vector
	next, newest clock.Vector // next is the first that was not covered yet
}

// Join makes a replica a member, which holds the frontier up until its first Ack. An evicted one stays so: it reports
// false.
func (s *Stability) Join(id coterie.NodeID) bool {
	if slices.Contains(s.evicted, id) {
		return false
	}
	if s.find(id) == nil {
		s.members = append(s.members, acknowledged{id: id})
	}
	return true
}

func (s *Stability) find(id coterie.NodeID) *acknowledged {
	for i := range s.members {
		if s.members[i].id == id {
			return &s.members[i]
		}
	}
	return nil
}

// Evict takes a replica out for good.
func (s *Stability) Evict(id coterie.NodeID) {
	s.members = slices.DeleteFunc(s.members, func(m acknowledged) bool { return m.id == id })
	if !slices.Contains(s.evicted, id) {
		s.evicted = append(s.evicted, id)
		slices.Sort(s.evicted)
	}
}

// Evicted reports whether a replica was evicted; Evictions returns all that were.
func (s *Stability) Evicted(id coterie.NodeID) bool { return slices.Contains(s.evicted, id) }

// Evictions returns the evicted replicas, sorted.
func (s *Stability) Evictions() []coterie.NodeID { return slices.Clone(s.evicted) }

// Ack notes that a member comprises the events of version; that of one which is no member has no effect. An older one
// than before does no harm.
func (s *Stability) Ack(id coterie.NodeID, version clock.Vector) {
	if m := s.find(id); m != nil {
		m.newest = m.newest.Merged(version)
		if m.next.Len() == 0 {
			m.next = m.newest.Clone()
		}
	}
}

// Frontier returns the events that all members have, as far as they were acknowledged and are covered by own, the
// version of one's own state.
func (s *Stability) Frontier(own clock.Vector) clock.Vector {
	least := own.Clone()
	for i := range s.members {
		m := &s.members[i]
		for _, v := range []clock.Vector{m.next, m.newest} {
			if v.Len() > 0 && own.Covers(v) {
				m.ready, m.next = v, clock.Vector{}
			}
		}
		if m.next.Len() == 0 && !m.ready.Covers(m.newest) {
			m.next = m.newest.Clone()
		}
		for id, n := range least.Clone().All() {
			least.Set(id, min(n, m.ready.Get(id)))
		}
	}
	return least
}
