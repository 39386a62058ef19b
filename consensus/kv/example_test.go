package kv_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/kv"
	"github.com/coterie-go/coterie/consensus/raft"
	"github.com/coterie-go/coterie/transport"
)

// open starts a store on a replica that is alone; others are three or five.
func open() (client *kv.Client, stop func(), err error) {
	dir, err := os.MkdirTemp("", "kv")
	if err != nil {
		return nil, nil, err
	}
	store, err := kv.New(kv.Config{})
	if err != nil {
		return nil, nil, err
	}
	joined := transport.NewNetwork(transport.NetworkConfig{}).Join("a")
	node, err := raft.Start(raft.Config{
		ID: "a", Voters: map[coterie.NodeID]string{"a": ""}, Dir: filepath.Join(dir, "a"), Transport: joined, StateMachine: store,
	})
	if err != nil {
		return nil, nil, err
	}
	client, err = kv.NewClient(kv.ClientConfig{Replica: kv.Watchable(node, store)})
	return client, func() {
		_ = client.Close(context.Background())
		_ = node.Close()
		_ = joined.Close()
		_ = os.RemoveAll(dir)
	}, err
}

// Compare and act: a value is changed only by who knows it, and at one revision with what depends on it.
func Example() {
	client, stop, err := open()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()
	ctx := context.Background()
	mod, err := client.Put(ctx, "config/limit", []byte("10"))
	fmt.Println("revision", mod, err)
	for range 2 { // the second one knows an old state
		res, err := client.Txn(ctx, kv.Txn{
			If:   []kv.Compare{kv.Unchanged("config/limit", mod)},
			Then: []kv.Op{kv.Put{Key: "config/limit", Value: []byte("20")}, kv.Put{Key: "config/by", Value: []byte("me")}},
			Else: []kv.Op{kv.Get{Span: kv.Prefix("config/")}},
		})
		fmt.Println(res.Succeeded, res.Revision, len(res.Results[0].KVs), err)
	}
	// Output:
	// revision 1 <nil>
	// true 2 0 <nil>
	// false 2 2 <nil>
}

// A watch yields what changes from a revision on, here what a lease takes with it.
func ExampleClient_Watch() {
	client, stop, err := open()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()
	ctx := context.Background()
	lease, err := client.KeepAlive(ctx, kv.LeaseConfig{TTL: 5 * time.Second})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = client.Txn(ctx, kv.Txn{Then: []kv.Op{kv.Put{Key: "services/web/1", Value: []byte("10.0.0.1:80"), Lease: lease.ID()}}})
	fmt.Println(err, lease.Close(ctx))
	for event, err := range client.Watch(ctx, kv.Prefix("services/"), 1) {
		fmt.Printf("%d %s %q deleted=%t %v\n", event.Revision(), event.KV.Key, event.KV.Value, event.Deleted(), err)
		if event.Deleted() {
			break
		}
	}
	// Output:
	// <nil> <nil>
	// 1 services/web/1 "10.0.0.1:80" deleted=false <nil>
	// 2 services/web/1 "" deleted=true <nil>
}
