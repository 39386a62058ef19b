package abd

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/quorum"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

var start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// net is a network worked by hand: cores, what they saved, and messages on their way.
type net struct {
	t     testing.TB
	cores map[coterie.NodeID]*Core
	disk  map[coterie.NodeID][][]byte
	mail  []letter
	done  map[uint64]any
}

type letter struct {
	from coterie.NodeID
	coterie.Envelope
}

func newNet(tb testing.TB, form Form, ids ...coterie.NodeID) *net {
	tb.Helper()
	n := &net{t: tb, cores: map[coterie.NodeID]*Core{}, disk: map[coterie.NodeID][][]byte{}, done: map[uint64]any{}}
	system, err := quorum.Symmetric(quorum.Majority(ids...))
	require.NoError(tb, err)
	for i, id := range ids {
		n.cores[id], err = NewCore(Config{ID: id, System: system, Form: form, Seed: uint64(i + 1)})
		require.NoError(tb, err)
	}
	return n
}

func (n *net) ready(id coterie.NodeID) {
	rd := n.cores[id].Ready()
	n.disk[id] = append(n.disk[id], rd.Save...)
	for _, e := range rd.Send {
		n.mail = append(n.mail, letter{id, e})
	}
	for _, e := range rd.Events {
		switch e := e.(type) {
		case ReadDone:
			n.done[e.ID] = e
		case WriteDone:
			n.done[e.ID] = e
		}
	}
}

// deliver hands over all mail among the given nodes, until there is no more; the rest is lost.
func (n *net) deliver(among string) {
	for len(n.mail) > 0 {
		l := n.mail[0]
		n.mail = n.mail[1:]
		if strings.Contains(among, string(l.from)) && strings.Contains(among, string(l.To)) {
			require.NoError(n.t, n.cores[l.To].Step(start, l.from, l.Payload))
			n.ready(l.To)
		}
	}
}

func (n *net) read(id uint64, at coterie.NodeID, among string) string {
	require.NoError(n.t, n.cores[at].Read(start, id, "x"))
	n.ready(at)
	n.deliver(among)
	done, ok := n.done[id].(ReadDone)
	require.True(n.t, ok, "the read ended")
	return string(done.Value)
}

func (n *net) write(id uint64, at coterie.NodeID, value, among string) {
	require.NoError(n.t, n.cores[at].Write(start, id, "x", []byte(value)))
	n.ready(at)
	n.deliver(among)
}

// A write reaches one of three servers and its writer stops. One reader sees it; the next, at the other two, must not
// see the value before it. The schedule of CASSANDRA-12126 and scylladb/scylladb#6299.
func TestReadsNeverGoBack(t *testing.T) {
	half := func(form Form) *net {
		n := newNet(t, form, "a", "b", "c")
		n.write(1, "a", "old", "abc")
		require.NoError(t, n.cores["a"].Write(start, 2, "x", []byte("new")))
		n.ready("a")
		for len(n.mail) > 0 && n.done[2] == nil { // queries and reports pass, of the stores only a's own
			l := n.mail[0]
			n.mail = n.mail[1:]
			if m, err := decodeMessage(l.Payload, 1<<10, 1<<20); err == nil && (m.kind != msgStore || l.To == "a") && m.kind != msgStored {
				require.NoError(t, n.cores[l.To].Step(start, l.from, l.Payload))
				n.ready(l.To)
			}
		}
		n.cores["a"].Cancel(2)
		return n
	}
	n := half(Atomic)
	require.Equal(t, "new", n.read(3, "a", "ab"))
	require.Equal(t, "new", n.read(4, "c", "bc"))
	require.Equal(t, 2, n.done[3].(ReadDone).Rounds, "the first wrote it back")
	n = half(Regular)
	require.Equal(t, "new", n.read(3, "a", "ab"))
	require.Equal(t, "old", n.read(4, "c", "bc"), "a regular register may")
}

// A writer picks a timestamp, stores it at one server only, crashes, and picks the same number again in its next life:
// the nonces keep the two values apart.
func TestTimestampsOfTwoIncarnationsDiffer(t *testing.T) {
	system, err := quorum.Symmetric(quorum.Majority("a", "b", "c"))
	require.NoError(t, err)
	seen, rounds := map[timestamp]bool{}, map[uint64]bool{}
	for seed := uint64(1); seed <= 50; seed++ {
		c, err := NewCore(Config{ID: "w", System: system, Seed: seed})
		require.NoError(t, err)
		op := &operation{reports: []report{{from: "a"}, {from: "b"}}}
		c.chooseTimestamp(op)
		require.Equal(t, uint64(1), op.chosen.at.seq)
		require.False(t, seen[op.chosen.at])
		seen[op.chosen.at] = true
		for i := range uint64(1000) { // nor do answers to the one's rounds count in the other's
			require.False(t, rounds[c.round+i])
			rounds[c.round+i] = true
		}
		again := &operation{reports: []report{{from: "a"}, {from: "b"}}}
		c.chooseTimestamp(again)
		require.True(t, again.chosen.at.after(op.chosen.at), "two writes under way at once have two timestamps")
	}
}

func TestServerSavesBeforeItReplies(t *testing.T) {
	n := newNet(t, Atomic, "a", "b", "c")
	m := message{kind: msgStore, round: 9, key: "x", register: register{timestamp{5, "w", 1}, []byte("v")}}
	require.NoError(t, n.cores["a"].Step(start, "w", m.encode()))
	rd := n.cores["a"].Ready()
	require.Len(t, rd.Save, 1)
	require.Len(t, rd.Send, 1)
	require.False(t, rd.Send[0].Early, "it leaves when the record is durable")
	require.NoError(t, n.cores["a"].Step(start, "w", message{kind: msgQuery, round: 1, key: "x", wantValue: true}.encode()))
	rd = n.cores["a"].Ready()
	require.False(t, rd.Send[0].Early, "so does a report of it")

	// An older or repeated store changes nothing, and is answered.
	for _, seq := range []uint64{5, 4} {
		m.at.seq, m.value = seq, []byte("w")
		require.NoError(t, n.cores["a"].Step(start, "w", m.encode()))
		rd = n.cores["a"].Ready()
		require.Empty(t, rd.Save)
		require.Len(t, rd.Send, 1)
		require.Equal(t, "v", string(n.cores["a"].registers["x"].value))
	}
}

func TestAnswersCountOncePerServerAndRound(t *testing.T) {
	n := newNet(t, Atomic, "a", "b", "c")
	require.NoError(t, n.cores["a"].Write(start, 1, "x", []byte("v")))
	rd := n.cores["a"].Ready()
	round := n.cores["a"].round
	reply := message{kind: msgReport, round: round}.encode()
	for range 5 {
		require.NoError(t, n.cores["a"].Step(start, "b", reply))
		require.NoError(t, n.cores["a"].Step(start, "stranger", reply))
	}
	require.Equal(t, round, n.cores["a"].round, "one server is no quorum, however often it answers")
	require.NoError(t, n.cores["a"].Step(start, "c", reply))
	require.Equal(t, round+1, n.cores["a"].round)
	for _, from := range []coterie.NodeID{"a", "b", "c"} { // late answers to the first round
		require.NoError(t, n.cores["a"].Step(start, from, reply))
		require.NoError(t, n.cores["a"].Step(start, from, message{kind: msgStored, round: round}.encode()))
	}
	rd = n.cores["a"].Ready()
	require.Empty(t, rd.Events)
	for range 3 {
		require.NoError(t, n.cores["a"].Step(start, "b", message{kind: msgStored, round: round + 1}.encode()))
	}
	require.Empty(t, n.cores["a"].Ready().Events)
	require.NoError(t, n.cores["a"].Step(start, "c", message{kind: msgStored, round: round + 1}.encode()))
	require.Equal(t, []any{WriteDone{1}}, n.cores["a"].Ready().Events)
}

func TestLostRequestsAreSentAgainToThoseWhoHaveNotAnswered(t *testing.T) {
	n := newNet(t, Atomic, "a", "b", "c")
	c := n.cores["a"]
	require.NoError(t, c.Read(start, 1, "x"))
	rd := c.Ready()
	require.Len(t, rd.Send, 3)
	require.Equal(t, start.Add(50*time.Millisecond), rd.Wake)
	require.NoError(t, c.Step(start, "b", message{kind: msgReport, round: c.round}.encode()))
	c.Ready()
	c.Tick(start.Add(49 * time.Millisecond))
	require.Empty(t, c.Ready().Send, "too early")
	c.Tick(start.Add(50 * time.Millisecond))
	rd = c.Ready()
	require.Len(t, rd.Send, 2)
	require.Equal(t, coterie.NodeID("a"), rd.Send[0].To)
	require.Equal(t, coterie.NodeID("c"), rd.Send[1].To)
	require.Equal(t, start.Add(100*time.Millisecond), rd.Wake)
	c.Cancel(1)
	require.True(t, c.Ready().Wake.IsZero(), "nothing to wait for")
	require.Empty(t, c.pending)
	require.Empty(t, c.rounds)
}

func TestHedgingAsksAQuorumFirst(t *testing.T) {
	system, err := quorum.Symmetric(quorum.Majority("a", "b", "c"))
	require.NoError(t, err)
	c, err := NewCore(Config{ID: "b", System: system, Seed: 1, Hedge: 10 * time.Millisecond})
	require.NoError(t, err)
	to := func() (ids string) {
		for _, e := range c.Ready().Send {
			ids += string(e.To)
		}
		return ids
	}
	require.NoError(t, c.Read(start, 1, "x"))
	require.Equal(t, "bc", to(), "itself and the next")
	require.NoError(t, c.Step(start, "b", message{kind: msgReport, round: c.round}.encode()))
	require.Equal(t, start.Add(10*time.Millisecond), c.Ready().Wake)
	c.Tick(start.Add(10 * time.Millisecond))
	require.Equal(t, "ac", to(), "the others, and who has not answered")
	require.NoError(t, c.Read(start.Add(20*time.Millisecond), 2, "x"))
	require.Equal(t, "ba", to(), "c was late and is asked last")
	c.Tick(start.Add(30 * time.Millisecond))
	require.Equal(t, "cba", to(), "nobody answered: all are asked")
	for _, r := range c.resends {
		require.False(t, r.at.Before(c.resends[0].at))
	}
}

func TestJournalIsCompacted(t *testing.T) {
	n := newNet(t, Atomic, "a", "b", "c")
	c := n.cores["a"]
	var journal [][]byte
	kept := 0
	for i := range 5000 {
		m := message{kind: msgStore, round: 1, key: fmt.Sprint("k", i%7), register: register{timestamp{uint64(i + 1), "w", 1}, fmt.Append(nil, i)}}
		require.NoError(t, c.Step(start, "w", m.encode()))
		rd := c.Ready()
		journal = append(journal, rd.Save...)
		if rd.Keep > 0 {
			journal = journal[len(journal)-rd.Keep:]
			kept++
			fresh := newNet(t, Atomic, "a", "b", "c").cores["a"]
			for _, r := range journal {
				require.NoError(t, fresh.Replay(r))
			}
			require.Equal(t, c.registers, fresh.registers, "what is kept stands alone")
		}
		require.Less(t, len(journal), 1100)
	}
	require.Positive(t, kept)
	again := newNet(t, Atomic, "a", "b", "c").cores["a"]
	for _, r := range journal {
		require.NoError(t, again.Replay(r))
	}
	require.Equal(t, c.registers, again.registers)
	for _, r := range journal { // more than was kept, in a journal that forgets late
		require.NoError(t, again.Replay(r))
	}
	require.Equal(t, c.registers, again.registers)
}

func TestLimits(t *testing.T) {
	system, err := quorum.Symmetric(quorum.Majority("a", "b", "c"))
	require.NoError(t, err)
	c, err := NewCore(Config{ID: "a", System: system, Seed: 1, MaxPending: 2, MaxKey: 4, MaxValue: 8})
	require.NoError(t, err)
	require.ErrorIs(t, c.Read(start, 1, "12345"), ErrTooLarge)
	require.ErrorIs(t, c.Write(start, 1, "x", make([]byte, 9)), ErrTooLarge)
	require.NoError(t, c.Read(start, 1, "1234"))
	require.ErrorContains(t, c.Read(start, 1, "x"), "in use")
	require.NoError(t, c.Write(start, 2, "x", make([]byte, 8)))
	require.ErrorIs(t, c.Read(start, 3, "x"), coterie.ErrOverloaded)
	large := message{kind: msgStore, round: 1, key: "x", register: register{timestamp{1, "w", 1}, make([]byte, 9)}}
	require.Error(t, c.Step(start, "b", large.encode()))
	require.Empty(t, c.registers)
}

func TestConfigErrorsNameTheField(t *testing.T) {
	maj, err := quorum.Symmetric(quorum.Majority("a", "b", "c"))
	require.NoError(t, err)
	mask := func(n int) quorum.ReadWrite {
		var ids []coterie.NodeID
		for i := range n {
			ids = append(ids, coterie.NodeID(rune('a'+i)))
		}
		rw, err := quorum.Symmetric(quorum.Masking(ids...))
		require.NoError(t, err)
		return rw
	}
	for want, cfg := range map[string]Config{
		"ID is required":       {System: maj, Seed: 1},
		"System":               {ID: "a", Seed: 1},
		"Form is 3":            {ID: "a", System: maj, Seed: 1, Form: 3},
		"Faulty is -1":         {ID: "a", System: maj, Seed: 1, Faulty: -1},
		"Form must be Safe":    {ID: "a", System: mask(5), Seed: 1, Faulty: 1},
		"share 1 nodes only":   {ID: "a", System: maj, Seed: 1, Faulty: 1, Form: Safe},
		"takes 5":              {ID: "a", System: mask(5), Seed: 1, Faulty: 2, Form: Safe},
		"Seed is 0":            {ID: "a", System: maj},
		"Hedge is negative":    {ID: "a", System: maj, Seed: 1, Hedge: -1},
		"Resend is negative":   {ID: "a", System: maj, Seed: 1, Resend: -1},
		"must not be negative": {ID: "a", System: maj, Seed: 1, MaxKey: -1},
	} {
		_, err := NewCore(cfg)
		require.ErrorContains(t, err, want)
	}
	_, err = NewCore(Config{ID: "a", System: mask(9), Seed: 1, Faulty: 2, Form: Safe})
	require.NoError(t, err)
}

func drawMessage(t *rapid.T) message {
	m := message{kind: rapid.ByteRange(1, 4).Draw(t, "kind"), round: rapid.Uint64().Draw(t, "round")}
	text := rapid.StringN(0, 10, 10)
	if m.kind == msgQuery || m.kind == msgStore {
		m.key = text.Draw(t, "key")
	}
	if m.kind == msgQuery {
		m.wantValue = rapid.Bool().Draw(t, "want")
	}
	if m.kind == msgStore || m.kind == msgReport {
		m.at = timestamp{rapid.Uint64Range(1, maxSeq).Draw(t, "seq"), coterie.NodeID(text.Draw(t, "writer")), rapid.Uint64().Draw(t, "nonce")}
		if rapid.Bool().Draw(t, "value") {
			m.value = []byte(text.Draw(t, "bytes"))
		}
	}
	return m
}

func TestMessagesAndRecordsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		got, err := decodeMessage(m.encode(), 1<<10, 1<<20)
		require.NoError(t, err)
		require.Equal(t, m, got)
		key, r, err := decodeRecord(encodeRecord(m.key, m.register))
		require.NoError(t, err)
		require.Equal(t, m.key, key)
		require.Equal(t, m.register, r)
	})
}

func samples() map[string][]byte {
	r := register{timestamp{7, "writer", 0x0102030405060708}, []byte("value")}
	return map[string][]byte{
		"query":      message{kind: msgQuery, round: 1, wantValue: true, key: "key"}.encode(),
		"report":     message{kind: msgReport, round: 2, register: r}.encode(),
		"report-nil": message{kind: msgReport, round: 2}.encode(),
		"store":      message{kind: msgStore, round: 3, key: "key", register: r}.encode(),
		"stored":     message{kind: msgStored, round: 4}.encode(),
		"record":     encodeRecord("key", r),
	}
}

func TestFormatsAreGolden(t *testing.T) {
	for name, bytes := range samples() {
		file := filepath.Join("testdata", "golden", name+".hex")
		got := hex.EncodeToString(bytes) + "\n"
		if *update {
			require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
			require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
		}
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, string(want), got, name)
	}
}

func TestMalformedInputIsAnErrorAndChangesNothing(t *testing.T) {
	c := newNet(t, Atomic, "a", "b", "c").cores["a"]
	for name, good := range samples() {
		step := func(b []byte) error { return c.Step(start, "b", b) }
		if name == "record" {
			step = c.Replay
		}
		newer := append([]byte{format + 1}, good[1:]...)
		var unknown *coterie.FormatError
		require.ErrorAs(t, step(newer), &unknown, name)
		require.Error(t, step(append([]byte{0}, good[1:]...)))
		require.Error(t, step(nil))
		for i := range len(good) - 5 { // the value is the rest, and may be shorter
			require.Error(t, step(good[:i]), "%s cut at %d", name, i)
		}
	}
	require.Error(t, c.Step(start, "b", []byte{format, 9, 0, 0, 0, 0, 0, 0, 0, 1}))
	huge := message{kind: msgStore, round: 1, register: register{timestamp{maxSeq + 1, "w", 1}, nil}}
	require.Error(t, c.Step(start, "b", huge.encode()))
	zero := message{kind: msgStore, round: 1, register: register{value: []byte("v")}}
	require.Error(t, c.Step(start, "b", zero.encode()))
	require.Empty(t, c.registers)
	rd := c.Ready()
	require.Empty(t, rd.Save)
	require.Empty(t, rd.Send)
}

func TestDescribe(t *testing.T) {
	c := newNet(t, Atomic, "a", "b", "c").cores["a"]
	var lines []string
	for _, name := range []string{"query", "report", "store", "stored", "record"} {
		lines = append(lines, c.Describe(samples()[name]))
	}
	require.Equal(t, []string{`Query key="key" round=1`, "Report at=7.writer.0102 round=2", `Store key="key" at=7.writer.0102 round=3`,
		"Stored round=4", `register key="key" at=7.writer.0102`}, lines)
	require.NotEmpty(t, c.Describe([]byte{1, 99}))
}

func FuzzMessage(f *testing.F) {
	for _, b := range samples() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMessage(b, 1<<10, 1<<20)
		if err != nil {
			return
		}
		again, err := decodeMessage(m.encode(), 1<<10, 1<<20)
		if err != nil || fmt.Sprint(again) != fmt.Sprint(m) {
			t.Fatalf("%v came back as %v, %v", m, again, err)
		}
	})
}

func FuzzRecord(f *testing.F) {
	for _, b := range samples() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		key, r, err := decodeRecord(b)
		if err != nil {
			return
		}
		k, again, err := decodeRecord(encodeRecord(key, r))
		if err != nil || k != key || fmt.Sprint(again) != fmt.Sprint(r) {
			t.Fatalf("%q %v came back as %q %v, %v", key, r, k, again, err)
		}
	})
}
