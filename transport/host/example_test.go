package host_test

import (
	"context"
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

// greeter is a core that answers each message once it has noted its sender.
type greeter struct {
	coterie.Outbox
	met int
}

func (g *greeter) Replay([]byte) error { g.met++; return nil }

func (g *greeter) Step(_ time.Time, from coterie.NodeID, payload []byte) error {
	if string(payload) == "hello" {
		g.met++
		g.Save([]byte(from))
		g.Send(from, []byte("welcome"))
		return nil
	}
	g.Emit(fmt.Sprintf("%s says %s", from, payload))
	return nil
}

func (g *greeter) Tick(time.Time)       {}
func (g *greeter) Ready() coterie.Ready { return g.Take() }

// Greet is a typed call.
func (g *greeter) Greet(to coterie.NodeID) { g.Send(to, []byte("hello")) }

func Example() {
	network := transport.NewNetwork(transport.NetworkConfig{})
	events := make(chan any, 1)
	a, err := host.Start(&greeter{}, host.Config{
		Transport: network.Join("a"),
		Journal:   new(host.MemoryJournal),
		Handle:    func(_ time.Time, event any) { events <- event },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	b, err := host.Start(&greeter{}, host.Config{Transport: network.Join("b"), Journal: new(host.MemoryJournal)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()

	if err := a.Do(context.Background(), func(_ time.Time, core *greeter) { core.Greet("b") }); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(<-events)
	// Output: b says welcome
}
