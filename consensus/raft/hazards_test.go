package raft

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/quorum"
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

// TestSnapshotAgainstLogSuffix gives a follower a snapshot while its log is behind, ahead of, equal to and in
// contradiction with it, late and twice: what follows it is kept only if the logs agree there (hashicorp/raft#697,
// cockroachdb/cockroach#43605).
func TestSnapshotAgainstLogSuffix(t *testing.T) {
	data := []byte("snapshot\n")
	snap := message{
		kind: kindSnapshot, term: 3, index: 4, at: 2, body: data,
		snap: consensus.Snapshot{Name: "theirs", Size: int64(len(data)), Checksum: xxhash.Sum64(data)},
	}
	for name, tc := range map[string]struct {
		terms     []uint64
		committed uint64
		last      uint64 // of the log after it
		base      uint64
	}{
		"empty":                 {nil, 0, 4, 4},
		"behind":                {[]uint64{1, 1}, 1, 4, 4},
		"ahead, agrees":         {[]uint64{1, 1, 2, 2, 2, 2}, 2, 6, 4},
		"ahead, contradicts":    {[]uint64{1, 1, 1, 1, 1, 1}, 2, 4, 4},
		"equal":                 {[]uint64{1, 1, 2, 2}, 2, 4, 4},
		"committed beyond":      {[]uint64{1, 1, 2, 2, 2, 2}, 5, 6, 0},
		"committed just so far": {[]uint64{1, 1, 2, 2, 2, 2}, 4, 6, 0},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, 3, nil)
			b := g.nodes["b"]
			b.fill(tc.terms)
			b.commitTo(tc.committed)
			b.ready()
			s := snap
			s.members = b.conf.Membership
			for range 3 {
				require.NoError(t, b.Step(g.now, "a", s.encode(nil)))
				b.ready()
			}
			require.Equal(t, tc.last, b.log.last())
			require.Equal(t, tc.base, b.base.index)
			terms := logTerms(b.Core)
			b.crash()
			require.Equal(t, terms, logTerms(b.Core))
			require.Equal(t, tc.base, b.base.index)
			if tc.base == 4 {
				require.Equal(t, []string{"snapshot"}, b.applied[:1])
			} else {
				require.Empty(t, b.files, "what was not installed is put away")
			}
		})
	}
}

// TestSnapshotKeepsItsConfiguration compacts right after a change of members and loses every later record: the members
// are those of the log through the snapshot (matrixorigin/matrixone#24966, RedisLabs/redisraft#43).
func TestSnapshotKeepsItsConfiguration(t *testing.T) {
	g := newGroup(t, 4, nil)
	a := g.elect("a")
	a.propose(1, "x")
	a.Reconfigure(g.now, 1, Change{Remove: []coterie.NodeID{"d"}})
	a.ready()
	g.deliver()
	a.snapshot()
	conf := a.conf.Membership
	a.Reconfigure(g.now, 2, Change{Remove: []coterie.NodeID{"c"}})
	a.ready()
	full := a.journal
	for n := 1; n <= len(full); n++ {
		a.journal = full[:n]
		a.boot()
		if n < len(full) {
			require.Equal(t, conf, a.conf.Membership)
		} else {
			require.Equal(t, "a b", a.conf.String())
		}
		require.Equal(t, conf, a.base.members)
	}
}

// TestCompactionRemembersTheVote: the record that takes the place of all others holds term and vote too.
func TestCompactionRemembersTheVote(t *testing.T) {
	g := newGroup(t, 3, nil)
	g.elect("a").propose(1, "x")
	g.deliver()
	g.heartbeat("a")
	c := g.nodes["c"]
	ask := message{kind: kindVote, term: 9, index: 99, at: 8, forced: true}
	require.NoError(t, c.Step(g.now, "b", ask.encode(nil)))
	c.ready()
	c.snapshot()
	require.Len(t, c.journal, 1)
	c.crash()
	require.EqualValues(t, 9, c.term)
	require.EqualValues(t, "b", c.vote)
}

// TestVoterRefusesSnapshotWithoutData: what a witness can do with, a voter cannot.
func TestVoterRefusesSnapshotWithoutData(t *testing.T) {
	g := newGroup(t, 3, nil)
	b := g.nodes["b"]
	m := message{kind: kindSnapshot, term: 3, index: 4, at: 2, members: b.conf.Membership}
	require.NoError(t, b.Step(g.now, "a", m.encode(nil)))
	b.ready()
	require.Zero(t, b.base.index)
	require.Zero(t, b.committed)
}

// TestSnapshotReplacesConfigurationsOfAnotherHistory: a log that contradicts a snapshot goes with the configurations in
// it.
func TestSnapshotReplacesConfigurationsOfAnotherHistory(t *testing.T) {
	g := newGroup(t, 3, nil)
	b := g.nodes["b"]
	other := Membership{Members: []Member{{ID: "b"}, {ID: "x"}}}
	m := message{kind: kindAppend, term: 1, count: 6}
	for i := range 6 {
		e := consensus.Entry{Term: 1, Command: []byte("c")}
		if i == 5 {
			e = consensus.Entry{Term: 1, Internal: true, Command: encodeMembership(other)}
		}
		m.body = appendEntry(m.body, &e, 1)
	}
	require.NoError(t, b.Step(g.now, "a", m.encode(nil)))
	b.ready()
	require.Equal(t, other, b.conf.Membership)
	data := []byte("s\n")
	snap := message{
		kind: kindSnapshot, term: 3, index: 4, at: 2, body: data, members: b.base.members,
		snap: consensus.Snapshot{Name: "s", Size: int64(len(data)), Checksum: xxhash.Sum64(data)},
	}
	require.NoError(t, b.Step(g.now, "a", snap.encode(nil)))
	b.ready()
	require.Equal(t, "a b c", b.conf.String())
	b.crash()
	require.Equal(t, "a b c", b.conf.String())
}

// TestSnapshotResumesAfterLoss loses chunks and answers: the transfer goes on where it was.
func TestSnapshotResumesAfterLoss(t *testing.T) {
	g := newGroup(t, 3, func(c *Config) { c.SnapshotChunkBytes = 10 })
	a := g.elect("a")
	g.cut["c"] = true
	for i := range 50 {
		a.propose(uint64(i+1), fmt.Sprintf("%03d", i))
		g.deliver()
	}
	a.snapshot()
	g.cut["c"] = false
	n, offsets := 0, map[uint64]int{}
	g.lose = func(m mail) bool {
		if m.kind() == kindSnapshot || m.kind() == kindSnapshotReply {
			n++
			if m.kind() == kindSnapshot {
				offsets[m.decode().hint]++
			}
			return n%5 == 0
		}
		return false
	}
	g.advance(20 * testTimeout)
	require.Equal(t, a.applied, g.nodes["c"].applied)
	require.Len(t, offsets, 20)
	require.LessOrEqual(t, offsets[0], 2, "it is not begun anew")
	require.EqualValues(t, 1, a.metrics.SnapshotsSent)
}

// TestSnapshotReplacedWhileItTravels compacts again during a transfer: the file stays until the transfer is over, and
// then goes.
func TestSnapshotReplacedWhileItTravels(t *testing.T) {
	g := newGroup(t, 3, func(c *Config) { c.SnapshotChunkBytes = 10 })
	a := g.elect("a")
	g.cut["c"] = true
	for i := range 20 {
		a.propose(uint64(i+1), fmt.Sprintf("%03d", i))
		g.deliver()
	}
	a.snapshot()
	g.cut["c"] = false
	g.lose = func(m mail) bool { return m.kind() == kindSnapshot }
	g.heartbeat("a")
	g.heartbeat("a")
	require.Equal(t, installing, a.lead.find("c").mode)
	a.propose(100, "more")
	g.deliver()
	a.snapshot()
	require.Len(t, a.files, 2)
	g.lose = nil
	g.advance(20 * testTimeout)
	require.Equal(t, a.applied, g.nodes["c"].applied)
	require.Len(t, a.files, 1)
}

// TestCompactionKeepsATail: a follower that is a little late needs no snapshot, and the journal holds no more than the
// tail and the base.
func TestCompactionKeepsATail(t *testing.T) {
	g := newGroup(t, 3, func(c *Config) { c.TrailingEntries = 10 })
	a := g.elect("a")
	for i := range 100 {
		a.propose(uint64(i+1), fmt.Sprint(i))
		g.deliver()
	}
	g.cut["c"] = true
	for i := range 5 {
		a.propose(uint64(i+200), fmt.Sprint(i))
		g.deliver()
	}
	a.snapshot()
	require.Equal(t, a.log.last()-10, a.log.start)
	require.LessOrEqual(t, len(a.journal), 13)
	g.cut["c"] = false
	g.heartbeat("a")
	g.heartbeat("a")
	require.Equal(t, a.applied, g.nodes["c"].applied)
	require.Zero(t, a.metrics.SnapshotsSent)
	a.crash()
	require.Len(t, a.applied, 105)
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

// TestCrashBetweenSnapshotAndForgetting crashes between the record that names a snapshot and the moment at which the
// journal forgets what it covers, and after: there is never a gap between the snapshot and the log. In the other order
// there would be, and boot would see it.
func TestCrashBetweenSnapshotAndForgetting(t *testing.T) {
	g := newGroup(t, 1, func(c *Config) { c.TrailingEntries = 2 })
	a := g.elect("a")
	for i := range 10 {
		a.propose(uint64(i+1), fmt.Sprint(i))
		g.deliver()
	}
	old := a.journal
	a.snapshot()
	kept := a.journal
	require.Less(t, len(kept), len(old))
	base := kept[len(kept)-1]
	for _, journal := range [][][]byte{old, append(append([][]byte(nil), old...), base), kept} {
		a.journal = journal
		a.crash()
		g.elect("a")
		require.Len(t, a.applied, 10)
	}
	a.journal = kept[:len(kept)-1]
	require.Panics(t, a.boot, "forgotten before the snapshot was named")
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

// TestMalformedChangesNothing: whatever is wrong with a message, the state is as before.
func TestMalformedChangesNothing(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	state := fmt.Sprint(a.term, a.vote, a.log.last(), a.committed, a.role)
	for _, m := range [][]byte{
		nil,
		{},
		{9},
		{format},
		{format, 0, 5},
		{format, 99, 5},
		(&message{kind: kindState, term: 9}).encode(nil),
		(&message{kind: kindBase, term: 9}).encode(nil),
		(&message{kind: kindAppend}).encode(nil),
		(&message{kind: kindAppend, term: a.term}).encode(nil),
		(&message{kind: kindAppend, term: 9, count: 2, body: []byte{0, 0}}).encode(nil),
		append((&message{kind: kindVote, term: 9}).encode(nil), 1),
		(&message{kind: kindVote, term: maxIndex + 1}).encode(nil),
		(&message{kind: kindAppend, term: 9, at: 10}).encode(nil),
	} {
		require.Error(t, a.Step(g.now, "b", m), "%x", m)
		require.Equal(t, state, fmt.Sprint(a.term, a.vote, a.log.last(), a.committed, a.role), "%x", m)
	}
	require.Error(t, a.Step(g.now, "a", (&message{kind: kindAppend, term: 9}).encode(nil)))
	require.Error(t, a.Step(g.now, "a", (&message{kind: kindVote, term: 9}).encode(nil)))
	var f *coterie.FormatError
	require.ErrorAs(t, a.Step(g.now, "b", []byte{format + 1}), &f)
}

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

// golden messages pin the format.
func goldenMessages() map[string]message {
	members := Membership{
		Members:  []Member{{ID: "a", Address: "host:1"}, {ID: "b", Role: Learner, Priority: -1, AutoPromote: true}},
		Outgoing: []Member{{ID: "c", Role: Witness}},
	}
	snap := consensus.Snapshot{Name: "s", Size: 300, Checksum: 0x0102030405060708}
	entries := appendEntry(nil, &consensus.Entry{Term: 6, Internal: true}, 7)
	entries = appendEntry(entries, &consensus.Entry{Term: 7, Command: []byte("command")}, 7)
	return map[string]message{
		"append":        {kind: kindAppend, term: 7, index: 300, at: 6, commit: 299, round: 5, epoch: 2, calm: true, count: 2, body: entries},
		"appendreply":   {kind: kindAppendReply, term: 7, index: 300, hint: 200, at: 3, round: 5, epoch: 2, refused: true},
		"vote":          {kind: kindVote, term: 7, index: 300, at: 6, pre: true, forced: true},
		"votereply":     {kind: kindVoteReply, term: 7, pre: true, refused: true},
		"snapshot":      {kind: kindSnapshot, term: 7, index: 300, at: 6, epoch: 2, members: members, snap: snap, hint: 10, body: []byte("chunk")},
		"snapshotreply": {kind: kindSnapshotReply, term: 7, index: 300, hint: 10, epoch: 2},
		"timeoutnow":    {kind: kindTimeoutNow, term: 7},
		"read":          {kind: kindRead, term: 7, epoch: 1 << 60, round: 3},
		"readreply":     {kind: kindReadReply, term: 7, epoch: 1 << 60, round: 3, index: 300, at: 6},
		"introduce":     {kind: kindIntroduce, term: 7, members: members},
		"state":         {kind: kindState, term: 7, vote: "a"},
		"base":          {kind: kindBase, term: 7, vote: "a", index: 300, at: 6, members: members, snap: snap},
	}
}

// TestGoldenFormat: what was written by this version can be read by the next, or it says so. Write the files anew with
// UPDATE_GOLDEN=1, and say so in the changelog.
func TestGoldenFormat(t *testing.T) {
	for name, m := range goldenMessages() {
		file := filepath.Join("testdata", "golden", name)
		got := m.encode(nil)
		if os.Getenv("UPDATE_GOLDEN") == "1" {
			require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
			require.NoError(t, os.WriteFile(file, got, 0o600))
		}
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, want, got, name)
		var d message
		require.NoError(t, d.decode(want), name)
		require.Equal(t, m, d, name)
	}
}

// FuzzStep gives a core whatever comes: an error or not, it must not panic, and its invariants hold.
func FuzzStep(f *testing.F) {
	for _, m := range goldenMessages() {
		f.Add(m.encode(nil), byte(0))
	}
	f.Fuzz(func(t *testing.T, payload []byte, role byte) {
		core, err := NewCore(Config{ID: "a", Seed: 1, Voters: map[coterie.NodeID]string{"a": "", "b": "", "c": ""}})
		if err != nil {
			t.Fatal(err)
		}
		now := time.Unix(0, 0)
		core.Tick(now)
		if role%2 == 1 {
			core.elect(false)
			vote := message{kind: kindVoteReply, term: core.term}
			_ = core.Step(now, "a", vote.encode(nil))
			_ = core.Step(now, "b", vote.encode(nil))
			core.Ready()
		}
		for range 2 {
			_ = core.Step(now, "b", payload)
			core.Ready()
		}
		_ = describe(payload)
	})
}

// FuzzReplay gives a core whatever a journal may hold.
func FuzzReplay(f *testing.F) {
	for _, m := range goldenMessages() {
		f.Add(m.encode(nil))
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		core, err := NewCore(Config{ID: "a", Seed: 1, Voters: map[coterie.NodeID]string{"a": ""}})
		if err != nil {
			t.Fatal(err)
		}
		if core.Replay(record) == nil {
			_ = core.Replay(record)
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

var errAny = errors.New("any")

// TestBrokenChunksAreTriedAgain: a snapshot that cannot be read or written is not installed, and is tried again.
func TestBrokenChunksAreTriedAgain(t *testing.T) {
	g := newGroup(t, 3, func(c *Config) { c.SnapshotChunkBytes = 10 })
	a := g.elect("a")
	g.cut["c"] = true
	for i := range 20 {
		a.propose(uint64(i+1), fmt.Sprintf("%03d", i))
		g.deliver()
	}
	a.snapshot()
	file := a.files[a.base.snapshot.Name]
	delete(a.files, a.base.snapshot.Name)
	g.cut["c"] = false
	g.advance(5 * testTimeout)
	require.NotZero(t, a.metrics.ChunkErrors)
	require.Equal(t, Leader, a.role)
	a.files[a.base.snapshot.Name] = file
	c := g.nodes["c"]
	c.ChunkWritten(g.now, c.recv.writing, errAny)
	g.advance(10 * testTimeout)
	require.Equal(t, a.applied, c.applied)
}
