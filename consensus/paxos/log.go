package paxos

import (
	"slices"

	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/quorum"
)

// slot is what the node knows of one instance of Paxos, beside its value, which stands in entries.
type slot struct {
	votes  quorum.Set // as leader: who has accepted it in the ballot that is led
	ballot era        // in which this node accepted the value
	origin era        // in which the value was first proposed; with the slot's number it names the value
	state  slotState
}

// era is a ballot by its place in the log's list of them: slots are many, and ballots few.
type era uint32

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
	ballots []Ballot
}

// era returns the place of a ballot in the list, where it is put if it is new.
func (l *slotLog) era(b Ballot) era {
	for i, of := range slices.Backward(l.ballots) {
		if of == b {
			return era(i)
		}
	}
	l.ballots = append(l.ballots, b)
	return era(len(l.ballots) - 1)
}

func (l *slotLog) ballot(e era) Ballot { return l.ballots[e] }

// maxBallotList is how many ballots are listed until those that no slot is of are sought out.
const maxBallotList = 256

func (l *slotLog) trimBallots() {
	if len(l.ballots) < maxBallotList {
		return
	}
	old := l.ballots
	l.ballots = nil
	for i := range l.slots {
		if s := &l.slots[i]; s.state != empty {
			s.ballot, s.origin = l.era(old[s.ballot]), l.era(old[s.origin])
		}
	}
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
	// What lies beyond the end was never used, for the log never gets shorter there.
	l.entries, l.slots = l.entries[:n], l.slots[:n]
}

// extend appends values that are accepted in a ballot, which proposes them first.
func (l *slotLog) extend(entries []consensus.Entry, of era) {
	had := len(l.slots)
	l.grow(l.last() + uint64(len(entries)))
	copy(l.entries[had:], entries)
	for i := range l.slots[had:] {
		l.slots[had+i] = slot{state: accepted, ballot: of, origin: of}
	}
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
	defer l.trimBallots()
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
