package raft

import "github.com/coterie-go/coterie/consensus"

// entryLog is the part of the log that is in memory: everything after index start. Its entries are shared with
// Committed events, so that a committed entry is never written again; what lies beyond the last entry is room.
type entryLog struct {
	start     uint64 // index before the first entry held
	startTerm uint64
	entries   []consensus.Entry
	dead      int // entries cut off at the head whose memory the slice still holds
}

func (l *entryLog) last() uint64 { return l.start + uint64(len(l.entries)) }

func (l *entryLog) lastTerm() uint64 {
	if n := len(l.entries); n > 0 {
		return l.entries[n-1].Term
	}
	return l.startTerm
}

// term returns the term of the entry at an index; ok is false if the log does not know it.
func (l *entryLog) term(index uint64) (term uint64, ok bool) {
	switch {
	case index == l.start:
		return l.startTerm, true
	case index < l.start || index > l.last():
		return 0, false
	}
	return l.entries[index-l.start-1].Term, true
}

// matches reports whether the log holds the entry of this term at this index (§5.3).
func (l *entryLog) matches(index, term uint64) bool {
	got, ok := l.term(index)
	return ok && got == term
}

// at returns the entry at an index that the log holds.
func (l *entryLog) at(index uint64) *consensus.Entry { return &l.entries[index-l.start-1] }

// slice returns the entries after one index and up to another, with no room behind them.
func (l *entryLog) slice(after, through uint64) []consensus.Entry {
	lo, hi := after-l.start, through-l.start
	return l.entries[lo:hi:hi]
}

// room returns space for n entries behind the last; extend makes them part of the log.
func (l *entryLog) room(n int) []consensus.Entry {
	have := len(l.entries)
	if have+n > cap(l.entries) {
		grown := make([]consensus.Entry, have, max(2*have, have+n, 4))
		copy(grown, l.entries)
		l.entries, l.dead = grown, 0
	}
	return l.entries[have : have+n]
}

func (l *entryLog) extend(n int) { l.entries = l.entries[:len(l.entries)+n] }

func (l *entryLog) append(e consensus.Entry) {
	l.room(1)[0] = e
	l.extend(1)
}

// truncate forgets the entries after an index that the log holds.
func (l *entryLog) truncate(last uint64) { l.entries = l.entries[:last-l.start] }

// compact forgets the entries through an index that the log holds. Memory is given back once half of it is dead, so
// that a copy is paid for by as many cuts.
func (l *entryLog) compact(through uint64) {
	term, _ := l.term(through)
	n := int(through - l.start)
	l.entries = l.entries[n:]
	l.start, l.startTerm = through, term
	l.dead += n
	if l.dead > len(l.entries) {
		live := make([]consensus.Entry, len(l.entries), len(l.entries)+len(l.entries)/4+8)
		copy(live, l.entries)
		l.entries, l.dead = live, 0
	}
}

// reset forgets everything: the log begins after an index.
func (l *entryLog) reset(start, term uint64) {
	*l = entryLog{start: start, startTerm: term}
}
