package benchmarks

import (
	_ "github.com/anishathalye/porcupine"
	_ "github.com/dgraph-io/badger/v4"
	_ "github.com/failsafe-go/failsafe-go"
	_ "github.com/go-redsync/redsync/v4"
	_ "github.com/hashicorp/memberlist"
	_ "github.com/hashicorp/raft"
	_ "github.com/hashicorp/raft-wal"
	_ "github.com/hashicorp/serf/serf"
	_ "github.com/lni/dragonboat/v4"
	_ "github.com/nats-io/nats-server/v2/server"
	_ "github.com/nats-io/nats.go"
	_ "github.com/redis/go-redis/v9"
	_ "github.com/sony/gobreaker/v2"
	_ "github.com/tidwall/wal"
	_ "go.etcd.io/etcd/client/v3/concurrency"
	_ "go.etcd.io/etcd/server/v3/embed"
	_ "go.etcd.io/etcd/server/v3/storage/wal"
	_ "go.etcd.io/raft/v3"
	_ "google.golang.org/grpc"
	_ "storj.io/drpc/drpcconn"

	_ "github.com/coterie-go/coterie"
)
