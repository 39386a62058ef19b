package raft

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

// TestRejoiningNodeDoesNotDisturb cuts a follower off for a hundred timeouts: when it is back, its term has not grown
// (thesis §9.6), and the leader stays (etcd-io/etcd#14893).
func TestRejoiningNodeDoesNotDisturb(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	term := a.term
	g.cut["c"] = true
	g.advance(100 * testTimeout)
	require.Equal(t, term, g.nodes["c"].term)
	g.cut["c"] = false
	g.advance(3 * testTimeout)
	require.Equal(t, Leader, a.role)
	require.Equal(t, term, a.term)
	require.EqualValues(t, "a", g.nodes["c"].leader)
}

// TestNodeOfHigherTermComesBack is the hole that a leader's silence towards a node of a higher term makes: the node
// must be able to say so, else it is never led again (etcd-io/etcd#8501, #9586).
func TestNodeOfHigherTermComesBack(t *testing.T) {
	g := newGroup(t, 3, nil)
	g.elect("a")
	c := g.nodes["c"]
	c.becomeFollower(c.term+5, "") // it was asked for a vote that went nowhere
	c.ready()
	g.advance(10 * testTimeout)
	led := 0
	for _, id := range g.ids {
		n := g.nodes[id]
		require.Equal(t, g.nodes["a"].term, n.term)
		if n.role == Leader {
			led++
		}
	}
	require.Equal(t, 1, led)
}

// TestStaleNodeDoesNotStopElection isolates a node while the others go on, heals it and kills the leader: somebody leads
// within a few timeouts (etcd-io/etcd#8243, #10355).
func TestStaleNodeDoesNotStopElection(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	g.cut["c"] = true
	for i := range 5 {
		a.propose(uint64(i+1), "x")
		g.deliver()
	}
	g.advance(3 * testTimeout)
	g.cut["c"], g.cut["a"] = false, true
	g.advance(6 * testTimeout)
	require.Equal(t, Leader, g.nodes["b"].role)
	require.EqualValues(t, "b", g.nodes["c"].leader)
}

// TestLeaderWithoutQuorumResigns: a leader that a quorum does not answer leads no more after an election timeout.
func TestLeaderWithoutQuorumResigns(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	g.cut["a"] = true
	g.advance(testTimeout + testTimeout/5)
	require.NotEqual(t, Leader, a.role)
	require.EqualValues(t, 1, a.metrics.Resigned)
	a.propose(1, "x")
	require.ErrorIs(t, find[consensus.Rejected](a)[0].Err, coterie.ErrNotLeader)
}

// TestLeaderWithHungDiskLosesItsPlace hangs the leader's disk: its host stands still, so no heartbeat leaves, the others
// elect another, and when the sync ends the old leader neither serves a read nor takes a proposal (hashicorp/raft#503,
// etcd-io/etcd#15247).
func TestLeaderWithHungDiskLosesItsPlace(t *testing.T) {
	g := newGroup(t, 3, func(c *Config) { c.LeaseReads = true })
	a := g.elect("a")
	a.propose(1, "x")
	g.deliver()
	g.heartbeat("a")
	g.cut["a"] = true // a host in a sync takes no message and sends none
	ids := g.ids
	g.ids = []coterie.NodeID{"b", "c"}
	g.advance(5 * testTimeout)
	g.ids = ids
	g.cut["a"] = false
	require.True(t, g.nodes["b"].role == Leader || g.nodes["c"].role == Leader)
	require.Equal(t, Leader, a.role, "it has not run since")
	a.Read(g.now, 70)
	a.Propose(g.now, 71, []byte("y"))
	a.ready()
	require.Empty(t, find[consensus.ReadAt](a))
	require.Len(t, find[consensus.Rejected](a), 2)
	require.Equal(t, Follower, a.role)
	g.advance(3 * testTimeout)
	require.Equal(t, []string{"x"}, a.applied)
}

// TestRestartedNodeKeepsItsPromise: a node that acknowledged a leader, and has forgotten when, elects nobody for an
// election timeout after its restart. A lease rests on it.
func TestRestartedNodeKeepsItsPromise(t *testing.T) {
	g := newGroup(t, 3, nil)
	g.elect("a")
	b := g.nodes["b"]
	b.crash()
	ask := message{kind: kindVote, term: b.term + 1, pre: true, index: 99, at: 99}
	require.NoError(t, b.Step(g.now, "c", ask.encode(nil)))
	b.ready()
	require.True(t, g.mail[0].decode().refused)
}

// TestFollowerProtectsItsLeader: who has heard from a leader within the least election timeout helps nobody to depose
// it (thesis §4.2.3), unless the leader itself asked for it.
func TestFollowerProtectsItsLeader(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	b := g.nodes["b"]
	for _, ask := range []message{
		{kind: kindVote, term: a.term + 1, pre: true, index: 99, at: a.term},
		{kind: kindVote, term: a.term + 1, index: 99, at: a.term},
	} {
		require.NoError(t, b.Step(g.now, "c", ask.encode(nil)))
		b.ready()
		for _, m := range g.mail {
			require.True(t, m.decode().refused)
		}
		g.mail = nil
		require.Equal(t, a.term, b.term)
		require.EqualValues(t, "a", b.leader)
	}
	ask := message{kind: kindVote, term: a.term + 1, index: 99, at: a.term, forced: true}
	require.NoError(t, b.Step(g.now, "c", ask.encode(nil)))
	require.EqualValues(t, "c", b.vote)
}

// TestTransferMovesLeadership: the target has the whole log before it campaigns, nobody waits for a timeout, and the
// old leader takes no proposals meanwhile (thesis §3.10).
func TestTransferMovesLeadership(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	g.cut["b"] = true
	a.propose(1, "x")
	g.deliver()
	g.cut["b"] = false
	a.Transfer(g.now, 7, "b")
	a.propose(2, "y")
	require.Equal(t, &coterie.NotLeaderError{Leader: "b"}, find[consensus.Rejected](a)[0].Err)
	g.heartbeat("a")
	require.Equal(t, Leader, g.nodes["b"].role)
	require.Equal(t, []Done{{ID: 7}}, find[Done](a))
	require.Equal(t, []string{"x"}, g.nodes["b"].applied)
}

// TestTransferThatFailsIsGivenUp: the target is down; after an election timeout the leader takes proposals again.
func TestTransferThatFailsIsGivenUp(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	g.cut["b"] = true
	a.propose(1, "x")
	g.deliver()
	a.Transfer(g.now, 7, "b")
	a.ready()
	a.Transfer(g.now, 8, "c")
	a.ready()
	g.advance(testTimeout + testTimeout/10)
	require.Equal(t, []Done{{8, ErrBusy}, {7, ErrTransferFailed}}, find[Done](a))
	require.Equal(t, Leader, a.role)
	a.propose(2, "y")
	g.deliver()
	require.Equal(t, []string{"x", "y"}, a.applied)
}

// TestReplicationStaysWithinLimits: what is sent ahead of answers is bounded in messages and bytes for each follower,
// and what one message carries is too.
func TestReplicationStaysWithinLimits(t *testing.T) {
	g := newGroup(t, 3, func(c *Config) {
		c.MaxInflightMessages, c.MaxInflightBytes, c.MaxMessageBytes = 4, 1000, 100
	})
	a := g.elect("a")
	g.lose = func(m mail) bool { return m.to == "a" && m.from == "b" }
	for i := range 50 {
		a.propose(uint64(i+1), string(make([]byte, 60)))
	}
	require.Equal(t, 4, g.count(kindAppend, "b"))
	for _, m := range g.mail {
		require.LessOrEqual(t, m.decode().count, 1)
	}
	g.mail = nil
	g.lose = nil
	g.heartbeat("a")
	g.heartbeat("a")
	require.Len(t, g.nodes["b"].applied, 50, "and what was lost is sent again")
}

// TestLimitsRefuseInTime: a command that is too long, and one more than may wait, are refused and change nothing.
func TestLimitsRefuseInTime(t *testing.T) {
	g := newGroup(t, 3, func(c *Config) { c.MaxCommandBytes, c.MaxPendingBytes = 10, 25 })
	a := g.elect("a")
	last := a.log.last()
	a.propose(1, "12345678901")
	g.cut["a"] = true
	for id := range uint64(3) {
		a.propose(2+id, "1234567890")
	}
	rejected := find[consensus.Rejected](a)
	require.Len(t, rejected, 2)
	require.ErrorIs(t, rejected[0].Err, ErrTooLarge)
	require.ErrorIs(t, rejected[1].Err, coterie.ErrOverloaded)
	require.Equal(t, last+2, a.log.last())
}

// TestStepThatCommitsAllocatesNothing: an acknowledgement that commits an entry, and the append that carries one to a
// follower, cost no memory of their own in a steady state.
func TestStepThatCommitsAllocatesNothing(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	answers := make([][]byte, 0, 300)
	for i := range 300 {
		a.propose(uint64(i+1), "x")
		require.NoError(t, a.Step(g.now, "a", (&message{kind: kindAppendReply, term: a.term, index: a.log.last(), epoch: a.conf.index}).encode(nil)))
		answers = append(answers, (&message{
			kind: kindAppendReply, term: a.term, index: a.log.last(), round: a.lead.round, epoch: a.conf.index,
		}).encode(nil))
	}
	before, n := a.committed, 0
	allocs := testing.AllocsPerRun(200, func() {
		if err := a.Step(g.now, "b", answers[n]); err != nil {
			t.Fatal(err)
		}
		n++
	})
	require.Zero(t, allocs)
	require.Equal(t, before+201, a.committed)
}

// TestTailIsBoundedInBytes: long commands make the tail before a snapshot shorter.
func TestTailIsBoundedInBytes(t *testing.T) {
	g := newGroup(t, 1, func(c *Config) { c.TrailingEntries, c.TrailingBytes = 100, 1000 })
	a := g.elect("a")
	for i := range 50 {
		a.propose(uint64(i+1), string(make([]byte, 300)))
		g.deliver()
	}
	a.snapshot()
	require.Equal(t, a.base.index-3, a.log.start)
}

// TestUnappliedIsBounded: a slow state machine is not handed more than it may hold.
func TestUnappliedIsBounded(t *testing.T) {
	core, err := NewCore(Config{ID: "a", Seed: 1, Voters: map[coterie.NodeID]string{"a": ""}, MaxUnapplied: 20})
	require.NoError(t, err)
	g := &group{t: t, now: time.Unix(0, 0), nodes: map[coterie.NodeID]*member{}}
	m := &member{Core: core, g: g}
	g.nodes["a"], g.ids = m, []coterie.NodeID{"a"}
	core.Tick(g.now)
	core.elect(false)
	emitted := 0
	run := func() {
		for range 5 {
			r := core.Ready()
			for _, e := range r.Events {
				if c, ok := e.(consensus.Committed); ok {
					for _, entry := range c.Entries {
						emitted += len(entry.Command)
					}
				}
			}
			for _, e := range append([]coterie.Envelope(nil), r.Send...) {
				require.NoError(t, core.Step(g.now, "a", e.Payload))
			}
		}
	}
	run()
	for id := range uint64(10) {
		core.Propose(g.now, id+1, []byte("12345678"))
	}
	run()
	require.Equal(t, 16, emitted)
	core.Applied(g.now, 2)
	run()
	require.Equal(t, 16, emitted, "what is applied in part still counts")
	core.Applied(g.now, 3)
	run()
	require.Equal(t, 32, emitted)
}

// TestQuietGroupSleepsAndWakes: with nothing to do a leader falls almost silent and nobody minds; a proposal, a read, a
// follower's user or a detector wakes the group, and if the leader is dead another is elected.
func TestQuietGroupSleepsAndWakes(t *testing.T) {
	g := newGroup(t, 3, func(c *Config) { c.QuiesceAfter = testTimeout })
	a, b := g.elect("a"), g.nodes["b"]
	a.propose(1, "x")
	g.advance(3 * testTimeout)
	sent := 0
	g.lose = func(mail) bool { sent++; return false }
	g.advance(20 * testTimeout)
	require.Less(t, sent, 40, "instead of 800")
	require.Equal(t, Leader, a.role)
	require.EqualValues(t, 1, a.term)
	g.lose = nil
	a.propose(2, "y")
	g.deliver()
	g.heartbeat("a")
	require.Equal(t, []string{"x", "y"}, b.applied)
	g.advance(5 * testTimeout)
	require.True(t, b.calm)
	b.Read(g.now, 3)
	b.ready()
	g.deliver()
	require.Len(t, find[consensus.ReadAt](b), 1)
	g.advance(5 * testTimeout)
	require.True(t, b.calm)
	g.cut["a"] = true
	b.Liveness(g.now, "a", coterie.Dead)
	b.ready()
	g.advance(6 * testTimeout)
	require.True(t, b.role == Leader || g.nodes["c"].role == Leader)
}

// TestPriorityDecidesWhoLeads: leadership goes to a caught-up voter of a higher priority, by itself.
func TestPriorityDecidesWhoLeads(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	a.Reconfigure(g.now, 1, Change{Set: []Member{{ID: "c", Priority: 2}}})
	a.ready()
	g.advance(2 * testTimeout)
	require.Equal(t, Leader, g.nodes["c"].role)
	require.GreaterOrEqual(t, g.nodes["a"].timeout, testTimeout*3/2)
}

// TestUnsafeRecoverWithoutMajority: two of three are gone for good; the third goes on alone, and the ones that come
// back nevertheless follow it.
func TestUnsafeRecoverWithoutMajority(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	a.propose(1, "x")
	g.deliver()
	c := g.nodes["c"]
	a.UnsafeRecover(g.now, 1, []coterie.NodeID{"a"})
	a.ready()
	require.Equal(t, []Done{{1, ErrBusy}}, find[Done](a), "there is a majority")
	g.cut["a"], g.cut["b"] = true, true
	g.advance(5 * testTimeout)
	for _, bad := range [][]coterie.NodeID{{"a"}, {"c", "x"}, {}} {
		c.UnsafeRecover(g.now, 2, bad)
		c.ready()
	}
	for _, d := range find[Done](c) {
		require.ErrorIs(t, d.Err, ErrInvalidChange)
	}
	c.UnsafeRecover(g.now, 3, []coterie.NodeID{"c"})
	c.ready()
	g.advance(3 * testTimeout)
	require.Equal(t, Leader, c.role)
	c.propose(5, "y")
	g.deliver()
	require.Equal(t, []string{"x", "y"}, c.applied)
	c.crash()
	g.advance(3 * testTimeout)
	require.Equal(t, []string{"x", "y"}, c.applied)
}

// TestTraceTellsEveryEvent: an observer sees what a formal specification speaks of, with the state after it.
func TestTraceTellsEveryEvent(t *testing.T) {
	kinds := map[TraceKind]int{}
	var sent, received []TraceMessage
	g := newGroup(t, 3, func(c *Config) {
		c.Trace = func(e TraceEvent) {
			kinds[e.Kind]++
			if e.Kind == TraceSend {
				sent = append(sent, *e.Message)
			}
			if e.Kind == TraceReceive {
				received = append(received, *e.Message)
			}
		}
	})
	a := g.elect("a")
	a.propose(1, "x")
	g.deliver()
	a.Reconfigure(g.now, 1, Change{Remove: []coterie.NodeID{"c"}})
	a.ready()
	g.deliver()
	a.snapshot()
	for k := TraceInit; k <= TraceReady; k++ {
		require.NotZero(t, kinds[k], "%v", k)
	}
	require.Equal(t, len(sent), len(received))
	found := false
	for _, m := range sent {
		found = found || m.Type == "AppendEntries" && len(m.Entries) == 1 && string(m.Entries[0].Command) == "x"
	}
	require.True(t, found)
}
