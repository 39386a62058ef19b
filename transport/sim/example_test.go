package sim_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport/sim"
)

// counter is a whole protocol: a node counts what it is told, keeps the count on disk, and tells the sender.
type counter struct {
	out   coterie.Outbox
	count int
}

func (c *counter) Replay(record []byte) error { c.count = int(record[0]); return nil }
func (c *counter) Tick(time.Time)             {}
func (c *counter) Ready() coterie.Ready       { return c.out.Take() }

func (c *counter) Step(_ time.Time, from coterie.NodeID, payload []byte) error {
	switch string(payload) {
	case "add":
		c.count++
		c.out.Save([]byte{byte(c.count)})
		c.out.Send(from, []byte("done")) // leaves when the count is on disk
	case "done":
		c.out.Emit("done")
	default:
		return errors.New("unknown message")
	}
	return nil
}

// Example counts on a node that crashes in every third of its saves, and checks after every event that nothing that
// was told to be counted is lost.
func Example() {
	world, err := sim.New(sim.Config{Seed: 1, Link: sim.Link{Loss: 0.1}, Disk: sim.Disk{Crash: 0.33}})
	if err != nil {
		fmt.Println(err)
		return
	}
	done := 0
	for _, id := range []coterie.NodeID{"client", "server"} {
		err = errors.Join(err, world.Add(id, sim.Node{New: func(uint64) (coterie.Core, sim.App) {
			return &counter{}, sim.EventFunc(func(time.Time, any) { done++ })
		}}))
	}
	world.Invariant("what was done is on disk", func(w *sim.World) error {
		if onDisk := len(w.Records("server")); onDisk < done {
			return fmt.Errorf("%d done, %d on disk", done, onDisk)
		}
		return nil
	})
	for i := range 100 {
		world.After(time.Duration(i)*10*time.Millisecond, func() {
			_ = world.Do("client", func(_ time.Time, core coterie.Core) {
				core.(*counter).out.Send("server", []byte("add"))
			})
		})
	}
	fmt.Println(err, world.Run(time.Minute))
	fmt.Println("some done:", done > 0, "some crashes:", world.Stats().Crashes > 0)
	// Output:
	// <nil> <nil>
	// some done: true some crashes: true
}

// ExampleTrace writes a run in all three forms.
func ExampleTrace() {
	trace := &sim.Trace{}
	world, err := sim.New(sim.Config{Seed: 1, Trace: trace})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, id := range []coterie.NodeID{"client", "server"} {
		err = errors.Join(err, world.Add(id, sim.Node{New: func(uint64) (coterie.Core, sim.App) { return &counter{}, nil }}))
	}
	err = errors.Join(err, world.Do("client", func(_ time.Time, core coterie.Core) {
		core.(*counter).out.Send("server", []byte("add"))
	}))
	err = errors.Join(err, world.Run(time.Second))

	var jsonLines, shiviz, page counting
	err = errors.Join(err, trace.WriteJSON(&jsonLines), trace.WriteShiViz(&shiviz), trace.WriteHTML(&page))
	fmt.Println(err, jsonLines > 0, shiviz > 0, page > 0)
	fmt.Println(trace.Len(), "entries")
	// Output:
	// <nil> true true true
	// 9 entries
}

// counting is a writer that counts bytes; a program would use a file.
type counting int

func (c *counting) Write(p []byte) (int, error) { *c += counting(len(p)); return len(p), nil }

// ExampleDrawSchedule shows that a schedule is data.
func ExampleDrawSchedule() {
	schedule := sim.Schedule{
		{At: time.Second, Duration: 2 * time.Second, Kind: sim.FaultCrash, Nodes: []coterie.NodeID{"a"}},
		{At: 2 * time.Second, Duration: time.Second, Kind: sim.FaultPartition, Nodes: []coterie.NodeID{"b"}},
	}
	fmt.Print(schedule)
	drawn := sim.DrawSchedule(7, sim.Limits{Nodes: []coterie.NodeID{"a", "b", "c"}, Length: 10 * time.Second})
	fmt.Println(len(drawn) > 0, drawn.End() <= 10*time.Second)
	// Output:
	// 1s to 3s: crash [a]
	// 2s to 3s: partition [b]
	// true true
}
