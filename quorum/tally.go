package quorum

import (
	"fmt"

	"github.com/coterie-go/coterie"
)

// Outcome is what a vote has come to.
type Outcome uint8

// The outcomes of a vote. Won and Lost are final.
const (
	Pending Outcome = iota // more answers could decide either way
	Won                    // a quorum said yes
	Lost                   // a quorum of yes is no longer possible
)

// String returns "pending", "won" or "lost".
func (o Outcome) String() string {
	switch o {
	case Pending:
		return "pending"
	case Won:
		return "won"
	case Lost:
		return "lost"
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// Tally counts the answers to one question, put to the nodes of a System under one ballot (a term, a view, a
// transaction). It counts nodes, not messages: the first answer of a node stands, and neither a repetition nor a
// change of mind nor a node that the System does not speak of counts. It knows Won and Lost as early as they can be
// known.
//
// A Tally is a small value without pointers of its own; Reset begins the next ballot without allocation. The zero
// Tally, and one of a System with an error, is Lost. It is not safe for concurrent use.
type Tally struct {
	sys     *system
	ballot  uint64
	yes, no Set
	outcome Outcome
}

// NewTally returns an empty Tally of a System for a ballot.
func NewTally(sys System, ballot uint64) Tally {
	t := Tally{sys: sys.impl()}
	t.Reset(ballot)
	return t
}

// Reset forgets all answers and begins another ballot in the same System.
func (t *Tally) Reset(ballot uint64) {
	t.ballot, t.yes, t.no, t.outcome = ballot, 0, 0, Pending
	if t.sys == nil || t.sys.err != nil {
		t.outcome = Lost
	}
}

// Add counts the answer of a node to this ballot, and returns the outcome so far. The caller has checked that the
// answer is to this ballot; AddAt does both.
func (t *Tally) Add(id coterie.NodeID, ok bool) Outcome {
	if t.sys == nil {
		return Lost
	}
	i := t.sys.index(id)
	if i < 0 || (t.yes | t.no).Has(i) {
		return t.outcome
	}
	if ok {
		t.yes = t.yes.With(i)
		if t.outcome == Pending && t.sys.root.opens(t.yes) {
			t.outcome = Won
		}
		return t.outcome
	}
	t.no = t.no.With(i)
	if t.outcome == Pending && !t.sys.root.opens(t.sys.all()&^t.no) {
		t.outcome = Lost
	}
	return t.outcome
}

// AddAt counts the answer of a node if it is to this ballot, and returns the outcome so far: an answer to another
// ballot, however late or early it comes, is not counted.
func (t *Tally) AddAt(ballot uint64, id coterie.NodeID, ok bool) Outcome {
	if ballot != t.ballot {
		return t.Outcome()
	}
	return t.Add(id, ok)
}

// Outcome returns what the vote has come to so far.
func (t *Tally) Outcome() Outcome {
	if t.sys == nil {
		return Lost
	}
	return t.outcome
}

// Ballot returns the ballot that is counted.
func (t *Tally) Ballot() uint64 { return t.ballot }

// Answered reports whether the node's answer has been counted; ok is what it was.
func (t *Tally) Answered(id coterie.NodeID) (ok, answered bool) {
	if t.sys == nil {
		return false, false
	}
	i := t.sys.index(id)
	if i < 0 {
		return false, false
	}
	return t.yes.Has(i), (t.yes | t.no).Has(i)
}
