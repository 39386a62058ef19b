package swim

import (
	"cmp"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/membership"
)

// member is what this one knows of another, or of itself. There are as many as n squared of them in a cluster, so it
// is small: what only few need at a time is in ext.
type member struct {
	text     string // id, address and metadata, as one
	since    int64  // when state became what it is
	ext      *ext   // nil at rest
	inc      uint32
	life     uint32
	metaSize uint32 // what is not in text yet is being fetched
	idLen    uint8
	addrLen  uint8
	state    membership.State
	flags    uint8
}

// Flags of a member.
const (
	inOrder = 1 << iota // in Core.order
	inGone              // in Core.gone
)

// ext is what a member has while something goes on with it.
type ext struct {
	suspicion *suspicion
	change    *change // being disseminated
	fetch     *fetch
	seen      *window // of its broadcasts
	metaSum   uint64  // of metadata that is too large for a record
	accused   bool    // in Core.accused
	urgent    bool    // in Core.urgent
}

func (m *member) id() string             { return m.text[:m.idLen] }
func (m *member) nodeID() coterie.NodeID { return coterie.NodeID(m.text[:m.idLen]) }
func (m *member) address() string        { return m.text[m.idLen : int(m.idLen)+int(m.addrLen)] }
func (m *member) meta() string           { return m.text[int(m.idLen)+int(m.addrLen):] }
func (m *member) complete() bool         { return len(m.meta()) == int(m.metaSize) }
func (m *member) up() bool               { return m.state <= membership.Suspect }

// more returns the member's ext, made if need be.
func (m *member) more() *ext {
	if m.ext == nil {
		m.ext = &ext{}
	}
	return m.ext
}

// tidy lets go of an ext that nothing needs.
func (m *member) tidy() {
	if m.ext != nil && *m.ext == (ext{}) {
		m.ext = nil
	}
}

// hash is what an up member counts in the hash of a view.
func (m *member) hash() uint64 {
	return mix(xxhash.Sum64String(m.id()) + uint64(m.inc)<<32 + uint64(m.life))
}

// newer reports whether a record replaces what is known of a member. The order is total, incarnation before life
// before state, so that a view is a join of all records heard, whatever their order; and within one life and
// incarnation nothing leads back to alive.
func newer(r *record, m *member) bool {
	return cmp.Or(cmp.Compare(r.inc, m.inc), cmp.Compare(r.life, m.life), cmp.Compare(r.state, m.state)) > 0
}

// same reports whether a record is of the member's incarnation and life.
func same(r *record, m *member) bool { return r.inc == m.inc && r.life == m.life }

// lookup finds a member, nil if it is unknown.
func (c *Core) lookup(id []byte) *member {
	return c.table.get(string(id))
}

// insert adds a member in no particular state.
func (c *Core) insert(r *record) *member {
	m := &member{}
	c.fill(m, r)
	c.table.add(m)
	return m
}

// fill takes over a record's content, all but its state. Metadata that is not in the record but is known stays.
func (c *Core) fill(m *member, r *record) {
	meta := string(r.meta)
	if !r.inline {
		meta = ""
		switch e := m.more(); {
		case e.metaSum == r.metaSum && m.metaSize == r.metaSize:
			meta = m.meta()
		default:
			e.metaSum, e.fetch = r.metaSum, nil
		}
	} else if len(meta) > inlineMeta { // this member's own
		m.more().metaSum = sumMeta(meta)
	} else if m.ext != nil {
		m.ext.metaSum, m.ext.fetch = 0, nil
	}
	m.inc, m.life, m.metaSize = r.inc, r.life, r.metaSize
	if m.address() != string(r.addr) || m.meta() != meta || m.text == "" {
		m.setText(string(r.id), string(r.addr), meta)
	}
}

func (m *member) setText(id, address, meta string) {
	m.text, m.idLen, m.addrLen = id+address+meta, uint8(len(id)), uint8(len(address))
}

// list puts a member at a random place of the probe order (SWIM, section 4.3).
func (c *Core) list(m *member) {
	m.flags |= inOrder
	c.order = append(c.order, m)
	last := len(c.order) - 1
	i := c.rand.IntN(last + 1)
	c.order[i], c.order[last] = c.order[last], c.order[i]
}

// relist drops who is no longer up from the probe order and shuffles it.
func (c *Core) relist() {
	c.order = slices.DeleteFunc(c.order, func(m *member) bool {
		if m.up() {
			return false
		}
		m.flags &^= inOrder
		return true
	})
	c.rand.Shuffle(len(c.order), func(i, j int) { c.order[i], c.order[j] = c.order[j], c.order[i] })
}

// pick returns a random member that is up and not the one excepted, nil if none was found in a few draws.
func (c *Core) pick(except *member) *member {
	if len(c.order) == 0 {
		return nil
	}
	for range 4 {
		if m := c.order[c.rand.IntN(len(c.order))]; m.up() && m != except {
			return m
		}
	}
	// Many are down, or there are but two: look from a random place on.
	start := c.rand.IntN(len(c.order))
	for i := range c.order {
		if m := c.order[(start+i)%len(c.order)]; m.up() && m != except {
			return m
		}
	}
	return nil
}

// picks returns up to k different members; the slice is the core's again at the next call.
func (c *Core) picks(k int, except *member) []*member {
	c.picked = c.picked[:0]
	for range 2 * k {
		m := c.pick(except)
		if m == nil || len(c.picked) == k {
			break
		}
		if !slices.Contains(c.picked, m) {
			c.picked = append(c.picked, m)
		}
	}
	return c.picked
}

// value makes the Member that the application sees.
func (c *Core) value(m *member) membership.Member[[]byte] {
	v := membership.Member[[]byte]{
		ID: coterie.NodeID(m.id()), Address: m.address(), State: m.state,
		Incarnation: uint64(m.inc), Life: m.life, Since: c.epoch.Add(time.Duration(m.since)),
	}
	if !m.complete() {
		v.Err = membership.ErrPending
	} else if m.metaSize > 0 {
		v.Meta = []byte(m.meta())
	}
	return v
}

func (c *Core) emit(kind membership.Kind, m *member) {
	c.out.Emit(membership.Event[[]byte]{Kind: kind, Member: c.value(m)})
}

// Members returns what is known of each member, this one included, sorted by ID: values that are safe to keep.
func (c *Core) Members() []membership.Member[[]byte] {
	members := make([]membership.Member[[]byte], 0, c.table.count)
	for m := range c.table.all {
		members = append(members, c.value(m))
	}
	slices.SortFunc(members, func(a, b membership.Member[[]byte]) int { return cmp.Compare(a.ID, b.ID) })
	return members
}

// Member returns what is known of one member, false if it is unknown.
func (c *Core) Member(id coterie.NodeID) (membership.Member[[]byte], bool) {
	m := c.table.get(string(id))
	if m == nil {
		return membership.Member[[]byte]{}, false
	}
	return c.value(m), true
}
