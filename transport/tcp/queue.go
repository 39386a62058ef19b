package tcp

import (
	"slices"
	"sync"
)

// queue holds the frames that wait for one peer, as the bytes to write, in blocks. Senders append to the last block
// while the writer writes the one it took from the front, which then serves again, so that in steady state nothing is
// allocated and the blocks stay in the processor's cache. When the queue is full the oldest frame is dropped: of what
// a protocol says, the newest is worth most.
type queue struct {
	limit int           // bytes
	wake  chan struct{} // has an element when the writer sleeps and should not; of capacity 1

	mu      sync.Mutex
	blocks  []block // oldest first; each has a frame at least
	bytes   int     // in blocks
	dropped uint64  // frames, ever
	spare   [][]byte
	asleep  bool // the writer waits for wake
}

// block is a run of whole frames.
type block struct {
	buf    []byte // frames, from head on
	head   int
	frames int
}

const (
	blockSize = 64 << 10 // a block is larger only if its one frame is
	maxSpare  = 16       // blocks that are kept to serve again
)

func newQueue(limit int) *queue { return &queue{limit: limit, wake: make(chan struct{}, 1)} }

// push adds a payload in two parts, whose frame must fit the limit.
func (q *queue) push(head, payload []byte) {
	sum := checksum(kindData, head, payload) // outside of the lock: it takes the longest
	size := headerSize + len(head) + len(payload)
	q.mu.Lock()
	for q.bytes+size > q.limit && len(q.blocks) > 0 {
		q.dropOldest()
	}
	if n := len(q.blocks); n == 0 || len(q.blocks[n-1].buf)+size > blockSize {
		q.blocks = append(q.blocks, block{buf: q.emptyBuf()})
	}
	last := &q.blocks[len(q.blocks)-1]
	last.buf = appendFrame(last.buf, kindData, sum, head, payload)
	last.frames++
	q.bytes += size
	if q.asleep {
		q.asleep = false
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	q.mu.Unlock()
}

func (q *queue) dropOldest() {
	first := &q.blocks[0]
	size := frameSize(first.buf[first.head:])
	first.head += size
	first.frames--
	q.bytes -= size
	q.dropped++
	if first.frames == 0 {
		q.spareLocked(first.buf)
		q.blocks = slices.Delete(q.blocks, 0, 1)
	}
}

// emptyBuf returns a buffer to fill. A new one grows to the size of a block as it is needed.
func (q *queue) emptyBuf() []byte {
	n := len(q.spare)
	if n == 0 {
		return nil
	}
	buf := q.spare[n-1]
	q.spare = q.spare[:n-1]
	return buf
}

func (q *queue) spareLocked(buf []byte) {
	if len(q.spare) < maxSpare && cap(buf) <= 2*blockSize {
		q.spare = append(q.spare, buf[:0])
	}
}

// take takes the oldest block, to be given back with recycle. Without one frames is 0, and wake tells of the next
// push.
func (q *queue) take() (b block) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.blocks) == 0 {
		q.asleep = true
		return block{}
	}
	b = q.blocks[0]
	q.blocks = slices.Delete(q.blocks, 0, 1)
	q.bytes -= len(b.buf) - b.head
	return b
}

// recycle gives back a block that take returned.
func (q *queue) recycle(b block) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.spareLocked(b.buf)
}

// trim lets go of the memory that a burst has left behind.
func (q *queue) trim() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.blocks) == 0 && len(q.spare) > 1 {
		clear(q.spare[1:])
		q.spare = q.spare[:1]
	}
}

// empty reports whether nothing waits; if so, wake tells of the next push.
func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asleep = len(q.blocks) == 0
	return q.asleep
}

func (q *queue) droppedFrames() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}
