package text

// attach gives a new block its place: among its siblings, which are sorted by id, and in the order of the text. p is the
// block whose last character is the parent or, if left, whose first is.
func (t *Text) attach(x, p uint32, left bool) {
	head := &t.blocks[p].right
	if left {
		head = &t.blocks[p].left
	}
	var prev uint32
	next := *head
	for next != 0 && t.before(next, x) {
		prev, next = next, t.blocks[next].sibling
	}
	t.blocks[x].sibling = next
	if prev == 0 {
		*head = x
	} else {
		t.blocks[prev].sibling = x
	}
	switch {
	case next != 0:
		t.linkBefore(x, t.leftmost(next))
	case left:
		t.linkBefore(x, p)
	case prev != 0:
		t.linkAfter(x, t.rightmost(prev))
	default:
		t.linkAfter(x, p)
	}
}

// before reports whether block a comes before block b among siblings.
func (t *Text) before(a, b uint32) bool {
	x, y := &t.blocks[a], &t.blocks[b]
	if x.replica != y.replica {
		return t.replicas[x.replica].id < t.replicas[y.replica].id
	}
	return x.seq < y.seq
}

// leftmost returns the first block of a subtree.
func (t *Text) leftmost(at uint32) uint32 {
	for t.blocks[at].left != 0 {
		at = t.blocks[at].left
	}
	return at
}

// rightmost returns the last block of a subtree.
func (t *Text) rightmost(at uint32) uint32 {
	for t.blocks[at].right != 0 {
		at = t.blocks[at].right
		for t.blocks[at].sibling != 0 {
			at = t.blocks[at].sibling
		}
	}
	return at
}
