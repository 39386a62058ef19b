package sim

import (
	"cmp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie/internal/testsize"
)

func TestQueueAgreesWithSorting(t *testing.T) {
	testsize.Checks(t, 200, 5000)
	rapid.Check(t, func(rt *rapid.T) {
		var q queue
		type item struct {
			at int64
			id uint64
		}
		var want []item
		pops := func(n int) {
			for range n {
				at, ev := q.pop()
				require.Equal(rt, want[0], item{at, ev.id})
				want = want[1:]
			}
		}
		for i, at := range rapid.SliceOf(rapid.Int64Range(0, 50)).Draw(rt, "times") {
			q.push(at).id = uint64(i)
			want = append(want, item{at, uint64(i)})
			slices.SortStableFunc(want, func(a, b item) int { return cmp.Compare(a.at, b.at) })
			pops(rapid.IntRange(0, min(2, len(want))).Draw(rt, "pops"))
		}
		pops(len(want))
		require.Zero(rt, q.len())
		require.LessOrEqual(rt, len(q.slots), 200)
		for i := range q.slots {
			require.Equal(rt, event{}, q.slots[i], "lets go of what it held")
		}
	})
}

// worldTime is the inverse of elapsed, to the nanosecond, whatever the drift.
func TestClockInverse(t *testing.T) {
	testsize.Checks(t, 500, 20_000)
	rapid.Check(t, func(rt *rapid.T) {
		w := &World{now: rapid.Int64Range(0, 1e15).Draw(rt, "now")}
		n := &node{w: w, wake: never}
		c := &Clock{n: n, anchor: w.now, local: rapid.Int64Range(0, 1e15).Draw(rt, "local")}
		c.ppb = rapid.Int64Range(-500_000_000, billion).Draw(rt, "ppb")
		local := c.local + rapid.Int64Range(1, 1e15).Draw(rt, "in")
		at := c.worldTime(local)
		require.GreaterOrEqual(rt, c.elapsed(at), local)
		require.Less(rt, c.elapsed(at-1), local)
	})
}

func TestForgottenRecordsFreeTheirMemory(t *testing.T) {
	d := disk{}
	for range 10_000 {
		d.records = append(d.records, []byte("r"))
		d.sums = append(d.sums, 0)
		d.durable++
		d.keep(1)
	}
	require.Less(t, len(d.records), 200)
	require.Len(t, d.sums, len(d.records))
	require.Equal(t, len(d.records), d.durable)
}

func TestHistogramBuckets(t *testing.T) {
	last := -1
	for d := int64(0); d < 1<<40; d = d + 1 + d/100 {
		b := bucket(d)
		require.GreaterOrEqual(t, b, last)
		last = b
		require.InEpsilon(t, d+1, bucketMiddle(b)+1, 0.07)
	}
}
