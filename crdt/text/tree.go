package text

// tree is the order of the blocks: a B+ tree whose leaves list blocks and whose every node knows how many visible
// characters lie under each child, so that a position is found, and the position of a block told, in O(log n). Blocks
// and nodes are named by their numbers in arenas; the zero number is none.
type tree struct {
	nodes []node // nodes[0] is not used
	root  uint32
	free  []uint32
}

// fan is how many children a node has at most. A descent looks at half of them on average.
const fan = 24

type node struct {
	parent     uint32
	prev, next uint32 // neighbours of a leaf
	slot       uint8  // place in the parent
	n          uint8
	leaf       bool
	kids       [fan]uint32 // blocks of a leaf, else nodes
	visible    [fan]uint32 // visible characters under each
}

func (t *tree) alloc(leaf bool) uint32 {
	if n := len(t.free); n > 0 {
		i := t.free[n-1]
		t.free = t.free[:n-1]
		t.nodes[i] = node{leaf: leaf}
		return i
	}
	if len(t.nodes) == 0 {
		t.nodes = append(t.nodes, node{})
	}
	t.nodes = append(t.nodes, node{leaf: leaf})
	return uint32(len(t.nodes) - 1)
}

// slotOf returns the place of a child in its node.
func (x *node) slotOf(kid uint32) int {
	for i := range x.kids[:x.n] {
		if x.kids[i] == kid {
			return i
		}
	}
	panic("text: a block is not where its leaf is")
}

// add counts d more visible characters (fewer if negative) at a place of a node, and above it.
func (t *tree) add(at uint32, slot int, d int) {
	for {
		x := &t.nodes[at]
		x.visible[slot] = uint32(int(x.visible[slot]) + d)
		if x.parent == 0 {
			return
		}
		at, slot = x.parent, int(x.slot)
	}
}

// find returns the block that holds the visible character number pos, from 0, and how many are before the block. There
// must be such a character.
func (t *tree) find(pos int) (b uint32, before int) {
	at, rest := t.root, pos
	for {
		x := &t.nodes[at]
		i := 0
		for rest >= int(x.visible[i]) {
			rest -= int(x.visible[i])
			i++
		}
		if x.leaf {
			return x.kids[i], pos - rest
		}
		at = x.kids[i]
	}
}

// rank returns how many visible characters are before a place of a node.
func (t *tree) rank(at uint32, slot int) (n int) {
	for {
		x := &t.nodes[at]
		for _, v := range x.visible[:slot] {
			n += int(v)
		}
		if x.parent == 0 {
			return n
		}
		at, slot = x.parent, int(x.slot)
	}
}

// insert puts a child with its visible characters at a place of a node, splits the node if it is full, and calls moved
// for each leaf whose blocks came to another one. It returns the node where the child is.
func (t *tree) insert(at uint32, slot int, kid uint32, visible int, moved func(leaf uint32)) uint32 {
	if t.nodes[at].n == fan {
		right := t.split(at, moved)
		if half := int(t.nodes[at].n); slot > half {
			at, slot = right, slot-half
		}
	}
	x := &t.nodes[at]
	copy(x.kids[slot+1:x.n+1], x.kids[slot:x.n])
	copy(x.visible[slot+1:x.n+1], x.visible[slot:x.n])
	x.kids[slot], x.visible[slot] = kid, 0
	x.n++
	if !x.leaf {
		t.number(at, slot)
	}
	t.add(at, slot, visible)
	return at
}

// number tells the children of an inner node, from a place on, where they are.
func (t *tree) number(at uint32, from int) {
	x := &t.nodes[at]
	for i := from; i < int(x.n); i++ {
		kid := &t.nodes[x.kids[i]]
		kid.parent, kid.slot = at, uint8(i)
	}
}

// split moves the second half of a full node into a new one beside it.
func (t *tree) split(at uint32, moved func(leaf uint32)) uint32 {
	if t.nodes[at].parent == 0 {
		top := t.alloc(false)
		x := &t.nodes[top]
		x.kids[0], x.n = at, 1
		for _, v := range t.nodes[at].visible[:t.nodes[at].n] {
			x.visible[0] += v
		}
		t.nodes[at].parent, t.nodes[at].slot = top, 0
		t.root = top
	}
	right := t.alloc(t.nodes[at].leaf)
	x, y := &t.nodes[at], &t.nodes[right]
	half := fan / 2
	if x.leaf && x.next == 0 {
		half = fan - 2 // text grows at its end: leave full leaves behind
	}
	y.n = uint8(copy(y.kids[:], x.kids[half:x.n]))
	total := 0
	for i, v := range x.visible[half:x.n] {
		y.visible[i] = v
		total += int(v)
	}
	x.n = uint8(half)
	if x.leaf {
		y.prev, y.next = at, x.next
		if x.next != 0 {
			t.nodes[x.next].prev = right
		}
		x.next = right
		moved(right)
	} else {
		t.number(right, 0)
	}
	parent, slot := x.parent, int(x.slot)
	t.add(parent, slot, -total)
	t.insert(parent, slot+1, right, total, moved)
	return right
}

// remove takes out a child, which must have no visible characters, and then each node left empty.
func (t *tree) remove(at uint32, slot int) {
	for {
		x := &t.nodes[at]
		copy(x.kids[slot:], x.kids[slot+1:x.n])
		copy(x.visible[slot:], x.visible[slot+1:x.n])
		x.n--
		if !x.leaf {
			t.number(at, slot)
		}
		if x.n > 0 || x.parent == 0 {
			return
		}
		if x.leaf {
			if x.prev != 0 {
				t.nodes[x.prev].next = x.next
			}
			if x.next != 0 {
				t.nodes[x.next].prev = x.prev
			}
		}
		t.free = append(t.free, at)
		at, slot = x.parent, int(x.slot)
	}
}
