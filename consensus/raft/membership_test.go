package raft

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/quorum"
)

// TestQuorumAgreesWithSystem compares the leader's fast rule with quorum.System.Committed.
func TestQuorumAgreesWithSystem(t *testing.T) {
	testsize.Checks(t, 200, 10000)
	rapid.Check(t, func(t *rapid.T) {
		l := &leadership{}
		var m Membership
		n := rapid.IntRange(1, 12).Draw(t, "members")
		joint := rapid.Bool().Draw(t, "joint")
		value := map[coterie.NodeID]uint64{}
		for i := range n {
			p := &peer{id: coterie.NodeID(fmt.Sprintf("n%02d", i)), match: rapid.Uint64Range(0, 5).Draw(t, "match")}
			p.voter = i == 0 || rapid.Bool().Draw(t, "voter")
			p.outgoing = joint && (i == 0 || rapid.Bool().Draw(t, "outgoing"))
			role := Learner
			if p.voter {
				role = Voter
			}
			m.Members = append(m.Members, Member{ID: p.id, Role: role})
			if p.outgoing {
				m.Outgoing = append(m.Outgoing, Member{ID: p.id})
			}
			value[p.id] = p.match
			l.peers = append(l.peers, p)
		}
		want := m.System().Committed(func(id coterie.NodeID) uint64 { return value[id] })
		if got := l.quorumOf(matchOf, joint); got != want {
			t.Fatalf("%v of %v: %d, by counting %d", value, m, got, want)
		}
	})
}

// TestSingleStepMajoritiesMeet: whatever change of members is made in one step, every two majorities meet; and a joint
// configuration's meet those of both.
func TestSingleStepMajoritiesMeet(t *testing.T) {
	testsize.Checks(t, 200, 5000)
	draw := func(t *rapid.T, name string) (m Membership) {
		for i := range 6 {
			if rapid.Bool().Draw(t, name) || i == 0 {
				role := rapid.SampledFrom([]Role{Voter, Voter, Learner}).Draw(t, "role")
				if i == 0 {
					role = Voter
				}
				m.Members = append(m.Members, Member{ID: coterie.NodeID(rune('a' + i)), Role: role})
			}
		}
		return m
	}
	rapid.Check(t, func(t *rapid.T) {
		old, next := draw(t, "old"), draw(t, "next")
		step := old.stepTo(next)
		for _, m := range []Membership{old, step} {
			if _, err := quorum.NewReadWrite(m.System(), step.System()); err != nil {
				t.Fatalf("%v -> %v by %v: %v", old, next, step, err)
			}
		}
		if !step.Joint() && !step.Equal(next) {
			t.Fatalf("a single step from %v to %v goes to %v", old, next, step)
		}
		back, err := decodeMembership(encodeMembership(step))
		if err != nil || !back.Equal(step) {
			t.Fatalf("%v becomes %v, %v", step, back, err)
		}
	})
}

// TestLearnerIsPromotedWhenCaughtUp: a learner gets the log, does not count, and becomes a voter by itself.
func TestLearnerIsPromotedWhenCaughtUp(t *testing.T) {
	g := newGroup(t, 1, nil)
	a := g.elect("a")
	for i := range 10 {
		a.propose(uint64(i+1), fmt.Sprint(i))
		g.deliver()
	}
	a.snapshot()
	g.add(Config{ID: "b", Join: true, ElectionTimeout: testTimeout, HeartbeatInterval: testTimeout / 10})
	g.cut["b"] = true
	a.Reconfigure(g.now, 3, Change{Set: []Member{{ID: "b", Role: Learner, AutoPromote: true}}})
	a.ready()
	g.deliver()
	a.propose(20, "more")
	g.deliver()
	require.Len(t, a.applied, 11, "a learner does not count")
	require.Equal(t, "a b(learner)", a.conf.String())
	a.Promote(g.now, 4, "b")
	a.ready()
	require.Equal(t, []Done{{ID: 3}, {4, ErrNotCaughtUp}}, find[Done](a))
	g.cut["b"] = false
	g.advance(testTimeout)
	require.Equal(t, "a b", a.conf.String())
	require.Equal(t, a.applied, g.nodes["b"].applied)
	require.Equal(t, "a b", g.nodes["b"].conf.String())
}

// TestWitnessVotesWithoutData: two nodes with data and a witness go on when one is gone; the witness holds no command,
// never leads, and its log stays short.
func TestWitnessVotesWithoutData(t *testing.T) {
	voters := map[coterie.NodeID]string{"a": "", "b": ""}
	g := newGroup(t, 0, nil)
	for _, id := range []coterie.NodeID{"a", "b", "w"} {
		g.add(Config{
			ID: id, Voters: voters, Witnesses: map[coterie.NodeID]string{"w": ""}, ElectionTimeout: testTimeout,
			HeartbeatInterval: testTimeout / 10, TrailingEntries: -1,
		})
	}
	a, w := g.elect("a"), g.nodes["w"]
	g.cut["b"] = true
	for i := range 3000 {
		a.propose(uint64(i+1), "secret")
		g.deliver()
	}
	require.Len(t, a.applied, 3000)
	g.heartbeat("a")
	for _, r := range w.journal {
		require.False(t, bytes.Contains(r, []byte("secret")))
	}
	require.Less(t, len(w.log.entries), 2*witnessLog)
	require.Empty(t, find[consensus.Committed](w))
	g.cut["a"] = true
	g.advance(10 * testTimeout)
	require.NotEqual(t, Leader, w.role)
	require.NotEqual(t, PreCandidate, w.role)
	require.NotEqual(t, Leader, g.nodes["b"].role, "the witness knows of entries that b lacks")
	g.cut["b"], g.cut["a"] = false, false
	g.advance(10 * testTimeout)
	require.Equal(t, a.applied, g.nodes["b"].applied)
	w.crash()
	g.advance(3 * testTimeout)
	require.Equal(t, a.committed, w.committed)
}

// TestWitnessesAreFewerThanVoters: else the witnesses could deny every vote for want of entries nobody has any more.
func TestWitnessesAreFewerThanVoters(t *testing.T) {
	_, err := NewCore(Config{
		ID: "a", Seed: 1, Voters: map[coterie.NodeID]string{"a": ""}, Witnesses: map[coterie.NodeID]string{"w": ""},
	})
	require.ErrorContains(t, err, "witnesses")
}

// TestSingleStepChange: one voter more or less needs no joint configuration, and is used as soon as it is appended.
func TestSingleStepChange(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	a.Reconfigure(g.now, 1, Change{Remove: []coterie.NodeID{"c"}})
	require.False(t, a.conf.Joint())
	require.Equal(t, "a b", a.conf.String())
	a.Reconfigure(g.now, 2, Change{Remove: []coterie.NodeID{"b"}})
	a.ready()
	g.deliver()
	g.heartbeat("a")
	require.Equal(t, []Done{{2, ErrBusy}, {ID: 1}}, find[Done](a))
	require.Equal(t, "a b", g.nodes["c"].conf.String(), "the one that was removed is told")
	g.advance(5 * testTimeout)
	require.Equal(t, Leader, a.role, "and leaves the others alone")
}

// TestChangeWaitsForEntryOfOwnTerm is the bug in the single-step change that its author found in 2015: four nodes, two
// leaders whose changes, made before either has committed in its term, have majorities that do not meet.
func TestChangeWaitsForEntryOfOwnTerm(t *testing.T) {
	g := newGroup(t, 4, nil)
	a := g.nodes["a"]
	g.lose = func(m mail) bool { return m.kind() == kindAppend }
	g.now = g.now.Add(2 * testTimeout)
	a.campaign()
	a.ready()
	g.deliver()
	require.Equal(t, Leader, a.role)
	a.Reconfigure(g.now, 1, Change{Set: []Member{{ID: "e"}}})
	a.ready()
	require.Equal(t, []Done{{1, ErrBusy}}, find[Done](a))
}

// TestConfigurationIsThatOfTheLog: a configuration that is replaced with the rest of a log is not used any more.
func TestConfigurationIsThatOfTheLog(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	g.cut["a"] = true
	a.Reconfigure(g.now, 1, Change{Remove: []coterie.NodeID{"c"}})
	a.ready()
	g.deliver()
	require.Equal(t, "a b", a.conf.String())
	a.crash()
	require.Equal(t, "a b", a.conf.String(), "it was saved, and is used until it is replaced")
	g.elect("b")
	g.cut["a"] = false
	g.heartbeat("b")
	g.heartbeat("b")
	require.Equal(t, "a b c", a.conf.String())
	a.crash()
	require.Equal(t, "a b c", a.conf.String())
}

// TestLeaderDiesAfterChangeOnlyItKnows: configurations count when they are appended, so that nothing waits for what
// only one node has applied (etcd-io/etcd#12435).
func TestLeaderDiesAfterChangeOnlyItKnows(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	a.Reconfigure(g.now, 1, Change{Remove: []coterie.NodeID{"c"}})
	a.ready()
	g.deliver() // b has it, a has committed it, b does not know
	require.NotEmpty(t, find[Done](a))
	g.cut["a"] = true
	g.cut["a"] = false
	a.crash()
	g.advance(10 * testTimeout)
	require.True(t, a.role == Leader || g.nodes["b"].role == Leader)
}

// TestReaddedMemberStartsAnew delays an answer across remove, wipe and re-add of a member within one term: it must not
// count, for it was true of another disk (drmingdrmer/raft-rejoin-bug, etcd-io/raft#349).
func TestReaddedMemberStartsAnew(t *testing.T) {
	run := func(b bugs) (match uint64) {
		g := newGroup(t, 3, nil)
		a := g.elect("a")
		for _, id := range g.ids {
			g.nodes[id].bugs = b
		}
		var late []mail
		g.lose = func(m mail) bool {
			if m.from == "c" && m.kind() == kindAppendReply {
				late = append(late, m)
				return true
			}
			return false
		}
		a.propose(1, "x")
		g.deliver()
		require.NotEmpty(t, late)
		a.Reconfigure(g.now, 1, Change{Remove: []coterie.NodeID{"c"}})
		a.ready()
		g.deliver()
		g.cut["c"] = true
		g.nodes["c"].wipe()
		a.Reconfigure(g.now, 2, Change{Set: []Member{{ID: "c"}}})
		a.ready()
		g.deliver()
		g.lose = nil
		g.mail = append(g.mail, late[len(late)-1])
		g.cut["c"] = false
		for _, m := range g.mail {
			if m.to == "a" {
				require.NoError(t, a.Step(g.now, m.from, m.payload))
			}
		}
		return a.lead.find("c").match
	}
	require.Zero(t, run(bugs{}))
	require.NotZero(t, run(bugs{oldSession: true}))
}

// TestLeaderThatIsRemovedHandsOver: it goes on until the configuration without it is committed, then the next leader is
// elected at once, and who proposed to it what is not committed is not left waiting.
func TestLeaderThatIsRemovedHandsOver(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	a.Reconfigure(g.now, 1, Change{Remove: []coterie.NodeID{"a"}})
	a.ready()
	early := g.mail
	g.mail = nil
	a.propose(5, "late")
	g.mail = early // the proposal's messages are slower than the answers to the change
	g.deliver()
	require.Equal(t, []Done{{ID: 1}}, find[Done](a))
	require.Equal(t, Follower, a.role)
	require.Equal(t, []consensus.Rejected{{ID: 5, Err: coterie.ErrUnknownOutcome}}, find[consensus.Rejected](a))
	require.True(t, g.nodes["b"].role == Leader || g.nodes["c"].role == Leader, "nobody waited for a timeout")
	g.advance(5 * testTimeout)
	require.Equal(t, Follower, a.role)
}
