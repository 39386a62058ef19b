package twophase

import (
	"fmt"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/txn"
	"github.com/stretchr/testify/require"
)

// tell gives a core one message.
func tell(c *Core, from coterie.NodeID, m message) error {
	return c.Step(testEpoch, from, m.encode())
}

// effects counts what a batch does.
func effects(c *Core) string {
	r := c.Ready()
	s := fmt.Sprintf("%d saved", len(r.Save))
	for _, e := range r.Send {
		m, _ := decodeMessage(e.Payload)
		s += fmt.Sprintf(", %s: %s", e.To, &m)
	}
	for _, e := range r.Events {
		s += fmt.Sprintf(", %T", e)
	}
	return s
}

func TestUnknownTransactions(t *testing.T) {
	c := startedCore(t, "c")
	require.ErrorIs(t, c.Prepare(testEpoch, "c/1/9"), txn.ErrUnknown)
	require.ErrorIs(t, c.Abort(testEpoch, "c/1/9", ""), txn.ErrUnknown)
	require.ErrorIs(t, c.Voted(testEpoch, "c/1/9", txn.Yes, ""), txn.ErrUnknown)
	require.ErrorIs(t, c.Settled(testEpoch, "c/1/9"), txn.ErrUnknown)
	// Nobody asks c for what c did not begin, or has not begun yet.
	require.ErrorIs(t, tell(c, "p", message{kind: kindInquire, id: "other/1/1"}), txn.ErrUnknown)
	require.ErrorIs(t, tell(c, "p", message{kind: kindInquire, id: "c/1/9"}), txn.ErrUnknown)
	require.ErrorIs(t, tell(c, "p", message{kind: kindVote, id: "c/2/1", vote: txn.Yes}), txn.ErrUnknown)
	require.ErrorIs(t, tell(c, "p", message{kind: kindAck, id: "other/1/1"}), txn.ErrUnknown)
	// Only its coordinator asks for a vote and decides.
	require.Error(t, tell(c, "x", message{kind: kindPrepare, id: "y/1/1", members: []coterie.NodeID{"c"}}))
	require.Error(t, tell(c, "x", message{kind: kindDecision, id: "y/1/1", outcome: committed}))
	require.Equal(t, "0 saved", effects(c))
	// Presumed abort: what is unknown was aborted.
	id, err := c.Begin(testEpoch, []coterie.NodeID{"p"})
	require.NoError(t, err)
	require.NoError(t, c.Abort(testEpoch, id, ""))
	c.Ready()
	require.NoError(t, tell(c, "p", message{kind: kindInquire, id: id}))
	require.NoError(t, tell(c, "p", message{kind: kindVote, id: id, vote: txn.Yes}))
	require.Equal(t, "0 saved, p: Answer c/1/1 aborted, p: Answer c/1/1 aborted", effects(c))
}

func TestVotes(t *testing.T) {
	c := startedCore(t, "c")
	id, err := c.Begin(testEpoch, []coterie.NodeID{"p", "q"})
	require.NoError(t, err)
	require.Error(t, tell(c, "p", message{kind: kindVote, id: id, vote: txn.Yes}), "not asked for")
	require.NoError(t, c.Prepare(testEpoch, id))
	require.Error(t, c.Prepare(testEpoch, id), "twice")
	c.Ready()
	require.NoError(t, tell(c, "p", message{kind: kindVote, id: id, vote: txn.Yes}))
	require.NoError(t, tell(c, "p", message{kind: kindVote, id: id, vote: txn.Yes}), "a repeated message")
	require.ErrorIs(t, tell(c, "p", message{kind: kindVote, id: id, vote: txn.No}), txn.ErrContradiction)
	require.Error(t, tell(c, "stranger", message{kind: kindVote, id: id, vote: txn.No}))
	require.ErrorIs(t, tell(c, "p", message{kind: kindAck, id: id}), txn.ErrContradiction)
	require.Equal(t, "0 saved", effects(c))
	require.NoError(t, tell(c, "q", message{kind: kindVote, id: id, vote: txn.Yes}))
	require.Equal(t, "1 saved, p: Decision c/1/1 committed, q: Decision c/1/1 committed, twophase.Decided", effects(c))
	require.ErrorIs(t, c.Abort(testEpoch, id, ""), txn.ErrUnknown, "it is decided")
	require.NoError(t, tell(c, "p", message{kind: kindVote, id: id, vote: txn.Yes}), "late")
}

// vote brings a participant to its yes.
func vote(t *testing.T, p *Core, id txn.ID) {
	t.Helper()
	require.NoError(t, tell(p, "c", message{kind: kindPrepare, id: id, members: []coterie.NodeID{"p", "q"}}))
	require.Equal(t, "0 saved, twophase.PrepareAsked", effects(p))
	require.NoError(t, p.Voted(testEpoch, id, txn.Yes, ""))
	require.ErrorIs(t, p.Voted(testEpoch, id, txn.Yes, ""), txn.ErrUnknown, "voted twice")
	require.Contains(t, effects(p), " saved, c: Vote "+string(id)+" yes")
}

func TestDecisionsThatContradictTheLog(t *testing.T) {
	p := startedCore(t, "p")
	vote(t, p, "c/1/1")
	require.NoError(t, tell(p, "c", message{kind: kindDecision, id: "c/1/1", outcome: committed}))
	require.ErrorIs(t, tell(p, "c", message{kind: kindDecision, id: "c/1/1", outcome: aborted}), txn.ErrContradiction)
	require.NoError(t, p.Settled(testEpoch, "c/1/1"))
	require.ErrorIs(t, tell(p, "c", message{kind: kindDecision, id: "c/1/1", outcome: aborted}), txn.ErrContradiction)
	require.Equal(t, "0 saved, twophase.CommitAsked", effects(p))
	p.Tick(testEpoch.Add(linger))
	require.Equal(t, "1 saved, c: Ack c/1/1", effects(p))
	require.ErrorIs(t, tell(p, "c", message{kind: kindDecision, id: "c/1/1", outcome: aborted}), txn.ErrContradiction)

	vote(t, p, "c/1/2")
	require.NoError(t, tell(p, "c", message{kind: kindDecision, id: "c/1/2", outcome: aborted}))
	require.ErrorIs(t, tell(p, "c", message{kind: kindDecision, id: "c/1/2", outcome: committed}), txn.ErrContradiction)
	require.NoError(t, p.Settled(testEpoch, "c/1/2"))
	require.ErrorIs(t, tell(p, "c", message{kind: kindDecision, id: "c/1/2", outcome: committed}), txn.ErrContradiction)
	require.NoError(t, tell(p, "c", message{kind: kindDecision, id: "c/1/2", outcome: aborted}), "again")
}

// A commit that is told again is acknowledged only when the note of it is durable: a participant that acknowledged and
// forgot would ask, and be told "aborted".
func TestRepeatedCommitIsNotAcknowledgedEarly(t *testing.T) {
	p := startedCore(t, "p")
	vote(t, p, "c/1/1")
	commit := message{kind: kindDecision, id: "c/1/1", outcome: committed}
	require.NoError(t, tell(p, "c", commit))
	require.NoError(t, p.Settled(testEpoch, "c/1/1"))
	require.NoError(t, tell(p, "c", commit))
	require.Equal(t, "0 saved, twophase.CommitAsked", effects(p))
	p.Tick(testEpoch.Add(linger))
	require.Equal(t, "1 saved, c: Ack c/1/1", effects(p))
}

// Late messages of a transaction never touch the next one (Jepsen, Bufstream 0.1.0).
func TestLateMessagesDoNotTouchALaterTransaction(t *testing.T) {
	p := startedCore(t, "p")
	vote(t, p, "c/1/1")
	require.NoError(t, tell(p, "c", message{kind: kindDecision, id: "c/1/1", outcome: aborted}))
	require.NoError(t, p.Settled(testEpoch, "c/1/1"))
	p.Ready()
	vote(t, p, "c/1/2")
	for _, m := range []message{
		{kind: kindDecision, id: "c/1/1", outcome: aborted},
		{kind: kindAnswer, id: "c/1/1", outcome: aborted},
		{kind: kindPrepare, id: "c/1/1", low: position{1, 1}, members: []coterie.NodeID{"p"}},
	} {
		require.NoError(t, tell(p, "c", m))
	}
	require.Equal(t, "0 saved", effects(p))
	require.Equal(t, 1, p.Status().InDoubt)
	// A vote asked for by a message older than what the coordinator has finished with is not given.
	require.NoError(t, tell(p, "c", message{kind: kindPrepare, id: "c/1/9", low: position{1, 9}, members: []coterie.NodeID{"p"}}))
	require.Equal(t, "0 saved, twophase.PrepareAsked", effects(p))
	require.NoError(t, tell(p, "c", message{kind: kindPrepare, id: "c/1/5", low: position{1, 4}, members: []coterie.NodeID{"p"}}))
	require.Equal(t, "0 saved", effects(p))
}

// No ID is used twice, whatever crashes: the epoch is durable before the first one.
func TestNoTransactionBeforeTheStartIsDurable(t *testing.T) {
	c, err := NewCore(Config{ID: "c"})
	require.NoError(t, err)
	c.Tick(testEpoch)
	_, err = c.Begin(testEpoch, []coterie.NodeID{"p"})
	require.ErrorIs(t, err, coterie.ErrOverloaded)
	started := c.Ready().Send[0].Payload
	require.Error(t, c.Step(testEpoch, "p", started))
	require.NoError(t, c.Step(testEpoch, "c", started))
	_, err = c.Begin(testEpoch, []coterie.NodeID{"p"})
	require.NoError(t, err)
}

func TestOverload(t *testing.T) {
	c, err := NewCore(Config{ID: "c", MaxOpen: 2})
	require.NoError(t, err)
	c.Tick(testEpoch)
	require.NoError(t, c.Step(testEpoch, "c", c.Ready().Send[0].Payload))
	for range 2 {
		_, err = c.Begin(testEpoch, []coterie.NodeID{"p"})
		require.NoError(t, err)
	}
	_, err = c.Begin(testEpoch, []coterie.NodeID{"p"})
	require.ErrorIs(t, err, coterie.ErrOverloaded)
	require.NoError(t, c.Enlist(testEpoch, "x/1/1"))
	require.NoError(t, c.Enlist(testEpoch, "x/1/2"))
	require.ErrorIs(t, c.Enlist(testEpoch, "x/1/3"), coterie.ErrOverloaded)
	require.NoError(t, tell(c, "x", message{kind: kindPrepare, id: "x/1/3", members: []coterie.NodeID{"c"}}))
	require.Equal(t, "0 saved, x: Vote x/1/3 no, twophase.AbortAsked", effects(c))
	for i := range 10 {
		_ = tell(c, "x", message{kind: kindDecision, id: makeID("x", position{2, uint64(i)}), outcome: aborted})
	}
	require.LessOrEqual(t, len(c.Status().Taking), 4)
}

// The journal stays as short as what is open, however many transactions pass.
func TestCheckpointsKeepTheJournalShort(t *testing.T) {
	w := newWorld(txn.Yes)
	open := w.nodes["p1"]
	w.transact("p1")
	w.drain()
	for range 3 * checkpointAfter {
		w.transact("p1")
		w.drain()
	}
	w.advance(time.Minute)
	require.NoError(t, w.check())
	require.Len(t, w.ended, 3*checkpointAfter+1)
	for _, id := range w.order {
		require.LessOrEqual(t, len(w.nodes[id].journal), checkpointAfter+maxLazy+100, id)
	}
	require.LessOrEqual(t, len(open.core.recent.ring), maxRecent)
	require.Len(t, open.core.recent.outcome, len(open.core.recent.ring))
	open.start()
	w.advance(time.Minute)
	require.NoError(t, w.check())
}

// A participant that tells another "aborted" without having been told so by the coordinator must never vote yes, also
// after a crash, and also if its resource would.
func TestRefusalIsDurableBeforeItIsTold(t *testing.T) {
	p := startedCore(t, "p")
	require.NoError(t, p.Enlist(testEpoch, "c/1/1"))
	require.NoError(t, tell(p, "q", message{kind: kindInquire, id: "c/1/1", peer: true}))
	r := p.Ready()
	require.Len(t, r.Save, 1)
	var said []string
	for _, e := range r.Send {
		m, err := decodeMessage(e.Payload)
		require.NoError(t, err)
		require.False(t, e.Early, "not before it is durable")
		said = append(said, string(e.To)+": "+m.String())
	}
	require.Equal(t, []string{"c: Vote c/1/1 no", "q: Answer c/1/1 aborted"}, said)

	again, err := NewCore(Config{ID: "p"})
	require.NoError(t, err)
	require.NoError(t, again.Replay((&record{kind: recordCheckpoint, node: "p", epoch: 1}).encode()))
	require.NoError(t, again.Replay(r.Save[0]))
	again.Tick(testEpoch)
	require.Contains(t, effects(again), "AbortAsked", "the resource may not have heard of it")
	require.NoError(t, tell(again, "c", message{kind: kindPrepare, id: "c/1/1", members: []coterie.NodeID{"p", "q"}}))
	require.Equal(t, "0 saved, c: Vote c/1/1 no", effects(again))
	require.NoError(t, again.Settled(testEpoch, "c/1/1"))
	require.Len(t, again.Status().Taking, 1, "kept until the coordinator says that it knows")
	require.NoError(t, tell(again, "c", message{kind: kindAnswer, id: "c/1/1", outcome: aborted}))
	require.Empty(t, again.Status().Taking)
}

// An abort, or the question of another, while the resource still prepares: whatever it votes then, it is told to abort.
func TestAbortWhileTheResourcePrepares(t *testing.T) {
	for _, m := range []message{
		{kind: kindDecision, id: "c/1/1", outcome: aborted},
		{kind: kindInquire, id: "c/1/1", peer: true},
	} {
		p := startedCore(t, "p")
		require.NoError(t, tell(p, "c", message{kind: kindPrepare, id: "c/1/1", members: []coterie.NodeID{"p", "c"}}))
		require.NoError(t, tell(p, "c", m))
		p.Ready()
		require.NoError(t, p.Voted(testEpoch, "c/1/1", txn.Yes, ""))
		require.Equal(t, "0 saved, twophase.AbortAsked", effects(p), "%v", &m)
		require.Zero(t, p.Status().InDoubt)
	}
}
