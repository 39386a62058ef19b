package benchmarks

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4"
	dconfig "github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/logger"
	"github.com/lni/dragonboat/v4/plugin/tan"
	sm "github.com/lni/dragonboat/v4/statemachine"
)

func mkdir(path string) error { return os.MkdirAll(path, 0o755) }

type dragonboatNothing struct{}

func (dragonboatNothing) Update(sm.Entry) (sm.Result, error) { return sm.Result{}, nil }
func (dragonboatNothing) Lookup(any) (any, error)            { return nil, nil }
func (dragonboatNothing) SaveSnapshot(io.Writer, sm.ISnapshotFileCollection, <-chan struct{}) error {
	return nil
}
func (dragonboatNothing) RecoverFromSnapshot(io.Reader, []sm.SnapshotFile, <-chan struct{}) error {
	return nil
}
func (dragonboatNothing) Close() error { return nil }

// raftDragonboatMemory is raftDragonboat on a tmpfs.
func raftDragonboatMemory(b *testing.B) raftCluster {
	b.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "dragonboat")
	if err != nil {
		b.Skipf("skipped: no tmpfs at /dev/shm: %v", err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return raftDragonboat(b, dir)
}

// raftDragonboat starts three NodeHosts on loopback TCP, its only transport, with the tan log store.
func raftDragonboat(b *testing.B, dir string) raftCluster {
	b.Helper()
	for _, name := range []string{"raft", "rsm", "transport", "grpc", "dragonboat", "logdb", "tan", "config", "settings"} {
		logger.GetLogger(name).SetLevel(logger.CRITICAL)
	}
	members := map[uint64]dragonboat.Target{}
	for id := uint64(1); id <= 3; id++ {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		members[id] = l.Addr().String()
		_ = l.Close()
	}
	var hosts []*dragonboat.NodeHost
	for id := uint64(1); id <= 3; id++ {
		path := filepath.Join(dir, fmt.Sprint(id))
		host, err := dragonboat.NewNodeHost(dconfig.NodeHostConfig{
			WALDir: path, NodeHostDir: path, RTTMillisecond: 50, RaftAddress: members[id],
			Expert: dconfig.ExpertConfig{LogDBFactory: tan.Factory},
		})
		if err != nil {
			b.Fatal(err)
		}
		err = host.StartReplica(members, false, func(uint64, uint64) sm.IStateMachine { return dragonboatNothing{} }, dconfig.Config{
			ReplicaID: id, ShardID: 1, ElectionRTT: 20, HeartbeatRTT: 2, CheckQuorum: true,
		})
		if err != nil {
			b.Fatal(err)
		}
		hosts = append(hosts, host)
	}
	var leader *dragonboat.NodeHost
	for deadline := time.Now().Add(20 * time.Second); leader == nil; {
		if id, _, ok, err := hosts[0].GetLeaderID(1); err == nil && ok {
			leader = hosts[id-1]
		}
		if time.Now().After(deadline) {
			b.Fatal("dragonboat: no leader")
		}
		time.Sleep(10 * time.Millisecond)
	}
	session := leader.GetNoOPSession(1)
	return raftCluster{
		propose: func(command []byte) error {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, err := leader.SyncPropose(ctx, session, command)
			return err
		},
		close: func() {
			for _, h := range hosts {
				h.Close()
			}
		},
	}
}
