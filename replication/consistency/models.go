package consistency

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// AccessKind is what an Access does.
type AccessKind uint8

// The kinds of Access.
const (
	Read          AccessKind = iota // answers the value
	Write                           // sets the value
	CompareAndSet                   // sets the value if it is Old, and answers whether it was
	Append                          // adds to the end of the value; only KV has it
)

// String returns "read", "write", "cas" or "append".
func (k AccessKind) String() string {
	switch k {
	case Read:
		return "read"
	case Write:
		return "write"
	case CompareAndSet:
		return "cas"
	case Append:
		return "append"
	}
	return fmt.Sprintf("access(%d)", uint8(k))
}

// Access is what a client asks of a register: one of many, told apart by Key.
type Access[V comparable] struct {
	Kind  AccessKind `json:"kind"`
	Key   string     `json:"key,omitempty"`
	Value V          `json:"value,omitempty"` // to write, to set or to append
	Old   V          `json:"old,omitempty"`   // what CompareAndSet expects
}

// Answer is what a register answers to an Access; the zero value to a Write or an Append.
type Answer[V comparable] struct {
	Value V    `json:"value,omitempty"` // what was read
	OK    bool `json:"ok,omitempty"`    // whether CompareAndSet set
}

// Register is a register for each key that is read and written. A history with other accesses violates it.
func Register[V comparable](initial V) Model[V, Access[V], Answer[V]] {
	m := CASRegister(initial)
	m.Name = "register"
	step := m.Step
	m.Step = func(state V, in Access[V], out *Answer[V]) (V, bool) {
		if in.Kind == CompareAndSet {
			return state, false
		}
		return step(state, in, out)
	}
	return m
}

// CASRegister is a register for each key with compare-and-set.
func CASRegister[V comparable](initial V) Model[V, Access[V], Answer[V]] {
	return Model[V, Access[V], Answer[V]]{
		Name:     "compare-and-set register",
		Init:     func() V { return initial },
		Equal:    func(a, b V) bool { return a == b },
		Key:      func(in Access[V]) string { return in.Key },
		ReadOnly: readOnlyAccess[V],
		Describe: describeAccess[V],
		decide: func(h History[Access[V], Answer[V]], ops []int32) (finding, bool) {
			return decideRegister(h, ops, initial)
		},
		clusters: registerClusters[V],
		refute:   func(h History[Access[V], Answer[V]]) (finding, bool) { return refuteSequential(h, initial) },
		Step: func(state V, in Access[V], out *Answer[V]) (V, bool) {
			switch in.Kind {
			case Read:
				return state, out == nil || out.Value == state
			case Write:
				return in.Value, true
			case CompareAndSet:
				switch swap := state == in.Old; {
				case out != nil && out.OK != swap:
					return state, false
				case swap:
					return in.Value, true
				default:
					return state, true
				}
			case Append:
			}
			return state, false
		},
	}
}

// KV is a key-value store of strings with append; a key that was never written holds "".
func KV() Model[string, Access[string], Answer[string]] {
	m := CASRegister("")
	m.Name = "key-value store"
	step := m.Step
	m.Step = func(state string, in Access[string], out *Answer[string]) (string, bool) {
		if in.Kind == Append {
			return state + in.Value, true
		}
		return step(state, in, out)
	}
	return m
}

func readOnlyAccess[V comparable](in Access[V], out *Answer[V]) bool {
	return in.Kind == Read || in.Kind == CompareAndSet && (in.Old == in.Value || out != nil && !out.OK)
}

func describeAccess[V comparable](in Access[V], out *Answer[V]) string {
	switch in.Kind {
	case Read:
		if out == nil {
			return strings.TrimSpace("read " + in.Key)
		}
		return "read " + assign(in.Key, out.Value)
	case CompareAndSet:
		text := fmt.Sprintf("cas %s to %s", assign(in.Key, in.Old), assign("", in.Value))
		if out != nil && !out.OK {
			text += " refused"
		}
		return text
	case Write, Append:
	}
	return fmt.Sprintf("%v %s", in.Kind, assign(in.Key, in.Value))
}

// MultiRegister is a set of registers of which each operation reads and writes several at one moment. In is a list of
// reads and writes, done in order; Out holds the value read for each read and is ignored elsewhere.
func MultiRegister[V comparable](initial V) Model[map[string]V, []Access[V], []V] {
	value := func(state map[string]V, key string) V {
		if v, ok := state[key]; ok {
			return v
		}
		return initial
	}
	return Model[map[string]V, []Access[V], []V]{
		Name:  "multi-register",
		Init:  func() map[string]V { return nil },
		Equal: func(a, b map[string]V) bool { return maps.Equal(a, b) },
		ReadOnly: func(in []Access[V], _ *[]V) bool {
			return !slices.ContainsFunc(in, func(a Access[V]) bool { return a.Kind != Read })
		},
		Describe: func(in []Access[V], out *[]V) string {
			var parts []string
			for i, a := range in {
				var answer *Answer[V]
				if out != nil && i < len(*out) {
					answer = &Answer[V]{Value: (*out)[i], OK: true}
				}
				parts = append(parts, describeAccess(a, answer))
			}
			return strings.Join(parts, ", ")
		},
		Step: func(state map[string]V, in []Access[V], out *[]V) (map[string]V, bool) {
			if out != nil && len(*out) < len(in) {
				return state, false
			}
			next, mine := state, false
			for i, a := range in {
				switch a.Kind {
				case Read:
					if out != nil && (*out)[i] != value(next, a.Key) {
						return state, false
					}
				case Write:
					if !mine {
						next, mine = maps.Clone(state), true
						if next == nil {
							next = make(map[string]V)
						}
					}
					next[a.Key] = a.Value
				case CompareAndSet, Append:
					return state, false
				}
			}
			return next, true
		},
	}
}

// CounterKind is what a CounterIn does.
type CounterKind uint8

// The kinds of CounterIn.
const (
	CounterRead   CounterKind = iota // answers the count
	CounterAdd                       // adds; the answer is ignored
	CounterAddGet                    // adds, and answers the count after it
)

// CounterIn is what a client asks of a counter.
type CounterIn struct {
	Kind  CounterKind `json:"kind"`
	Key   string      `json:"key,omitempty"`
	Delta int64       `json:"delta,omitempty"` // what to add; may be negative
}

// Counter is a counter for each key, from 0; Out is the count.
func Counter() Model[int64, CounterIn, int64] {
	return Model[int64, CounterIn, int64]{
		Name:  "counter",
		Init:  func() int64 { return 0 },
		Equal: func(a, b int64) bool { return a == b },
		Key:   func(in CounterIn) string { return in.Key },
		ReadOnly: func(in CounterIn, _ *int64) bool {
			return in.Kind == CounterRead || in.Delta == 0
		},
		Describe: func(in CounterIn, out *int64) string {
			switch {
			case in.Kind == CounterAdd || out == nil && in.Kind == CounterAddGet:
				return fmt.Sprintf("add %s%+d", in.Key, in.Delta)
			case in.Kind == CounterAddGet:
				return fmt.Sprintf("add %s%+d = %d", in.Key, in.Delta, *out)
			case out == nil:
				return "count " + in.Key
			}
			return fmt.Sprintf("count %s = %d", in.Key, *out)
		},
		Step: func(state int64, in CounterIn, out *int64) (int64, bool) {
			switch in.Kind {
			case CounterRead:
				return state, out == nil || *out == state
			case CounterAdd:
				return state + in.Delta, true
			case CounterAddGet:
				return state + in.Delta, out == nil || *out == state+in.Delta
			}
			return state, false
		},
	}
}
