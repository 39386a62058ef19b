package clocksync_test

import (
	"fmt"
	"time"

	"github.com/coterie-go/coterie/clock"
	"github.com/coterie-go/coterie/clock/clocksync"
)

func Example() {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }
	// Asked at noon and answered 20 ms later by a server whose clock shows 50 ms more.
	s, err := clocksync.NewSample(at(0), at(60), at(60), at(20), 0)
	fmt.Println(s.Offset, s.Delay, err)

	c, _ := clock.NewIntervalClock(clock.IntervalConfig{Now: func() time.Time { return at(20) }})
	fmt.Println(c.Sync(s.At, s.Interval()), c.Now())
	// Output:
	// 50ms 20ms <nil>
	// <nil> 2026-03-01T12:00:00.07Z ± 10.000001ms
}

func ExampleSelect() {
	ms := time.Millisecond
	e, err := clocksync.Select([]clocksync.Sample{
		{Offset: 10 * ms, Error: 5 * ms},
		{Offset: 900 * ms, Error: ms}, // lies
		{Offset: 12 * ms, Error: 5 * ms},
		{Offset: 11 * ms, Error: 5 * ms},
	})
	fmt.Println(e.Offset, e.Truechimers, e.Falsetickers, err)
	// Output: 11ms [0 2 3] [1] <nil>
}

func ExampleSlew() {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var s clocksync.Slew
	fmt.Println(s.Read(noon).Format("05.000"))
	s.Adjust(noon, time.Millisecond)
	fmt.Println(s.Read(noon.Add(time.Second)).Format("05.0000"), s.Left())
	// Output:
	// 00.000
	// 01.0005 500µs
}
