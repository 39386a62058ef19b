package consistency

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// RegisterStream is a Stream for registers of which every value is written once: it takes time and memory linear in
// what is under way, so that any number of clients may be busy for any time (Gibbons and Korach 1997, as Linearizable
// does). Writes of unknown outcome that nobody has read stay known for ever, at some hundred bytes each.
//
// That a value is written twice is noticed while the first is not forgotten; the verdict is then Unknown. The zero
// value is not usable: see NewRegisterStream. Every method is safe for concurrent use.
type RegisterStream[V comparable] struct {
	initial V

	mu     sync.Mutex
	now    time.Duration // guarded by mu, as all below: the number of the newest event
	next   int           // the number of the next operation
	ops    map[int]*Operation[Access[V], Answer[V]]
	keys   map[string]*liveRegister[V]
	result Result
}

// liveRegister is what is not settled of one key.
type liveRegister[V comparable] struct {
	values map[V]*liveCluster
	ends   []*liveCluster // those in values
	calls  map[int]time.Duration
	since  int // operations ended since the last clean-up
}

// liveCluster is a cluster of decideRegister that may still grow; its operations are numbers.
type liveCluster struct {
	cluster
	pending bool // its write is under way
	dead    bool
}

// NewRegisterStream returns a RegisterStream that has seen nothing.
func NewRegisterStream[V comparable](initial V) *RegisterStream[V] {
	return &RegisterStream[V]{
		initial: initial,
		ops:     make(map[int]*Operation[Access[V], Answer[V]]),
		keys:    make(map[string]*liveRegister[V]),
		result:  Result{Model: "linearizable register", Verdict: Holds},
	}
}

// Invoke takes a call and returns the operation's number for Return, Unknown or Fail.
func (s *RegisterStream[V]) Invoke(client int, in Access[V]) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now++
	n := s.next
	s.next++
	s.ops[n] = &Operation[Access[V], Answer[V]]{Client: client, In: in, Call: s.now}
	r := s.keys[in.Key]
	if r == nil {
		first := &liveCluster{cluster: cluster{write: -1, first: -1, last: -1, finish: always, start: always}}
		r = &liveRegister[V]{
			values: map[V]*liveCluster{s.initial: first}, ends: []*liveCluster{first}, calls: make(map[int]time.Duration),
		}
		s.keys[in.Key] = r
	}
	r.calls[n] = s.now
	switch {
	case s.result.Verdict != Holds || in.Kind == Read:
	case in.Kind != Write:
		s.result.Verdict, s.result.Reason = Unknown, fmt.Sprintf("operation %d is neither a read nor a write", n)
	case r.values[in.Value] != nil:
		s.result.Verdict, s.result.Reason = Unknown, fmt.Sprintf("operation %d writes %s again", n, assign(in.Key, in.Value))
	default:
		c := &liveCluster{pending: true}
		c.cluster = cluster{write: int32(n), first: int32(n), last: int32(n), finish: never, start: s.now}
		r.values[in.Value] = c
		r.ends = append(r.ends, c)
		s.check(r, c)
	}
	return n
}

// Return takes the answer to an operation.
func (s *RegisterStream[V]) Return(op int, out Answer[V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now++
	o, r := s.end(op)
	if s.result.Verdict != Holds {
		return
	}
	value := out.Value
	if o.In.Kind == Write {
		value = o.In.Value
	}
	c := r.values[value]
	switch {
	case c == nil:
		s.result.Verdict = Violated
		s.result.Ops = []int{op}
		s.result.Reason = fmt.Sprintf("read %d (client %d) returned %s, which was never written or had been replaced by then",
			op, o.Client, assign(o.In.Key, value))
		return
	case o.In.Kind == Write:
		c.pending = false
	}
	if s.now < c.finish {
		c.finish, c.first = s.now, int32(op)
	}
	if o.Call > c.start {
		c.start, c.last = o.Call, int32(op)
	}
	s.check(r, c)
	s.forget(r)
}

// Unknown takes it that nobody will know the outcome of an operation.
func (s *RegisterStream[V]) Unknown(op int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, r := s.end(op)
	if o.In.Kind == Write && r.values[o.In.Value] != nil {
		r.values[o.In.Value].pending = false
	}
}

// Fail takes it that an operation did not and will not happen.
func (s *RegisterStream[V]) Fail(op int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, r := s.end(op)
	c := r.values[o.In.Value]
	if o.In.Kind != Write || c == nil || c.write != int32(op) {
		return
	}
	if c.finish != never && s.result.Verdict == Holds {
		s.result.Verdict = Violated
		s.result.Ops = []int{op, int(c.first)}
		s.result.Reason = fmt.Sprintf("read %d returned %s of write %d, which failed", c.first, assign(o.In.Key, o.In.Value), op)
	}
	delete(r.values, o.In.Value)
	r.ends = slices.DeleteFunc(r.ends, func(d *liveCluster) bool { return d == c })
}

// Result returns the verdict so far; its Ops are numbers that Invoke returned. Once it is not Holds it stays.
func (s *RegisterStream[V]) Result() Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.result
	r.Ops = slices.Clone(r.Ops)
	return r
}

// Close returns the verdict. What is under way is taken to be of unknown outcome.
func (s *RegisterStream[V]) Close() Result { return s.Result() }

// Live returns how many values are not settled: the memory that is held.
func (s *RegisterStream[V]) Live() (values int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.keys {
		values += len(r.ends)
	}
	return values
}

func (s *RegisterStream[V]) end(op int) (*Operation[Access[V], Answer[V]], *liveRegister[V]) {
	o, ok := s.ops[op]
	if !ok {
		panic(fmt.Sprintf("consistency: RegisterStream: operation %d is not under way", op))
	}
	delete(s.ops, op)
	r := s.keys[o.In.Key]
	delete(r.calls, op)
	return o, r
}

// check looks for a cluster that must come both before and after one that has grown.
func (s *RegisterStream[V]) check(r *liveRegister[V], c *liveCluster) {
	for _, d := range r.ends {
		if d == c || !c.precedes(&d.cluster) || !d.precedes(&c.cluster) {
			continue
		}
		s.result.Verdict = Violated
		for _, op := range []int32{c.write, c.first, c.last, d.write, d.first, d.last} {
			if op >= 0 && !slices.Contains(s.result.Ops, int(op)) {
				s.result.Ops = append(s.result.Ops, int(op))
			}
		}
		slices.Sort(s.result.Ops)
		s.result.Reason = fmt.Sprintf("of the values written by operations %d and %d each must have been replaced by the other", c.write, d.write)
		return
	}
}

// forget drops the clusters that were replaced before every operation under way began: who reads one from now on
// finds it gone. A cluster is replaced once another, to which it must come before, has taken effect.
func (s *RegisterStream[V]) forget(r *liveRegister[V]) {
	if r.since++; r.since < len(r.ends) {
		return // so that the cost of looking is spread
	}
	r.since = 0
	horizon := s.now + 1
	for _, call := range r.calls {
		horizon = min(horizon, call)
	}
	for _, c := range r.ends {
		if c.pending { // its return is still to come
			continue
		}
		c.dead = slices.ContainsFunc(r.ends, func(d *liveCluster) bool {
			return d != c && d.finish < horizon && c.precedes(&d.cluster)
		})
	}
	for v, c := range r.values {
		if c.dead {
			delete(r.values, v)
		}
	}
	r.ends = slices.DeleteFunc(r.ends, func(c *liveCluster) bool { return c.dead })
}
