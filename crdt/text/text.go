package text

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"unicode/utf8"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
)

// Errors of a Text. They come wrapped.
var (
	// ErrRange is returned for a position outside the text, or text that is not UTF-8; nothing was done.
	ErrRange = errors.New("text: out of range")
	// ErrTooLarge is returned at the limits: 2^32-1 operations of one replica, where each inserted character is one,
	// 4 GiB of text, or MaxPending deltas waiting; nothing was done.
	ErrTooLarge = errors.New("text: too large")
	// ErrBehind is returned when one side knows less than what the other's Stable took for known to all: it was taken
	// for dead. Nothing was done. It must start anew from the full state, under a new id.
	ErrBehind = errors.New("text: behind what was collected")
)

// MaxPending is how many deltas a Text keeps that came before what they build on.
const MaxPending = 1 << 16

// Text is a sequence of characters (Unicode code points) that many replicas edit at once: the Fugue tree of Weidner and
// Kleppmann, "The Art of the Fugue: Minimizing Interleaving in Collaborative Text Editing" (2023), in runs of
// characters. Each character is a left or right child of another; the text is the tree in order. Runs typed
// concurrently at one place, forwards or backwards, are never interleaved.
//
// An insertion becomes the right child of the character on its left or, if that has right children, the left child of
// the next one (§3). Deleted characters count for this as others do until Stable tells that all replicas know of the
// deletion: from then on they get no new children here, and when that is so everywhere, they are dropped.
//
// Positions count code points from 0. The zero value is an empty text, ready to use. A Text must not be copied by
// assignment after its first use. Reading is safe from many goroutines while nobody changes it, but Anchor, Position
// and Since are for one goroutine as changes are.
type Text struct {
	replicas   []replica // replicas[0] has the root only
	blocks     []block   // blocks[0] is none, blocks[root] the beginning of the text
	freeBlocks []uint32
	tree       tree
	bytes      []byte // of visible blocks, and garbage
	live       int    // bytes that are not garbage
	length     int    // visible characters
	hint       hint
	lastLookup uint32 // block, or 0
	pending    []Delta
	collected  clock.Vector // what Stable took for known to all
	watchers   []*func(Change)
}

// replica is what is known of one author.
type replica struct {
	id             coterie.NodeID
	upto           uint32   // operations 1..upto are applied
	stable         uint32   // operations 1..stable are known to all
	table          []uint32 // see Text.enter
	oldest, newest uint32   // blocks by number
}

// hint is the block of the latest local change and how many visible characters are before it: most changes are near
// the one before.
type hint struct {
	block uint32
	start int
}

const root = 1

const maxSeq = math.MaxUint32 - 1

func (t *Text) init() {
	if t.blocks != nil {
		return
	}
	t.blocks = make([]block, 1)
	t.replicas = make([]replica, 1)
	t.appendBlock(block{n: 1, dead: true})
	t.tree.root = t.tree.alloc(true)
	t.blocks[root].leaf = t.tree.insert(t.tree.root, 0, root, 0, t.moved)
}

// handle returns the small number of a replica, which it gets at its first use.
func (t *Text) handle(id coterie.NodeID) uint32 {
	if h := t.known(id); h != 0 {
		return h
	}
	t.replicas = append(t.replicas, replica{id: id})
	return uint32(len(t.replicas) - 1)
}

// known returns the handle of a replica, or 0. A scan: comparing an id with itself costs nothing, and the replicas of a
// text are few.
func (t *Text) known(id coterie.NodeID) uint32 {
	for h := 1; h < len(t.replicas); h++ {
		if t.replicas[h].id == id {
			return uint32(h)
		}
	}
	return 0
}

// Len returns the number of characters.
func (t *Text) Len() int { return t.length }

// String returns the text.
func (t *Text) String() string {
	b := make([]byte, 0, t.live)
	for p := range t.chunks() {
		b = append(b, p...)
	}
	return string(b)
}

// All yields the characters with their positions. The text must not change meanwhile.
func (t *Text) All() iter.Seq2[int, rune] {
	return func(yield func(int, rune) bool) {
		pos := 0
		for p := range t.chunks() {
			for len(p) > 0 {
				r, size := utf8.DecodeRune(p)
				if !yield(pos, r) {
					return
				}
				p = p[size:]
				pos++
			}
		}
	}
}

// chunks yields the bytes of the text, in pieces.
func (t *Text) chunks() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if t.blocks == nil {
			return
		}
		leaf := t.blocks[root].leaf
		for leaf != 0 {
			x := &t.tree.nodes[leaf]
			for _, at := range x.kids[:x.n] {
				if b := &t.blocks[at]; !b.dead && !yield(t.content(b)) {
					return
				}
			}
			leaf = x.next
		}
	}
}

// Slice returns n characters from position pos, fewer at the end of the text.
func (t *Text) Slice(pos, n int) string {
	if pos < 0 || pos >= t.length || n <= 0 {
		return ""
	}
	var out []byte
	at, start := t.tree.find(pos)
	for skip := uint32(pos - start); at != 0 && n > 0; at, skip = t.following(at), 0 {
		b := &t.blocks[at]
		if b.dead {
			continue
		}
		take := min(b.n-skip, uint32(min(n, math.MaxInt32)))
		out = append(out, t.content(b)[t.byteAt(b, skip):t.byteAt(b, skip+take)]...)
		n -= int(take)
	}
	return string(out)
}

// Insert inserts s before position pos at replica id and returns the delta. Only the replica itself may use its id. It
// takes O(log n), less near the latest change, and seldom allocates. Errors: ErrRange, ErrTooLarge.
func (t *Text) Insert(id coterie.NodeID, pos int, s string) (Delta, error) {
	n := len(s)
	if n > 1 || (n == 1 && s[0] >= utf8.RuneSelf) {
		if !utf8.ValidString(s) {
			return Delta{}, fmt.Errorf("%w: text is not UTF-8", ErrRange)
		}
		n = utf8.RuneCountInString(s)
	}
	if pos < 0 || pos > t.length {
		return Delta{}, fmt.Errorf("%w: insertion at %d of %d", ErrRange, pos, t.length)
	}
	if n == 0 {
		return Delta{}, nil
	}
	t.init()
	h := t.handle(id)
	if err := t.room(h, n, len(s)); err != nil {
		return Delta{}, err
	}
	at, k, start := t.charBefore(pos)
	seq := t.replicas[h].upto + 1
	var o op
	if b := &t.blocks[at]; b.replica == h && k == b.n && b.seq+b.n == seq && b.right == 0 && t.extensible(b) {
		o = op{id: id, seq: seq, n: uint32(n), text: s, parentID: id, parentSeq: seq - 1}
		t.extend(at, s, uint32(n))
		t.hint = hint{at, start}
	} else {
		p, left := t.parentFor(at, k)
		pb := &t.blocks[p]
		o = op{id: id, seq: seq, n: uint32(n), text: s, left: left}
		parent := pb.last()
		if left {
			parent = pb.first()
		}
		o.parentID, o.parentSeq = t.replicas[parent.replica].id, parent.seq
		x := t.newBlock(h, seq, uint32(n), s, parent, left)
		t.attach(x, p, left)
		t.hint = hint{x, pos}
	}
	t.replicas[h].upto += uint32(n)
	t.length += n
	if len(t.watchers) > 0 {
		t.notify(Change{Pos: pos, Inserted: s, By: id})
	}
	return Delta{op: o}, nil
}

// room reports whether a replica can make n more operations and the text hold so many more bytes.
func (t *Text) room(h uint32, n, size int) error {
	if uint64(t.replicas[h].upto)+uint64(n) > maxSeq || uint64(len(t.bytes))+uint64(size) > math.MaxUint32 {
		return fmt.Errorf("%w: %d operations, %d bytes", ErrTooLarge, t.replicas[h].upto, len(t.bytes))
	}
	return nil
}

// charBefore returns the block that holds the visible character before a position, how many characters of the block
// are up to it, and how many visible ones are before the block. Before the first is the root.
func (t *Text) charBefore(pos int) (at, k uint32, start int) {
	if pos == 0 {
		return root, 1, 0
	}
	if h := t.hint; h.block != 0 && pos > h.start && pos-h.start <= int(t.blocks[h.block].n) {
		return h.block, uint32(pos - h.start), h.start
	}
	at, start = t.tree.find(pos - 1)
	return at, uint32(pos - start), start
}

// extensible reports whether characters can be added to a block in place: what follows its bytes is free.
func (t *Text) extensible(b *block) bool { return !b.dead && int(b.a+b.b) == len(t.bytes) }

func (t *Text) extend(at uint32, s string, n uint32) {
	b := &t.blocks[at]
	t.bytes = append(t.bytes, s...)
	t.live += len(s)
	from := b.seq + b.n
	b.n += n
	b.b += uint32(len(s))
	t.enter(at, from, from+n-1)
	t.count(at, int(n))
}

func (t *Text) newBlock(h, seq, n uint32, s string, parent charID, left bool) uint32 {
	b := block{
		replica: h, seq: seq, n: n, a: uint32(len(t.bytes)), b: uint32(len(s)),
		parentReplica: parent.replica, parentSeq: parent.seq, isLeft: left,
	}
	t.bytes = append(t.bytes, s...)
	t.live += len(s)
	return t.appendBlock(b)
}

// parentFor chooses the parent of an insertion after the k-th character of a block: a block whose last character it is,
// or, if left, whose first. It splits the block if that is within.
func (t *Text) parentFor(at, k uint32) (p uint32, left bool) {
	if k < t.blocks[at].n {
		return t.splitAt(at, k), true
	}
	if t.blocks[at].right == 0 {
		return at, false
	}
	next := t.following(at)
	if t.mayBear(next) {
		return next, true // the first of the right subtree
	}
	for next = t.following(next); next != 0 && !t.mayBear(next); {
		next = t.following(next)
	}
	if next != 0 && t.descends(next, at) {
		return next, true
	}
	return at, false
}

// mayBear reports whether a block may become a parent: not if Stable has made it known that it is deleted everywhere.
func (t *Text) mayBear(at uint32) bool {
	b := &t.blocks[at]
	return !b.dead || b.b > t.replicas[b.a].stable
}

// descends reports whether block r is in the right subtree of block l, when none between them may become a parent. The
// way up from r then ends at l, or at a block before l that may.
func (t *Text) descends(r, l uint32) bool {
	for r != root {
		b := &t.blocks[r]
		p, _ := t.lookup(charID{b.parentReplica, b.parentSeq})
		if !b.isLeft && (p == l || (p != root && t.mayBear(p))) {
			return p == l
		}
		r = p
	}
	return l == root
}

// Delete deletes n characters from position pos on, at replica id, and returns the delta. Only the replica itself may
// use its id. Errors: ErrRange, ErrTooLarge.
func (t *Text) Delete(id coterie.NodeID, pos, n int) (Delta, error) {
	if pos < 0 || n < 0 || pos > t.length || n > t.length-pos {
		return Delta{}, fmt.Errorf("%w: deletion of %d at %d of %d", ErrRange, n, pos, t.length)
	}
	if n == 0 {
		return Delta{}, nil
	}
	h := t.handle(id)
	if err := t.room(h, 1, 0); err != nil {
		return Delta{}, err
	}
	t.replicas[h].upto++
	by := charID{h, t.replicas[h].upto}
	o := op{id: id, seq: by.seq}
	for rest := n; rest > 0; {
		at, k, start := t.charBefore(pos + 1)
		k--
		b := &t.blocks[at]
		m := min(b.n-k, uint32(min(rest, math.MaxUint32)))
		o.addSpan(span{t.replicas[b.replica].id, b.seq + k, m})
		t.hint = hint{at, start}
		if k == 0 {
			t.hint = hint{}
		}
		t.kill(at, k, m, by)
		rest -= int(m)
	}
	if len(t.watchers) > 0 {
		t.notify(Change{Pos: pos, Deleted: n, By: id})
	}
	return Delta{op: o}, nil
}

// kill deletes the characters k..k+m-1 of a visible block. Deleted characters join deleted neighbours of their run
// where they can, which is most often the case as one deletes character by character.
func (t *Text) kill(at, k, m uint32, by charID) {
	b := &t.blocks[at]
	t.length -= int(m)
	switch {
	case k == 0 && m == b.n:
		t.bury(at, by)
	case k == 0:
		prev := t.preceding(at)
		if t.tomb(prev, by) && t.continues(prev, at) {
			t.shiftFront(prev, at, m, by)
			return
		}
		t.splitAt(at, m)
		t.bury(at, by)
	case k+m == b.n:
		if next := b.right; t.tomb(next, by) && t.continues(at, next) {
			t.shiftBack(at, next, m, by)
			return
		}
		t.bury(t.splitAt(at, k), by)
	default:
		c := t.splitAt(at, k)
		t.splitAt(c, m)
		t.bury(c, by)
	}
}

// tomb reports whether a block is one that characters deleted by an operation can join.
func (t *Text) tomb(at uint32, by charID) bool {
	return at > root && t.blocks[at].dead && t.blocks[at].a == by.replica
}

// shiftFront moves the first m characters of a block to the deleted one that it continues.
func (t *Text) shiftFront(tomb, at, m uint32, by charID) {
	b, d := &t.blocks[at], &t.blocks[tomb]
	size := t.byteAt(b, m)
	from := b.seq
	d.n += m
	d.b = max(d.b, by.seq)
	b.seq, b.n, b.a, b.b = b.seq+m, b.n-m, b.a+size, b.b-size
	b.parentSeq = b.seq - 1
	t.live -= int(size)
	t.enter(tomb, from, from+m-1)
	t.count(at, -int(m))
}

// shiftBack moves the last m characters of a block to the deleted one that continues it.
func (t *Text) shiftBack(at, tomb, m uint32, by charID) {
	b, d := &t.blocks[at], &t.blocks[tomb]
	keep := t.byteAt(b, b.n-m)
	t.release(b, keep)
	b.n, b.b = b.n-m, keep
	d.seq, d.n = d.seq-m, d.n+m
	d.b = max(d.b, by.seq)
	d.parentSeq = d.seq - 1
	t.enter(tomb, d.seq, d.seq+m-1)
	t.count(at, -int(m))
}

// release makes garbage of a block's bytes but for the first keep.
func (t *Text) release(b *block, keep uint32) {
	t.live -= int(b.b - keep)
	if int(b.a+b.b) == len(t.bytes) {
		t.bytes = t.bytes[:b.a+keep]
	}
}

// bury deletes a whole block.
func (t *Text) bury(at uint32, by charID) {
	b := &t.blocks[at]
	t.count(at, -int(b.n))
	t.release(b, 0)
	b.dead, b.a, b.b = true, by.replica, by.seq
	if t.hint.block == at {
		t.hint.block = 0
	}
	if prev := t.preceding(at); t.tomb(prev, by) && t.continues(prev, at) {
		t.absorb(prev, at)
		at = prev
	}
	if next := t.blocks[at].right; t.tomb(next, by) && t.continues(at, next) {
		t.absorb(at, next)
	}
	if len(t.bytes) > 2*t.live+1<<16 {
		t.compact()
	}
}

// compact drops the garbage of bytes.
func (t *Text) compact() {
	b := make([]byte, 0, t.live+t.live/8)
	for at := range t.blocks {
		if x := &t.blocks[at]; x.n > 0 && !x.dead {
			p := t.content(x)
			x.a = uint32(len(b))
			b = append(b, p...)
		}
	}
	t.bytes = b
}
