package benchmarks

import (
	"errors"
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport/sim"
)

// simToken is a Core that saves each message it gets and passes it on when it is durable.
type simToken struct {
	next coterie.NodeID
	out  coterie.Outbox
}

var errSimEmpty = errors.New("empty")

func (c *simToken) Replay([]byte) error { return nil }

func (c *simToken) Step(now time.Time, _ coterie.NodeID, payload []byte) error {
	if len(payload) == 0 {
		return errSimEmpty
	}
	c.out.Save(payload)
	c.out.Keep(1)
	c.out.Send(c.next, payload)
	c.out.Wake(now.Add(time.Second))
	return nil
}

func (c *simToken) Tick(time.Time) {}

func (c *simToken) Ready() coterie.Ready { return c.out.Take() }

// BenchmarkSimEvents passes 50 tokens around a ring of 5 nodes, each saved at every node: a message and a sync of the
// disk by turns, with the statistics and the checksums on.
func BenchmarkSimEvents(b *testing.B) {
	b.Run("impl=coterie", func(b *testing.B) {
		w, err := sim.New(sim.Config{Seed: 1})
		if err != nil {
			b.Fatal(err)
		}
		ids := []coterie.NodeID{"a", "b", "c", "d", "e"}
		for i, id := range ids {
			next := ids[(i+1)%len(ids)]
			if err := w.Add(id, sim.Node{New: func(uint64) (coterie.Core, sim.App) { return &simToken{next: next}, nil }}); err != nil {
				b.Fatal(err)
			}
		}
		for i := range 50 {
			id := ids[i%len(ids)]
			err := w.Do(id, func(now time.Time, core coterie.Core) {
				if err := core.Step(now, id, []byte("sixteen bytes ..")); err != nil {
					b.Error(err)
				}
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Run(10 * time.Second); err != nil { // queues and journals reach their size
			b.Fatal(err)
		}
		before := w.Stats().Events
		b.ReportAllocs()
		for b.Loop() {
			if ok, err := w.Step(); !ok || err != nil {
				b.Fatal("the world has stopped", err)
			}
		}
		b.ReportMetric(float64(w.Stats().Events-before)/b.Elapsed().Seconds(), "events/s")
	})
}
