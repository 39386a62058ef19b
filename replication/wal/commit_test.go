package wal

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/replication/wal/internal/vfs"
)

// gate lets a test hold the first sync of segments after it is shut.
type gate struct {
	shut          atomic.Bool
	inside, leave chan *vfs.Fault
	syncs         atomic.Int64
}

func newGate(mem *vfs.Mem) *gate {
	g := &gate{inside: make(chan *vfs.Fault), leave: make(chan *vfs.Fault)}
	mem.Hook = func(op vfs.Op) *vfs.Fault {
		if op.Kind != "sync" {
			return nil
		}
		g.syncs.Add(1)
		if g.shut.CompareAndSwap(true, false) {
			g.inside <- nil
			return <-g.leave
		}
		return nil
	}
	return g
}

// Whoever appends while a sync is under way shares the next one, through any stream; nobody returns before it.
func TestAppendsShareOneSync(t *testing.T) {
	for _, fail := range []*vfs.Fault{nil, {Err: errInjected}} {
		synctest.Test(t, func(t *testing.T) {
			mem := vfs.NewMem()
			g := newGate(mem)
			l := mustOpen(t, Config{Dir: "d", fs: mem})
			g.shut.Store(true)
			before := g.syncs.Load()
			var returned atomic.Int64
			var wg sync.WaitGroup
			var failed atomic.Int64
			appendOne := func(i int) {
				wg.Go(func() {
					if err := l.Stream(fmt.Sprint(i % 10)).Append(fmt.Append(nil, i)); err != nil {
						failed.Add(1)
					}
					returned.Add(1)
				})
			}
			appendOne(0)
			<-g.inside
			for i := range 63 {
				appendOne(i + 1)
			}
			synctest.Wait()
			require.Zero(t, returned.Load(), "an append returned before its sync")
			g.leave <- fail
			wg.Wait()
			if fail != nil {
				require.Equal(t, int64(64), failed.Load())
				require.Equal(t, before+1, g.syncs.Load())
				require.NoError(t, l.Close())
				return
			}
			require.Zero(t, failed.Load())
			require.Equal(t, before+2, g.syncs.Load())
			require.Equal(t, uint64(64), l.Metrics().Records)
			require.Equal(t, uint64(2), l.Metrics().Batches)
			require.NoError(t, l.Close())
		})
	}
}

// A log that is poisoned by something else than the append under way tells everybody who waits for the next one.
func TestPoisonWakesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		g := newGate(mem)
		l := mustOpen(t, Config{Dir: "d", fs: mem})
		g.shut.Store(true)
		first, later := make(chan error, 1), make(chan error, 3)
		go func() { first <- l.Append([]byte("one")) }()
		<-g.inside
		for range 3 {
			go func() { later <- l.Append([]byte("two")) }()
		}
		synctest.Wait()
		l.mu.Lock()
		l.poison(errInjected) // as a segment that cannot be removed does
		l.mu.Unlock()
		g.leave <- nil
		require.NoError(t, <-first)
		for range 3 {
			require.ErrorIs(t, <-later, errInjected)
		}
		require.NoError(t, l.Close())
	})
}

// A sync that hangs blocks those who append and nobody else.
func TestHangingSyncBlocksAppendsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		g := newGate(mem)
		l := mustOpen(t, Config{Dir: "d", fs: mem})
		require.NoError(t, l.Append([]byte("one"), []byte("two")))
		g.shut.Store(true)
		appended := make(chan error, 1)
		go func() { appended <- l.Append([]byte("three")) }()
		<-g.inside
		require.Equal(t, uint64(1), l.Metrics().Batches)
		require.NoError(t, l.Keep(1))
		require.NoError(t, l.Stream("s").Close())
		synctest.Wait()
		require.Empty(t, appended)
		g.leave <- nil
		require.NoError(t, <-appended)
		require.Equal(t, []string{"two", "three"}, replay(t, l), "Keep counts what was durable")
		require.NoError(t, l.Close())
	})
}

// Close waits for the append under way and those queued behind it, which succeed; later ones are refused.
func TestCloseWaitsForAppends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		g := newGate(mem)
		l := mustOpen(t, Config{Dir: "d", fs: mem})
		g.shut.Store(true)
		errs := make(chan error, 3)
		go func() { errs <- l.Append([]byte("one")) }()
		<-g.inside
		go func() { errs <- l.Append([]byte("two")) }()
		synctest.Wait()
		go func() { errs <- l.Close() }()
		synctest.Wait()
		require.Empty(t, errs)
		require.ErrorIs(t, l.Append([]byte("three")), coterie.ErrClosed)
		g.leave <- nil
		for range 3 {
			require.NoError(t, <-errs)
		}
		require.NoError(t, l.Close())
		require.ErrorIs(t, l.Keep(1), coterie.ErrClosed)
		require.ErrorIs(t, l.Replay(nil), coterie.ErrClosed)
		l = mustOpen(t, Config{Dir: "d", fs: mem})
		require.Equal(t, []string{"one", "two"}, replay(t, l))
	})
}

// Many goroutines append, keep and replay at once, in real files; each stream has its own records in order.
func TestConcurrentStreams(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), SegmentSize: 16 << 10}
	l := mustOpen(t, cfg)
	const streams = 20
	each := testsize.N(300, 3000)
	var wg sync.WaitGroup
	errs := make([]error, streams)
	for i := range streams {
		wg.Go(func() {
			s := l.Stream(fmt.Sprint("s", i))
			for n := range each {
				errs[i] = errors.Join(errs[i], s.Append(fmt.Appendf(nil, "%d-%0*d", i, i*5+1, n)))
				if i%2 == 0 && n%20 == 19 {
					errs[i] = errors.Join(errs[i], s.Keep(10))
				}
				if n%100 == 50 {
					var got []string
					errs[i] = errors.Join(errs[i], s.Replay(func(r []byte) error { got = append(got, string(r)); return nil }))
					if want := fmt.Sprintf("%d-%0*d", i, i*5+1, n); got[len(got)-1] != want || !slices.IsSorted(got) && i > 1 {
						errs[i] = errors.Join(errs[i], fmt.Errorf("replay ends in %q, want %q", got[len(got)-1], want))
					}
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	check := func() {
		for i := range streams {
			got := replay(t, l.Stream(fmt.Sprint("s", i)))
			if i%2 == 0 {
				require.GreaterOrEqual(t, len(got), 10)
			} else {
				require.Len(t, got, each)
			}
			for k, r := range got {
				require.Equal(t, fmt.Sprintf("%d-%0*d", i, i*5+1, each-len(got)+k), r)
			}
		}
	}
	check()
	require.NoError(t, l.Close())
	l = mustOpen(t, cfg)
	check()
	require.NoError(t, l.Close())
}

func TestAppendDoesNotAllocate(t *testing.T) {
	if testsize.Race() {
		t.Skip("the race detector allocates")
	}
	for _, noSync := range []bool{false, true} {
		l := mustOpen(t, Config{Dir: t.TempDir(), NoSync: noSync})
		s := l.Stream("s")
		record := make([]byte, 64)
		require.NoError(t, s.Append(record))
		require.Zero(t, testing.AllocsPerRun(200, func() { _ = s.Append(record) }))
		require.NoError(t, l.Close())
	}
}
