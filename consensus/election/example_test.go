package election_test

import (
	"fmt"

	"github.com/coterie-go/coterie/consensus/election"
)

// A resource that obeys one leader at a time.
func Example() {
	var newest uint64
	obey := func(e election.Elected) bool {
		if e.Epoch < newest {
			return false
		}
		newest = e.Epoch
		return true
	}
	fmt.Println(obey(election.Elected{Leader: "b", Epoch: 257}))
	fmt.Println(obey(election.Elected{Leader: "c", Epoch: 514}))
	fmt.Println(obey(election.Elected{Leader: "b", Epoch: 257}))
	// Output:
	// true
	// true
	// false
}
