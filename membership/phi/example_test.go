package phi_test

import (
	"fmt"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/membership/phi"
)

func Example() {
	detector, err := phi.New(phi.Config{Pause: time.Second})
	if err != nil {
		panic(err)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for range 100 {
		now = now.Add(time.Second)
		detector.Heartbeat(now)
	}
	for _, silence := range []time.Duration{time.Second, 2 * time.Second, 2300 * time.Millisecond, 3 * time.Second} {
		fmt.Printf("after %4v: phi %5.1f\n", silence, detector.Phi(now.Add(silence)))
	}
	fmt.Println("suspected after", detector.Deadline().Sub(now).Round(10*time.Millisecond))
	// Output:
	// after   1s: phi   0.0
	// after   2s: phi   0.3
	// after 2.3s: phi   2.9
	// after   3s: phi  23.1
	// suspected after 2.56s
}

func ExampleMonitor() {
	monitor, err := phi.NewMonitor[coterie.NodeID](phi.MonitorConfig{New: func() phi.Detector {
		d, err := phi.NewChen(phi.ChenConfig{Interval: time.Second, Margin: 500 * time.Millisecond})
		if err != nil {
			panic(err)
		}
		return d
	}})
	if err != nil {
		panic(err)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	monitor.Watch(func(id coterie.NodeID, l coterie.Liveness) { fmt.Println(id, "is", l) })
	monitor.Heartbeat("a", now)
	monitor.Heartbeat("b", now)
	monitor.Heartbeat("b", now.Add(time.Second))
	next := monitor.Check(now.Add(1600 * time.Millisecond))
	fmt.Println("check again after", next.Sub(now))
	// Output:
	// a is alive
	// b is alive
	// a is suspect
	// check again after 1.7s
}
