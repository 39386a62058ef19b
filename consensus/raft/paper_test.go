package raft

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

// §5.1: "Current terms are exchanged whenever servers communicate; if one server's current term is smaller than the
// other's, then it updates its current term to the larger value".
func TestPaper51SmallerTermIsUpdated(t *testing.T) {
	g := newGroup(t, 3, nil)
	g.elect("a")
	b := g.nodes["b"]
	m := message{kind: kindAppend, term: 7}
	require.NoError(t, b.Step(g.now, "c", m.encode(nil)))
	require.EqualValues(t, 7, b.term)
}

// §5.1: "If a candidate or leader discovers that its term is out of date, it immediately reverts to follower state".
func TestPaper51LeaderRevertsToFollower(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	m := message{kind: kindAppendReply, term: a.term + 1, refused: true}
	require.NoError(t, a.Step(g.now, "b", m.encode(nil)))
	require.Equal(t, Follower, a.role)
}

// §5.1: "If a server receives a request with a stale term number, it rejects the request".
func TestPaper51StaleTermIsRefused(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	g.mail = nil
	m := message{kind: kindAppend, term: a.term - 1 + 0, index: 0}
	m.term = 1
	if a.term == 1 {
		g.elect("b")
	}
	term := a.term
	require.Greater(t, term, uint64(1))
	require.NoError(t, a.Step(g.now, "c", m.encode(nil)))
	a.ready()
	require.Len(t, g.mail, 1)
	d := g.mail[0].decode()
	require.True(t, d.refused)
	require.Equal(t, term, d.term)
}

// §5.2: "If a follower receives no communication over a period of time called the election timeout, then it assumes
// there is no viable leader and begins an election".
func TestPaper52FollowerCampaignsAfterSilence(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.nodes["a"]
	g.now = g.now.Add(testTimeout - time.Millisecond)
	a.Tick(g.now)
	require.Equal(t, Follower, a.role)
	g.now = g.now.Add(testTimeout + time.Millisecond)
	a.Tick(g.now)
	a.ready()
	require.Equal(t, PreCandidate, a.role)
	require.Equal(t, 2, g.count(kindVote, ""))
}

// §5.2: "To begin an election, a follower increments its current term and transitions to candidate state. It then votes
// for itself and issues RequestVote RPCs in parallel to each of the other servers".
func TestPaper52CandidateVotesForItselfWhenThatIsDurable(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.nodes["a"]
	a.Tick(g.now)
	a.elect(false)
	a.hung = true
	a.ready()
	require.Empty(t, g.mail, "nothing leaves before the vote is durable")
	a.unhang()
	require.Equal(t, 2, g.count(kindVote, ""))
	require.Equal(t, 1, g.count(kindVoteReply, "a"), "its own vote comes by mail")
	require.EqualValues(t, 1, a.term)
}

// §5.2: "Each server will vote for at most one candidate in a given term, on a first-come-first-served basis".
func TestPaper52OneVotePerTerm(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.nodes["a"]
	ask := message{kind: kindVote, term: 5}
	require.NoError(t, a.Step(g.now, "b", ask.encode(nil)))
	require.NoError(t, a.Step(g.now, "c", ask.encode(nil)))
	require.NoError(t, a.Step(g.now, "b", ask.encode(nil)))
	a.ready()
	require.Len(t, g.mail, 3)
	require.False(t, g.mail[0].decode().refused)
	require.True(t, g.mail[1].decode().refused)
	require.False(t, g.mail[2].decode().refused, "the same answer to the same question")
}

// §5.2: "A candidate wins an election if it receives votes from a majority of the servers in the full cluster for the
// same term".
func TestPaper52MajorityWins(t *testing.T) {
	for _, tc := range []struct {
		nodes, others int
		wins          bool
	}{{1, 0, true}, {3, 0, false}, {3, 1, true}, {5, 1, false}, {5, 2, true}} {
		g := newGroup(t, tc.nodes, nil)
		a := g.nodes["a"]
		a.elect(false)
		own := message{kind: kindVoteReply, term: a.term}
		require.NoError(t, a.Step(g.now, "a", own.encode(nil)))
		for i := range tc.others {
			require.NoError(t, a.Step(g.now, g.ids[i+1], own.encode(nil)))
			require.NoError(t, a.Step(g.now, g.ids[i+1], own.encode(nil)), "twice is once")
		}
		require.Equal(t, tc.wins, a.role == Leader, "%+v", tc)
	}
}

// §5.2: "Once a candidate wins an election, it becomes leader. It then sends heartbeat messages to all of the other
// servers to establish its authority and prevent new elections".
func TestPaper52LeaderSendsHeartbeats(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	for range 50 {
		g.now = g.now.Add(testTimeout / 10)
		for _, id := range g.ids {
			g.nodes[id].Tick(g.now)
			g.nodes[id].ready()
		}
		require.GreaterOrEqual(t, g.count(kindAppend, "b"), 1)
		g.deliver()
	}
	require.Equal(t, Leader, a.role)
}

// §5.2: "If the leader's term is at least as large as the candidate's current term, then the candidate recognizes the
// leader as legitimate and returns to follower state".
func TestPaper52CandidateYieldsToLeader(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.nodes["a"]
	a.elect(false)
	m := message{kind: kindAppend, term: a.term}
	require.NoError(t, a.Step(g.now, "b", m.encode(nil)))
	require.Equal(t, Follower, a.role)
	require.EqualValues(t, "b", a.leader)
}

// §5.2: "Raft uses randomized election timeouts to ensure that split votes are rare".
func TestPaper52TimeoutsAreRandom(t *testing.T) {
	g := newGroup(t, 1, nil)
	a := g.nodes["a"]
	seen := map[time.Duration]bool{}
	for range 100 {
		a.resetTimeout()
		require.GreaterOrEqual(t, a.timeout, testTimeout)
		require.Less(t, a.timeout, 2*testTimeout)
		seen[a.timeout] = true
	}
	require.Greater(t, len(seen), 90)
}

// §5.3: "The leader appends the command to its log as a new entry, then issues AppendEntries RPCs in parallel to each
// of the other servers to replicate the entry." They leave before the leader's own disk has it (thesis §10.2.1), and
// the leader counts itself only when it does.
func TestPaper53LeaderCountsItselfWhenDurable(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	before := a.committed
	a.hung = true
	a.propose(1, "x")
	require.Equal(t, 1, g.count(kindAppend, "b"), "early")
	g.lose = func(m mail) bool { return m.to == "c" }
	g.deliver()
	require.Equal(t, before, a.committed, "one durable copy of three")
	a.unhang()
	g.deliver()
	require.Equal(t, before+1, a.committed)
}

// §5.3: "If a follower's log is inconsistent with the leader's, the AppendEntries consistency check will fail in the
// next AppendEntries RPC. After a rejection, the leader decrements nextIndex and retries." And "If an existing entry
// conflicts with a new one (same index but different terms), delete the existing entry and all that follow it"
// (figure 2). The logs are those of figure 7.
func TestPaper53LeaderMendsEveryLogOfFigure7(t *testing.T) {
	leader := []uint64{1, 1, 1, 4, 4, 5, 5, 6, 6, 6}
	for name, terms := range map[string][]uint64{
		"a": {1, 1, 1, 4, 4, 5, 5, 6, 6},
		"b": {1, 1, 1, 4},
		"c": {1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6},
		"d": {1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7},
		"e": {1, 1, 1, 4, 4, 4, 4},
		"f": {1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, 3, nil)
			g.nodes["a"].fill(leader)
			g.nodes["b"].fill(terms)
			g.nodes["c"].fill(nil)
			for _, id := range g.ids {
				g.nodes[id].term = 7
			}
			a := g.elect("a")
			g.heartbeat("a")
			require.Equal(t, logTerms(a.Core), logTerms(g.nodes["b"].Core))
			require.Equal(t, a.log.last(), a.committed)
		})
	}
}

// fill gives a node a log of entries of these terms, on its disk too.
func (m *member) fill(terms []uint64) {
	for _, term := range terms {
		e := consensus.Entry{Term: term, Command: []byte{'t', byte('0' + term)}}
		rec := message{kind: kindAppend, term: term, index: m.log.last(), at: m.log.lastTerm(), count: 1}
		rec.body = appendEntry(nil, &e, term)
		m.log.append(e)
		m.pending += len(e.Command)
		m.save(rec.encode(nil), m.log.last())
	}
	m.ready()
}

func logTerms(c *Core) (terms []uint64) {
	for i := c.log.start + 1; i <= c.log.last(); i++ {
		terms = append(terms, c.log.at(i).Term)
	}
	return terms
}

// §5.4.1: "the voter denies its vote if its own log is more up-to-date than that of the candidate".
func TestPaper541VoterDeniesOutdatedCandidate(t *testing.T) {
	for _, tc := range []struct {
		last, term uint64
		granted    bool
	}{{3, 2, true}, {4, 2, true}, {2, 2, false}, {9, 1, false}, {1, 3, true}} {
		g := newGroup(t, 3, nil)
		a := g.nodes["a"]
		a.fill([]uint64{1, 1, 2})
		ask := message{kind: kindVote, term: 5, index: tc.last, at: tc.term}
		require.NoError(t, a.Step(g.now, "b", ask.encode(nil)))
		a.ready()
		require.Equal(t, tc.granted, !g.mail[0].decode().refused, "%+v", tc)
	}
}

// §5.4.2: "Raft never commits log entries from previous terms by counting replicas. Only log entries from the leader's
// current term are committed by counting replicas." The scene is figure 8.
func TestPaper542OldTermsAreNotCommittedByCounting(t *testing.T) {
	run := func(b bugs) (committed uint64) {
		g := newGroup(t, 5, func(c *Config) { c.MaxMessageBytes = 1 })
		for _, id := range g.ids {
			g.nodes[id].bugs = b
			g.nodes[id].fill([]uint64{1})
		}
		// (a), (b): a led term 2 and replicated its entry to b only; e led term 3 and kept its entry to itself.
		g.nodes["a"].fill([]uint64{2})
		g.nodes["b"].fill([]uint64{2})
		g.nodes["e"].fill([]uint64{3})
		for _, id := range g.ids {
			g.nodes[id].term = 3
		}
		// (c): a leads term 4 and replicates the entry of term 2 to c, but nothing of term 4.
		g.cut["e"] = true
		g.lose = func(m mail) bool {
			if m.kind() != kindAppend || m.to == "a" {
				return false
			}
			d := m.decode()
			return d.index+uint64(d.count) > 2 || m.to == "d"
		}
		a := g.elect("a")
		g.heartbeat("a")
		g.heartbeat("a")
		require.EqualValues(t, 2, a.lead.find("c").match)
		return a.committed
	}
	require.EqualValues(t, 0, run(bugs{}))
	require.EqualValues(t, 2, run(bugs{commitOldTerm: true}), "without the rule it would be")
}

// §6: "the cluster first switches to a transitional configuration we call joint consensus; ... Agreement (for elections
// and entry commitment) requires separate majorities from both the old and new configurations".
func TestJointChangeNeedsBothMajorities(t *testing.T) {
	g := newGroup(t, 3, nil)
	for _, id := range []coterie.NodeID{"d", "e", "f"} {
		g.add(Config{ID: id, Join: true, ElectionTimeout: testTimeout, HeartbeatInterval: testTimeout / 10})
	}
	a := g.elect("a")
	before := a.committed
	g.cut["e"], g.cut["f"] = true, true
	a.Reconfigure(g.now, 9, Change{
		Set: []Member{{ID: "d"}, {ID: "e"}, {ID: "f"}}, Remove: []coterie.NodeID{"b", "c"},
	})
	a.ready()
	g.deliver()
	g.heartbeat("a")
	require.True(t, a.conf.Joint())
	require.Equal(t, before, a.committed, "a, b, c and d hold it, but of a, d, e, f only two do")
	g.cut["e"] = false
	g.cut["b"], g.cut["c"] = true, true
	g.heartbeat("a")
	require.Greater(t, a.committed, before, "b and c had acknowledged it before they were cut off")
	require.False(t, a.conf.Joint())
	g.heartbeat("a")
	require.Equal(t, []Done{{ID: 9}}, find[Done](a))
	require.Equal(t, "a d e f", a.conf.String())
	g.cut["f"] = false
	g.heartbeat("a")
	g.heartbeat("a")
	require.Equal(t, a.committed, g.nodes["f"].committed)
}

// §7: "Each server takes snapshots independently, covering just the committed entries in its log".
func TestPaper7SnapshotCoversOnlyWhatIsApplied(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	a.propose(1, "x")
	g.deliver()
	a.Compact(g.now, a.log.last()+1, consensus.Snapshot{Name: "bad"})
	a.ready()
	require.Equal(t, []consensus.Superseded{{Name: "bad"}}, find[consensus.Superseded](a))
	require.Zero(t, a.base.index)
	a.snapshot()
	require.Equal(t, a.committed, a.base.index)
}

// §8: "a leader must have the latest information on which entries are committed ... Raft handles this by having each
// leader commit a blank no-op entry into the log at the start of its term".
func TestPaper8LeaderCommitsEmptyEntryFirst(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	require.EqualValues(t, 1, a.committed)
	require.True(t, a.log.at(1).Internal)
}

// §8: "Raft handles this by having the leader exchange heartbeat messages with a majority of the cluster before
// responding to read-only requests".
func TestReadWaitsForItsRound(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	a.propose(1, "x")
	g.deliver()
	g.cut["a"] = true
	a.Read(g.now, 50)
	a.ready()
	g.deliver()
	require.Empty(t, find[consensus.ReadAt](a))
	g.cut["a"] = false
	a.Read(g.now, 51)
	a.ready()
	g.deliver()
	require.Equal(t, []consensus.ReadAt{{ID: 50, Index: a.committed}, {ID: 51, Index: a.committed}}, find[consensus.ReadAt](a))
}
