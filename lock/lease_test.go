package lock

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func nothing(context.Context) error { return nil }

func closed(c <-chan struct{}) bool {
	synctest.Wait()
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestOptionsValidate(t *testing.T) {
	require.NoError(t, Options{}.Validate())
	require.NoError(t, Options{TTL: time.Second, Mode: Shared, Limit: 1}.Validate())
	require.NoError(t, Options{Limit: 5}.Validate())
	for field, o := range map[string]Options{
		"TTL": {TTL: -1}, "Mode": {Mode: 2}, "Limit": {Limit: -1}, "Limit 2": {Mode: Shared, Limit: 2},
	} {
		require.ErrorContains(t, o.Validate(), "Options."+field)
	}
	require.Equal(t, "exclusive shared mode(9)", Exclusive.String()+" "+Shared.String()+" "+Mode(9).String())
}

// The lease ends by the holder's clock alone, and what moves its end keeps it.
func TestLeaseEndsByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLease(LeaseConfig{Name: "x", Token: 7, Expires: time.Now().Add(10 * time.Second), Release: nothing})
		require.Equal(t, "x", l.Name())
		require.EqualValues(t, 7, l.Token())
		time.Sleep(9 * time.Second)
		end := time.Now().Add(10 * time.Second)
		require.True(t, l.Extend(end))
		require.True(t, l.Extend(time.Now()), "a renewal that was overtaken moves nothing back")
		require.Equal(t, end, l.Expires())
		time.Sleep(10*time.Second - 1)
		require.False(t, closed(l.Lost()))
		require.NoError(t, l.Err())
		time.Sleep(time.Nanosecond)
		require.True(t, closed(l.Lost()))
		require.ErrorIs(t, l.Err(), ErrLost)
		require.ErrorContains(t, l.Err(), "token 7")
		require.False(t, l.Extend(time.Now().Add(time.Hour)), "what is lost stays lost")
		require.ErrorIs(t, l.Err(), ErrLost)
		require.ErrorIs(t, l.Release(t.Context()), ErrLost)
		require.ErrorIs(t, l.Release(t.Context()), ErrLost)
	})
}

// A process that was paused looks at the clock before its timers have run, and finds the answer to an old renewal.
func TestLateAnswerDoesNotBringALeaseBack(t *testing.T) {
	l := NewLease(LeaseConfig{Name: "x", Expires: time.Now().Add(time.Hour), Release: nothing})
	l.mu.Lock()
	l.expires = time.Now() // the timer is an hour late
	l.mu.Unlock()
	require.False(t, l.Extend(time.Now().Add(time.Hour)))
	require.ErrorIs(t, l.Err(), ErrLost)
	<-l.Lost()

	for _, ask := range []func(*Lease) error{(*Lease).Err, func(l *Lease) error { return l.Release(t.Context()) }} {
		l = NewLease(LeaseConfig{Name: "x", Expires: time.Now().Add(time.Hour), Release: nothing})
		l.mu.Lock()
		l.expires = time.Now()
		l.mu.Unlock()
		require.ErrorIs(t, ask(l), ErrLost)
	}
}

func TestLeaseWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLease(LeaseConfig{Name: "x", Release: nothing})
		time.Sleep(1000 * time.Hour)
		require.NoError(t, l.Err())
		require.True(t, l.Expires().IsZero())
		require.True(t, l.Extend(time.Now()))
		l.Lose()
		l.Lose()
		require.True(t, closed(l.Lost()))
	})
}

func TestRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := make(chan error, 1)
		var calls atomic.Int64
		l := NewLease(LeaseConfig{Name: "x", Expires: time.Now().Add(time.Minute), Release: func(ctx context.Context) error {
			calls.Add(1)
			select {
			case err := <-answers:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, l.Release(ctx), context.DeadlineExceeded)
		require.ErrorIs(t, l.Err(), ErrReleased, "whatever came of it")
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first := make(chan error)
		go func() { first <- l.Release(t.Context()) }()
		synctest.Wait()
		require.ErrorIs(t, l.Release(ctx), context.DeadlineExceeded, "one at a time")
		require.EqualValues(t, 2, calls.Load())
		answers <- nil
		require.NoError(t, <-first)
		require.NoError(t, l.Release(t.Context()))
		require.EqualValues(t, 2, calls.Load())
		time.Sleep(time.Hour)
		require.False(t, closed(l.Lost()), "it was not lost")
		require.False(t, l.Extend(time.Now().Add(time.Hour)))
		l.Lose()
		require.False(t, closed(l.Lost()))
		require.ErrorIs(t, l.Err(), ErrReleased)
	})
}

func TestReleaseOfWhatTheServiceHasTaken(t *testing.T) {
	l := NewLease(LeaseConfig{Name: "x", Release: func(context.Context) error { return ErrLost }})
	require.ErrorIs(t, l.Release(t.Context()), ErrLost)
}

// one is a Locker of one lease.
type one struct{ lease *Lease }

func (o one) Acquire(context.Context, string, Options) (*Lease, error) {
	if o.lease == nil {
		return nil, ErrBusy
	}
	return o.lease, nil
}

func (o one) TryAcquire(ctx context.Context, name string, options Options) (*Lease, error) {
	return o.Acquire(ctx, name, options)
}

func TestDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		released := 0
		locker := func() one {
			return one{NewLease(LeaseConfig{Name: "x", Token: 3, Expires: time.Now().Add(time.Minute), Release: func(ctx context.Context) error {
				released++
				return ctx.Err()
			}})}
		}
		mine := errors.New("mine")
		require.ErrorIs(t, Do(t.Context(), one{}, "x", Options{}, nil), ErrBusy)
		require.NoError(t, Do(t.Context(), locker(), "x", Options{}, func(_ context.Context, token uint64) error {
			require.EqualValues(t, 3, token)
			return nil
		}))
		require.Equal(t, 1, released)
		require.ErrorIs(t, Do(t.Context(), locker(), "x", Options{}, func(context.Context, uint64) error { return mine }), mine)
		require.Panics(t, func() {
			_ = Do(t.Context(), locker(), "x", Options{}, func(context.Context, uint64) error { panic("mine") })
		})
		require.Equal(t, 3, released, "also after a panic")

		ctx, cancel := context.WithCancel(t.Context())
		err := Do(ctx, locker(), "x", Options{}, func(ctx context.Context, _ uint64) error {
			cancel()
			<-ctx.Done()
			return ctx.Err()
		})
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, ErrLost)
		require.Equal(t, 4, released, "also when ctx has ended")

		begin := time.Now()
		err = Do(t.Context(), locker(), "x", Options{}, func(ctx context.Context, _ uint64) error {
			<-ctx.Done()
			require.Equal(t, time.Minute, time.Since(begin))
			require.ErrorIs(t, context.Cause(ctx), ErrLost)
			return mine
		})
		require.ErrorIs(t, err, ErrLost)
		require.ErrorIs(t, err, mine)

		gone := locker()
		gone.lease.Lose()
		err = Do(t.Context(), gone, "x", Options{}, func(ctx context.Context, _ uint64) error { return ctx.Err() })
		require.ErrorIs(t, err, context.Canceled, "f sees it at once")
		require.ErrorIs(t, err, ErrLost)
	})
}
