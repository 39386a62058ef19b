package clocksync

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
)

// net carries messages between cores in rounds of one virtual clock.
type net struct {
	now    time.Time
	cores  map[coterie.NodeID]coterie.Core
	order  []coterie.NodeID
	delay  func(from, to coterie.NodeID) (time.Duration, bool)
	queue  []mail
	wake   map[coterie.NodeID]time.Time
	events map[coterie.NodeID][]any
	handle func(id coterie.NodeID, event any)
}

type mail struct {
	at       time.Time
	from, to coterie.NodeID
	payload  []byte
}

func (n *net) add(id coterie.NodeID, c coterie.Core) {
	if n.cores == nil {
		n.cores, n.wake, n.events = map[coterie.NodeID]coterie.Core{}, map[coterie.NodeID]time.Time{}, map[coterie.NodeID][]any{}
	}
	n.cores[id], n.order = c, append(n.order, id)
	c.Tick(n.now)
	n.take(id)
}

func (n *net) take(id coterie.NodeID) {
	r := n.cores[id].Ready()
	for _, e := range r.Send {
		if d, ok := n.delay(id, e.To); ok {
			n.queue = append(n.queue, mail{n.now.Add(d), id, e.To, e.Payload})
		}
	}
	n.wake[id] = r.Wake
	for _, e := range r.Events {
		n.events[id] = append(n.events[id], e)
		if n.handle != nil {
			n.handle(id, e)
		}
	}
}

// run lets virtual time pass to the end, event by event.
func (n *net) run(t require.TestingT, end time.Time) {
	for {
		next, who, m := end.Add(1), coterie.NodeID(""), -1
		for i, x := range n.queue {
			if x.at.Before(next) {
				next, m = x.at, i
			}
		}
		for _, id := range n.order {
			if w := n.wake[id]; !w.IsZero() && w.Before(next) {
				next, who, m = w, id, -1
			}
		}
		if next.After(end) {
			n.now = end
			return
		}
		n.now = next
		if m >= 0 {
			x := n.queue[m]
			n.queue = append(n.queue[:m], n.queue[m+1:]...)
			if n.cores[x.to] != nil {
				require.NoError(t, n.cores[x.to].Step(n.now, x.from, x.payload))
				n.take(x.to)
			}
			continue
		}
		n.cores[who].Tick(n.now)
		n.take(who)
	}
}

// Under any delay, loss and repetition, each Synced's interval holds the server's time.
func TestCristianIntervalContainsServerTime(t *testing.T) {
	check(t, func(t *rapid.T) {
		skew := time.Duration(rapid.Int64Range(-1e12, 1e12).Draw(t, "skew"))
		n := &net{now: epoch}
		n.delay = func(_, _ coterie.NodeID) (time.Duration, bool) {
			return time.Duration(rapid.Int64Range(0, 3e9).Draw(t, "delay")), rapid.IntRange(0, 9).Draw(t, "lost") > 0
		}
		server, err := NewCristian(CristianConfig{Clock: func() time.Time { return n.now.Add(skew) }, Seed: 1})
		require.NoError(t, err)
		client, err := NewCristian(CristianConfig{Clock: func() time.Time { return n.now }, Seed: 2, Server: "s", Interval: 2 * time.Second})
		require.NoError(t, err)
		n.handle = func(_ coterie.NodeID, event any) {
			s := event.(Synced).Sample
			require.True(t, s.Interval().Contains(n.now.Add(skew)), "%+v", s)
			require.LessOrEqual(t, s.Delay, time.Second)
		}
		n.add("s", server)
		n.add("c", client)
		n.run(t, epoch.Add(20*time.Second))
	})
}

func TestCristianIgnoresWhatItDidNotAskFor(t *testing.T) {
	now := epoch
	c, err := NewCristian(CristianConfig{Clock: func() time.Time { return now }, Seed: 2, Server: "s", MinDelay: 4 * time.Millisecond})
	require.NoError(t, err)
	c.Tick(now)
	ready := c.Ready()
	require.Len(t, ready.Send, 1)
	require.Equal(t, now.Add(16*time.Second), ready.Wake)
	ask, err := decode(ready.Send[0].Payload)
	require.NoError(t, err)
	answer := message{kindTime, ask.round, epoch.Add(time.Hour).UnixNano()}
	now = now.Add(10 * time.Millisecond)
	require.NoError(t, c.Step(now, "other", answer.encode()))
	require.NoError(t, c.Step(now, "s", message{kindTime, ask.round - 1, 0}.encode()))
	require.Empty(t, c.Ready().Events)
	require.NoError(t, c.Step(now, "s", answer.encode()))
	require.NoError(t, c.Step(now, "s", answer.encode())) // repeated by the network
	events := c.Ready().Events
	require.Len(t, events, 1)
	s := events[0].(Synced).Sample
	require.Equal(t, time.Hour-5*time.Millisecond, s.Offset)
	require.Equal(t, time.Millisecond+1, s.Error)
	require.Error(t, c.Step(now, "s", message{kindAdjust, 1, 1}.encode()))
	require.Error(t, c.Replay(nil))
	require.Contains(t, c.Describe(answer.encode()), "2026-03-01T13:00:00Z")

	_, err = NewCristian(CristianConfig{Interval: -1})
	for _, field := range []string{"Clock", "Seed", "Interval"} {
		require.ErrorContains(t, err, field)
	}
}

// group is a Berkeley group with a master m and members a, b, c, whose clocks are off as given.
func group(t require.TestingT, n *net, off map[coterie.NodeID]time.Duration) {
	n.now = epoch
	n.handle = func(id coterie.NodeID, event any) { off[id] += event.(Adjust).By }
	for _, id := range []coterie.NodeID{"a", "b", "c", "m"} {
		c, err := NewBerkeley(BerkeleyConfig{ID: id, Master: "m", Members: []coterie.NodeID{"a", "b", "c", "m"}, Seed: 3,
			Clock: func() time.Time { return n.now.Add(off[id]) }})
		require.NoError(t, err)
		n.add(id, c)
	}
}

// The clocks come together within what the delays allow, and a clock far off joins the others, not they it.
func TestBerkeleyBringsClocksTogether(t *testing.T) {
	check(t, func(t *rapid.T) {
		off := map[coterie.NodeID]time.Duration{}
		for _, id := range []coterie.NodeID{"a", "b", "m"} {
			off[id] = time.Duration(rapid.Int64Range(-2e8, 2e8).Draw(t, "off"))
		}
		off["c"] = time.Duration(rapid.SampledFrom([]int64{-1, 1}).Draw(t, "side") * rapid.Int64Range(1e9, 1e15).Draw(t, "far"))
		n := &net{delay: func(_, _ coterie.NodeID) (time.Duration, bool) {
			return time.Duration(rapid.Int64Range(0, 10e6).Draw(t, "delay")), true
		}}
		group(t, n, off)
		n.run(t, epoch.Add(35*time.Second))
		for _, id := range n.order {
			require.InDelta(t, 0, off[id], 2.5e8, "the others followed the one that was far off")
			for _, o := range n.order {
				require.InDelta(t, off[id], off[o], 20e6)
			}
		}
	})
}

func TestBerkeleyWithoutAnswersAndWithRepeats(t *testing.T) {
	off := map[coterie.NodeID]time.Duration{"a": 0, "b": 100 * time.Millisecond, "c": 200 * time.Millisecond, "m": 100 * time.Millisecond}
	n := &net{delay: func(from, _ coterie.NodeID) (time.Duration, bool) { return time.Millisecond, from != "c" }}
	group(t, n, off)
	n.run(t, epoch.Add(5*time.Second))
	require.Equal(t, 200*time.Millisecond, off["c"]) // its answers are lost: the poll ends without it
	require.InDelta(t, 66e6, off["a"], 2e6)
	require.InDelta(t, 66e6, off["m"], 2e6)
	require.Len(t, n.events["a"], 1)

	a := n.cores["a"]
	round := n.events["a"][0].(Adjust).Round
	require.NoError(t, a.Step(n.now, "m", message{kindAdjust, round, 5}.encode())) // repeated
	require.NoError(t, a.Step(n.now, "b", message{kind: kindAsk, round: 9}.encode()))
	r := a.Ready()
	require.Empty(t, r.Events)
	require.Empty(t, r.Send)
	m := n.cores["m"]
	require.NoError(t, m.Step(n.now, "a", message{kindTime, round, math.MaxInt64}.encode())) // late
	require.Empty(t, m.Ready().Send)

	_, err := NewBerkeley(BerkeleyConfig{Timeout: time.Hour})
	for _, field := range []string{"ID", "Master", "Clock", "Seed", "Timeout"} {
		require.ErrorContains(t, err, field)
	}
}

func TestAverageNear(t *testing.T) {
	for _, tt := range []struct{ in, want []time.Duration }{
		{[]time.Duration{0}, []time.Duration{0}},
		{[]time.Duration{0, 10, 20}, []time.Duration{10}},
		{[]time.Duration{0, 1000, 1010}, []time.Duration{1005}},
		{[]time.Duration{0, 1000, -1000}, []time.Duration{0}},
		{[]time.Duration{-30, 0, 60, 200}, []time.Duration{10}},
	} {
		require.Equal(t, tt.want[0], averageNear(tt.in, 100), "%v", tt.in)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte{1, kindAsk, 5})
	f.Add(message{kindTime, 5, math.MinInt64}.encode())
	f.Add(message{kindAdjust, 1, 7}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		now := epoch
		master, err := NewBerkeley(BerkeleyConfig{ID: "m", Master: "m", Members: []coterie.NodeID{"a"}, Seed: 1,
			Clock: func() time.Time { return now }})
		require.NoError(t, err)
		master.Tick(now)
		master.Ready()
		before := *master
		if err := master.Step(now, "a", b); err != nil {
			require.Equal(t, before.round, master.round)
			require.Empty(t, master.offsets)
			return
		}
		m, err := decode(b)
		require.NoError(t, err)
		again, err := decode(m.encode())
		require.NoError(t, err)
		require.Equal(t, m, again)
		require.NotEmpty(t, master.Describe(b))
	})
}
