package leased_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/kv"
	"github.com/coterie-go/coterie/consensus/raft"
	"github.com/coterie-go/coterie/lock"
	"github.com/coterie-go/coterie/lock/leased"
	"github.com/coterie-go/coterie/transport"
)

// open starts a store on a replica that is alone; others are three or five.
func open() (client *leased.Client, stop func(), err error) {
	dir, err := os.MkdirTemp("", "leased")
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
	client, err = leased.New(leased.Config{Replica: kv.Watchable(node, store)})
	return client, func() {
		_ = client.Close()
		_ = node.Close()
		_ = joined.Close()
		_ = os.RemoveAll(dir)
	}, err
}

// A function runs under a lock, and hands its token to what it writes to.
func ExampleClient_Do() {
	client, stop, err := open()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()
	ctx := context.Background()
	fence, err := lock.NewFence(lock.FenceConfig{}) // where the account is
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		err := client.Do(ctx, "account", func(_ context.Context, token uint64) error {
			return fence.Guard("account", token, func() error {
				fmt.Println("write with token", token)
				return nil
			})
		})
		fmt.Println(err)
	}
	// Output:
	// write with token 1
	// <nil>
	// write with token 3
	// <nil>
}

// A lease is acquired, tried by another one, and released.
func ExampleClient_TryAcquire() {
	client, stop, err := open()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()
	ctx := context.Background()
	lease, err := client.Acquire(ctx, "job", lock.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = client.TryAcquire(ctx, "job", lock.Options{})
	fmt.Println(errors.Is(err, lock.ErrBusy))
	fmt.Println(lease.Release(ctx))
	// Output:
	// true
	// <nil>
}

// Of the candidates of an election one leads until it resigns, or is lost; everyone can see who.
func ExampleClient_Campaign() {
	client, stop, err := open()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()
	ctx := context.Background()
	leadership, err := client.Campaign(ctx, "scheduler", []byte("10.0.0.1:80"))
	if err != nil {
		fmt.Println(err)
		return
	}
	for leader, err := range client.Observe(ctx, "scheduler") {
		fmt.Printf("%s leads, %v\n", leader.Value, err)
		break
	}
	fmt.Println(leadership.Resign(ctx))
	// Output:
	// 10.0.0.1:80 leads, <nil>
	// <nil>
}
