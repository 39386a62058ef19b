package paxos

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/internal/testsize"
)

// goldenMessages are one of each kind of message and record.
func goldenMessages() []message {
	b, older := Ballot{7, "b"}, Ballot{5, "c"}
	members := []Member{{"a", "host-a:1"}, {"b", ""}}
	confs := []savedConf{{0, members}, {300, members[:1]}}
	snap := consensus.Snapshot{Name: "snap", Size: 300, Checksum: 0x0123456789abcdef}
	l := slotLog{}
	l.extend([]consensus.Entry{{Command: []byte("own")}}, l.era(b))
	l.extend([]consensus.Entry{{Internal: true}}, l.era(older))
	s1, e1 := l.at(1)
	s2, e2 := l.at(2)
	run := appendOlder(appendOwn(nil, e1), e2, older)
	report := l.appendReport(nil, s1, e1)
	s2.state = chosen
	report = l.appendReport(append(report, headEmpty), s2, e2)
	return []message{
		{kind: kindPrepare, ballot: b, poll: true, first: 12, chosen: 11},
		{kind: kindPromise, ballot: b, willing: true, first: 12, chosen: 13, start: 3, round: 15, count: 3, body: report},
		{kind: kindAccept, ballot: b, first: 12, chosen: 11, round: 9, count: 2, body: run},
		{kind: kindAccepted, ballot: b, chosen: 11, round: 9, spans: []span{{14, 300}, {12, 12}}},
		{kind: kindRefused, ballot: b, chosen: 11},
		{kind: kindLearn, ballot: b, first: 12, start: 400, offset: 200},
		{kind: kindChosen, ballot: b, first: 12, chosen: 20, count: 2, body: run},
		{kind: kindSnapshot, ballot: b, chosen: 400, confs: confs, snap: snap, offset: 200, body: []byte("piece")},
		{kind: kindRead, ballot: b, epoch: 1 << 40, round: 3},
		{kind: kindReadReply, ballot: b, willing: true, epoch: 1 << 40, round: 3, chosen: 20},
		{kind: kindState, ballot: b, chosen: 20},
		{kind: kindBase, ballot: b, start: 392, chosen: 400, confs: confs, snap: snap},
	}
}

func goldenSynod() []synodMessage {
	b := Ballot{7, "b"}
	return []synodMessage{
		{kind: synodPrepare, ballot: b},
		{kind: synodPromise, ballot: b, accepted: Ballot{5, "c"}, value: []byte("v")},
		{kind: synodAccept, ballot: b, value: []byte("v")},
		{kind: synodAccepted, ballot: b, value: []byte("v")},
		{kind: synodRefused, ballot: b},
		{kind: synodChosen, value: []byte("v")},
		{kind: synodState, ballot: b, accepted: Ballot{5, "c"}, value: []byte("v")},
		{kind: synodBegun, ballot: b},
	}
}

// TestFormatsAreGolden pins every message and record: other nodes, and journals, know these bytes. Write the file anew
// with UPDATE_GOLDEN=1, and say so in the changelog.
func TestFormatsAreGolden(t *testing.T) {
	var text strings.Builder
	for _, m := range goldenMessages() {
		fmt.Fprintf(&text, "%s\n    %s\n", hex.EncodeToString(m.encode(nil)), describe(m.encode(nil)))
	}
	for _, m := range goldenSynod() {
		fmt.Fprintf(&text, "%s\n    %s\n", hex.EncodeToString(m.encode()), (*Synod)(nil).Describe(m.encode()))
	}
	const file = "testdata/formats.golden"
	if os.Getenv("UPDATE_GOLDEN") == "1" {
		require.NoError(t, os.MkdirAll("testdata", 0o750))
		require.NoError(t, os.WriteFile(file, []byte(text.String()), 0o600))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), text.String())
}

// TestMessagesSurviveTheWire: what is decoded encodes to the same bytes.
func TestMessagesSurviveTheWire(t *testing.T) {
	for _, m := range goldenMessages() {
		b := m.encode(nil)
		var d message
		require.NoError(t, d.decode(b, Ballot{}), m.kind)
		require.Equal(t, b, d.encode(nil), m.kind)
		for i := range b { // and nothing that is cut off is taken
			if err := d.decode(b[:i], Ballot{}); err == nil && (d.kind == kindAccept || d.kind == kindChosen || d.kind == kindPromise) {
				require.Error(t, d.readValues(), "%v cut to %d", m.kind, i)
			} else {
				require.Error(t, err, "%v cut to %d", m.kind, i)
			}
		}
	}
	for _, m := range goldenSynod() {
		var d synodMessage
		require.NoError(t, d.decode(m.encode()))
		require.Equal(t, m.encode(), d.encode())
	}
}

func TestNewerFormatIsTold(t *testing.T) {
	var want *coterie.FormatError
	require.ErrorAs(t, new(message).decode([]byte{format + 1}, Ballot{}), &want)
	require.ErrorAs(t, new(synodMessage).decode([]byte{format + 1}), &want)
	require.EqualValues(t, format+1, want.Got)
}

// FuzzStep gives nodes in several roles whatever may come over the network, from a peer.
func FuzzStep(f *testing.F) {
	for _, m := range goldenMessages() {
		f.Add(m.encode(nil), byte(0))
		f.Add(m.encode(nil), byte(1))
	}
	f.Fuzz(func(t *testing.T, payload []byte, role byte) {
		cfg := Config{ID: "a", Seed: 1, Voters: map[coterie.NodeID]string{"a": "", "b": "", "c": ""}}
		core, err := NewCore(cfg)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Unix(0, 0)
		core.Tick(now)
		if role%2 == 1 {
			core.prepare()
			promise := message{kind: kindPromise, willing: true, ballot: core.promised, first: 1}
			_ = core.Step(now, "a", promise.encode(nil))
			_ = core.Step(now, "b", promise.encode(nil))
			core.Propose(now, 1, []byte("x"))
			core.Ready()
		}
		for range 2 {
			_ = core.Step(now, "b", payload)
			core.Ready()
		}
		_ = describe(payload)
	})
}

// FuzzReplay gives a core whatever a journal may hold, after a base.
func FuzzReplay(f *testing.F) {
	for _, m := range goldenMessages() {
		f.Add(m.encode(nil))
	}
	base := message{kind: kindBase, confs: []savedConf{{0, []Member{{ID: "a"}}}}}
	f.Fuzz(func(t *testing.T, record []byte) {
		core, err := NewCore(Config{ID: "a", Seed: 1, Voters: map[coterie.NodeID]string{"a": ""}})
		if err != nil {
			t.Fatal(err)
		}
		if err := core.Replay(base.encode(nil)); err != nil {
			t.Fatal(err)
		}
		if core.Replay(record) == nil {
			_ = core.Replay(record)
		}
	})
}

// FuzzSynod gives a Synod whatever may come over the network, and its journal.
func FuzzSynod(f *testing.F) {
	for _, m := range goldenSynod() {
		f.Add(m.encode())
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		for _, replay := range []bool{false, true} {
			s, err := NewSynod(SynodConfig{ID: "a", Quorums: majority(t, "a", "b", "c"), Seed: 1})
			if err != nil {
				t.Fatal(err)
			}
			if replay {
				_ = s.Replay(payload)
			} else {
				_ = s.Step(time.Unix(0, 0), "b", payload)
			}
			s.Tick(time.Unix(0, 0))
			s.Ready()
			_ = s.Describe(payload)
		}
	})
}

// TestSteadyLeaderAllocatesLittle: a proposal costs its share of messages and log, no more.
func TestSteadyLeaderAllocatesLittle(t *testing.T) {
	if testsize.Race() {
		t.Skip("the race detector allocates")
	}
	n := newLone(t, bugs{}, "a", "b", "c")
	b := n.candidate("b")
	n.receive("b", promiseOf(b, 1, Ballot{}, ""))
	command := []byte("sixteen bytes ok")
	id, slot := uint64(0), uint64(0)
	vote := make([][]byte, 0, 400)
	for i := range uint64(400) {
		m := message{kind: kindAccepted, ballot: b, spans: []span{{i*64 + 1, i*64 + 64}}}
		vote = append(vote, m.encode(nil))
	}
	round := 0
	allocs := testing.AllocsPerRun(200, func() {
		for range 64 {
			id++
			n.Propose(n.now, id, command)
		}
		for _, e := range n.Ready().Send {
			if e.To == "a" {
				_ = n.Step(n.now, "a", e.Payload)
			}
		}
		_ = n.Step(n.now, "b", vote[round])
		n.Ready()
		slot += 64
		round++
		n.Applied(n.now, slot)
	})
	require.Equal(t, slot, n.chosen)
	require.Less(t, allocs, 10.0, "for 64 proposals")
}
