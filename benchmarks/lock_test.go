package benchmarks

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/go-redsync/redsync/v4"
	redsyncgo "github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/kv"
	"github.com/coterie-go/coterie/consensus/raft"
	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/lock/leased"
)

// lockImpls are the lock services; each gives so many callers a function that acquires and releases one and the same
// lock.
var lockImpls = []struct {
	name  string
	start func(b *testing.B, callers int) []func() error
}{
	{"coterie", lockCoterie},
	{"etcd", lockEtcd},
	{"redsync", lockRedsync},
}

// BenchmarkLock measures acquisitions with releases of one lock: by a caller alone, and by 16 that contend for it.
// coterie is three nodes in one process, each of which syncs its disk, and beside the row stands the rate at which the
// same cluster commits the puts of one client; etcd is one embedded node that syncs; redsync is one Redis, at
// REDIS_ADDR or localhost:6379, as that is configured.
func BenchmarkLock(b *testing.B) {
	for _, callers := range []int{1, 16} {
		for _, impl := range lockImpls {
			b.Run(fmt.Sprintf("callers=%d/impl=%s", callers, impl.name), func(b *testing.B) {
				if testing.Short() {
					b.Skip("takes longer than 2 s")
				}
				calls := make(chan func() error, callers)
				for _, f := range impl.start(b, callers) {
					if err := f(); err != nil {
						b.Fatal(err)
					}
					calls <- f
				}
				raftMeasure(b, callers, "calls/s", func() error {
					f := <-calls // each caller has one at a time: nobody waits
					defer func() { calls <- f }()
					return f()
				})
			})
		}
	}
}

func lockCoterie(b *testing.B, callers int) (calls []func() error) {
	stores := map[coterie.NodeID]*kv.Store{}
	cluster := raftCoterie(b, b.TempDir(), func(c *raft.Config) {
		store, err := kv.New(kv.Config{})
		if err != nil {
			b.Fatal(err)
		}
		stores[c.ID], c.StateMachine = store, store
	})
	b.Cleanup(cluster.close)
	leader := cluster.find()
	replica := kv.Watchable(leader, stores[leader.Status().ID])
	ctx := context.Background()
	client, err := leased.New(leased.Config{Replica: replica})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := client.Close(); err != nil {
			b.Error(err)
		}
	})
	plain, err := kv.NewClient(kv.ClientConfig{Replica: replica})
	if err != nil {
		b.Fatal(err)
	}
	const puts = 500
	begin := time.Now()
	for range puts {
		if _, err := plain.Put(ctx, "key", []byte("value")); err != nil {
			b.Fatal(err)
		}
	}
	took := time.Since(begin)
	b.Cleanup(func() { b.ReportMetric(puts/took.Seconds(), "commits/s") })
	for range callers {
		calls = append(calls, func() error {
			l, err := client.Acquire(ctx, "name", lock.Options{})
			if err != nil {
				return err
			}
			return l.Release(ctx)
		})
	}
	return calls
}

func lockEtcd(b *testing.B, callers int) (calls []func() error) {
	cfg := embed.NewConfig()
	cfg.Dir = b.TempDir()
	cfg.LogLevel = "panic" // closing it is noisy
	local := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.ListenPeerUrls = []url.URL{local}, []url.URL{local}
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(server.Close)
	<-server.Server.ReadyNotify()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{server.Clients[0].Addr().String()}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = client.Close() })
	ctx := context.Background()
	for range callers { // callers of one session would share the lock
		session, err := concurrency.NewSession(client)
		if err != nil {
			b.Fatal(err)
		}
		mutex := concurrency.NewMutex(session, "/name")
		calls = append(calls, func() error {
			if err := mutex.Lock(ctx); err != nil {
				return err
			}
			return mutex.Unlock(ctx)
		})
	}
	return calls
}

// lockSkipped has the benchmark say once why rows are missing.
var lockSkipped sync.Once

func lockRedsync(b *testing.B, callers int) (calls []func() error) {
	addr := os.Getenv("REDIS_ADDR")
	if addr == "" {
		addr = "localhost:6379"
	}
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		lockSkipped.Do(func() { fmt.Printf("# impl=redsync is skipped: no Redis at %s (set REDIS_ADDR)\n", addr) })
		b.Skip(err)
	}
	_ = conn.Close()
	client := redis.NewClient(&redis.Options{Addr: addr})
	b.Cleanup(func() { _ = client.Close() })
	rs := redsync.New(redsyncgo.NewPool(client))
	for range callers {
		mutex := rs.NewMutex("coterie-benchmark", redsync.WithTries(1<<30), redsync.WithRetryDelay(time.Millisecond))
		calls = append(calls, func() error {
			if err := mutex.Lock(); err != nil {
				return err
			}
			_, err := mutex.Unlock()
			return err
		})
	}
	return calls
}
