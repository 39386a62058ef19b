package lock_test

import (
	"context"
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

// inProcess is the least Locker: for one process, without leases that end.
type inProcess struct {
	free  chan struct{}
	token uint64 // guarded by free
}

func (p *inProcess) Acquire(ctx context.Context, name string, o lock.Options) (*lock.Lease, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	select {
	case <-p.free:
		return p.lease(name), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *inProcess) lease(name string) *lock.Lease {
	p.token++
	return lock.NewLease(lock.LeaseConfig{Name: name, Token: p.token, Release: func(context.Context) error {
		p.free <- struct{}{}
		return nil
	}})
}

func (p *inProcess) TryAcquire(_ context.Context, name string, o lock.Options) (*lock.Lease, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	select {
	case <-p.free:
		return p.lease(name), nil
	default:
		return nil, lock.ErrBusy
	}
}

// Do works with every Locker.
func ExampleDo() {
	locker := &inProcess{free: make(chan struct{}, 1)}
	locker.free <- struct{}{}
	for range 2 {
		err := lock.Do(context.Background(), locker, "x", lock.Options{}, func(_ context.Context, token uint64) error {
			fmt.Println("token", token)
			return nil
		})
		fmt.Println(err)
	}
	// Output:
	// token 1
	// <nil>
	// token 2
	// <nil>
}
