package maekawa

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/lock"
)

var update = flag.Bool("update", false, "write the golden file")

// Section 2: any two quorums share a node; each is of about the same size and each node in about as many.
func TestPaper2QuorumsIntersectAndAreFair(t *testing.T) {
	for n := 1; n <= max(91, testsize.N(91, 200)); n++ {
		if n > 57 && planes[n] == nil && !testsize.Soak() {
			continue
		}
		ids := peers(n)
		quorums := Quorums(ids)
		in := make(map[coterie.NodeID]int)
		for i, a := range ids {
			require.Contains(t, quorums[a], a)
			for _, id := range quorums[a] {
				in[id]++
			}
			for _, b := range ids[:i] {
				require.True(t, slices.ContainsFunc(quorums[a], func(id coterie.NodeID) bool { return slices.Contains(quorums[b], id) }), "n=%d: %s, %s", n, a, b)
			}
			if line := planes[n]; line != nil {
				require.Len(t, quorums[a], len(line))
			} else {
				require.LessOrEqual(t, (len(quorums[a])-1)*(len(quorums[a])-1), 4*n, "n=%d", n)
			}
		}
		if line := planes[n]; line != nil {
			require.Equal(t, n, len(line)*(len(line)-1)+1)
			for _, id := range ids {
				require.Equal(t, len(line), in[id])
			}
		}
		slices.Reverse(ids)
		require.Equal(t, quorums, Quorums(ids))
	}
}

// arbiterCore is a core that is the only arbiter of a, b, c and d.
func arbiterCore(t *testing.T, records ...[]byte) *Core {
	t.Helper()
	all := []coterie.NodeID{"a", "b", "c", "d", "z"}
	quorums := make(map[coterie.NodeID][]coterie.NodeID)
	for _, id := range all {
		quorums[id] = []coterie.NodeID{"z"}
	}
	core, err := NewCore(Config{ID: "z", Peers: all, Quorums: quorums})
	require.NoError(t, err)
	for _, rec := range records {
		require.NoError(t, core.Replay(rec))
	}
	core.Tick(time.Time{})
	core.Ready()
	return core
}

// step gives a message and returns what leaves, and whether something is saved.
func step(t *testing.T, c *Core, from coterie.NodeID, m message) (sent []string, saved [][]byte) {
	t.Helper()
	m.name = "n"
	m.clock = max(m.clock, m.id.time, m.number)
	require.NoError(t, c.Step(time.Time{}, from, m.append(nil)))
	r := c.Ready()
	for _, e := range r.Send {
		out, err := decodeMessage(e.Payload)
		require.NoError(t, err)
		sent = append(sent, fmt.Sprintf("%s %v", e.To, out.kind))
		require.False(t, e.Early)
	}
	return sent, slices.Clone(r.Save)
}

func at(time uint64) requestID { return requestID{1, time} }

// Section 4 (and Sanders 1987): an older request makes the arbiter inquire, and one that is overtaken while it waits is
// told FAILED; what is relinquished waits and comes back in order.
func TestPaper4InquireRelinquishFailed(t *testing.T) {
	c := arbiterCore(t)
	sent, saved := step(t, c, "a", message{kind: kindRequest, id: at(10)})
	require.Equal(t, []string{"a Grant"}, sent)
	require.Len(t, saved, 1, "a grant is saved before it leaves")
	grant := c.arbiters["n"].grant
	sent, saved = step(t, c, "b", message{kind: kindRequest, id: at(12)})
	require.Equal(t, []string{"b Failed"}, sent)
	require.Empty(t, saved)
	sent, _ = step(t, c, "c", message{kind: kindRequest, id: at(5)})
	require.Equal(t, []string{"a Inquire"}, sent)
	sent, _ = step(t, c, "d", message{kind: kindRequest, id: at(3)})
	require.Equal(t, []string{"c Failed"}, sent, "c was the oldest that waits, and is no more")
	sent, _ = step(t, c, "a", message{kind: kindRelinquish, id: at(10), number: grant + 100})
	require.Empty(t, sent, "not the grant it has")
	sent, saved = step(t, c, "a", message{kind: kindRelinquish, id: at(10), number: grant})
	require.Equal(t, []string{"d Grant"}, sent)
	require.Len(t, saved, 1)
	sent, _ = step(t, c, "a", message{kind: kindRelinquish, id: at(10), number: grant})
	require.Empty(t, sent, "it came twice")
	for _, next := range []struct {
		from coterie.NodeID
		time uint64
		sent []string
	}{{"d", 3, []string{"c Grant"}}, {"c", 5, []string{"a Grant"}}, {"a", 10, []string{"b Grant"}}, {"b", 12, nil}} {
		sent, _ = step(t, c, next.from, message{kind: kindRelease, id: at(next.time)})
		require.Equal(t, next.sent, sent)
	}
	require.Empty(t, c.arbiters)
}

func TestArbiterRemembersItsGrantAndAsksTheHolder(t *testing.T) {
	c := arbiterCore(t)
	_, saved := step(t, c, "a", message{kind: kindRequest, id: at(1)})
	c = arbiterCore(t, saved...)
	sent, _ := step(t, c, "b", message{kind: kindRequest, id: at(7)})
	require.Equal(t, []string{"b Failed"}, sent)
	sent, _ = step(t, c, "b", message{kind: kindRequest, id: at(7), again: true})
	require.Equal(t, []string{"b Failed", "a Grant"}, sent)
	clock := c.clock
	sent, _ = step(t, c, "a", message{kind: kindRelease, id: at(1), clock: clock + 50})
	require.Equal(t, []string{"b Grant"}, sent)
	require.Greater(t, c.arbiters["n"].grant, clock+50, "the next holder's token exceeds what the last one knew")
}

// A journal stays short, and what it kept is what is known.
func TestSummaryReplacesOlderRecords(t *testing.T) {
	c := arbiterCore(t)
	var records [][]byte
	for i := range uint64(500) {
		m := message{kind: kindRequest, name: fmt.Sprint(i % 3), id: at(i + 1), clock: i + 1}
		require.NoError(t, c.Step(time.Time{}, "a", m.append(nil)))
		r := c.Ready()
		records = append(records, r.Save...)
		if r.Keep > 0 {
			records = records[len(records)-r.Keep:]
		}
		require.LessOrEqual(t, len(records), 66)
	}
	again := arbiterCore(t, records...)
	require.Equal(t, c.clock, again.clock)
	require.Len(t, again.arbiters, 3)
	for name, a := range c.arbiters {
		require.Equal(t, a.holder, again.arbiters[name].holder)
		require.Equal(t, a.grant, again.arbiters[name].grant)
	}
}

func TestReleaseInTheBatchOfTheEntryHidesIt(t *testing.T) {
	core, err := NewCore(Config{ID: "a", Peers: []coterie.NodeID{"a"}})
	require.NoError(t, err)
	core.Tick(time.Time{})
	core.Request(time.Time{}, "n")
	request := core.Ready().Send[0].Payload
	require.NoError(t, core.Step(time.Time{}, "a", request))
	grant := core.Ready().Send[0].Payload
	require.NoError(t, core.Step(time.Time{}, "a", grant))
	core.Release(time.Time{}, "n")
	require.Empty(t, core.Ready().Events)
	require.Zero(t, core.waiting)
	core.Release(time.Time{}, "n")
	require.Empty(t, core.Ready().Send)
}

func TestConfigErrors(t *testing.T) {
	good := Config{ID: "a", Peers: []coterie.NodeID{"a", "b"}}
	_, err := NewCore(good)
	require.NoError(t, err)
	for want, change := range map[string]func(*Config){
		"Config.ID is empty":                 func(c *Config) { c.ID = "" },
		"Config.Peers is without":            func(c *Config) { c.ID = "c" },
		"Config.Peers names":                 func(c *Config) { c.Peers = []coterie.NodeID{"a", "a"} },
		"Config.Resend":                      func(c *Config) { c.Resend = -1 },
		"Config.TryWait":                     func(c *Config) { c.TryWait = -1 },
		"Config.MaxNames":                    func(c *Config) { c.MaxNames = -1 },
		"Config.Quorums has":                 func(c *Config) { c.Quorums = map[coterie.NodeID][]coterie.NodeID{"a": {"a"}} },
		"Config.Quorums of a and b share no": func(c *Config) { c.Quorums = map[coterie.NodeID][]coterie.NodeID{"a": {"a"}, "b": {"b"}} },
		"Config.Quorums of b names \"x\"":    func(c *Config) { c.Quorums = map[coterie.NodeID][]coterie.NodeID{"a": {"a"}, "b": {"a", "x"}} },
	} {
		cfg := good
		change(&cfg)
		_, err := NewCore(cfg)
		require.ErrorContains(t, err, want)
	}
	_, err = Start(good)
	require.ErrorContains(t, err, "Config.Transport")
}

func TestMessagesThatPeersOfOneConfigDoNotSend(t *testing.T) {
	c := arbiterCore(t)
	for from, k := range map[coterie.NodeID]kind{"x": kindRequest, "a": kindGrant} {
		m := message{kind: k, name: "n", id: at(1), clock: 9}
		if k == kindGrant {
			m.number = 1
		}
		require.Error(t, c.Step(time.Time{}, from, m.append(nil)))
	}
	require.Less(t, c.clock, uint64(9))
	require.Empty(t, c.arbiters)
}

func samples() []interface{ append([]byte) []byte } {
	return []interface{ append([]byte) []byte }{
		message{kind: kindRequest, name: "printer", id: requestID{1, 7}, clock: 7},
		message{kind: kindGrant, name: "printer", id: requestID{1, 7}, number: 300, clock: 301, again: true},
		message{kind: kindFailed, name: "", id: requestID{2, 7}, clock: 8},
		message{kind: kindInquire, name: "p", id: requestID{1, 7}, number: 8, clock: 8},
		message{kind: kindRelinquish, name: "p", id: requestID{1, 7}, number: 8, clock: 9},
		message{kind: kindRelease, name: "p", id: requestID{1, 7}, clock: 10},
		record{incarnation: 1},
		record{summary: true, incarnation: 3, clock: 300, grants: []savedGrant{{name: "p", number: 9, id: requestID{1, 7}, node: "b"}, {name: "q"}}},
	}
}

func TestGoldenFormats(t *testing.T) {
	c := arbiterCore(t)
	var text strings.Builder
	for _, s := range samples() {
		b := s.append(nil)
		require.Equal(t, fmt.Sprint(s), c.Describe(b))
		fmt.Fprintf(&text, "%s\n\t%s\n", hex.EncodeToString(b), s)
	}
	if *update {
		require.NoError(t, os.WriteFile("testdata/formats.golden", []byte(text.String()), 0o644))
	}
	want, err := os.ReadFile("testdata/formats.golden")
	require.NoError(t, err)
	require.Equal(t, string(want), text.String())
	var newer *coterie.FormatError
	require.ErrorAs(t, c.Step(time.Time{}, "a", []byte{2}), &newer)
	require.ErrorAs(t, c.Replay([]byte{2}), &newer)
	require.Contains(t, c.Describe(nil), "undecodable")
}

// FuzzStep gives a core any bytes as message and as record: what it takes encodes back to the same, what it does not
// take changes nothing.
func FuzzStep(f *testing.F) {
	for _, s := range samples() {
		f.Add(s.append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := arbiterCore(t)
		before := fmt.Sprintf("%+v", *c)
		if err := c.Step(time.Time{}, "z", b); err != nil {
			require.Equal(t, before, fmt.Sprintf("%+v", *c))
		} else {
			m, err := decodeMessage(b)
			require.NoError(t, err)
			again, err := decodeMessage(m.append(nil))
			require.NoError(t, err)
			require.Equal(t, m, again)
			c.Ready()
		}
		_ = c.Describe(b)
		if rec, err := decodeRecord(b); err == nil {
			again, err := decodeRecord(rec.append(nil))
			require.NoError(t, err)
			require.Equal(t, rec, again)
			require.True(t, bytes.Equal(rec.append(nil), again.append(nil)))
			core, err := NewCore(Config{ID: "a", Peers: []coterie.NodeID{"a"}})
			require.NoError(t, err)
			require.NoError(t, core.Replay(b))
			core.Tick(time.Time{})
			core.Ready()
		}
	})
}

var _ lock.Locker = (*Node)(nil)
