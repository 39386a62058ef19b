package sim_test

import (
	"testing"
	"time"

	"github.com/coterie-go/coterie/transport/sim"
)

func BenchmarkEvents(b *testing.B) {
	b.ReportAllocs()
	c, err := newCluster(sim.Config{Seed: 1}, 3, none)
	if err != nil {
		b.Fatal(err)
	}
	c.write(time.Millisecond)
	for b.Loop() {
		if _, err := c.Step(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(c.Stats().Events)/b.Elapsed().Seconds(), "events/s")
}
