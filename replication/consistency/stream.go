package consistency

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"sync"
)

// StreamConfig bounds a Stream.
type StreamConfig struct {
	MaxStates int // states of the search kept for one key at once; default 65,536
}

// Stream judges linearizability while a system runs, for as long as it runs: it takes the calls and answers of
// clients as a Recorder does, in the order in which they happen, and forgets operations that are settled, which are
// those that ended before the oldest one under way began. Its verdict is that of Linearizable on the history so far.
//
// It keeps every way in which the operations under way may have taken effect, so its memory is bounded by what is
// under way, but exponentially: it is meant for some ten clients on a key. Operations of unknown outcome stay under
// way for ever. For registers with unique writes see RegisterStream. Every method is safe for concurrent use.
type Stream[S, In, Out any] struct {
	m   *Model[S, In, Out]
	max int

	mu      sync.Mutex
	ops     map[int]*streamOp[In, Out] // guarded by mu: not yet settled
	next    int                        // guarded by mu: number of the next operation
	keys    map[string]*streamKey[S, In, Out]
	result  Result // guarded by mu: the first violation
	settled int    // guarded by mu: answers explained and forgotten
}

type streamOp[In, Out any] struct {
	number int
	op     Operation[In, Out]
	phase  phase
	slot   int
	pure   bool
	key    string
}

// streamKey is the frontier of one key: what may be, now that the events before its queue have happened.
type streamKey[S, In, Out any] struct {
	queue []streamEvent[In, Out] // events not yet looked at
	under [64]*streamOp[In, Out] // operations called and not returned, by slot
	used  uint64                 // slots in use
	ways  []streamWay[S]
}

type streamEvent[In, Out any] struct {
	op  *streamOp[In, Out]
	end bool
}

// streamWay is one way in which the operations under way may have taken effect.
type streamWay[S any] struct {
	done  uint64 // those that have
	state S
}

// NewStream returns a Stream that has seen nothing.
func NewStream[S, In, Out any](m Model[S, In, Out], cfg StreamConfig) (*Stream[S, In, Out], error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if cfg.MaxStates < 0 {
		return nil, fmt.Errorf("consistency: StreamConfig.MaxStates %d is negative", cfg.MaxStates)
	}
	if cfg.MaxStates == 0 {
		cfg.MaxStates = 1 << 16
	}
	return &Stream[S, In, Out]{
		m: m.withDefaults(), max: cfg.MaxStates,
		ops:    make(map[int]*streamOp[In, Out]),
		keys:   make(map[string]*streamKey[S, In, Out]),
		result: Result{Model: strings.TrimSpace("linearizable " + m.Name), Verdict: Holds},
	}, nil
}

// Invoke takes a call and returns the operation's number for Return, Unknown or Fail.
func (s *Stream[S, In, Out]) Invoke(client int, in In) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	op := &streamOp[In, Out]{number: s.next, op: Operation[In, Out]{Client: client, In: in}}
	if s.m.Key != nil {
		op.key = s.m.Key(in)
	}
	s.ops[s.next] = op
	s.next++
	k := s.keys[op.key]
	if k == nil {
		k = &streamKey[S, In, Out]{ways: []streamWay[S]{{state: s.m.Init()}}}
		s.keys[op.key] = k
	}
	k.queue = append(k.queue, streamEvent[In, Out]{op: op})
	return op.number
}

// Return takes the answer to an operation.
func (s *Stream[S, In, Out]) Return(op int, out Out) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.end(op, returned)
	o.op.Out = out
	k := s.keys[o.key]
	k.queue = append(k.queue, streamEvent[In, Out]{op: o, end: true})
	s.settle(k)
}

// Unknown takes it that nobody will know the outcome of an operation.
func (s *Stream[S, In, Out]) Unknown(op int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.end(op, lost)
	o.op.Unknown = true
	s.settle(s.keys[o.key])
}

// Fail takes it that an operation did not and will not happen.
func (s *Stream[S, In, Out]) Fail(op int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(s.keys[s.end(op, failed).key])
}

// Result returns the verdict so far; its Ops are numbers that Invoke returned. What is under way is not judged yet.
// Once it is not Holds it stays.
func (s *Stream[S, In, Out]) Result() Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.result
	r.Ops = slices.Clone(r.Ops)
	return r
}

// Settled returns how many answers have been explained and forgotten.
func (s *Stream[S, In, Out]) Settled() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settled
}

// Close takes it that nobody will know the outcome of what is under way, and returns the verdict.
func (s *Stream[S, In, Out]) Close() Result {
	s.mu.Lock()
	for _, op := range sortedKeys(s.ops) {
		if o, ok := s.ops[op]; ok && o.phase == pending {
			o.phase, o.op.Unknown = lost, true
		}
	}
	for _, key := range sortedKeys(s.keys) {
		s.settle(s.keys[key])
	}
	s.mu.Unlock()
	return s.Result()
}

// end ends an operation under way; to end one twice is a bug of the caller, and panics.
func (s *Stream[S, In, Out]) end(op int, p phase) *streamOp[In, Out] {
	o, ok := s.ops[op]
	if !ok || o.phase != pending {
		panic(fmt.Sprintf("consistency: Stream: operation %d is not under way", op))
	}
	o.phase = p
	if p != returned {
		delete(s.ops, op)
	}
	return o
}

// settle looks at a key's events up to the call of an operation whose outcome is still to come: which ways there are
// depends on its answer.
func (s *Stream[S, In, Out]) settle(k *streamKey[S, In, Out]) {
	n := 0
	for ; n < len(k.queue) && s.result.Verdict == Holds; n++ {
		e := k.queue[n]
		if e.end {
			s.explain(k, e.op)
			continue
		}
		if e.op.phase == pending {
			break
		}
		s.begin(k, e.op)
	}
	if s.result.Verdict != Holds { // nothing will be judged any more
		k.queue = nil
		return
	}
	k.queue = slices.Delete(k.queue, 0, n)
}

// begin gives an operation a slot.
func (s *Stream[S, In, Out]) begin(k *streamKey[S, In, Out], o *streamOp[In, Out]) {
	if o.phase == failed {
		return
	}
	o.pure = s.m.ReadOnly(o.op.In, o.op.out())
	if o.pure && o.op.Unknown {
		return
	}
	o.slot = bits.TrailingZeros64(^k.used)
	if o.slot == 64 {
		s.give("more than 64 operations are under way on one key")
		return
	}
	k.used |= 1 << o.slot
	k.under[o.slot] = o
}

// explain keeps the ways in which an operation that has returned has taken effect.
func (s *Stream[S, In, Out]) explain(k *streamKey[S, In, Out], o *streamOp[In, Out]) {
	var seen memory[S]
	seen.init(1, s.m.Equal, s.m.Hash)
	var kept memory[S]
	kept.init(1, s.m.Equal, s.m.Hash)
	var ways []streamWay[S]
	stack := slices.Clone(k.ways)
	bit := uint64(1) << o.slot
	for len(stack) > 0 {
		w := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		s.absorb(k, &w)
		if w.done&bit != 0 {
			w.done &^= bit
			if kept.add(0, []uint64{w.done}, w.state) {
				ways = append(ways, w)
			}
			continue
		}
		if len(seen.states) > s.max {
			s.give(fmt.Sprintf("more than %d ways to explain what is under way", s.max))
			return
		}
		for rest := k.used &^ w.done; rest != 0; rest &= rest - 1 {
			slot := bits.TrailingZeros64(rest)
			for _, state := range s.steps(k.under[slot], w.state) {
				if next := (streamWay[S]{w.done | 1<<slot, state}); seen.add(0, []uint64{next.done}, state) {
					stack = append(stack, next)
				}
			}
		}
	}
	if len(ways) == 0 {
		s.violate(k, o)
		return
	}
	k.ways = ways
	k.used &^= bit
	k.under[o.slot] = nil
	delete(s.ops, o.number)
	s.settled++
}

// absorb lets every read under way take effect whose answer the state gives.
func (s *Stream[S, In, Out]) absorb(k *streamKey[S, In, Out], w *streamWay[S]) {
	for rest := k.used &^ w.done; rest != 0; rest &= rest - 1 {
		o := k.under[bits.TrailingZeros64(rest)]
		if o.pure && len(s.outcomes(o, w.state)) > 0 {
			w.done |= 1 << o.slot
		}
	}
}

// steps returns the states to which an operation that may change it leads.
func (s *Stream[S, In, Out]) steps(o *streamOp[In, Out], state S) []S {
	if o.pure {
		return nil
	}
	return s.outcomes(o, state)
}

func (s *Stream[S, In, Out]) outcomes(o *streamOp[In, Out], state S) []S {
	if s.m.Choices != nil {
		return s.m.Choices(state, o.op.In, o.op.out())
	}
	if next, ok := s.m.Step(state, o.op.In, o.op.out()); ok {
		return []S{next}
	}
	return nil
}

// give gives up.
func (s *Stream[S, In, Out]) give(reason string) {
	s.result.Verdict, s.result.Reason = Unknown, reason
}

// violate records that no way explains an answer.
func (s *Stream[S, In, Out]) violate(k *streamKey[S, In, Out], o *streamOp[In, Out]) {
	var states []string
	for _, w := range k.ways {
		if text := fmt.Sprintf("%.60q", fmt.Sprint(w.state)); !slices.Contains(states, text) && len(states) < stuckStates {
			states = append(states, text)
		}
	}
	s.result.Verdict = Violated
	s.result.Reason = fmt.Sprintf("no order of the operations explains operation %d (client %d, %s): with those before it the state was %s",
		o.number, o.op.Client, s.m.Describe(o.op.In, o.op.out()), strings.Join(states, " or "))
	for rest := k.used; rest != 0; rest &= rest - 1 {
		s.result.Ops = append(s.result.Ops, k.under[bits.TrailingZeros64(rest)].number)
	}
	slices.Sort(s.result.Ops)
}
