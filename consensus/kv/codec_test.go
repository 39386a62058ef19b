package kv

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/internal/wire"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sampleCommands are one of each kind.
func sampleCommands() [][]byte {
	txn := Txn{
		If: []Compare{Present("a"), ValueIs("b", []byte("v")), {Span: Prefix("c/"), Field: FieldCount, Is: Less, Number: 3}},
		Then: []Op{
			Put{Key: "a", Value: []byte("v"), Lease: 300}, Put{Key: "q/", Sequential: true}, Delete{Span: Prefix("d")},
			Rollback{Span: Key("e"), Revision: 5},
		},
		Else: []Op{Get{Span: Prefix(""), Revision: 7, Limit: 10, KeysOnly: true, CountOnly: true, Descending: true}},
	}
	return [][]byte{
		txn.encode(), wire.AppendVarint(start(cmdGrant), int64(10*time.Second)), wire.AppendUvarint(start(cmdKeepAlive), 300),
		wire.AppendUvarint(start(cmdRevoke), 300), wire.AppendUvarint(start(cmdCompact), 9),
	}
}

func sampleQueries() [][]byte {
	var b [][]byte
	for _, q := range []query{
		{kind: queryGet, get: Get{Span: Key("a"), Limit: 2}}, {kind: queryWatch, span: Prefix("a"), from: 7, wait: time.Second},
		{kind: queryTurn, turn: Turn{Key: "q/2", Spans: []Span{{"q/", "q/2"}}, Below: 3, Revision: 4}, wait: time.Second}, {kind: queryLease, lease: 9},
		{kind: queryStatus},
	} {
		b = append(b, q.encode())
	}
	return b
}

// sampleStore has something of everything.
func sampleStore(t require.TestingT) *log {
	l := newLog(t, Config{HistorySize: 3})
	lease := l.grant(time.Minute)
	for i := range 4 {
		l.do(Put{Key: "a", Value: []byte{byte(i)}}, Put{Key: "e/", Lease: lease, Sequential: true})
	}
	l.do(Delete{Span: Key("a")})
	l.grant(time.Hour)
	return l
}

func TestGolden(t *testing.T) {
	l := sampleStore(t)
	commands, queries := sampleCommands(), sampleQueries()
	var answers [][]byte
	for _, c := range commands {
		l.index++
		answers = append(answers, l.s.Apply(coterie.Entry{Index: l.index, Time: l.now, Command: c}))
	}
	for _, q := range queries {
		a, err := l.s.Query(q)
		require.NoError(t, err)
		answers = append(answers, a)
	}
	for name, parts := range map[string][][]byte{
		"commands": commands, "queries": queries, "answers": answers, "snapshot": {sampleStore(t).snapshot()},
	} {
		var got []byte
		for _, p := range parts {
			got = wire.AppendBytes(got, p)
		}
		path := filepath.Join("testdata", name+".golden")
		if *update {
			require.NoError(t, os.MkdirAll("testdata", 0o755))
			require.NoError(t, os.WriteFile(path, got, 0o644))
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, want, got, "%s: a format may change with a CHANGELOG line only", name)
	}
	var newer *coterie.FormatError
	_, err := readCommand([]byte{format + 1, cmdTxn})
	require.ErrorAs(t, err, &newer)
	_, err = readQuery([]byte{format + 1, queryGet})
	require.ErrorAs(t, err, &newer)
	_, _, err = readAnswer([]byte{format + 1, 0})
	require.ErrorAs(t, err, &newer)
}

func TestCommandsSurviveTheWire(t *testing.T) {
	testsize.Checks(t, 200, 10000)
	rapid.Check(t, func(t *rapid.T) {
		txn := Txn{
			If:   rapid.SliceOfN(drawCompare(), 0, 3).Draw(t, "if"),
			Then: rapid.SliceOfN(drawOp(), 0, 3).Draw(t, "then"), Else: rapid.SliceOfN(drawOp(), 0, 3).Draw(t, "else"),
		}
		b := txn.encode()
		c, err := readCommand(b)
		require.NoError(t, err)
		require.Equal(t, b, c.txn.encode())
		for cut := range b {
			_, err := readCommand(b[:cut])
			require.ErrorIs(t, err, ErrBadCommand)
		}
	})
}

func TestBoundsOfATxn(t *testing.T) {
	txn := Txn{Then: slices.Repeat([]Op{Get{}}, MaxOps)}
	require.NoError(t, txn.check())
	txn.Then = append(txn.Then, Get{})
	require.ErrorIs(t, txn.check(), ErrBadCommand)
	txn = Txn{Else: []Op{nil}}
	require.ErrorIs(t, txn.check(), ErrBadCommand)
	txn = Txn{If: []Compare{{Field: 77, Is: Equal}}}
	require.ErrorIs(t, txn.check(), ErrBadCommand)
}

func TestFaultsSurviveTheWire(t *testing.T) {
	for _, kind := range faults[1:] {
		err := kind
		if errors.Is(kind, ErrCompacted) {
			err = &CompactedError{Asked: 5, Oldest: 9}
		}
		_, revision, got := readAnswer(appendFault(300, err))
		require.Equal(t, err, got)
		require.EqualValues(t, 300, revision)
		_, _, got = readAnswer(appendFault(300, errors.Join(err, errors.New("more"))))
		require.ErrorIs(t, got, kind)
	}
}

func FuzzCommand(f *testing.F) {
	for _, c := range sampleCommands() {
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l := sampleStore(t)
		before := l.snapshot()
		l.index++
		a := l.s.Apply(coterie.Entry{Index: l.index, Time: l.now, Command: b})
		if len(b) == 0 {
			return
		}
		_, _, err := readAnswer(a)
		if err != nil {
			require.Equal(t, before, l.snapshot(), "refused (%v), and changed something", err)
		}
		require.NoError(t, l.s.Restore(bytes.NewReader(l.snapshot())))
	})
}

func FuzzQuery(f *testing.F) {
	for _, q := range sampleQueries() {
		f.Add(q)
	}
	l := sampleStore(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		l.t = t
		before := l.snapshot()
		_, err := l.s.Query(b)
		require.NoError(t, err, "faults are answers")
		require.Equal(t, before, l.snapshot())
	})
}

func FuzzAnswer(f *testing.F) {
	l := sampleStore(f)
	for _, c := range sampleCommands() {
		l.index++
		f.Add(l.s.Apply(coterie.Entry{Index: l.index, Time: l.now, Command: c}))
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		r, revision, err := readAnswer(b)
		if err != nil {
			return
		}
		again := r
		_, _ = readTxnResult(&r, revision)
		_, _, _ = readWatch(&again)
	})
}

func FuzzSnapshot(f *testing.F) {
	f.Add(sampleStore(f).snapshot())
	f.Add(newLog(f, Config{}).snapshot())
	f.Fuzz(func(t *testing.T, b []byte) {
		l := newLog(t, Config{})
		if l.s.Restore(bytes.NewReader(b)) != nil {
			require.Zero(t, l.s.View().Revision())
			return
		}
		l.put("a", "1")
		l.now = l.now.Add(time.Hour)
		_, _, err := l.apply(nil)
		require.NoError(t, err)
	})
}
