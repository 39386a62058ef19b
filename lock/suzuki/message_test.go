package suzuki

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/stretchr/testify/require"
)

var peers3 = []coterie.NodeID{"a", "b", "c"}

func samples() []message {
	return []message{
		{kind: kindRequest, name: "x", number: 1<<32 | 7, promised: 4, seen: stamp{3, 9}, flag: true},
		{kind: kindToken, name: "x", token: token{stamp: stamp{3, 9}, ln: []uint64{1, 300, 0}, queue: []int{2, 0}}},
		{kind: kindReclaim, name: "x", promised: 5},
		{kind: kindPromise, name: "x", number: 7, promised: 5, flag: true},
		{kind: kindNotice, name: "x", promised: 5, seen: stamp{5, 1}, flag: true},
	}
}

func sampleRecords(t *testing.T) [][]byte {
	t.Helper()
	c, err := NewCore(Config{ID: "a", Peers: peers3})
	require.NoError(t, err)
	n := c.begin("x")
	n.saved, n.promised, n.seen, n.place, n.to, n.token = true, 3, stamp{3, 9}, sent, 1, samples()[1].token
	c.begin("none").saved = false
	c.incarnation = 2
	return [][]byte{appendStart(nil, 2), appendName(head(recordName), n), c.summary()}
}

// The formats are what they were.
func TestGolden(t *testing.T) {
	var lines []string
	c, err := NewCore(Config{ID: "a", Peers: peers3})
	require.NoError(t, err)
	for _, m := range samples() {
		b := m.encode()
		lines = append(lines, hex.EncodeToString(b)+" "+c.Describe(b))
		got, err := decode(b, 3)
		require.NoError(t, err)
		require.Equal(t, m, got)
	}
	for _, b := range sampleRecords(t) {
		lines = append(lines, hex.EncodeToString(b)+" "+c.Describe(b))
	}
	got := strings.Join(lines, "\n") + "\n"
	want, err := os.ReadFile("testdata/format.golden")
	if os.Getenv("COTERIE_GOLDEN") != "" {
		require.NoError(t, os.WriteFile("testdata/format.golden", []byte(got), 0o644))
		return
	}
	require.NoError(t, err)
	require.Equal(t, strings.ReplaceAll(string(want), "\r\n", "\n"), got)
}

func TestNewerFormat(t *testing.T) {
	var format *coterie.FormatError
	c, err := NewCore(Config{ID: "a", Peers: peers3})
	require.NoError(t, err)
	require.ErrorAs(t, c.Step(time.Unix(0, 0), "b", []byte{2, 1}), &format)
	require.ErrorAs(t, c.Replay([]byte{2, 16}), &format)
	require.Error(t, c.Step(time.Unix(0, 0), "a", samples()[0].encode()), "from itself")
	require.Error(t, c.Step(time.Unix(0, 0), "z", samples()[0].encode()), "from a stranger")
}

// What was saved is there again, also from a summary, and a restarted core gives the same summary.
func TestReplay(t *testing.T) {
	records := sampleRecords(t)
	for _, from := range [][][]byte{records[:2], records[2:], records} {
		c, err := NewCore(Config{ID: "a", Peers: peers3})
		require.NoError(t, err)
		for _, r := range from {
			require.NoError(t, c.Replay(r))
		}
		require.Equal(t, records[2], c.summary())
	}
}

// A summary takes the place of older records: the journal stays short, and is enough.
func TestSummary(t *testing.T) {
	c, err := NewCore(Config{ID: "a", Peers: []coterie.NodeID{"a"}})
	require.NoError(t, err)
	now := time.Unix(0, 0)
	var journal [][]byte
	for range 2000 {
		c.Request(now, "x")
		c.Release(now, "x")
		ready := c.Ready()
		journal = append(journal, ready.Save...)
		if ready.Keep > 0 {
			journal = journal[len(journal)-ready.Keep:]
		}
		require.Less(t, len(journal), 300)
	}
	again, err := NewCore(Config{ID: "a", Peers: []coterie.NodeID{"a"}})
	require.NoError(t, err)
	for _, r := range journal {
		require.NoError(t, again.Replay(r))
	}
	require.Equal(t, c.names["x"].seen, again.names["x"].seen)
}

// Sequence numbers end: the token is given up and made anew in another epoch, which is larger.
func TestSequenceEnds(t *testing.T) {
	c, err := NewCore(Config{ID: "a", Peers: []coterie.NodeID{"a"}})
	require.NoError(t, err)
	now := time.Unix(0, 0)
	c.Request(now, "x")
	c.Release(now, "x")
	n := c.names["x"]
	n.token.seq = maxSeq - 1
	c.Request(now, "x")
	last := n.token.pack()
	c.Release(now, "x")
	c.Request(now, "x")
	require.False(t, n.held)
	for wake := c.Ready().Wake; !n.held && !wake.IsZero(); wake = c.Ready().Wake {
		c.Tick(wake)
	}
	require.True(t, n.held)
	require.Greater(t, n.token.pack(), last)
}

// Names are bounded, whoever makes them up.
func TestMaxNames(t *testing.T) {
	c, err := NewCore(Config{ID: "a", Peers: peers3, MaxNames: 2})
	require.NoError(t, err)
	now := time.Unix(0, 0)
	for _, name := range []string{"1", "2", "3", "4"} {
		require.NoError(t, c.Step(now, "b", message{kind: kindRequest, name: name, number: 1}.encode()))
	}
	c.Ready()
	c.Request(now, "5")
	c.Release(now, "5")
	require.True(t, c.out.Empty())
	require.Len(t, c.names, 2)
	require.EqualValues(t, 3, c.Stats().NoRoom)
}

func TestConfig(t *testing.T) {
	for field, cfg := range map[string]Config{
		"ID":       {Peers: peers3},
		"Peers":    {ID: "a"},
		"twice":    {ID: "a", Peers: []coterie.NodeID{"a", "b", "a"}},
		"empty":    {ID: "a", Peers: []coterie.NodeID{"a", ""}},
		"lacks":    {ID: "z", Peers: peers3},
		"over":     {ID: "a", Peers: make([]coterie.NodeID, maxPeers+1)},
		"Resend":   {ID: "a", Peers: peers3, Resend: -1},
		"Lost":     {ID: "a", Peers: peers3, Lost: time.Second},
		"MaxNames": {ID: "a", Peers: peers3, MaxNames: -1},
	} {
		_, err := NewCore(cfg)
		require.ErrorContains(t, err, field)
		_, err = Start(cfg)
		require.ErrorContains(t, err, field)
	}
	_, err := Start(Config{ID: "a", Peers: peers3})
	require.ErrorContains(t, err, "Transport")
}

// Any message gives effects or an error, never a panic; an error changes nothing.
func FuzzStep(f *testing.F) {
	for _, m := range samples() {
		f.Add(m.encode(), true)
	}
	f.Fuzz(func(t *testing.T, payload []byte, waiting bool) {
		now := time.Unix(0, 0)
		c, err := NewCore(Config{ID: "a", Peers: peers3})
		require.NoError(t, err)
		c.Tick(now)
		if waiting {
			c.Request(now, "x")
		}
		c.Ready()
		before := c.stats
		if err := c.Step(now, "b", payload); err != nil {
			require.True(t, c.out.Empty())
			require.Equal(t, before, c.stats)
		}
		c.Tick(now.Add(time.Minute))
		c.Ready()
		if m, err := decode(payload, 3); err == nil {
			again, err := decode(m.encode(), 3)
			require.NoError(t, err)
			require.Equal(t, m, again)
		}
		_ = c.Describe(payload)
	})
}

// Any record is taken back or an error, never a panic.
func FuzzReplay(f *testing.F) {
	f.Add([]byte{1, 16, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := NewCore(Config{ID: "a", Peers: peers3})
		require.NoError(t, err)
		err = c.Replay(b)
		if err != nil {
			require.Empty(t, c.names)
		}
		now := time.Unix(0, 0)
		c.Tick(now)
		c.Request(now, "x")
		c.Release(now, "x")
		c.Ready()
		_ = c.Describe(b)
	})
}

// Who waits asks anew when it hears of an epoch, whose token may count the old request as satisfied.
func TestAskAnew(t *testing.T) {
	c, err := NewCore(Config{ID: "b", Peers: peers3})
	require.NoError(t, err)
	now := time.Unix(0, 0)
	n := c.begin("x")
	n.place = elsewhere
	c.Request(now, "x")
	first := n.rn[1]
	c.Ready()
	require.NoError(t, c.Step(now, "c", message{kind: kindNotice, name: "x", promised: 5, seen: stamp{5, 1}}.encode()))
	ready := c.Ready()
	require.Len(t, ready.Send, 2)
	m, err := decode(ready.Send[0].Payload, 3)
	require.NoError(t, err)
	require.Equal(t, kindRequest, m.kind)
	require.Greater(t, m.number, first)
	require.NotEmpty(t, ready.Save, "the epoch is saved")
}
