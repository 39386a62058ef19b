package paxos

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

// lone is one core whose messages the test reads and writes itself.
type lone struct {
	*Core
	t       *testing.T
	now     time.Time
	cfg     Config
	journal [][]byte
	sent    []coterie.Envelope
	events  []any
}

func newLone(t *testing.T, b bugs, ids ...coterie.NodeID) *lone {
	t.Helper()
	n := &lone{t: t, now: time.Unix(0, 0), cfg: Config{ID: ids[0], Voters: map[coterie.NodeID]string{}, Seed: 1}}
	for _, id := range ids {
		n.cfg.Voters[id] = ""
	}
	n.boot(b)
	return n
}

func (n *lone) boot(b bugs) {
	n.t.Helper()
	core, err := NewCore(n.cfg)
	require.NoError(n.t, err)
	core.bugs = b
	n.Core = core
	for _, r := range n.journal {
		require.NoError(n.t, core.Replay(r))
	}
	core.Tick(n.now)
	n.sent, n.events = nil, nil
	n.ready()
}

func (n *lone) crash() { n.boot(n.bugs) }

// ready performs the effects; mail to itself comes back at once.
func (n *lone) ready() {
	n.t.Helper()
	for {
		r := n.Ready()
		n.journal = append(n.journal, r.Save...)
		n.events = append(n.events, r.Events...)
		own := false
		for _, e := range slices.Clone(r.Send) {
			if e.To == n.cfg.ID {
				require.NoError(n.t, n.Step(n.now, n.cfg.ID, e.Payload))
				own = true
				continue
			}
			n.sent = append(n.sent, e)
		}
		if !own {
			return
		}
	}
}

// receive takes a message and returns what is sent upon it.
func (n *lone) receive(from coterie.NodeID, m message) []message {
	n.t.Helper()
	n.sent = nil
	require.NoError(n.t, n.Step(n.now, from, m.encode(nil)))
	n.ready()
	return n.answers()
}

func (n *lone) answers() (all []message) {
	n.t.Helper()
	for _, e := range n.sent {
		var m message
		require.NoError(n.t, m.decode(e.Payload, Ballot{}))
		if m.body != nil && m.kind != kindSnapshot {
			require.NoError(n.t, m.readValues())
		}
		all = append(all, m)
	}
	return all
}

func (n *lone) after(d time.Duration) {
	n.now = n.now.Add(d)
	n.sent = nil
	n.Tick(n.now)
	n.ready()
}

// candidate makes the node ask everybody in a ballot of its own, and returns that.
func (n *lone) candidate(others ...coterie.NodeID) Ballot {
	n.t.Helper()
	n.after(3 * time.Second)
	require.True(n.t, n.bid.poll)
	poll := n.bid.ballot
	for _, id := range others {
		n.receive(id, message{kind: kindPromise, poll: true, willing: true, ballot: poll, first: 1})
	}
	require.False(n.t, n.bid.poll)
	return n.bid.ballot
}

func acceptOf(ballot Ballot, slot uint64, command string) message {
	return message{kind: kindAccept, ballot: ballot, first: slot, count: 1, body: appendOwn(nil, &consensus.Entry{Command: []byte(command)})}
}

// promiseOf is a promise that reports one accepted value; none if the ballot is zero.
func promiseOf(ballot Ballot, slot uint64, accepted Ballot, command string) message {
	m := message{kind: kindPromise, willing: true, ballot: ballot, first: 1}
	if !accepted.IsZero() {
		l := slotLog{start: slot - 1}
		l.grow(slot)
		s, e := l.at(slot)
		*s, *e = slot1(&l, accepted), consensus.Entry{Command: []byte(command)}
		for i := uint64(1); i < slot; i++ {
			m.body = append(m.body, headEmpty)
		}
		m.body, m.count = l.appendReport(m.body, s, e), int(slot)
	}
	return m
}

func slot1(l *slotLog, b Ballot) slot {
	return slot{state: accepted, ballot: l.era(b), origin: l.era(b)}
}

// Promises are counted by node and ballot: a network that repeats and delays every answer makes no quorum
// (xnnyygn/xraft#27; luohaha/MyPaxos#18, where a late answer to an older Prepare decided two values).
func TestPromisesAreCountedByNodeAndBallot(t *testing.T) {
	leads := func(b bugs) bool {
		n := newLone(t, b, "a", "b", "c", "d", "e")
		first := n.candidate("b", "c")
		second := n.candidate("b", "c")
		require.True(t, first.Less(second))
		for range 5 {
			n.receive("b", promiseOf(second, 1, Ballot{}, ""))
			n.receive("c", promiseOf(first, 1, Ballot{}, ""))
			n.receive("d", promiseOf(first, 1, Ballot{}, ""))
		}
		return n.lead != nil
	}
	require.False(t, leads(bugs{}))
	require.True(t, leads(bugs{countAnyPromise: true}), "the mutant is found")

	n := newLone(t, bugs{}, "a", "b", "c", "d", "e")
	b := n.candidate("b", "c")
	n.receive("b", promiseOf(b, 1, Ballot{}, ""))
	require.Nil(t, n.lead)
	n.receive("d", promiseOf(b, 1, Ballot{}, ""))
	require.NotNil(t, n.lead, "three of five")
}

// Votes too: repeated by one acceptor, or of another ballot, they choose nothing.
func TestVotesAreCountedByNodeAndBallot(t *testing.T) {
	n := newLone(t, bugs{}, "a", "b", "c", "d", "e")
	b := n.candidate("b", "c")
	n.receive("b", promiseOf(b, 1, Ballot{}, ""))
	n.receive("c", promiseOf(b, 1, Ballot{}, ""))
	n.Propose(n.now, 7, []byte("x"))
	n.ready()
	vote := message{kind: kindAccepted, ballot: b, spans: []span{{1, 1}}}
	for range 5 {
		n.receive("b", vote)
		n.receive("c", message{kind: kindAccepted, ballot: Ballot{b.Round - 1, "a"}, spans: []span{{1, 1}}})
		n.receive("stranger", vote)
	}
	require.Zero(t, n.chosen)
	n.receive("c", vote)
	require.EqualValues(t, 1, n.chosen)
}

// P1a: "An acceptor can accept a proposal numbered n iff it has not responded to a prepare request having a number
// greater than n" (Lamport 2001, §2.2), also across a crash.
func TestPaper22PromiseSurvivesCrash(t *testing.T) {
	refused := func(b bugs, m message) bool {
		n := newLone(t, b, "a", "b", "c")
		answers := n.receive("b", message{kind: kindPrepare, ballot: Ballot{5, "b"}, first: 1})
		require.Equal(t, kindPromise, answers[0].kind)
		n.crash()
		n.now = n.now.Add(5 * time.Second) // nobody is owed silence any more
		answers = n.receive("c", m)
		return len(answers) == 1 && answers[0].kind == kindRefused && answers[0].ballot == Ballot{5, "b"}
	}
	prepare := message{kind: kindPrepare, ballot: Ballot{4, "c"}, first: 1}
	accept := acceptOf(Ballot{4, "c"}, 1, "x")
	require.True(t, refused(bugs{}, prepare))
	require.True(t, refused(bugs{}, accept))
	require.False(t, refused(bugs{forgetPromise: true}, prepare), "the mutant is found")
	require.False(t, refused(bugs{forgetPromise: true}, accept), "the mutant is found")
	require.False(t, refused(bugs{acceptLower: true}, accept), "the mutant is found")
}

// P2c: the proposal has "the value of the highest-numbered proposal among all proposals numbered less than n accepted by
// the acceptors in S" (Lamport 2001, §2.2).
func TestPaper22HighestReportIsProposed(t *testing.T) {
	proposed := func(b bugs) string {
		n := newLone(t, b, "a", "b", "c", "d", "e")
		ballot := n.candidate("b", "c")
		n.receive("b", promiseOf(ballot, 1, Ballot{1, "d"}, "old"))
		for _, m := range n.receive("c", promiseOf(ballot, 1, Ballot{1, "e"}, "new")) {
			if m.kind == kindAccept && m.count > 0 {
				return string(m.entries[0].Command)
			}
		}
		return ""
	}
	require.Equal(t, "new", proposed(bugs{}))
	require.Equal(t, "old", proposed(bugs{lowestReport: true}), "the mutant is found")
	require.Empty(t, proposed(bugs{ignoreReports: true}), "the mutant is found")
}

// §3: "the leader … fills the gap by proposing, as commands 136 and 137, a special no-op command".
func TestPaper3GapsGetNoOps(t *testing.T) {
	n := newLone(t, bugs{}, "a", "b", "c")
	b := n.candidate("b")
	answers := n.receive("b", promiseOf(b, 4, Ballot{1, "c"}, "x"))
	var accepts []message
	for _, m := range answers {
		if m.kind == kindAccept && m.count > 0 {
			accepts = append(accepts, m)
		}
	}
	require.NotEmpty(t, accepts)
	require.EqualValues(t, 1, accepts[0].first)
	require.Equal(t, 4, accepts[0].count)
	for i := range 3 {
		require.True(t, accepts[0].entries[i].Internal, "slot %d is a no-op", i+1)
		require.Empty(t, accepts[0].entries[i].Command)
	}
	require.Equal(t, "x", string(accepts[0].entries[3].Command))
	require.False(t, accepts[0].entries[3].Internal)
}

// §3: "a leader can get ahead by alpha commands: it can propose commands i+1 through i+alpha after commands 1 through i
// are chosen".
func TestPaper3LeaderStaysWithinAlpha(t *testing.T) {
	n := newLone(t, bugs{}, "a", "b", "c")
	n.cfg.Alpha = 10
	n.boot(bugs{})
	b := n.candidate("b")
	n.receive("b", promiseOf(b, 1, Ballot{}, ""))
	for id := range uint64(25) {
		n.Propose(n.now, id+1, []byte("x"))
	}
	n.ready()
	require.EqualValues(t, 11, n.lead.next)
	n.receive("b", message{kind: kindAccepted, ballot: b, spans: []span{{1, 4}}})
	require.EqualValues(t, 4, n.chosen)
	require.EqualValues(t, 15, n.lead.next)
	n.receive("b", message{kind: kindAccepted, ballot: b, spans: []span{{6, 10}}})
	require.EqualValues(t, 4, n.chosen, "slot 5 is not chosen: a gap, and votes in any order")
	n.receive("b", message{kind: kindAccepted, ballot: b, spans: []span{{5, 5}}})
	require.EqualValues(t, 10, n.chosen)
}

// An acceptor hears of slots in any order, and votes for each; what comes twice is not saved twice.
func TestSlotsAreAcceptedInAnyOrder(t *testing.T) {
	n := newLone(t, bugs{}, "a", "b", "c")
	b := Ballot{3, "b"}
	answers := n.receive("b", acceptOf(b, 3, "z"))
	require.Equal(t, []span{{3, 3}}, answers[0].spans)
	answers = n.receive("b", acceptOf(b, 1, "x"))
	require.Equal(t, []span{{1, 1}}, answers[0].spans)
	saved := len(n.journal)
	n.sent = nil
	for _, slot := range []uint64{5, 4} { // in one batch
		require.NoError(t, n.Step(n.now, "b", encoded(acceptOf(b, slot, "x"))))
	}
	n.ready()
	require.Equal(t, []span{{5, 5}, {4, 4}}, n.answers()[0].spans)
	require.Len(t, n.journal, saved+2)
	saved += 2
	answers = n.receive("b", acceptOf(b, 3, "z"))
	require.Equal(t, []span{{3, 3}}, answers[0].spans)
	require.Len(t, n.journal, saved)
	m := acceptOf(b, 2, "y")
	m.chosen = 3
	n.receive("b", m)
	require.EqualValues(t, 3, n.chosen)
	n.crash()
	require.EqualValues(t, 3, n.chosen, "the journal says what was chosen")
	s, e := n.log.at(2)
	require.Equal(t, chosen, s.state)
	require.Equal(t, "y", string(e.Command))
}

// A malformed or impossible message is an error and changes nothing.
func TestBadMessagesChangeNothing(t *testing.T) {
	n := newLone(t, bugs{}, "a", "b", "c")
	n.receive("b", acceptOf(Ballot{3, "b"}, 1, "x"))
	bad := map[string][]byte{
		"empty":               nil,
		"newer format":        {format + 1, byte(kindAccept)},
		"unknown kind":        {format, 200},
		"record":              (&message{kind: kindState, ballot: Ballot{9, "b"}}).encode(nil),
		"ballot of another":   encoded(acceptOf(Ballot{9, "c"}, 2, "x")),
		"slot 0":              encoded(acceptOf(Ballot{9, "b"}, 0, "x")),
		"values cut off":      encoded(message{kind: kindAccept, ballot: Ballot{9, "b"}, first: 2, count: 2, body: []byte{0, 1, 'x', 0}}),
		"more than there are": encoded(message{kind: kindAccept, ballot: Ballot{9, "b"}, first: 2, count: 1 << 30}),
	}
	for name, payload := range bad {
		require.Error(t, n.Step(n.now, "b", payload), name)
		require.Equal(t, Ballot{3, "b"}, n.promised, name)
		require.EqualValues(t, 1, n.log.last(), name)
	}
	for payload := acceptOf(Ballot{9, "b"}, 2, "command"); len(payload.body) > 0; payload.body = payload.body[:len(payload.body)-1] {
		if b := encoded(payload); len(payload.body) < len(appendOwn(nil, &consensus.Entry{Command: []byte("command")})) {
			require.Error(t, n.Step(n.now, "b", b))
		}
	}
	require.Equal(t, Ballot{3, "b"}, n.promised)
}

func encoded(m message) []byte { return m.encode(nil) }
