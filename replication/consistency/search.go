package consistency

import (
	"cmp"
	"context"
	"slices"
)

// search looks for an order of one key's operations. It is the search of Wing and Gong (1993) with the memory of
// Lowe (2017), arranged around answers: a node stands before the next answer in time and knows the model's state and
// which of the operations under way have taken effect; an operation takes effect only when an answer needs it. So a
// node is a few words, however long the history, where a set of all operations grows with it.
//
// Two things keep the tree thin. An operation that can take effect and change nothing does so at once: whatever
// explains the rest without it explains it with it. And reads are never branched on, for the same reason.
//
// Invariant: an operation under way has one slot, a bit of the node's mask; slots are reused after an answer.
type search[S, In, Out any] struct {
	m *Model[S, In, Out]
	h History[In, Out]

	ops     []int32 // indices into h, by call, without reads of unknown outcome
	slot    []int32 // slot of each of ops
	after   []int32 // of each of ops: the one of its client that returned when it was called, or -1; nil if none did
	pure    []bool  // of each of ops: it changes no state and has an answer
	maybe   []bool  // of each of h: it happened between call and return or not at all; nil if there is none such
	returns []int32 // positions in ops, by return, of those with an answer
	known   []int32 // known[k]: how many of ops were called when the answer returns[k] came
	words   int     // of a mask

	// The walk: at[slot] is the operation under way before the answer at, -1 for none.
	pos int
	at  []int32

	stack []frame[S]
	masks []uint64 // one mask for each frame
	seen  memory[S]

	limit   int // of nodes to look at; 0 for none
	nodes   int // looked at so far
	deepest int // answers explained, at most
	stuck   []S // states that were possible there, a few
}

// frame is a node of the search tree and which of its branches were taken.
type frame[S any] struct {
	pos    int32
	cursor int32 // the next slot to let take effect
	state  S
	alts   []S // further choices of the slot before cursor
}

// stuckStates bounds how many states an explanation lists.
const stuckStates = 4

// newSearch prepares the search of the operations ops, which are sorted by call.
func newSearch[S, In, Out any](h History[In, Out], ops []int32, m *Model[S, In, Out], maybe []bool) *search[S, In, Out] {
	s := &search[S, In, Out]{m: m, h: h, maybe: maybe}
	for _, i := range ops {
		pure := m.ReadOnly(h[i].In, s.out(i))
		if pure && s.out(i) == nil {
			continue // it says nothing
		}
		s.ops = append(s.ops, i)
		s.pure = append(s.pure, pure)
	}
	for j, i := range s.ops {
		if !h[i].Unknown {
			s.returns = append(s.returns, int32(j))
		}
	}
	slices.SortStableFunc(s.returns, func(a, b int32) int {
		return cmp.Compare(h[s.ops[a]].Return, h[s.ops[b]].Return)
	})
	s.assignSlots()
	s.findTies()
	return s
}

// assignSlots gives each operation the lowest slot that is free from its call to its return.
func (s *search[S, In, Out]) assignSlots() {
	s.slot = make([]int32, len(s.ops))
	s.known = make([]int32, len(s.returns))
	var free []int32
	slots, called := int32(0), 0
	for k, r := range s.returns {
		now := s.h[s.ops[r]].Return
		for ; called < len(s.ops) && s.h[s.ops[called]].Call <= now; called++ {
			if len(free) > 0 {
				s.slot[called] = free[len(free)-1]
				free = free[:len(free)-1]
				continue
			}
			s.slot[called] = slots
			slots++
		}
		s.known[k] = int32(called)
		free = append(free, s.slot[r])
	}
	s.ops, s.slot, s.pure = s.ops[:called], s.slot[:called], s.pure[:called] // the rest never happened
	s.words = max(1, int(slots+63)/64)
	s.at = make([]int32, slots)
	for i := range s.at {
		s.at[i] = -1
	}
}

// findTies notes operations called at the moment at which their client's last one returned: the intervals touch, but
// they are in order all the same.
func (s *search[S, In, Out]) findTies() {
	newest := make(map[int]int32)
	for j, i := range s.ops {
		op := &s.h[i]
		if p, ok := newest[op.Client]; ok {
			if s.h[s.ops[p]].Return == op.Call {
				if s.after == nil {
					s.after = make([]int32, len(s.ops))
					for x := range s.after {
						s.after[x] = -1
					}
				}
				s.after[j] = p
			}
		}
		if !op.Unknown {
			newest[op.Client] = int32(j)
		}
	}
}

// run searches until it has an order, has tried all, or ctx ends.
func (s *search[S, In, Out]) run(ctx context.Context) Verdict {
	if len(s.returns) == 0 {
		return Holds
	}
	s.seen.init(s.words, s.m.Equal, s.m.Hash)
	mask := make([]uint64, s.words)
	s.enter(0)
	s.push(s.m.Init(), mask)
	if s.settle() {
		return Holds
	}
	next := make([]uint64, s.words)
	for len(s.stack) > 0 {
		if s.nodes++; s.nodes%1024 == 0 && ctx.Err() != nil || s.nodes == s.limit {
			return Unknown
		}
		top := &s.stack[len(s.stack)-1]
		s.moveTo(int(top.pos))
		state, slot, ok := s.branch(top)
		if !ok {
			s.pop()
			continue
		}
		copy(next, s.top())
		next[slot/64] |= 1 << (slot % 64)
		s.push(state, next)
		if s.settle() {
			return Holds
		}
	}
	return Violated
}

// branch returns the next state that an operation under way leads to, and the operation's slot.
func (s *search[S, In, Out]) branch(f *frame[S]) (state S, slot int32, ok bool) {
	if n := len(f.alts); n > 0 {
		state, f.alts = f.alts[n-1], f.alts[:n-1]
		return state, s.order(f.cursor - 1), true
	}
	mask := s.top()
	for int(f.cursor) <= len(s.at) {
		slot := s.order(f.cursor)
		first, due := f.cursor == 0, s.returns[s.pos]
		f.cursor++
		if first && s.isMaybe(s.ops[due]) {
			return f.state, slot, true // it did not happen
		}
		if !first && slot == s.slot[due] && !s.isMaybe(s.ops[due]) {
			continue
		}
		j := s.at[slot]
		if j < 0 || s.pure[j] || mask[slot/64]>>(slot%64)&1 != 0 || !s.mayFollow(j, mask) {
			continue
		}
		in, out := s.h[s.ops[j]].In, s.out(s.ops[j])
		if s.m.Step != nil {
			if next, ok := s.m.Step(f.state, in, out); ok && (out != nil || !s.m.Equal(next, f.state)) {
				return next, slot, true
			}
			continue
		}
		if f.alts = slices.Clone(s.m.Choices(f.state, in, out)); len(f.alts) > 0 {
			n := len(f.alts) - 1
			state, f.alts = f.alts[n], f.alts[:n]
			return state, slot, true
		}
	}
	return state, 0, false
}

func (s *search[S, In, Out]) isMaybe(i int32) bool { return s.maybe != nil && s.maybe[i] }

// out returns the answer of an operation, nil if any will do.
func (s *search[S, In, Out]) out(i int32) *Out {
	if s.isMaybe(i) {
		return nil
	}
	return s.h[i].out()
}

// order returns the slot to try at a cursor: first that of the operation whose answer is due, then all.
func (s *search[S, In, Out]) order(cursor int32) int32 {
	if cursor == 0 {
		return s.slot[s.returns[s.pos]]
	}
	return cursor - 1
}

// mayFollow reports whether the operation before j of its client has taken effect, if it is still under way.
func (s *search[S, In, Out]) mayFollow(j int32, mask []uint64) bool {
	if s.after == nil || s.after[j] < 0 {
		return true
	}
	p := s.after[j]
	slot := s.slot[p]
	return s.at[slot] != p || mask[slot/64]>>(slot%64)&1 != 0
}

// settle lets take effect on the newest node what changes nothing, and passes the answers it explains. It reports
// whether it explained the last one. A node that was seen before is dropped.
func (s *search[S, In, Out]) settle() (done bool) {
	f := &s.stack[len(s.stack)-1]
	mask := s.top()
	s.absorb(f.state, mask, 0)
	for {
		r := s.returns[s.pos]
		slot := s.slot[r]
		if mask[slot/64]>>(slot%64)&1 == 0 {
			break
		}
		mask[slot/64] &^= 1 << (slot % 64)
		if s.pos+1 == len(s.returns) {
			return true
		}
		before := int(s.known[s.pos])
		s.forward()
		s.absorb(f.state, mask, before)
	}
	f.pos = int32(s.pos)
	s.noteDepth(f.state)
	if s.branches(mask) > 1 && !s.seen.add(f.pos, mask, f.state) {
		s.pop()
	}
	return false
}

// absorb lets every read under way, from operation from on, take effect if the state gives its answer. A read may
// wait for another of its client, so it goes on until nothing more does.
func (s *search[S, In, Out]) absorb(state S, mask []uint64, from int) {
	for again := true; again; {
		again = false
		if from > 0 {
			for j := from; j < int(s.known[s.pos]); j++ {
				again = s.absorbOne(int32(j), state, mask) && s.after != nil || again
			}
			from = 0
			if s.after == nil {
				return
			}
			continue
		}
		for _, j := range s.at {
			if j >= 0 {
				again = s.absorbOne(j, state, mask) && s.after != nil || again
			}
		}
	}
}

func (s *search[S, In, Out]) absorbOne(j int32, state S, mask []uint64) bool {
	slot := s.slot[j]
	if !s.pure[j] || mask[slot/64]>>(slot%64)&1 != 0 || !s.mayFollow(j, mask) {
		return false
	}
	op := &s.h[s.ops[j]]
	if s.m.Step != nil {
		if _, ok := s.m.Step(state, op.In, &op.Out); !ok {
			return false
		}
	} else if len(s.m.Choices(state, op.In, &op.Out)) == 0 {
		return false
	}
	mask[slot/64] |= 1 << (slot % 64)
	return true
}

// branches counts the operations that could take effect next: where there is one only, no two ways meet.
func (s *search[S, In, Out]) branches(mask []uint64) int {
	n := 0
	for slot, j := range s.at {
		if j >= 0 && !s.pure[j] && mask[slot/64]>>(slot%64)&1 == 0 {
			n++
		}
	}
	if s.m.Choices != nil || s.maybe != nil {
		n *= 2 // one operation may branch too
	}
	return n
}

// noteDepth remembers how far the search came, for the explanation.
func (s *search[S, In, Out]) noteDepth(state S) {
	if s.pos > s.deepest {
		s.deepest = s.pos
		s.stuck = s.stuck[:0]
	}
	if s.pos == s.deepest && len(s.stuck) <= stuckStates &&
		!slices.ContainsFunc(s.stuck, func(t S) bool { return s.m.Equal(state, t) }) {
		s.stuck = append(s.stuck, state)
	}
}

func (s *search[S, In, Out]) push(state S, mask []uint64) {
	s.stack = append(s.stack, frame[S]{pos: int32(s.pos), state: state})
	s.masks = append(s.masks, mask...)
}

func (s *search[S, In, Out]) pop() {
	n := len(s.stack) - 1
	s.stack[n] = frame[S]{}
	s.stack = s.stack[:n]
	s.masks = s.masks[:n*s.words]
}

func (s *search[S, In, Out]) top() []uint64 { return s.masks[len(s.masks)-s.words:] }

// moveTo walks the operations under way to those before the answer at pos.
func (s *search[S, In, Out]) moveTo(pos int) {
	for s.pos < pos {
		s.forward()
	}
	for s.pos > pos {
		s.backward()
	}
}

// enter starts the walk before answer 0.
func (s *search[S, In, Out]) enter(from int32) {
	for j := from; j < s.known[s.pos]; j++ {
		s.at[s.slot[j]] = j
	}
}

func (s *search[S, In, Out]) forward() {
	from := s.known[s.pos]
	s.at[s.slot[s.returns[s.pos]]] = -1
	s.pos++
	s.enter(from)
}

func (s *search[S, In, Out]) backward() {
	for j := s.known[s.pos-1]; j < s.known[s.pos]; j++ {
		s.at[s.slot[j]] = -1
	}
	s.pos--
	r := s.returns[s.pos]
	s.at[s.slot[r]] = r
}
