package pbft

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
)

// bench is one core of a group of four, fed by hand. Replicas are named by their index; 0 is the primary of view 0.
type bench struct {
	t       *testing.T
	core    *Core
	cfg     Config
	bugs    bugs
	signers []*Core // to sign as any replica
	now     time.Time
	ready   coterie.Ready
	sent    []message        // to other replicas, each once
	to      []coterie.NodeID // the receivers of those
	own     [][]byte         // mail to itself, not delivered yet
	records [][]byte
	events  []any
}

func newBench(t *testing.T, id coterie.NodeID) *bench {
	t.Helper()
	b := &bench{t: t, now: time.Unix(1000, 0)}
	shared, keys := testConfig(4)
	shared.CheckpointInterval = 2
	for i := range 4 {
		cfg := shared
		cfg.ID = coterie.NodeID(rune('a' + i))
		cfg.Key = keys[cfg.ID]
		core, err := NewCore(cfg)
		require.NoError(t, err)
		b.signers = append(b.signers, core)
		if cfg.ID == id {
			b.cfg = cfg
		}
	}
	b.start()
	return b
}

// start starts the core, anew with the records of the one before.
func (b *bench) start() {
	b.t.Helper()
	core, err := NewCore(b.cfg)
	require.NoError(b.t, err)
	core.bugs = b.bugs
	for _, r := range b.records {
		require.NoError(b.t, core.Replay(r))
	}
	b.core, b.own = core, nil
	core.Tick(b.now)
	b.take()
}

// take performs the effects, and delivers the core's mail to itself.
func (b *bench) take() {
	b.t.Helper()
	for again := true; again; {
		r := b.core.Ready()
		b.records = append(b.records, r.Save...)
		if r.Keep > 0 {
			b.records = b.records[len(b.records)-r.Keep:]
		}
		b.events = append(b.events, r.Events...)
		b.ready = r
		again = false
		for _, e := range r.Send {
			if e.To == b.core.cfg.ID {
				b.own = append(b.own, e.Payload)
				continue
			}
			var m message
			require.NoError(b.t, m.decode(e.Payload))
			b.sent, b.to = append(b.sent, m), append(b.to, e.To)
		}
		own := b.own
		b.own = nil
		for _, p := range own {
			require.NoError(b.t, b.core.Step(b.now, b.core.cfg.ID, p))
			again = true
		}
	}
}

// step delivers a payload that must pass the check.
func (b *bench) step(from int, payload []byte) {
	b.t.Helper()
	id := b.core.group.ids[from]
	v := &Verifier{b.core.group}
	require.NoError(b.t, v.Verify(id, payload))
	require.NoError(b.t, b.core.Step(b.now, id, payload))
	b.take()
}

func (b *bench) vote(k kind, from int, view, seq uint64, d digest) vote {
	return b.signers[from].signVote(k, view, seq, d)
}

func (b *bench) sendVote(k kind, from int, view, seq uint64, d digest) {
	b.t.Helper()
	v := b.vote(k, from, view, seq, d)
	b.step(from, payloadOf(v.append(nil)))
}

// command is one that a driver makes.
func command(text string) []byte {
	return append([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0}, text...)
}

// batchOf is a batch of one request of the primary.
func (b *bench) batchOf(num uint64, texts ...string) *batch {
	q := &request{life: 1, num: num}
	for _, text := range texts {
		q.commands = append(q.commands, command(text))
	}
	q.raw = q.appendUnsigned(nil)
	q.raw = append(q.raw, b.core.group.sign(b.signers[0].cfg.Key, q.raw)...)
	parsed, err := readRequest(q.raw)
	require.NoError(b.t, err)
	return newBatch([]*request{parsed})
}

func (b *bench) prePrepare(view, seq uint64, x *batch) {
	b.t.Helper()
	from := b.core.group.primary(view)
	b.step(from, b.core.prePrepare(b.vote(kindPrePrepare, from, view, seq, x.digest), x))
}

// decide brings a number through all three phases at a backup.
func (b *bench) decide(view, seq uint64, x *batch, peers ...int) {
	b.t.Helper()
	b.prePrepare(view, seq, x)
	for _, p := range peers {
		b.sendVote(kindPrepare, p, view, seq, x.digest)
	}
	b.sendVote(kindCommit, b.core.group.primary(view), view, seq, x.digest)
	for _, p := range peers {
		b.sendVote(kindCommit, p, view, seq, x.digest)
	}
}

func (b *bench) count(k kind, match func(m *message) bool) (n int) {
	for i := range b.sent {
		if b.sent[i].kind == k && (match == nil || match(&b.sent[i])) {
			n++
		}
	}
	return n
}

func (b *bench) committed() (texts []string) {
	for _, e := range b.events {
		if c, ok := e.(consensus.Committed); ok {
			for _, entry := range c.Entries {
				texts = append(texts, string(entry.Command[9:]))
			}
		}
	}
	return texts
}

// §4.2: a backup accepts a pre-prepare "provided ... it has not accepted a pre-prepare message for view v and sequence
// number n containing a different digest".
func TestPaper42AcceptsOnePrePrepareForANumber(t *testing.T) {
	b := newBench(t, "b")
	x, y := b.batchOf(1, "x"), b.batchOf(1, "y")
	b.prePrepare(0, 1, x)
	b.prePrepare(0, 1, y)
	require.Equal(t, 3, b.count(kindPrepare, func(m *message) bool { return m.vote.digest == x.digest }))
	require.Zero(t, b.count(kindPrepare, func(m *message) bool { return m.vote.digest == y.digest }))
	b.start() // nor after a restart
	b.prePrepare(0, 1, y)
	require.Zero(t, b.count(kindPrepare, func(m *message) bool { return m.vote.digest == y.digest }))
}

// §4.2: "the predicate prepared(m, v, n, i) to be true if and only if replica i has inserted in its log: the request m,
// a pre-prepare for m in view v with sequence number n, and 2f prepares from different backups that match".
func TestPaper42PreparedNeeds2FPrepares(t *testing.T) {
	b := newBench(t, "b")
	x := b.batchOf(1, "x")
	b.prePrepare(0, 1, x) // b's own prepare is one
	require.Zero(t, b.count(kindCommit, nil))
	b.sendVote(kindPrepare, 2, 0, 1, sha256.Sum256([]byte("another")))
	b.sendVote(kindPrepare, 2, 0, 1, sha256.Sum256([]byte("another")))
	require.Zero(t, b.count(kindCommit, nil), "a prepare that does not match, twice")
	b.sendVote(kindPrepare, 3, 0, 1, x.digest)
	require.Equal(t, 3, b.count(kindCommit, nil))
}

// §4.2: "each replica i executes the operation requested by m after committed-local(m, v, n, i) is true and i's state
// reflects the sequential execution of all requests with lower sequence numbers".
func TestPaper42ExecutesInOrderWhatAQuorumCommitted(t *testing.T) {
	b := newBench(t, "b")
	x, y := b.batchOf(1, "x"), b.batchOf(2, "y")
	b.decide(0, 2, y, 2)
	require.Empty(t, b.committed())
	b.prePrepare(0, 1, x)
	b.sendVote(kindPrepare, 2, 0, 1, x.digest)
	b.sendVote(kindCommit, 0, 0, 1, x.digest)
	require.Empty(t, b.committed(), "two commits, of b and a")
	b.sendVote(kindCommit, 2, 0, 1, x.digest)
	require.Equal(t, []string{"x", "y"}, b.committed())
}

// §4.2: a pre-prepare is accepted if "the sequence number ... is between a low water mark, h, and a high water mark, H";
// this "prevents a faulty primary from exhausting the space of sequence numbers".
func TestPaper42NumbersBeyondTheHighWaterMarkAreRefused(t *testing.T) {
	b := newBench(t, "b") // K is 2, L is 4
	x := b.batchOf(1, "x")
	b.prePrepare(0, 5, x)
	require.Zero(t, b.count(kindPrepare, nil))
	b.prePrepare(0, 4, x)
	require.Equal(t, 3, b.count(kindPrepare, nil))
}

// §4.3: "The proof of correctness for a checkpoint ... 2f+1 of these messages"; "A checkpoint with a proof becomes
// stable and the replica discards all pre-prepare, prepare, and commit messages with sequence number less than or equal
// to n from its log".
func TestPaper43ACheckpointWith2FPlus1ProofsIsStable(t *testing.T) {
	b := newBench(t, "b")
	b.decide(0, 1, b.batchOf(1, "x"), 2)
	b.decide(0, 2, b.batchOf(2, "y"), 2)
	require.Equal(t, 3, b.count(kindCheckpoint, nil))
	d := b.core.state.digest()
	b.sendVote(kindCheckpoint, 2, 0, 2, d)
	b.sendVote(kindCheckpoint, 3, 0, 2, sha256.Sum256([]byte("a lie")))
	require.Zero(t, b.core.stable.seq)
	require.Len(t, b.core.slots, 2)
	b.sendVote(kindCheckpoint, 0, 0, 2, d)
	require.EqualValues(t, 2, b.core.stable.seq)
	require.Empty(t, b.core.slots)
	b.start() // and stays so
	b.step(0, payloadOf((&status{helper: 1}).encode()))
}

// §4.4: "If the timer of backup i expires in view v, the backup starts a view change ... It stops accepting messages
// (other than checkpoint, view-change, and new-view messages)", and its VIEW-CHANGE has, for each request that prepared,
// the pre-prepare and 2f matching prepares. It is what a restart must not forget, for others may have committed by it.
func TestPaper44AViewChangeProvesWhatPrepared(t *testing.T) {
	for _, run := range []struct {
		restart bool
		bugs    bugs
		proven  int
	}{{false, bugs{}, 1}, {true, bugs{}, 1}, {true, bugs{noSavePrepared: true}, 0}} {
		restart := run.restart
		b := newBench(t, "b")
		b.bugs, b.core.bugs = run.bugs, run.bugs
		x := b.batchOf(1, "x")
		b.prePrepare(0, 1, x)
		b.sendVote(kindPrepare, 2, 0, 1, x.digest)
		require.Equal(t, 3, b.count(kindCommit, nil))
		if restart {
			b.start()
		}
		b.now = b.now.Add(b.core.cfg.ViewTimeout)
		b.core.Tick(b.now)
		b.take()
		var vc *viewChange
		for i := range b.sent {
			if b.sent[i].kind == kindViewChange {
				vc = b.sent[i].change
			}
		}
		require.NotNil(t, vc)
		require.EqualValues(t, 1, vc.view)
		require.Len(t, vc.prepared, run.proven, "the planted bug is seen as a proof that is gone")
		if run.proven == 0 {
			continue
		}
		require.Equal(t, x.digest, vc.prepared[0][0].digest)
		require.NoError(t, b.core.group.checkViewChange(vc))
		b.prePrepare(0, 2, b.batchOf(2, "y"))
		require.Zero(t, b.count(kindPrepare, func(m *message) bool { return m.vote.seq == 2 }))
	}
}

// prepared makes the certificate of a number.
func (b *bench) prepared(view, seq uint64, d digest) certificate {
	p := b.core.group.primary(view)
	c := certificate{b.vote(kindPrePrepare, p, view, seq, d)}
	for i := range 4 {
		if i != p && len(c) < 3 {
			c = append(c, b.vote(kindPrepare, i, view, seq, d))
		}
	}
	return c
}

func (b *bench) viewChange(from int, view uint64, prepared ...certificate) *viewChange {
	vc := &viewChange{view: view, from: from, prepared: prepared}
	raw := vc.unsigned()
	vc, err := readViewChange(append(raw, b.core.group.sign(b.signers[from].cfg.Key, raw)...))
	require.NoError(b.t, err)
	return vc
}

func (b *bench) newView(view uint64, votes []vote, changes ...*viewChange) []byte {
	from := b.core.group.primary(view)
	nv := &newView{view: view, from: from, changes: changes}
	for _, v := range votes {
		nv.prePrepares = append(nv.prePrepares, b.vote(kindPrePrepare, from, v.view, v.seq, v.digest))
	}
	raw := nv.appendUnsigned(nil)
	return payloadOf(append(raw, b.core.group.sign(b.signers[from].cfg.Key, raw)...))
}

// §4.4: the new primary makes a pre-prepare for each number between min-s and max-s: of "the prepare certificate with
// the highest view number", or of "a special null request".
func TestPaper44ANewViewFollowsFromTheViewChanges(t *testing.T) {
	b := newBench(t, "c")
	x, y := sha256.Sum256([]byte("x")), sha256.Sum256([]byte("y"))
	changes := []*viewChange{
		b.viewChange(0, 2, b.prepared(0, 1, x), b.prepared(0, 3, x)), b.viewChange(1, 2, b.prepared(1, 3, y)), b.viewChange(3, 2),
	}
	votes := prePreparesOf(changes, 2)
	require.Len(t, votes, 3)
	require.Equal(t, []digest{x, nullDigest, y}, []digest{votes[0].digest, votes[1].digest, votes[2].digest})

	v := &Verifier{b.core.group}
	require.NoError(t, v.Verify("c", b.newView(2, votes, changes...)))
	lie := append([]vote(nil), votes...)
	lie[2].digest = x
	require.ErrorIs(t, v.Verify("c", b.newView(2, lie, changes...)), ErrProof)
	require.ErrorIs(t, v.Verify("c", b.newView(2, votes[:2], changes...)), ErrProof)
	require.ErrorIs(t, v.Verify("c", b.newView(2, prePreparesOf(changes[:2], 2), changes[:2]...)), ErrProof, "two view changes")
	require.ErrorIs(t, v.Verify("c", b.newView(2, votes, changes[0], changes[1], changes[1])), ErrProof, "one of them twice")
}

// §4.4: the primary of the next view begins it when it has 2f valid view changes beside its own, and the view goes on
// with what prepared.
func TestPaper44TheNextPrimaryBeginsTheView(t *testing.T) {
	b := newBench(t, "b")
	x := b.batchOf(1, "x")
	b.prePrepare(0, 1, x)
	b.step(2, payloadOf(b.viewChange(2, 1, b.prepared(0, 1, x.digest)).raw))
	require.Zero(t, b.count(kindViewChange, nil))
	b.step(3, payloadOf(b.viewChange(3, 1).raw)) // f+1 want it, so b does
	require.Equal(t, 3, b.count(kindNewView, nil))
	view, active := b.core.View()
	require.EqualValues(t, 1, view)
	require.True(t, active)
	before := b.core.signed(1)
	b.start() // after a restart b says the same of number 1
	require.Equal(t, before, b.core.signed(1))
	b.sendVote(kindPrepare, 2, 1, 1, x.digest)
	b.sendVote(kindPrepare, 3, 1, 1, x.digest)
	b.sendVote(kindCommit, 2, 1, 1, x.digest)
	b.sendVote(kindCommit, 3, 1, 1, x.digest)
	require.Equal(t, []string{"x"}, b.committed())
}

func (c *Core) signed(seq uint64) vote { return c.slots[seq].pre }

// TOCS §4.5.2: "if a replica receives a set of f+1 valid view-change messages from other replicas for views greater
// than its current view, it sends a view-change message for the smallest view in the set"; fewer do not move it.
func TestPaper452FollowsFPlus1IntoTheSmallestView(t *testing.T) {
	b := newBench(t, "b")
	b.step(2, payloadOf(b.viewChange(2, 9).raw))
	view, active := b.core.View()
	require.Zero(t, view)
	require.True(t, active)
	b.step(3, payloadOf(b.viewChange(3, 4).raw))
	view, active = b.core.View()
	require.EqualValues(t, 4, view)
	require.False(t, active)
}

// §4.4: "This ... ensures ... that the period of time between view changes grows": the timer doubles, and starts when
// 2f+1 view changes have come.
func TestPaper44TheTimerDoubles(t *testing.T) {
	b := newBench(t, "d")
	for n := range 4 {
		view := uint64(n + 1)
		b.core.startViewChange(view)
		b.take()
		require.True(t, b.core.deadline().IsZero(), "d alone waits")
		for from := range 2 {
			b.step(from, payloadOf(b.viewChange(from, view).raw))
		}
		if b.core.isPrimary() {
			continue
		}
		require.Equal(t, b.core.cfg.ViewTimeout<<(n+1), b.core.deadline().Sub(b.now))
	}
}

// §4.1 and §4.2: the messages are signed, and whatever proof is in them must hold.
func TestPaperVerifyRefusesWhatIsNotSigned(t *testing.T) {
	b := newBench(t, "b")
	v := &Verifier{b.core.group}
	x := b.batchOf(1, "x")
	good := map[string][]byte{
		"request":     payloadOf(x.requests[0].raw),
		"pre-prepare": b.core.prePrepare(b.vote(kindPrePrepare, 0, 0, 1, x.digest), x),
		"view change": payloadOf(b.viewChange(2, 1, b.prepared(0, 1, x.digest)).raw),
		"new view": b.newView(1, prePreparesOf([]*viewChange{b.viewChange(0, 1, b.prepared(0, 1, x.digest))}, 1),
			b.viewChange(0, 1, b.prepared(0, 1, x.digest)), b.viewChange(2, 1), b.viewChange(3, 1)),
	}
	for _, k := range []kind{kindPrepare, kindCommit, kindCheckpoint} {
		v := b.vote(k, 2, 0, 2, x.digest)
		good[k.String()] = payloadOf(v.append(nil))
	}
	commits := certificate{b.vote(kindCommit, 0, 0, 1, x.digest), b.vote(kindCommit, 1, 0, 1, x.digest), b.vote(kindCommit, 2, 0, 1, x.digest)}
	good["decided"] = appendDecided([]byte{format, byte(kindDecided)}, []decided{{x, commits}})
	for name, payload := range good {
		require.NoError(t, v.Verify("c", payload), name)
		require.Error(t, v.Verify("stranger", payload), name)
		for i := 2; i < len(payload); i += 7 {
			bad := append([]byte(nil), payload...)
			bad[i] ^= 0x10
			require.Error(t, v.Verify("c", bad), "%s changed at %d", name, i)
		}
	}
	short := appendDecided([]byte{format, byte(kindDecided)}, []decided{{x, commits[:2]}})
	require.ErrorIs(t, v.Verify("c", short), ErrProof)
	double := appendDecided([]byte{format, byte(kindDecided)}, []decided{{x, append(commits[:2:2], commits[1])}})
	require.ErrorIs(t, v.Verify("c", double), ErrProof)
	foreign := b.vote(kindPrePrepare, 2, 0, 1, x.digest)
	require.ErrorIs(t, v.Verify("c", append(payloadOf(foreign.append(nil)), x.raw...)), ErrProof, "c is not the primary")
}

// A command that no driver makes would stop the replicas that apply it: no liar can have one ordered.
func TestCommandsThatStopReplicasAreRefused(t *testing.T) {
	b := newBench(t, "b")
	v := &Verifier{b.core.group}
	q := &request{from: 0, life: 1, num: 1, commands: [][]byte{{77, 0, 0, 0, 0, 0, 0, 0, 0}}}
	q.raw = q.appendUnsigned(nil)
	q.raw = append(q.raw, b.core.group.sign(b.signers[0].cfg.Key, q.raw)...)
	err := v.Verify("a", payloadOf(q.raw))
	require.ErrorIs(t, err, ErrProof)
	newer := (*coterie.FormatError)(nil)
	require.ErrorAs(t, err, &newer)
	parsed, err := readRequest(q.raw)
	require.NoError(t, err)
	x := newBatch([]*request{parsed})
	require.ErrorIs(t, v.Verify("a", b.core.prePrepare(b.vote(kindPrePrepare, 0, 0, 1, x.digest), x)), ErrProof)

	b.core.Propose(b.now, 5, []byte{77})
	b.take()
	rejected, ok := b.events[len(b.events)-1].(consensus.Rejected)
	require.True(t, ok)
	require.EqualValues(t, 5, rejected.ID)
}

// A snapshot is made durable only if its content is what f+1 replicas vouch for, though its checksum fits.
func TestSnapshotThatIsNotVouchedForIsGivenUp(t *testing.T) {
	for _, run := range []struct {
		lie   bool
		bugs  bugs
		taken bool
	}{{false, bugs{}, true}, {true, bugs{}, false}, {true, bugs{trustSnapshots: true}, true}} {
		b := newBench(t, "b")
		b.bugs, b.core.bugs = run.bugs, run.bugs
		st := newState(4)
		st.seq, st.index = 4, 2
		content := []byte("the content")
		offer := st.append([]byte{format, byte(kindOffer)})
		offer = append(offer, 2)
		for _, from := range []int{2, 3} {
			v := vouch{seq: 4, state: st.digest(), size: int64(len(content)), checksum: 7, content: sha256.Sum256(content), from: from}
			v.sig = b.core.group.sign(b.signers[from].cfg.Key, v.appendUnsigned(nil))
			offer = v.append(offer)
		}
		b.step(0, offer)
		require.Equal(t, 1, b.count(kindAskChunk, nil))
		data := append([]byte(nil), content...)
		if run.lie {
			data[3]++
		}
		b.step(0, appendChunk(4, 0, data))
		var write *consensus.WriteChunk
		for _, e := range b.events {
			if w, ok := e.(consensus.WriteChunk); ok {
				write = &w
			}
		}
		if !run.taken {
			require.Nil(t, write)
			require.EqualValues(t, 1, b.core.Metrics().BadChunks)
			continue
		}
		require.NotNil(t, write)
		b.core.ChunkWritten(b.now, write.ID, nil)
		b.take()
		require.EqualValues(t, 4, b.core.state.seq)
		require.Contains(t, b.events, consensus.Installed{Index: 2, Snapshot: write.Snapshot})
		b.start()
		require.EqualValues(t, 4, b.core.state.seq, "after a restart")
	}
}

// A malformed message is an error and changes nothing; so is one that only a journal holds.
func TestMalformedMessagesChangeNothing(t *testing.T) {
	b := newBench(t, "b")
	for _, payload := range [][]byte{nil, {1}, {0, 3}, {1, 0}, {1, byte(kindView), 3, 1}, {1, byte(kindPrepare), 1}} {
		require.Error(t, b.core.Step(b.now, "a", payload))
	}
	newer := (*coterie.FormatError)(nil)
	require.ErrorAs(t, b.core.Step(b.now, "a", []byte{9, 3}), &newer)
	require.Error(t, b.core.Step(b.now, "stranger", []byte{1, 1}))
	require.Error(t, b.core.Replay([]byte{1, byte(kindChunk), 1, 1}))
	require.Empty(t, b.core.slots)
}
