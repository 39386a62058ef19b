package benchmarks

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftwal "github.com/hashicorp/raft-wal"
	tidwall "github.com/tidwall/wal"

	"github.com/coterie-go/coterie/replication/wal"
)

const walRecordSize = 64

// walPeer is one log under measurement; append is safe for concurrent use.
type walPeer struct {
	name string
	open func(b *testing.B, dir string) (appendOne func(record []byte) error)
}

func walCoterie(noSync bool) walPeer {
	return walPeer{"coterie", func(b *testing.B, dir string) func([]byte) error {
		l, err := wal.Open(wal.Config{Dir: dir, Owner: "bench", NoSync: noSync})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = l.Close() })
		return func(record []byte) error { return l.Append(record) }
	}}
}

func walTidwall(noSync bool) walPeer {
	return walPeer{"tidwall", func(b *testing.B, dir string) func([]byte) error {
		l, err := tidwall.Open(dir, &tidwall.Options{NoSync: noSync})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = l.Close() })
		var mu sync.Mutex
		var index uint64
		return func(record []byte) error {
			mu.Lock()
			defer mu.Unlock()
			index++
			return l.Write(index, record)
		}
	}}
}

var walRaftWAL = walPeer{"raft-wal", func(b *testing.B, dir string) func([]byte) error {
	l, err := raftwal.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	var mu sync.Mutex
	var index uint64
	return func(record []byte) error {
		mu.Lock()
		defer mu.Unlock()
		index++
		return l.StoreLog(&raft.Log{Index: index, Term: 1, Data: record})
	}
}}

// walLoop is group commit and nothing else: no checksum, no head, no segment, no way to read it back.
var walLoop = walPeer{"loop", func(b *testing.B, dir string) func([]byte) error {
	f, err := os.Create(filepath.Join(dir, "loop"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	var (
		mu             sync.Mutex
		wake           = sync.NewCond(&mu)
		pending, spare []byte
		gathering      = 1 // number of the batch being gathered
		written        int // and of the last one written
		busy           bool
		failed         error
	)
	return func(record []byte) error {
		mu.Lock()
		defer mu.Unlock()
		pending = append(pending, record...)
		for mine := gathering; written < mine && failed == nil; {
			if busy {
				wake.Wait()
				continue
			}
			busy = true
			out, number := pending, gathering
			pending = spare[:0]
			gathering++
			mu.Unlock()
			_, err := f.Write(out)
			if err == nil {
				err = f.Sync()
			}
			mu.Lock()
			busy, spare, written, failed = false, out, number, err
			wake.Broadcast()
		}
		return failed
	}
}}

// walRun makes b.N appends from so many goroutines.
func walRun(b *testing.B, appenders int, appendOne func(int, []byte) error) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	begun := time.Now()
	for i := range appenders {
		wg.Go(func() {
			record := []byte(strings.Repeat(string(rune('a'+i%26)), walRecordSize))
			for left.Add(-1) >= 0 {
				if err := appendOne(i, record); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(begun).Seconds(), "records/s")
	b.StopTimer()
}

// BenchmarkWALAppendSync appends records of 64 bytes, each durable when its append returns.
func BenchmarkWALAppendSync(b *testing.B) {
	for _, appenders := range []int{1, 64} {
		for _, peer := range []walPeer{walCoterie(false), walTidwall(false), walRaftWAL, walLoop} {
			b.Run(fmt.Sprintf("appenders=%d/impl=%s", appenders, peer.name), func(b *testing.B) {
				appendOne := peer.open(b, b.TempDir())
				walRun(b, appenders, func(_ int, record []byte) error { return appendOne(record) })
			})
		}
	}
}

// BenchmarkWALAppendNoSync appends records of 64 bytes, one call each, that are the operating system's on return.
func BenchmarkWALAppendNoSync(b *testing.B) {
	for _, peer := range []walPeer{walCoterie(true), walTidwall(true)} {
		b.Run("impl="+peer.name, func(b *testing.B) {
			appendOne := peer.open(b, b.TempDir())
			walRun(b, 1, func(_ int, record []byte) error { return appendOne(record) })
		})
	}
}

// walFill is how many records of 64 bytes BenchmarkWALReplay reads.
const walFill = 500_000

// BenchmarkWALReplay opens a log and reads all of it; MB/s counts the records' own bytes.
func BenchmarkWALReplay(b *testing.B) {
	report := func(b *testing.B, records int) {
		b.Helper()
		b.ReportMetric(float64(records)*walRecordSize/1e6/b.Elapsed().Seconds(), "MB/s")
	}
	batch := make([][]byte, 1000)
	for i := range batch {
		batch[i] = []byte(strings.Repeat("r", walRecordSize))
	}
	b.Run("impl=coterie", func(b *testing.B) {
		cfg := wal.Config{Dir: b.TempDir(), Owner: "bench", NoSync: true}
		l, err := wal.Open(cfg)
		for i := 0; i < walFill && err == nil; i += len(batch) {
			err = l.Append(batch...)
		}
		if err == nil {
			err = l.Close()
		}
		records := 0
		b.ReportAllocs()
		b.ResetTimer()
		for i := 0; i < b.N && err == nil; i++ {
			if l, err = wal.Open(cfg); err != nil {
				break
			}
			err = l.Replay(func([]byte) error {
				records++
				return nil
			})
			_ = l.Close()
		}
		if err != nil || records != b.N*walFill {
			b.Fatal(records, err)
		}
		report(b, records)
	})
	b.Run("impl=tidwall", func(b *testing.B) {
		dir, opts := b.TempDir(), &tidwall.Options{NoSync: true, NoCopy: true}
		l, err := tidwall.Open(dir, opts)
		for i := 0; i < walFill && err == nil; i += len(batch) {
			var w tidwall.Batch
			for k, record := range batch {
				w.Write(uint64(i+k+1), record)
			}
			err = l.WriteBatch(&w)
		}
		if err == nil {
			err = l.Close()
		}
		b.ReportAllocs()
		b.ResetTimer()
		for range b.N {
			if err == nil {
				l, err = tidwall.Open(dir, opts)
			}
			for k := uint64(1); k <= walFill && err == nil; k++ {
				_, err = l.Read(k)
			}
			if err == nil {
				err = l.Close()
			}
		}
		if err != nil {
			b.Fatal(err)
		}
		report(b, b.N*walFill)
	})
	b.Run("impl=raft-wal", func(b *testing.B) {
		if testing.Short() {
			b.Skip("takes seconds")
		}
		const fill = walFill / 10 // it is slow
		dir := b.TempDir()
		l, err := raftwal.Open(dir)
		for i := 0; i < fill && err == nil; i += len(batch) {
			logs := make([]*raft.Log, len(batch))
			for k, record := range batch {
				logs[k] = &raft.Log{Index: uint64(i + k + 1), Term: 1, Data: record}
			}
			err = l.StoreLogs(logs)
		}
		// Not opened again, as the others are: raft-wal v0.4.0 waits for ever for its metadata file, which its Close
		// leaves locked in this process.
		b.ReportAllocs()
		b.ResetTimer()
		for range b.N {
			for k := uint64(1); k <= fill && err == nil; k++ {
				var log raft.Log
				err = l.GetLog(k, &log)
			}
		}
		if err != nil {
			b.Fatal(err)
		}
		report(b, b.N*fill)
	})
}

// BenchmarkWALStreams makes 100 journals append at once, each record durable when its append returns: as streams of
// one log, and as a log each.
func BenchmarkWALStreams(b *testing.B) {
	const journals = 100
	type journal interface{ Append(...[]byte) error }
	run := func(b *testing.B, open func(i int) (journal, error)) {
		b.Helper()
		js := make([]journal, journals)
		for i := range js {
			var err error
			if js[i], err = open(i); err != nil {
				b.Fatal(err)
			}
		}
		walRun(b, journals, func(i int, record []byte) error { return js[i].Append(record) })
	}
	b.Run("layout=streams/impl=coterie", func(b *testing.B) {
		l, err := wal.Open(wal.Config{Dir: b.TempDir(), Owner: "bench"})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = l.Close() })
		run(b, func(i int) (journal, error) { return l.Stream(fmt.Sprint("group-", i)), nil })
	})
	b.Run("layout=files/impl=coterie", func(b *testing.B) {
		dir := b.TempDir()
		run(b, func(i int) (journal, error) {
			l, err := wal.Open(wal.Config{Dir: filepath.Join(dir, fmt.Sprint(i)), Owner: "bench"})
			if err == nil {
				b.Cleanup(func() { _ = l.Close() })
			}
			return l, err
		})
	})
}
