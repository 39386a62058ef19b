package consensus_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus"
	"github.com/coterie-go/coterie/consensus/raft"
	"github.com/coterie-go/coterie/replication/wal"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
	"github.com/coterie-go/coterie/transport/rpc"
)

// journalOfBytes is a state machine that keeps the bytes of all commands.
type journalOfBytes struct{ all []byte }

func (j *journalOfBytes) Apply(e coterie.Entry) []byte {
	j.all = append(j.all, e.Command...)
	return fmt.Appendf(nil, "%d bytes", len(j.all))
}

func (j *journalOfBytes) Query([]byte) ([]byte, error) { return j.all, nil }

func (j *journalOfBytes) Snapshot() (func(io.Writer) error, error) {
	frozen := slices.Clip(j.all)
	return func(w io.Writer) error { _, err := w.Write(frozen); return err }, nil
}

func (j *journalOfBytes) Restore(r io.Reader) (err error) {
	j.all, err = io.ReadAll(r)
	return err
}

// startReplica makes a replica of a Raft core, here of a cluster of one node. Use raft.Start, which does this and opens
// the journal and the transport, unless you bring your own.
func startReplica(dir string) (*consensus.Driver[*raft.Core], error) {
	core, err := raft.NewCore(raft.Config{
		ID: "a", Voters: map[coterie.NodeID]string{"a": ""}, Seed: 1, ElectionTimeout: 50 * time.Millisecond,
	})
	if err != nil {
		return nil, err
	}
	snapshots, err := wal.OpenSnapshots(dir)
	if err != nil {
		return nil, err
	}
	return consensus.Start(core, consensus.Config{
		Transport: transport.NewNetwork(transport.NetworkConfig{}).Join("a"),
		Journal:   new(host.MemoryJournal), Snapshots: snapshots, StateMachine: new(journalOfBytes),
	})
}

func Example() {
	dir, _ := os.MkdirTemp("", "example")
	defer os.RemoveAll(dir)
	replica, err := startReplica(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer replica.Close()
	ctx := context.Background()
	session, err := replica.NewSession(ctx) // tries again until there is a leader
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, word := range []string{"exactly", " once"} {
		result, err := session.Propose(ctx, []byte(word))
		fmt.Println(string(result), err)
	}
	all, err := replica.Read(ctx, nil)
	fmt.Printf("%s %v\n", all, err)
	// Output:
	// 7 bytes <nil>
	// 12 bytes <nil>
	// exactly once <nil>
}

func ExampleDial() {
	dir, _ := os.MkdirTemp("", "example")
	defer os.RemoveAll(dir)
	replica, err := startReplica(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer replica.Close()
	server, err := rpc.NewServer(rpc.ServerConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	consensus.Serve(server, replica)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() { _ = server.Serve(listener) }()

	ctx := context.Background()
	client, err := consensus.Dial(ctx, consensus.ClientConfig{Addrs: map[coterie.NodeID]string{"a": listener.Addr().String()}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	result, err := client.Propose(ctx, []byte("from afar"))
	fmt.Println(string(result), err)
	// Output: 9 bytes <nil>
}
