package raft

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

// TestLeaseEndsInTime: a leader answers by its lease without a message, and no longer than the clocks allow.
func TestLeaseEndsInTime(t *testing.T) {
	g := newGroup(t, 3, func(c *Config) { c.LeaseReads, c.ClockDrift = true, 0.2 })
	a := g.elect("a")
	a.Read(g.now, 1)
	a.ready()
	require.Len(t, find[consensus.ReadAt](a), 1)
	require.Empty(t, g.mail)
	g.cut["a"] = true
	lease := testTimeout * 8 / 12
	began := a.lead.contact
	for id := uint64(2); a.role == Leader; id++ {
		before := len(find[consensus.ReadAt](a))
		a.Read(g.now, id)
		a.ready()
		served := len(find[consensus.ReadAt](a)) > before
		require.Equal(t, a.elapsed() < began+lease, served, "after %v", a.elapsed()-began)
		g.now = g.now.Add(testTimeout / 50)
		a.Tick(g.now)
		a.ready()
		g.deliver()
	}
}

// TestLeaseIsVoidOnceTransferBegins: from TimeoutNow on, another may be elected whatever was promised (tikv/tikv#1593,
// etcd-io/raft#99).
func TestLeaseIsVoidOnceTransferBegins(t *testing.T) {
	g := newGroup(t, 3, func(c *Config) { c.LeaseReads = true })
	a := g.elect("a")
	a.Transfer(g.now, 1, "b")
	a.ready()
	g.lose = func(m mail) bool { return m.to == "a" }
	g.deliver()
	require.Equal(t, Leader, g.nodes["b"].role)
	require.Equal(t, Leader, a.role, "it does not know")
	a.Read(g.now, 2)
	a.ready()
	require.Empty(t, find[consensus.ReadAt](a))
}

// TestFollowerReads: a follower asks the leader, all reads of a batch at once, and an answer to a former incarnation is
// none.
func TestFollowerReads(t *testing.T) {
	g := newGroup(t, 3, nil)
	a, b := g.elect("a"), g.nodes["b"]
	a.propose(1, "x")
	g.deliver()
	for id := range uint64(10) {
		b.Read(g.now, 100+id)
	}
	b.ready()
	require.Equal(t, 1, g.count(kindRead, "a"))
	var answers []mail
	g.lose = func(m mail) bool {
		if m.kind() == kindReadReply {
			answers = append(answers, m)
		}
		return false
	}
	g.deliver()
	reads := find[consensus.ReadAt](b)
	require.Len(t, reads, 10)
	require.GreaterOrEqual(t, reads[0].Index, uint64(2))
	require.Equal(t, []string{"x"}, b.applied, "it need not wait for the next heartbeat")
	b.crash()
	b.events = nil
	g.heartbeat("a")
	b.Read(g.now, 1)
	b.ready()
	g.mail = answers
	g.deliver()
	require.Empty(t, find[consensus.ReadAt](b), "an answer to the incarnation before")
	g.advance(testTimeout)
	require.Len(t, find[consensus.ReadAt](b), 1, "the question was lost, and is put again")
}

// TestFollowerReadsByLease: the leader answers at once, without a heartbeat that would tell what is committed; the
// answer does.
func TestFollowerReadsByLease(t *testing.T) {
	g := newGroup(t, 3, func(c *Config) { c.LeaseReads = true })
	a, b := g.elect("a"), g.nodes["b"]
	a.propose(1, "x")
	g.deliver()
	require.Empty(t, b.applied)
	b.Read(g.now, 9)
	b.ready()
	g.deliver()
	require.Len(t, find[consensus.ReadAt](b), 1)
	require.Equal(t, []string{"x"}, b.applied)
}

// TestReadsAreRefusedInTheEnd: a follower whose leader is gone does not keep a reader waiting for ever.
func TestReadsAreRefusedInTheEnd(t *testing.T) {
	g := newGroup(t, 3, nil)
	g.elect("a")
	b := g.nodes["b"]
	g.cut["a"], g.cut["c"] = true, true
	b.Read(g.now, 5)
	b.ready()
	g.advance(4 * testTimeout)
	require.Len(t, find[consensus.Rejected](b), 1)
	require.ErrorIs(t, find[consensus.Rejected](b)[0].Err, coterie.ErrNotLeader)
}

// TestReadBeforeOwnTermCommits: a new leader does not know what is committed (etcd-io/etcd#3879).
func TestReadBeforeOwnTermCommits(t *testing.T) {
	g := newGroup(t, 3, nil)
	g.elect("a").propose(1, "x")
	g.deliver()
	b := g.nodes["b"]
	var held []mail
	g.lose = func(m mail) bool {
		// Answers to b's appends reach it without what they say of the log.
		if m.to == "b" && m.kind() == kindAppendReply && m.decode().index > 2 {
			held = append(held, m)
			return true
		}
		return false
	}
	g.now = g.now.Add(3 * testTimeout)
	b.electionDue = b.elapsed()
	b.Tick(g.now)
	b.ready()
	g.deliver()
	require.Equal(t, Leader, b.role)
	b.Read(g.now, 9)
	b.ready()
	g.deliver()
	require.Empty(t, find[consensus.ReadAt](b))
	g.lose = nil
	g.mail = held
	g.deliver()
	g.heartbeat("b")
	require.Len(t, find[consensus.ReadAt](b), 1)
}

// TestPausedLeaderConfirmsNothingNew pauses a leader between a read and its confirmation, elects another that commits,
// and lets the paused one read on with the old answers in its inbox (etcd-io/etcd#20418).
func TestPausedLeaderConfirmsNothingNew(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	a.Read(g.now, 1)
	a.ready()
	var answers []mail
	g.lose = func(m mail) bool {
		if m.to == "a" {
			answers = append(answers, m)
			return true
		}
		return false
	}
	g.deliver()
	ids := g.ids
	g.ids = []coterie.NodeID{"b", "c"}
	g.advance(5 * testTimeout)
	g.ids = ids
	for _, id := range g.ids[1:] {
		if n := g.nodes[id]; n.role == Leader {
			n.propose(9, "new")
			g.deliver()
		}
	}
	a.Read(g.now, 2)
	for _, m := range answers {
		require.NoError(t, a.Step(g.now, m.from, m.payload))
	}
	a.ready()
	require.Empty(t, find[consensus.ReadAt](a))
}
