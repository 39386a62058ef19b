package hashring_test

import (
	"fmt"

	"github.com/coterie-go/coterie/hashring"
)

func Example() {
	ring, err := hashring.New(hashring.Config[string]{}, "paris", "lima", "tokyo")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ring.Locate("user:1001"), ring.LocateN("user:1001", 2))
	if err := ring.Remove(ring.Locate("user:1001")); err != nil {
		fmt.Println(err)
	}
	fmt.Println(ring.Locate("user:1001"))
	// Output:
	// tokyo [tokyo paris]
	// paris
}

func ExampleDiff() {
	before, _ := hashring.New(hashring.Config[string]{}, "a", "b", "c")
	after, _ := hashring.New(hashring.Config[string]{}, "a", "b", "c", "d")
	plan := hashring.Diff[string](before, after)
	for _, m := range plan.Moves {
		fmt.Printf("%s to %s: %.0f%% of the keys, %v partitions\n", m.From, m.To, 100*m.Share, len(m.Partitions) > 0)
	}
	// Unordered output:
	// a to d: 8% of the keys, true partitions
	// b to d: 8% of the keys, true partitions
	// c to d: 8% of the keys, true partitions
}

func ExampleBounded() {
	nodes, _ := hashring.New(hashring.Config[string]{}, "a", "b", "c")
	bounded, _ := hashring.NewBounded[string](nodes, 0.25)
	for range 12 { // one hot key
		if _, err := bounded.Acquire("hot"); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(bounded.Load("a")+bounded.Load("b")+bounded.Load("c"), "held, at most", bounded.Limit("a"), "on one")
	// Output: 12 held, at most 5 on one
}

func ExampleNewRing() {
	ring, err := hashring.NewRing(hashring.Config[string]{
		Domains: func(node string) []string { return []string{node[:1]} }, // the zone
	}, "a1", "a2", "b1", "b2", "c1")
	if err != nil {
		fmt.Println(err)
		return
	}
	zones := map[byte]bool{}
	for _, node := range ring.LocateN("key", 3) {
		zones[node[0]] = true
	}
	fmt.Println(len(zones), "zones")
	// Output: 3 zones
}
