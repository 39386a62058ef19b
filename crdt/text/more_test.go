package text

import (
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/internal/testsize"
)

var update = flag.Bool("update", false, "write the golden files anew")

func insert(t require.TestingT, x *Text, by id, pos int, s string) Delta {
	d, err := x.Insert(by, pos, s)
	require.NoError(t, err)
	return d
}

// Every way in which three replicas make four edits of a text of two characters, each edit after any of the earlier
// ones came, with or without what those build on, ends as the tree says (reearth/ygo#160, y-crdt/y-octo#53,
// automerge/automerge-classic#34).
func TestAllInterleavingsOfFourEdits(t *testing.T) {
	type state struct {
		texts  [3]*Text
		models [3]*oracle
	}
	var base Text
	model := newOracle()
	first := insert(t, &base, "base", 0, "xy")
	model.insert("base", 0, "xy")
	edits := []func(x *Text, o *oracle, by id) (Delta, error){
		func(x *Text, o *oracle, by id) (Delta, error) {
			o.insert(by, 1, "12")
			return x.Insert(by, 1, "12")
		},
		func(x *Text, o *oracle, by id) (Delta, error) {
			o.remove(by, 0, 1)
			return x.Delete(by, 0, 1)
		},
	}
	count, skip := 0, testsize.N(3, 1)
	if testsize.Race() && !testsize.Soak() {
		skip = 97
	}
	var descend func(s state, deltas []Delta, made []*oracle, used int)
	descend = func(s state, deltas []Delta, made []*oracle, used int) {
		n := len(deltas)
		if n == 4 {
			if count++; count%skip != 0 {
				return
			}
			all := newOracle()
			for i := range s.models {
				all.merge(s.models[i])
			}
			for i := range s.texts {
				x := s.texts[i].Clone()
				for _, p := range s.texts[i].pending {
					require.NoError(t, x.Merge(p))
				}
				for j := range deltas {
					require.NoError(t, x.Merge(deltas[3-j]))
				}
				require.Zero(t, x.Pending())
				require.Equal(t, all.text(), x.String())
			}
			return
		}
		for by := range min(used+1, 3) {
			for mask := range 1 << n {
				for _, edit := range edits {
					next := s
					x, o := s.texts[by].Clone(), newOracle()
					x.pending = append([]Delta(nil), s.texts[by].pending...)
					o.merge(s.models[by])
					before := x.Version()
					for m := range n {
						if mask>>m&1 == 1 {
							require.NoError(t, x.Merge(deltas[m]))
						}
					}
					if mask > 0 && x.Version().Compare(before) == clock.Equal {
						continue // nothing new
					}
					// The model has what the text has taken: an edit that waits for another is not there.
					for m := range n {
						if x.Version().Contains(clock.Dot{Node: deltas[m].op.id, Seq: uint64(deltas[m].op.last())}) {
							o.merge(made[m])
						}
					}
					known := newOracle()
					known.merge(o)
					d, err := edit(x, o, ids[by])
					if err != nil {
						continue
					}
					require.Equal(t, o.text(), x.String())
					next.texts[by], next.models[by] = x, o
					descend(next, append(deltas[:n:n], d), append(made[:n:n], o.since(known)), max(used, by+1))
				}
			}
		}
	}
	var s state
	for i := range s.texts {
		s.texts[i], s.models[i] = &Text{}, newOracle()
		require.NoError(t, s.texts[i].Merge(first))
		s.models[i].merge(model)
	}
	descend(s, nil, nil, 0)
	t.Logf("%d histories", count)
}

// Runs typed at one place at once stay in one piece, forwards, backwards and both (Fugue, Definition 4).
func TestRunsStayTogether(t *testing.T) {
	type way func(x *Text, by id, word string) []Delta
	forwards := func(x *Text, by id, word string) (ds []Delta) {
		for i, r := range word {
			ds = append(ds, insert(t, x, by, 3+i, string(r)))
		}
		return ds
	}
	backwards := func(x *Text, by id, word string) (ds []Delta) {
		for i := len(word) - 1; i >= 0; i-- {
			ds = append(ds, insert(t, x, by, 3, word[i:i+1]))
		}
		return ds
	}
	for _, first := range []way{forwards, backwards} {
		for _, second := range []way{forwards, backwards} {
			var base Text
			start := insert(t, &base, "base", 0, "in out")
			words := []string{"alpha", "bravo", "charlie"}
			var all []Delta
			for i, w := range words {
				var x Text
				require.NoError(t, x.Merge(start))
				if i == 0 {
					all = append(all, first(&x, ids[i], w)...)
				} else {
					all = append(all, second(&x, ids[i], w)...)
				}
			}
			for _, d := range all {
				require.NoError(t, base.Merge(d))
			}
			for _, w := range words {
				require.Contains(t, base.String(), w)
			}
		}
	}
}

// A change and its Watch: an editor that makes the changes shows the text.
func TestWatchersSeeEveryChange(t *testing.T) {
	testsize.Checks(t, 300, 30_000)
	rapid.Check(t, func(t *rapid.T) {
		var a, b pair
		a.oracle, b.oracle = newOracle(), newOracle()
		var shown []rune
		cancel := a.text.Watch(func(c Change) {
			tail := append([]rune(c.Inserted), shown[c.Pos+c.Deleted:]...)
			shown = append(shown[:c.Pos:c.Pos], tail...)
		})
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "who") {
			case 0:
				step(t, &a, "a")
			case 1:
				step(t, &b, "b")
			default:
				d, err := b.text.Since(a.text.Version())
				require.NoError(t, err)
				require.NoError(t, a.text.Merge(d))
				a.oracle.merge(b.oracle)
				d, err = a.text.Since(b.text.Version())
				require.NoError(t, err)
				require.NoError(t, b.text.Merge(d))
				b.oracle.merge(a.oracle)
			}
			require.Equal(t, a.text.String(), string(shown))
		}
		cancel()
		insert(t, &a.text, "a", 0, "x")
		require.Len(t, shown, a.text.Len()-1)
	})
}

func TestAnchorsMoveWithTheText(t *testing.T) {
	var x, y Text
	require.NoError(t, y.Merge(insert(t, &x, "a", 0, "hello world")))
	before, after := x.Anchor(6, false), x.Anchor(6, true)
	end, start := x.Anchor(11, false), x.Anchor(0, true)
	position := func(text *Text, a Anchor) int {
		p, err := text.Position(a)
		require.NoError(t, err)
		return p
	}
	require.NoError(t, x.Merge(insert(t, &y, "b", 6, "big ")))
	require.Equal(t, 10, position(&x, before))
	require.Equal(t, 6, position(&x, after))
	require.Equal(t, 15, position(&x, end))
	require.Equal(t, 0, position(&x, start))
	_, err := x.Delete("a", 3, 12)
	require.NoError(t, err)
	for _, a := range []Anchor{before, after, end} {
		require.Equal(t, 3, position(&x, a))
	}
	_, err = x.Position(Anchor{Char: clock.Dot{Node: "nobody", Seq: 1}})
	require.ErrorIs(t, err, ErrRange)
}

// Undoing everything leaves what others wrote; doing it again brings one's own back.
func TestUndoLeavesTheOthers(t *testing.T) {
	var x, y Text
	h := NewHistory(&x, "a")
	sync := func() {
		d, err := x.Since(y.Version())
		require.NoError(t, err)
		require.NoError(t, y.Merge(d))
		d, err = y.Since(x.Version())
		require.NoError(t, err)
		require.NoError(t, x.Merge(d))
		require.Equal(t, x.String(), y.String())
	}
	_, err := h.Insert(0, "one two three")
	require.NoError(t, err)
	h.Commit()
	sync()
	insert(t, &y, "b", 7, " [b's]")
	_, err = h.Delete(4, 9)
	require.NoError(t, err)
	_, err = h.Insert(4, "2")
	require.NoError(t, err)
	sync()
	require.Equal(t, "one 2 [b's]", x.String())
	_, ok, err := h.Undo()
	require.True(t, ok)
	require.NoError(t, err)
	sync()
	require.Contains(t, x.String(), "[b's]")
	require.Contains(t, x.String(), "two three")
	require.NotContains(t, x.String(), "2")
	_, _, err = h.Undo()
	require.NoError(t, err)
	sync()
	require.NotContains(t, x.String(), "one")
	require.Contains(t, x.String(), "[b's]")
	for range 2 {
		_, ok, err = h.Redo()
		require.True(t, ok)
		require.NoError(t, err)
	}
	sync()
	require.Contains(t, x.String(), "[b's]")
	require.Contains(t, x.String(), "one 2")
	require.NotContains(t, x.String(), "two")
	_, ok, _ = h.Redo()
	require.False(t, ok)
}

// Deleted text is dropped in two steps, and not while a replica may still hang something on it. One that knows less than
// what was collected is refused.
func TestStableDropsWhatIsDeletedEverywhere(t *testing.T) {
	var a, b, late Text
	start := insert(t, &a, "a", 0, "keep these words")
	require.NoError(t, b.Merge(start))
	require.NoError(t, late.Merge(start))
	d, err := a.Delete("a", 10, 6)
	require.NoError(t, err)
	insert(t, &b, "b", 4, "!")
	news, err := b.Since(a.Version())
	require.NoError(t, err)
	require.Zero(t, b.Stable(a.Version(), a.Version()), "b has not seen the deletion")
	require.NoError(t, b.Merge(d))
	require.NoError(t, a.Merge(news))
	all := a.Version()
	require.Zero(t, a.Stable(all, clock.Vector{}))
	insert(t, &a, "a", 11, "?") // beside what is deleted everywhere
	n := a.Stable(all, all)
	require.NotZero(t, n)
	require.NoError(t, a.check())
	require.Equal(t, "keep! these?", a.String())
	require.Zero(t, b.Stable(all, clock.Vector{}))
	news, err = a.Since(b.Version())
	require.NoError(t, err)
	require.NoError(t, b.Merge(news))
	require.NotZero(t, b.Stable(all, all))
	require.NoError(t, b.check())
	require.Equal(t, a.String(), b.String())

	_, err = a.Since(late.Version())
	require.ErrorIs(t, err, ErrBehind)
	require.Equal(t, "keep these words", late.String())
	whole, err := a.MarshalBinary()
	require.NoError(t, err)
	require.NoError(t, late.UnmarshalBinary(whole))
	require.Equal(t, a.String(), late.String())
	_, err = late.Since(start.version())
	require.ErrorIs(t, err, ErrBehind, "what was collected is known with the state")
}

func (d Delta) version() (v clock.Vector) {
	v.Set(d.op.id, uint64(d.op.last()))
	return v
}

func TestBadInputIsRefused(t *testing.T) {
	var x Text
	for _, f := range []func() (Delta, error){
		func() (Delta, error) { return x.Insert("a", 1, "x") },
		func() (Delta, error) { return x.Insert("a", -1, "x") },
		func() (Delta, error) { return x.Insert("a", 0, "\xff") },
		func() (Delta, error) { return x.Delete("a", 0, 1) },
		func() (Delta, error) { return x.Delete("a", 0, -1) },
	} {
		_, err := f()
		require.ErrorIs(t, err, ErrRange)
	}
	require.Zero(t, x.Len())
	require.Empty(t, x.String())
	insert(t, &x, "a", 0, "x")
	require.Error(t, x.Merge(Delta{op: op{id: "b", seq: 1, n: 1, text: "y", left: true}}))
	require.Equal(t, "x", x.String())
}

func TestTypingSeldomAllocates(t *testing.T) {
	if testsize.Race() {
		t.Skip("the race detector allocates")
	}
	var x Text
	pos := 0
	require.Less(t, testing.AllocsPerRun(10_000, func() {
		kept, _ = x.Insert("a", pos, "x")
		if pos++; pos%5 == 0 {
			kept, _ = x.Delete("a", pos-1, 1)
			pos--
		}
	}), 0.3)
}

var kept Delta

func goldenDeltas(t require.TestingT) map[string]Delta {
	var x, y Text
	first := insert(t, &x, "a", 0, "hellö world")
	require.NoError(t, y.Merge(first))
	deletion, err := x.Delete("a", 2, 5)
	require.NoError(t, err)
	require.NoError(t, x.Merge(insert(t, &y, "b", 5, ",")))
	whole, err := x.Since(clock.Vector{})
	require.NoError(t, err)
	part, err := x.Since(y.Version())
	require.NoError(t, err)
	return map[string]Delta{"insertion": first, "deletion": deletion, "joined": first.Join(deletion), "whole": whole, "part": part}
}

// What format 1 wrote must be read for ever: the files pin it byte by byte.
func TestGoldenFormat(t *testing.T) {
	for name, d := range goldenDeltas(t) {
		b, err := d.MarshalBinary()
		require.NoError(t, err)
		path := filepath.Join("testdata", "golden", name+".hex")
		if *update {
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, os.WriteFile(path, []byte(hex.EncodeToString(b)+"\n"), 0o644))
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, strings.TrimSpace(string(want)), hex.EncodeToString(b), name)
		var format *coterie.FormatError
		read := d
		require.ErrorAs(t, read.UnmarshalBinary(append([]byte{2}, b[1:]...)), &format)
		for n := range b {
			require.Error(t, read.UnmarshalBinary(b[:n]), "%s, %d of %d bytes", name, n, len(b))
		}
		require.Equal(t, d, read)
	}
}

// FuzzDelta: whatever the bytes, the decoder gives an error or a Delta that encodes again, and a Text takes that or
// refuses it, and is whole in either case.
func FuzzDelta(f *testing.F) {
	for _, d := range goldenDeltas(f) {
		b, err := d.MarshalBinary()
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var d Delta
		if d.UnmarshalBinary(b) != nil {
			return
		}
		again, err := d.MarshalBinary()
		require.NoError(t, err)
		var read Delta
		require.NoError(t, read.UnmarshalBinary(again))
		var x Text
		insert(t, &x, "a", 0, "hello")
		before := x.String()
		if err := x.Merge(d); err != nil && d.isState() {
			require.Equal(t, before, x.String())
		}
		if len(x.blocks) < 1000 && x.Len() < 1000 {
			require.Equal(t, x.Len(), len([]rune(x.String())))
		}
	})
}
