package sim_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport/sim"
)

func TestCrashKeepsARandomPrefixOfWhatIsNotDurable(t *testing.T) {
	kept := map[int]int{}
	for seed := range uint64(300) {
		cfg := fixed()
		cfg.Seed = seed + 1
		b := newBench(t, cfg, nil, "a")
		b.do("a", func(p *probe, _ time.Time) { p.Save([]byte("durable")) })
		b.run(10 * time.Millisecond)
		b.do("a", func(p *probe, _ time.Time) { p.Save([]byte("0")); p.Save([]byte("1")); p.Emit("never") })
		b.do("a", func(p *probe, _ time.Time) { p.Save([]byte("2")); p.Send("a", []byte("never")) })
		b.run(time.Millisecond)
		b.Crash("a")
		b.Restart("a")
		b.run(20 * time.Millisecond)
		calls := b.probe("a").take()
		require.Equal(t, "replay durable", calls[0])
		require.Equal(t, "tick", calls[len(calls)-1])
		for i, call := range calls[1 : len(calls)-1] {
			require.Equal(t, fmt.Sprint("replay ", i), call, "a prefix, in order")
		}
		kept[len(calls)-2]++
		require.Empty(t, b.events)
	}
	require.Len(t, kept, 4)
	for n := range 4 {
		require.Greater(t, kept[n], 40, "%d of 3 records survive", n)
	}
}

func TestCrashesAreDrawnWithinSaves(t *testing.T) {
	cfg := fixed()
	cfg.Disk.Crash = 0.3
	cfg.Disk.Down = sim.Fixed(100 * time.Millisecond)
	b := newBench(t, cfg, nil, "a")
	saved := 0
	for range 1000 {
		b.do("a", func(p *probe, _ time.Time) { p.Save([]byte("r")); p.Emit("saved") })
		before := b.Stats().Crashes
		b.run(6 * time.Millisecond)
		if b.Stats().Crashes == before {
			saved++
			require.Len(t, b.events, saved)
			continue
		}
		require.Len(t, b.events, saved, "a crash within the save: no event")
		require.False(t, b.Up("a"))
		require.Nil(t, b.Core("a"))
		b.run(200 * time.Millisecond)
		require.True(t, b.Up("a"))
	}
	require.InDelta(t, 300, b.Stats().Crashes, 60)
}

func TestReplayStartsAtOrBeforeWhatKeepAskedFor(t *testing.T) {
	early, exact := 0, 0
	for seed := range uint64(200) {
		cfg := fixed()
		cfg.Seed = seed + 1
		b := newBench(t, cfg, nil, "a")
		for i := range 5 {
			b.do("a", func(p *probe, _ time.Time) {
				p.Save(fmt.Appendf(nil, "%d", 2*i))
				p.Save(fmt.Appendf(nil, "%d", 2*i+1))
				p.Keep(3)
			})
			b.run(10 * time.Millisecond)
		}
		b.Crash("a")
		b.Restart("a")
		b.run(time.Millisecond)
		calls := b.probe("a").take()
		replayed := len(calls) - 1
		require.GreaterOrEqual(t, replayed, 3)
		for i := range replayed {
			require.Equal(t, fmt.Sprint("replay ", 10-replayed+i), calls[i])
		}
		if replayed == 3 {
			exact++
		} else {
			early++
		}
	}
	require.NotZero(t, early)
	require.NotZero(t, exact)
}

// Keep counts from the end of its own batch, whatever was saved since.
func TestKeepOfABatchThatWaited(t *testing.T) {
	b := newBench(t, fixed(), nil, "a")
	b.do("a", func(p *probe, _ time.Time) { p.Save([]byte("0")) })
	b.do("a", func(p *probe, _ time.Time) { p.Save([]byte("1")); p.Keep(1) })
	b.do("a", func(p *probe, _ time.Time) { p.Save([]byte("2")) })
	b.do("a", func(p *probe, _ time.Time) { p.Save([]byte("3")) })
	b.run(time.Second)
	records := b.Records("a")
	require.GreaterOrEqual(t, len(records), 3)
	require.Equal(t, []byte("1"), records[len(records)-3])
}

func TestJournalStaysBounded(t *testing.T) {
	b := newBench(t, sim.Config{}, nil, "a")
	for i := range 2000 {
		b.do("a", func(p *probe, _ time.Time) { p.Save(fmt.Appendf(nil, "%d", i)); p.Keep(1) })
		b.run(10 * time.Millisecond)
	}
	require.Less(t, len(b.Records("a")), 50)
}

// What an earlier incarnation had begun ends with it.
func TestSyncOfAnEarlierIncarnationMakesNothingDurable(t *testing.T) {
	b := newBench(t, fixed(), nil, "a")
	b.do("a", func(p *probe, now time.Time) { p.Save([]byte("old")); p.Wake(now.Add(10 * time.Millisecond)) })
	b.run(3 * time.Millisecond)
	b.Crash("a")
	b.Restart("a")
	survived := len(b.Records("a"))
	b.do("a", func(p *probe, _ time.Time) { p.Save([]byte("new")); p.Emit("new") })
	b.run(4 * time.Millisecond) // the old sync would have ended
	require.Len(t, b.Records("a"), survived)
	require.Empty(t, b.events)
	b.run(time.Millisecond)
	require.Len(t, b.Records("a"), survived+1)
	require.Equal(t, []any{"new"}, b.events)
	b.probe("a").take()
	b.run(time.Second)
	require.Empty(t, b.probe("a").take(), "nor does it tick")
}

func TestSlowDisksAreDrawnPerNode(t *testing.T) {
	cfg := fixed()
	cfg.Disk.Slow, cfg.Disk.SlowFactor = 0.5, 100
	ids := make([]coterie.NodeID, 40)
	for i := range ids {
		ids[i] = coterie.NodeID(fmt.Sprint("n", i))
	}
	b := newBench(t, cfg, nil, ids...)
	for _, id := range ids {
		b.do(id, func(p *probe, _ time.Time) { p.Save([]byte("r")) })
	}
	durable := func() (n int) {
		for _, id := range ids {
			n += len(b.Records(id))
		}
		return n
	}
	b.run(400 * time.Millisecond)
	require.InDelta(t, 20, durable(), 12)
	b.run(200 * time.Millisecond)
	require.Equal(t, 40, durable())
}

func TestDiskBandwidth(t *testing.T) {
	cfg := fixed()
	cfg.Disk.Bandwidth = 1_000_000
	b := newBench(t, cfg, nil, "a")
	b.do("a", func(p *probe, _ time.Time) { p.Save(make([]byte, 100_000)) })
	b.run(104 * time.Millisecond)
	require.Empty(t, b.Records("a"))
	b.run(2 * time.Millisecond)
	require.Len(t, b.Records("a"), 1)
}

func TestWipe(t *testing.T) {
	b := newBench(t, fixed(), nil, "a")
	b.do("a", func(p *probe, _ time.Time) { p.Save([]byte("r")) })
	b.run(time.Second)
	writeSnapshot(t, b.Snapshots("a"), "s", "content")
	require.False(t, b.Wipe("a"), "it is up")
	require.Len(t, b.Records("a"), 1)
	b.Crash("a")
	require.True(t, b.Wipe("a"))
	b.Restart("a")
	b.run(time.Millisecond)
	require.Equal(t, []string{"tick"}, b.probe("a").take())
	names, err := b.Snapshots("a").Names()
	require.NoError(t, err)
	require.Empty(t, names)
}

func writeSnapshot(t *testing.T, s coterie.Snapshots, name, content string) {
	t.Helper()
	w, err := s.Create(name)
	require.NoError(t, err)
	_, err = io.WriteString(w, content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
}

func readSnapshot(t *testing.T, s coterie.Snapshots, name string) string {
	t.Helper()
	r, err := s.Open(name)
	require.NoError(t, err)
	content, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	return string(content)
}

func TestSnapshots(t *testing.T) {
	b := newBench(t, fixed(), nil, "a")
	s := b.Snapshots("a")
	_, err := s.Create("")
	require.Error(t, err)
	_, err = s.Open("x")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, s.Remove("x"))
	writeSnapshot(t, s, "y", "2")
	writeSnapshot(t, s, "x", "1")
	names, err := s.Names()
	require.NoError(t, err)
	require.Equal(t, []string{"x", "y"}, names)

	open, err := s.Create("x") // replaces nothing until it is closed
	require.NoError(t, err)
	_, err = open.Write([]byte("new"))
	require.NoError(t, err)
	require.Equal(t, "1", readSnapshot(t, s, "x"))
	b.Crash("a")
	require.Error(t, open.Close(), "its node has crashed")
	b.Restart("a")
	require.Error(t, open.Close(), "it belonged to another incarnation")
	require.Equal(t, "1", readSnapshot(t, s, "x"))
	require.Equal(t, "2", readSnapshot(t, b.Snapshots("a"), "y"))

	given, err := s.Create("z")
	require.NoError(t, err)
	given.(interface{ Abort() }).Abort()
	require.ErrorIs(t, given.Close(), fs.ErrClosed)
	_, err = s.Open("z")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, s.Remove("x"))
	_, err = s.Open("x")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestCrashWithinTheCloseOfASnapshot(t *testing.T) {
	there, gone := 0, 0
	for seed := range uint64(100) {
		cfg := fixed()
		cfg.Seed = seed + 1
		cfg.Disk.Crash = 1
		b := newBench(t, cfg, nil, "a", "b")
		b.do("a", func(p *probe, _ time.Time) {
			w, err := b.Snapshots("a").Create("s")
			require.NoError(t, err)
			_, err = w.Write(bytes.Repeat([]byte("x"), 10))
			require.NoError(t, err)
			require.Error(t, w.Close())
			p.SendEarly("b", []byte("effects of a node that is dead"))
		})
		require.False(t, b.Up("a"))
		b.run(2 * time.Second)
		require.True(t, b.Up("a"))
		require.Empty(t, b.probe("b").take())
		if _, err := b.Snapshots("a").Open("s"); err == nil {
			require.Equal(t, "xxxxxxxxxx", readSnapshot(t, b.Snapshots("a"), "s"))
			there++
		} else {
			gone++
		}
	}
	require.Greater(t, there, 20)
	require.Greater(t, gone, 20)
}
