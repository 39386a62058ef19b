package deadlock

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestConfigFaults(t *testing.T) {
	for want, cfg := range map[string]Config{
		"ID is empty":                    {Peers: nodes},
		"Peers does not contain ID":      {ID: "x", Peers: nodes},
		"Peers contains an empty id":     {ID: "x", Peers: []coterie.NodeID{"x", ""}},
		"Peers contains an id twice":     {ID: "x", Peers: []coterie.NodeID{"x", "x"}},
		"Delay is negative":              {ID: "a", Peers: nodes, Delay: -1},
		"Resend is negative":             {ID: "a", Peers: nodes, Resend: -1},
		"MaxWaits is negative":           {ID: "a", Peers: nodes, MaxWaits: -1},
		"MaxGrants is negative":          {ID: "a", Peers: nodes, MaxGrants: -1},
		"Config.MaxCycle is negative":    {ID: "a", Peers: nodes, MaxCycle: -1},
		"deadlock: Config.ID is empty\n": {},
	} {
		_, err := NewCore(cfg)
		require.ErrorContains(t, err, want)
	}
}

func TestCallsWithFaultsChangeNothing(t *testing.T) {
	c, err := NewCore(Config{ID: "a", Peers: nodes, MaxWaits: 1})
	require.NoError(t, err)
	now := time.Unix(0, 0)
	own, other := process(0), process(1)
	for _, bad := range [][2]Process{
		{other, own}, {own, own}, {{"a", ""}, other}, {own, {"x", "p"}}, {own, {"b", ""}},
	} {
		_, err := c.Block(now, bad[0], bad[1])
		require.Error(t, err, "%v", bad)
	}
	_, err = c.Block(now, own, other, process(2))
	require.ErrorIs(t, err, coterie.ErrOverloaded)
	require.Error(t, c.Grant(Edge{own, other, 1}))
	require.Error(t, c.Grant(Edge{Process{"x", "p"}, own, 1}))
	c.Unblock(now, own)
	require.Empty(t, c.Graph().live())
	r := c.Ready()
	require.Empty(t, r.Save)
	require.Empty(t, r.Send)
	require.True(t, r.Wake.IsZero())
	block(t, c, now, own, other)
	require.Zero(t, block(t, c, now, own, other, other), "it waits already")
	require.Len(t, c.Graph().live(), 1)
}

// cluster is cores on links that lose nothing and take no time.
type cluster struct {
	t     *testing.T
	cores map[coterie.NodeID]*Core
	sent  map[byte]int // by kind
	found []Deadlock
	now   time.Time
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, cores: make(map[coterie.NodeID]*Core), sent: make(map[byte]int), now: time.Unix(0, 0)}
	for _, id := range nodes {
		c.cores[id] = newCore(t, id)
	}
	return c
}

func (c *cluster) settle() {
	for again := true; again; {
		again = false
		for _, id := range nodes {
			r := c.cores[id].Ready()
			for _, e := range r.Events {
				c.found = append(c.found, e.(Deadlock))
			}
			for _, e := range r.Send {
				again = true
				c.sent[e.Payload[1]]++
				require.NotEqual(c.t, id, e.To, "no edge within a node costs a message")
				require.NoError(c.t, c.cores[e.To].Step(c.now, id, e.Payload))
			}
		}
	}
}

func (c *cluster) block(w int, holders ...int) uint64 {
	var hs []Process
	for _, h := range holders {
		hs = append(hs, process(h))
	}
	version := block(c.t, c.cores[process(w).Node], c.now, process(w), hs...)
	c.settle()
	return version
}

func TestMessagesOfACircle(t *testing.T) {
	c := newCluster(t)
	const k = 6 // each edge crosses nodes
	for i := range k - 1 {
		c.block(i, i+1)
	}
	require.Equal(t, map[byte]int{kindProbe: k - 1}, c.sent, "one for each, to a process that does not wait")
	require.Empty(t, c.found)
	clear(c.sent)
	c.block(k-1, 0)
	require.Equal(t, map[byte]int{kindProbe: k, kindConfirm: k}, c.sent)
	require.Len(t, c.found, 1)
	require.Equal(t, process(k-1), c.found[0].Initiator)
	require.Len(t, c.found[0].Cycle, k)

	clear(c.sent)
	c.now = c.now.Add(100 * time.Millisecond)
	for _, id := range nodes { // the others ask again, and find it too; who found it tells nothing new
		c.cores[id].Tick(c.now)
	}
	c.settle()
	require.Equal(t, map[byte]int{kindProbe: k * k, kindConfirm: k * k}, c.sent)
	require.Len(t, c.found, k)
}

// However many paths lead from the initiator, a computation sends at most one probe along each edge.
func TestOneProbeForEachEdge(t *testing.T) {
	c := newCluster(t)
	edges := 0
	for i := 1; i < 9; i++ {
		var later []int
		for j := i + 1; j <= 9; j++ {
			if process(j).Node != process(i).Node {
				edges++
			}
			later = append(later, j)
		}
		c.block(i, later...)
	}
	clear(c.sent)
	c.block(0, 1)
	require.Equal(t, map[byte]int{kindProbe: edges + 1}, c.sent)
	require.Empty(t, c.found)
}

func TestCircleWithinANodeCostsNothing(t *testing.T) {
	c := newCluster(t)
	c.block(0, 3)
	c.block(3, 6)
	c.block(6, 0)
	require.Empty(t, c.sent)
	require.Len(t, c.found, 1)
}

func TestAGrantUnderWayIsNoWait(t *testing.T) {
	c := newCluster(t)
	version := c.block(0, 1)
	require.NoError(t, c.cores["b"].Grant(Edge{process(0), process(1), version}))
	c.block(1, 0)
	require.Empty(t, c.found, "process 0 goes on when it hears of the grant")
	c.cores["a"].Unblock(c.now, process(0))
	c.block(0, 1)
	require.Len(t, c.found, 1, "the wait after that was not granted")

	c = newCluster(t)
	require.NoError(t, c.cores["b"].Grant(Edge{process(0), process(1), c.block(0, 1)}))
	c.block(1, 2)
	clear(c.sent)
	c.now = c.now.Add(100 * time.Millisecond)
	c.cores["a"].Tick(c.now)
	c.settle()
	require.Equal(t, map[byte]int{kindProbe: 1}, c.sent, "the probe ends where the grant was given")
}

func TestGrantsAreBounded(t *testing.T) {
	c, err := NewCore(Config{ID: "a", Peers: nodes, MaxGrants: 2})
	require.NoError(t, err)
	for i := range 9 {
		require.NoError(t, c.Grant(Edge{process(i + 1), process(0), 1}))
	}
	require.Len(t, c.granted, 2)
	require.Len(t, c.grants, 2)
}

func TestDelayKeepsShortWaitsQuiet(t *testing.T) {
	c, err := NewCore(Config{ID: "a", Peers: nodes, Delay: time.Second})
	require.NoError(t, err)
	now := time.Unix(0, 0)
	block(t, c, now, process(0), process(1))
	r := c.Ready()
	require.Empty(t, r.Send)
	require.Equal(t, now.Add(time.Second), r.Wake)
	c.Tick(now.Add(time.Second))
	r = c.Ready()
	require.Len(t, r.Send, 1)
	require.Equal(t, now.Add(1100*time.Millisecond), r.Wake)
	c.Unblock(now, process(0))
	require.True(t, c.Ready().Wake.IsZero())
}

func TestNumbersAreNotUsedAgainAfterARestart(t *testing.T) {
	c := newCore(t, "a")
	first := block(t, c, time.Unix(0, 0), process(0), process(1))
	r := c.Ready()
	require.Len(t, r.Save, 1)
	again := newCore(t, "a")
	require.NoError(t, again.Replay(r.Save[0]))
	again.Tick(time.Unix(0, 0))
	require.GreaterOrEqual(t, block(t, again, time.Unix(0, 0), process(0), process(1)), first+reserved)
	require.Equal(t, "Reserve numbers<4294967297", c.Describe(r.Save[0]))

	newer := (*coterie.FormatError)(nil)
	require.ErrorAs(t, c.Replay([]byte{recordFormat + 1}), &newer)
	require.Error(t, c.Replay([]byte{recordFormat, 1}))
}

func messages() []message {
	path := []Edge{{process(0), process(1), 7}, {process(1), process(2), 1 << 40}, {process(2), process(0), 9}}
	return []message{
		{kind: kindProbe, number: 300, path: path[:2]},
		{kind: kindConfirm, number: 300, at: 2, path: path},
	}
}

func TestGolden(t *testing.T) {
	var got bytes.Buffer
	for _, m := range messages() {
		fmt.Fprintf(&got, "%x %s\n", m.encode(), describe(m.encode()))
	}
	g := ring(3)
	g.Remove(Edge{process(1), process(2), 4})
	b, err := g.MarshalBinary()
	require.NoError(t, err)
	fmt.Fprintf(&got, "%x graph\n", b)
	c := newCore(t, "a")
	block(t, c, time.Unix(0, 0), process(0), process(1))
	fmt.Fprintf(&got, "%x record\n", c.Ready().Save[0])
	path := filepath.Join("testdata", "formats.golden")
	if *update {
		require.NoError(t, os.WriteFile(path, got.Bytes(), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got.String(), "a format may change with a CHANGELOG line only")
	back := &Graph{}
	require.NoError(t, back.UnmarshalBinary(b))
	require.Equal(t, g, back)
	newer := (*coterie.FormatError)(nil)
	require.ErrorAs(t, back.UnmarshalBinary([]byte{graphFormat + 1}), &newer)
	require.ErrorAs(t, c.Step(time.Time{}, "b", []byte{messageFormat + 1}), &newer)
	require.Equal(t, g, back)
}

func TestMessagesThatAreRefused(t *testing.T) {
	c := newCore(t, "b")
	m := messages()[1]
	require.ErrorContains(t, c.Step(time.Time{}, "x", m.encode()), "unknown node")
	require.ErrorContains(t, c.Step(time.Time{}, "a", m.encode()), "message for p2@c")
	m.path[2].Holder = process(5)
	require.ErrorContains(t, c.Step(time.Time{}, "a", m.encode()), "kind 2")
	m = messages()[0]
	m.at = 1
	require.ErrorContains(t, c.Step(time.Time{}, "a", m.encode()), "kind 1")
	require.Error(t, c.Step(time.Time{}, "a", nil))
}

func FuzzStep(f *testing.F) {
	for _, m := range messages() {
		f.Add(m.encode())
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		c := newCore(t, "c")
		block(t, c, time.Unix(0, 0), process(2), process(0), process(1))
		c.Ready()
		before := c.Graph()
		_ = c.Describe(payload)
		if err := c.Step(time.Unix(0, 0), "a", payload); err != nil {
			r := c.Ready()
			require.Empty(t, r.Send)
			require.Empty(t, r.Events)
			require.Empty(t, c.waits[process(2)].seen)
			return
		}
		require.Equal(t, before, c.Graph())
		m, err := decodeMessage(payload)
		require.NoError(t, err)
		again, err := decodeMessage(m.encode())
		require.NoError(t, err)
		require.Equal(t, m, again)
	})
}

func FuzzGraphUnmarshal(f *testing.F) {
	b, err := ring(3).MarshalBinary()
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		g := ring(2)
		if err := g.UnmarshalBinary(data); err != nil {
			require.Equal(t, ring(2), g)
			return
		}
		b, err := g.MarshalBinary()
		require.NoError(t, errors.Join(err, (&Graph{}).UnmarshalBinary(b)))
		again := &Graph{}
		require.NoError(t, again.UnmarshalBinary(b))
		require.Equal(t, g, again)
	})
}
