package consistency

import (
	"cmp"
	"fmt"
	"slices"
)

// SetKind is what a SetIn does.
type SetKind uint8

// The kinds of SetIn.
const (
	SetContains SetKind = iota // answers whether the element is in
	SetAdd                     // answers whether it was not in before
	SetRemove                  // answers whether it was in before
	SetElements                // answers all elements
)

// SetIn is what a client asks of a set.
type SetIn[E cmp.Ordered] struct {
	Kind SetKind `json:"kind"`
	Elem E       `json:"elem,omitempty"`
}

// SetOut is what a set answers.
type SetOut[E cmp.Ordered] struct {
	OK    bool `json:"ok,omitempty"`
	Elems []E  `json:"elems,omitempty"` // of SetElements, in any order
}

// Set is a set; its state is sorted.
func Set[E cmp.Ordered]() Model[[]E, SetIn[E], SetOut[E]] {
	return Model[[]E, SetIn[E], SetOut[E]]{
		Name:  "set",
		Init:  func() []E { return nil },
		Equal: slices.Equal[[]E],
		ReadOnly: func(in SetIn[E], out *SetOut[E]) bool {
			return in.Kind == SetContains || in.Kind == SetElements || out != nil && !out.OK
		},
		Describe: func(in SetIn[E], out *SetOut[E]) string {
			verb := [...]string{"contains", "add", "remove", "elements"}[min(in.Kind, SetElements)]
			switch {
			case in.Kind == SetElements && out == nil:
				return verb
			case in.Kind == SetElements:
				return fmt.Sprintf("%s = %v", verb, out.Elems)
			case out == nil:
				return fmt.Sprintf("%s %v", verb, in.Elem)
			}
			return fmt.Sprintf("%s %v = %v", verb, in.Elem, out.OK)
		},
		Step: func(state []E, in SetIn[E], out *SetOut[E]) ([]E, bool) {
			at, found := slices.BinarySearch(state, in.Elem)
			switch in.Kind {
			case SetContains:
				return state, out == nil || out.OK == found
			case SetAdd:
				if found {
					return state, out == nil || !out.OK
				}
				return slices.Insert(slices.Clone(state), at, in.Elem), out == nil || out.OK
			case SetRemove:
				if !found {
					return state, out == nil || !out.OK
				}
				return slices.Delete(slices.Clone(state), at, at+1), out == nil || out.OK
			case SetElements:
				return state, out == nil || slices.Equal(slices.Sorted(slices.Values(out.Elems)), state)
			}
			return state, false
		},
	}
}

// QueueIn is what a client asks of a queue: to take the oldest value out, or with Enqueue to put Value in.
type QueueIn[V comparable] struct {
	Enqueue bool `json:"enqueue,omitempty"`
	Value   V    `json:"value,omitempty"`
}

// QueueOut is what a queue answers to a dequeue; OK is false if it was empty. The answer to an enqueue is ignored.
type QueueOut[V comparable] struct {
	Value V    `json:"value,omitempty"`
	OK    bool `json:"ok,omitempty"`
}

// Queue is a queue, first in, first out.
func Queue[V comparable]() Model[[]V, QueueIn[V], QueueOut[V]] {
	return Model[[]V, QueueIn[V], QueueOut[V]]{
		Name:     "queue",
		Init:     func() []V { return nil },
		Equal:    slices.Equal[[]V],
		ReadOnly: func(in QueueIn[V], out *QueueOut[V]) bool { return !in.Enqueue && out != nil && !out.OK },
		Describe: func(in QueueIn[V], out *QueueOut[V]) string {
			switch {
			case in.Enqueue:
				return fmt.Sprintf("enqueue %v", in.Value)
			case out == nil:
				return "dequeue"
			case !out.OK:
				return "dequeue: empty"
			}
			return fmt.Sprintf("dequeue %v", out.Value)
		},
		Step: func(state []V, in QueueIn[V], out *QueueOut[V]) ([]V, bool) {
			switch {
			case in.Enqueue:
				return append(slices.Clip(state), in.Value), true
			case len(state) == 0:
				return state, out == nil || !out.OK
			case out != nil && (!out.OK || out.Value != state[0]):
				return state, false
			}
			return state[1:], true
		},
	}
}

// MutexKind is what a MutexIn does.
type MutexKind uint8

// The kinds of MutexIn.
const (
	MutexAcquire MutexKind = iota // answers OK and a token if the lock was got
	MutexRelease                  // gives back the lock held with Token; answers OK if it was still held
	MutexFence                    // shows Token to a resource; answers OK if it was let in
)

// MutexIn is what a client asks of a lock or of a resource that the lock guards.
type MutexIn struct {
	Kind  MutexKind `json:"kind"`
	Token uint64    `json:"token,omitempty"`
}

// MutexOut is what it is answered.
type MutexOut struct {
	OK    bool   `json:"ok,omitempty"`
	Token uint64 `json:"token,omitempty"` // of an Acquire that is OK
}

// MutexState is the state of a Mutex.
type MutexState struct {
	Held  bool
	Token uint64 // of the holder; 0 if that is not known
	Last  uint64 // the highest token given out
	Seen  uint64 // the highest token the resource let in
}

// Mutex is a lock with fencing tokens: one holder at a time, each with a token higher than all before, and a
// resource that lets in no token lower than one it has seen. An Acquire that is not OK says nothing: it may have
// waited too long.
func Mutex() Model[MutexState, MutexIn, MutexOut] { return mutex("mutex", false) }

// LeasedMutex is a Mutex whose holder may lose it at any time, because its lease ends: only the order of tokens and
// the resource's fence hold.
func LeasedMutex() Model[MutexState, MutexIn, MutexOut] { return mutex("leased mutex", true) }

func mutex(name string, leased bool) Model[MutexState, MutexIn, MutexOut] {
	return Model[MutexState, MutexIn, MutexOut]{
		Name:  name,
		Init:  func() MutexState { return MutexState{} },
		Equal: func(a, b MutexState) bool { return a == b },
		ReadOnly: func(in MutexIn, out *MutexOut) bool {
			return in.Kind == MutexAcquire && out != nil && !out.OK
		},
		Describe: func(in MutexIn, out *MutexOut) string {
			verb := [...]string{"acquire", "release", "fence"}[min(in.Kind, MutexFence)]
			switch {
			case out != nil && !out.OK:
				return fmt.Sprintf("%s %d refused", verb, in.Token)
			case out != nil && in.Kind == MutexAcquire:
				return fmt.Sprintf("%s = %d", verb, out.Token)
			case in.Kind == MutexAcquire:
				return verb
			}
			return fmt.Sprintf("%s %d", verb, in.Token)
		},
		Step: func(s MutexState, in MutexIn, out *MutexOut) (MutexState, bool) {
			switch in.Kind {
			case MutexAcquire:
				return acquire(s, out, leased)
			case MutexRelease:
				return release(s, in.Token, out, leased)
			case MutexFence:
				ok := in.Token >= s.Seen
				s.Seen = max(s.Seen, in.Token)
				return s, out == nil || out.OK == ok
			}
			return s, false
		},
	}
}

func acquire(s MutexState, out *MutexOut, leased bool) (MutexState, bool) {
	switch {
	case out != nil && !out.OK:
		return s, true
	case s.Held && !leased:
		return s, out == nil // of unknown outcome: refused
	case out == nil:
		s.Held, s.Token = true, 0 // with some token that nobody was told
		return s, true
	}
	ok := out.Token > s.Last
	s.Held, s.Token, s.Last = true, out.Token, max(s.Last, out.Token)
	return s, ok
}

func release(s MutexState, token uint64, out *MutexOut, leased bool) (MutexState, bool) {
	switch held := s.Held && s.Token == token; {
	case held && (out == nil || out.OK):
		s.Held, s.Token = false, 0
		return s, true
	case held:
		return s, leased
	}
	return s, out == nil || !out.OK
}

// BankIn is what a client asks of a bank: all balances, or with Amount above 0 a transfer.
type BankIn struct {
	From   int   `json:"from,omitempty"` // account, counted from 0
	To     int   `json:"to,omitempty"`
	Amount int64 `json:"amount,omitempty"`
}

// BankOut is what a bank answers.
type BankOut struct {
	OK       bool    `json:"ok,omitempty"`       // whether the transfer was covered and done
	Balances []int64 `json:"balances,omitempty"` // of all accounts, if they were asked for
}

// Bank is a bank whose accounts start with the given balances; a transfer that is not covered is refused.
func Bank(balances ...int64) Model[[]int64, BankIn, BankOut] {
	balances = slices.Clone(balances)
	return Model[[]int64, BankIn, BankOut]{
		Name:     "bank",
		Init:     func() []int64 { return balances },
		Equal:    slices.Equal[[]int64],
		ReadOnly: func(in BankIn, out *BankOut) bool { return in.Amount <= 0 || out != nil && !out.OK },
		Describe: func(in BankIn, out *BankOut) string {
			switch {
			case in.Amount <= 0 && out == nil:
				return "balances"
			case in.Amount <= 0:
				return fmt.Sprintf("balances = %v", out.Balances)
			case out != nil && !out.OK:
				return fmt.Sprintf("transfer %d from %d to %d refused", in.Amount, in.From, in.To)
			}
			return fmt.Sprintf("transfer %d from %d to %d", in.Amount, in.From, in.To)
		},
		Step: func(state []int64, in BankIn, out *BankOut) ([]int64, bool) {
			if in.Amount <= 0 {
				return state, out == nil || slices.Equal(out.Balances, state)
			}
			covered := in.From >= 0 && in.From < len(state) && in.To >= 0 && in.To < len(state) &&
				state[in.From] >= in.Amount
			if !covered {
				return state, out == nil || !out.OK
			}
			next := slices.Clone(state)
			next[in.From] -= in.Amount
			next[in.To] += in.Amount
			return next, out == nil || out.OK
		},
	}
}
