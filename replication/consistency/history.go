package consistency

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrHistory is what every complaint about a malformed history is.
var ErrHistory = errors.New("consistency: malformed history")

// Operation is one call of one client and what came of it.
type Operation[In, Out any] struct {
	Client int // who called; a client has at most one operation under way
	In     In  // what it asked for
	Out    Out // what it was answered; without meaning if Unknown

	// Call and Return are the times since the start of the history. An operation took effect at one moment between
	// them, both ends included: of two operations one precedes the other only if it returned strictly before the
	// other was called. A client's own operations are in order even if one returned at the moment the next was called.
	Call, Return time.Duration

	// Unknown marks an operation whose outcome nobody knows, because the client crashed or gave up waiting: it may
	// have happened, may happen at any time after Call, or never. Return and Out then say nothing.
	Unknown bool
}

// History is what clients saw: operations in any order.
type History[In, Out any] []Operation[In, Out]

// Validate returns an ErrHistory if an operation returns before it is called, or a client calls before its last
// operation returned. An operation of unknown outcome ends when its client calls again.
func (h History[In, Out]) Validate() error {
	for i := range h {
		if op := &h[i]; !op.Unknown && op.Return < op.Call {
			return fmt.Errorf("%w: operation %d returned at %v, before its call at %v", ErrHistory, i, op.Return, op.Call)
		}
	}
	for client, ops := range h.sessions() {
		for j := 1; j < len(ops); j++ {
			before, after := &h[ops[j-1]], &h[ops[j]]
			if !before.Unknown && after.Call < before.Return {
				return fmt.Errorf("%w: client %d called operation %d at %v, before its operation %d returned at %v",
					ErrHistory, client, ops[j], after.Call, ops[j-1], before.Return)
			}
		}
	}
	return nil
}

// sessions returns each client's operations in program order, as indices.
func (h History[In, Out]) sessions() map[int][]int32 {
	sessions := make(map[int][]int32)
	for i := range h {
		sessions[h[i].Client] = append(sessions[h[i].Client], int32(i))
	}
	for _, ops := range sessions {
		h.sortByCall(ops)
	}
	return sessions
}

// sortByCall sorts indices by time of call, and those called at one moment by how long they took, so that of one
// client's operations the one that took no time precedes.
func (h History[In, Out]) sortByCall(ops []int32) {
	compare := func(a, b int32) int {
		x, y := &h[a], &h[b]
		if x.Call != y.Call {
			return cmp.Compare(x.Call, y.Call)
		}
		return cmp.Or(cmp.Compare(x.span(), y.span()), cmp.Compare(a, b))
	}
	if !slices.IsSortedFunc(ops, compare) {
		slices.SortFunc(ops, compare)
	}
}

// span is how long an operation took; one of unknown outcome ends at once for its client, after those that took no time.
func (op *Operation[In, Out]) span() time.Duration {
	switch {
	case op.Unknown:
		return 1
	case op.Return == op.Call:
		return 0
	}
	return op.Return - op.Call + 1
}

// Pick returns the operations at the given indices.
func (h History[In, Out]) Pick(ops []int) History[In, Out] {
	picked := make(History[In, Out], 0, len(ops))
	for _, i := range ops {
		picked = append(picked, h[i])
	}
	return picked
}
