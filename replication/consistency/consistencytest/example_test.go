package consistencytest_test

import (
	"sync"
	"testing"

	"github.com/coterie-go/coterie/replication/consistency"
	"github.com/coterie-go/coterie/replication/consistency/consistencytest"
)

// A test records what concurrent clients see and requires that it is linearizable.
func Example() {
	t := new(testing.T) // a test gets its own

	var rec consistency.Recorder[consistency.Access[int], consistency.Answer[int]]
	var mu sync.Mutex
	var x int
	var wg sync.WaitGroup
	for client := range 4 {
		wg.Go(func() {
			for i := range 10 {
				op := rec.Invoke(client, consistency.Access[int]{Kind: consistency.Write, Key: "x", Value: 1 + client*10 + i})
				mu.Lock()
				x = 1 + client*10 + i
				mu.Unlock()
				rec.Return(op, consistency.Answer[int]{})

				op = rec.Invoke(client, consistency.Access[int]{Kind: consistency.Read, Key: "x"})
				mu.Lock()
				read := x
				mu.Unlock()
				rec.Return(op, consistency.Answer[int]{Value: read})
			}
		})
	}
	wg.Wait()
	consistencytest.RequireLinearizable(t, rec.History(), consistency.Register(0))
	// Output:
}
