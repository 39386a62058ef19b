package paxos

import (
	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/quorum"
)

// Proposal is a ballot and the value proposed in it. A ballot has one value only.
type Proposal struct {
	Ballot Ballot
	Value  []byte // nobody may change it
}

// Acceptor is the role that remembers: it promises and accepts (Lamport 2001, §2.2). Its state must be durable before
// an answer leaves, and Restore takes it back after a crash. The zero Acceptor is ready to use. It is not safe for
// concurrent use.
type Acceptor struct {
	promised Ballot
	accepted Proposal
}

// Restore sets the state that a former incarnation had.
func (a *Acceptor) Restore(promised Ballot, accepted Proposal) {
	a.promised, a.accepted = promised, accepted
}

// State returns what must be durable: the highest ballot promised, and the newest proposal accepted (its Ballot is zero
// if none was).
func (a *Acceptor) State() (promised Ballot, accepted Proposal) { return a.promised, a.accepted }

// Prepare answers phase 1a: if no higher ballot was promised, the acceptor promises to accept nothing lower than b, and
// returns the highest proposal that it has accepted. Asked again in the same ballot, it says the same again.
func (a *Acceptor) Prepare(b Ballot) (accepted Proposal, ok bool) {
	if b.Less(a.promised) || b.IsZero() {
		return Proposal{}, false
	}
	a.promised = b
	return a.accepted, true
}

// Accept answers phase 2a: the proposal is accepted unless a higher ballot was promised (P1a).
func (a *Acceptor) Accept(p Proposal) bool {
	if p.Ballot.Less(a.promised) || p.Ballot.IsZero() {
		return false
	}
	a.promised, a.accepted = p.Ballot, p
	return true
}

// Proposer is the role that gets a value chosen (Lamport 2001, §2.2), by quorums of which every one of phase 1 meets
// every one of phase 2 (Howard, Malkhi and Spiegelman 2016). It needs no disk, as long as it never uses a ballot twice:
// Begin's rounds only go up, and after a restart After must be told of a round that is at least as high as any used before.
// It is not safe for concurrent use.
type Proposer struct {
	id       coterie.NodeID
	quorums  quorum.ReadWrite
	round    uint64 // the highest heard of
	own      []byte // to be proposed if the choice is free
	promises quorum.Tally
	highest  Proposal // of those that promises told
	proposal Proposal // of phase 2; its ballot is zero in phase 1
	bug      roleBug
}

// roleBug is planted by tests.
type roleBug struct {
	countMessages bool // whatever promise comes counts, of whatever ballot
	ownValue      bool // what was accepted before is not heeded
}

// NewProposer returns a Proposer of that name.
func NewProposer(id coterie.NodeID, quorums quorum.ReadWrite) *Proposer {
	return &Proposer{id: id, quorums: quorums}
}

// After makes the proposer use ballots of higher rounds only: what it used before a restart, what a refusal told.
func (p *Proposer) After(b Ballot) { p.round = max(p.round, b.Round) }

// Begin starts phase 1 of a new ballot, to be sent to the acceptors as Prepare. value is what the proposer wants; nil
// wants nothing, and only finds out what there is.
func (p *Proposer) Begin(value []byte) Ballot {
	p.round++
	b := Ballot{p.round, p.id}
	p.own, p.highest, p.proposal = value, Proposal{}, Proposal{}
	p.promises = quorum.NewTally(p.quorums.Read(), b.Round)
	return b
}

// Ballot returns the ballot under way.
func (p *Proposer) Ballot() Ballot { return Ballot{p.round, p.id} }

// Promise counts an acceptor's promise. When a quorum has promised it returns the proposal of phase 2a, once: of "the
// value of the highest-numbered proposal among the responses", or the proposer's own if there is none. Its Value is nil
// if there is none either way: then nothing has been chosen, nor can be in a lower ballot. Promises are counted by
// acceptor and ballot, however often and late they come.
func (p *Proposer) Promise(from coterie.NodeID, b Ballot, accepted Proposal) (proposal Proposal, ready bool) {
	if b != p.Ballot() && !p.bug.countMessages || p.promises.Outcome() != quorum.Pending {
		return Proposal{}, false
	}
	if p.highest.Ballot.Less(accepted.Ballot) {
		p.highest = accepted
	}
	if p.promises.Add(from, true) != quorum.Won {
		return Proposal{}, false
	}
	p.proposal = Proposal{p.Ballot(), p.own}
	if !p.highest.Ballot.IsZero() && !p.bug.ownValue {
		p.proposal.Value = p.highest.Value
	}
	return p.proposal, true
}

// Proposal returns what was proposed in the ballot under way; its ballot is zero while that is in phase 1.
func (p *Proposer) Proposal() Proposal { return p.proposal }

// Learner is the role that finds out what was chosen (Lamport 2001, §2.3): a value that a quorum has accepted in one
// ballot. It is not safe for concurrent use.
type Learner struct {
	quorums quorum.ReadWrite
	ballots map[Ballot]*quorum.Tally // under way; lower ones than the newest are let go
	newest  Ballot
	value   []byte
	chosen  bool
}

// NewLearner returns a Learner.
func NewLearner(quorums quorum.ReadWrite) *Learner {
	return &Learner{quorums: quorums, ballots: map[Ballot]*quorum.Tally{}}
}

// maxBallots is how many ballots a Learner counts at a time. Whatever it lets go another ballot brings back.
const maxBallots = 16

// Accepted counts that an acceptor has accepted a proposal, and reports whether that shows a value to be chosen.
func (l *Learner) Accepted(from coterie.NodeID, p Proposal) (chosen bool) {
	if l.chosen || p.Ballot.IsZero() {
		return false
	}
	t := l.ballots[p.Ballot]
	if t == nil {
		if len(l.ballots) >= maxBallots {
			if p.Ballot.Less(l.newest) {
				return false
			}
			clear(l.ballots)
		}
		tally := quorum.NewTally(l.quorums.Write(), p.Ballot.Round)
		t = &tally
		l.ballots[p.Ballot] = t
		if l.newest.Less(p.Ballot) {
			l.newest = p.Ballot
		}
	}
	if t.Add(from, true) != quorum.Won {
		return false
	}
	l.Learn(p.Value)
	return true
}

// Learn takes the word of another learner that a value was chosen.
func (l *Learner) Learn(value []byte) { l.chosen, l.value, l.ballots = true, value, nil }

// Chosen returns the chosen value, if it is known.
func (l *Learner) Chosen() (value []byte, ok bool) { return l.value, l.chosen }
