package raft

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/quorum"
)

// Role is what a member does for the cluster.
type Role uint8

// The roles.
const (
	Voter   Role = iota // holds the data, votes, may lead
	Learner             // holds the data, does not count; made a Voter when it has caught up
	Witness             // votes and counts, holds no commands: it breaks ties cheaply and never leads
)

// String returns "voter", "learner" or "witness".
func (r Role) String() string {
	switch r {
	case Voter:
		return "voter"
	case Learner:
		return "learner"
	case Witness:
		return "witness"
	}
	return fmt.Sprintf("role(%d)", uint8(r))
}

// Member is one node of a cluster.
type Member struct {
	ID      coterie.NodeID
	Address string // for the transport; may be empty if that knows
	Role    Role
	// Priority says who should lead: a member waits the longer with its candidacy the more others have a higher
	// priority, and a leader hands over to a caught-up voter of a higher one.
	Priority int
	// AutoPromote makes a Learner a Voter once it has caught up with the leader.
	AutoPromote bool
}

// votes reports whether the member counts in quorums.
func (m *Member) votes() bool { return m.Role != Learner }

// Membership is a configuration of a cluster (§6). While it is joint, every decision needs a majority of the voters
// among Members and one of Outgoing.
type Membership struct {
	Members  []Member // sorted by ID
	Outgoing []Member // the former voters and witnesses while the change is under way, sorted by ID; else empty
}

// Joint reports whether a change is under way.
func (m Membership) Joint() bool { return len(m.Outgoing) > 0 }

// isWitness reports whether a node holds no data, on either side of a joint configuration.
func (m Membership) isWitness(id coterie.NodeID) bool {
	is := func(x Member) bool { return x.ID == id && x.Role == Witness }
	return slices.ContainsFunc(m.Members, is) || slices.ContainsFunc(m.Outgoing, is)
}

// Find returns the member of that ID among Members.
func (m Membership) Find(id coterie.NodeID) (Member, bool) {
	i, ok := slices.BinarySearchFunc(m.Members, id, func(m Member, id coterie.NodeID) int {
		return strings.Compare(string(m.ID), string(id))
	})
	if !ok {
		return Member{}, false
	}
	return m.Members[i], true
}

// elects reports whether the member may lead: it is a voter, on either side.
func (m Membership) elects(id coterie.NodeID) bool {
	in, ok := m.Find(id)
	out, was := Membership{Members: m.Outgoing}.Find(id)
	return ok && in.Role == Voter || was && out.Role == Voter
}

// Voters returns the ids of the members that count in quorums, sorted.
func (m Membership) Voters() []coterie.NodeID { return votersOf(m.Members) }

func votersOf(members []Member) []coterie.NodeID {
	var ids []coterie.NodeID
	for i := range members {
		if members[i].votes() {
			ids = append(ids, members[i].ID)
		}
	}
	return ids
}

// System returns the quorum system of the configuration: a majority of the voters, while joint one of both sets.
func (m Membership) System() quorum.System {
	system := quorum.Majority(m.Voters()...)
	if m.Joint() {
		system = quorum.And(system, quorum.Majority(votersOf(m.Outgoing)...))
	}
	return system
}

// Equal reports whether two configurations are the same.
func (m Membership) Equal(o Membership) bool {
	return slices.Equal(m.Members, o.Members) && slices.Equal(m.Outgoing, o.Outgoing)
}

// String lists the members, "a b c(learner)", and "<- a b" behind them while joint.
func (m Membership) String() string {
	s := listMembers(m.Members)
	if m.Joint() {
		s += " <- " + listMembers(m.Outgoing)
	}
	return s
}

func listMembers(members []Member) string {
	words := make([]string, len(members))
	for i := range members {
		words[i] = string(members[i].ID)
		if members[i].Role != Voter {
			words[i] += "(" + members[i].Role.String() + ")"
		}
	}
	return strings.Join(words, " ")
}

func (m Membership) clone() Membership {
	return Membership{Members: slices.Clone(m.Members), Outgoing: slices.Clone(m.Outgoing)}
}

// Change is a wish for another configuration. It is carried out through a joint configuration if more than one voter
// comes or goes, else in a single step.
type Change struct {
	Set    []Member         // to add, or to change: role, address or priority; an empty address keeps the present one
	Remove []coterie.NodeID // to remove; one that is no member is an error
}

// ErrInvalidChange is returned for a change of members that makes no sense; nothing was done.
var ErrInvalidChange = errors.New("raft: invalid change of members")

// apply returns the configuration that the change leads to from m, which is not joint.
func (change Change) apply(m Membership) (Membership, error) {
	next := m.clone()
	for _, id := range change.Remove {
		i := slices.IndexFunc(next.Members, func(m Member) bool { return m.ID == id })
		if i < 0 {
			return m, fmt.Errorf("%w: %s is no member", ErrInvalidChange, id)
		}
		next.Members = slices.Delete(next.Members, i, i+1)
	}
	for _, set := range change.Set {
		if set.ID == "" || set.Role > Witness {
			return m, fmt.Errorf("%w: member %q as %v", ErrInvalidChange, set.ID, set.Role)
		}
		if slices.Contains(change.Remove, set.ID) {
			// One that is removed and added anew begins a new session, between two changes; else what its old disk had
			// acknowledged, perhaps without data, would count.
			return m, fmt.Errorf("%w: %s is set and removed", ErrInvalidChange, set.ID)
		}
		i := slices.IndexFunc(next.Members, func(m Member) bool { return m.ID == set.ID })
		if i < 0 {
			next.Members = append(next.Members, set)
			continue
		}
		old := &next.Members[i]
		if (old.Role == Witness) != (set.Role == Witness) {
			return m, fmt.Errorf("%w: %s is a %v and cannot become a %v: remove it, and add another node",
				ErrInvalidChange, set.ID, old.Role, set.Role)
		}
		if set.Address == "" {
			set.Address = old.Address
		}
		*old = set
	}
	sortMembers(next.Members)
	if err := next.sound(); err != nil {
		return m, fmt.Errorf("%w: %w", ErrInvalidChange, err)
	}
	return next, nil
}

// sound returns an error unless the members can be a cluster. A witness may hold the index and term of an entry whose
// command no other member holds any more; it then votes for none of them. So the voters with data must be a majority
// without the witnesses.
func (m Membership) sound() error {
	voters, witnesses := 0, 0
	for i := range m.Members {
		switch m.Members[i].Role {
		case Voter:
			voters++
		case Witness:
			witnesses++
		case Learner:
		}
	}
	switch {
	case voters == 0:
		return errors.New("no voter")
	case witnesses >= voters:
		return fmt.Errorf("%d witnesses for %d voters: there must be fewer", witnesses, voters)
	}
	return m.System().Err()
}

func sortMembers(members []Member) {
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(string(a.ID), string(b.ID)) })
}

// stepTo returns the configuration to append first on the way from m to next: next itself if at most one voter comes
// or goes, for then every majority of the one meets every majority of the other (thesis §4.1); else both (§6).
func (m Membership) stepTo(next Membership) Membership {
	before, after := m.Voters(), next.Voters()
	differ := 0
	for _, id := range before {
		if !slices.Contains(after, id) {
			differ++
		}
	}
	for _, id := range after {
		if !slices.Contains(before, id) {
			differ++
		}
	}
	if differ <= 1 {
		return next
	}
	next = next.clone()
	for _, old := range m.Members {
		if old.votes() {
			next.Outgoing = append(next.Outgoing, old)
		}
	}
	return next
}

func appendMembership(b []byte, m Membership) []byte {
	return appendMembers(appendMembers(b, m.Members), m.Outgoing)
}

func appendMembers(b []byte, members []Member) []byte {
	b = wire.AppendUvarint(b, uint64(len(members)))
	for i := range members {
		m := &members[i]
		b = wire.AppendString(b, m.ID)
		b = wire.AppendString(b, m.Address)
		b = append(b, byte(m.Role))
		b = wire.AppendVarint(b, int64(m.Priority))
		b = wire.AppendBool(b, m.AutoPromote)
	}
	return b
}

func readMembership(r *wire.Reader) Membership {
	m := Membership{Members: readMembers(r)}
	m.Outgoing = readMembers(r)
	return m
}

func readMembers(r *wire.Reader) []Member {
	n := r.Count(5)
	if n == 0 {
		return nil
	}
	members := make([]Member, 0, n)
	for range n {
		m := Member{ID: coterie.NodeID(r.String()), Address: r.String(), Role: Role(r.Byte())}
		m.Priority, m.AutoPromote = int(r.Varint()), r.Bool()
		if r.Err() != nil {
			return nil
		}
		if m.ID == "" || m.Role > Witness || len(members) > 0 && members[len(members)-1].ID >= m.ID {
			r.Fail("bad member %q", m.ID)
			return nil
		}
		members = append(members, m)
	}
	return members
}

// decodeMembership reads the command of a configuration entry, which begins with a format byte of its own.
func decodeMembership(command []byte) (Membership, error) {
	r := wire.NewReader(command)
	if f := r.Byte(); f > format {
		return Membership{}, &coterie.FormatError{What: "raft configuration", Got: f, Max: format}
	}
	m := readMembership(&r)
	if len(m.Voters()) == 0 || m.Joint() && len(votersOf(m.Outgoing)) == 0 {
		r.Fail("no voters")
	}
	return m, r.Done()
}

func encodeMembership(m Membership) []byte { return appendMembership([]byte{format}, m) }
