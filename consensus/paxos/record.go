package paxos

import (
	"fmt"
)

// mark says which record, by number, holds slots, the last of them being last, or is a base.
type mark struct {
	number, last uint64
	base         bool
}

// save makes a record of a message that holds slots.
func (c *Core) save(record []byte, last uint64) {
	c.out.Save(record)
	c.saves++
	c.marks = append(c.marks, mark{number: c.saves, last: last})
}

// saveState makes the promise durable.
func (c *Core) saveState() {
	m := message{kind: kindState, ballot: c.promised, chosen: c.chosen}
	c.out.Save(c.encode(&m))
	c.saves++
	c.dirty = false
}

// saveBase makes durable what stands before the log, and forgets the records that nobody needs any more. The oldest
// that is kept is a base, which stands alone: slots come in any order, so that only a base says where the log starts.
func (c *Core) saveBase() {
	m := message{
		kind: kindBase, ballot: c.promised, start: c.log.start, chosen: c.base.slot, confs: c.savedConfs(c.base.slot),
		snap: c.base.snapshot,
	}
	c.out.Save(m.encode(nil))
	c.saves++
	c.dirty = false
	c.marks = append(c.marks, mark{number: c.saves, base: true})
	oldest := len(c.marks) - 1
	for i, k := range c.marks {
		if !k.base && k.last > c.log.start {
			oldest = i
			break
		}
	}
	for !c.marks[oldest].base {
		if oldest == 0 {
			return // of records from before any base, which cannot be
		}
		oldest--
	}
	c.marks = append([]mark(nil), c.marks[oldest:]...)
	c.out.Keep(int(c.saves - c.marks[0].number + 1))
}

// savedConfs returns the configurations that are known by the slots through one, from the one that decides on the next.
func (c *Core) savedConfs(slot uint64) []savedConf {
	var confs []savedConf
	for i, conf := range c.confs {
		if i > 0 && conf.from > slot+uint64(c.cfg.Alpha) {
			break
		}
		if i+1 < len(c.confs) && c.confs[i+1].from <= slot+1 {
			continue
		}
		confs = append(confs, savedConf{conf.from, conf.members})
	}
	return confs
}

func (c *Core) restoreConfs(saved []savedConf) ([]*configuration, error) {
	var confs []*configuration
	for i, s := range saved {
		conf, err := newConfiguration(s.from, s.members, c.cfg.Quorums)
		if err != nil {
			return nil, fmt.Errorf("paxos: configuration from slot %d: %w", s.from, err)
		}
		if i > 0 && s.from < saved[i-1].from {
			return nil, fmt.Errorf("paxos: configuration from slot %d after one from slot %d", s.from, saved[i-1].from)
		}
		confs = append(confs, conf)
	}
	if len(confs) == 0 {
		return nil, fmt.Errorf("paxos: no configuration")
	}
	return confs, nil
}

// Replay takes back one record. Those before the first base are of a history that it replaces.
func (c *Core) Replay(record []byte) error {
	var m message
	err := m.decode(record, c.promised)
	if err == nil {
		err = c.replay(&m)
	}
	if err != nil {
		return fmt.Errorf("record %d: %w", c.saves+1, err)
	}
	return nil
}

func (c *Core) replay(m *message) error {
	switch m.kind {
	case kindAccept, kindChosen:
		if err := m.readValues(); err != nil {
			return err
		}
		if m.count == 0 {
			return m.wrong("is a record without slots")
		}
	case kindBase:
		confs, err := c.restoreConfs(m.confs)
		if err != nil {
			return err
		}
		c.promised = m.ballot
		c.base = base{m.chosen, m.snap, true}
		c.confs = confs
		c.log.compact(m.start)
	case kindState:
		if c.base.known {
			c.promised = m.ballot
		}
	default:
		return m.wrong("is no record")
	}
	c.saves++
	switch {
	case !c.base.known:
	case m.kind == kindBase:
		c.marks = append(c.marks, mark{number: c.saves, base: true})
	case m.kind != kindState:
		c.replayRun(m)
	}
	return nil
}

// replayRun repeats what acceptRun, accept or handleChosen did, and what the message says of slots that are chosen.
func (c *Core) replayRun(m *message) {
	last := m.first + uint64(m.count) - 1
	c.marks = append(c.marks, mark{number: c.saves, last: last})
	if m.kind == kindAccept {
		if c.promised.Less(m.ballot) {
			c.promised = m.ballot
		}
		if c.toldBallot != m.ballot {
			c.toldBallot, c.told = m.ballot, 0
		}
	}
	if far := 2 * uint64(c.cfg.Alpha); m.first > c.log.last()+1+far {
		// A node holds no slot so far beyond what it knows to be chosen: the records of those between are gone because
		// a base further on takes their place. If there is none, boot finds that out.
		c.log.compact(m.first - 1 - far)
	}
	for i := range m.entries {
		n := m.first + uint64(i)
		if n <= c.log.start {
			continue
		}
		v := m.value(i)
		if m.kind == kindChosen {
			c.learnValue(n, &v)
		} else {
			c.put(n, &v)
		}
	}
	if m.kind == kindAccept {
		for i := max(c.told, c.log.start) + 1; i <= min(m.chosen, c.log.last()); i++ {
			if s, _ := c.log.at(i); s.state == accepted && c.log.ballot(s.ballot) == m.ballot {
				s.state = chosen
			}
		}
		c.told = max(c.told, m.chosen)
	}
}

// trimReplayed cuts from the head of the log what the records that are left do not hold wholly, of the slots before the
// base, which are all chosen.
func (c *Core) trimReplayed() {
	c.pending = 0
	start := c.log.start
	for i := start + 1; i <= min(c.base.slot, c.log.last()); i++ {
		if s, _ := c.log.at(i); s.state != chosen {
			start = i
		}
	}
	if c.log.last() < c.base.slot {
		start = c.base.slot
	}
	c.log.compact(start)
}
