package text

import (
	"fmt"
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
)

// Change is one change of the visible text, as an editor has to make it: at position Pos, Deleted characters go and
// Inserted comes. Changes come one after the other: each position is in the text that the ones before have left.
type Change struct {
	Pos      int
	Deleted  int
	Inserted string
	By       coterie.NodeID // the replica that made it
	Remote   bool           // it came by Merge
}

// Watch calls f with every change, after it is made and before the call that makes it returns. f must not change the
// text. cancel ends it.
func (t *Text) Watch(f func(Change)) (cancel func()) {
	w := &f
	t.watchers = append(t.watchers, w)
	return func() {
		t.watchers = slices.DeleteFunc(slices.Clone(t.watchers), func(x *func(Change)) bool { return x == w })
	}
}

func (t *Text) notify(c Change) {
	for _, f := range t.watchers {
		(*f)(c)
	}
}

// Anchor is a place in the text that moves with it: a cursor, or the end of a selection or comment. It stays beside its
// character also when that is deleted. It is a value that can be sent to other replicas. The zero Anchor is the
// beginning of the text.
type Anchor struct {
	Char   clock.Dot `json:"char"`   // the character; zero is the beginning of the text or, if Before, its end
	Before bool      `json:"before"` // the place is before the character, so that what is inserted at it comes before it too
}

// Anchor returns the place before the character at position pos, or with sticky true the one after the character before
// it: the two part when something is inserted at pos. Positions outside the text count as its ends.
func (t *Text) Anchor(pos int, sticky bool) Anchor {
	pos = min(max(pos, 0), t.length)
	if sticky {
		if pos == 0 {
			return Anchor{}
		}
		return Anchor{Char: t.CharAt(pos - 1)}
	}
	if pos == t.length {
		return Anchor{Before: true}
	}
	return Anchor{Char: t.CharAt(pos), Before: true}
}

// CharAt returns the name of the character at a position, for ever the same; zero if there is none.
func (t *Text) CharAt(pos int) clock.Dot {
	if pos < 0 || pos >= t.length {
		return clock.Dot{}
	}
	at, start := t.tree.find(pos)
	b := &t.blocks[at]
	return clock.Dot{Node: t.replicas[b.replica].id, Seq: uint64(b.seq) + uint64(pos-start)}
}

// Position returns where an Anchor is now. It returns ErrRange for a character that is not known here, or was collected.
func (t *Text) Position(a Anchor) (int, error) {
	if a.Char.IsZero() {
		if a.Before {
			return t.length, nil
		}
		return 0, nil
	}
	h := t.known(a.Char.Node)
	if h == 0 || a.Char.Seq > maxSeq {
		return 0, fmt.Errorf("%w: unknown character %v", ErrRange, a.Char)
	}
	at, k := t.lookup(charID{h, uint32(a.Char.Seq)})
	if at == 0 {
		return 0, fmt.Errorf("%w: unknown character %v", ErrRange, a.Char)
	}
	pos := t.rank(at)
	if !t.blocks[at].dead {
		pos += int(k)
		if !a.Before {
			pos++
		}
	}
	return pos, nil
}

// Stable makes use of what is known about all replicas, and returns how many deleted characters it dropped.
//
// frontier is what every replica has, and this one has all that any replica made before it had that: a crdt.Stability
// tells it. From now on, insertions here take no character as their parent that was deleted by then. settled is the
// frontier that every replica has given to Stable, at least: characters deleted by then have got their last children,
// and those without any are dropped. Those with children stay, for the children's place depends on them.
//
// Both must be covered by Version; else Stable does nothing.
func (t *Text) Stable(frontier, settled clock.Vector) (n int) {
	if t.blocks == nil || !t.Version().Covers(frontier.Merged(settled)) {
		return 0
	}
	stable := make([]uint32, len(t.replicas))
	for h := 1; h < len(t.replicas); h++ {
		r := &t.replicas[h]
		r.stable = max(r.stable, uint32(frontier.Get(r.id)))
		stable[h] = uint32(settled.Get(r.id))
	}
	// Children before parents, so that whole subtrees go.
	gone := make(map[uint32]bool)
	for more := true; more; {
		more = false
		for h := 1; h < len(t.replicas); h++ {
			for at := t.replicas[h].oldest; at != 0; at = t.blocks[at].later {
				b := &t.blocks[at]
				if b.dead && !gone[at] && b.left == 0 && b.right == 0 && b.b <= stable[b.a] && b.last().seq <= stable[h] {
					n += int(b.n)
					t.unlink(at)
					gone[at] = true
					more = true
				}
			}
		}
	}
	if n > 0 {
		t.sweep(gone)
		t.collected.Merge(settled)
	}
	return n
}

// unlink takes a block out of the order of the text and from its parent.
func (t *Text) unlink(at uint32) {
	b := &t.blocks[at]
	p, _ := t.lookup(charID{b.parentReplica, b.parentSeq})
	link := &t.blocks[p].right
	if b.isLeft {
		link = &t.blocks[p].left
	}
	for *link != at {
		link = &t.blocks[*link].sibling
	}
	*link = b.sibling
	t.tree.remove(b.leaf, t.tree.nodes[b.leaf].slotOf(at))
}

// sweep takes the blocks that are gone out of the lists of their replicas, and makes the tables anew.
func (t *Text) sweep(gone map[uint32]bool) {
	for h := 1; h < len(t.replicas); h++ {
		r := &t.replicas[h]
		at := r.oldest
		r.oldest, r.newest, r.table = 0, 0, nil
		for at != 0 {
			later := t.blocks[at].later
			if gone[at] {
				t.freeBlock(at)
			} else {
				t.blocks[at].later = 0
				if r.newest == 0 {
					r.oldest = at
				} else {
					t.blocks[r.newest].later = at
				}
				r.newest = at
				t.enter(at, t.blocks[at].seq, t.blocks[at].last().seq)
			}
			at = later
		}
	}
	t.hint.block, t.lastLookup = 0, 0
}
