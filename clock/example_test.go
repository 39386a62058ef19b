package clock_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coterie-go/coterie/clock"
)

func ExampleLamport() {
	var alice, bob clock.Lamport
	sent := alice.Tick()
	received, err := bob.Witness(sent)
	fmt.Println(sent, received, err)
	// Output: 1 2 <nil>
}

func ExampleVector() {
	var alice, bob clock.Vector
	alice.Tick("alice")
	message := alice.Clone() // goes with the message

	bob.Tick("bob")
	fmt.Println(bob.Compare(message))
	bob.Merge(message) // a receipt is Merge,
	bob.Tick("bob")    // then Tick
	fmt.Println(message.Compare(bob), bob)
	// Output:
	// concurrent
	// before {alice:1 bob:2}
}

func ExampleDotSet() {
	var seen clock.DotSet
	seen.Add(clock.Dot{Node: "a", Seq: 1})
	seen.Add(clock.Dot{Node: "a", Seq: 3})
	fmt.Println(seen, seen.Contains(clock.Dot{Node: "a", Seq: 2}))
	seen.Add(clock.Dot{Node: "a", Seq: 2})
	fmt.Println(seen, seen.Vector())
	// Output:
	// {a:1,3} false
	// {a:1-3} {a:3}
}

func ExampleDVVSet() {
	var cart clock.DVVSet[string]
	empty := cart.Context()
	cart.Write("server", empty, "milk")
	cart.Write("server", empty, "bread") // has not seen the milk
	fmt.Println(cart.Values())
	cart.Write("server", cart.Context(), "milk and bread")
	fmt.Println(cart.Values())
	// Output:
	// [milk bread]
	// [milk and bread]
}

func ExampleHLC() {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	hlc, err := clock.NewHLC(clock.HLCConfig{Node: "a", Now: func() time.Time { return noon }})
	if err != nil {
		fmt.Println(err)
		return
	}
	first, second := hlc.Now(), hlc.Now()
	fmt.Println(first.Before(second), second.Logical()-first.Logical())
	_, err = hlc.Update(clock.Timestamp{Time: uint64(noon.Add(time.Hour).UnixNano()), Node: "b"})
	fmt.Println(errors.Is(err, clock.ErrOffset))
	// Output:
	// true 1
	// true
}

func ExampleIntervalClock_CommitWait() {
	c, err := clock.NewIntervalClock(clock.IntervalConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	now := time.Now() // in earnest, from clocksync
	_ = c.Sync(now, clock.Interval{Earliest: now.Add(-time.Millisecond), Latest: now.Add(time.Millisecond)})

	stamp := c.Now().Latest
	fmt.Println(c.After(stamp))
	fmt.Println(c.CommitWait(context.Background(), stamp), c.After(stamp))
	// Output:
	// false
	// <nil> true
}
