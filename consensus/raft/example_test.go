package raft_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/consensus/raft"
)

// A cluster of one node. For three, each gets the addresses of all in Voters, a Dir and a TLS identity of its own.
func ExampleStart() {
	dir, err := os.MkdirTemp("", "raft")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	node, err := raft.Start(raft.Config{
		ID:           "a",
		Voters:       map[coterie.NodeID]string{"a": "127.0.0.1:0"},
		Dir:          dir,
		StateMachine: &counter{},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer node.Close()

	ctx := context.Background()
	session, err := node.NewSession(ctx) // tries again until a leader is elected, and never applies a command twice
	if err != nil {
		fmt.Println(err)
		return
	}
	result, err := session.Propose(ctx, []byte("42"))
	fmt.Println(string(result), err)
	sum, err := node.Read(ctx, nil)
	fmt.Println(string(sum), err)
	// Output:
	// 42 <nil>
	// 42 <nil>
}

// A Core does no I/O: whoever brings a loop of his own makes records durable, carries messages and says what time it
// is. Here a node alone elects itself and commits.
func ExampleCore() {
	core, err := raft.NewCore(raft.Config{ID: "a", Voters: map[coterie.NodeID]string{"a": ""}, Seed: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	now := time.Unix(0, 0)
	perform := func(r coterie.Ready) {
		for _, e := range r.Events {
			if c, ok := e.(consensus.Committed); ok && !c.Entries[0].Internal {
				fmt.Printf("%d: %s\n", c.Index, c.Entries[0].Command)
			}
		}
		for len(r.Send) > 0 { // all to itself; a copy, for the slices are the core's again at its next Ready
			sent := append([]coterie.Envelope(nil), r.Send...)
			for _, m := range sent {
				if err := core.Step(now, "a", m.Payload); err != nil {
					fmt.Println(err)
				}
			}
			r = core.Ready()
			for _, e := range r.Events {
				if c, ok := e.(consensus.Committed); ok && !c.Entries[0].Internal {
					fmt.Printf("%d: %s\n", c.Index, c.Entries[0].Command)
				}
			}
		}
	}
	core.Tick(now)
	perform(core.Ready())
	now = now.Add(2 * time.Second) // longer than any election timeout
	core.Tick(now)
	perform(core.Ready())
	core.Propose(now, 1, []byte("hello"))
	perform(core.Ready())
	// Output: 2: hello
}
