package paxos

import (
	"fmt"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

// A node that hears that more is chosen than it knows asks for it: values, or if they are gone the snapshot in their
// place, piece by piece. Whoever asks keeps the state; the other side answers and forgets.

// pull is what a node knows to be missing.
type pull struct {
	from    coterie.NodeID
	through uint64
	due     instant // when to ask
}

// receiving is a snapshot that is coming in.
type receiving struct {
	base    base
	confs   []savedConf
	offset  int64  // written so far
	writing uint64 // id of the WriteChunk under way, else 0
	size    int    // of the piece under way
}

// serving is a former snapshot that somebody asked for a piece of not long ago.
type serving struct {
	base  base
	confs []savedConf
	until instant
}

// chunkAsk is a piece that is being read for somebody.
type chunkAsk struct {
	id     uint64
	to     coterie.NodeID
	of     serving
	offset int64
}

// maxChunkAsks is how many pieces are read at a time; who asks for more asks again.
const maxChunkAsks = 64

// hear takes the word of a ballot's leader that all slots through one are chosen. It has proposed one value for each in
// its ballot, so that whoever accepted that holds the chosen one.
func (c *Core) hear(from coterie.NodeID, ballot Ballot, through uint64) {
	if ballot != c.toldBallot {
		c.toldBallot, c.told = ballot, 0
	}
	for i := max(c.told, c.chosen) + 1; i <= min(through, c.log.last()); i++ {
		if s, _ := c.log.at(i); s.state == accepted && (c.log.ballot(s.ballot) == ballot || c.bugs.hearAny) {
			s.state = chosen
		}
	}
	c.told = max(c.told, through)
	c.advance()
	if through > c.chosen {
		c.lag(from, through)
	}
}

// lag notes that another node knows more to be chosen. What is on its way may still come by itself.
func (c *Core) lag(from coterie.NodeID, through uint64) {
	if c.behind.due == never || c.behind.through <= c.chosen {
		c.behind.due = c.now + c.cfg.HeartbeatInterval/4
		c.behind.from = from
	}
	c.behind.through = max(c.behind.through, through)
	if from == c.leader {
		c.behind.from = from
	}
}

// tickLearner asks for what is missing, and lets go of what nobody asks for any more.
func (c *Core) tickLearner() {
	if c.now >= c.behind.due {
		c.learn()
	}
	for len(c.served) > 0 && c.now >= c.served[0].until {
		c.out.Emit(consensus.Superseded{Name: c.served[0].base.snapshot.Name})
		c.served = slices.Delete(c.served, 0, 1)
	}
}

func (c *Core) learn() {
	if c.behind.through <= c.chosen {
		c.behind.due = never
		return
	}
	c.behind.due = c.now + c.cfg.HeartbeatInterval
	c.metrics.Learns++
	m := message{kind: kindLearn, ballot: c.promised, first: c.chosen + 1}
	if c.recv.base.slot > c.chosen {
		m.start, m.offset = c.recv.base.slot, uint64(c.recv.offset)
	}
	c.send(c.behind.from, &m)
}

// handleLearn answers with values that are chosen, or a piece of the snapshot in their place.
func (c *Core) handleLearn(from coterie.NodeID, m *message) {
	switch {
	case m.first > c.chosen || from == c.cfg.ID:
	case m.first > c.log.start:
		payload, _ := c.encodeRun(kindChosen, c.promised, m.first, c.chosen)
		c.out.Send(from, payload)
	default:
		c.serve(from, m.start, int64(m.offset))
	}
}

// serve reads a piece of the snapshot that is on its way to the other node, or of the newest.
func (c *Core) serve(to coterie.NodeID, slot uint64, offset int64) {
	of := serving{base: c.base, confs: c.savedConfs(c.base.slot)}
	for i := range c.served {
		if c.served[i].base.slot == slot {
			c.served[i].until = c.now + 2*c.cfg.ElectionTimeout
			of = c.served[i]
			slices.SortStableFunc(c.served, func(a, b serving) int { return int(a.until - b.until) })
			break
		}
	}
	if of.base.slot != slot {
		offset = 0
	}
	if of.base.slot == c.base.slot {
		c.baseUntil = c.now + 2*c.cfg.ElectionTimeout
	}
	limit := min(int64(c.cfg.SnapshotChunkBytes), of.base.snapshot.Size-offset)
	if of.base.snapshot.Name == "" || limit <= 0 || len(c.chunks) >= maxChunkAsks {
		return
	}
	if slices.ContainsFunc(c.chunks, func(a chunkAsk) bool { return a.to == to && a.of.base.slot == of.base.slot && a.offset == offset }) {
		return // it asked twice
	}
	c.nextID++
	c.chunks = append(c.chunks, chunkAsk{c.nextID, to, of, offset})
	c.metrics.ChunksSent++
	c.out.Emit(consensus.ReadChunk{ID: c.nextID, Name: of.base.snapshot.Name, Offset: offset, Limit: int(limit)})
}

// ChunkRead sends a piece that was asked for.
func (c *Core) ChunkRead(now time.Time, id uint64, data []byte, err error) {
	c.enter(now)
	i := slices.IndexFunc(c.chunks, func(a chunkAsk) bool { return a.id == id })
	if i < 0 {
		return
	}
	a := c.chunks[i]
	c.chunks = slices.Delete(c.chunks, i, i+1)
	if err != nil || len(data) == 0 {
		c.metrics.ChunkErrors++ // the file is gone or broken; who asked asks again, and gets what is there then
		return
	}
	m := message{
		kind: kindSnapshot, ballot: c.promised, chosen: a.of.base.slot, confs: a.of.confs, snap: a.of.base.snapshot,
		offset: uint64(a.offset), body: data,
	}
	c.out.Send(a.to, m.encode(make([]byte, 0, len(data)+512)))
}

// handleChosen learns a run of chosen values, and asks for the next.
func (c *Core) handleChosen(from coterie.NodeID, m *message, payload []byte) {
	last := m.first + uint64(m.count) - 1
	if m.first > c.chosen+1 || last <= c.chosen || m.count == 0 {
		return // it was not asked for, or has been answered
	}
	for i := range m.entries {
		if n := m.first + uint64(i); n > c.chosen {
			v := m.value(i)
			c.learnValue(n, &v)
		}
	}
	c.save(payload, last)
	c.metrics.Learned += last - c.chosen
	c.advance()
	if m.chosen > c.chosen {
		c.lag(from, m.chosen)
	}
	if c.behind.through > c.chosen {
		c.behind.from = from
		c.learn()
	}
}

// learnValue makes a slot chosen. What this node itself has accepted there stays if it is the same.
func (c *Core) learnValue(i uint64, v *value) {
	v.state = chosen
	if s, _ := c.log.get(i); s != nil && s.state == accepted && c.log.ballot(s.origin) == v.origin {
		v.ballot = c.log.ballot(s.ballot)
	}
	c.put(i, v)
}

// handleSnapshot takes a piece of a snapshot.
func (c *Core) handleSnapshot(from coterie.NodeID, m *message) {
	if m.chosen <= c.chosen || m.snap.Size == 0 || c.lead != nil {
		return // it is not newer than what this node has; a leader that lacks something first ceases to lead
	}
	c.lag(from, m.chosen)
	r := &c.recv
	if r.base.slot != m.chosen || r.base.snapshot.Checksum != m.snap.Checksum || r.base.snapshot.Size != m.snap.Size {
		if r.writing != 0 || m.offset != 0 {
			return // a piece of another one is being written; or this is the middle of one that was given up
		}
		name := fmt.Sprintf("received-%016x", m.chosen)
		*r = receiving{
			base:  base{m.chosen, consensus.Snapshot{Name: name, Size: m.snap.Size, Checksum: m.snap.Checksum}, true},
			confs: slices.Clone(m.confs),
		}
	}
	if r.writing != 0 || m.offset != uint64(r.offset) {
		return
	}
	c.nextID++
	r.writing, r.size = c.nextID, len(m.body)
	c.out.Emit(consensus.WriteChunk{ID: r.writing, Snapshot: r.base.snapshot, Offset: r.offset, Data: m.body})
}

// ChunkWritten asks for the next piece of the snapshot that is coming in, or installs it.
func (c *Core) ChunkWritten(now time.Time, id uint64, err error) {
	c.enter(now)
	defer c.checkInvariants()
	r := &c.recv
	if id == 0 || r.writing != id {
		return
	}
	r.writing = 0
	if err != nil {
		c.metrics.ChunkErrors++
		r.offset = 0
		c.learn()
		return
	}
	r.offset += int64(r.size)
	if r.offset < r.base.snapshot.Size {
		c.learn()
		return
	}
	c.install()
}

// install puts the received snapshot in the place of the slots through its own. Those behind it stay as they are: what
// was accepted there is still promised.
func (c *Core) install() {
	r := c.recv
	c.recv = receiving{}
	if r.base.slot <= c.chosen || c.lead != nil {
		c.out.Emit(consensus.Superseded{Name: r.base.snapshot.Name})
		return
	}
	confs, err := c.restoreConfs(r.confs)
	if err != nil {
		c.metrics.ChunkErrors++
		c.out.Emit(consensus.Superseded{Name: r.base.snapshot.Name})
		return
	}
	for i := max(c.emitted, c.log.start); i < min(c.log.last(), r.base.slot); i++ {
		// What became of a proposal that the snapshot hides, nobody tells.
		if _, e := c.log.at(i + 1); e.ID != 0 {
			c.reject(e.ID, coterie.ErrUnknownOutcome)
		}
	}
	old := c.base
	oldConfs := c.savedConfs(old.slot)
	c.log.compact(r.base.slot)
	c.base, c.confs = r.base, confs
	c.chosen, c.emitted, c.applied = r.base.slot, r.base.slot, r.base.slot
	c.unapplied, c.waiting, c.pending = c.unapplied[:0], 0, 0
	for i := c.log.start; i < c.log.last(); i++ {
		_, e := c.log.at(i + 1)
		c.pending += len(e.Command)
	}
	c.saveBase()
	c.metrics.Installs++
	c.out.Emit(consensus.Installed{Index: r.base.slot, Snapshot: r.base.snapshot})
	c.retire(old, oldConfs)
	c.configured()
	c.advance()
	if c.behind.through > c.chosen {
		c.learn()
	}
}

// Compact puts a snapshot in the place of the slots through index, and keeps a tail before it for nodes that are a
// little late.
func (c *Core) Compact(now time.Time, index uint64, snapshot consensus.Snapshot) {
	c.enter(now)
	defer c.checkInvariants()
	if index <= c.base.slot || index > c.applied {
		c.out.Emit(consensus.Superseded{Name: snapshot.Name})
		return
	}
	old := c.base
	oldConfs := c.savedConfs(old.slot)
	c.base = base{index, snapshot, true}
	for len(c.confs) > 1 && c.confs[1].from <= index+1 {
		c.confs = c.confs[1:]
	}
	c.log.compact(index - min(index, uint64(max(c.cfg.TrailingEntries, 0))))
	c.saveBase()
	c.metrics.Compactions++
	c.retire(old, oldConfs)
}

// retire lets go of a snapshot that no record names any more: at once, or when nobody asks for it any longer.
func (c *Core) retire(b base, confs []savedConf) {
	askedUntil := c.baseUntil
	c.baseUntil = 0
	if b.snapshot.Name == "" {
		return
	}
	if slices.ContainsFunc(c.chunks, func(a chunkAsk) bool { return a.of.base.slot == b.slot }) || c.now < askedUntil {
		c.served = append(c.served, serving{b, confs, c.now + 2*c.cfg.ElectionTimeout})
		return
	}
	c.out.Emit(consensus.Superseded{Name: b.snapshot.Name})
}
