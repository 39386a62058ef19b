package paxos

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/quorum"
)

// Member is a node of a configuration.
type Member struct {
	ID      coterie.NodeID
	Address string // where it is reached; empty if the transport knows
}

func compareMembers(a, b Member) int { return strings.Compare(string(a.ID), string(b.ID)) }

// ConfigChanged is an event: these are the members from slot From on. It is told when the command that says so has been
// chosen, which is Alpha slots before, and when a snapshot brings it.
type ConfigChanged struct {
	From    uint64
	Members []Member
}

// Done is an event, the answer to Reconfigure.
type Done struct {
	ID  uint64
	Err error
}

// configuration is who decides on the slots from one on, until the next configuration.
type configuration struct {
	from    uint64
	members []Member // sorted
	quorums quorum.ReadWrite
	accepts quorum.System // phase 2
	wins    quorum.Set    // the last set that was found to be a phase 2 quorum, for most votes are alike
}

func newConfiguration(from uint64, members []Member, quorums func([]coterie.NodeID) (quorum.ReadWrite, error)) (*configuration, error) {
	c := &configuration{from: from, members: members}
	if len(members) == 0 {
		return c, nil // of a node that joins: it takes no part yet
	}
	ids := make([]coterie.NodeID, len(members))
	for i, m := range members {
		if m.ID == "" {
			return nil, errors.New("a member's ID is empty")
		}
		if i > 0 && members[i-1].ID >= m.ID {
			return nil, fmt.Errorf("members %q and %q are not in order", members[i-1].ID, m.ID)
		}
		ids[i] = m.ID
	}
	var err error
	if c.quorums, err = quorums(ids); err != nil {
		return nil, err
	}
	if len(c.quorums.Nodes()) == 0 {
		return nil, errors.New("there is no quorum")
	}
	for _, id := range c.quorums.Nodes() {
		if !slices.Contains(ids, id) {
			return nil, fmt.Errorf("the quorums speak of %q, which is no member", id)
		}
	}
	c.accepts = c.quorums.Write()
	return c, nil
}

func (c *configuration) has(id coterie.NodeID) bool {
	return slices.ContainsFunc(c.members, func(m Member) bool { return m.ID == id })
}

// chooses reports whether the votes are a phase 2 quorum.
func (c *configuration) chooses(votes quorum.Set) bool {
	if votes == c.wins && votes != 0 {
		return true
	}
	if !c.accepts.IsQuorum(votes) {
		return false
	}
	c.wins = votes
	return true
}

// The encoding of members is their count, then ID and address of each. It is the value of a configuration's slot.
func appendMembers(b []byte, members []Member) []byte {
	b = wire.AppendUvarint(b, uint64(len(members)))
	for _, m := range members {
		b = wire.AppendString(wire.AppendString(b, m.ID), m.Address)
	}
	return b
}

func readMembers(r *wire.Reader) []Member {
	members := make([]Member, r.Count(2))
	for i := range members {
		members[i] = Member{coterie.NodeID(r.String()), r.String()}
		if i > 0 && members[i-1].ID >= members[i].ID {
			r.Fail("members are not in order")
		}
	}
	return members
}

// configAt returns the configuration that decides on a slot. Slots before the base are not asked for.
func (c *Core) configAt(slot uint64) *configuration {
	for i := len(c.confs) - 1; i > 0; i-- {
		if c.confs[i].from <= slot {
			return c.confs[i]
		}
	}
	return c.confs[0]
}

// active returns the configurations that decide on what is not chosen yet.
func (c *Core) active() []*configuration {
	i := len(c.confs) - 1
	for i > 0 && c.confs[i].from > c.chosen+1 {
		i--
	}
	return c.confs[i:]
}

// member reports whether this node is in a configuration that decides on what is not chosen yet.
func (c *Core) member() bool {
	return slices.ContainsFunc(c.active(), func(conf *configuration) bool { return conf.has(c.cfg.ID) })
}

// adoptChosen takes up the configuration that was chosen in a slot: it decides from Alpha slots on (Lamport 2001, §3).
// One that no correct leader proposes is passed over, by every node alike.
func (c *Core) adoptChosen(slot uint64, e *consensus.Entry) {
	if !e.Internal || len(e.Command) == 0 {
		return
	}
	r := wire.NewReader(e.Command)
	members := readMembers(&r)
	if r.Done() != nil || len(members) == 0 {
		return
	}
	from := slot + uint64(c.cfg.Alpha)
	if c.bugs.configAtOnce {
		from = slot + 1
	}
	conf, err := newConfiguration(from, members, c.cfg.Quorums)
	if err != nil {
		return
	}
	c.confs = append(c.confs, conf)
	c.metrics.ConfigChanges++
	c.configured()
}

// configured tells of the newest configuration.
func (c *Core) configured() {
	conf := c.confs[len(c.confs)-1]
	c.out.Emit(ConfigChanged{From: conf.from, Members: slices.Clone(conf.members)})
	if c.lead != nil {
		c.lead.unsettled = true
	}
	c.rebuildPeers()
}

// Reconfigure makes others the members. The answer is a Done with the id, when the new configuration decides, which is
// Alpha slots after the one it is chosen in (the leader fills them with no-ops if need be), and needs the former members
// no more. As each slot has one configuration, the old and the new one need not meet.
func (c *Core) Reconfigure(now time.Time, id uint64, members []Member) {
	c.enter(now)
	members = slices.Clone(members)
	slices.SortFunc(members, compareMembers)
	_, err := newConfiguration(0, members, c.cfg.Quorums)
	switch {
	case c.lead == nil:
		c.out.Emit(Done{id, c.notLeader()})
	case len(members) == 0:
		c.out.Emit(Done{id, fmt.Errorf("%w: there are none", ErrInvalidChange)})
	case err != nil:
		c.out.Emit(Done{id, fmt.Errorf("%w: %w", ErrInvalidChange, err)})
	case c.lead.change != nil || len(c.active()) > 1 || !c.current():
		c.out.Emit(Done{id, ErrBusy})
	default:
		value := appendMembers(nil, members)
		c.lead.change = &change{id: id, value: value}
		c.lead.queue = append(c.lead.queue, consensus.Entry{Term: c.bid.ballot.Round, Internal: true, Command: value})
		c.pending += len(value)
	}
}

// change is a reconfiguration that somebody waits for.
type change struct {
	id    uint64
	value []byte
	slot  uint64 // it was proposed in; 0 until then
}

// fillTo returns the last slot that must be decided for a chosen configuration to come into force.
func (c *Core) fillTo() uint64 {
	if last := c.confs[len(c.confs)-1].from; last > c.chosen+1 {
		return last - 1
	}
	return 0
}

// settle ends a reconfiguration once it is in force and the former members are not needed any more: a phase 2 quorum of
// the new ones knows that all before is chosen, so that each phase 1 quorum of them finds it out. A leader that is no
// member any more leads until then.
func (c *Core) settle() {
	l := c.lead
	active := c.active()
	if !l.unsettled || len(active) > 1 || active[0].accepts.Committed(l.knows)+1 < active[0].from {
		return
	}
	if ch := l.change; ch != nil && ch.slot != 0 && ch.slot < active[0].from {
		l.change = nil
		c.out.Emit(Done{ID: ch.id})
	}
	l.unsettled = l.change != nil
	if !c.member() {
		c.beat() // what is chosen the others must hear before it goes
		c.becomeFollower("")
	}
}
