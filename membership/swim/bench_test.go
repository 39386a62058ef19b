package swim_test

import (
	"testing"
	"time"

	"github.com/coterie-go/coterie/transport/sim"
	"github.com/stretchr/testify/require"
)

// BenchmarkSim runs a thousand members; the package benchmarks has it too, beside others.
func BenchmarkSim(b *testing.B) {
	t := &testing.T{}
	c := newCluster(t, 1000, sim.Config{Seed: 1}, nil)
	b.Log("join", c.until("join", time.Minute, func() bool { return c.core(c.ids[0]).Metrics().Members == 1000 }))
	b.ResetTimer()
	for b.Loop() {
		require.NoError(b, c.w.Run(time.Second))
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sim-s/s")
	b.Log(c.agree(), c.w.Stats())
}
