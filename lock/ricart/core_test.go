package ricart

import (
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/lock"
)

var start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func newCore(tb testing.TB, id coterie.NodeID, change ...func(*Config)) *Core {
	tb.Helper()
	cfg := Config{ID: id, Peers: []coterie.NodeID{"c", "a", "b"}}
	for _, f := range change {
		f(&cfg)
	}
	c, err := NewCore(cfg)
	require.NoError(tb, err)
	return c
}

// said is what a core sends, saves and tells, as text.
func said(c *Core) []string {
	ready := c.Ready()
	var lines []string
	for _, record := range ready.Save {
		lines = append(lines, "save "+c.Describe(record))
	}
	for _, e := range ready.Send {
		lines = append(lines, fmt.Sprintf("to %s %s", e.To, c.Describe(e.Payload)))
	}
	for _, e := range ready.Events {
		entered := e.(lock.Entered)
		lines = append(lines, fmt.Sprintf("entered %s %d", entered.Name, entered.Token))
	}
	return lines
}

func step(t *testing.T, c *Core, from coterie.NodeID, kind byte, time uint64) {
	t.Helper()
	require.NoError(t, c.Step(start, from, message{kind: kind, time: time, name: "x"}.encode()))
	require.NoError(t, c.check())
}

// An answer is put off to a later request, given at once to an earlier one, and of equal times the smaller id is
// earlier; the next request is later than all that was seen.
func TestDeferral(t *testing.T) {
	b := newCore(t, "b")
	b.Request(start, "x")
	require.Equal(t, []string{"save Bound time=1025", `to a Request "x" time=1`, `to c Request "x" time=1`}, said(b))
	b.Request(start, "x") // once is enough
	require.Empty(t, said(b))
	step(t, b, "a", kindRequest, 1) // a's is earlier
	require.Equal(t, []string{`to a Reply "x" time=1`}, said(b))
	step(t, b, "c", kindRequest, 1) // c's is later
	require.Empty(t, said(b))
	step(t, b, "a", kindReply, 1)
	step(t, b, "a", kindReply, 1) // repeated: counts once
	require.Empty(t, said(b))
	step(t, b, "c", kindReply, 1)
	require.Equal(t, []string{fmt.Sprint("entered x ", 1<<placeBits|1)}, said(b))
	step(t, b, "a", kindRequest, 7)
	step(t, b, "a", kindRequest, 6) // late
	require.Empty(t, said(b))
	b.Release(start, "x")
	require.Equal(t, []string{`to a Reply "x" time=7`, `to c Reply "x" time=1`}, said(b))
	b.Request(start, "x")
	require.Equal(t, []string{`to a Request "x" time=8`, `to c Request "x" time=8`}, said(b))
}

// A holder answers nobody, not even one that forgot what it had answered, as a wiped node does.
func TestHolderAnswersNobody(t *testing.T) {
	b := newCore(t, "b")
	b.Request(start, "x")
	b.Release(start, "x")
	b.Request(start, "x")
	step(t, b, "a", kindReply, 2)
	step(t, b, "c", kindReply, 2)
	said(b)
	step(t, b, "c", kindRequest, 1)
	require.Empty(t, said(b))
}

// The answer to a request that was taken back lets nobody in.
func TestTakenBack(t *testing.T) {
	b := newCore(t, "b")
	b.Request(start, "x")
	step(t, b, "a", kindReply, 1)
	step(t, b, "c", kindRequest, 5)
	said(b)
	b.Release(start, "x")
	require.Equal(t, []string{`to c Reply "x" time=5`}, said(b))
	b.Release(start, "x") // neither held nor asked for
	b.Release(start, "unknown")
	step(t, b, "c", kindReply, 1)
	b.Request(start, "x")
	said(b)
	step(t, b, "a", kindReply, 1)
	step(t, b, "c", kindReply, 1)
	require.Empty(t, said(b))
}

// What a batch enters and leaves again is not told; the entry after it is.
func TestLeftWithinTheBatch(t *testing.T) {
	c := newCore(t, "a", func(cfg *Config) { cfg.Peers = []coterie.NodeID{"a"} })
	c.Request(start, "x")
	c.Release(start, "x")
	require.NotContains(t, strings.Join(said(c), " "), "entered")
	c.Request(start, "x")
	c.Release(start, "x")
	c.Request(start, "x")
	require.Equal(t, []string{fmt.Sprint("entered x ", 3<<placeBits)}, said(c))
	token, held := c.Holding("x")
	require.True(t, held)
	require.EqualValues(t, 3<<placeBits, token)
}

// A restarted node asks for nothing, holds nothing, answers, and its times go on from the durable bound, which covers
// what it has answered.
func TestRestart(t *testing.T) {
	b := newCore(t, "b")
	step(t, b, "a", kindRequest, 5000)
	ready := b.Ready()
	require.Len(t, ready.Save, 1)
	require.Equal(t, 1, ready.Keep)
	again := newCore(t, "b")
	require.NoError(t, again.Replay(ready.Save[0]))
	require.NoError(t, again.Replay(message{kind: kindBound, time: 3}.encode())) // more than was kept may come
	again.Tick(start)
	require.Empty(t, said(again))
	again.Request(start, "x")
	require.Equal(t, []string{"save Bound time=7049", `to a Request "x" time=6025`, `to c Request "x" time=6025`}, said(again))
}

// Only who is silent is asked again, at growing intervals, and nobody after the entry.
func TestRepeats(t *testing.T) {
	b := newCore(t, "b")
	b.Request(start, "x")
	step(t, b, "a", kindReply, 1)
	now := b.Ready().Wake
	require.Equal(t, start.Add(100*time.Millisecond), now)
	for _, next := range []int{200, 400, 800, 1600, 1600} {
		b.Tick(now.Add(-1)) // early: nothing
		require.Empty(t, b.Ready().Send)
		b.Tick(now)
		ready := b.Ready()
		require.Len(t, ready.Send, 1)
		require.Equal(t, coterie.NodeID("c"), ready.Send[0].To)
		require.Equal(t, now.Add(time.Duration(next)*time.Millisecond), ready.Wake)
		now = ready.Wake
	}
	require.EqualValues(t, 5, b.Resent())
	step(t, b, "c", kindReply, 1)
	b.Tick(now)
	ready := b.Ready()
	require.Empty(t, ready.Send)
	require.Zero(t, ready.Wake)
}

func TestMaxNames(t *testing.T) {
	b := newCore(t, "b", func(cfg *Config) { cfg.MaxNames = 1 })
	for _, name := range []string{"x", "y", "gone", "z"} {
		b.Request(start, name)
		b.Request(start, name)
	}
	require.Len(t, said(b), 3)
	step(t, b, "a", kindRequest, 1) // earlier than x, whatever is queued
	require.Len(t, said(b), 1)
	b.Release(start, "gone")
	b.Release(start, "x")
	require.Equal(t, []string{`to a Request "y" time=2`, `to c Request "y" time=2`}, said(b))
	b.Release(start, "y")
	require.Equal(t, []string{`to a Request "z" time=3`, `to c Request "z" time=3`}, said(b))
	require.NoError(t, b.check())
}

// At the end of time nothing is granted and nothing breaks.
func TestEndOfTime(t *testing.T) {
	b := newCore(t, "b")
	step(t, b, "a", kindRequest, maxTime)
	require.Equal(t, []string{fmt.Sprint("save Bound time=", maxTime), fmt.Sprintf(`to a Reply "x" time=%d`, maxTime)}, said(b))
	b.Request(start, "x")
	require.Empty(t, said(b))
	b.Release(start, "x")
	require.NoError(t, b.check())
}

func TestBadInputChangesNothing(t *testing.T) {
	good := message{kind: kindRequest, time: 9, name: "x"}.encode()
	b := newCore(t, "b")
	for _, from := range []coterie.NodeID{"b", "stranger", ""} {
		require.Error(t, b.Step(start, from, good))
	}
	for _, bad := range [][]byte{
		nil, {0, 1, 1, 0}, {1}, {1, 0, 1, 0}, {1, 4, 1, 0}, {1, 1, 0, 0}, good[:len(good)-1], append(slices.Clip(good), 0),
		message{kind: kindBound, time: 9}.encode(), message{kind: kindRequest, time: maxTime + 1}.encode(),
	} {
		require.ErrorIs(t, b.Step(start, "a", bad), wire.ErrMalformed)
	}
	newer := append([]byte{format + 1}, good[1:]...)
	var formatError *coterie.FormatError
	require.ErrorAs(t, b.Step(start, "a", newer), &formatError)
	require.ErrorAs(t, b.Replay(newer), &formatError)
	require.ErrorIs(t, b.Replay(good), wire.ErrMalformed)
	require.Contains(t, b.Describe(newer), "not ricart's")
	require.Empty(t, said(b))
	require.Equal(t, newCore(t, "b").clock, b.clock)
}

func TestFormatIsPinned(t *testing.T) {
	var lines []string
	for _, m := range []message{
		{kind: kindRequest, time: 1, name: "x"}, {kind: kindReply, time: 300, name: "a name"},
		{kind: kindRequest, time: maxTime}, {kind: kindBound, time: 1025},
	} {
		b := m.encode()
		lines = append(lines, newCore(t, "a").Describe(b)+": "+hex.EncodeToString(b))
		back, err := decode(b)
		require.NoError(t, err)
		require.Equal(t, m, back)
	}
	golden, err := os.ReadFile("testdata/format.golden")
	require.NoError(t, err)
	require.Equal(t, string(golden), strings.Join(lines, "\n")+"\n")
}

// Any bytes, to a node that holds one name and asks for another, are an error that changes nothing, or keep the
// invariants.
func FuzzStep(f *testing.F) {
	f.Add([]byte{1, kindRequest, 1, 1, 'x'})
	f.Fuzz(func(t *testing.T, payload []byte) {
		c := newCore(t, "b")
		c.Request(start, "x")
		c.Request(start, "y")
		step(t, c, "a", kindReply, 1)
		step(t, c, "c", kindReply, 1)
		c.Ready()
		clock := c.clock
		_ = c.Describe(payload)
		if err := c.Step(start, "c", payload); err != nil {
			ready := c.Ready()
			require.Empty(t, ready.Send)
			require.Empty(t, ready.Save)
			require.Equal(t, clock, c.clock)
		}
		require.NoError(t, c.check())
		require.LessOrEqual(t, len(c.Ready().Send), 1)
		if m, err := decode(payload); err == nil {
			back, err := decode(m.encode())
			require.NoError(t, err)
			require.Equal(t, m, back)
		}
	})
}
