package swim

import (
	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/membership"
)

// fetch is metadata on its way here, in parts and in order.
type fetch struct {
	data  []byte
	from  coterie.NodeID // who has it
	parts int            // that came since the last request
	at    int64          // when to ask again; never while it waits its turn
}

const (
	fetchesAtOnce = 4
	partsAtOnce   = 8 // parts that a request is answered by
)

// wantMeta begins to fetch metadata that did not fit its record.
func (c *Core) wantMeta(m *member, from coterie.NodeID) {
	if m.complete() {
		if m.ext != nil {
			m.ext.fetch = nil
		}
		return
	}
	if m.ext.fetch != nil {
		return // for fill takes one away whose sum is another
	}
	m.ext.fetch = &fetch{from: from, at: never}
	c.fetching = append(c.fetching, m)
	c.startFetches()
}

// startFetches keeps a few going.
func (c *Core) startFetches() {
	kept := c.fetching[:0]
	for _, m := range c.fetching {
		if m.ext != nil && m.ext.fetch != nil && m.up() {
			kept = append(kept, m)
		} else if m.ext != nil {
			m.ext.fetch = nil
			m.tidy()
		}
	}
	clear(c.fetching[len(kept):])
	c.fetching = kept
	for _, m := range kept[:min(len(kept), fetchesAtOnce)] {
		if m.ext.fetch.at == never {
			c.request(m)
		}
	}
}

// request asks for what is missing.
func (c *Core) request(m *member) {
	f := m.ext.fetch
	f.parts = 0
	f.at = c.now + 2*int64(c.cfg.ProbeTimeout)
	c.fetchAt = min(c.fetchAt, f.at)
	c.begin()
	c.packet = appendMetaGet(c.packet, m.id(), m.ext.metaSum, uint32(len(f.data)))
	c.send(f.from)
}

// refetch asks the member itself where another was too slow.
func (c *Core) refetch() {
	c.fetchAt = never
	c.startFetches()
	for _, m := range c.fetching[:min(len(c.fetching), fetchesAtOnce)] {
		f := m.ext.fetch
		if f.at <= c.now {
			f.from = m.nodeID()
			c.request(m)
		}
		c.fetchAt = min(c.fetchAt, f.at)
	}
}

// serveMeta sends some parts from an offset on.
func (c *Core) serveMeta(from coterie.NodeID, msg *message) {
	m := c.lookup(msg.target)
	if m == nil || !m.complete() || m.ext == nil || m.ext.metaSum != msg.number {
		return
	}
	meta := m.meta()
	size := c.cfg.MaxPacket - c.overhead() - len(m.id()) - 20
	for offset := int(msg.offset); offset < len(meta) && offset < int(msg.offset)+partsAtOnce*size; offset += size {
		c.begin()
		c.packet = appendMetaPart(c.packet, m.id(), m.ext.metaSum, uint32(offset), meta[offset:min(offset+size, len(meta))])
		c.sendWhole(from)
	}
}

// takeMeta takes the next part.
func (c *Core) takeMeta(msg *message) {
	m := c.lookup(msg.target)
	if m == nil || m.ext == nil || m.ext.fetch == nil || m.ext.metaSum != msg.number {
		return
	}
	f := m.ext.fetch
	if int(msg.offset) != len(f.data) || len(f.data)+len(msg.payload) > int(m.metaSize) || len(msg.payload) == 0 {
		return
	}
	f.data = append(f.data, msg.payload...)
	switch f.parts++; {
	case len(f.data) < int(m.metaSize):
		if f.parts == partsAtOnce {
			c.request(m)
		}
		return
	case sumMeta(string(f.data)) != m.ext.metaSum:
		f.data, f.from = nil, m.nodeID()
		c.request(m)
		return
	}
	m.ext.fetch = nil
	m.setText(m.id(), m.address(), string(f.data))
	c.emit(membership.EventUpdate, m)
	c.startFetches()
}

func appendMetaGet(b []byte, id string, sum uint64, offset uint32) []byte {
	b = wire.AppendString(append(b, kindMetaGet), id)
	return wire.AppendUvarint(wire.AppendUint64(b, sum), uint64(offset))
}

func appendMetaPart(b []byte, id string, sum uint64, offset uint32, part string) []byte {
	b = wire.AppendString(append(b, kindMetaPart), id)
	b = wire.AppendUvarint(wire.AppendUint64(b, sum), uint64(offset))
	return wire.AppendString(b, part)
}
