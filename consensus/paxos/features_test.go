package paxos

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/quorum"
)

// leads makes the node the leader of a cluster of which nobody has accepted anything.
func (n *lone) leads(others ...coterie.NodeID) Ballot {
	n.t.Helper()
	b := n.candidate(others...)
	for _, id := range others {
		n.receive(id, promiseOf(b, 1, Ballot{}, ""))
	}
	require.NotNil(n.t, n.lead)
	return b
}

// Howard, Malkhi and Spiegelman 2016, §1: "it is only necessary for leader election quorums and replication quorums to
// intersect": with replication to any two of five, one other vote is enough, and election takes four.
func TestPaperFlexibleQuorums(t *testing.T) {
	n := newLone(t, bugs{}, "a", "b", "c", "d", "e")
	n.cfg.Quorums = func(members []coterie.NodeID) (quorum.ReadWrite, error) { return quorum.FlexiblePaxos(2, members...) }
	n.boot(bugs{})
	b := n.candidate("b", "c", "d")
	n.receive("b", promiseOf(b, 1, Ballot{}, ""))
	n.receive("c", promiseOf(b, 1, Ballot{}, ""))
	require.Nil(t, n.lead, "three of five are a majority, and not enough")
	n.receive("d", promiseOf(b, 1, Ballot{}, ""))
	require.NotNil(t, n.lead)
	n.Propose(n.now, 1, []byte("x"))
	n.ready()
	require.Zero(t, n.chosen)
	n.receive("e", message{kind: kindAccepted, ballot: b, spans: []span{{1, 1}}})
	require.EqualValues(t, 1, n.chosen)
}

// Any system will do: a grid of two rows elects by a row and replicates to one node of each.
func TestQuorumsOfAGrid(t *testing.T) {
	n := newLone(t, bugs{}, "a", "b", "c", "d", "e", "f")
	n.cfg.Quorums = func(m []coterie.NodeID) (quorum.ReadWrite, error) { return quorum.Grid(m[:3], m[3:]) }
	n.boot(bugs{})
	b := n.leads("b", "c")
	n.Propose(n.now, 1, []byte("x"))
	n.ready()
	vote := message{kind: kindAccepted, ballot: b, spans: []span{{1, 1}}}
	n.receive("b", vote)
	n.receive("c", vote)
	require.Zero(t, n.chosen, "a whole row is no quorum of phase 2")
	n.receive("f", vote)
	require.EqualValues(t, 1, n.chosen)
}

// §3: "The set of servers executing instance i + alpha of the consensus algorithm is specified by the state after
// execution of the i-th state machine command".
func TestPaper3MembersChangeAlphaLater(t *testing.T) {
	n := newLone(t, bugs{}, "a", "b", "c")
	n.cfg.Alpha = 8
	n.boot(bugs{})
	b := n.leads("b")
	vote := func(from coterie.NodeID, first, last, knows uint64) {
		n.receive(from, message{kind: kindAccepted, ballot: b, chosen: knows, spans: []span{{first, last}}})
	}
	n.Reconfigure(n.now, 5, []Member{{ID: "a"}, {ID: "d"}, {ID: "e"}})
	n.ready()
	n.Reconfigure(n.now, 6, []Member{{ID: "a"}})
	n.ready()
	require.Contains(t, n.events, Done{6, ErrBusy})
	vote("b", 1, 1, 0)
	require.EqualValues(t, 1, n.chosen)
	require.EqualValues(t, 9, n.lead.next, "slots 2 to 8 of the old members are filled; 9 is of the new, who have not promised")
	vote("b", 2, 8, 8)
	require.EqualValues(t, 8, n.chosen)
	require.NotContains(t, n.events, Done{ID: 5}, "the new members do not know yet")
	n.Propose(n.now, 9, []byte("x"))
	n.ready()
	require.EqualValues(t, 9, n.lead.next, "phase 1 is not done for the new members")
	n.receive("d", message{kind: kindPromise, willing: true, ballot: b, first: n.bid.promiseOf("d").next})
	require.EqualValues(t, 10, n.lead.next)
	vote("b", 9, 9, 8)
	require.EqualValues(t, 8, n.chosen, "b is no member any more")
	vote("d", 9, 9, 8)
	require.EqualValues(t, 9, n.chosen)
	require.Contains(t, n.events, Done{ID: 5})
}

// A lease ends one election timeout after the round that confirmed it began, less what clocks may be wrong by; then
// reads ask again.
func TestLeaseEndsInTime(t *testing.T) {
	reads := func(b bugs, after time.Duration) bool {
		n := newLone(t, b, "a", "b", "c")
		n.cfg.LeaseReads = true
		n.boot(b)
		ballot := n.leads("b")
		n.receive("b", message{kind: kindAccepted, ballot: ballot, round: n.lead.round})
		n.now = n.now.Add(after)
		n.Read(n.now, 3)
		n.ready()
		for _, e := range n.events {
			if _, ok := e.(consensus.ReadAt); ok {
				return true
			}
		}
		return false
	}
	require.True(t, reads(bugs{}, 800*time.Millisecond))
	require.False(t, reads(bugs{}, 950*time.Millisecond), "1 s is 0.9 s on a fast clock")
	require.True(t, reads(bugs{leaseForever: true}, 2*time.Second), "the mutant is found")
}

// An acceptor that has heard from its leader takes part in nobody else's ballot for an election timeout: leases rest on
// it, and a node that comes back deposes nobody.
func TestAcceptorKeepsTheLease(t *testing.T) {
	answers := func(b bugs, after time.Duration) int {
		n := newLone(t, b, "a", "b", "c")
		n.receive("b", message{kind: kindAccept, ballot: Ballot{3, "b"}, first: 1})
		n.now = n.now.Add(after)
		return len(n.receive("c", message{kind: kindPrepare, ballot: Ballot{9, "c"}, first: 1}))
	}
	require.Zero(t, answers(bugs{}, 900*time.Millisecond))
	require.Equal(t, 1, answers(bugs{}, 1100*time.Millisecond))
	require.Equal(t, 1, answers(bugs{noLease: true}, 900*time.Millisecond), "the mutant is found")
}

// A node that lacks what is chosen asks for it, and takes it in as many pieces as it comes.
func TestLaggardLearns(t *testing.T) {
	n := newLone(t, bugs{}, "a", "b", "c")
	b := Ballot{3, "b"}
	n.receive("b", message{kind: kindAccept, ballot: b, first: 11, chosen: 10})
	require.Zero(t, n.chosen)
	n.after(50 * time.Millisecond)
	asked := n.answers()
	require.Len(t, asked, 1)
	require.Equal(t, kindLearn, asked[0].kind)
	require.EqualValues(t, 1, asked[0].first)
	for first := uint64(1); first <= 10; first += 5 {
		m := message{kind: kindChosen, ballot: b, first: first, chosen: 10, count: 5}
		for i := range 5 {
			m.body = appendOwn(m.body, &consensus.Entry{Command: fmt.Append(nil, first+uint64(i))})
		}
		asked = n.receive("c", m)
		n.receive("c", m) // it may come twice
		require.Equal(t, first+4, n.chosen)
	}
	require.Empty(t, asked)
	n.crash()
	require.EqualValues(t, 10, n.chosen, "what was learned is in the journal")
}

// Limits are kept before anything is done.
func TestLimitsRefuseInTime(t *testing.T) {
	n := newLone(t, bugs{}, "a", "b", "c")
	n.cfg.MaxCommandBytes, n.cfg.MaxPendingBytes = 10, 25
	n.boot(bugs{})
	n.Propose(n.now, 1, []byte("x"))
	n.ready()
	require.Contains(t, n.events, consensus.Rejected{ID: 1, Err: &coterie.NotLeaderError{}})
	n.leads("b")
	n.Propose(n.now, 2, make([]byte, 11))
	for id := range uint64(3) {
		n.Propose(n.now, 3+id, make([]byte, 10))
	}
	n.ready()
	require.Contains(t, n.events, consensus.Rejected{ID: 2, Err: ErrTooLarge})
	require.NotContains(t, n.events, consensus.Rejected{ID: 4, Err: coterie.ErrOverloaded})
	require.Contains(t, n.events, consensus.Rejected{ID: 5, Err: coterie.ErrOverloaded})
}

// A leader that no quorum answers any more leads no longer, and says so of what it never sent.
func TestLeaderWithoutQuorumResigns(t *testing.T) {
	n := newLone(t, bugs{}, "a", "b", "c")
	n.leads("b")
	n.after(1100 * time.Millisecond)
	require.Nil(t, n.lead)
	require.EqualValues(t, 1, n.Metrics().Resigned)
}
