package gossip_test

import (
	"context"
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/crdt"
	"github.com/coterie-go/coterie/crdt/gossip"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

// Two nodes of one process share a set; over transport/tcp and replication/wal they are two machines.
func Example() {
	network := transport.NewNetwork(transport.NetworkConfig{})
	merged := make(chan struct{}, 1)
	start := func(id, peer coterie.NodeID, set *crdt.ORSet[string], seed uint64) *host.Host[*gossip.Core] {
		core, err := gossip.NewCore(gossip.Config{
			ID: id, Peers: []coterie.NodeID{peer}, State: gossip.State(set), Seed: seed,
		})
		if err != nil {
			panic(err)
		}
		h, err := host.Start(core, host.Config{
			Transport: network.Join(id), Journal: new(host.MemoryJournal),
			Handle: func(time.Time, any) { merged <- struct{}{} },
		})
		if err != nil {
			panic(err)
		}
		return h
	}
	var mine, theirs crdt.ORSet[string]
	a, b := start("a", "b", &mine, 1), start("b", "a", &theirs, 2)
	defer a.Close()
	defer b.Close()

	// The set belongs to the host's goroutine: Do is where to change and read it.
	err := a.Do(context.Background(), func(now time.Time, core *gossip.Core) {
		delta, err := mine.Add("a", "milk").MarshalBinary()
		if err == nil {
			err = core.Update(now, delta)
		}
		if err != nil {
			fmt.Println(err)
		}
	})
	<-merged
	err2 := b.Do(context.Background(), func(time.Time, *gossip.Core) { fmt.Println(theirs.Contains("milk")) })
	fmt.Println(err, err2)
	// Output:
	// true
	// <nil> <nil>
}
