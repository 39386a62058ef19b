package raft

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

var errAny = errors.New("any")

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
