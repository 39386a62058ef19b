package text

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
)

// Delta is changes of a Text: those of one mutation, several joined, or all that another replica lacks (Since). It is a
// value that nobody changes and may be kept, sent and merged again. The zero Delta has no changes.
//
//nolint:recvcheck // what reads has a value receiver, to work on results and map elements, as with clock.Vector
type Delta struct {
	op   op           // if op.seq > 0
	more []op         // further ones
	base clock.Vector // of a Delta of Since: what the receiver must have,
	upto clock.Vector // and what it has then; empty for others
	gone clock.Vector // of a Delta of Since: what the sender's Stable has collected
}

// op is one operation of a replica: the insertion of a run of characters, each the right child of the one before it, or
// a deletion. Within a Delta of Since, inserted characters may be deleted ones, without their text.
type op struct {
	id        coterie.NodeID
	seq       uint32 // number of the first character inserted, or of the deletion
	n         uint32 // characters inserted; 0 for a deletion
	text      string
	parentID  coterie.NodeID // of the first character; empty with parentSeq 0 for the beginning of the text
	parentSeq uint32
	left      bool
	dead      bool // inserted characters are deleted, by:
	byID      coterie.NodeID
	bySeq     uint32
	span      span   // deleted characters
	spans     []span // and further ones
}

// span is n characters of one replica.
type span struct {
	id     coterie.NodeID
	seq, n uint32
}

func (o *op) addSpan(s span) {
	if o.span.n == 0 {
		o.span = s
		return
	}
	o.spans = append(o.spans, s)
}

func (o *op) allSpans(yield func(span) bool) {
	if o.span.n > 0 && yield(o.span) {
		for _, s := range o.spans {
			if !yield(s) {
				return
			}
		}
	}
}

// last returns the number of the last operation that o comprises.
func (o *op) last() uint32 { return o.seq + max(o.n, 1) - 1 }

func (d *Delta) ops(yield func(*op) bool) {
	if d.op.seq > 0 && !yield(&d.op) {
		return
	}
	for i := range d.more {
		if !yield(&d.more[i]) {
			return
		}
	}
}

// isState reports whether the Delta is of Since, to be applied as a whole.
func (d *Delta) isState() bool { return d.upto.Len() > 0 }

// IsEmpty reports whether the Delta has no changes.
func (d Delta) IsEmpty() bool { return d.op.seq == 0 && len(d.more) == 0 && !d.isState() }

// Join returns one Delta with the changes of d, then those of o, for sending them together. Deltas of Since are not
// joined: it panics for one.
func (d Delta) Join(o Delta) Delta {
	if d.isState() || o.isState() {
		panic("text: Join of a Delta of Since")
	}
	var j Delta
	for _, x := range []*Delta{&d, &o} {
		for p := range x.ops {
			if j.op.seq == 0 {
				j.op = *p
			} else {
				j.more = append(j.more, *p)
			}
		}
	}
	return j
}

// Version returns the operations that the text comprises: so many of each replica.
func (t *Text) Version() (v clock.Vector) {
	for _, r := range t.replicas[min(1, len(t.replicas)):] {
		if r.upto > 0 {
			v.Set(r.id, uint64(r.upto))
		}
	}
	return v
}

// Merge applies what d has and t has not. A change whose predecessors are missing waits for them; Pending tells. Errors:
// ErrBehind, ErrTooLarge, and one for a Delta that no Text can have made; t is unchanged by the change that the error is
// of.
func (t *Text) Merge(d Delta) error {
	t.init()
	applied, err := t.take(d)
	for applied && len(t.pending) > 0 {
		applied = false
		waiting := t.pending
		t.pending = nil
		for _, p := range waiting {
			did, perr := t.take(p)
			applied = applied || did
			if err == nil {
				err = perr
			}
		}
	}
	return err
}

// Pending returns how many deltas wait for what they build on.
func (t *Text) Pending() int { return len(t.pending) }

// take applies a delta, or what of it can be, and keeps the rest.
func (t *Text) take(d Delta) (applied bool, err error) {
	if d.isState() {
		return t.takeState(d)
	}
	for o := range d.ops {
		did, err := t.takeOp(*o)
		applied = applied || did
		if err != nil {
			return applied, err
		}
	}
	return applied, nil
}

func (t *Text) keep(d Delta) error {
	if len(t.pending) >= MaxPending {
		return fmt.Errorf("%w: %d deltas wait for others", ErrTooLarge, len(t.pending))
	}
	t.pending = append(t.pending, d)
	return nil
}

// has reports whether all characters of a span are known here.
func (t *Text) has(id coterie.NodeID, last uint32) bool {
	h := t.known(id)
	return (h != 0 && t.replicas[h].upto >= last) || last == 0
}

// takeOp applies one operation in the order of its replica's.
func (t *Text) takeOp(o op) (applied bool, err error) {
	upto := uint32(0)
	if h := t.known(o.id); h != 0 {
		upto = t.replicas[h].upto
	}
	if o.last() <= upto {
		return false, nil
	}
	ready := o.seq <= upto+1
	if o.n > 0 {
		o = o.trimmed(upto)
		ready = ready && t.has(o.parentID, o.parentSeq)
	}
	for s := range o.allSpans {
		ready = ready && t.has(s.id, s.seq+s.n-1)
	}
	if !ready {
		return false, t.keep(Delta{op: o})
	}
	if o.n > 0 {
		if t.sparse(o.id, o.seq) > maxSparse {
			return false, fmt.Errorf("%w: a gap before %s:%d", ErrTooLarge, o.id, o.seq)
		}
		if err := t.checkParent(&o); err != nil {
			return false, err
		}
	}
	h := t.handle(o.id)
	if err := t.room(h, int(max(o.n, 1)), len(o.text)); err != nil {
		return false, err
	}
	if o.n > 0 {
		t.integrate(h, &o)
	} else {
		for s := range o.allSpans {
			t.killSpan(s, charID{h, o.seq}, o.id)
		}
	}
	t.replicas[h].upto = o.last()
	return true, nil
}

// trimmed returns an insertion without the characters up to number upto.
func (o *op) trimmed(upto uint32) op {
	c := *o
	if o.seq > upto {
		return c
	}
	k := upto + 1 - o.seq
	if !o.dead {
		at := 0
		for range k {
			_, size := utf8.DecodeRuneInString(o.text[at:])
			at += size
		}
		c.text = o.text[at:]
	}
	c.seq, c.n = o.seq+k, o.n-k
	c.parentID, c.parentSeq, c.left = o.id, c.seq-1, false
	return c
}

// checkParent reports whether the parent, which must be among the known operations, is a character.
func (t *Text) checkParent(o *op) error {
	if o.parentSeq == 0 {
		if o.left {
			return fmt.Errorf("text: %s:%d is before the beginning", o.id, o.seq)
		}
		return nil
	}
	if at, _ := t.lookup(charID{t.known(o.parentID), o.parentSeq}); at == 0 {
		if t.collected.Get(o.parentID) >= uint64(o.parentSeq) {
			return fmt.Errorf("%w: parent %s:%d of %s:%d", ErrBehind, o.parentID, o.parentSeq, o.id, o.seq)
		}
		return fmt.Errorf("text: parent %s:%d of %s:%d is no character", o.parentID, o.parentSeq, o.id, o.seq)
	}
	return nil
}

// integrate adds the characters of an insertion whose parent is there.
func (t *Text) integrate(h uint32, o *op) {
	parent := charID{t.known(o.parentID), o.parentSeq}
	p, k := t.lookup(parent)
	x := p
	if b := &t.blocks[p]; !o.left && !o.dead && b.replica == h && k+1 == b.n && b.seq+b.n == o.seq && b.right == 0 &&
		t.extensible(b) {
		t.extend(p, o.text, o.n)
	} else {
		switch {
		case o.left && k > 0:
			p = t.splitAt(p, k)
		case !o.left && k+1 < t.blocks[p].n:
			t.splitAt(p, k+1)
		}
		if o.dead {
			x = t.appendBlock(block{
				replica: h, seq: o.seq, n: o.n, a: t.handle(o.byID), b: o.bySeq, dead: true,
				parentReplica: parent.replica, parentSeq: parent.seq, isLeft: o.left,
			})
		} else {
			x = t.newBlock(h, o.seq, o.n, o.text, parent, o.left)
		}
		t.attach(x, p, o.left)
	}
	t.lastLookup = x
	t.hint.block = 0
	if o.dead {
		return
	}
	t.length += int(o.n)
	if len(t.watchers) > 0 {
		b := &t.blocks[x]
		t.notify(Change{Pos: t.rank(x) + int(o.seq-b.seq), Inserted: o.text, By: o.id, Remote: true})
	}
}

// killSpan deletes the characters of a span that are visible.
func (t *Text) killSpan(s span, by charID, byID coterie.NodeID) {
	h := t.known(s.id)
	t.hint.block = 0
	for s.n > 0 {
		at, k := t.lookup(charID{h, s.seq})
		if at == 0 { // collected, or no character
			skip := min(t.gap(h, s.seq), s.n)
			s.seq, s.n = s.seq+skip, s.n-skip
			continue
		}
		b := &t.blocks[at]
		m := min(b.n-k, s.n)
		if !b.dead {
			pos := 0
			if len(t.watchers) > 0 {
				pos = t.rank(at) + int(k)
			}
			t.kill(at, k, m, by)
			if len(t.watchers) > 0 {
				t.notify(Change{Pos: pos, Deleted: int(m), By: byID, Remote: true})
			}
		}
		s.seq, s.n = s.seq+m, s.n-m
	}
}

// gap returns how far it is from a number without a character to the next one that has one.
func (t *Text) gap(h, seq uint32) uint32 {
	r := &t.replicas[h]
	if int(seq/stride) < len(r.table) {
		for at := r.table[seq/stride]; at != 0; at = t.blocks[at].later {
			if b := &t.blocks[at]; b.seq > seq {
				return b.seq - seq
			}
		}
	}
	return maxSeq
}

// sparse returns how many numbers lie between the newest character of a replica and one to come. Tables take memory for
// them, so that their number is limited.
func (t *Text) sparse(id coterie.NodeID, seq uint32) uint32 {
	if h := t.known(id); h != 0 && t.replicas[h].newest != 0 {
		return seq - min(seq, t.blocks[t.replicas[h].newest].last().seq)
	}
	return seq
}

const maxSparse = 1 << 26

// takeState applies a delta of Since.
func (t *Text) takeState(d Delta) (applied bool, err error) {
	version := t.Version()
	switch {
	case version.Covers(d.upto) && len(d.more) == 0:
		return false, nil
	case !version.Covers(d.base):
		return false, t.keep(d)
	}
	if err := t.checkState(&d); err != nil {
		return false, err
	}
	for o := range d.ops {
		h := t.handle(o.id)
		if o.n == 0 {
			for s := range o.allSpans {
				t.killSpan(s, charID{h, o.seq}, o.id)
			}
			continue
		}
		known := uint32(version.Get(o.id))
		if o.dead && o.seq <= known {
			t.killSpan(span{o.id, o.seq, min(o.last(), known) - o.seq + 1}, charID{t.handle(o.byID), o.bySeq}, o.byID)
		}
		if o.last() > known {
			o := o.trimmed(known)
			t.integrate(h, &o)
		}
	}
	for id, n := range d.upto.All() {
		r := &t.replicas[t.handle(id)]
		r.upto = max(r.upto, uint32(n))
	}
	t.collected.Merge(d.gone)
	return !version.Covers(d.upto), nil
}

// checkState checks that a state can be applied as a whole: parents come before their children, numbers of one replica
// in order, nothing beyond what the state says it comes to.
func (t *Text) checkState(d *Delta) error {
	inserted := make(map[coterie.NodeID][]span)
	size, gaps := len(t.bytes), uint64(0)
	for id, n := range d.upto.All() {
		if n > maxSeq {
			return fmt.Errorf("%w: operation %d of %s", ErrTooLarge, n, id)
		}
	}
	within := func(id coterie.NodeID, last uint32) bool { return uint64(last) <= d.upto.Get(id) }
	for o := range d.ops {
		if !within(o.id, o.last()) || (o.dead && !within(o.byID, o.bySeq)) {
			return fmt.Errorf("text: operation %s:%d is beyond its state", o.id, o.seq)
		}
		for s := range o.allSpans {
			if !within(s.id, s.seq+s.n-1) {
				return fmt.Errorf("text: deleted character %s:%d is beyond its state", s.id, s.seq)
			}
		}
		if o.n == 0 {
			continue
		}
		size += len(o.text)
		if uint64(size) > 1<<32-1 {
			return fmt.Errorf("%w: %d bytes", ErrTooLarge, size)
		}
		of := inserted[o.id]
		if n := len(of); n == 0 {
			gaps += uint64(t.sparse(o.id, o.seq))
		} else if end := of[n-1].seq + of[n-1].n; end <= o.seq {
			gaps += uint64(o.seq - end)
		} else {
			return fmt.Errorf("text: %s:%d out of order", o.id, o.seq)
		}
		if gaps > maxSparse {
			return fmt.Errorf("%w: %d numbers without a character", ErrTooLarge, gaps)
		}
		if !holds(inserted[o.parentID], o.parentSeq) {
			if err := t.checkParent(o); err != nil {
				return err
			}
		}
		inserted[o.id] = append(of, span{o.id, o.seq, o.n})
	}
	return nil
}

// holds reports whether sorted spans have a number.
func holds(spans []span, seq uint32) bool {
	_, found := slices.BinarySearchFunc(spans, seq, func(s span, seq uint32) int {
		switch {
		case s.seq+s.n <= seq:
			return -1
		case s.seq > seq:
			return 1
		}
		return 0
	})
	return found
}

// Since returns what a replica lacks that has version v: with the zero Vector, everything. It returns ErrBehind if v
// does not cover what Stable has collected: what was deleted there cannot be told any more.
func (t *Text) Since(v clock.Vector) (Delta, error) {
	if v.Len() > 0 && !v.Covers(t.collected) {
		return Delta{}, fmt.Errorf("%w: %v lacks part of %v", ErrBehind, v, t.collected)
	}
	if v.Covers(t.Version()) {
		return Delta{}, nil
	}
	d := Delta{base: v.Clone(), upto: t.Version(), gone: t.collected.Clone()}
	known := make([]uint32, len(t.replicas))
	for h := range t.replicas {
		known[h] = uint32(min(v.Get(t.replicas[h].id), maxSeq))
	}
	w := writer{t: t, known: known, d: &d, next: make([]uint32, len(t.replicas)), waits: make(map[uint32][]wait)}
	w.insertions()
	w.deletions()
	return d, nil
}

// Clone returns a copy that shares nothing with t, without its watchers and what waits.
func (t *Text) Clone() *Text {
	c := &Text{
		replicas: slices.Clone(t.replicas), blocks: slices.Clone(t.blocks), freeBlocks: slices.Clone(t.freeBlocks),
		bytes: slices.Clone(t.bytes), live: t.live, length: t.length, collected: t.collected.Clone(),
		tree: tree{nodes: slices.Clone(t.tree.nodes), root: t.tree.root, free: slices.Clone(t.tree.free)},
	}
	for h := range c.replicas {
		c.replicas[h].table = slices.Clone(c.replicas[h].table)
	}
	return c
}

// writer lists the insertions of a text so that parents come before their children and each replica's in order.
type writer struct {
	t     *Text
	known []uint32 // by handle: characters up to it are the receiver's
	d     *Delta
	next  []uint32 // by handle: next block to write, 0 at the end
	waits map[uint32][]wait
	done  []uint32 // by handle: characters up to it are written
}

// wait is a replica whose next block has a parent that is not written yet.
type wait struct{ seq, replica uint32 }

func (w *writer) insertions() {
	w.done = slices.Clone(w.known)
	var ready []uint32
	for h := 1; h < len(w.t.replicas); h++ {
		w.next[h] = w.t.replicas[h].oldest
		ready = append(ready, uint32(h))
	}
	for len(ready) > 0 {
		h := ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		before := w.done[h]
		w.run(h)
		if w.done[h] == before {
			continue
		}
		kept := w.waits[h][:0]
		for _, x := range w.waits[h] {
			if x.seq <= w.done[h] {
				ready = append(ready, x.replica)
			} else {
				kept = append(kept, x)
			}
		}
		w.waits[h] = kept
	}
}

// run writes the blocks of a replica until one must wait.
func (w *writer) run(h uint32) {
	for ; w.next[h] != 0; w.next[h] = w.t.blocks[w.next[h]].later {
		b := &w.t.blocks[w.next[h]]
		if last := b.last().seq; last > w.known[h] {
			if b.parentSeq > w.done[b.parentReplica] && b.parentReplica != 0 {
				w.waits[b.parentReplica] = append(w.waits[b.parentReplica], wait{b.parentSeq, h})
				return
			}
			o := w.t.insertion(b)
			w.add(o.trimmed(w.known[h]))
			w.done[h] = last
		}
	}
	w.done[h] = maxSeq
}

func (w *writer) add(o op) {
	if len(w.d.more) == 0 && w.d.op.seq == 0 {
		w.d.op = o
		return
	}
	w.d.more = append(w.d.more, o)
}

// insertion returns the operation that made a block, as far as it can be told.
func (t *Text) insertion(b *block) op {
	o := op{
		id: t.replicas[b.replica].id, seq: b.seq, n: b.n, left: b.isLeft,
		parentID: t.replicas[b.parentReplica].id, parentSeq: b.parentSeq,
	}
	if b.dead {
		o.dead, o.byID, o.bySeq = true, t.replicas[b.a].id, b.b
	} else {
		o.text = string(t.content(b))
	}
	return o
}

// deletions writes the deletions, unknown to the receiver, of characters that it knows.
func (w *writer) deletions() {
	byReplica := make(map[uint32]op)
	for h := 1; h < len(w.t.replicas); h++ {
		for at := w.t.replicas[h].oldest; at != 0; at = w.t.blocks[at].later {
			b := &w.t.blocks[at]
			if !b.dead || b.seq > w.known[h] || b.b <= w.known[b.a] {
				continue
			}
			o := byReplica[b.a]
			o.id, o.seq = w.t.replicas[b.a].id, max(o.seq, b.b)
			o.addSpan(span{w.t.replicas[h].id, b.seq, min(b.last().seq, w.known[h]) - b.seq + 1})
			byReplica[b.a] = o
		}
	}
	for h := range w.t.replicas {
		if o, found := byReplica[uint32(h)]; found {
			w.add(o)
		}
	}
}
