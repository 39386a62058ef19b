package raft

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/internal/testsize"
)

// TestVoteIsDurableBeforeItIsTold loses the disk's unsynced bytes between a vote and another candidate of the same term
// (tikv/tikv#8381): whatever was told is still true.
func TestVoteIsDurableBeforeItIsTold(t *testing.T) {
	votes := func(b bugs) (granted int) {
		g := newGroup(t, 3, nil)
		a := g.nodes["a"]
		a.bugs = b
		ask := message{kind: kindVote, term: 5, forced: true}
		require.NoError(t, a.Step(g.now, "b", ask.encode(nil)))
		a.ready()
		for _, m := range g.mail {
			if m.to == "b" && !m.decode().refused {
				granted++
			}
		}
		g.mail = nil
		a.crash()
		require.NoError(t, a.Step(g.now, "c", ask.encode(nil)))
		a.ready()
		for _, m := range g.mail {
			if m.to == "c" && !m.decode().refused {
				granted++
			}
		}
		return granted
	}
	require.Equal(t, 1, votes(bugs{}))
	require.Equal(t, 2, votes(bugs{forgetVote: true}))

	// Nor is it forgotten if the term was durable already.
	g := newGroup(t, 3, nil)
	a := g.nodes["a"]
	a.becomeFollower(5, "")
	a.ready()
	ask := message{kind: kindVote, term: 5, forced: true}
	require.NoError(t, a.Step(g.now, "b", ask.encode(nil)))
	a.ready()
	g.mail = nil
	a.crash()
	require.NoError(t, a.Step(g.now, "c", ask.encode(nil)))
	a.ready()
	require.True(t, g.mail[0].decode().refused)

	// And with the sync under way, nothing is told at all.
	g = newGroup(t, 3, nil)
	a = g.nodes["a"]
	a.hung = true
	require.NoError(t, a.Step(g.now, "b", ask.encode(nil)))
	a.ready()
	require.Empty(t, g.mail)
}

// TestAcknowledgedSurvivesLossOfAllPower crashes every node at the moment of the acknowledgement, so that only what was
// durable is left, and brings back a majority (ZOOKEEPER-4646, Jepsen NATS 2.12.1).
func TestAcknowledgedSurvivesLossOfAllPower(t *testing.T) {
	for lost := range 3 {
		g := newGroup(t, 3, nil)
		a := g.elect("a")
		for i := range 5 {
			a.propose(uint64(i+1), fmt.Sprint(i))
			g.deliver()
		}
		require.Len(t, a.applied, 5)
		g.mail = nil
		for _, id := range g.ids {
			g.nodes[id].crash()
		}
		g.cut[g.ids[lost]] = true
		g.advance(10 * testTimeout)
		for i, id := range g.ids {
			if i != lost {
				require.Len(t, g.nodes[id].applied, 5, "%s without %s", id, g.ids[lost])
			}
		}
	}
}

// TestSingleNodeAppliesOnlyWhatIsDurable is the loss of acknowledged writes by a cluster of one (etcd-io/etcd#14370).
func TestSingleNodeAppliesOnlyWhatIsDurable(t *testing.T) {
	g := newGroup(t, 1, nil)
	a := g.elect("a")
	a.hung = true
	a.propose(1, "x")
	g.deliver()
	require.Empty(t, a.applied)
	a.unhang()
	g.deliver()
	require.Equal(t, []string{"x"}, a.applied)
	a.crash()
	g.elect("a")
	require.Equal(t, []string{"x"}, a.applied)
}

// TestRestartAppliesEachIndexOnce restarts from every prefix of what a node saved, with snapshots among it: the
// application gets each index once, from its snapshot on (etcd-io/etcd#13766).
func TestRestartAppliesEachIndexOnce(t *testing.T) {
	g := newGroup(t, 1, nil)
	a := g.elect("a")
	var all [][]byte
	for i := range 30 {
		before := len(a.journal)
		_ = before
		a.propose(uint64(i+1), fmt.Sprint(i))
		g.deliver()
		if i%7 == 6 {
			a.snapshot()
		}
	}
	all = append(all, a.journal...)
	files := a.files
	for n := range len(all) + 1 {
		fresh := &member{g: g, cfg: a.cfg, files: files, journal: all[:n]}
		if n == 0 {
			continue // a base that stands alone is the first record
		}
		g.nodes["a"] = fresh
		g.mail = nil
		fresh.boot()
		g.elect("a") // member.event checks that indices come one after the other
		require.LessOrEqual(t, len(fresh.applied), 30)
	}
}

// TestStaleTermOverwrittenProposalFails: a proposal whose entry another leader replaces is answered, and not as
// committed (redpanda-data/redpanda#3003).
func TestStaleTermOverwrittenProposalFails(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	g.cut["a"] = true
	a.propose(77, "lost")
	g.deliver()
	g.elect("b").propose(1, "kept")
	g.deliver()
	g.cut["a"] = false
	g.heartbeat("b")
	g.heartbeat("b")
	require.Equal(t, []string{"kept"}, a.applied)
	rejected := find[consensus.Rejected](a)
	require.Len(t, rejected, 1)
	require.EqualValues(t, 77, rejected[0].ID)
	require.ErrorIs(t, rejected[0].Err, coterie.ErrUnknownOutcome)
	for _, c := range find[consensus.Committed](a) {
		for _, e := range c.Entries {
			require.NotEqualValues(t, 77, e.ID)
		}
	}
}

// TestAnswerGoesToTheNewestLeader: of two leaders heard in one batch, the later one gets the answer, and what the
// earlier one was told is not said to it.
func TestAnswerGoesToTheNewestLeader(t *testing.T) {
	g := newGroup(t, 3, nil)
	b := g.nodes["b"]
	old := message{kind: kindAppend, term: 3, count: 2}
	for range 2 {
		old.body = appendEntry(old.body, &consensus.Entry{Term: 3, Command: []byte("x")}, 3)
	}
	next := message{kind: kindAppend, term: 4, count: 1}
	next.body = appendEntry(nil, &consensus.Entry{Term: 4, Command: []byte("y")}, 4)
	require.NoError(t, b.Step(g.now, "a", old.encode(nil)))
	require.NoError(t, b.Step(g.now, "c", next.encode(nil)))
	b.ready()
	require.Len(t, g.mail, 1)
	require.EqualValues(t, "c", g.mail[0].to)
	require.EqualValues(t, 1, g.mail[0].decode().index)
}

// TestUnsentProposalIsNotDone: what was proposed in the batch in which the leader steps down never left it, and the
// answer says so.
func TestUnsentProposalIsNotDone(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	last := a.log.last()
	a.Propose(g.now, 5, []byte("x"))
	m := message{kind: kindAppend, term: a.term + 1, index: last, at: a.term, count: 1}
	m.body = appendEntry(nil, &consensus.Entry{Term: m.term, Internal: true}, m.term)
	require.NoError(t, a.Step(g.now, "b", m.encode(nil)))
	a.ready()
	require.ErrorIs(t, find[consensus.Rejected](a)[0].Err, coterie.ErrNotLeader)
	require.Equal(t, last+1, a.log.last())
	require.Equal(t, a.term, a.log.lastTerm())
	a.crash()
	require.Equal(t, last+1, a.log.last())
}

// TestAnswersCountNodesNotMessages repeats and delays every answer (xnnyygn/xraft#27).
func TestAnswersCountNodesNotMessages(t *testing.T) {
	g := newGroup(t, 5, nil)
	a := g.nodes["a"]
	a.elect(false)
	vote := message{kind: kindVoteReply, term: a.term}
	for range 5 {
		require.NoError(t, a.Step(g.now, "b", vote.encode(nil)))
	}
	old := message{kind: kindVoteReply, term: a.term - 1}
	for _, id := range []coterie.NodeID{"c", "d", "e"} {
		require.NoError(t, a.Step(g.now, id, old.encode(nil)))
	}
	require.Equal(t, Candidate, a.role)
	stranger := message{kind: kindVoteReply, term: a.term}
	for _, id := range []coterie.NodeID{"x", "y", "z"} {
		require.NoError(t, a.Step(g.now, id, stranger.encode(nil)))
	}
	require.Equal(t, Candidate, a.role)
}

// TestTruncationIsNeverAMix crashes a follower after each record while another leader replaces the end of its log: what
// it comes back with is the one log or the other, and entries that were cut off do not reappear.
func TestTruncationIsNeverAMix(t *testing.T) {
	g := newGroup(t, 3, nil)
	b := g.nodes["b"]
	b.fill([]uint64{1, 1, 2, 2, 2, 2})
	before := len(b.journal)
	replace := func(term, prev, at uint64, n int) {
		m := message{kind: kindAppend, term: term, index: prev, at: at, count: n}
		for range n {
			m.body = appendEntry(m.body, &consensus.Entry{Term: term, Command: []byte("n")}, term)
		}
		require.NoError(t, b.Step(g.now, coterie.NodeID(rune('a'+2*(term%2))), m.encode(nil)))
		b.ready()
	}
	replace(3, 3, 2, 1)
	replace(4, 2, 1, 1)
	replace(4, 3, 4, 2)
	replace(5, 4, 4, 3)
	full := b.journal
	seen := map[string]bool{}
	for n := before; n <= len(full); n++ {
		b.journal = full[:n]
		b.boot()
		seen[fmt.Sprint(logTerms(b.Core))] = true
	}
	require.Equal(t, map[string]bool{
		"[1 1 2 2 2 2]": true, "[1 1 2 3]": true, "[1 1 4]": true, "[1 1 4 4 4]": true, "[1 1 4 4 5 5 5]": true,
	}, seen)
}

// TestOneRecordHoldsTermAndVote: there is no moment between two writes (hashicorp/raft#661).
func TestOneRecordHoldsTermAndVote(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.nodes["a"]
	before := len(a.journal)
	ask := message{kind: kindVote, term: 5}
	require.NoError(t, a.Step(g.now, "b", ask.encode(nil)))
	a.ready()
	require.Len(t, a.journal, before+1)
	a.boot()
	require.EqualValues(t, 5, a.term)
	require.EqualValues(t, "b", a.vote)
}

// TestReplayOfAnyLaterStartEndsTheSame: a journal may begin at or before what Keep asked for.
func TestReplayOfAnyLaterStartEndsTheSame(t *testing.T) {
	testsize.Checks(t, 60, 3000)
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{
			ID: "a", Seed: 1, Voters: map[coterie.NodeID]string{"a": "", "b": "", "c": ""},
			TrailingEntries: rapid.IntRange(-1, 6).Draw(t, "trailing"),
		}
		core, err := NewCore(cfg)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Unix(0, 0)
		var all [][]byte
		keep := 0
		ready := func() {
			r := core.Ready()
			all = append(all, r.Save...)
			if r.Keep > 0 {
				keep = len(all) - r.Keep
			}
			for _, e := range r.Events {
				if c, ok := e.(consensus.Committed); ok {
					core.Applied(now, c.Index+uint64(len(c.Entries))-1)
				}
			}
		}
		core.Tick(now)
		ready()
		term := uint64(1)
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				term++
			case 1:
				if core.applied > core.base.index {
					index := rapid.Uint64Range(core.base.index+1, core.applied).Draw(t, "compact")
					core.Compact(now, index, consensus.Snapshot{Name: fmt.Sprint(index), Size: 1})
				}
			default:
				prev := rapid.Uint64Range(core.committed, core.log.last()).Draw(t, "prev")
				at, _ := core.log.term(prev)
				m := message{kind: kindAppend, term: term, index: prev, at: at, count: rapid.IntRange(0, 3).Draw(t, "count")}
				for range m.count {
					m.body = appendEntry(m.body, &consensus.Entry{Term: term, Command: []byte("c")}, term)
				}
				m.commit = rapid.Uint64Range(0, prev+uint64(m.count)).Draw(t, "commit")
				if err := core.Step(now, coterie.NodeID(rune('b'+term%2)), m.encode(nil)); err != nil {
					t.Fatal(err)
				}
			}
			ready()
		}
		from := rapid.IntRange(0, keep).Draw(t, "from")
		again, err := NewCore(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all[from:] {
			if err := again.Replay(r); err != nil {
				t.Fatal(err)
			}
		}
		again.Tick(now)
		if again.term != core.term || again.vote != core.vote || again.log.last() != core.log.last() ||
			again.base.index != core.base.index || again.log.lastTerm() != core.log.lastTerm() {
			t.Fatalf("replay from %d of %d (keep %d) ends with term %d, log %d, base %d; it was %d, %d, %d", from, len(all), keep,
				again.term, again.log.last(), again.base.index, core.term, core.log.last(), core.base.index)
		}
	})
}

// TestJournalWithAHole: a log that lost records in its middle does not start.
func TestJournalWithAHole(t *testing.T) {
	core, err := NewCore(Config{ID: "a", Seed: 1, Voters: map[coterie.NodeID]string{"a": ""}})
	require.NoError(t, err)
	m := message{kind: kindAppend, term: 1, index: 5, at: 1, count: 1, body: []byte{0, 0}}
	require.NoError(t, core.Replay(m.encode(nil)))
	require.Panics(t, func() { core.Tick(time.Unix(0, 0)) })
}
