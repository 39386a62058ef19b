package crdt

import (
	"slices"

	"github.com/coterie-go/coterie"
)

// DeltaLog keeps the encoded deltas that a replica made until every peer has acknowledged them (Almeida, Shoker and
// Baquero, 2018, §6: delta-intervals and the causal delta-merging condition). Deltas are numbered from 1; a peer gets all
// from the first it has not acknowledged on, and takes them only in order, without a gap (Accept), so that what it knows
// is always causally closed. A peer that is too far behind gets the full state instead.
//
// The zero value is an empty log, ready to use. It is not safe for concurrent use.
type DeltaLog struct {
	// MaxBytes bounds the deltas kept; the oldest go first, acknowledged or not. Default 1 MiB.
	MaxBytes int

	first  uint64 // number of deltas[0]
	deltas [][]byte
	bytes  int
	peers  []logPeer
	from   map[coterie.NodeID]uint64 // by sender, the last number accepted
}

type logPeer struct {
	id    coterie.NodeID
	acked uint64
}

// Add makes a peer one whose acknowledgement counts; it has acknowledged nothing.
func (l *DeltaLog) Add(peer coterie.NodeID) {
	if l.peer(peer) == nil {
		l.peers = append(l.peers, logPeer{id: peer})
	}
}

// Remove forgets a peer.
func (l *DeltaLog) Remove(peer coterie.NodeID) {
	l.peers = slices.DeleteFunc(l.peers, func(p logPeer) bool { return p.id == peer })
	l.trim()
}

func (l *DeltaLog) peer(id coterie.NodeID) *logPeer {
	for i := range l.peers {
		if l.peers[i].id == id {
			return &l.peers[i]
		}
	}
	return nil
}

// Append adds a delta, which nobody may change, and returns its number.
func (l *DeltaLog) Append(delta []byte) uint64 {
	if l.first == 0 {
		l.first = 1
	}
	l.deltas = append(l.deltas, delta)
	l.bytes += len(delta)
	l.trim()
	return l.Last()
}

// Last returns the number of the newest delta, 0 if there never was one.
func (l *DeltaLog) Last() uint64 {
	if l.first == 0 {
		return 0
	}
	return l.first + uint64(len(l.deltas)) - 1
}

// Ack notes that a peer has all deltas up to a number.
func (l *DeltaLog) Ack(peer coterie.NodeID, upto uint64) {
	if p := l.peer(peer); p != nil && upto <= l.Last() {
		p.acked = max(p.acked, upto)
		l.trim()
	}
}

// Acked returns what a peer has acknowledged.
func (l *DeltaLog) Acked(peer coterie.NodeID) uint64 {
	if p := l.peer(peer); p != nil {
		return p.acked
	}
	return 0
}

// Since returns the deltas that a peer has not acknowledged and the number of the first. complete is false if some of
// them are not kept any more: then the peer needs the full state, which stands for all deltas up to Last.
func (l *DeltaLog) Since(peer coterie.NodeID) (first uint64, deltas [][]byte, complete bool) {
	next := l.Acked(peer) + 1
	switch {
	case next > l.Last():
		return next, nil, true
	case next < l.first:
		return next, nil, false
	}
	return next, l.deltas[next-l.first:], true
}

// trim drops what all peers have, and what is too much.
func (l *DeltaLog) trim() {
	limit := l.MaxBytes
	if limit <= 0 {
		limit = 1 << 20
	}
	n := 0
	for n < len(l.deltas) && (l.bytes > limit || l.everyoneHas(l.first+uint64(n))) {
		l.bytes -= len(l.deltas[n])
		n++
	}
	if n > 0 {
		l.first += uint64(n)
		l.deltas = slices.Delete(l.deltas, 0, n)
	}
}

func (l *DeltaLog) everyoneHas(number uint64) bool {
	return !slices.ContainsFunc(l.peers, func(p logPeer) bool { return p.acked < number })
}

// Accept tells what to do with n deltas of a sender that begin with number first: take those from skip on, or, if ok is
// false, none, because others that come before are missing. Taken notes that they were taken.
func (l *DeltaLog) Accept(sender coterie.NodeID, first uint64, n int) (skip int, ok bool) {
	have := l.from[sender]
	if first == 0 || first > have+1 {
		return 0, false
	}
	return int(min(have+1-first, uint64(n))), true
}

// Taken notes that all deltas of a sender up to a number are in the state.
func (l *DeltaLog) Taken(sender coterie.NodeID, upto uint64) {
	if l.from == nil {
		l.from = make(map[coterie.NodeID]uint64)
	}
	l.from[sender] = max(l.from[sender], upto)
}

// Have returns the last number taken from a sender: what to acknowledge.
func (l *DeltaLog) Have(sender coterie.NodeID) uint64 { return l.from[sender] }

// Forget makes the deltas of a sender start anew, as they do when it restarts without its log.
func (l *DeltaLog) Forget(sender coterie.NodeID) { delete(l.from, sender) }
