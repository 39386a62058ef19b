package pbft

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"time"

	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/internal/wire"
)

// A snapshot is as good as the replica it comes from, unless others vouch for it. So all replicas capture the state at
// the same checkpoints, each signs the digest of what it wrote, and a replica that is late takes a snapshot only if f+1
// vouch for the digest: one of them does not lie. The state beside it (how far each replica's requests have come) is
// vouched for with it.

// snapshots is a replica's own snapshot, what others say of theirs, and the one that is coming in.
type snapshots struct {
	due     state // at the last SnapshotDue
	hashing *hashing
	mine    *vouch
	vouches []vouch // the newest of each replica
	offer   []byte  // proof of this replica's snapshot; nil until f+1 vouch for it
	offered uint64  // its number
	nextID  uint64
	reading map[uint64]chunkAsked // chunks being read for others
	recv    *receiving
}

// hashing is the digest of the present snapshot, made chunk by chunk.
type hashing struct {
	id     uint64
	offset int64
	sum    hash.Hash
}

type chunkAsked struct {
	to     int
	seq    uint64
	offset int64
}

// receiving is a snapshot that is coming in.
type receiving struct {
	state    state
	vouch    vouch
	from     int
	snapshot consensus.Snapshot
	offset   int64
	sum      hash.Hash
	writing  uint64 // id of the WriteChunk under way, else 0
	size     int    // of that chunk
	moved    time.Time
}

// Compact puts a snapshot in the place of the log through index. The batches since the snapshot before it are still
// kept in memory, for replicas that are a little late.
func (c *Core) Compact(now time.Time, index uint64, snapshot consensus.Snapshot) {
	c.enter(now)
	st, ok := c.stateAt(index)
	if !ok {
		c.out.Emit(consensus.Superseded{Name: snapshot.Name})
		return
	}
	before := c.base
	c.base = base{st, snapshot}
	start := c.state.seq - uint64(len(c.log))
	if n := before.state.seq - min(before.state.seq, start); n > 0 && before.state.seq >= start {
		c.log = append([]logged(nil), c.log[n:]...)
	}
	c.rewrite()
	c.supersede(before)
	c.beginHashing()
}

func (c *Core) supersede(b base) {
	if b.snapshot.Name != "" {
		c.out.Emit(consensus.Superseded{Name: b.snapshot.Name})
	}
}

// stateAt returns the state behind the entry of an index, which must end a batch and be newer than the base.
func (c *Core) stateAt(index uint64) (state, bool) {
	if index <= c.base.state.index || index > c.state.index {
		return state{}, false
	}
	if c.snap.due.index == index {
		return c.snap.due, true
	}
	st := c.base.state.clone()
	start := c.state.seq - uint64(len(c.log))
	if st.seq < start {
		return state{}, false
	}
	for i := st.seq - start; i < uint64(len(c.log)) && st.index < index; i++ {
		st.advance(c.log[i].batch)
		if st.seq%c.group.interval == 0 && st.since >= uint64(c.cfg.SnapshotBytes) {
			st.since = 0
		}
	}
	return st, st.index == index
}

// advance is run without its effects.
func (s *state) advance(b *batch) {
	s.seq++
	s.chain = chainOf(s.chain, b.digest)
	for _, q := range b.requests {
		if admit(s.origins, q) {
			s.index += uint64(len(q.commands))
			s.since += uint64(q.bytes) + entryOverhead*uint64(len(q.commands))
		}
	}
}

// beginHashing reads the present snapshot, to vouch for what is in it.
func (c *Core) beginHashing() {
	c.snap.hashing, c.snap.mine, c.snap.offer, c.snap.offered = nil, nil, nil, 0
	if c.base.snapshot.Size > 0 {
		c.snap.hashing = &hashing{sum: sha256.New()}
		c.hashNext()
	}
}

func (c *Core) hashNext() {
	h := c.snap.hashing
	c.snap.nextID++
	h.id = c.snap.nextID
	limit := min(int64(c.cfg.SnapshotChunkBytes), c.base.snapshot.Size-h.offset)
	c.out.Emit(consensus.ReadChunk{ID: h.id, Name: c.base.snapshot.Name, Offset: h.offset, Limit: int(limit)})
}

// ChunkRead takes a piece of this replica's snapshot: to vouch for it, or for another replica.
func (c *Core) ChunkRead(now time.Time, id uint64, data []byte, err error) {
	c.enter(now)
	if asked, ok := c.snap.reading[id]; ok {
		delete(c.snap.reading, id)
		if err == nil && len(data) > 0 {
			c.out.Send(c.group.ids[asked.to], appendChunk(asked.seq, asked.offset, data))
		}
		return
	}
	h := c.snap.hashing
	if h == nil || h.id != id {
		return
	}
	if err != nil || len(data) == 0 {
		c.snap.hashing = nil // it is not vouched for
		return
	}
	_, _ = h.sum.Write(data) // never fails
	h.offset += int64(len(data))
	if h.offset < c.base.snapshot.Size {
		c.hashNext()
		return
	}
	c.snap.hashing = nil
	v := vouch{
		seq: c.base.state.seq, state: c.base.state.digest(), size: c.base.snapshot.Size, checksum: c.base.snapshot.Checksum,
		content: digest(h.sum.Sum(nil)), from: c.me,
	}
	v.sig = c.group.sign(c.cfg.Key, v.appendUnsigned(nil))
	c.snap.mine = &v
	c.metrics.Vouched++
	c.broadcast(payloadOf(v.append(nil)))
	c.makeOffer()
}

func (c *Core) handleVouch(v vouch) {
	if c.snap.vouches == nil {
		c.snap.vouches = make([]vouch, len(c.group.ids))
	}
	if c.snap.vouches[v.from].seq <= v.seq {
		v.sig = append([]byte(nil), v.sig...)
		c.snap.vouches[v.from] = v
	}
	c.makeOffer()
}

// makeOffer makes the proof of this replica's snapshot when f+1 vouch for it.
func (c *Core) makeOffer() {
	if c.snap.mine == nil || c.snap.offer != nil {
		return
	}
	var found []vouch
	for i := range c.snap.vouches {
		if v := &c.snap.vouches[i]; v.seq != 0 && v.agrees(c.snap.mine) && len(found) <= c.group.faulty {
			found = append(found, *v)
		}
	}
	if len(found) <= c.group.faulty {
		return
	}
	b := c.base.state.append([]byte{format, byte(kindOffer)})
	b = wire.AppendUvarint(b, uint64(len(found)))
	for i := range found {
		b = found[i].append(b)
	}
	c.snap.offer, c.snap.offered = b, c.base.state.seq
}

// handleOffer begins to take a snapshot, or goes on with it from another replica if the first has fallen silent.
func (c *Core) handleOffer(from int, m *message) {
	if m.state.seq <= c.state.seq || from == c.me {
		return
	}
	r := c.snap.recv
	stale := r != nil && r.writing == 0 && c.now.Sub(r.moved) >= 2*c.cfg.StatusInterval
	switch {
	case r == nil || stale && !r.vouch.agrees(&m.vouches[0]):
		v := m.vouches[0]
		c.snap.recv = &receiving{
			state: m.state.clone(), vouch: v, from: from, sum: sha256.New(), moved: c.now,
			snapshot: consensus.Snapshot{
				Name: fmt.Sprintf("received-%016x-%08x", v.seq, c.life), Size: v.size, Checksum: v.checksum,
			},
		}
		c.askChunk()
	case stale:
		r.from, r.moved = from, c.now
		c.askChunk()
	}
}

func (c *Core) askChunk() {
	r := c.snap.recv
	b := wire.AppendUvarint([]byte{format, byte(kindAskChunk)}, r.state.seq)
	c.out.Send(c.group.ids[r.from], wire.AppendUvarint(b, uint64(r.offset)))
}

// snapshotTick repeats the question for a piece that did not come.
func (c *Core) snapshotTick() {
	if r := c.snap.recv; r != nil && r.writing == 0 && c.now.Sub(r.moved) >= c.cfg.StatusInterval {
		c.askChunk()
	}
}

// handleAskChunk reads a piece for another replica; one at a time for each.
func (c *Core) handleAskChunk(from int, seq uint64, offset int64) {
	if seq != c.base.state.seq || offset >= c.base.snapshot.Size || from == c.me {
		return
	}
	for id, asked := range c.snap.reading {
		if asked.to != from {
			continue
		}
		if asked.seq == seq && asked.offset == offset {
			return
		}
		delete(c.snap.reading, id)
	}
	if c.snap.reading == nil {
		c.snap.reading = map[uint64]chunkAsked{}
	}
	c.snap.nextID++
	c.snap.reading[c.snap.nextID] = chunkAsked{from, seq, offset}
	limit := min(int64(c.cfg.SnapshotChunkBytes), c.base.snapshot.Size-offset)
	c.out.Emit(consensus.ReadChunk{ID: c.snap.nextID, Name: c.base.snapshot.Name, Offset: offset, Limit: int(limit)})
}

// handleChunk takes the next piece. The last one is written, and so the file made durable, only if all of it is what is
// vouched for; else the snapshot is given up, to be begun anew with whoever offers it next.
func (c *Core) handleChunk(from int, seq uint64, offset int64, data []byte) {
	r := c.snap.recv
	if r == nil || r.from != from || r.state.seq != seq || r.offset != offset || r.writing != 0 || len(data) == 0 {
		return
	}
	end := offset + int64(len(data))
	if end > r.snapshot.Size {
		c.metrics.BadChunks++
		c.snap.recv = nil
		return
	}
	_, _ = r.sum.Write(data) // never fails
	if end == r.snapshot.Size && digest(r.sum.Sum(nil)) != r.vouch.content && !c.bugs.trustSnapshots {
		c.metrics.BadChunks++
		c.snap.recv = nil
		return
	}
	c.snap.nextID++
	r.writing, r.size, r.moved = c.snap.nextID, len(data), c.now
	snapshot := r.snapshot
	c.out.Emit(consensus.WriteChunk{ID: r.writing, Snapshot: snapshot, Offset: offset, Data: data})
}

// ChunkWritten goes on with the snapshot that is coming in, or installs it.
func (c *Core) ChunkWritten(now time.Time, id uint64, err error) {
	c.enter(now)
	r := c.snap.recv
	if r == nil || id == 0 || r.writing != id {
		return
	}
	r.writing = 0
	if err != nil {
		c.snap.recv = nil
		return
	}
	r.offset += int64(r.size)
	if r.offset < r.snapshot.Size {
		c.askChunk()
		return
	}
	c.snap.recv = nil
	c.install(r)
}

// install puts the received snapshot in the place of the log through its index, unless this replica has come further
// meanwhile.
func (c *Core) install(r *receiving) {
	if r.state.seq <= c.state.seq {
		c.out.Emit(consensus.Superseded{Name: r.snapshot.Name})
		return
	}
	before := c.base
	c.base = base{r.state, r.snapshot}
	c.state = r.state.clone()
	c.applied = c.state.index
	c.unapplied, c.waiting, c.log = nil, 0, nil
	c.metrics.Installs++
	c.out.Emit(consensus.Installed{Index: c.state.index, Snapshot: r.snapshot})
	c.loseOwn()
	for from := range c.pools {
		c.settlePool(from)
	}
	c.next = max(c.next, c.state.seq+1)
	c.dropSettled()
	c.rewrite()
	c.supersede(before)
	c.beginHashing()
	c.statusWant = true
	c.execute()
}
