package coterie_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
)

// counter is the smallest Core: it counts what it is told to, remembers across restarts, and answers with the sum.
type counter struct {
	coterie.Outbox
	sum int
}

func (c *counter) Replay(record []byte) error { c.sum += int(record[0]); return nil }

func (c *counter) Step(_ time.Time, from coterie.NodeID, payload []byte) error {
	if len(payload) != 1 {
		return errors.New("counter: a message is one byte")
	}
	c.sum += int(payload[0])
	c.Save(payload)                                 // the record is the message
	c.Send(from, fmt.Appendf(nil, "sum %d", c.sum)) // leaves when the record is durable
	return nil
}

func (c *counter) Tick(time.Time)       {}
func (c *counter) Ready() coterie.Ready { return c.Take() }

// A Core is called by a host or by the simulator; here by hand.
func ExampleCore() {
	var core coterie.Core = &counter{}
	_ = core.Replay([]byte{40})
	core.Tick(time.Now())
	fmt.Println(core.Step(time.Now(), "b", []byte{2}))
	ready := core.Ready()
	fmt.Printf("save %q\n", ready.Save[0])
	fmt.Printf("then send to %s: %s\n", ready.Send[0].To, ready.Send[0].Payload)
	// Output:
	// <nil>
	// save "\x02"
	// then send to b: sum 42
}
