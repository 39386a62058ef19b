package text

import (
	"unicode/utf8"
)

// block is a run of characters of one replica with consecutive numbers, each the right child of the one before it and
// all visible or all deleted. Only its first character can have left children and only its last can have right children
// that are not in the block itself: an operation that needs it otherwise splits the block first.
type block struct {
	replica uint32 // handle
	seq, n  uint32 // characters seq..seq+n-1
	// Of a visible block, where its bytes are in Text.bytes and how many; of a deleted one, the replica and number of
	// the latest of the operations that deleted it.
	a, b uint32
	// The parent of the first character.
	parentReplica, parentSeq uint32
	left, right              uint32 // first left and right child, blocks; right not counting the block itself
	sibling                  uint32 // next child of the same parent on the same side, by id
	later                    uint32 // next block of the same replica, by number
	leaf                     uint32 // of the tree
	isLeft, dead             bool   // is a left child; is deleted
}

// charID names a character by the handle of its replica and its number.
type charID struct{ replica, seq uint32 }

func (b *block) first() charID { return charID{b.replica, b.seq} }
func (b *block) last() charID  { return charID{b.replica, b.seq + b.n - 1} }

func (b *block) visible() int {
	if b.dead {
		return 0
	}
	return int(b.n)
}

// stride is how many numbers of a replica share an entry of its table.
const stride = 64

// allocBlock returns a block of the arena.
func (t *Text) allocBlock(b block) uint32 {
	if n := len(t.freeBlocks); n > 0 {
		i := t.freeBlocks[n-1]
		t.freeBlocks = t.freeBlocks[:n-1]
		t.blocks[i] = b
		return i
	}
	t.blocks = append(t.blocks, b)
	return uint32(len(t.blocks) - 1)
}

// content returns the bytes of a visible block.
func (t *Text) content(b *block) []byte { return t.bytes[b.a : b.a+b.b] }

// byteAt returns how many bytes the first k characters of a visible block take.
func (t *Text) byteAt(b *block, k uint32) uint32 {
	if b.b == b.n { // one byte each
		return k
	}
	n := uint32(0)
	for p := t.content(b); k > 0; k-- {
		_, size := utf8.DecodeRune(p[n:])
		n += uint32(size)
	}
	return n
}

// lookup returns the block that holds a character and its place within, or 0.
func (t *Text) lookup(c charID) (at, k uint32) {
	if h := t.lastLookup; h != 0 {
		if b := &t.blocks[h]; b.replica == c.replica && c.seq >= b.seq && c.seq-b.seq < b.n {
			return h, c.seq - b.seq
		}
	}
	table := t.replicas[c.replica].table
	i := c.seq / stride
	if int(i) >= len(table) {
		return 0, 0
	}
	for at = table[i]; at != 0; at = t.blocks[at].later {
		b := &t.blocks[at]
		if b.seq > c.seq {
			return 0, 0
		}
		if c.seq-b.seq < b.n {
			t.lastLookup = at
			return at, c.seq - b.seq
		}
	}
	return 0, 0
}

// enter makes the table of a replica lead to block at for the numbers from..to, which are in the block: each entry of
// the table names a block at or before the first character with one of the entry's numbers.
func (t *Text) enter(at, from, to uint32) {
	r := &t.replicas[t.blocks[at].replica]
	for int(to/stride) >= len(r.table) {
		r.table = append(r.table, at)
	}
	for i := (from + stride - 1) / stride; i <= to/stride; i++ {
		r.table[i] = at
	}
}

// appendBlock adds a new block of the next characters of its replica.
func (t *Text) appendBlock(b block) uint32 {
	at := t.allocBlock(b)
	r := &t.replicas[b.replica]
	if r.newest != 0 {
		t.blocks[r.newest].later = at
	}
	if r.oldest == 0 {
		r.oldest = at
	}
	r.newest = at
	t.enter(at, b.seq, b.seq+b.n-1)
	return at
}

// splitAt makes the characters from the k-th on a block of their own, which it returns.
func (t *Text) splitAt(at, k uint32) uint32 {
	b := t.blocks[at]
	c := block{
		replica: b.replica, seq: b.seq + k, n: b.n - k, a: b.a, b: b.b, dead: b.dead,
		parentReplica: b.replica, parentSeq: b.seq + k - 1, right: b.right, later: b.later,
	}
	if !b.dead {
		size := t.byteAt(&b, k)
		c.a, c.b, b.b = b.a+size, b.b-size, size
	}
	added := t.allocBlock(c)
	b.n, b.right, b.later = k, added, added
	t.blocks[at] = b
	if r := &t.replicas[b.replica]; r.newest == at {
		r.newest = added
	}
	t.enter(added, c.seq, c.seq+c.n-1)
	leaf := &t.tree.nodes[b.leaf]
	slot := leaf.slotOf(at)
	t.tree.add(b.leaf, slot, -c.visible())
	t.link(added, b.leaf, slot+1)
	return added
}

// link puts a block at a place of a leaf.
func (t *Text) link(at, leaf uint32, slot int) {
	where := t.tree.insert(leaf, slot, at, t.blocks[at].visible(), t.moved)
	t.blocks[at].leaf = where
}

// moved tells the blocks of a leaf that they are there.
func (t *Text) moved(leaf uint32) {
	x := &t.tree.nodes[leaf]
	for _, b := range x.kids[:x.n] {
		t.blocks[b].leaf = leaf
	}
}

func (t *Text) linkAfter(at, prev uint32) {
	leaf := t.blocks[prev].leaf
	t.link(at, leaf, t.tree.nodes[leaf].slotOf(prev)+1)
}

func (t *Text) linkBefore(at, next uint32) {
	leaf := t.blocks[next].leaf
	t.link(at, leaf, t.tree.nodes[leaf].slotOf(next))
}

// following and preceding return the neighbours of a block in the order of the text, deleted ones included.
func (t *Text) following(at uint32) uint32 {
	leaf := &t.tree.nodes[t.blocks[at].leaf]
	if slot := leaf.slotOf(at); slot+1 < int(leaf.n) {
		return leaf.kids[slot+1]
	}
	if leaf.next == 0 {
		return 0
	}
	return t.tree.nodes[leaf.next].kids[0]
}

func (t *Text) preceding(at uint32) uint32 {
	leaf := &t.tree.nodes[t.blocks[at].leaf]
	if slot := leaf.slotOf(at); slot > 0 {
		return leaf.kids[slot-1]
	}
	if leaf.prev == 0 {
		return 0
	}
	prev := &t.tree.nodes[leaf.prev]
	return prev.kids[prev.n-1]
}

// rank returns how many visible characters are before a block.
func (t *Text) rank(at uint32) int {
	leaf := t.blocks[at].leaf
	return t.tree.rank(leaf, t.tree.nodes[leaf].slotOf(at))
}

// count adds to the number of visible characters of a block.
func (t *Text) count(at uint32, d int) {
	leaf := t.blocks[at].leaf
	t.tree.add(leaf, t.tree.nodes[leaf].slotOf(at), d)
}

// continues reports whether block other holds the characters right after those of block at, so that the two could be
// one but for being deleted.
func (t *Text) continues(at, other uint32) bool {
	b, c := &t.blocks[at], &t.blocks[other]
	return b.right == other && c.sibling == 0 && c.left == 0 && c.replica == b.replica && c.seq == b.seq+b.n
}

// absorb joins deleted block c, which continues deleted block b, to it.
func (t *Text) absorb(at, other uint32) {
	b, c := &t.blocks[at], &t.blocks[other]
	from, to := c.seq, c.seq+c.n-1
	b.n += c.n
	b.b = max(b.b, c.b)
	b.right, b.later = c.right, c.later
	if r := &t.replicas[b.replica]; r.newest == other {
		r.newest = at
	}
	leaf := c.leaf
	t.tree.remove(leaf, t.tree.nodes[leaf].slotOf(other))
	t.enter(at, from, to)
	t.freeBlock(other)
}

func (t *Text) freeBlock(at uint32) {
	t.blocks[at] = block{}
	t.freeBlocks = append(t.freeBlocks, at)
	if t.lastLookup == at {
		t.lastLookup = 0
	}
	if t.hint.block == at {
		t.hint.block = 0
	}
}
