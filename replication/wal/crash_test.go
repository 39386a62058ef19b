package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/replication/wal/internal/vfs"
)

var errInjected = errors.New("injected")

// world runs a script against a log on a disk in memory and knows what must be found after a crash.
type world struct {
	mem     *vfs.Mem
	cfg     Config
	log     *Log
	streams map[string]*history
	moved   uint64
}

// history is what happened in one stream: of the records said, so many were acknowledged, and all before low were let
// go.
type history struct {
	said  []string
	acked int
	low   int
}

var worldStreams = []string{"", "a", "quiet"}

func newWorld(sector int) *world {
	mem := vfs.NewMem()
	mem.SectorSize = sector
	w := &world{mem: mem, cfg: Config{Dir: "d", Owner: "n", SegmentSize: minSegmentSize, fs: mem}, streams: map[string]*history{}}
	for _, name := range worldStreams {
		w.streams[name] = &history{}
	}
	return w
}

// say makes the next records of a stream, all different.
func (w *world) say(stream string, sizes ...int) (records [][]byte) {
	h := w.streams[stream]
	for _, size := range sizes {
		r := fmt.Sprintf("%s/%d/", stream, len(h.said))
		r += strings.Repeat("x", max(size-len(r), 0))
		h.said = append(h.said, r)
		records = append(records, []byte(r))
	}
	return records
}

func (w *world) append(stream string, sizes ...int) error {
	err := w.log.Stream(stream).Append(w.say(stream, sizes...)...)
	if h := w.streams[stream]; err == nil {
		h.acked = len(h.said)
	}
	return err
}

func (w *world) keep(stream string, newest int) error {
	h := w.streams[stream]
	h.low = max(h.low, len(h.said)-newest) // a Keep that fails may have let go
	return w.log.Stream(stream).Keep(newest)
}

// open opens the log and checks it; a stream that is shorter than what was said is taken as it is found from then on.
func (w *world) open() error {
	l, err := Open(w.cfg)
	if err != nil {
		return err
	}
	w.log = l
	for name, h := range w.streams {
		var got []string
		if err := l.Stream(name).Replay(func(r []byte) error { got = append(got, string(r)); return nil }); err != nil {
			return err
		}
		first := 0
		if len(got) > 0 {
			for first < len(h.said) && h.said[first] != got[0] {
				first++
			}
		}
		end := first + len(got)
		switch {
		case len(got) == 0 && h.acked > h.low, len(got) > 0 && end < h.acked:
			return fmt.Errorf("stream %q: %d acknowledged from %d on, found [%d,%d)", name, h.acked, h.low, first, end)
		case len(got) == 0:
			end = h.acked
		case first > h.low || end > len(h.said):
			return fmt.Errorf("stream %q: let go before %d, said %d, found [%d,%d)", name, h.low, len(h.said), first, end)
		}
		for i, r := range got {
			if r != h.said[first+i] {
				return fmt.Errorf("stream %q: record %d is %.20q, not %.20q", name, first+i, r, h.said[first+i])
			}
		}
		h.said, h.acked = h.said[:end], end // what Open shows stays
	}
	return nil
}

// script appends, keeps, rolls over several segments, closes and opens again.
func (w *world) script() error {
	steps := []func() error{
		w.open,
		func() error { return w.append("quiet", 30) },
		func() error { return w.append("", 10) },
		func() error { return w.append("", 700, 0, 1300) },
		func() error { return w.append("a", 20, 20) },
		func() error { return w.append("", 3000) },
		func() error { return w.append("a", 900, 900) },
		func() error { return w.keep("", 1) },
		func() error { return w.append("", 1200, 5) },
		func() error { return w.append("a", 6000) },
		func() error { return w.keep("a", 1) },
		func() error { return w.log.Close() },
		w.open,
		func() error { return w.append("", 100) },
		func() error { return w.append("quiet", 300, 200, 200) },
		func() error { return w.append("", 5000) },
		func() error { return w.keep("", 1) },
		func() error { return w.append("a", 2500, 10) },
		func() error { return w.keep("a", 2) },
		func() error { return w.append("", 2500) },
		func() error { return w.keep("", 1) },
		func() error { return w.append("", 2500, 2000) },
		func() error { return w.append("a", 10) },
		func() error { return w.keep("a", 1) },
	}
	for range 8 { // the streams named "a" and "quiet" hold old segments meanwhile
		steps = append(steps,
			func() error { return w.append("", 3000) },
			func() error { return w.keep("", 1) })
	}
	steps = append(steps, func() error { w.moved += w.log.Metrics().Moved; return w.log.Close() })
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// crashed is the world after a crash: a copy with its own disk, up again.
func (w *world) crashed(keep func() bool) *world {
	c := w.restarted()
	c.mem.Crash(keep)
	return c
}

// restarted is the world after the end of the process: a copy with its own disk and what was in memory before it.
func (w *world) restarted() *world {
	c := &world{mem: w.mem.Clone(), cfg: w.cfg, streams: map[string]*history{}}
	c.cfg.fs = c.mem
	for name, h := range w.streams {
		c.streams[name] = &history{append([]string(nil), h.said...), h.acked, h.low}
	}
	return c
}

// failFrom makes every operation from a number on fail, as for a process that is dead; a write is cut in the middle.
// A sync fails since the machine goes down, or else for an error of the disk.
func failFrom(n int, down bool) func(vfs.Op) *vfs.Fault {
	return func(op vfs.Op) *vfs.Fault {
		switch {
		case op.Number < n:
			return nil
		case op.Number == n:
			return &vfs.Fault{Err: errInjected, Wrote: op.Size * (n % 3) / 2 * btoi(op.Kind == "write"), Down: down}
		}
		return &vfs.Fault{Err: errInjected}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func never() bool  { return false }
func always() bool { return true }

// subsets are the ways to crash: nothing that was not synced survives, all does, or any subset.
func subsets(seed uint64, n int) []func() bool {
	ways := []func() bool{never, always}
	rng := rand.New(rand.NewPCG(seed, 1))
	for range n {
		odds := rng.Float64()
		ways = append(ways, func() bool { return rng.Float64() < odds })
	}
	return ways
}

// A crash at every write, sync, rename and unlink, with any subset of the unsynced sectors and names on the disk,
// leaves a prefix with all that was acknowledged; also when the recovery crashes too.
func TestCrashAtEveryOperation(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		dry := newWorld(sector)
		require.NoError(t, dry.script())
		total := dry.mem.Ops()
		require.Greater(t, total, 60)
		require.Positive(t, dry.moved)
		for k := range 2 * total {
			n, down := k/2, k%2 == 0
			w := newWorld(sector)
			w.mem.Hook = failFrom(n, down)
			err := w.script()
			require.ErrorIs(t, err, errInjected, "operation %d", n)
			for i, keep := range subsets(uint64(n), testsize.N(4, 300)) {
				c := w.crashed(keep)
				at := fmt.Sprintf("sector %d, operation %d, down %v, subset %d", sector, n, down, i)
				if i == 0 { // first the process alone ends: what the next one sees is in memory, and must not stay there
					c = w.restarted()
					require.NoError(t, c.open(), at)
					require.NoError(t, c.append("", 100), at)
					c = c.crashed(never)
				}
				if i%2 == 1 { // the recovery crashes too
					c.mem.Hook = failFrom(i%7, down)
					if err := c.open(); err != nil {
						require.ErrorIs(t, err, errInjected, at)
					}
					c = c.crashed(keep)
				}
				require.NoError(t, c.open(), at)
				names, err := c.mem.List("d")
				require.NoError(t, err)
				require.NotContains(t, strings.Join(names, " "), tmpSufx, at)
				require.NoError(t, c.append("", 100, 3000), at)
				require.NoError(t, c.append("", 1), at)
				c = c.crashed(never)
				require.NoError(t, c.open(), at)
				require.NoError(t, c.log.Close(), at)
				require.NoError(t, c.open(), at)
				require.Nil(t, c.log.Recovery().Torn, at)
			}
		}
	}
}

// A sync that fails once stops the log for good, and what it should have written is not taken for durable later,
// although reads show it and the next sync succeeds.
func TestFailedSyncPoisons(t *testing.T) {
	w := newWorld(512)
	require.NoError(t, w.open())
	require.NoError(t, w.append("", 100))
	failed := false
	w.mem.Hook = func(op vfs.Op) *vfs.Fault {
		if op.Kind == "sync" && !failed {
			failed = true
			return &vfs.Fault{Err: errInjected}
		}
		return nil
	}
	err := w.append("", 700, 700)
	require.ErrorIs(t, err, ErrPoisoned)
	require.ErrorIs(t, err, errInjected)
	require.ErrorIs(t, w.append("", 1), ErrPoisoned)
	require.ErrorIs(t, w.log.Keep(1), ErrPoisoned)
	require.NoError(t, w.log.Close())

	require.NoError(t, w.open())
	found := len(w.streams[""].said)
	require.Equal(t, 3, found, "the cache still shows them")
	c := w.crashed(never)
	require.NoError(t, c.open(), "what Open showed must be durable")
	require.Len(t, c.streams[""].said, found)
}

// A full disk in the middle of a batch or at a new segment acknowledges nothing; when there is room again the log
// opens with all that was acknowledged.
func TestNoSpace(t *testing.T) {
	for kind, size := range map[string]int{"write": 300, "create": 3000} {
		for _, wrote := range []int{0, 1, 13, 600} {
			w := newWorld(512)
			require.NoError(t, w.open())
			require.NoError(t, w.append("", 100))
			w.mem.Hook = func(op vfs.Op) *vfs.Fault {
				if op.Kind == kind {
					return &vfs.Fault{Err: errInjected, Wrote: wrote * btoi(kind == "write")}
				}
				return nil
			}
			require.ErrorIs(t, w.append("", size, size), errInjected)
			require.ErrorIs(t, w.append("", 1), ErrPoisoned)
			require.NoError(t, w.log.Close())
			w.mem.Hook = nil
			require.NoError(t, w.open())
			require.GreaterOrEqual(t, len(w.streams[""].said), 1)
			require.NoError(t, w.append("", 3000))
			require.NoError(t, w.log.Close())
			names, err := w.mem.List("d")
			require.NoError(t, err)
			require.NotContains(t, strings.Join(names, " "), tmpSufx)
			require.NoError(t, w.open())
		}
	}
}

// The tail of a preallocated segment is zeros; what an earlier life left there, even the log's own records moved by
// a misdirected write, is never replayed.
func TestStaleTailIsNeverReplayed(t *testing.T) {
	w := newWorld(512)
	require.NoError(t, w.open())
	require.NoError(t, w.append("", 100, 40))
	require.NoError(t, w.append("", 100))
	end := int(w.log.head.off)
	path := w.log.segments[0].path
	w.mem.Edit(path, func(b []byte) []byte {
		copy(b[end:], b[headerSize:end]) // the same records again, marks and all
		return b
	})
	c := w.crashed(never)
	require.NoError(t, c.open())
	require.Equal(t, int64(end), c.log.Recovery().Torn.Offset)
	require.Len(t, replay(t, c.log), 3)

	// Records of another segment: same offsets, same marks but for the salt.
	other := newWorld(512)
	require.NoError(t, other.open())
	require.NoError(t, other.append("", 100, 40))
	require.NoError(t, other.append("", 100))
	require.NoError(t, other.append("", 222))
	var stale []byte
	other.mem.Edit(path, func(b []byte) []byte { stale = b; return b })
	w.mem.Edit(path, func(b []byte) []byte { return append(b[:end:end], stale[end:]...) })
	c = w.crashed(never)
	require.NoError(t, c.open())
	require.Len(t, replay(t, c.log), 3)
	require.NoError(t, c.append("", 10))
	c = c.crashed(never)
	require.NoError(t, c.open())
}

// The last record cut at every byte, the rest of the file zeros: the tail is dropped, what is before it intact,
// appends go on, and opening once more finds the same.
func TestTornTailAtEveryByte(t *testing.T) {
	w := newWorld(512)
	require.NoError(t, w.open())
	require.NoError(t, w.append("", 100))
	from := int(w.log.head.off)
	require.NoError(t, w.append("", 200, 0))
	to := int(w.log.head.off)
	path := w.log.segments[0].path
	for cut := from; cut < to; cut++ {
		c := w.crashed(never)
		c.streams[""].acked = 1
		torn := true
		c.mem.Edit(path, func(b []byte) []byte {
			for _, whole := range []int{from, from + markSize, from + markSize + headSize + 200, to} {
				n := min(cut, whole) // of records that end in zeros nothing is missing when only those are cut
				torn = torn && (len(bytes.Trim(b[n:cut], "\x00")) > 0 || len(bytes.Trim(b[n:whole], "\x00")) > 0)
			}
			clear(b[cut:])
			return b
		})
		require.NoError(t, c.open(), cut)
		n := len(c.streams[""].said)
		require.Equal(t, torn, c.log.Recovery().Torn != nil, cut)
		require.NoError(t, c.append("", 50))
		c = c.crashed(never)
		require.NoError(t, c.open(), cut)
		require.Len(t, c.streams[""].said, n+1)
	}
}

// Whichever byte of a small log is flipped and wherever a file is cut: Open or Replay gives a typed error, or all
// that was acknowledged before the last sync; never a wrong record. After Close even all that was acknowledged.
func TestFlipOrCutEveryByte(t *testing.T) {
	for _, closed := range []bool{false, true} {
		w := newWorld(512)
		require.NoError(t, w.open())
		require.NoError(t, w.append("a", 30))
		require.NoError(t, w.append("", 10, 600))
		require.NoError(t, w.append("", 3000)) // in the second segment
		require.NoError(t, w.append("a", 77))
		require.NoError(t, w.keep("a", 1))
		sure := map[string]int{"": 3, "a": 1}
		require.NoError(t, w.append("a", 5))
		sure["a"] = 2
		require.NoError(t, w.append("", 6)) // the last batch
		if closed {
			sure[""], sure["a"] = 4, 3
			require.NoError(t, w.log.Close())
		} else {
			sure["a"] = 3
		}
		require.Len(t, w.log.segments, 2)
		for i, seg := range w.log.segments {
			for off := 0; off < int(seg.size); off += 1 + 20*btoi(testsize.Race()) {
				for _, how := range []string{"flip", "cut"} {
					at := fmt.Sprintf("closed %v, segment %d, %s at %d", closed, i, how, off)
					c := w.crashed(never)
					for name, h := range c.streams {
						h.acked = sure[name]
					}
					short := false
					c.mem.Edit(seg.path, func(b []byte) []byte {
						if short = off >= len(b); short {
							return b
						}
						if how == "flip" {
							b[off] ^= 1 << (off % 8)
							return b
						}
						return b[:off]
					})
					if short {
						continue
					}
					err := c.open()
					if corrupt, ok := errors.AsType[*CorruptionError](err); ok {
						require.Equal(t, seg.path, corrupt.Segment, at)
						require.LessOrEqual(t, corrupt.Offset, int64(off), at)
						if how == "cut" && i == 1 && off >= headerSize {
							require.Contains(t, corrupt.Reason, "cut", at)
						}
					} else if err != nil {
						require.Zero(t, off, "%s: %v", at, err)
						require.ErrorContains(t, err, "format", at)
					}
				}
			}
		}
	}
}

// A sector of a full segment that reads as zeros is not its end.
func TestZeroedSector(t *testing.T) {
	w := newWorld(512)
	require.NoError(t, w.open())
	for range 12 {
		require.NoError(t, w.append("", 500)) // each record's head in a sector of its own
	}
	require.Len(t, w.log.segments, 2)
	seg := w.log.segments[0]
	for from := 0; from < int(w.log.segments[1].prevEnd); from += 64 {
		c := w.restarted()
		c.mem.Edit(seg.path, func(b []byte) []byte { clear(b[from:min(from+600, len(b))]); return b })
		var corrupt *CorruptionError
		require.ErrorAs(t, c.open(), &corrupt, from)
		require.Equal(t, seg.path, corrupt.Segment)
	}
}

// A write that went to another place of the segment, where a record begins too, is no record there.
func TestMisdirectedWrite(t *testing.T) {
	w := newWorld(512)
	require.NoError(t, w.open())
	require.NoError(t, w.append("", 500, 500, 500, 500)) // 512 bytes each with their heads
	end := int(w.log.head.off)
	require.NoError(t, w.log.Close())
	w.mem.Edit(w.log.segments[0].path, func(b []byte) []byte {
		copy(b[end-2*512:end-512], b[end-3*512:])
		return b
	})
	var corrupt *CorruptionError
	require.ErrorAs(t, w.open(), &corrupt)
	require.Equal(t, int64(end-2*512), corrupt.Offset)
}

// A missing segment in the middle is an error that names it.
func TestMissingSegment(t *testing.T) {
	w := newWorld(512)
	require.NoError(t, w.open())
	for range 4 {
		require.NoError(t, w.append("", 3000))
	}
	require.NoError(t, w.log.Close())
	missing := filepath.Join("d", segmentName(2))
	require.NoError(t, w.mem.Remove(missing))
	_, err := Open(w.cfg)
	var corrupt *CorruptionError
	require.ErrorAs(t, err, &corrupt)
	require.Equal(t, missing, corrupt.Segment)
}
