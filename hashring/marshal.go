package hashring

import (
	"fmt"
	"math"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
)

// The format byte and the scheme byte that a state begins with.
const (
	format = 1

	schemeTable      = 1
	schemeRing       = 2
	schemeRendezvous = 3
	schemeMaglev     = 4
	schemeJump       = 5
	schemeAnchor     = 6
)

// appendState appends what the order-free schemes are made of: the size of the scheme and the members.
func appendState[N comparable](b []byte, scheme byte, sizes []int, members []member[N]) []byte {
	b = append(b, format, scheme)
	for _, size := range sizes {
		b = wire.AppendUvarint(b, uint64(size))
	}
	b = wire.AppendUvarint(b, uint64(len(members)))
	for i := range members {
		b = appendMember(b, &members[i])
	}
	return b
}

func appendMember[N comparable](b []byte, m *member[N]) []byte {
	b = wire.AppendString(b, m.name)
	b = wire.AppendUint64(b, math.Float64bits(m.weight))
	b = wire.AppendUvarint(b, uint64(len(m.domains)))
	for _, d := range m.domains {
		b = wire.AppendString(b, d)
	}
	return b
}

// readState reads what appendState wrote for the same scheme and sizes.
func readState[N comparable](data []byte, n naming[N], scheme byte, sizes []int) ([]member[N], error) {
	r, err := readHeader(data, scheme)
	if err != nil {
		return nil, err
	}
	for _, own := range sizes {
		if size := r.Uvarint(); r.Err() == nil && size != uint64(own) {
			return nil, fmt.Errorf("hashring: state of size %d, this one's Config says %d: keys would be placed otherwise", size, own)
		}
	}
	members := readMembers(&r, n)
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("hashring: state: %w", err)
	}
	return members, nil
}

func readHeader(data []byte, scheme byte) (wire.Reader, error) {
	r := wire.NewReader(data)
	if f := r.Byte(); f > format {
		return r, &coterie.FormatError{What: "hashring state", Got: f, Max: format}
	} else if f != format {
		return r, fmt.Errorf("hashring: state: %w: format %d", wire.ErrMalformed, f)
	}
	if s := r.Byte(); s != scheme {
		return r, fmt.Errorf("hashring: state: %w: scheme %d, want %d", wire.ErrMalformed, s, scheme)
	}
	return r, nil
}

// readMembers reads distinct members, in the order they stand in.
func readMembers[N comparable](r *wire.Reader, n naming[N]) []member[N] {
	if n.parse == nil {
		r.Fail("Config.Parse is required to make nodes of names")
		return nil
	}
	members := make([]member[N], 0, r.Count(10))
	names := make(map[string]bool, cap(members))
	for range cap(members) {
		m := member[N]{name: r.String(), weight: math.Float64frombits(r.Uint64())}
		for range r.Count(1) {
			m.domains = append(m.domains, r.String())
		}
		if r.Err() != nil {
			return nil
		}
		var err error
		if m.node, err = n.parse(m.name); err != nil || n.name(m.node) != m.name {
			r.Fail("%q is no node's name: %v", m.name, err)
		}
		if err := checkWeight(m.weight); err != nil {
			r.Fail("%v", err)
		}
		if names[m.name] {
			r.Fail("node %q twice", m.name)
		}
		names[m.name] = true
		m.hash = n.hash(m.name)
		members = append(members, m)
	}
	return members
}

// restore publishes members that were read, if they stand in their order.
func (s *set[N, P]) restore(data []byte, scheme byte, sizes []int) error {
	members, err := readState(data, s.naming, scheme, sizes)
	if err != nil {
		return err
	}
	for i := 1; i < len(members); i++ {
		if members[i].before(&members[i-1]) <= 0 {
			return fmt.Errorf("hashring: state: %w: members out of order", wire.ErrMalformed)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.publish(members)
}

// AppendBinary appends the state: the nodes with their weights and domains.
func (t *Table[N]) AppendBinary(b []byte) ([]byte, error) {
	return appendState(b, schemeTable, []int{t.Partitions(), t.replicas}, t.placed.Load().members), nil
}

// UnmarshalBinary replaces the nodes by those of a state. Config must be that of the Table that wrote it.
func (t *Table[N]) UnmarshalBinary(data []byte) error {
	return t.restore(data, schemeTable, []int{t.Partitions(), t.replicas})
}

// AppendBinary appends the state: the nodes with their weights and domains.
func (r *Ring[N]) AppendBinary(b []byte) ([]byte, error) {
	return appendState(b, schemeRing, []int{r.virtual}, r.placed.Load().members), nil
}

// UnmarshalBinary replaces the nodes by those of a state. Config must be that of the Ring that wrote it.
func (r *Ring[N]) UnmarshalBinary(data []byte) error {
	return r.restore(data, schemeRing, []int{r.virtual})
}

// AppendBinary appends the state: the nodes with their weights and domains.
func (r *Rendezvous[N]) AppendBinary(b []byte) ([]byte, error) {
	return appendState(b, schemeRendezvous, nil, r.placed.Load().members), nil
}

// UnmarshalBinary replaces the nodes by those of a state.
func (r *Rendezvous[N]) UnmarshalBinary(data []byte) error {
	return r.restore(data, schemeRendezvous, nil)
}

// AppendBinary appends the state: the nodes with their weights and domains.
func (m *Maglev[N]) AppendBinary(b []byte) ([]byte, error) {
	return appendState(b, schemeMaglev, []int{int(m.prime)}, m.placed.Load().members), nil
}

// UnmarshalBinary replaces the nodes by those of a state. Config must be that of the Maglev that wrote it.
func (m *Maglev[N]) UnmarshalBinary(data []byte) error {
	return m.restore(data, schemeMaglev, []int{int(m.prime)})
}

// AppendBinary appends the state: the nodes, in their order.
func (j *Jump[N]) AppendBinary(b []byte) ([]byte, error) {
	return appendState(b, schemeJump, nil, *j.members.Load()), nil
}

// UnmarshalBinary replaces the nodes by those of a state.
func (j *Jump[N]) UnmarshalBinary(data []byte) error {
	members, err := readState(data, j.naming, schemeJump, nil)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.members.Store(&members)
	return nil
}

// AppendBinary appends the state: the nodes in the order of their buckets, and the buckets without a node in the order
// of their removal, by which all else is determined.
func (a *Anchor[N]) AppendBinary(b []byte) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tables.Load()
	b = append(b, format, schemeAnchor)
	b = wire.AppendUvarint(b, uint64(t.first))
	b = wire.AppendUvarint(b, uint64(len(a.removed)))
	for _, bucket := range a.removed {
		b = wire.AppendUvarint(b, uint64(bucket))
	}
	b = wire.AppendUvarint(b, uint64(len(a.where)))
	for bucket := range t.size.Load() {
		if node := t.nodes[bucket].Load(); node != nil {
			m := a.naming.member(*node, 1)
			m.domains = a.domains[m.name]
			b = appendMember(b, &m)
		}
	}
	return b, nil
}

// UnmarshalBinary replaces the nodes and the history by those of a state.
func (a *Anchor[N]) UnmarshalBinary(data []byte) error {
	r, err := readHeader(data, schemeAnchor)
	if err != nil {
		return err
	}
	first := r.Int(1 << 30)
	removed := make([]uint32, r.Count(1))
	for i := range removed {
		removed[i] = uint32(r.Int(math.MaxUint32 >> 1))
	}
	members := readMembers(&r, a.naming)
	size := len(removed) + len(members)
	gone := make([]bool, size)
	for _, bucket := range removed {
		if int(bucket) >= size || gone[bucket] {
			r.Fail("removed bucket %d of %d", bucket, size)
			break
		}
		gone[bucket] = true
	}
	if first < 1 || first > size {
		r.Fail("first capacity %d of %d buckets", first, size)
	}
	for i := range members {
		if members[i].weight != 1 {
			r.Fail("weight %v in a scheme without weights", members[i].weight)
		}
	}
	if err := r.Done(); err != nil {
		return fmt.Errorf("hashring: state: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version.Add(1)
	defer a.version.Add(1)
	a.rebuild(first, removed, gone, members)
	return nil
}

// rebuild fills all buckets and then removes those that are gone in their order: since what was removed last is added
// first, that leads to the same state as the history did.
func (a *Anchor[N]) rebuild(first int, removed []uint32, gone []bool, members []member[N]) {
	a.reset(len(gone), first)
	for next := 0; len(a.removed) > 0; {
		if b := a.removed[len(a.removed)-1]; gone[b] {
			a.addBucket(nil)
			continue
		}
		a.add(&members[next])
		next++
	}
	for _, b := range removed {
		a.removeBucket(b)
	}
}
