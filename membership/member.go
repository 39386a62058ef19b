package membership

import (
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
)

// State is what a member is taken for.
type State uint8

// The states of a member. Within one incarnation a member only goes down this list; to come back it must speak up
// itself, with a higher incarnation.
const (
	Alive       State = iota // heard of in time
	Suspect                  // late; it has a while to refute that
	Unreachable              // the suspicion ran out: failed or cut off; it is kept, and tried again at a low rate
	Dead                     // given up, by time or by an operator: not tried again
	Left                     // it said goodbye
)

// String returns "alive", "suspect", "unreachable", "dead" or "left".
func (s State) String() string {
	switch s {
	case Alive:
		return "alive"
	case Suspect:
		return "suspect"
	case Unreachable:
		return "unreachable"
	case Dead:
		return "dead"
	case Left:
		return "left"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Liveness is what a coterie.Detector says of a member in this state: Unreachable, Dead and Left are all
// coterie.Dead.
func (s State) Liveness() coterie.Liveness {
	switch s {
	case Alive:
		return coterie.Alive
	case Suspect:
		return coterie.Suspect
	default:
		return coterie.Dead
	}
}

// Member is what is known of one member at one moment: a value, safe to keep and to read concurrently. T is the type
// of its metadata, []byte where it has not been decoded; nobody may change those bytes.
type Member[T any] struct {
	ID          coterie.NodeID
	Address     string // where its transport is reached, as it said itself; empty if it said nothing
	State       State
	Incarnation uint64    // how often it has spoken up for itself: a higher one replaces everything lower
	Life        uint32    // drawn at each start: another one means that the process was restarted
	Since       time.Time // when this node learned of State
	Meta        T         // what the member says of itself
	Err         error     // why Meta is not there, nil if it is: ErrPending, or that of decoding it
}

// ErrPending is the Err of a member whose metadata is too large for gossip and is still being fetched. An event tells
// when it is there.
var ErrPending = fmt.Errorf("membership: metadata is being fetched")

// Kind says how a member changed.
type Kind uint8

// The kinds of Event.
const (
	EventJoin    Kind = iota + 1 // it is new, or is back: from Unreachable, Dead or Left to Alive
	EventUpdate                  // its metadata or address changed, or it was restarted unnoticed
	EventSuspect                 // it is late
	EventTrust                   // it refuted the suspicion
	EventFail                    // it is Unreachable
	EventDead                    // it was given up
	EventLeave                   // it said goodbye
	EventForget                  // it is no longer remembered; Member is its last state
)

// String returns "join", "update", "suspect", "trust", "fail", "dead", "leave" or "forget".
func (k Kind) String() string {
	names := [...]string{"", "join", "update", "suspect", "trust", "fail", "dead", "leave", "forget"}
	if k == 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
	return names[k]
}

// Event is one change of one member. It is a value, safe to keep.
type Event[T any] struct {
	Kind   Kind
	Member Member[T] // as it is after the change
}

// String is like "suspect b@3".
func (e Event[T]) String() string {
	return fmt.Sprintf("%v %s@%d", e.Kind, e.Member.ID, e.Member.Incarnation)
}
