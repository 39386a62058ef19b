package raft

import (
	"fmt"

	"github.com/coterie-go/coterie/consensus"
)

// mark says which record, by number, was the one that took the log to last.
type mark struct {
	number, last uint64
}

// save appends a record that takes the log to last.
func (c *Core) save(record []byte, last uint64) {
	c.out.Save(record)
	c.saves++
	c.marks = append(c.marks, mark{c.saves, last})
}

// saveState makes term and vote durable, both or neither.
func (c *Core) saveState() {
	m := message{kind: kindState, term: c.term, vote: c.vote}
	c.out.Save(c.encode(&m))
	c.saves++
	c.dirty = false
}

// saveBase makes durable what stands before the log, and forgets the records that nobody needs any more: those before
// the first that holds an entry after the log's start. Term and vote are in it, so that it can be the oldest.
func (c *Core) saveBase() {
	m := message{
		kind: kindBase, term: c.term, vote: c.vote, index: c.base.index, at: c.base.term,
		members: c.base.members, snap: c.base.snapshot,
	}
	c.out.Save(m.encode(nil))
	c.saves++
	c.dirty = false
	n := 0
	for n < len(c.marks) && c.marks[n].last <= c.log.start {
		n++
	}
	if c.log.start == c.log.last() {
		n = len(c.marks)
	}
	c.marks = append([]mark(nil), c.marks[n:]...)
	oldest := c.saves
	if len(c.marks) > 0 {
		oldest = c.marks[0].number
	}
	c.out.Keep(int(c.saves - oldest + 1))
}

// Replay takes back one record. The first may be of the middle of a history: entries then begin the log anew.
func (c *Core) Replay(record []byte) error {
	var m message
	if err := m.decode(record); err != nil {
		return fmt.Errorf("record %d: %w", c.saves+1, err)
	}
	var err error
	switch m.kind {
	case kindState:
		c.term, c.vote = m.term, m.vote
	case kindAppend:
		err = c.replayAppend(&m)
	case kindBase:
		err = c.replayBase(&m)
	default:
		err = m.wrong("is no record")
	}
	if err != nil {
		return fmt.Errorf("record %d: %w", c.saves+1, err)
	}
	c.saves++
	if m.kind == kindAppend {
		c.marks = append(c.marks, mark{c.saves, c.log.last()})
	}
	return nil
}

// replayAppend repeats what take did: the log of that time ended with the record's entries.
func (c *Core) replayAppend(m *message) error {
	entries := make([]consensus.Entry, m.count)
	if err := m.readEntries(entries); err != nil {
		return err
	}
	if m.index > c.log.last() || m.index < c.log.start {
		// The entries between were in records that are forgotten, because a base further on takes their place. If there
		// is none, boot finds that out.
		c.log.reset(m.index, m.at)
	}
	c.replayCut(m.index)
	for i := range entries {
		if e := &entries[i]; e.Internal && len(e.Command) > 0 {
			members, err := decodeMembership(e.Command)
			if err != nil {
				return err
			}
			c.confs = append(c.confs, configuration{m.index + 1 + uint64(i), members})
		}
	}
	copy(c.log.room(len(entries)), entries)
	c.log.extend(len(entries))
	if m.term > c.term {
		c.term, c.vote = m.term, ""
	}
	c.replayConf()
	return nil
}

// replayBase repeats a compaction or an installation: the log goes on behind the snapshot if it agrees with it.
func (c *Core) replayBase(m *message) error {
	if m.term < m.at || len(m.members.Members) > 0 && len(m.members.Voters()) == 0 {
		return m.wrong("makes no sense")
	}
	c.term, c.vote = m.term, m.vote
	c.base = base{m.index, m.at, m.members, m.snap, true}
	if m.index >= c.log.start && !c.log.matches(m.index, m.at) {
		c.log.reset(m.index, m.at)
		c.confs = nil
	}
	for len(c.confs) > 0 && c.confs[0].index <= m.index {
		c.confs = c.confs[1:]
	}
	c.replayConf()
	return nil
}

func (c *Core) replayCut(last uint64) {
	c.log.truncate(last)
	for len(c.confs) > 0 && c.confs[len(c.confs)-1].index > last {
		c.confs = c.confs[:len(c.confs)-1]
	}
}

func (c *Core) replayConf() {
	c.conf = configuration{c.base.index, c.base.members}
	if n := len(c.confs); n > 0 {
		c.conf = c.confs[n-1]
	}
}
