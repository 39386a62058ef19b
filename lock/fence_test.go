package lock

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/replication/wal"
	"github.com/coterie-go/coterie/transport/host"
)

var update = flag.Bool("update", false, "write the golden files anew")

func newFence(t require.TestingT, j coterie.Journal) *Fence {
	f, err := NewFence(FenceConfig{Journal: j})
	require.NoError(t, err)
	return f
}

// A holder is paused for longer than its lease, another one acquires and writes, the first one goes on: its token is
// too low (Kleppmann, "How to do distributed locking", 2016).
func TestFenceRefusesThePausedHolder(t *testing.T) {
	f := newFence(t, nil)
	require.NoError(t, f.Check("x", 33))
	require.NoError(t, f.Check("x", 33), "a holder writes more than once")
	require.NoError(t, f.Check("x", 34))
	err := f.Check("x", 33)
	require.ErrorIs(t, err, ErrStale)
	stale := (*StaleError)(nil)
	require.ErrorAs(t, err, &stale)
	require.Equal(t, StaleError{Name: "x", Token: 33, Seen: 34}, *stale)
	require.NoError(t, f.Check("y", 1), "names have tokens of their own")
	require.EqualValues(t, 34, f.Seen("x"))
	require.ErrorIs(t, f.Check("z", 0), ErrStale, "who has no token has no lock")
	require.ErrorIs(t, f.Guard("z", 0, nil), ErrStale)
	require.Len(t, f.names, 2, "what is refused leaves nothing behind")
}

func TestFenceGuardsTheWrite(t *testing.T) {
	f := newFence(t, nil)
	var next, last atomic.Uint64
	var inside, writes atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				token := next.Add(1)
				runtime.Gosched()
				err := f.Guard("x", token, func() error {
					assert.EqualValues(t, 1, inside.Add(1), "two write at once")
					assert.Less(t, last.Swap(token), token, "an older token wrote later")
					runtime.Gosched()
					inside.Add(-1)
					writes.Add(1)
					return f.Guard("y", 1, func() error { return nil }) // other names need not wait
				})
				if err != nil {
					assert.ErrorIs(t, err, ErrStale)
				}
			}
		})
	}
	wg.Wait()
	require.NotZero(t, writes.Load())
	newest := f.Seen("x")
	require.ErrorIs(t, f.Guard("x", newest-1, func() error { panic("written") }), ErrStale)
	mine := errors.New("mine")
	require.ErrorIs(t, f.Guard("x", newest+1, func() error { return mine }), mine)
	require.Equal(t, newest+1, f.Seen("x"), "a write that failed may have been done")
}

func TestFenceSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	open := func() *wal.Log {
		log, err := wal.Open(wal.Config{Dir: dir, Owner: "resource"})
		require.NoError(t, err)
		return log
	}
	log := open()
	require.NoError(t, newFence(t, log).Check("x", 34))
	require.NoError(t, log.Close())
	log = open()
	defer log.Close()
	f := newFence(t, log)
	require.ErrorIs(t, f.Check("x", 33), ErrStale)
	require.NoError(t, f.Check("x", 34))
}

// failing is a Journal whose disk is full.
type failing struct{ host.MemoryJournal }

var errFull = errors.New("disk full")

func (*failing) Append(...[]byte) error { return errFull }

func TestFenceThatCannotRemember(t *testing.T) {
	f := newFence(t, &failing{})
	require.ErrorIs(t, f.Check("x", 1), errFull)
	require.ErrorIs(t, f.Check("x", 1), errFull, "a journal's error is final")
	require.ErrorIs(t, f.Guard("x", 2, func() error { panic("written") }), errFull)
	require.Zero(t, f.Seen("x"))
}

// A Fence admits a token if it is the largest so far, also after restarts and with a journal that replays more than it
// was asked to keep; and the journal stays short.
func TestFenceAgreesWithMaximum(t *testing.T) {
	testsize.Checks(t, 100, 5000)
	rapid.Check(t, func(t *rapid.T) {
		j := &journal{slack: rapid.IntRange(0, 5).Draw(t, "slack")}
		f := newFence(t, j)
		seen := map[string]uint64{}
		for range rapid.IntRange(0, 400).Draw(t, "checks") {
			name := rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "name")
			token := max(1, seen[name]+rapid.Uint64Range(0, 3).Draw(t, "step")) - rapid.SampledFrom([]uint64{0, 0, 0, 1}).Draw(t, "back")
			if token >= seen[name] && token > 0 {
				require.NoError(t, f.Check(name, token))
				seen[name] = token
			} else {
				require.ErrorIs(t, f.Check(name, token), ErrStale)
			}
			require.Equal(t, seen[name], f.Seen(name))
			if rapid.IntRange(0, 50).Draw(t, "restart") == 0 {
				f = newFence(t, j)
			}
		}
		require.LessOrEqual(t, len(j.records), 70+j.slack)
	})
}

// journal keeps a few more records than it is asked to.
type journal struct {
	records [][]byte
	slack   int
}

func (j *journal) Replay(f func([]byte) error) error {
	for _, r := range j.records {
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

func (j *journal) Append(records ...[]byte) error {
	j.records = append(j.records, records...)
	return nil
}

func (j *journal) Keep(newest int) error {
	j.records = j.records[max(0, len(j.records)-newest-j.slack):]
	return nil
}

func (j *journal) Close() error { return nil }

func fenceRecords() [][]byte {
	f := &Fence{journal: &journal{}, names: map[string]*fenced{}}
	for i := range 65 {
		if err := f.Check([]string{"x", "a longer name"}[i%2], uint64(1000+i)); err != nil {
			panic(err)
		}
	}
	records := f.journal.(*journal).records
	return [][]byte{{fenceFormat, kindSeen, 1, 'x', 0xe8, 7}, records[0]}
}

func TestFenceGolden(t *testing.T) {
	records := fenceRecords()
	path := filepath.Join("testdata", "fence.golden")
	got := slices.Concat(wire.AppendBytes(nil, records[0]), wire.AppendBytes(nil, records[1]))
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, got, "a format may change with a CHANGELOG line only")
	f := newFence(t, &journal{records: records})
	require.EqualValues(t, 1064, f.Seen("x"))
	require.EqualValues(t, 1063, f.Seen("a longer name"))
	_, err = NewFence(FenceConfig{Journal: &journal{records: [][]byte{{fenceFormat + 1}}}})
	newer := (*coterie.FormatError)(nil)
	require.ErrorAs(t, err, &newer)
	require.Equal(t, coterie.FormatError{What: "fence record", Got: fenceFormat + 1, Max: fenceFormat}, *newer)
}

func FuzzFenceRecord(f *testing.F) {
	for _, r := range fenceRecords() {
		f.Add(r)
	}
	f.Add([]byte{fenceFormat, kindSummary, 0xff, 0xff, 0xff, 0xff, 7})
	f.Fuzz(func(t *testing.T, record []byte) {
		fence := &Fence{names: map[string]*fenced{}}
		if err := fence.replay(record); err != nil {
			require.Empty(t, fence.names, "a bad record changed something")
			return
		}
		for name, n := range fence.names {
			require.Equal(t, n.seen, fence.Seen(name))
		}
	})
}

func TestFenceChecksWithoutAllocation(t *testing.T) {
	f := newFence(t, nil)
	require.NoError(t, f.Check("x", 1))
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if f.Check("x", 1) != nil {
			t.Fatal("refused")
		}
	}))
}
