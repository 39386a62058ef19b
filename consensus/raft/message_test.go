package raft

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

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

// TestAppendFitsItsMemory: what an append is given to stand in is exactly what it takes.
func TestAppendFitsItsMemory(t *testing.T) {
	g := newGroup(t, 3, nil)
	a := g.elect("a")
	for i := range 300 {
		a.propose(uint64(i+1), string(make([]byte, i*7)))
		for _, m := range g.mail {
			if m.kind() == kindAppend {
				require.Equal(t, len(m.payload), cap(m.payload))
			}
		}
		g.deliver()
	}
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
