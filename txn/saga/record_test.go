package saga

import (
	"bytes"
	"context"
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
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

func sampleRecords() []record {
	at := time.Unix(946684800, 0)
	return []record{
		{kind: recordCheckpoint, owner: "node", sagas: []*instance{
			{id: "1", def: "trip", begun: at, state: Done, done: []result{{"a", []byte("r")}}},
			{id: "2", def: "trip", begun: at, input: []byte("in"), state: Compensating, left: []string{"a"}, done: []result{{"a", nil}}, failed: "b", reason: "no"},
		}},
		{kind: recordBegin, id: "3", def: "trip", begun: at.UnixNano(), steps: []string{"a", "b"}, blob: []byte("in")},
		{kind: recordDone, id: "3", step: "a", blob: []byte("r")},
		{kind: recordCompensating, id: "3", step: "b", reason: "no seats", steps: []string{"a"}},
		{kind: recordUndone, id: "3", step: "a"},
	}
}

func TestGoldenFormats(t *testing.T) {
	var b strings.Builder
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
	state := book{owner: "node", retain: 10, sagas: map[string]*instance{}}
	for line := range strings.Lines(string(want)) {
		p, err := hex.DecodeString(strings.Fields(line)[2])
		require.NoError(t, err)
		r, err := decodeRecord(p)
		require.NoError(t, err)
		require.Equal(t, p, r.encode())
		require.NoError(t, state.apply(&r))
	}
	require.Equal(t, Compensated, state.sagas["3"].state)
	require.Equal(t, 1, state.open())
}

func TestNewerFormatIsTold(t *testing.T) {
	var newer *coterie.FormatError
	_, err := decodeRecord([]byte{format + 1, byte(recordBegin)})
	require.ErrorAs(t, err, &newer)
	require.Equal(t, byte(format), newer.Max)
}

func TestRecordsOutOfTurnAreRefused(t *testing.T) {
	fresh := func() *book {
		b := &book{owner: "node", retain: 10, sagas: map[string]*instance{}}
		for _, r := range sampleRecords()[:2] {
			require.NoError(t, b.apply(&r))
		}
		return b
	}
	for _, bad := range []record{
		{kind: recordBegin, id: "3", steps: []string{"a"}},
		{kind: recordDone, id: "unknown", step: "a"},
		{kind: recordDone, id: "3", step: "z"},
		{kind: recordDone, id: "1", step: "a"},
		{kind: recordUndone, id: "3", step: "a"},
		{kind: recordUndone, id: "2", step: "z"},
		{kind: recordCompensating, id: "2"},
		{kind: recordCheckpoint, owner: "other"},
	} {
		b := fresh()
		before := b.checkpoint().encode()
		require.Error(t, b.apply(&bad), "%+v", bad)
		require.Equal(t, before, b.checkpoint().encode(), "an error changed something")
	}
}

// A checkpoint is the same as the records that it stands for, wherever it is made.
func TestCheckpointStandsForItsRecords(t *testing.T) {
	testsize.Checks(t, 100, 5000)
	rapid.Check(t, func(t *rapid.T) {
		whole := &book{owner: "n", retain: 2, sagas: map[string]*instance{}, read: true}
		cut := &book{owner: "n", retain: 2, sagas: map[string]*instance{}, read: true}
		for range rapid.IntRange(1, 60).Draw(t, "records") {
			rec := record{
				kind: recordKind(rapid.IntRange(int(recordBegin), int(recordUndone)).Draw(t, "kind")),
				id:   rapid.SampledFrom([]string{"1", "2", "3", "4"}).Draw(t, "id"),
				step: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "step"), def: "d", begun: 7,
			}
			rec.steps = rapid.SampledFrom([][]string{{"a"}, {"a", "b"}, nil}).Draw(t, "steps")
			if rec.kind == recordBegin && rec.steps == nil {
				rec.steps = []string{"a", "b"}
			}
			one, other := rec, rec
			if a, b := whole.apply(&one), cut.apply(&other); (a == nil) != (b == nil) {
				t.Fatalf("%+v: %v, %v", rec, a, b)
			}
			if rapid.Bool().Draw(t, "checkpoint") {
				back, err := decodeRecord(cut.checkpoint().encode())
				if err != nil {
					t.Fatal(err)
				}
				cut = &book{owner: "n", retain: 2, sagas: map[string]*instance{}}
				if err := cut.apply(&back); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(whole.checkpoint().encode(), cut.checkpoint().encode()) {
				t.Fatal("a checkpoint is not what it stands for")
			}
			if len(whole.over) > 2 {
				t.Fatal("more finished sagas than asked for")
			}
		}
	})
}

func FuzzRecord(f *testing.F) {
	for _, r := range sampleRecords() {
		f.Add(r.encode())
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		b := book{owner: "node", retain: 10, sagas: map[string]*instance{}}
		for _, r := range sampleRecords()[:2] {
			if err := b.apply(&r); err != nil {
				t.Fatal(err)
			}
		}
		r, err := decodeRecord(p)
		if err != nil {
			return
		}
		if again, err := decodeRecord(r.encode()); err != nil || !bytes.Equal(again.encode(), r.encode()) {
			t.Errorf("%+v reads back as %+v, %v", r, again, err)
		}
		if b.apply(&r) == nil {
			if _, err := decodeRecord(b.checkpoint().encode()); err != nil {
				t.Errorf("a checkpoint after %+v cannot be read: %v", r, err)
			}
		}
	})
}

// table is a Store that rolls back.
type table struct{ marks map[string]bool }

func (s table) Insert(_ context.Context, key string) (bool, error) {
	fresh := !s.marks[key]
	s.marks[key] = true
	return fresh, nil
}

// Whatever is called, how often and in whichever order, and whichever calls fail: the effect counts once or not at all, and
// after a compensation not at all.
func TestOnce(t *testing.T) {
	testsize.Checks(t, 200, 5000)
	rapid.Check(t, func(t *rapid.T) {
		marks, effect, undone := map[string]bool{}, 0, false
		for range rapid.IntRange(1, 12).Draw(t, "calls") {
			c := Call{Saga: "s", Step: "x", Undo: rapid.Bool().Draw(t, "undo")}
			fails := rapid.Bool().Draw(t, "fails")
			tx := table{map[string]bool{}}
			for k := range marks {
				tx.marks[k] = true
			}
			delta := 0
			err := Once(t.Context(), tx, c, func(context.Context) error {
				if fails {
					return errors.New("no")
				}
				delta = 1
				if c.Undo {
					delta = -1
				}
				return nil
			})
			if err == nil { // commit, else roll back
				marks, effect = tx.marks, effect+delta
				undone = undone || c.Undo
			}
			if effect < 0 || effect > 1 || undone && effect != 0 {
				t.Fatalf("effect %d, undone %v", effect, undone)
			}
		}
	})
}

func TestOnceTellsTheStoresErrors(t *testing.T) {
	for n := 1; n <= 2; n++ {
		left := n
		store := storeFunc(func() (bool, error) {
			if left--; left == 0 {
				return false, errors.New("store")
			}
			return false, nil
		})
		err := Once(t.Context(), store, Call{Undo: true}, func(context.Context) error { t.Error("called"); return nil })
		require.ErrorContains(t, err, "store")
	}
}

type storeFunc func() (bool, error)

func (f storeFunc) Insert(context.Context, string) (bool, error) { return f() }

// No two calls that differ have one key.
func TestKeysDiffer(t *testing.T) {
	testsize.Checks(t, 200, 5000)
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a/:0-9]{0,6}`)
		x := Call{Saga: name.Draw(t, "x"), Step: name.Draw(t, "xs"), Undo: rapid.Bool().Draw(t, "xu")}
		y := Call{Saga: name.Draw(t, "y"), Step: name.Draw(t, "ys"), Undo: rapid.Bool().Draw(t, "yu")}
		if same := x.Saga == y.Saga && x.Step == y.Step && x.Undo == y.Undo; same != (x.Key() == y.Key()) {
			t.Fatalf("%+v and %+v: %q, %q", x, y, x.Key(), y.Key())
		}
	})
}
