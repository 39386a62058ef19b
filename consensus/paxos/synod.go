package paxos

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/quorum"
)

// SynodConfig configures a Synod.
type SynodConfig struct {
	ID       coterie.NodeID   // required
	Quorums  quorum.ReadWrite // required; its nodes are the acceptors; reads are phase 1, writes phase 2
	Learners []coterie.NodeID // who is told when this node finds out, besides the acceptors
	Seed     uint64           // required, another one for each incarnation; pauses between ballots are drawn from it
	// Timeout is how long a ballot may take, and the least pause before the next one. Default 100 ms.
	Timeout time.Duration
}

// Synod is single-decree Paxos (Lamport 1998, §2; 2001, §2): its nodes choose one value, once and for ever. Each node
// may propose; those of the quorums are acceptors, and durable; all learn. It is a coterie.Core.
//
// A Synod is not safe for concurrent use.
type Synod struct {
	cfg      SynodConfig
	rand     rand.PCG
	out      coterie.Outbox
	acceptor Acceptor
	proposer *Proposer
	learner  *Learner
	nodes    []coterie.NodeID // acceptors and learners

	want  []byte // what this node proposes
	wants bool   // a ballot is wanted, for want or for a read
	busy  bool   // one is under way
	due   time.Time
	told  bool // Chosen was emitted
	reads bool // a Read waits
	saves int
	bug   bool // planted by tests: a read tells what it saw without bringing it to a quorum
}

// Chosen is an event of a Synod: this value is chosen.
type Chosen struct {
	Value []byte
}

// Unchosen is an event of a Synod, the answer to Read: no value has been chosen before the Read began to be answered.
type Unchosen struct{}

// NewSynod returns the Synod of one node.
func NewSynod(cfg SynodConfig) (*Synod, error) {
	var errs []error
	if cfg.ID == "" {
		errs = append(errs, errors.New("paxos: SynodConfig.ID is empty"))
	}
	if cfg.Seed == 0 {
		errs = append(errs, errors.New("paxos: SynodConfig.Seed is 0"))
	}
	if len(cfg.Quorums.Nodes()) == 0 {
		errs = append(errs, errors.New("paxos: SynodConfig.Quorums has no nodes"))
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 100 * time.Millisecond
	}
	if cfg.Timeout < 0 {
		errs = append(errs, fmt.Errorf("paxos: SynodConfig.Timeout %v is negative", cfg.Timeout))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s := &Synod{
		cfg: cfg, proposer: NewProposer(cfg.ID, cfg.Quorums), learner: NewLearner(cfg.Quorums),
		nodes: cfg.Quorums.Nodes(),
	}
	for _, id := range append(slices.Clone(cfg.Learners), cfg.ID) {
		if !slices.Contains(s.nodes, id) {
			s.nodes = append(s.nodes, id)
		}
	}
	s.rand.Seed(cfg.Seed, 0x73796e6f64)
	return s, nil
}

// The messages of a Synod, and its record, are format | kind | ballot | kind's own.
type synodKind byte

const (
	synodPrepare  synodKind = iota + 64 // 1a
	synodPromise                        // 1b: ballot, the proposal accepted before
	synodAccept                         // 2a: value
	synodAccepted                       // 2b: value
	synodRefused                        // the ballot that was promised instead
	synodChosen                         // value
	synodState                          // record: promised, the proposal accepted
	synodBegun                          // record: this ballot is used
)

type synodMessage struct {
	kind     synodKind
	ballot   Ballot
	accepted Ballot
	value    []byte
}

func (m *synodMessage) encode() []byte {
	b := appendBallot([]byte{format, byte(m.kind)}, m.ballot)
	switch m.kind {
	case synodPromise, synodState:
		b = wire.AppendBytes(appendBallot(b, m.accepted), m.value)
	case synodAccept, synodAccepted, synodChosen:
		b = wire.AppendBytes(b, m.value)
	case synodPrepare, synodRefused, synodBegun:
	}
	return b
}

func (m *synodMessage) decode(payload []byte) error {
	r := wire.NewReader(payload)
	if err := readFormat(&r, "paxos synod message"); err != nil {
		return err
	}
	m.kind = synodKind(r.Byte())
	m.ballot = readBallot(&r, Ballot{})
	switch m.kind {
	case synodPrepare, synodRefused, synodBegun:
	case synodPromise, synodState:
		m.accepted = readBallot(&r, Ballot{})
		m.value = r.Bytes()
	case synodAccept, synodAccepted, synodChosen:
		m.value = r.Bytes()
	default:
		r.Fail("unknown kind %d", m.kind)
	}
	return r.Done()
}

// Replay takes back the acceptor's state, or a ballot that was begun.
func (s *Synod) Replay(record []byte) error {
	var m synodMessage
	if err := m.decode(record); err != nil {
		return err
	}
	switch m.kind {
	case synodState:
		s.acceptor.Restore(m.ballot, Proposal{m.accepted, m.value})
		s.proposer.After(m.ballot)
	case synodBegun:
		s.proposer.After(m.ballot)
	case synodChosen:
		s.learner.Learn(m.value)
	case synodPrepare, synodPromise, synodAccept, synodAccepted, synodRefused:
		return fmt.Errorf("%w: %d is no record", wire.ErrMalformed, m.kind)
	}
	return nil
}

// Propose asks for a value to be chosen. What is chosen, this or another, is told by Chosen. The value is not empty.
func (s *Synod) Propose(now time.Time, value []byte) error {
	if len(value) == 0 {
		return errors.New("paxos: the value is empty")
	}
	s.want, s.wants = value, true
	s.begin(now)
	return nil
}

// Read asks whether a value is chosen, linearizably: the answer is Chosen or Unchosen. A value that some acceptor has
// accepted is brought to a quorum before it is told of, or else one Read could see it and a later one not
// (CASSANDRA-12126).
func (s *Synod) Read(now time.Time) {
	s.reads, s.wants = true, true
	s.begin(now)
}

// begin starts a ballot unless one is under way.
func (s *Synod) begin(now time.Time) {
	if value, ok := s.learner.Chosen(); ok {
		s.chosen(value)
		return
	}
	if s.busy {
		return
	}
	s.busy = true
	s.due = now.Add(s.cfg.Timeout)
	b := s.proposer.Begin(s.want)
	// The ballot must never be used again, also if none of the acceptors is this node.
	s.save(synodMessage{kind: synodBegun, ballot: b})
	s.sendAcceptors(synodMessage{kind: synodPrepare, ballot: b})
}

func (s *Synod) save(m synodMessage) {
	s.out.Save(m.encode())
	s.saves++
	if s.saves%64 == 0 {
		// What stands alone takes the place of all before.
		promised, accepted := s.acceptor.State()
		state := synodMessage{kind: synodState, ballot: promised, accepted: accepted.Ballot, value: accepted.Value}
		begun := synodMessage{kind: synodBegun, ballot: s.proposer.Ballot()}
		s.out.Save(state.encode())
		s.out.Save(begun.encode())
		s.out.Keep(2)
	}
}

func (s *Synod) sendAcceptors(m synodMessage) {
	payload := m.encode()
	for _, id := range s.cfg.Quorums.Nodes() {
		s.out.Send(id, payload)
	}
}

// Step takes one message.
func (s *Synod) Step(_ time.Time, from coterie.NodeID, payload []byte) error {
	var m synodMessage
	if err := m.decode(payload); err != nil {
		return err
	}
	switch m.kind {
	case synodPrepare:
		if m.ballot.Node != from {
			return fmt.Errorf("paxos: %s prepares ballot %v of another", from, m.ballot)
		}
		s.handlePrepare(from, m)
	case synodPromise:
		if proposal, ready := s.proposer.Promise(from, m.ballot, Proposal{m.accepted, m.value}); ready {
			s.phase2(proposal)
		}
	case synodAccept:
		if m.ballot.Node != from {
			return fmt.Errorf("paxos: %s proposes in ballot %v of another", from, m.ballot)
		}
		s.handleAccept(from, m)
	case synodAccepted:
		if s.learner.Accepted(from, Proposal{m.ballot, m.value}) {
			s.chosen(m.value)
		}
	case synodRefused:
		// The next ballot is higher. It begins after a pause, so that of two proposers one gets through.
		s.proposer.After(m.ballot)
	case synodChosen:
		if _, known := s.learner.Chosen(); !known {
			s.learner.Learn(m.value)
			s.chosen(m.value)
		}
	case synodState, synodBegun:
		return fmt.Errorf("%w: kind %d is a record, not a message", wire.ErrMalformed, m.kind)
	}
	return nil
}

func (s *Synod) handlePrepare(from coterie.NodeID, m synodMessage) {
	if value, ok := s.learner.Chosen(); ok {
		answer := synodMessage{kind: synodChosen, value: value}
		s.out.Send(from, answer.encode())
		return
	}
	accepted, ok := s.acceptor.Prepare(m.ballot)
	if !ok {
		s.refuse(from)
		return
	}
	s.saveAcceptor()
	answer := synodMessage{kind: synodPromise, ballot: m.ballot, accepted: accepted.Ballot, value: accepted.Value}
	s.out.Send(from, answer.encode())
}

func (s *Synod) handleAccept(from coterie.NodeID, m synodMessage) {
	if value, ok := s.learner.Chosen(); ok {
		answer := synodMessage{kind: synodChosen, value: value}
		s.out.Send(from, answer.encode())
		return
	}
	if !s.acceptor.Accept(Proposal{m.ballot, m.value}) {
		s.refuse(from)
		return
	}
	s.saveAcceptor()
	answer := synodMessage{kind: synodAccepted, ballot: m.ballot, value: m.value}
	s.out.Send(from, answer.encode())
}

func (s *Synod) refuse(from coterie.NodeID) {
	promised, _ := s.acceptor.State()
	answer := synodMessage{kind: synodRefused, ballot: promised}
	s.out.Send(from, answer.encode())
}

func (s *Synod) saveAcceptor() {
	promised, accepted := s.acceptor.State()
	s.save(synodMessage{kind: synodState, ballot: promised, accepted: accepted.Ballot, value: accepted.Value})
}

// phase2 proposes, or ends a read that found nothing.
func (s *Synod) phase2(p Proposal) {
	if p.Value == nil {
		s.busy, s.wants = false, s.want != nil
		if s.reads {
			s.reads = false
			s.out.Emit(Unchosen{})
		}
		return
	}
	if s.bug && s.want == nil {
		s.out.Emit(Chosen{p.Value})
		s.busy, s.wants, s.reads = false, false, false
		return
	}
	s.sendAcceptors(synodMessage{kind: synodAccept, ballot: p.Ballot, value: p.Value})
}

// chosen tells the application, once and whenever it asks, and the other nodes.
func (s *Synod) chosen(value []byte) {
	if !s.told {
		m := synodMessage{kind: synodChosen, value: value}
		payload := m.encode()
		s.out.Save(payload)
		for _, id := range s.nodes {
			if id != s.cfg.ID {
				s.out.Send(id, payload)
			}
		}
	}
	if !s.told || s.reads || s.wants {
		s.out.Emit(Chosen{value})
	}
	s.told, s.reads, s.wants, s.busy = true, false, false, false
}

// Tick begins the next ballot if the last one came to nothing.
func (s *Synod) Tick(now time.Time) {
	if value, ok := s.learner.Chosen(); ok && !s.told {
		s.told = true
		s.out.Emit(Chosen{value})
	}
	if !s.wants || now.Before(s.due) {
		return
	}
	if s.busy {
		s.busy = false
		s.due = now.Add(time.Duration(s.rand.Uint64() % uint64(2*s.cfg.Timeout)))
		return
	}
	s.begin(now)
}

// Ready ends a batch.
func (s *Synod) Ready() coterie.Ready {
	if s.wants {
		s.out.Wake(s.due)
	}
	return s.out.Take()
}

// Describe returns a line about a message or record, for traces.
func (s *Synod) Describe(payload []byte) string {
	var m synodMessage
	if err := m.decode(payload); err != nil {
		return err.Error()
	}
	names := [...]string{"Prepare", "Promise", "Accept", "Accepted", "Refused", "Chosen", "State", "Begun"}
	return fmt.Sprintf("%s %v accepted=%v value=%q", names[m.kind-synodPrepare], m.ballot, m.accepted, m.value)
}
