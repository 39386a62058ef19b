package raft

import (
	"fmt"

	"github.com/coterie-go/coterie"
)

// reply is the answer to the leader that a batch of appends comes to: one message, however many there were.
type reply struct {
	due     bool
	to      coterie.NodeID
	term    uint64
	match   uint64
	refused bool // and where, unless a later append was taken
	index   uint64
	round   uint64
	epoch   uint64
}

// handleAppend is the receiver's side of AppendEntries (figure 2). The term is this node's; the message has been
// decoded, its entries behind the end of the log.
func (c *Core) handleAppend(from coterie.NodeID, m *message, payload []byte) {
	if c.role != Follower || c.leader != from {
		c.becomeFollower(c.term, from)
	}
	c.heardLeader(m.calm)
	c.note(from, m)
	if m.index > c.log.last() || !c.precedes(m) {
		if !c.ack.refused || m.index < c.ack.index {
			c.ack.refused, c.ack.index = true, m.index
		}
		return
	}
	last := m.index + uint64(m.count)
	if fresh := c.firstNew(m); fresh <= last {
		c.take(m, fresh, payload)
	}
	c.commitTo(min(m.commit, last))
	c.ack.match = max(c.ack.match, last, c.committed)
}

// precedes reports whether the log agrees with the entry before the message's. Committed entries agree with every
// leader's (Leader Completeness), and what lies before the log is committed.
func (c *Core) precedes(m *message) bool {
	return m.index <= c.committed || c.log.matches(m.index, m.at)
}

// firstNew returns the index of the message's first entry that the log lacks or contradicts; the next after the
// message if there is none.
func (c *Core) firstNew(m *message) uint64 {
	for i := range m.entries {
		index := m.index + 1 + uint64(i)
		if index > c.committed && !c.log.matches(index, m.entries[i].Term) {
			return index
		}
	}
	return m.index + uint64(m.count) + 1
}

// take makes the message's entries from an index on the end of the log. Its bytes are the record.
func (c *Core) take(m *message, fresh uint64, payload []byte) {
	if fresh <= c.log.last() && c.bugs.keepConflict {
		if fresh = c.log.last() + 1; fresh > m.index+uint64(m.count) {
			return
		}
	}
	if fresh <= c.log.last() {
		c.metrics.Truncated += c.log.last() - fresh + 1
		c.cutTail(fresh-1, coterie.ErrUnknownOutcome)
	}
	entries := m.entries[fresh-m.index-1:]
	copy(c.log.room(len(entries)), entries)
	c.log.extend(len(entries))
	for i := range entries {
		e := c.log.at(fresh + uint64(i))
		c.pending += len(e.Command)
		if e.Internal && len(e.Command) > 0 {
			c.adopt(fresh + uint64(i))
		}
	}
	c.save(payload, c.log.last())
}

// commitTo learns that the log is decided through an index that it holds.
func (c *Core) commitTo(index uint64) {
	if index <= c.committed {
		return
	}
	if index > c.log.last() {
		panic(fmt.Sprintf("raft: told of commit %d, the log ends at %d", index, c.log.last()))
	}
	c.committed = index
	c.trace(TraceCommit, nil, "")
	c.afterCommit()
}

// note takes up what the reply echoes. A reply is about one term and leader.
func (c *Core) note(from coterie.NodeID, m *message) {
	if !c.ack.due || c.ack.term != c.term {
		c.ack = reply{due: true, to: from, term: c.term}
	}
	c.ack.round = max(c.ack.round, m.round)
	c.ack.epoch = max(c.ack.epoch, m.epoch)
}

// flushReply answers the leader at the end of a batch, when all that was taken is being saved.
func (c *Core) flushReply() {
	a := &c.ack
	if !a.due {
		return
	}
	a.due = false
	if a.term != c.term {
		return
	}
	m := message{kind: kindAppendReply, term: a.term, index: a.match, round: a.round, epoch: a.epoch}
	if a.refused && a.index > a.match {
		m.refused, m.index = true, a.index
		// The logs cannot agree beyond the shorter one; nor, where they end together, in terms the leader never had:
		// it looks for the last entry that is not newer than this one.
		m.hint = min(a.index, c.log.last())
		m.at, _ = c.log.term(m.hint)
	}
	c.send(a.to, &m)
}
