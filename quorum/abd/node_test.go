package abd_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/quorum"
	"github.com/coterie-go/coterie/quorum/abd"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
	"github.com/stretchr/testify/require"
)

// cluster runs nodes over a network in memory.
type cluster struct {
	t        testing.TB
	network  *transport.Network
	system   quorum.ReadWrite
	journals map[coterie.NodeID]*host.MemoryJournal
	links    map[coterie.NodeID]coterie.Transport
	nodes    map[coterie.NodeID]*abd.Node
}

func newCluster(tb testing.TB, ids ...coterie.NodeID) *cluster {
	tb.Helper()
	system, err := quorum.Symmetric(quorum.Majority(ids...))
	require.NoError(tb, err)
	c := &cluster{t: tb, network: transport.NewNetwork(transport.NetworkConfig{}), system: system,
		journals: map[coterie.NodeID]*host.MemoryJournal{}, links: map[coterie.NodeID]coterie.Transport{}, nodes: map[coterie.NodeID]*abd.Node{}}
	for _, id := range ids {
		c.journals[id] = new(host.MemoryJournal)
		c.start(id)
	}
	return c
}

func (c *cluster) start(id coterie.NodeID) {
	c.links[id] = c.network.Join(id)
	node, err := abd.Start(abd.Config{ID: id, System: c.system, Transport: c.links[id], Journal: c.journals[id]})
	require.NoError(c.t, err)
	c.nodes[id] = node
}

func (c *cluster) stop(id coterie.NodeID) {
	require.NoError(c.t, c.nodes[id].Close())
	require.NoError(c.t, c.links[id].Close())
	delete(c.nodes, id)
}

func (c *cluster) close() {
	for id := range c.nodes {
		c.stop(id)
	}
}

func TestNodeReadsAndWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b", "c")
		defer c.close()
		ctx := t.Context()
		value, err := c.nodes["a"].Read(ctx, "color")
		require.NoError(t, err)
		require.Nil(t, value, "never written")
		require.NoError(t, c.nodes["a"].Write(ctx, "color", []byte("red")))
		require.NoError(t, c.nodes["b"].Write(ctx, "empty", nil))
		for _, n := range c.nodes {
			value, err := n.Read(ctx, "color")
			require.NoError(t, err)
			require.Equal(t, "red", string(value))
			value, err = n.Read(ctx, "empty")
			require.NoError(t, err)
			require.NotNil(t, value)
			require.Empty(t, value)
		}
		m := c.nodes["a"].Metrics()
		require.Equal(t, uint64(3), m.Reads)
		require.Equal(t, uint64(1), m.Writes)
		require.NotZero(t, m.QuickReads)
		require.ErrorIs(t, c.nodes["a"].Write(ctx, "large", make([]byte, 2<<20)), abd.ErrTooLarge)

		// A minority is down, and comes back; then everyone restarts.
		c.stop("c")
		require.NoError(t, c.nodes["b"].Write(ctx, "color", []byte("blue")))
		c.start("c")
		c.stop("b")
		value, err = c.nodes["c"].Read(ctx, "color")
		require.NoError(t, err)
		require.Equal(t, "blue", string(value))
		c.stop("a")
		c.stop("c")
		for id := range c.journals {
			c.start(id)
		}
		value, err = c.nodes["a"].Read(ctx, "color")
		require.NoError(t, err)
		require.Equal(t, "blue", string(value))
	})
}

func TestNodeWithoutAQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b", "c")
		defer c.close()
		c.stop("b")
		c.stop("c")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := c.nodes["a"].Write(ctx, "x", []byte("1"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, coterie.ErrUnknownOutcome)
		_, err = c.nodes["a"].Read(ctx, "x")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, coterie.ErrUnknownOutcome, "a read changes nothing")

		done := make(chan error)
		go func() {
			_, err := c.nodes["a"].Read(t.Context(), "x")
			done <- err
		}()
		synctest.Wait()
		a := c.nodes["a"]
		c.stop("a")
		require.ErrorIs(t, <-done, coterie.ErrClosed)
		_, err = a.Read(t.Context(), "x")
		require.ErrorIs(t, err, coterie.ErrClosed)
		require.NoError(t, a.Close(), "closing twice is harmless")
	})
}

func TestNodeSurvivesLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b", "c")
		defer c.close()
		c.network.Cut("a", "b")
		c.network.Cut("a", "c")
		done := make(chan error)
		go func() { done <- c.nodes["a"].Write(t.Context(), "x", []byte("1")) }()
		time.Sleep(time.Second)
		c.network.Heal("a", "b")
		require.NoError(t, <-done, "it was sent again")
		value, err := c.nodes["c"].Read(t.Context(), "x")
		require.NoError(t, err)
		require.Equal(t, "1", string(value))
	})
}

func TestManyClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a", "b", "c")
		defer c.close()
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				n := c.nodes[[]coterie.NodeID{"a", "b", "c"}[i%3]]
				key := fmt.Sprint("k", i)
				if err := n.Write(t.Context(), key, []byte(key)); err != nil {
					t.Error(err)
				}
				if v, err := n.Read(t.Context(), key); err != nil || string(v) != key {
					t.Errorf("%q, %v", v, err)
				}
			})
		}
		wg.Wait()
	})
}

func TestStartChecksItsConfig(t *testing.T) {
	system, err := quorum.Symmetric(quorum.Majority("a", "b", "c"))
	require.NoError(t, err)
	network := transport.NewNetwork(transport.NetworkConfig{})
	a := network.Join("a")
	defer a.Close()
	for want, cfg := range map[string]abd.Config{
		"ID is required":        {System: system, Transport: a, Journal: new(host.MemoryJournal)},
		"Transport is required": {ID: "a", System: system, Journal: new(host.MemoryJournal)},
		"Journal is required":   {ID: "a", System: system, Transport: a},
		`Transport is that of`:  {ID: "b", System: system, Transport: a, Journal: new(host.MemoryJournal)},
	} {
		_, err := abd.Start(cfg)
		require.ErrorContains(t, err, want)
	}
	bad := new(host.MemoryJournal)
	require.NoError(t, bad.Append([]byte{77}))
	_, err = abd.Start(abd.Config{ID: "a", System: system, Transport: a, Journal: bad})
	var format *coterie.FormatError
	require.True(t, errors.As(err, &format), "%v", err)
}

func Example() {
	system, err := quorum.Symmetric(quorum.Majority("a", "b", "c"))
	if err != nil {
		panic(err)
	}
	network := transport.NewNetwork(transport.NetworkConfig{})
	nodes := map[coterie.NodeID]*abd.Node{}
	for _, id := range system.Nodes() {
		node, err := abd.Start(abd.Config{ID: id, System: system, Transport: network.Join(id), Journal: new(host.MemoryJournal)})
		if err != nil {
			panic(err)
		}
		defer node.Close()
		nodes[id] = node
	}
	ctx := context.Background()
	if err := nodes["a"].Write(ctx, "color", []byte("green")); err != nil {
		panic(err)
	}
	nodes["b"].Close() // a minority may be down
	value, err := nodes["c"].Read(ctx, "color")
	fmt.Println(string(value), err)
	// Output: green <nil>
}

// ExampleCore runs a core by hand: what it sends to itself comes back, and what it saves is on disk first.
func ExampleCore() {
	system, err := quorum.Symmetric(quorum.Majority("a"))
	if err != nil {
		panic(err)
	}
	core, err := abd.NewCore(abd.Config{ID: "a", System: system, Seed: 1})
	if err != nil {
		panic(err)
	}
	now := time.Now()
	if err := core.Write(now, 1, "color", []byte("green")); err != nil {
		panic(err)
	}
	for {
		rd := core.Ready()
		if len(rd.Send)+len(rd.Events) == 0 {
			break
		}
		for _, record := range rd.Save {
			fmt.Println("save", len(record), "bytes")
		}
		for _, event := range rd.Events {
			fmt.Printf("%T\n", event)
		}
		for _, envelope := range rd.Send {
			if err := core.Step(now, "a", envelope.Payload); err != nil {
				panic(err)
			}
		}
	}
	// Output:
	// save 24 bytes
	// abd.WriteDone
}
