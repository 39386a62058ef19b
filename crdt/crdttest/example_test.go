package crdttest_test

import (
	"fmt"

	"github.com/coterie-go/coterie/crdt/crdttest"
)

// A model says what a history means. Here a register: what is alive is what nobody who had seen it has written over.
func ExampleAlive() {
	red := crdttest.Event{N: 0, By: "a", Op: "red"}
	blue := crdttest.Event{N: 1, By: "b", Op: "blue"} // at the same time
	green := crdttest.Event{N: 2, By: "a", Op: "green", Past: []crdttest.Event{red}}
	overwrites := func(_, _ crdttest.Event) bool { return true }
	for _, e := range crdttest.Alive([]crdttest.Event{red, blue, green}, overwrites) {
		fmt.Println(e.Op)
	}
	// Output:
	// blue
	// green
}
