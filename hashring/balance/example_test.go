package balance_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/coterie-go/coterie/hashring/balance"
)

func Example() {
	lb, err := balance.NewRoundRobin(balance.Config[string]{
		Eject: balance.AfterFailures[string](2, 30*time.Second),
	}, "10.0.0.1", "10.0.0.2")
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 6 {
		picked, err := lb.Pick("")
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Print(picked.Backend, " ")
		var result balance.Result
		if picked.Backend == "10.0.0.2" { // which is down
			result.Err = errors.New("connection refused")
		}
		picked.Done(result)
	}
	// Output: 10.0.0.1 10.0.0.2 10.0.0.1 10.0.0.2 10.0.0.1 10.0.0.1
}
