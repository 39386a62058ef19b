package leased

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/consensus/kv"
	"github.com/coterie-go/coterie/lock"
)

func TestNewNamesTheField(t *testing.T) {
	for field, cfg := range map[string]Config{
		"Replica": {}, "TTL": {Replica: &follower{}, TTL: -1}, "Drift": {Replica: &follower{}, TTL: time.Second, Drift: time.Second},
		"Prefix": {Replica: &follower{}, Prefix: string(make([]byte, 2000))},
	} {
		_, err := New(cfg)
		require.ErrorContains(t, err, "Config."+field)
	}
}

func mustAcquire(t *testing.T, c *Client, name string, o lock.Options) *lock.Lease {
	t.Helper()
	l, err := c.Acquire(t.Context(), name, o)
	require.NoError(t, err)
	return l
}

func TestMutex(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		a, fa := c.client(Config{})
		defer a.Close()
		b, _ := c.client(Config{})
		defer b.Close()
		first := mustAcquire(t, a, "x", lock.Options{})
		_, err := b.TryAcquire(t.Context(), "x", lock.Options{})
		require.ErrorIs(t, err, lock.ErrBusy)
		_, err = a.TryAcquire(t.Context(), "x", lock.Options{})
		require.ErrorIs(t, err, lock.ErrBusy, "two goroutines of a process exclude each other")
		other := mustAcquire(t, a, "x/y", lock.Options{})
		require.NoError(t, other.Release(t.Context()))

		got := make(chan *lock.Lease)
		go func() { got <- mustAcquire(t, b, "x", lock.Options{}) }()
		synctest.Wait()
		select {
		case <-got:
			t.Fatal("two holders")
		default:
		}
		before := fa.asks.Load()
		start := time.Now()
		require.NoError(t, first.Release(t.Context()))
		require.EqualValues(t, 1, fa.asks.Load()-before, "a release is one proposal")
		second := <-got
		require.Less(t, time.Since(start), 50*time.Millisecond, "the waiter is told")
		require.Greater(t, second.Token(), first.Token())
		require.NoError(t, second.Err())
		require.NoError(t, second.Release(t.Context()))
		require.NoError(t, second.Release(t.Context()), "the same answer again")
		require.ErrorIs(t, second.Err(), lock.ErrReleased)
		third, err := a.TryAcquire(t.Context(), "x", lock.Options{})
		require.NoError(t, err)
		require.Greater(t, third.Token(), second.Token())
	})
}

func TestBadCallsChangeNothing(t *testing.T) {
	bubble(t, 1, func(t *testing.T, c *cluster) {
		a, _ := c.client(Config{})
		for _, o := range []lock.Options{{TTL: -1}, {Limit: -1}, {Mode: 7}, {Mode: lock.Shared, Limit: 3}} {
			_, err := a.Acquire(t.Context(), "x", o)
			require.Error(t, err)
		}
		_, err := a.Acquire(t.Context(), "", lock.Options{})
		require.Error(t, err)
		_, err = a.TryAcquire(t.Context(), string(make([]byte, 5000)), lock.Options{})
		require.Error(t, err)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = a.Acquire(ended, "x", lock.Options{})
		require.ErrorIs(t, err, context.Canceled)
		_, store := c.leading()
		require.Nil(t, store)
		c.leader()
		_, store = c.leading()
		require.Zero(t, store.View().Len(kv.Prefix("")))
		require.NoError(t, a.Close())
		require.NoError(t, a.Close())
		_, err = a.Acquire(t.Context(), "x", lock.Options{})
		require.ErrorIs(t, err, coterie.ErrClosed)
	})
}

// Waiters enter in their order, a reader does not overtake a writer, and readers enter together.
func TestFIFO(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		a, _ := c.client(Config{})
		defer a.Close()
		b, _ := c.client(Config{})
		defer b.Close()
		var mu sync.Mutex
		var order []string
		var wg sync.WaitGroup
		enter := func(c *Client, name string, o lock.Options) {
			wg.Go(func() {
				l := mustAcquire(t, c, "x", o)
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				order = append(order, "-"+name)
				mu.Unlock()
				require.NoError(t, l.Release(t.Context()))
			})
			time.Sleep(50 * time.Millisecond) // until it is in the queue
		}
		c.leader()
		enter(a, "w1", lock.Options{})
		enter(b, "r1", lock.Options{Mode: lock.Shared})
		enter(a, "r2", lock.Options{Mode: lock.Shared})
		enter(b, "w2", lock.Options{})
		enter(a, "r3", lock.Options{Mode: lock.Shared})
		enter(b, "w3", lock.Options{})
		wg.Wait()
		// r1 and r2 come and go together, in any order.
		for _, at := range []int{2, 4} {
			if order[at] > order[at+1] {
				order[at], order[at+1] = order[at+1], order[at]
			}
		}
		require.Equal(t, []string{"w1", "-w1", "r1", "r2", "-r1", "-r2", "w2", "-w2", "r3", "-r3", "w3", "-w3"}, order)
	})
}

func TestSemaphore(t *testing.T) {
	bubble(t, 1, func(t *testing.T, c *cluster) {
		a, _ := c.client(Config{})
		defer a.Close()
		three := lock.Options{Limit: 3}
		var inside, most atomic.Int64
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				l := mustAcquire(t, a, "x", three)
				most.Store(max(most.Load(), inside.Add(1)))
				time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
				inside.Add(-1)
				require.NoError(t, l.Release(t.Context()))
			})
		}
		wg.Wait()
		require.EqualValues(t, 3, most.Load())
		held := mustAcquire(t, a, "x", three)
		for _, o := range []lock.Options{{}, {Limit: 4}, {Mode: lock.Shared}} {
			_, err := a.Acquire(t.Context(), "x", o)
			require.ErrorContains(t, err, "another Options.Limit")
			_, err = a.TryAcquire(t.Context(), "x", o)
			require.ErrorContains(t, err, "another Options.Limit")
		}
		require.NoError(t, held.Release(t.Context()))
		require.NoError(t, mustAcquire(t, a, "x", lock.Options{}).Release(t.Context()), "nobody uses it any more")
	})
}

// A holder that is cut off knows by its own clock, before anyone else can enter; nobody has to tell it
// (hashicorp/consul#18271). Its release then is ErrLost.
func TestHolderThatIsCutOffKnowsFirst(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		a, fa := c.client(Config{TTL: 10 * time.Second})
		b, _ := c.client(Config{TTL: 10 * time.Second})
		defer b.Close()
		l := mustAcquire(t, a, "x", lock.Options{})
		time.Sleep(time.Minute) // renewals keep it
		require.NoError(t, l.Err())
		select {
		case <-l.Lost():
			t.Fatal("lost while it is renewed")
		default:
		}
		fa.cut.Store(true)
		cut := time.Now()
		got := make(chan *lock.Lease)
		go func() { got <- mustAcquire(t, b, "x", lock.Options{}) }()
		<-l.Lost()
		lost := time.Now()
		require.Greater(t, lost.Sub(cut), 5*time.Second)
		require.LessOrEqual(t, lost.Sub(cut), 8*time.Second, "TTL less drift since the newest renewal left")
		require.ErrorIs(t, l.Err(), lock.ErrLost)
		second := <-got
		require.GreaterOrEqual(t, time.Since(lost), time.Second, "the drift bound lies between")
		require.LessOrEqual(t, time.Since(cut), 11*time.Second)
		require.Greater(t, second.Token(), l.Token())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, l.Release(ctx), lock.ErrLost)
		fa.cut.Store(false)
		require.NoError(t, second.Err())
		require.NoError(t, a.Close())
	})
}

// The store has ended the lease, though by the holder's clock it lives: a clock of a replica jumped. The holder learns
// of it from its next renewal, or from its release.
func TestStoreEndsALeaseEarly(t *testing.T) {
	bubble(t, 1, func(t *testing.T, c *cluster) {
		a, fa := c.client(Config{})
		defer a.Close()
		plain, err := kv.NewClient(kv.ClientConfig{Replica: fa})
		require.NoError(t, err)
		revoke := func() {
			a.mu.Lock()
			id := a.sessions[10*time.Second].lease.ID()
			a.mu.Unlock()
			require.NoError(t, plain.Revoke(t.Context(), id))
		}
		l := mustAcquire(t, a, "x", lock.Options{})
		revoke()
		require.NoError(t, l.Err())
		require.ErrorIs(t, l.Release(t.Context()), lock.ErrLost)

		time.Sleep(10 * time.Second)
		l = mustAcquire(t, a, "x", lock.Options{})
		revoke()
		begin := time.Now()
		<-l.Lost()
		require.Less(t, time.Since(begin), 3*time.Second)
		l2 := mustAcquire(t, a, "x", lock.Options{})
		require.Greater(t, l2.Token(), l.Token())
		require.ErrorIs(t, l.Release(t.Context()), lock.ErrLost)
		require.NoError(t, l2.Release(t.Context()))
		require.NoError(t, plain.Close(t.Context()))
	})
}

// A release by one who has lost the lock must not free it from under the next holder.
func releaseByFormerHolder(t *testing.T, plant bug) (second error) {
	bubble(t, 1, func(t *testing.T, c *cluster) {
		a, fa := c.client(Config{})
		a.bug = plant
		b, _ := c.client(Config{})
		defer b.Close()
		l := mustAcquire(t, a, "x", lock.Options{})
		fa.cut.Store(true)
		l2 := mustAcquire(t, b, "x", lock.Options{})
		fa.cut.Store(false)
		require.ErrorIs(t, l.Release(t.Context()), lock.ErrLost)
		_, err := b.TryAcquire(t.Context(), "x", lock.Options{})
		second = err
		if err == nil {
			return
		}
		require.NoError(t, l2.Release(t.Context()))
		require.NoError(t, a.Close())
	})
	return second
}

func TestFormerHolderReleasesNothing(t *testing.T) {
	require.ErrorIs(t, releaseByFormerHolder(t, 0), lock.ErrBusy)
	require.NoError(t, releaseByFormerHolder(t, bugReleaseAny), "the planted bug is not seen")
}

// A waiter whose session ends while it waits must look again after the wait: its key is gone, and another one is next
// (Jepsen, etcd 3.4.3, 2020). It reports how many held the lock at once.
func waiterWhoseSessionDies(t *testing.T, plant bug) (most int64) {
	bubble(t, 1, func(t *testing.T, c *cluster) {
		a, _ := c.client(Config{})
		defer a.Close()
		b, fb := c.client(Config{})
		defer b.Close()
		b.bug = plant
		plain, err := kv.NewClient(kv.ClientConfig{Replica: fb})
		require.NoError(t, err)
		l := mustAcquire(t, a, "x", lock.Options{})
		inside := atomic.Int64{}
		inside.Store(1)
		entered := make(chan *lock.Lease)
		go func() {
			l := mustAcquire(t, b, "x", lock.Options{})
			most = inside.Add(1)
			entered <- l
		}()
		time.Sleep(100 * time.Millisecond)
		b.mu.Lock()
		id := b.sessions[10*time.Second].lease.ID()
		b.mu.Unlock()
		require.NoError(t, plain.Revoke(t.Context(), id))
		time.Sleep(5 * time.Second)
		inside.Add(-1)
		require.NoError(t, l.Release(t.Context()))
		l2 := <-entered
		require.NoError(t, plain.Close(t.Context()))
		if plant == 0 {
			require.NoError(t, l2.Release(t.Context()))
		}
	})
	return most
}

func TestWaiterLooksAgain(t *testing.T) {
	require.EqualValues(t, 1, waiterWhoseSessionDies(t, 0))
	require.EqualValues(t, 2, waiterWhoseSessionDies(t, bugGrantDead), "the planted bug is not seen")
}

// A caller that gives up does not hold the lock, and leaves nothing that others wait for: neither when it waits, nor
// when its answer is lost.
func TestGivingUpLeavesNothing(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		a, fa := c.client(Config{})
		defer a.Close()
		b, _ := c.client(Config{})
		defer b.Close()
		l := mustAcquire(t, b, "x", lock.Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := a.Acquire(ctx, "x", lock.Options{})
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, l.Release(t.Context()))
		time.Sleep(time.Second) // until what it left is removed, in the background

		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		fa.mu.Lock()
		fa.delay = func() { fa.cut.Store(true) } // the command is applied, its answer is lost
		fa.mu.Unlock()
		_, err = a.Acquire(ctx, "x", lock.Options{})
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, store := c.leading()
		require.Equal(t, 1, store.View().Len(kv.Prefix("lock/x/")), "the test has not lost an answer")
		fa.cut.Store(false)
		begin := time.Now()
		l = mustAcquire(t, b, "x", lock.Options{})
		require.Less(t, time.Since(begin), 12*time.Second)
		require.NoError(t, l.Release(t.Context()))
	})
}

// A retry of a command whose answer was lost takes one place, not two.
func TestRetriesAcquireOnce(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		a, fa := c.client(Config{})
		defer a.Close()
		require.NoError(t, mustAcquire(t, a, "warm", lock.Options{}).Release(t.Context()))
		for i := range 3 {
			fa.mu.Lock()
			fa.delay = func() { c.stop(c.leader()) } // it is applied; the answer comes, but the next command meets no leader
			fa.mu.Unlock()
			l := mustAcquire(t, a, "x", lock.Options{})
			_, store := c.leading()
			for store == nil {
				time.Sleep(10 * time.Millisecond)
				_, store = c.leading()
			}
			require.Equal(t, 1, store.View().Len(kv.Prefix("lock/x/")), "round %d", i)
			require.NoError(t, l.Release(t.Context()))
			for _, id := range c.ids {
				c.mu.Lock()
				down := c.nodes[id] == nil
				c.mu.Unlock()
				if down {
					c.start(id)
				}
			}
			time.Sleep(time.Second)
		}
	})
}

// Leaders fail while many contend: never two holders, tokens strictly increase, everyone enters.
func TestFailover(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		fence, err := lock.NewFence(lock.FenceConfig{})
		require.NoError(t, err)
		var wg sync.WaitGroup
		var inside, entries atomic.Int64
		var last atomic.Uint64
		for range 3 {
			client, _ := c.client(Config{})
			defer client.Close()
			for range 2 {
				wg.Go(func() {
					for range 10 {
						err := client.Do(t.Context(), "x", func(_ context.Context, token uint64) error {
							if n := inside.Add(1); n != 1 {
								return fmt.Errorf("%d inside", n)
							}
							defer inside.Add(-1)
							if before := last.Swap(token); before >= token {
								return fmt.Errorf("token %d after %d", token, before)
							}
							time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
							return fence.Check("x", token)
						})
						require.NoError(t, err)
						entries.Add(1)
					}
				})
			}
		}
		for range 4 {
			time.Sleep(700 * time.Millisecond)
			id := c.leader()
			c.stop(id)
			time.Sleep(700 * time.Millisecond)
			c.start(id)
		}
		wg.Wait()
		require.EqualValues(t, 60, entries.Load())
	})
}

func TestDoIsCancelledWhenTheLeaseIsLost(t *testing.T) {
	bubble(t, 1, func(t *testing.T, c *cluster) {
		a, fa := c.client(Config{})
		err := a.Do(t.Context(), "x", func(ctx context.Context, _ uint64) error {
			fa.cut.Store(true)
			<-ctx.Done()
			fa.cut.Store(false)
			require.ErrorIs(t, context.Cause(ctx), lock.ErrLost)
			return errors.New("mine")
		})
		require.ErrorIs(t, err, lock.ErrLost)
		require.ErrorContains(t, err, "mine")
		require.NoError(t, a.Close())
	})
}

func TestCloseLosesWhatIsHeld(t *testing.T) {
	bubble(t, 1, func(t *testing.T, c *cluster) {
		a, _ := c.client(Config{})
		b, _ := c.client(Config{})
		defer b.Close()
		l := mustAcquire(t, a, "x", lock.Options{})
		waiting := make(chan error)
		go func() {
			_, err := a.Acquire(t.Context(), "x", lock.Options{})
			waiting <- err
		}()
		synctest.Wait()
		go a.Close()
		require.ErrorIs(t, <-waiting, coterie.ErrClosed)
		<-l.Lost()
		begin := time.Now()
		require.NoError(t, mustAcquire(t, b, "x", lock.Options{}).Release(t.Context()))
		require.Less(t, time.Since(begin), time.Second, "others need not wait for the TTL")
		require.NoError(t, a.Close())
	})
}

func TestElection(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		a, _ := c.client(Config{})
		b, _ := c.client(Config{})
		defer b.Close()
		seen := make(chan Leader, 10)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			defer close(seen)
			for l, err := range b.Observe(ctx, "boss") {
				if err != nil {
					require.ErrorIs(t, err, context.Canceled)
					return
				}
				seen <- l
			}
		}()
		require.Equal(t, Leader{}, <-seen)
		first, err := a.Campaign(t.Context(), "boss", []byte("a"))
		require.NoError(t, err)
		require.Equal(t, Leader{Value: []byte("a"), Token: first.Token()}, <-seen)
		lock := mustAcquire(t, a, "boss", lock.Options{}) // locks have names of their own
		require.NoError(t, lock.Release(t.Context()))
		won := make(chan *Leadership)
		go func() {
			l, err := b.Campaign(t.Context(), "boss", []byte("b"))
			require.NoError(t, err)
			won <- l
		}()
		synctest.Wait()
		require.NoError(t, first.Resign(t.Context()))
		second := <-won
		require.Greater(t, second.Token(), first.Token())
		require.Equal(t, Leader{Value: []byte("b"), Token: second.Token()}, <-seen)
		require.NoError(t, second.Resign(t.Context()))
		require.Equal(t, Leader{}, <-seen)
		cancel()
		for range seen {
		}
		require.NoError(t, a.Close())
	})
}
