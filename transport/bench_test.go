package transport_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
)

func BenchmarkNetworkSend(b *testing.B) {
	for _, direct := range []bool{false, true} {
		b.Run(fmt.Sprintf("direct=%v/impl=coterie", direct), func(b *testing.B) {
			net := transport.NewNetwork(transport.NetworkConfig{Direct: direct})
			from, to := net.Join("from"), net.Join("to")
			defer from.Close()
			defer to.Close()
			var n atomic.Int64
			to.Receive(func(coterie.NodeID, []byte) { n.Add(1) })
			payload := make([]byte, 64)
			b.ReportAllocs()
			for b.Loop() {
				if err := from.Send("to", payload); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
		})
	}
}
