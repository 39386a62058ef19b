//go:build unix

package raft_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/consensus/raft"
	"github.com/coterie-go/coterie/internal/testsize"
)

// childVariable makes the test binary run one node, as JSON of childConfig says.
const childVariable = "COTERIE_RAFT_CHILD"

type childConfig struct {
	ID       coterie.NodeID
	Voters   map[coterie.NodeID]string
	Dir      string
	HTTP     string // where clients come
	FileSize uint64 // the largest file it may write; 0 is any
}

// TestChild is not a test: it is the process of one node.
func TestChild(t *testing.T) {
	text := os.Getenv(childVariable)
	if text == "" {
		t.Skip("run by the tests of processes")
	}
	var cfg childConfig
	require.NoError(t, json.Unmarshal([]byte(text), &cfg))
	if cfg.FileSize > 0 {
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: cfg.FileSize, Max: cfg.FileSize}))
	}
	n, err := raft.Start(raft.Config{
		ID: cfg.ID, Voters: cfg.Voters, Dir: cfg.Dir, StateMachine: &counter{}, ElectionTimeout: 300 * time.Millisecond,
		HeartbeatInterval: 30 * time.Millisecond, Driver: consensus.Config{SnapshotEntries: 200},
	})
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(consensus.Handler(n))
	_ = server.Listener.Close()
	server.Listener, err = net.Listen("tcp", cfg.HTTP)
	require.NoError(t, err)
	server.Start()
	fmt.Println("ready")
	<-n.Done()
	fmt.Println("stopped:", n.Err())
	os.Exit(3)
}

// processes is a cluster of three real processes.
type processes struct {
	t      *testing.T
	cfg    map[coterie.NodeID]childConfig
	procs  map[coterie.NodeID]*exec.Cmd
	output map[coterie.NodeID]*bufio.Reader
	client *consensus.Client
}

func startProcesses(t *testing.T, change func(*childConfig)) *processes {
	t.Helper()
	p := &processes{
		t: t, cfg: map[coterie.NodeID]childConfig{}, procs: map[coterie.NodeID]*exec.Cmd{},
		output: map[coterie.NodeID]*bufio.Reader{},
	}
	voters := map[coterie.NodeID]string{}
	nodes := map[coterie.NodeID]string{}
	for _, id := range []coterie.NodeID{"a", "b", "c"} {
		voters[id] = freeAddress(t)
		nodes[id] = freeAddress(t)
	}
	dir := t.TempDir()
	for id := range voters {
		cfg := childConfig{ID: id, Voters: voters, Dir: filepath.Join(dir, string(id)), HTTP: nodes[id]}
		if change != nil {
			change(&cfg)
		}
		p.cfg[id] = cfg
		p.start(id)
	}
	t.Cleanup(func() {
		for _, c := range p.procs {
			_ = c.Process.Signal(syscall.SIGCONT)
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	})
	for id, address := range nodes {
		nodes[id] = "http://" + address
	}
	var err error
	p.client, err = consensus.Dial(testContext(t), consensus.ClientConfig{Addrs: nodes})
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.client.Close() })
	return p
}

func (p *processes) start(id coterie.NodeID) {
	p.t.Helper()
	text, err := json.Marshal(p.cfg[id])
	require.NoError(p.t, err)
	c := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.v")
	c.Env = append(os.Environ(), childVariable+"="+string(text))
	out, err := c.StdoutPipe()
	require.NoError(p.t, err)
	c.Stderr = c.Stdout
	require.NoError(p.t, c.Start())
	p.procs[id] = c
	p.output[id] = bufio.NewReader(out)
	p.await(id, "ready")
}

// await reads the process's output up to a line with these words.
func (p *processes) await(id coterie.NodeID, words string) string {
	p.t.Helper()
	var seen strings.Builder
	for {
		line, err := p.output[id].ReadString('\n')
		seen.WriteString(line)
		if strings.Contains(line, words) {
			return line
		}
		if err != nil {
			p.t.Fatalf("%s ended without %q: %s", id, words, seen.String())
		}
	}
}

func (p *processes) kill(id coterie.NodeID) {
	p.t.Helper()
	require.NoError(p.t, p.procs[id].Process.Kill())
	_, _ = io.Copy(io.Discard, p.output[id])
	_ = p.procs[id].Wait()
	delete(p.procs, id)
}

func (p *processes) leader(ctx context.Context) coterie.NodeID {
	p.t.Helper()
	for ctx.Err() == nil {
		if s := p.client.Status(); s.Leader != "" {
			return s.Leader
		}
	}
	p.t.Fatal("no leader")
	return ""
}

// add counts up by one, exactly once, and returns the sum.
func (p *processes) add(ctx context.Context) int {
	p.t.Helper()
	b, err := p.client.Propose(ctx, []byte("1"))
	require.NoError(p.t, err)
	sum, err := strconv.Atoi(string(b))
	require.NoError(p.t, err)
	return sum
}

// TestKilledProcessesLoseNothing kills the leader's process with SIGKILL again and again, and stops it with SIGSTOP,
// while a client counts: each of its steps counts once.
func TestKilledProcessesLoseNothing(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts processes")
	}
	ctx := testContext(t)
	p := startProcesses(t, nil)
	sum := 0
	count := func(n int) {
		for range n {
			sum++
			require.Equal(t, sum, p.add(ctx))
		}
	}
	count(100)
	for range testsize.N(1, 20) {
		id := p.leader(ctx)
		p.kill(id)
		count(150)
		p.start(id)
		count(50)
	}
	stopped := p.procs[p.leader(ctx)].Process
	require.NoError(t, stopped.Signal(syscall.SIGSTOP))
	count(50)
	require.NoError(t, stopped.Signal(syscall.SIGCONT))
	count(50)
	for id := range p.cfg { // all at once
		p.kill(id)
	}
	for id := range p.cfg {
		p.start(id)
	}
	count(1)
}

// TestFullDiskStopsOneNode lets one node write no more: it says why and stops, and the others go on with everything
// that was acknowledged.
func TestFullDiskStopsOneNode(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts processes")
	}
	ctx := testContext(t)
	p := startProcesses(t, func(c *childConfig) {
		if c.ID == "b" {
			c.FileSize = 1<<20 + 64<<10 // the first segment, and little of the second
		}
	})
	sum := 0
	command := []byte("1" + strings.Repeat(" ", 40<<10))
	for range 60 {
		_, err := p.client.Propose(ctx, command)
		require.NoError(t, err)
		sum++
	}
	require.Contains(t, p.await("b", "stopped:"), "file too large")
	got, err := p.client.Propose(ctx, []byte("1"))
	require.NoError(t, err)
	require.NotEmpty(t, got)
}

// TestRemovedDirectoryOfARunningNode takes a node's folder away under it: as soon as it needs the folder it says so, and
// nothing is lost.
func TestRemovedDirectoryOfARunningNode(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := newNodes(t, "a", "b", "c")
	for _, id := range []coterie.NodeID{"a", "b", "c"} {
		c.start(c.config(id, "a", "b", "c"))
	}
	c.add(ctx, 1)
	require.NoError(t, os.RemoveAll(filepath.Join(c.dir, "c")))
	require.Equal(t, "3", c.add(ctx, 2))
	c.admin(ctx, func(n *raft.Node) error {
		if n.Status().ID == "c" {
			return n.TransferLeadership(ctx, "a")
		}
		return nil
	})
	_, err := retryRead(ctx, c.running["c"]) // there is something in the snapshot
	require.NoError(t, err)
	require.ErrorIs(t, c.running["c"].Snapshot(ctx), os.ErrNotExist)
	require.Equal(t, "6", c.add(ctx, 3))
}
