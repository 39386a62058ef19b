package tcp

import (
	"bytes"
	"testing"

	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The oracle is a list of frames of which the oldest go when the sum of their sizes is over the limit.
func TestQueueAgreesWithAList(t *testing.T) {
	testsize.Checks(t, 500, 20_000)
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(1000, 300_000).Draw(rt, "limit")
		q := newQueue(limit)
		var list [][]byte
		sum, dropped := 0, uint64(0)
		var taken block
		rt.Repeat(map[string]func(*rapid.T){
			"push": func(rt *rapid.T) {
				size := rapid.OneOf(rapid.IntRange(0, 50), rapid.IntRange(0, limit-headerSize)).Draw(rt, "size")
				payload := bytes.Repeat([]byte{byte(len(list))}, size)
				cut := rapid.IntRange(0, size).Draw(rt, "cut")
				q.push(payload[:cut], payload[cut:])
				frame := newFrame(kindData, payload)
				for ; sum+len(frame) > limit; dropped++ {
					sum -= len(list[0])
					list = list[1:]
				}
				list = append(list, frame)
				sum += len(frame)
			},
			"take": func(rt *rapid.T) {
				if taken.frames > 0 {
					q.recycle(taken)
				}
				taken = q.take()
				var want []byte
				for _, frame := range list[:taken.frames] {
					want = append(want, frame...)
				}
				require.True(rt, bytes.Equal(want, taken.buf[taken.head:]))
				require.Equal(rt, len(list) == 0, taken.frames == 0)
				list = list[taken.frames:]
				sum -= len(want)
			},
			"trim": func(*rapid.T) { q.trim() },
			"": func(rt *rapid.T) {
				require.Equal(rt, dropped, q.droppedFrames())
				require.Equal(rt, sum, q.bytes)
				require.LessOrEqual(rt, len(q.spare), maxSpare)
			},
		})
	})
}

func TestQueueWakesTheWriter(t *testing.T) {
	q := newQueue(1000)
	require.True(t, q.empty())
	q.push(nil, nil)
	<-q.wake
	require.False(t, q.empty())
	require.Equal(t, 1, q.take().frames)
	q.push(nil, nil)
	require.Empty(t, q.wake, "nobody sleeps")
	require.Equal(t, 1, q.take().frames)
	require.Zero(t, q.take().frames)
	q.push(nil, nil)
	<-q.wake
}

func TestQueueAllocatesNothing(t *testing.T) {
	q := newQueue(1 << 20)
	payload := make([]byte, 64)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		for range 100 {
			q.push(nil, payload)
		}
		for {
			b := q.take()
			if b.frames == 0 {
				return
			}
			q.recycle(b)
		}
	}))
}
