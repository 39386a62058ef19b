package consistency

import (
	"fmt"
	"slices"
)

// element is a value of a key.
type element struct {
	key   int32
	value int64
}

// appended is one append.
type appended struct {
	txn, key int32
	final    bool // its transaction appended no more to the key
	seen     bool // a read shows it
}

// list is what is known of one key's list.
type list struct {
	longest []int64 // the longest that was read, and ...
	reader  int32   // ... by whom
	ids     []int32 // of its elements: index into appends, or none
	clean   int     // how many of them come before one of an aborted transaction
	unread  []int32 // committed transactions with an append that no read shows, in order
	end     int32   // helper after the last version that was read, or none
}

// left reports whether a transaction has an append that no read shows.
func (s *list) left(t int32) bool {
	_, found := slices.BinarySearch(s.unread, t)
	return found
}

// lists is the state of inferLists.
type lists struct {
	*dependencies
	appends []appended
	id      map[element]int32 // of an element: index into appends
	heirs   map[element]int32 // of the first so many elements of a list: who read them and then appended
	lists   []list
	start   []int32 // of each transaction: where its operations are in keyOf
	keyOf   []int32 // of each operation: its key
	own     []TxnOp // scratch: appends of the transaction at hand
}

// inferLists finds the dependencies of transactions on lists.
func (d *dependencies) inferLists() error {
	l := &lists{dependencies: d, id: make(map[element]int32, len(d.h)), heirs: make(map[element]int32)}
	if err := l.collectAppends(); err != nil {
		return err
	}
	l.lists = make([]list, len(d.names))
	for t := range d.h {
		if d.committed[t] {
			l.findLongest(int32(t))
		}
	}
	l.commitSeen()
	l.orderVersions()
	for t := range d.h {
		if d.committed[t] && !d.h[t].Unknown {
			l.placeReads(int32(t))
		}
	}
	return nil
}

// collectAppends notes who appended what.
func (l *lists) collectAppends() error {
	l.start = make([]int32, len(l.h))
	for t := range l.h {
		l.start[t] = int32(len(l.keyOf))
		ops := l.ops(int32(t))
		for i, op := range ops {
			k := l.key(op.Key)
			l.keyOf = append(l.keyOf, k)
			switch op.Kind {
			case Read:
				continue
			case Append:
			case Write, CompareAndSet:
				return fmt.Errorf("%w: transaction %d has a %v on list %s", ErrHistory, t, op.Kind, op.Key)
			}
			e := element{k, op.Value}
			if other, ok := l.id[e]; ok {
				return fmt.Errorf("%w: transactions %d and %d both append %d to %s",
					ErrHistory, l.appends[other].txn, t, op.Value, op.Key)
			}
			l.id[e] = int32(len(l.appends))
			l.appends = append(l.appends, appended{txn: int32(t), key: k, final: !appendsTo(ops[i+1:], op.Key)})
		}
	}
	return nil
}

// appendsTo reports whether one of the operations appends to a key.
func appendsTo(ops []TxnOp, key string) bool {
	for i := range ops {
		if ops[i].Kind == Append && ops[i].Key == key {
			return true
		}
	}
	return false
}

// findLongest looks through a transaction's reads for lists longer than those known.
func (l *lists) findLongest(t int32) {
	if l.h[t].Unknown {
		return
	}
	for i, op := range l.h[t].Out.Ops {
		if op.Kind != Read {
			continue
		}
		if s := &l.lists[l.keyOf[int(l.start[t])+i]]; len(op.List) > len(s.longest) {
			s.longest, s.reader = op.List, t
		}
	}
}

// commitSeen concludes from what was read who has taken effect, and reports what should not have been.
func (l *lists) commitSeen() {
	for k := range l.lists {
		s := &l.lists[k]
		s.ids = make([]int32, len(s.longest))
		s.clean = len(s.longest)
		for i, v := range s.longest {
			id, ok := l.id[element{int32(k), v}]
			s.ids[i] = id
			if !ok {
				s.ids[i] = none
				l.report(UnwrittenRead, ReadUncommitted, []int32{s.reader}, "transaction %d read %s %v, but nobody appended %d",
					s.reader, l.names[k], s.longest, v)
				continue
			}
			a := &l.appends[id]
			if a.seen {
				l.report(DuplicateElement, ReadUncommitted, []int32{s.reader}, "transaction %d read %s %v, with %d twice",
					s.reader, l.names[k], s.longest, v)
			}
			a.seen = true
			if l.h[a.txn].Unknown {
				l.committed[a.txn] = true
			} else if !l.committed[a.txn] {
				s.clean = min(s.clean, i)
			}
		}
	}
}

// writer returns the committed transaction that appended the element at i of the longest list, or none.
func (l *lists) writer(s *list, i int) int32 {
	if s.ids[i] == none {
		return none
	}
	if w := l.appends[s.ids[i]].txn; l.committed[w] {
		return w
	}
	return none
}

// orderVersions adds the write dependencies: each list shows the order of its appends, and appends that no read shows
// come after all that one does. A helper stands between these and those.
func (l *lists) orderVersions() {
	for k := range l.lists {
		s := &l.lists[k]
		s.end = none
		for i := range s.longest {
			w := l.writer(s, i)
			if w == none {
				continue
			}
			if s.end != none && s.end != w {
				l.g.add(s.end, w, writeWrite, int32(k))
			}
			s.end = w
		}
	}
	for _, a := range l.appends {
		if l.committed[a.txn] && !a.seen {
			l.lists[a.key].unread = append(l.lists[a.key].unread, a.txn)
		}
	}
	for k := range l.lists {
		s := &l.lists[k]
		last := s.end
		s.end = none
		if len(s.unread) == 0 {
			continue
		}
		s.end = l.g.helper()
		through := last != none && !s.left(last)
		if through {
			l.g.add(last, s.end, writeWrite, int32(k))
		}
		for _, t := range s.unread {
			l.g.add(s.end, t, writeWrite, int32(k))
			if last != none && !through && t != last {
				l.g.add(last, t, writeWrite, int32(k))
			}
		}
	}
}

// placeReads checks each read of a transaction against its own doings, and adds what it depends on.
func (l *lists) placeReads(t int32) {
	ops := l.h[t].Out.Ops
	for i, op := range ops {
		if op.Kind != Read {
			continue
		}
		k := l.keyOf[int(l.start[t])+i]
		s := &l.lists[k]
		outside, ok := l.outside(ops[:i], op)
		if !ok {
			l.report(Internal, SnapshotIsolation, []int32{t}, "transaction %d did %v, then read %s %v", t, ops[:i], op.Key, op.List)
			continue
		}
		if !slices.Equal(op.List, s.longest[:len(op.List)]) {
			l.report(IncompatibleOrder, ReadCommitted, []int32{t, s.reader}, "transaction %d read %s %v, and transaction %d read %v",
				t, op.Key, op.List, s.reader, s.longest)
			l.checkElements(t, k, op)
			continue
		}
		if len(op.List) > s.clean {
			l.checkElements(t, k, op)
		}
		l.dependOn(t, k, outside)
		if appendsTo(ops[i+1:], op.Key) {
			version := element{k, int64(outside)}
			if other, ok := l.heirs[version]; ok && other != t {
				l.reportLost(other, t, op.Key)
			}
			l.heirs[version] = t
		}
	}
}

// reportLost reports that two transactions replaced one version, each without having seen the other's: in whichever
// order they wrote, the first one's update is lost.
func (d *dependencies) reportLost(s, t int32, key string) {
	d.report(LostUpdate, SnapshotIsolation, []int32{s, t},
		"transactions %d and %d both read one version of %s and wrote the next", s, t, key)
}

// outside returns how much of a list that was read came from other transactions, and whether the read agrees with
// what its transaction had done before.
func (l *lists) outside(before []TxnOp, read TxnOp) (int, bool) {
	l.own = l.own[:0]
	expected := -1
	for _, op := range before {
		if op.Key != read.Key {
			continue
		}
		if op.Kind == Append {
			l.own = append(l.own, op)
			continue
		}
		// What was read before, with what was appended since, is what must be read now.
		expected = len(op.List) - len(l.own)
		for j := range op.List[:max(0, expected)] {
			if j >= len(read.List) || read.List[j] != op.List[j] {
				return 0, false
			}
		}
	}
	outside := len(read.List) - len(l.own)
	if outside < 0 || expected >= 0 && outside != expected {
		return 0, false
	}
	for j, op := range l.own {
		if read.List[outside+j] != op.Value {
			return 0, false
		}
	}
	return outside, true
}

// checkElements reports elements that should never have been seen.
func (l *lists) checkElements(t, k int32, op TxnOp) {
	for _, v := range op.List {
		id, ok := l.id[element{k, v}]
		if !ok {
			continue
		}
		if w := l.appends[id].txn; !l.committed[w] && !l.h[w].Unknown {
			l.report(AbortedRead, ReadCommitted, []int32{w, t}, "transaction %d read %s %v, with the %d of transaction %d, which was aborted",
				t, op.Key, op.List, v, w)
		}
	}
}

// dependOn adds what follows from a transaction having read the first outside elements of a list.
func (l *lists) dependOn(t, k int32, outside int) {
	s := &l.lists[k]
	if outside > 0 {
		if w := l.writer(s, outside-1); w != none && w != t {
			if !l.appends[s.ids[outside-1]].final {
				l.report(IntermediateRead, ReadCommitted, []int32{w, t}, "transaction %d read %s %v, in the middle of transaction %d, which went on appending",
					t, l.names[k], s.longest[:outside], w)
			}
			l.g.add(w, t, writeRead, k)
		}
	}
	for i := outside; i < len(s.longest); i++ {
		w := l.writer(s, i)
		if w == none {
			continue
		}
		if w != t {
			l.g.add(t, w, readWrite, k)
		}
		return
	}
	if s.end != none && !s.left(t) {
		l.g.add(t, s.end, readWrite, k)
		return
	}
	for _, w := range s.unread {
		if w != t {
			l.g.add(t, w, readWrite, k)
		}
	}
}
