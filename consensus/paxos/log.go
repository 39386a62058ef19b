package paxos

import (
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/quorum"
)

// slot is what the node knows of one instance of Paxos, beside its value, which stands in entries.
type slot struct {
	state  slotState
	ballot Ballot     // in which this node accepted the value
	origin Ballot     // in which the value was first proposed; with the slot's number it names the value
	votes  quorum.Set // as leader: who has accepted it in the ballot that is led
}

type slotState uint8

const (
	empty    slotState = iota
	accepted           // this node has accepted a value
	chosen             // the value is chosen
)

// slotLog holds the slots after start. A chosen value is shared with Committed events and never written again. Slots may
// be empty, for acceptors hear of proposals in any order.
type slotLog struct {
	start   uint64
	entries []consensus.Entry
	slots   []slot
	dead    int // slots cut off at the head whose memory is still held
}

func (l *slotLog) last() uint64 { return l.start + uint64(len(l.slots)) }

// at returns a slot that the log holds, and its entry.
func (l *slotLog) at(i uint64) (*slot, *consensus.Entry) {
	return &l.slots[i-l.start-1], &l.entries[i-l.start-1]
}

// get is at for any slot; nil if the log does not hold it.
func (l *slotLog) get(i uint64) (*slot, *consensus.Entry) {
	if i <= l.start || i > l.last() {
		return nil, nil
	}
	return l.at(i)
}

// grow makes the log hold the slots through last, empty where they are new.
func (l *slotLog) grow(last uint64) {
	if last <= l.last() {
		return
	}
	n := int(last - l.start)
	if n > cap(l.slots) {
		room := max(2*len(l.slots), n, 8)
		entries, slots := make([]consensus.Entry, len(l.entries), room), make([]slot, len(l.slots), room)
		copy(entries, l.entries)
		copy(slots, l.slots)
		l.entries, l.slots, l.dead = entries, slots, 0
	}
	had := len(l.slots)
	l.entries, l.slots = l.entries[:n], l.slots[:n]
	clear(l.entries[had:])
	clear(l.slots[had:])
}

// slice returns the entries after one slot and through another, with no room behind them.
func (l *slotLog) slice(after, through uint64) []consensus.Entry {
	lo, hi := after-l.start, through-l.start
	return l.entries[lo:hi:hi]
}

// compact forgets the slots through one that is chosen. Memory is given back once half of it is dead.
func (l *slotLog) compact(through uint64) {
	if through <= l.start {
		return
	}
	if through >= l.last() {
		*l = slotLog{start: through}
		return
	}
	n := int(through - l.start)
	l.entries, l.slots = l.entries[n:], l.slots[n:]
	l.start = through
	l.dead += n
	if l.dead > len(l.slots) {
		room := len(l.slots) + len(l.slots)/4 + 8
		entries, slots := make([]consensus.Entry, len(l.entries), room), make([]slot, len(l.slots), room)
		copy(entries, l.entries)
		copy(slots, l.slots)
		l.entries, l.slots, l.dead = entries, slots, 0
	}
}
