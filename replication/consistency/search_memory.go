package consistency

import "slices"

// memory is the set of nodes seen: an open hash table of positions, masks and states.
type memory[S any] struct {
	words int
	equal func(a, b S) bool
	hash  func(S) uint64

	table  []int32 // index of a node + 1
	sums   []uint32
	keys   []uint64 // words+1 of each node: position, then mask
	states []S
}

func (t *memory[S]) init(words int, equal func(a, b S) bool, hash func(S) uint64) {
	t.words, t.equal, t.hash = words, equal, hash
}

// add reports whether the node was new.
func (t *memory[S]) add(pos int32, mask []uint64, state S) bool {
	sum := uint64(pos)*0x9e3779b97f4a7c15 + 1
	for _, w := range mask {
		sum = (sum ^ w ^ sum>>29) * 0xbf58476d1ce4e5b9
	}
	if t.hash != nil {
		sum = (sum ^ t.hash(state)) * 0x94d049bb133111eb
	}
	sum ^= sum >> 32
	if len(t.states)*2 >= len(t.table) {
		t.grow()
	}
	short := uint32(sum)
	i := int(short) & (len(t.table) - 1)
	for ; t.table[i] != 0; i = (i + 1) & (len(t.table) - 1) {
		n := int(t.table[i] - 1)
		if t.sums[n] != short {
			continue
		}
		key := t.keys[n*(t.words+1) : (n+1)*(t.words+1)]
		if key[0] == uint64(pos) && slices.Equal(key[1:], mask) && t.equal(t.states[n], state) {
			return false
		}
	}
	t.table[i] = int32(len(t.states) + 1)
	t.sums = append(t.sums, short)
	t.keys = append(append(t.keys, uint64(pos)), mask...)
	t.states = append(t.states, state)
	return true
}

// grow doubles the table.
func (t *memory[S]) grow() {
	t.table = make([]int32, max(16, 2*len(t.table)))
	for n, sum := range t.sums {
		i := int(sum) & (len(t.table) - 1)
		for t.table[i] != 0 {
			i = (i + 1) & (len(t.table) - 1)
		}
		t.table[i] = int32(n + 1)
	}
}
