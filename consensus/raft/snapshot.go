package raft

import (
	"fmt"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

// transfer is a leader's side of a snapshot on its way to a peer. One chunk is under way at a time: read from the
// file, sent, written, answered.
type transfer struct {
	base    base
	offset  int64
	reading uint64  // id of the ReadChunk under way, else 0
	sentAt  instant // of the chunk that waits for an answer
	chunk   []byte  // to send again if nobody answers
}

// receiving is a follower's side.
type receiving struct {
	from    coterie.NodeID
	base    base
	offset  int64  // written so far
	writing uint64 // id of the WriteChunk under way, else 0
	size    int    // of the chunk under way
	epoch   uint64
}

// Compacted is an event: a snapshot of this node has taken the place of the log through Index.
type Compacted struct {
	Index uint64
}

// Compact puts a snapshot in the place of the log through index.
func (c *Core) Compact(now time.Time, index uint64, snapshot consensus.Snapshot) {
	c.enter(now)
	defer c.checkInvariants()
	if index <= c.base.index || index > c.applied {
		if snapshot.Name != c.base.snapshot.Name {
			c.out.Emit(consensus.Superseded{Name: snapshot.Name})
		}
		return
	}
	c.compact(index, snapshot)
}

// compact makes a snapshot the base, and keeps a tail of the log before it for followers that are a little late.
func (c *Core) compact(index uint64, snapshot consensus.Snapshot) {
	old := c.base.snapshot.Name
	term, _ := c.log.term(index)
	c.base = base{index, term, c.membersAt(index), snapshot, true}
	for len(c.confs) > 0 && c.confs[0].index <= index {
		c.confs = c.confs[1:]
	}
	if start := c.trail(index); start > c.log.start {
		c.log.compact(start)
	}
	if c.lead != nil {
		// The newest entries get their records first: what Keep keeps is counted back from the base's.
		c.lead.batches = c.lead.batches[:0]
		c.saveNew()
	}
	c.saveBase()
	c.metrics.Compactions++
	c.out.Emit(Compacted{Index: index})
	c.retire(old)
	c.trace(TraceSnapshot, nil, "")
}

// trail returns where the tail of the log begins that is kept before an index, bounded in entries and in bytes.
func (c *Core) trail(index uint64) uint64 {
	start, bytes := index, 0
	for start > c.log.start && index-start < uint64(max(c.cfg.TrailingEntries, 0)) {
		if bytes += len(c.log.at(start).Command); bytes > c.cfg.TrailingBytes {
			break
		}
		start--
	}
	return start
}

// membersAt returns the configuration at an index between the base and the commit index.
func (c *Core) membersAt(index uint64) Membership {
	members := c.base.members
	for _, conf := range c.confs {
		if conf.index <= index {
			members = conf.Membership
		}
	}
	return members
}

// witnessLog is how many entries a witness keeps: they have no commands, nor a snapshot to put in their place.
const witnessLog = 1024

// compactWitness forgets the log of a node that applies nothing.
func (c *Core) compactWitness() {
	if c.committed-c.base.index >= witnessLog+uint64(max(c.cfg.TrailingEntries, 0)) {
		c.compact(c.committed, consensus.Snapshot{})
	}
}

// retire lets go of a snapshot that no record names any more: at once, or when it has arrived where it is under way.
func (c *Core) retire(name string) {
	if name == "" {
		return
	}
	if c.lead != nil && slices.ContainsFunc(c.lead.peers, func(p *peer) bool { return p.sends(name) }) {
		c.retired = append(c.retired, name)
		return
	}
	c.out.Emit(consensus.Superseded{Name: name})
}

// witnessBase is where a witness that lags too far begins: what is committed, for it needs no state that a snapshot
// would have to hold. False while the configuration there does not have it as a witness.
func (c *Core) witnessBase(id coterie.NodeID) (base, bool) {
	term, _ := c.log.term(c.committed)
	b := base{index: c.committed, term: term, members: c.membersAt(c.committed), known: true}
	return b, b.members.isWitness(id)
}

// beginTransfer sends a peer the snapshot, for entries that it needs are gone (§7).
func (c *Core) beginTransfer(p *peer) {
	b := c.base
	if p.witness {
		var ok bool
		if b, ok = c.witnessBase(p.id); !ok {
			return // it would not know itself; the next heartbeat tries again
		}
	}
	p.mode, p.asked = installing, false
	p.forgetInflight()
	p.transfer = &transfer{base: b}
	c.metrics.SnapshotsSent++
	c.nextChunk(p)
}

// nextChunk asks for the next piece of the file. A snapshot without a file, and a witness, gets an empty one.
func (c *Core) nextChunk(p *peer) {
	t := p.transfer
	if p.witness {
		t.base.snapshot = consensus.Snapshot{}
	}
	limit := min(int64(c.cfg.SnapshotChunkBytes), t.base.snapshot.Size-t.offset)
	if limit == 0 {
		c.sendChunk(p, nil)
		return
	}
	c.nextID++
	t.reading = c.nextID
	c.out.Emit(consensus.ReadChunk{ID: t.reading, Name: t.base.snapshot.Name, Offset: t.offset, Limit: int(limit)})
}

// ChunkRead sends a chunk that was asked for.
func (c *Core) ChunkRead(now time.Time, id uint64, data []byte, err error) {
	c.enter(now)
	defer c.checkInvariants()
	if c.lead == nil {
		return
	}
	i := slices.IndexFunc(c.lead.peers, func(p *peer) bool { return p.transfer != nil && p.transfer.reading == id })
	if id == 0 || i < 0 {
		return
	}
	p := c.lead.peers[i]
	p.transfer.reading = 0
	if err != nil || len(data) == 0 {
		// The file is gone or broken. The peer is probed again at the next heartbeat, and gets what is there then.
		c.metrics.ChunkErrors++
		c.endSending(p, p.match+1)
		p.asked = true
		return
	}
	c.sendChunk(p, data)
}

func (c *Core) sendChunk(p *peer, data []byte) {
	t := p.transfer
	m := message{
		kind: kindSnapshot, term: c.term, index: t.base.index, at: t.base.term, epoch: c.conf.index,
		members: t.base.members, snap: t.base.snapshot, hint: uint64(t.offset), body: data,
	}
	t.chunk, t.sentAt = m.encode(make([]byte, 0, len(data)+512)), c.now
	c.trace(TraceSend, &m, p.id)
	c.out.SendEarly(p.id, t.chunk)
}

// resend repeats a chunk that nobody answered. It is called at every heartbeat.
func (c *Core) resend(p *peer) {
	t := p.transfer
	if p.mode == installing && t.chunk != nil && c.now-t.sentAt >= c.cfg.ElectionTimeout/2 {
		t.sentAt = c.now
		c.out.SendEarly(p.id, t.chunk)
	}
}

// handleSnapshotReply goes on where the peer is: behind what it has written, or at the end.
func (c *Core) handleSnapshotReply(from coterie.NodeID, m *message) {
	if c.lead == nil {
		return
	}
	p := c.lead.find(from)
	if p == nil || p.mode != installing || m.epoch < p.since && !c.bugs.oldSession || m.index != p.transfer.base.index {
		return
	}
	p.heard = c.now
	t := p.transfer
	if t.reading != 0 || t.chunk == nil || m.hint > uint64(t.base.snapshot.Size) {
		return
	}
	if int64(m.hint) == t.offset && m.hint < uint64(t.base.snapshot.Size) {
		if c.now-t.sentAt < c.cfg.ElectionTimeout/2 {
			return // an old answer, or one to a chunk that came twice
		}
	}
	t.offset, t.chunk = int64(m.hint), nil
	c.nextChunk(p)
}

// endSending ends a transfer, and goes on with the log after it.
func (c *Core) endSending(p *peer, next uint64) {
	name := p.transfer.base.snapshot.Name
	p.transfer = nil
	p.mode, p.asked, p.next = probing, false, next
	c.release(name)
}

// sends reports whether the snapshot of that name is on its way to the peer.
func (p *peer) sends(name string) bool {
	return p.transfer != nil && p.transfer.base.snapshot.Name == name
}

// release retires a snapshot for good if it was kept only for a transfer that is over.
func (c *Core) release(name string) {
	if i := slices.Index(c.retired, name); i >= 0 {
		c.retired = slices.Delete(c.retired, i, i+1)
		c.retire(name)
	}
}

// dropTransfers lets go of what was kept for the transfers of a leadership that is over.
func (c *Core) dropTransfers() {
	retired := c.retired
	c.retired = nil
	for _, name := range retired {
		c.retire(name)
	}
}

// handleSnapshot takes one chunk of InstallSnapshot (§7, figure 13).
func (c *Core) handleSnapshot(from coterie.NodeID, m *message) {
	if c.role != Follower || c.leader != from {
		c.becomeFollower(c.term, from)
	}
	c.heardLeader(false)
	if m.index <= c.committed && !c.bugs.installOld {
		// It is not newer than what this node has, which agrees with it.
		c.note(from, m)
		c.ack.match = max(c.ack.match, c.committed)
		return
	}
	if m.snap.Size == 0 && !m.members.isWitness(c.cfg.ID) {
		return // only a witness can do without the data
	}
	r := &c.recv
	r.from, r.epoch = from, m.epoch
	if r.base.index != m.index || r.base.term != m.at || r.base.snapshot.Checksum != m.snap.Checksum ||
		r.base.snapshot.Size != m.snap.Size {
		if r.writing != 0 {
			return // the chunk of another snapshot is being written; this one will be sent again
		}
		name := fmt.Sprintf("received-%016x-%016x", m.index, m.at)
		if m.snap.Size == 0 {
			name = ""
		}
		r.base = base{m.index, m.at, m.members, consensus.Snapshot{Name: name, Size: m.snap.Size, Checksum: m.snap.Checksum}, true}
		r.offset = 0
	}
	switch {
	case r.writing != 0:
	case m.snap.Size == 0:
		c.install()
	case m.hint != uint64(r.offset):
		c.sendProgress()
	default:
		c.nextID++
		r.writing, r.size = c.nextID, len(m.body)
		c.out.Emit(consensus.WriteChunk{ID: r.writing, Snapshot: r.base.snapshot, Offset: r.offset, Data: m.body})
	}
}

// ChunkWritten goes on with the snapshot that is coming in, or installs it.
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
		c.sendProgress()
		return
	}
	r.offset += int64(r.size)
	if r.offset < r.base.snapshot.Size {
		c.sendProgress()
		return
	}
	c.install()
}

func (c *Core) sendProgress() {
	r := &c.recv
	if r.from == c.leader {
		c.send(r.from, &message{
			kind: kindSnapshotReply, term: c.term, index: r.base.index, hint: uint64(r.offset), epoch: r.epoch,
		})
	}
}

// install puts the received snapshot in the place of the log through its index. What follows is kept only if the log
// agrees with the snapshot there; and a snapshot that is not newer than what is committed is put away.
func (c *Core) install() {
	r := c.recv
	c.recv = receiving{}
	if r.base.index > c.committed || c.bugs.installOld {
		c.replaceLog(r.base)
	} else if r.base.snapshot.Name != "" {
		c.out.Emit(consensus.Superseded{Name: r.base.snapshot.Name})
	}
	if r.from == c.leader {
		c.note(r.from, &message{epoch: r.epoch})
		c.ack.match = max(c.ack.match, c.committed)
	}
}

// replaceLog makes a received snapshot the base.
func (c *Core) replaceLog(b base) {
	old := c.base.snapshot.Name
	agrees := c.log.matches(b.index, b.term) && !c.bugs.installOld
	for i := c.emitted; i < c.log.last(); i++ {
		// What became of a proposal that the snapshot hides, nobody tells.
		if e := c.log.at(i + 1); e.ID != 0 && (i < b.index || !agrees) {
			c.reject(e.ID, coterie.ErrUnknownOutcome)
		}
	}
	if agrees {
		c.log.compact(b.index)
	} else {
		c.log.reset(b.index, b.term)
		c.confs = nil
	}
	c.base = b
	for len(c.confs) > 0 && c.confs[0].index <= b.index {
		c.confs = c.confs[1:]
	}
	c.pending = 0
	for i := c.log.start; i < c.log.last(); i++ {
		c.pending += len(c.log.at(i + 1).Command)
	}
	c.committed, c.emitted, c.applied = b.index, b.index, b.index
	c.unapplied, c.waiting = c.unapplied[:0], 0
	c.adoptNewest()
	c.saveBase()
	c.metrics.Installs++
	if !c.witness {
		c.out.Emit(consensus.Installed{Index: b.index, Snapshot: b.snapshot})
	}
	c.trace(TraceSnapshot, nil, "")
	c.retire(old)
	c.afterCommit()
}
