package swim

import "github.com/cespare/xxhash/v2"

// index finds members by id: a hash table of pointers with linear probing. A map of strings would take three times the
// memory, and memory for each member of each member is what limits a large group.
type index struct {
	slots []*member // a power of two of them, at most 3/4 in use
	count int
}

// home is the slot where a member belongs.
func (x *index) home(id string) int { return int(xxhash.Sum64String(id) & uint64(len(x.slots)-1)) }

// find returns the slot of a member, or the empty one where it would be.
func (x *index) find(id string) int {
	i := x.home(id)
	for x.slots[i] != nil && x.slots[i].id() != id {
		i = (i + 1) & (len(x.slots) - 1)
	}
	return i
}

// get returns a member, nil if it is unknown.
func (x *index) get(id string) *member {
	if x.count == 0 {
		return nil
	}
	return x.slots[x.find(id)]
}

// add adds a member that is not there.
func (x *index) add(m *member) {
	if 4*(x.count+1) > 3*len(x.slots) {
		old := x.slots
		x.slots = make([]*member, max(8, 2*len(old)))
		for _, other := range old {
			if other != nil {
				x.slots[x.find(other.id())] = other
			}
		}
	}
	x.slots[x.find(m.id())] = m
	x.count++
}

// remove takes a member out, and moves up those that its place kept from theirs.
func (x *index) remove(m *member) {
	hole := x.find(m.id())
	if x.slots[hole] == nil {
		return
	}
	x.slots[hole] = nil
	x.count--
	mask := len(x.slots) - 1
	for i := (hole + 1) & mask; x.slots[i] != nil; i = (i + 1) & mask {
		// It may stay if its home is beyond the hole.
		if home := x.home(x.slots[i].id()); (i-home)&mask >= (i-hole)&mask {
			x.slots[hole], x.slots[i] = x.slots[i], nil
			hole = i
		}
	}
}

// all yields every member, in an order that is the same in every run.
func (x *index) all(yield func(*member) bool) {
	for _, m := range x.slots {
		if m != nil && !yield(m) {
			return
		}
	}
}
