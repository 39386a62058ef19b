package lock_test

import (
	"fmt"

	"github.com/coterie-go/coterie/lock"
)

// A resource checks the token of whoever writes to it.
func ExampleFence() {
	fence, err := lock.NewFence(lock.FenceConfig{}) // with a Journal, it remembers across restarts
	if err != nil {
		fmt.Println(err)
		return
	}
	balance := 100
	write := func(token uint64, value int) {
		err := fence.Guard("account", token, func() error {
			balance = value
			return nil
		})
		fmt.Println(balance, err)
	}
	write(33, 110)
	write(34, 120)
	write(33, 0) // was paused, and does not know
	// Output:
	// 110 <nil>
	// 120 <nil>
	// 120 lock: stale token: account, token 33 after 34
}
