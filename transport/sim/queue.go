package sim

import "time"

// kind is what a queued event does.
type kind uint8

const (
	evMessage kind = iota // a message arrives at node
	evRun                 // node is free again and has work
	evWake                // node's core asked for a Tick
	evSynced              // node's disk has finished a sync
	evCrash               // node crashes within a Save
	evRestart             // node comes back from such a crash
	evCall                // fn, from After or a schedule
)

// event is the body of a queued event.
type event struct {
	kind    kind
	node    int32
	from    int32
	gen     uint32 // the incarnation it belongs to; of evMessage unused
	sent    int64
	id      uint64 // of the message, in the trace
	sum     uint64 // checksum of payload
	payload []byte
	fn      func()
}

// key orders events by time and, at one time, by the order in which they were queued.
type key struct {
	at   int64
	seq  uint64
	slot int32
}

func (k key) before(o key) bool { return k.at < o.at || k.at == o.at && k.seq < o.seq }

// queue is a heap with four children per node. The heap holds small keys without pointers; the bodies stay where they
// are, in slots that are used again, so that a steady world allocates nothing per event.
type queue struct {
	keys  []key
	slots []event
	free  []int32
	seq   uint64
}

func (q *queue) len() int { return len(q.keys) }

func (q *queue) next() int64 { return q.keys[0].at }

// push queues an event and returns its body to be filled in, which is valid until the next push.
func (q *queue) push(at int64) *event {
	var slot int32
	if n := len(q.free); n > 0 {
		slot = q.free[n-1]
		q.free = q.free[:n-1]
	} else {
		slot = int32(len(q.slots))
		q.slots = append(q.slots, event{})
	}
	q.seq++
	k := key{at: at, seq: q.seq, slot: slot}
	q.keys = append(q.keys, k)
	i := len(q.keys) - 1
	for i > 0 {
		parent := (i - 1) / 4
		if !k.before(q.keys[parent]) {
			break
		}
		q.keys[i] = q.keys[parent]
		i = parent
	}
	q.keys[i] = k
	return &q.slots[slot]
}

// pop takes the earliest event.
func (q *queue) pop() (at int64, ev event) {
	top := q.keys[0]
	ev = q.slots[top.slot]
	q.slots[top.slot] = event{} // lets go of the payload
	q.free = append(q.free, top.slot)
	last := len(q.keys) - 1
	k := q.keys[last]
	q.keys = q.keys[:last]
	if last > 0 {
		q.sink(k)
	}
	return top.at, ev
}

// sink puts k in its place, from the top.
func (q *queue) sink(k key) {
	i, n := 0, len(q.keys)
	for {
		first := 4*i + 1
		if first >= n {
			break
		}
		least := first
		for c := first + 1; c < min(first+4, n); c++ {
			if q.keys[c].before(q.keys[least]) {
				least = c
			}
		}
		if !q.keys[least].before(k) {
			break
		}
		q.keys[i] = q.keys[least]
		i = least
	}
	q.keys[i] = k
}

// never is a time that does not come.
const never = int64(1) << 62

// grid is what a host rounds wake-ups to.
const grid = int64(10 * time.Millisecond)
