package txn

import (
	"context"
	"errors"
	"fmt"
)

// ID names one transaction for ever: no other transaction, also after any crash, may have the same. A coordinator of
// package twophase makes them of its node's name, the number of its start and a counter, so that a message that
// comes late never touches a later transaction.
type ID string

// Vote is a participant's answer to Prepare. The zero value is No.
type Vote uint8

// The votes.
const (
	// No refuses: the transaction aborts everywhere.
	No Vote = iota
	// Yes promises: the participant can commit now and after any crash, and waits for the decision.
	Yes
	// ReadOnly agrees and leaves: the participant changed nothing, has let go of what it held, and hears of neither
	// Commit nor Abort (Mohan, Lindsay and Obermarck, 1986, section 3).
	ReadOnly
)

// String returns "no", "yes" or "read-only".
func (v Vote) String() string {
	switch v {
	case No:
		return "no"
	case Yes:
		return "yes"
	case ReadOnly:
		return "read-only"
	}
	return fmt.Sprintf("vote(%d)", uint8(v))
}

// Participant is a resource that takes part in transactions across nodes: a database, a queue, a store in memory. Its
// user does the work of a transaction first, under its ID, by means of the resource's own; then these methods end it.
//
// Every method is idempotent, since a node that crashed before it noted an answer asks again, and is called from many
// goroutines at once, but for one ID from one at a time. Calls may block; their ctx ends when the node closes.
type Participant interface {
	// Prepare asks whether the work done under id can be committed. With Yes the participant promises, durably, to be
	// able to commit or abort it, also after a crash, and may no longer abort it by itself. An id that it knows nothing
	// of, for instance because a crash took the work, must not get a Yes: the answer is ErrUnknown, or ReadOnly if the
	// participant cannot tell. An error is a No; after either, Abort follows.
	Prepare(ctx context.Context, id ID) (Vote, error)
	// Commit makes the work of a prepared transaction visible, durably. It is called again until it returns nil, for
	// the decision is final. Of a transaction that is not there, since it was committed before, it returns nil.
	Commit(ctx context.Context, id ID) error
	// Abort undoes the work done under id and lets go of what it held, prepared or not. It is called again until it
	// returns nil. Of a transaction that is not there it returns nil, and it never undoes one that was committed.
	Abort(ctx context.Context, id ID) error
}

// Recoverer is a Participant that remembers its prepared transactions by itself. After a restart its node asks for them
// and aborts those of which it has not noted a vote: nobody else will ever speak of them. A Participant that loses what
// it held in a crash, but for the promises that it gave, needs no Recoverer.
type Recoverer interface {
	Participant
	// Prepared lists the transactions that are prepared and neither committed nor aborted.
	Prepared(ctx context.Context) ([]ID, error)
}

// Errors that the packages of transactions share. They come wrapped: test with errors.Is.
var (
	// ErrAborted is returned when a transaction has been aborted: nothing of it happened anywhere. It may be tried again
	// from its beginning.
	ErrAborted = errors.New("txn: aborted")
	// ErrUnknown is returned for the ID of a transaction that is not there: it never was, or is finished and forgotten.
	ErrUnknown = errors.New("txn: unknown transaction")
	// ErrContradiction is returned for a decision that contradicts what is in the log: a commit of what was aborted, an
	// abort of what was committed. Nothing is changed. It tells of a bug, or of a disk that lost what it had promised.
	ErrContradiction = errors.New("txn: decision contradicts the log")
)
