package consistency

import (
	"fmt"
	"reflect"
)

// Model says what a data type does when operations come one at a time: its sequential specification. S is its state,
// In what a client asks for, Out what it is answered. Step or Choices, and Init, are required; the rest makes
// checking faster and reports clearer. Its functions must be pure, and must not change a state they were given.
type Model[S, In, Out any] struct {
	Name string // for reports

	// Init returns the state before the first operation.
	Init func() S

	// Step returns the state after in was asked of state and out was answered, or false if that answer is not right.
	// out is nil if the outcome is unknown: any answer that is right then counts as given.
	Step func(state S, in In, out *Out) (next S, ok bool)

	// Choices stands in for Step if a state may become one of several: it returns all of them, none if the answer is
	// not right.
	Choices func(state S, in In, out *Out) []S

	// Equal compares states; by default ==, which S must then allow.
	Equal func(a, b S) bool

	// Hash, if set, helps to tell apart many states that follow the same operations. Equal states have equal hashes.
	Hash func(S) uint64

	// Key, if set, splits a history: operations on different keys do not touch each other, and each key has a state
	// of its own. It makes long histories cheap (Herlihy and Wing 1990, §3.1: linearizability is local).
	Key func(In) string

	// ReadOnly, if set, reports that in, having answered out, never changes a state. out is nil if unknown.
	ReadOnly func(in In, out *Out) bool

	// Describe, if set, says in a few words what an operation did. out is nil if unknown.
	Describe func(in In, out *Out) string

	// decide, if set, judges the operations ops of one key by a faster way than search, unless it returns false.
	decide func(h History[In, Out], ops []int32) (finding, bool)

	// clusters, if set, lists what of ops may be left out together without a read of what nobody then wrote, or
	// returns nil.
	clusters func(h History[In, Out], ops []int) [][]int

	// refute, if set, finds that a history is not sequential, without search, or returns false.
	refute func(h History[In, Out]) (finding, bool)
}

// check returns an error that names what is missing.
func (m *Model[S, In, Out]) check() error {
	switch {
	case m.Init == nil:
		return fmt.Errorf("consistency: model %q has no Init", m.Name)
	case (m.Step == nil) == (m.Choices == nil):
		return fmt.Errorf("consistency: model %q needs one of Step and Choices", m.Name)
	case m.Equal == nil && !reflect.TypeFor[S]().Comparable():
		return fmt.Errorf("consistency: model %q: states of type %v need Equal", m.Name, reflect.TypeFor[S]())
	}
	return nil
}

// withDefaults returns a copy with Equal, ReadOnly and Describe set.
func (m Model[S, In, Out]) withDefaults() *Model[S, In, Out] {
	if m.Equal == nil {
		m.Equal = func(a, b S) bool { return any(a) == any(b) }
	}
	if m.ReadOnly == nil {
		m.ReadOnly = func(In, *Out) bool { return false }
	}
	if m.Describe == nil {
		m.Describe = func(in In, out *Out) string {
			if out == nil {
				return fmt.Sprintf("%v: ?", in)
			}
			return fmt.Sprintf("%v: %v", in, *out)
		}
	}
	return &m
}

// out returns what Step gets to see of an operation's answer.
func (op *Operation[In, Out]) out() *Out {
	if op.Unknown {
		return nil
	}
	return &op.Out
}
