package gossip

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/crdt"
)

// newTestCore returns a core of node a with one peer, and its set.
func newTestCore(t require.TestingT, seed uint64, id, peer coterie.NodeID) (*Core, *crdt.ORSet[string]) {
	set := &crdt.ORSet[string]{}
	c, err := NewCore(Config{ID: id, Peers: []coterie.NodeID{peer}, State: State(set), Seed: seed})
	require.NoError(t, err)
	return c, set
}

// messages returns one message of each kind but a refusal.
func messages(t require.TestingT) (all [][]byte) {
	c, set := newTestCore(t, 1, "a", "b")
	now := time.Unix(1, 0)
	c.Tick(now)
	d, err := set.Add("a", "x").MarshalBinary()
	require.NoError(t, err)
	require.NoError(t, c.Update(now, d))
	c.sendState("b", kindState)
	c.sendAck("b", 1)
	c.sendDigest("b", kindDigest)
	c.Send("b", append(c.head(kindDiff), d...))
	for _, e := range c.Ready().Send {
		all = append(all, e.Payload)
	}
	return all
}

func TestMalformedMessagesChangeNothing(t *testing.T) {
	for _, m := range messages(t) {
		for n := range m {
			c, set := newTestCore(t, 2, "b", "a")
			_ = c.Step(time.Unix(1, 0), "a", m[:n]) // some are shorter messages
			require.LessOrEqual(t, set.Len(), 1)
		}
		c, _ := newTestCore(t, 2, "b", "a")
		require.NoError(t, c.Step(time.Unix(1, 0), "a", m))
		var format *coterie.FormatError
		require.ErrorAs(t, c.Step(time.Unix(1, 0), "a", append([]byte{2}, m[1:]...)), &format)
		require.Error(t, c.Step(time.Unix(1, 0), "stranger", m))
		require.NotEmpty(t, c.Describe(m))
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{ID: "a", Peers: []coterie.NodeID{"b"}, State: State(&crdt.GCounter{}), Seed: 1}
	_, err := NewCore(good)
	require.NoError(t, err)
	for field, spoil := range map[string]func(*Config){
		"ID":       func(c *Config) { c.ID = "" },
		"State":    func(c *Config) { c.State = nil },
		"Seed":     func(c *Config) { c.Seed = 0 },
		"Peers":    func(c *Config) { c.Peers = []coterie.NodeID{"a"} },
		"negative": func(c *Config) { c.Resend = -1 },
	} {
		bad := good
		spoil(&bad)
		_, err := NewCore(bad)
		require.ErrorContains(t, err, field)
	}
}

// FuzzStep: a message of whatever bytes gives an error or is taken; the core goes on in either case.
func FuzzStep(f *testing.F) {
	for _, m := range messages(f) {
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, set := newTestCore(t, 2, "b", "a")
		now := time.Unix(1, 0)
		c.Tick(now)
		_ = c.Step(now, "a", b)
		c.Ready()
		d, err := set.Add("b", "x").MarshalBinary()
		require.NoError(t, err)
		if err := c.Update(now, d); err != nil {
			require.ErrorIs(t, err, ErrEvicted)
		}
		c.Ready()
		require.True(t, set.Contains("x"))
	})
}
