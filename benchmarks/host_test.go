package benchmarks

import (
	"testing"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

// pingCore is the trivial core: it keeps a number of messages going round between two nodes.
type pingCore struct {
	coterie.Outbox
	peer    coterie.NodeID
	payload []byte
	steps   int
	until   int
	done    chan struct{}
}

func (c *pingCore) Replay([]byte) error  { return nil }
func (c *pingCore) Tick(time.Time)       {}
func (c *pingCore) Ready() coterie.Ready { return c.Take() }

func (c *pingCore) Step(_ time.Time, from coterie.NodeID, payload []byte) error {
	c.steps++
	if c.steps == c.until {
		close(c.done)
	}
	c.Send(from, payload)
	return nil
}

// begin sends the first messages; done is closed after so many steps.
func (c *pingCore) begin(messages, steps int, done chan struct{}) {
	c.steps, c.until, c.done = 0, steps, done
	for range messages {
		c.Send(c.peer, c.payload)
	}
}

// BenchmarkHostStep measures steps of a trivial core on two hosts that answer each other over the in-memory network,
// 64 messages of 16 bytes under way.
func BenchmarkHostStep(b *testing.B) {
	b.Run("impl=coterie", func(b *testing.B) {
		network := transport.NewNetwork(transport.NetworkConfig{Direct: true})
		start := func(id, peer coterie.NodeID) *host.Host[*pingCore] {
			h, err := host.Start(&pingCore{peer: peer, payload: make([]byte, 16)}, host.Config{Transport: network.Join(id)})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = h.Close() })
			return h
		}
		a := start("a", "b")
		start("b", "a")
		done := make(chan struct{})
		b.ReportAllocs()
		b.ResetTimer()
		begun := time.Now()
		steps := (b.N + 1) / 2
		if err := a.Do(b.Context(), func(_ time.Time, c *pingCore) { c.begin(64, steps, done) }); err != nil {
			b.Fatal(err)
		}
		<-done
		b.ReportMetric(float64(2*steps)/time.Since(begun).Seconds(), "steps/s")
	})
}
