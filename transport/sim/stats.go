package sim

import (
	"math/bits"
	"time"

	"github.com/coterie-go/coterie"
)

// Stats counts what happened in a World so far.
type Stats struct {
	Events     uint64 // events performed
	Steps      uint64 // messages given to a core, mail to oneself included
	Ticks      uint64 // Ticks made because their time had come
	Rejected   uint64 // messages that a core refused with an error
	Sent       uint64 // messages sent to another node
	Delivered  uint64 // messages that came into an inbox, repeated ones included
	Lost       uint64 // messages that did not, whatever the cause
	Duplicated uint64 // messages repeated by a link
	Unknown    uint64 // messages to a node that does not exist
	Bytes      uint64 // payload bytes sent to another node
	Syncs      uint64 // disk syncs begun
	Records    uint64 // records saved
	DiskBytes  uint64 // bytes of those
	AppEvents  uint64 // events given to applications
	Crashes    uint64
}

// LinkStats counts what happened on one link. Delays are from send to arrival.
type LinkStats struct {
	Sent, Delivered, Lost, Duplicated uint64
	Bytes                             uint64 // payload bytes sent
	Mean, P50, P90, P99, Max          time.Duration
}

// DeliveryRatio is the part of what was sent that arrived, from 0 to 1 and beyond if the link repeats; 1 if nothing was
// sent. What is still under way counts as not arrived.
func (s LinkStats) DeliveryRatio() float64 {
	if s.Sent == 0 {
		return 1
	}
	return float64(s.Delivered) / float64(s.Sent)
}

// Stats returns the counters of the whole world.
func (w *World) Stats() Stats { return w.stats }

// LinkStats returns the counters of one direction between two nodes. The percentiles are exact to 10%, and are kept
// for links that were first used while the world had at most 128 nodes; beyond, they are 0.
func (w *World) LinkStats(from, to coterie.NodeID) LinkStats {
	a, b := w.must(from), w.must(to)
	if int(b.index) >= len(a.links) || a.links[b.index] == nil {
		return LinkStats{}
	}
	return a.links[b.index].stats.export()
}

const maxPercentileNodes = 128

type linkCounts struct {
	sent, delivered, lost, duplicated, bytes uint64
	total, most                              int64      // of the delays
	delays                                   *histogram // nil if percentiles are not kept
}

// histogram counts durations in eight buckets per power of two nanoseconds.
type histogram struct{ buckets []uint32 }

func (c *linkCounts) deliver(delay int64) {
	c.delivered++
	c.total += delay
	c.most = max(c.most, delay)
	if c.delays == nil {
		return
	}
	b := bucket(delay)
	for b >= len(c.delays.buckets) {
		c.delays.buckets = append(c.delays.buckets, 0)
	}
	c.delays.buckets[b]++
}

// bucket numbers the range that a delay is in: delays under 8 have one each, then each power of two has eight.
func bucket(delay int64) int {
	if delay < 8 {
		return int(max(delay, 0))
	}
	top := bits.Len64(uint64(delay)) - 1
	return (top-2)*8 + int(delay>>(top-3)&7)
}

// bucketMiddle is the delay that stands for a bucket.
func bucketMiddle(b int) int64 {
	if b < 8 {
		return int64(b)
	}
	top, part := b/8+2, int64(b%8)
	low := (8 + part) << (top - 3)
	return low + int64(1)<<(top-3)/2
}

func (c *linkCounts) export() LinkStats {
	s := LinkStats{Sent: c.sent, Delivered: c.delivered, Lost: c.lost, Duplicated: c.duplicated, Bytes: c.bytes, Max: time.Duration(c.most)}
	if c.delivered == 0 {
		return s
	}
	s.Mean = time.Duration(c.total / int64(c.delivered))
	if c.delays != nil {
		s.P50, s.P90, s.P99 = c.percentile(50), c.percentile(90), c.percentile(99)
	}
	return s
}

func (c *linkCounts) percentile(p uint64) time.Duration {
	rank := (c.delivered*p + 99) / 100
	seen := uint64(0)
	for b, n := range c.delays.buckets {
		if seen += uint64(n); seen >= rank {
			return time.Duration(min(bucketMiddle(b), c.most))
		}
	}
	return time.Duration(c.most)
}
