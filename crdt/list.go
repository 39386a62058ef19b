package crdt

import (
	"encoding/json"
	"iter"
	"slices"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/internal/wire"
)

// List is a sequence of values that many replicas insert into and delete from at once (the Fugue tree of Weidner and
// Kleppmann, "The Art of the Fugue", 2023): values inserted in a row stay in a row, whatever others insert at the same
// place at the same time. Each value is a left or right child of another; the list is the tree in order.
//
// It is for lists of some thousand items: to-dos, playlists, the cells of a page. A change takes O(n), a merge that
// changes the order O(n log n) at the next reading. For characters take package text, which does with runs what this does
// with single nodes. A deleted value leaves its node behind.
//
// The zero value is an empty list, ready to use. A copy made by assignment is the same list, as that of a map is: Clone
// copies, except for what values refer to. Changing it is not safe for concurrent use, nor is reading, which may put the
// list in order.
type List[T any] struct{ s *list[T] }

type list[T any] struct {
	nodes map[clock.Dot]*listNode[T]
	seen  clock.DotSet   // inserted values
	order []*listNode[T] // deleted ones included; nil if it is to be made anew
	live  int
}

type listNode[T any] struct {
	id, parent clock.Dot // the zero Dot is the root
	left, dead bool
	value      T
}

func (l *List[T]) init() *list[T] {
	if l.s == nil {
		l.s = &list[T]{nodes: make(map[clock.Dot]*listNode[T])}
	}
	return l.s
}

// Insert inserts a value before position pos at replica id, at the end if pos is beyond it, and returns the delta. Only
// the replica itself may use its id.
func (l *List[T]) Insert(id coterie.NodeID, pos int, value T) (delta List[T]) {
	s := l.init()
	at, parent := s.place(pos)
	n := listNode[T]{id: s.seen.Next(id), parent: parent, value: value}
	if at < len(s.order) && s.under(s.order[at], parent) {
		n.parent, n.left = s.order[at].id, true
	}
	s.nodes[n.id] = &n
	s.order = slices.Insert(s.order, at, &n)
	s.live++
	d := n
	delta.init().take(&d)
	return delta
}

// place returns where in the order the visible value number pos begins, deleted ones before it included, and which value
// is before it.
func (s *list[T]) place(pos int) (at int, before clock.Dot) {
	s.sort()
	for i := 0; i < len(s.order) && pos > 0; i++ {
		if n := s.order[i]; !n.dead {
			pos--
			at, before = i+1, n.id
		}
	}
	return at, before
}

// under reports whether n is in the right subtree of a node.
func (s *list[T]) under(n *listNode[T], top clock.Dot) bool {
	for n.parent != top {
		if n.parent.IsZero() {
			return false
		}
		n = s.nodes[n.parent]
	}
	return !n.left
}

// Delete deletes the value at a position and returns the delta, which is empty if there is none.
func (l *List[T]) Delete(pos int) (delta List[T]) {
	if l.s == nil || pos < 0 || pos >= l.s.live {
		return delta
	}
	at, _ := l.s.place(pos + 1)
	n := l.s.order[at-1]
	n.dead = true
	var none T
	n.value = none
	l.s.live--
	d := *n
	delta.init().take(&d)
	return delta
}

// take adds a node, or what it says of one that is there.
func (s *list[T]) take(n *listNode[T]) {
	switch old, found := s.nodes[n.id]; {
	case !found:
		s.nodes[n.id] = n
		s.seen.Add(n.id)
		s.order = nil
	case n.dead && !old.dead:
		old.dead, old.value = true, n.value
		s.order = nil
	}
}

// Merge joins another replica's state, or a delta of it, into l. What comes before the values that it hangs on waits for
// them unseen. It leaves o as it is and shares nothing with it but what values refer to.
func (l *List[T]) Merge(o List[T]) {
	if o.s == nil || o.s == l.s {
		return
	}
	s := l.init()
	for _, n := range o.s.nodes {
		c := *n
		s.take(&c)
	}
}

// sort puts the nodes in order: of each, its left children with what hangs on them, itself, its right ones. Children of
// one side are in the order of their ids.
func (s *list[T]) sort() {
	if s.order != nil || len(s.nodes) == 0 {
		return
	}
	kids := make(map[clock.Dot][]*listNode[T], len(s.nodes))
	for _, n := range s.nodes {
		kids[n.parent] = append(kids[n.parent], n)
	}
	for _, of := range kids {
		slices.SortFunc(of, func(a, b *listNode[T]) int { return a.id.Compare(b.id) })
	}
	// A stack, and no recursion: a list that was typed from one end to the other is as deep as it is long.
	type visit struct {
		n       *listNode[T]
		entered bool
	}
	s.order, s.live = make([]*listNode[T], 0, len(s.nodes)), 0
	var stack []visit
	push := func(parent clock.Dot, left bool) {
		for _, k := range slices.Backward(kids[parent]) {
			if k.left == left {
				stack = append(stack, visit{n: k})
			}
		}
	}
	push(clock.Dot{}, false)
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		n := top.n
		if !top.entered {
			top.entered = true
			push(n.id, true)
			continue
		}
		stack = stack[:len(stack)-1]
		s.order = append(s.order, n)
		if !n.dead {
			s.live++
		}
		push(n.id, false)
	}
}

// Len returns the number of values.
func (l List[T]) Len() int {
	if l.s == nil {
		return 0
	}
	l.s.sort()
	return l.s.live
}

// All yields the positions and values. The list must not change meanwhile.
func (l List[T]) All() iter.Seq2[int, T] {
	return func(yield func(int, T) bool) {
		if l.s == nil {
			return
		}
		l.s.sort()
		pos := 0
		for _, n := range l.s.order {
			if n.dead {
				continue
			}
			if !yield(pos, n.value) {
				return
			}
			pos++
		}
	}
}

// Values returns the values in order.
func (l List[T]) Values() []T {
	values := make([]T, 0, l.Len())
	for _, v := range l.All() {
		values = append(values, v)
	}
	return values
}

// Clone returns a copy that shares nothing with l but what values refer to.
func (l List[T]) Clone() (c List[T]) {
	if l.s != nil {
		c.Merge(l)
	}
	return c
}

// Context returns the insertions that the list comprises, as a copy.
func (l List[T]) Context() clock.DotSet {
	if l.s == nil {
		return clock.DotSet{}
	}
	return l.s.seen.Clone()
}

// AppendBinary appends the encoding of l. Equal states have equal encodings. The error is that of a value that cannot be
// encoded.
func (l List[T]) AppendBinary(b []byte) ([]byte, error) {
	b = appendHead(b, kindList)
	if l.s == nil {
		return wire.AppendUvarint(b, 0), nil
	}
	b = wire.AppendUvarint(b, uint64(len(l.s.nodes)))
	for d := range l.s.seen.All() {
		n := l.s.nodes[d]
		b = wire.AppendUvarint(wire.AppendString(b, d.Node), d.Seq)
		b = wire.AppendUvarint(wire.AppendString(b, n.parent.Node), n.parent.Seq)
		b = wire.AppendBool(wire.AppendBool(b, n.left), n.dead)
		if n.dead {
			continue
		}
		var err error
		if b, err = appendSized(b, func(b []byte) ([]byte, error) { return appendElem(b, n.value) }); err != nil {
			return b, decoded(kindList, err)
		}
	}
	return b, nil
}

// MarshalBinary returns the encoding of l.
func (l List[T]) MarshalBinary() ([]byte, error) { return l.AppendBinary(nil) }

// UnmarshalBinary sets l from an encoding. Malformed bytes give an error and leave l as it was; those of a newer format a
// *coterie.FormatError.
func (l *List[T]) UnmarshalBinary(b []byte) error {
	r := wire.NewReader(b)
	if err := readHead(&r, kindList); err != nil {
		return err
	}
	var read List[T]
	s := read.init()
	last := clock.Dot{}
	for range r.Count(6) {
		n := readListNode[T](&r)
		if r.Err() == nil && (last.Compare(n.id) >= 0 || n.id.Seq == 0 || n.id.Seq > clock.MaxTime || n.id == n.parent) {
			r.Fail("node %v is out of order", n.id)
		}
		if r.Err() != nil {
			break
		}
		last = n.id
		s.take(n)
	}
	if err := r.Done(); err != nil {
		return decoded(kindList, err)
	}
	*l = read
	return nil
}

func readListNode[T any](r *wire.Reader) *listNode[T] {
	n := &listNode[T]{
		id:     clock.Dot{Node: coterie.NodeID(r.String()), Seq: r.Uvarint()},
		parent: clock.Dot{Node: coterie.NodeID(r.String()), Seq: r.Uvarint()},
		left:   r.Bool(), dead: r.Bool(),
	}
	if n.parent.IsZero() && (n.parent.Node != "" || n.left) {
		r.Fail("a child of the root")
	}
	if n.dead || r.Err() != nil {
		return n
	}
	p := r.Bytes()
	if r.Err() == nil {
		var err error
		if n.value, err = readElem[T](p); err != nil {
			r.Fail("%v", err)
		}
	}
	return n
}

// MarshalJSON returns the values as an array.
func (l List[T]) MarshalJSON() ([]byte, error) { return json.Marshal(l.Values()) }
