package benchmarks

import (
	"context"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/ratelimiter"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/sony/gobreaker/v2"

	"github.com/coterie-go/coterie/transport/resilience"
)

// BenchmarkResilience puts a breaker, a retry and a rate limiter around a function that succeeds; gobreaker is a breaker
// alone.
func BenchmarkResilience(b *testing.B) {
	work := func(context.Context) error { return nil }
	b.Run("impl=coterie", func(b *testing.B) {
		limiter, err := resilience.NewTokenBucket(resilience.TokenBucketConfig{Rate: 1e7, Burst: 1e9})
		if err != nil {
			b.Fatal(err)
		}
		breaker, err := resilience.NewBreaker(resilience.BreakerConfig{})
		if err != nil {
			b.Fatal(err)
		}
		retry, err := resilience.NewRetry(resilience.RetryConfig{})
		if err != nil {
			b.Fatal(err)
		}
		p := resilience.Policy{Limiter: limiter, Breaker: breaker, Retry: retry}
		resilienceRun(b, func(ctx context.Context) error { return p.Do(ctx, work) })
	})
	b.Run("impl=failsafe", func(b *testing.B) {
		retry := retrypolicy.NewBuilder[any]().WithMaxRetries(2).WithBackoff(10*time.Millisecond, time.Second).Build()
		breaker := circuitbreaker.NewBuilder[any]().WithFailureRateThreshold(0.5, 20, 10*time.Second).Build()
		limiter := ratelimiter.NewBurstyBuilder[any](1<<40, time.Second).Build()
		executor := failsafe.With[any](limiter, retry, breaker)
		resilienceRun(b, func(ctx context.Context) error {
			return executor.WithContext(ctx).Run(func() error { return work(ctx) })
		})
	})
	b.Run("impl=gobreaker", func(b *testing.B) {
		breaker := gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{Interval: 10 * time.Second})
		resilienceRun(b, func(ctx context.Context) error {
			_, err := breaker.Execute(func() (struct{}, error) { return struct{}{}, work(ctx) })
			return err
		})
	})
}

func resilienceRun(b *testing.B, do func(context.Context) error) {
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if err := do(ctx); err != nil {
			b.Fatal(err)
		}
	}
}
