package pbft

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/replication/wal"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

// startGroup starts four replicas on one network in memory.
func startGroup(t *testing.T, change func(*Config)) (nodes []*Node, apps []*ledger) {
	t.Helper()
	network := transport.NewNetwork(transport.NetworkConfig{})
	shared, keys := testConfig(4)
	for i := range 4 {
		cfg := shared
		cfg.ID = coterie.NodeID(rune('a' + i))
		cfg.Key = keys[cfg.ID]
		port := network.Join(cfg.ID)
		folder, err := wal.OpenSnapshots(t.TempDir())
		require.NoError(t, err)
		app := newLedger()
		cfg.Transport, cfg.Journal, cfg.Snapshots, cfg.StateMachine, cfg.Seed = port, new(host.MemoryJournal), folder, app, 0
		if change != nil {
			change(&cfg)
		}
		node, err := Start(cfg)
		require.NoError(t, err)
		nodes, apps = append(nodes, node), append(apps, app)
		t.Cleanup(func() {
			require.NoError(t, node.Close())
			require.NoError(t, port.Close())
		})
	}
	return nodes, apps
}

func TestNodesAgree(t *testing.T) {
	nodes, _ := startGroup(t, nil)
	ctx := t.Context()
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			for k := range 20 {
				if _, err := n.Propose(ctx, fmt.Appendf(nil, "op%d-%d add", i, k)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, n := range nodes {
		count, err := n.Read(ctx, []byte("count"))
		require.NoError(t, err)
		require.Equal(t, "80", string(count))
	}
	session, err := nodes[1].NewSession(ctx)
	require.NoError(t, err)
	result, err := session.Propose(ctx, []byte("s add"))
	require.NoError(t, err)
	require.Equal(t, "81", string(result))
	m, err := nodes[2].Metrics(ctx)
	require.NoError(t, err)
	require.Positive(t, m.Executed)
	require.Equal(t, coterie.NodeID("a"), nodes[2].Status().Leader)
	_, err = nodes[0].Propose(ctx, make([]byte, 2<<20))
	require.ErrorIs(t, err, ErrTooLarge)
}

// A group goes on when its primary is closed.
func TestPrimaryGone(t *testing.T) {
	nodes, _ := startGroup(t, func(cfg *Config) { cfg.ViewTimeout = 100 * time.Millisecond })
	_, err := nodes[1].Propose(t.Context(), []byte("x add"))
	require.NoError(t, err)
	require.NoError(t, nodes[0].Close())
	result, err := nodes[1].Propose(t.Context(), []byte("y add"))
	require.NoError(t, err)
	require.Equal(t, "2", string(result))
	require.Positive(t, nodes[1].Status().Term)
}

func TestStartNamesWhatIsWrong(t *testing.T) {
	_, err := Start(Config{})
	for _, field := range []string{"Voters", "Key", "StateMachine", "Dir"} {
		require.ErrorContains(t, err, "Config."+field)
	}
	cfg, keys := testConfig(4)
	cfg.ID, cfg.Key = "a", keys["b"]
	_, err = NewCore(cfg)
	require.ErrorContains(t, err, "Config.Key")
	cfg.Key, cfg.Seed = keys["a"], 0
	_, err = NewCore(cfg)
	require.ErrorContains(t, err, "Config.Seed")
	_, err = NewVerifier(Config{})
	require.ErrorContains(t, err, "Config.Voters")
}

// A client believes what f+1 replicas say alike, whatever one of them says (§4.1).
func TestDialBelievesNoSingleReplica(t *testing.T) {
	nodes, apps := startGroup(t, nil)
	var lies atomic.Int64
	client, err := Dial(t.Context(), ClientConfig{
		Nodes: []coterie.NodeID{"a", "b", "c", "d"}, TryTimeout: 50 * time.Millisecond,
		Ask: func(ctx context.Context, to coterie.NodeID, signed []byte) ([]byte, error) {
			reply, err := nodes[to[0]-'a'].Request(ctx, signed)
			switch lies.Load() {
			case 1: // a makes up results
				if to == "a" {
					return []byte("\x00999"), nil
				}
			case 2: // a never answers
				if to == "a" {
					<-ctx.Done()
					return nil, ctx.Err()
				}
			case 3: // a refuses
				if to == "a" {
					return nil, errors.New("no")
				}
			}
			return reply, err
		},
	})
	require.NoError(t, err)
	defer client.Close()
	for i := range 4 {
		lies.Store(int64(i))
		for range 3 {
			_, err := client.Propose(t.Context(), []byte("x add"))
			require.NoError(t, err)
		}
		count, err := client.Read(t.Context(), []byte("count"))
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(3*(i+1)), string(count), "every command is executed once")
	}
	require.NoError(t, nodes[3].Close())
	require.LessOrEqual(t, apps[3].Count, int64(12))
	require.NoError(t, client.Close())
	_, err = client.Propose(t.Context(), []byte("x add"))
	require.ErrorIs(t, err, coterie.ErrClosed)
}

func TestDialOverHTTP(t *testing.T) {
	nodes, _ := startGroup(t, nil)
	addrs := map[coterie.NodeID]string{}
	for i, n := range nodes {
		server := httptest.NewServer(Serve(n))
		t.Cleanup(server.Close)
		addrs[coterie.NodeID(rune('a'+i))] = server.URL
	}
	client, err := Dial(t.Context(), ClientConfig{Addrs: addrs})
	require.NoError(t, err)
	defer client.Close()
	result, err := client.Propose(t.Context(), []byte("x add"))
	require.NoError(t, err)
	require.Equal(t, "1", string(result))
	count, err := client.Read(t.Context(), []byte("count"))
	require.NoError(t, err)
	require.Equal(t, "1", string(count))
}

// If too few answer alike, the caller hears when its context ends that the outcome is unknown.
func TestDialWithoutAgreement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := ClientConfig{Nodes: []coterie.NodeID{"a", "b", "c", "d"}, Ask: func(_ context.Context, to coterie.NodeID, _ []byte) ([]byte, error) {
			return []byte{0, to[0]}, nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := Dial(ctx, cfg)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		c, err := newClient(cfg)
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Propose(ctx, nil)
		require.ErrorIs(t, err, coterie.ErrUnknownOutcome)
		_, err = c.Read(ctx, nil)
		require.NotErrorIs(t, err, coterie.ErrUnknownOutcome)
	})
}

// What a client's command does is done once, whoever repeats it, and never after a newer one (§4.1).
func TestClientsTable(t *testing.T) {
	app := newLedger()
	table := newClients(app).(*clients)
	_, keys := testConfig(2)
	now := time.Unix(1000, 0)
	at := func(timestamp int64, key, command string) string {
		signed := signedCommand(keys[coterie.NodeID(key)], opExecute, uint64(now.UnixNano()+timestamp), []byte(command))
		return string(table.Apply(coterie.Entry{Time: now, Command: signed}))
	}
	require.Equal(t, "\x001", at(1, "a", "x add"))
	require.Equal(t, "\x001", at(1, "a", "x add"))
	require.Equal(t, "\x002", at(1, "b", "x add"))
	require.Equal(t, "\x003", at(3, "a", "x add"))
	require.Contains(t, at(2, "a", "x add"), "too old")
	require.Contains(t, at(int64(time.Hour), "a", "x add"), "ahead")
	forged := signedCommand(keys["a"], opExecute, uint64(now.UnixNano()+9), []byte("x add"))
	forged[len(forged)-1]++
	require.Contains(t, string(table.Apply(coterie.Entry{Time: now, Command: forged})), "signature")
	require.Contains(t, string(table.Apply(coterie.Entry{Time: now, Command: []byte{opExecute}})), "not a request")
	require.Equal(t, int64(3), app.Count)

	// The table survives in the snapshot, and equal tables give equal bytes.
	bytesOf := func(c *clients) []byte {
		write, err := c.Snapshot()
		require.NoError(t, err)
		var b writer
		require.NoError(t, write(&b))
		return b
	}
	first := bytesOf(table)
	restored := newClients(newLedger()).(*clients)
	require.NoError(t, restored.Restore(&reader{slices.Clone(first)}))
	require.Equal(t, first, bytesOf(restored))
	table = restored
	require.Equal(t, "\x003", at(3, "a", "x add"))
	for n := range 60 {
		require.Error(t, newClients(newLedger()).Restore(&reader{slices.Clone(first[:n])}), "cut at %d", n)
	}
}
