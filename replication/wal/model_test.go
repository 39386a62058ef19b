package wal

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/replication/wal/internal/vfs"
)

// A log under any appends, keeps, reopenings and crashes holds what a list per stream would, from where Keep let go
// or before, up to what was acknowledged or after.
func TestLogAgreesWithLists(t *testing.T) {
	testsize.Checks(t, 400, 20000)
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.SampledFrom([]int{512, 4096}).Draw(t, "sector"))
		w.cfg.NoSync = rapid.Float64Range(0, 1).Draw(t, "noSync") < 0.2
		must := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		must(w.open())
		streams := rapid.SampledFrom(worldStreams)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				sizes := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 60), rapid.IntRange(0, 3000)), 1, 4).Draw(t, "sizes")
				must(w.append(streams.Draw(t, "stream"), sizes...))
			},
			"keep": func(t *rapid.T) {
				must(w.keep(streams.Draw(t, "stream"), rapid.IntRange(0, 3).Draw(t, "newest")))
			},
			"close": func(*rapid.T) {
				must(w.log.Close())
				must(w.open())
			},
			"crash": func(t *rapid.T) {
				rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
				if w.cfg.NoSync { // nothing is promised but a prefix
					for _, h := range w.streams {
						h.acked = 0
					}
				}
				w = w.crashed(func() bool { return rng.IntN(2) == 0 })
				must(w.open())
			},
			"": func(t *rapid.T) {
				for name, h := range w.streams {
					var got []string
					must(w.log.Stream(name).Replay(func(r []byte) error { got = append(got, string(r)); return nil }))
					if len(got) > len(h.said) || len(got) < len(h.said)-h.low ||
						!slices.Equal(got, h.said[len(h.said)-len(got):]) {
						t.Fatalf("stream %q: %d said, kept from %d, %d replayed", name, len(h.said), h.low, len(got))
					}
				}
			},
		})
		must(w.log.Close())
	})
}

// A stream that keeps a little and goes quiet does not make the log grow: it stays within twice of what is needed and
// a few segments.
func TestQuietStreamDoesNotHoldTheLog(t *testing.T) {
	w := newWorld(512)
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	if err := w.append("quiet", 20, 20, 20); err != nil {
		t.Fatal(err)
	}
	var moved uint64
	for i := range 200 {
		if err := w.append("", 1000+i); err != nil {
			t.Fatal(err)
		}
		if err := w.keep("", 1); err != nil {
			t.Fatal(err)
		}
		if i%50 == 49 {
			moved += w.log.Metrics().Moved
			if err := w.log.Close(); err != nil {
				t.Fatal(err)
			}
			if err := w.open(); err != nil {
				t.Fatal(err)
			}
		}
		if m := w.log.Metrics(); m.DiskSize > 2*(m.LiveSize+minSegmentSize)+2*minSegmentSize {
			t.Fatalf("append %d: %+v", i, m)
		}
	}
	if moved == 0 {
		t.Fatal("nothing was moved")
	}
	if got := replay(t, w.log.Stream("quiet")); fmt.Sprint(got) != fmt.Sprint(w.streams["quiet"].said) {
		t.Fatal(got)
	}
}

// One stream alone is never copied, however long it keeps.
func TestOneStreamIsNeverMoved(t *testing.T) {
	mem := vfs.NewMem()
	l := mustOpen(t, Config{Dir: "d", SegmentSize: minSegmentSize, fs: mem})
	for range 100 {
		if err := l.Append(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		if err := l.Keep(40); err != nil {
			t.Fatal(err)
		}
	}
	if m := l.Metrics(); m.Moved != 0 || m.Removed < 15 || m.Segments > 16 {
		t.Fatalf("%+v", m)
	}
}
