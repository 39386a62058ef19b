package raft

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

// newWitnessed is a group of the voters a and b, and w, which votes without data.
func newWitnessed(t *testing.T) *group {
	t.Helper()
	g := newGroup(t, 0, nil)
	for _, id := range []coterie.NodeID{"a", "b", "w"} {
		g.add(Config{
			ID: id, Voters: map[coterie.NodeID]string{"a": "", "b": ""}, Witnesses: map[coterie.NodeID]string{"w": ""},
			ElectionTimeout: testTimeout, HeartbeatInterval: testTimeout / 10, TrailingEntries: -1,
		})
	}
	return g
}

// The entries that a witness needs may be gone when it is added: it begins at what is committed, with the configuration
// that names it.
func TestWitnessJoinsAfterCompaction(t *testing.T) {
	g := newGroup(t, 2, nil)
	a := g.elect("a")
	for i := range 20 {
		a.propose(uint64(100+i), "x")
		g.deliver()
	}
	g.heartbeat("a")
	a.snapshot()
	g.deliver()
	require.NotZero(t, a.log.start)
	g.add(Config{ID: "w", Join: true, ElectionTimeout: testTimeout, HeartbeatInterval: testTimeout / 10, TrailingEntries: -1})
	a.Reconfigure(g.now, 7, Change{Set: []Member{{ID: "w", Role: Witness}}})
	a.ready()
	g.deliver()
	g.advance(50 * testTimeout)
	w := g.nodes["w"]
	require.Equal(t, a.committed, w.committed)
	require.True(t, w.witness)
}

// A witness that is removed, by a configuration that is not even committed, still has no state to apply entries to.
func TestRemovedWitnessEmitsNothing(t *testing.T) {
	g := newWitnessed(t)
	a := g.elect("a")
	for i := range 20 {
		a.propose(uint64(100+i), "x")
		g.deliver()
	}
	g.heartbeat("a")
	w := g.nodes["w"]
	require.Empty(t, find[consensus.Committed](w))
	a.Reconfigure(g.now, 7, Change{Remove: []coterie.NodeID{"w"}})
	a.ready()
	g.deliver()
	g.heartbeat("a")
	g.advance(testTimeout)
	require.Empty(t, find[consensus.Committed](w))
}

// A witness has nothing to read from: it says so, and does not name an index that it will never apply.
func TestWitnessRefusesReads(t *testing.T) {
	g := newWitnessed(t)
	g.elect("a")
	w := g.nodes["w"]
	w.Read(g.now, 5)
	w.ready()
	g.advance(testTimeout)
	require.Empty(t, find[consensus.ReadAt](w))
	require.Len(t, find[consensus.Rejected](w), 1)
}

// Removing and adding a node in one change would keep its session: what it acknowledged without data, or on a disk that
// is wiped now, would count for a voter.
func TestNodeIsNotRemovedAndAddedInOneChange(t *testing.T) {
	m := Membership{Members: []Member{{ID: "a"}, {ID: "b"}, {ID: "w", Role: Witness}}}
	_, err := Change{Remove: []coterie.NodeID{"w"}, Set: []Member{{ID: "w", Role: Voter}}}.apply(m)
	require.ErrorIs(t, err, ErrInvalidChange)
}

// An answer to a question that has not been asked comes from nobody who keeps the protocol: it is ignored.
func TestAnswerToAQuestionNotAskedIsIgnored(t *testing.T) {
	g := newGroup(t, 3, nil)
	g.elect("a")
	b := g.nodes["b"]
	b.Read(g.now, 5)
	m := message{kind: kindReadReply, term: b.term, epoch: b.ask.epoch, round: 99, index: 1, at: 1}
	require.NoError(t, b.Step(g.now, "a", m.encode(nil)))
	require.NotPanics(t, func() { b.ready() })
	require.Empty(t, find[consensus.ReadAt](b))
}

// A member that is removed while a snapshot travels to it, and comes back, leaves no file behind.
func TestSnapshotOfAnEarlierSessionIsReleased(t *testing.T) {
	g := newGroup(t, 4, nil)
	g.cut["d"] = true
	a := g.elect("a")
	for i := range 5 {
		a.propose(uint64(100+i), "x")
		g.deliver()
	}
	g.heartbeat("a")
	a.snapshot()
	g.deliver()
	g.cut["d"] = false
	g.lose = func(m mail) bool { return m.kind() == kindSnapshot }
	for range 3 {
		g.heartbeat("a")
	}
	a.Reconfigure(g.now, 1, Change{Remove: []coterie.NodeID{"d"}})
	a.ready()
	g.deliver()
	g.heartbeat("a")
	require.NotNil(t, a.lead.find("d").transfer)
	a.propose(300, "y")
	g.deliver()
	g.heartbeat("a")
	a.snapshot() // the one under way is kept for d alone now
	g.deliver()
	require.NotEmpty(t, a.retired)
	a.Reconfigure(g.now, 2, Change{Set: []Member{{ID: "d"}}})
	a.ready()
	g.deliver()
	g.lose = nil
	g.advance(10 * testTimeout)
	require.Equal(t, a.applied, g.nodes["d"].applied)
	require.Empty(t, a.retired)
	require.Len(t, a.files, 1)
}
