package benchmarks

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/serf/serf"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
)

// BenchmarkLamport is one clock shared by all procs (-cpu 1,2). A witnessed time is one ahead of the clock's own, so
// that both clocks have to move.
func BenchmarkLamport(b *testing.B) {
	var ours clock.Lamport
	var theirs serf.LamportClock
	for _, row := range []struct {
		name string
		op   func()
	}{
		{"op=tick/impl=coterie", func() { ours.Tick() }},
		{"op=tick/impl=serf", func() { theirs.Increment() }},
		{"op=witness/impl=coterie", func() { _, _ = ours.Witness(ours.Now() + 1) }},
		{"op=witness/impl=serf", func() { theirs.Witness(theirs.Time() + 1) }},
	} {
		b.Run(row.name, func(b *testing.B) { clockParallel(b, row.op) })
	}
}

// BenchmarkHLCNow is one clock shared by all procs. The mutex form has the shape of CockroachDB's util/hlc: wall time
// and counter in a struct behind a lock. time.Now is the floor: any clock must read it.
func BenchmarkHLCNow(b *testing.B) {
	ours, err := clock.NewHLC(clock.HLCConfig{Node: "a"})
	if err != nil {
		b.Fatal(err)
	}
	mutex := &clockMutexHLC{now: func() int64 { return time.Now().UnixNano() }}
	b.Run("impl=coterie", func(b *testing.B) { clockParallel(b, func() { ours.Now() }) })
	b.Run("impl=mutex", func(b *testing.B) { clockParallel(b, func() { mutex.Now() }) })
	b.Run("impl=timenow", func(b *testing.B) { clockParallel(b, func() { clockSink(time.Now()) }) })
}

// BenchmarkVectorCompare compares vectors of the same ids that differ at the end, so that nobody can stop early.
func BenchmarkVectorCompare(b *testing.B) {
	for _, n := range []int{16, 1024} {
		base, ids := clockCounts(n)
		later := clockCopy(base)
		later[ids[n-1]]++
		b.Run(fmt.Sprintf("n=%d/impl=coterie", n), func(b *testing.B) {
			x, y := clock.VectorOf(base), clock.VectorOf(later)
			for b.Loop() {
				if x.Compare(y) != clock.Before {
					b.Fatal("wrong")
				}
			}
		})
		b.Run(fmt.Sprintf("n=%d/impl=map", n), func(b *testing.B) {
			for b.Loop() {
				if base.compare(later) != clock.Before {
					b.Fatal("wrong")
				}
			}
		})
	}
}

// BenchmarkVectorMerge merges in place. Every eighth merge is a union that brings in an eighth more ids, after which
// each form goes back to its ids in the way that is cheapest for it: a copy for the slice, deletes for the map.
func BenchmarkVectorMerge(b *testing.B) {
	for _, n := range []int{16, 1024} {
		base, ids := clockCounts(n)
		other, union := clockCopy(base), clockCopy(base)
		for i, id := range ids {
			other[id] += uint64(i % 2)
			union[id] += uint64((i + 1) % 2)
		}
		var extra []coterie.NodeID
		for i := range n / 8 {
			id := ids[8*i] + "x" // spread over the order of ids
			extra = append(extra, id)
			union[id] = 1
		}
		b.Run(fmt.Sprintf("n=%d/impl=coterie", n), func(b *testing.B) {
			b.ReportAllocs()
			start, same, more := clock.VectorOf(base), clock.VectorOf(other), clock.VectorOf(union)
			v := start.Clone()
			for i := 0; b.Loop(); i++ {
				if i%8 < 7 {
					v.Merge(same)
					continue
				}
				v.Merge(more)
				v.CopyFrom(start)
			}
		})
		b.Run(fmt.Sprintf("n=%d/impl=map", n), func(b *testing.B) {
			b.ReportAllocs()
			v := clockCopy(base)
			for i := 0; b.Loop(); i++ {
				if i%8 < 7 {
					v.merge(other)
					continue
				}
				v.merge(union)
				for _, id := range extra {
					delete(v, id)
				}
			}
		})
	}
}

// BenchmarkVectorEncode encodes one message. gob makes each message readable alone, as coterie does; the -stream forms
// keep an encoder, which writes gob's type description, and coterie's node ids, once.
func BenchmarkVectorEncode(b *testing.B) {
	for _, n := range []int{16, 1024} {
		counts, _ := clockCounts(n)
		v := clock.VectorOf(counts)
		b.Run(fmt.Sprintf("n=%d/impl=coterie", n), func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				buf, _ = v.AppendBinary(buf[:0])
			}
			b.ReportMetric(float64(len(buf)), "wire-B")
		})
		b.Run(fmt.Sprintf("n=%d/impl=coterie-stream", n), func(b *testing.B) {
			b.ReportAllocs()
			var enc clock.VectorEncoder
			buf := enc.AppendVector(nil, v)
			for b.Loop() {
				buf = enc.AppendVector(buf[:0], v)
			}
			b.ReportMetric(float64(len(buf)), "wire-B")
		})
		b.Run(fmt.Sprintf("n=%d/impl=gob", n), func(b *testing.B) {
			b.ReportAllocs()
			var buf bytes.Buffer
			for b.Loop() {
				buf.Reset()
				if err := gob.NewEncoder(&buf).Encode(counts); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(buf.Len()), "wire-B")
		})
		b.Run(fmt.Sprintf("n=%d/impl=gob-stream", n), func(b *testing.B) {
			b.ReportAllocs()
			var buf bytes.Buffer
			enc := gob.NewEncoder(&buf)
			_ = enc.Encode(counts)
			for b.Loop() {
				buf.Reset()
				if err := enc.Encode(counts); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(buf.Len()), "wire-B")
		})
	}
}

// clockParallel runs op on all procs.
func clockParallel(b *testing.B, op func()) {
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			op()
		}
	})
}

//go:noinline
func clockSink(time.Time) {}

// clockMutexHLC is a hybrid clock behind a lock.
type clockMutexHLC struct {
	now func() int64

	mu      sync.Mutex // guards what follows
	wall    int64
	logical int32
}

func (c *clockMutexHLC) Now() (wall int64, logical int32) {
	physical := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wall >= physical {
		c.logical++
	} else {
		c.wall, c.logical = physical, 0
	}
	return c.wall, c.logical
}

// clockMap is a vector clock of GoVector's shape: a map, compared by length first, then id by id.
type clockMap map[coterie.NodeID]uint64

func (c clockMap) compare(o clockMap) clock.Ordering {
	result := clock.Equal
	if len(c) > len(o) {
		result = clock.After
	} else if len(c) < len(o) {
		result = clock.Before
	}
	for id := range o {
		if _, found := c[id]; found {
			if o[id] > c[id] {
				switch result {
				case clock.Equal:
					result = clock.Before
				case clock.After:
					return clock.Concurrent
				}
			} else if o[id] < c[id] {
				switch result {
				case clock.Equal:
					result = clock.After
				case clock.Before:
					return clock.Concurrent
				}
			}
		} else if result == clock.Equal {
			return clock.Concurrent
		} else if result == clock.After {
			return clock.Concurrent
		}
	}
	for id := range c {
		if _, found := o[id]; !found && result != clock.After {
			return clock.Concurrent
		}
	}
	return result
}

func (c clockMap) merge(o clockMap) {
	for id := range o {
		if c[id] < o[id] {
			c[id] = o[id]
		}
	}
}

// clockCounts draws a vector of n nodes.
func clockCounts(n int) (clockMap, []coterie.NodeID) {
	draw := rand.New(rand.NewPCG(1, uint64(n)))
	counts, ids := clockMap{}, make([]coterie.NodeID, n)
	for i := range ids {
		ids[i] = coterie.NodeID(fmt.Sprintf("node-%04d", i))
		counts[ids[i]] = 1 + draw.Uint64N(1_000_000)
	}
	return counts, ids
}

func clockCopy(c clockMap) clockMap {
	n := clockMap{}
	for id, count := range c {
		n[id] = count
	}
	return n
}
