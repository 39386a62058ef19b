package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/coterie-go/coterie/transport/resilience"
)

func Example() {
	limiter, err := resilience.NewTokenBucket(resilience.TokenBucketConfig{Rate: 100, Burst: 10})
	if err != nil {
		log.Fatal(err)
	}
	breaker, err := resilience.NewBreaker(resilience.BreakerConfig{MinCalls: 2})
	if err != nil {
		log.Fatal(err)
	}
	policy := &resilience.Policy{Limiter: limiter, Breaker: breaker, Timeout: time.Second}
	down := func(context.Context) error { return errors.New("connection refused") }
	for range 3 {
		fmt.Println(policy.Do(context.Background(), down))
	}
	// Output:
	// connection refused
	// connection refused
	// resilience: circuit open: coterie: overloaded
}

func ExamplePerKey() {
	users, err := resilience.NewPerKey(resilience.PerKeyConfig[string, resilience.Limiter]{
		New: func(string) resilience.Limiter {
			window, err := resilience.NewSlidingWindow(resilience.SlidingWindowConfig{Limit: 2, Window: time.Hour})
			if err != nil {
				log.Fatal(err)
			}
			return window
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, user := range []string{"ann", "ann", "bob", "ann"} {
		fmt.Println(user, users.Get(user).Allow())
	}
	// Output:
	// ann true
	// ann true
	// bob true
	// ann false
}

func ExampleShedder() {
	shedder, err := resilience.NewShedder(resilience.ShedderConfig{Capacity: 2})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(shedder.Admit(resilience.Background))
	fmt.Println(shedder.Admit(resilience.Background))
	fmt.Println(shedder.Admit(resilience.Critical))
	// Output:
	// <nil>
	// resilience: load shed: coterie: overloaded
	// <nil>
}

func ExampleFallback() {
	fetch := func(context.Context) (string, error) { return "", errors.New("down") }
	cached := func(context.Context, error) (string, error) { return "yesterday's news", nil }
	fmt.Println(resilience.Fallback(context.Background(), fetch, cached))
	// Output: yesterday's news <nil>
}
