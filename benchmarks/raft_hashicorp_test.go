package benchmarks

import (
	"fmt"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	hraft "github.com/hashicorp/raft"
	raftwal "github.com/hashicorp/raft-wal"
)

type hashicorpNothing struct{}

func (hashicorpNothing) Apply(*hraft.Log) any                 { return nil }
func (hashicorpNothing) Snapshot() (hraft.FSMSnapshot, error) { return hashicorpNothing{}, nil }
func (hashicorpNothing) Restore(r io.ReadCloser) error        { return r.Close() }
func (hashicorpNothing) Persist(s hraft.SnapshotSink) error   { return s.Close() }
func (hashicorpNothing) Release()                             {}
func (hashicorpNothing) ApplyBatch(logs []*hraft.Log) []any   { return make([]any, len(logs)) }

// raftHashicorp starts three nodes on the library's in-memory transport, with raft-wal in dir or its in-memory store.
func raftHashicorp(b *testing.B, dir string) raftCluster {
	b.Helper()
	var nodes []*hraft.Raft
	var transports []*hraft.InmemTransport
	var servers []hraft.Server
	var closers []io.Closer
	for i := range 3 {
		address, t := hraft.NewInmemTransport("")
		transports = append(transports, t)
		servers = append(servers, hraft.Server{ID: hraft.ServerID(fmt.Sprint(i)), Address: address})
	}
	for i, t := range transports {
		for j, peer := range transports {
			if i != j {
				t.Connect(servers[j].Address, peer)
			}
		}
	}
	for i, t := range transports {
		cfg := hraft.DefaultConfig()
		cfg.LocalID = servers[i].ID
		cfg.Logger = hclog.NewNullLogger()
		cfg.MaxAppendEntries = 512
		cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = time.Second, time.Second, 500*time.Millisecond
		var logs hraft.LogStore
		var stable hraft.StableStore
		if dir == "" {
			mem := hraft.NewInmemStore()
			logs, stable = mem, mem
		} else {
			path := filepath.Join(dir, fmt.Sprint(i))
			if err := mkdir(path); err != nil {
				b.Fatal(err)
			}
			w, err := raftwal.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			closers = append(closers, w)
			logs, stable = w, w
		}
		r, err := hraft.NewRaft(cfg, hashicorpNothing{}, logs, stable, hraft.NewInmemSnapshotStore(), t)
		if err != nil {
			b.Fatal(err)
		}
		nodes = append(nodes, r)
	}
	if err := nodes[0].BootstrapCluster(hraft.Configuration{Servers: servers}).Error(); err != nil {
		b.Fatal(err)
	}
	var leader *hraft.Raft
	for deadline := time.Now().Add(20 * time.Second); leader == nil; {
		for _, n := range nodes {
			if n.State() == hraft.Leader {
				leader = n
			}
		}
		if time.Now().After(deadline) {
			b.Fatal("hashicorp: no leader")
		}
		time.Sleep(5 * time.Millisecond)
	}
	return raftCluster{
		propose: func(command []byte) error { return leader.Apply(command, 0).Error() },
		close: func() {
			for _, n := range nodes {
				_ = n.Shutdown().Error()
			}
			for _, c := range closers {
				_ = c.Close()
			}
		},
	}
}
