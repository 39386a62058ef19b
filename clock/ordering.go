package clock

import "fmt"

// Ordering is how one event, or one set of events, stands to another in the happened-before order (Lamport, 1978).
// That order is partial, hence the fourth value.
type Ordering int8

// The four outcomes of a comparison; the first three are -1, 0 and +1, as those of cmp.Compare.
const (
	Before     Ordering = -1 // the first happened before the second: the second knows all that the first knew
	Equal      Ordering = 0  // they know the same
	After      Ordering = 1  // the second happened before the first
	Concurrent Ordering = 2  // neither knows all that the other knows
)

// String returns "before", "equal", "after" or "concurrent".
func (o Ordering) String() string {
	switch o {
	case Before:
		return "before"
	case Equal:
		return "equal"
	case After:
		return "after"
	case Concurrent:
		return "concurrent"
	}
	return fmt.Sprintf("ordering(%d)", int8(o))
}

// Inverse returns the Ordering of the second to the first.
func (o Ordering) Inverse() Ordering {
	if o == Concurrent {
		return Concurrent
	}
	return -o
}

// ordering folds "something of the first is missing in the second" and its mirror image into an Ordering.
func ordering(less, greater bool) Ordering {
	switch {
	case less && greater:
		return Concurrent
	case less:
		return Before
	case greater:
		return After
	}
	return Equal
}
