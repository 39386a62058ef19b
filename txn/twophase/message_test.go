package twophase

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/txn"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

func sampleMessages() []message {
	id := txn.ID("node/3/77")
	return []message{
		{kind: kindStarted, epoch: 3},
		{kind: kindPrepare, id: id, low: position{3, 70}, members: []coterie.NodeID{"a", "b"}},
		{kind: kindVote, id: id, vote: txn.Yes},
		{kind: kindVote, id: id, vote: txn.No, reason: "locked"},
		{kind: kindDecision, id: id, outcome: committed},
		{kind: kindAck, id: id},
		{kind: kindInquire, id: id, peer: true},
		{kind: kindAnswer, id: id, outcome: pending},
	}
}

func sampleRecords() []record {
	open := openTxn{"node/3/77", []coterie.NodeID{"a", "b"}}
	return []record{
		{kind: recordCheckpoint, node: "node", epoch: 3, committed: []openTxn{open}, prepared: []openTxn{{"x/1/2", []coterie.NodeID{"y"}}}, refused: []txn.ID{"x/1/3"}},
		{kind: recordCommit, openTxn: open},
		{kind: recordEnd, openTxn: openTxn{id: open.id}},
		{kind: recordPrepared, openTxn: open},
		{kind: recordRefused, openTxn: openTxn{id: open.id}},
		{kind: recordFinished, openTxn: openTxn{id: open.id}},
	}
}

func TestGoldenFormats(t *testing.T) {
	var b strings.Builder
	for _, m := range sampleMessages() {
		fmt.Fprintf(&b, "message %s %x\n", &m, m.encode())
	}
	for _, r := range sampleRecords() {
		fmt.Fprintf(&b, "record %d %x\n", r.kind, r.encode())
	}
	name := filepath.Join("testdata", "golden", "format1.txt")
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
	for line := range strings.Lines(string(want)) {
		fields := strings.Fields(line)
		p, err := hex.DecodeString(fields[len(fields)-1])
		require.NoError(t, err)
		if fields[0] == "message" {
			m, err := decodeMessage(p)
			require.NoError(t, err, line)
			require.Equal(t, p, m.encode())
		} else {
			r, err := decodeRecord(p)
			require.NoError(t, err, line)
			require.Equal(t, p, r.encode())
		}
	}
}

func TestNewerFormatsAreTold(t *testing.T) {
	var newer *coterie.FormatError
	_, err := decodeMessage([]byte{format + 1, byte(kindAck)})
	require.ErrorAs(t, err, &newer)
	_, err = decodeRecord([]byte{format + 1, byte(recordEnd)})
	require.ErrorAs(t, err, &newer)
	require.Equal(t, byte(format), newer.Max)
	core, err := NewCore(Config{ID: "a"})
	require.NoError(t, err)
	require.ErrorAs(t, core.Replay([]byte{format + 1, byte(recordEnd)}), &newer)
}

func TestIDsHaveOneSpelling(t *testing.T) {
	testsize.Checks(t, 200, 5000)
	rapid.Check(t, func(t *rapid.T) {
		node := coterie.NodeID(rapid.StringN(1, 20, 40).Draw(t, "node"))
		at := position{rapid.Uint64().Draw(t, "epoch"), rapid.Uint64().Draw(t, "seq")}
		gotNode, gotAt, err := parseID(makeID(node, at))
		if err != nil || gotNode != node || gotAt != at {
			t.Fatalf("%q of %q %v reads as %q %v, %v", makeID(node, at), node, at, gotNode, gotAt, err)
		}
	})
	for _, bad := range []txn.ID{"", "a", "a/1", "/1/1", "a/01/1", "a/1/+1", "a/1/18446744073709551616", "a/x/1", "a/1/", "//"} {
		if _, _, err := parseID(bad); !errors.Is(err, txn.ErrUnknown) {
			t.Errorf("%q is an ID: %v", bad, err)
		}
	}
}

func FuzzMessage(f *testing.F) {
	for _, m := range sampleMessages() {
		f.Add(m.encode())
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := decodeMessage(p)
		core := startedCore(t, "node")
		before := fmt.Sprintf("%+v", core.Status())
		stepped := core.Step(testEpoch, "a", p)
		if stepped != nil {
			if ready := core.Ready(); len(ready.Save)+len(ready.Send)+len(ready.Events) > 0 || fmt.Sprintf("%+v", core.Status()) != before {
				t.Errorf("an error changed something: %v", stepped)
			}
		}
		if err != nil {
			if stepped == nil {
				t.Error("malformed and taken")
			}
			return
		}
		again, err := decodeMessage(m.encode())
		if err != nil || !bytes.Equal(again.encode(), m.encode()) {
			t.Errorf("%+v reads back as %+v, %v", m, again, err)
		}
	})
}

func FuzzRecord(f *testing.F) {
	for _, r := range sampleRecords() {
		f.Add(r.encode())
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		core, err := NewCore(Config{ID: "node"})
		if err != nil {
			t.Fatal(err)
		}
		_ = core.Replay((&record{kind: recordCheckpoint, node: "node", epoch: 1}).encode())
		_ = core.Replay(p)
		core.Tick(testEpoch)
		core.Ready()
		if r, err := decodeRecord(p); err == nil {
			if again, err := decodeRecord(r.encode()); err != nil || !bytes.Equal(again.encode(), r.encode()) {
				t.Errorf("%+v reads back as %+v, %v", r, again, err)
			}
		}
	})
}

var testEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// startedCore is a core whose start is durable.
func startedCore(tb testing.TB, id coterie.NodeID) *Core {
	tb.Helper()
	core, err := NewCore(Config{ID: id})
	require.NoError(tb, err)
	core.Tick(testEpoch)
	for _, e := range core.Ready().Send {
		require.NoError(tb, core.Step(testEpoch, id, e.Payload))
	}
	return core
}
