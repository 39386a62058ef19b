package rpc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/transport"
)

// weather is a transport that loses, repeats and delays, until it is healed.
type weather struct {
	coterie.Transport
	mu     sync.Mutex
	rng    *rand.Rand
	healed bool
	late   sync.WaitGroup // messages under way
}

func (w *weather) Send(to coterie.NodeID, payload []byte) error {
	w.mu.Lock()
	copies, healed := 1, w.healed
	if !healed {
		copies = w.rng.IntN(4) // none to three
	}
	var delays []time.Duration
	for range copies {
		d := time.Duration(0)
		if !healed {
			d = time.Duration(w.rng.Int64N(int64(3 * time.Second)))
			if w.rng.IntN(5) == 0 {
				d *= 20 // so late that its sender has forgotten it, and the server been restarted
			}
		}
		delays = append(delays, d)
	}
	w.mu.Unlock()
	for _, d := range delays {
		w.late.Go(func() {
			time.Sleep(d)
			_ = w.Transport.Send(to, payload)
		})
	}
	return nil
}

// Over a transport that does to messages what it may, a call is executed as often as its semantics say, a copy of a
// request that comes after the server was restarted included.
func TestSemanticsOverATransport(t *testing.T) {
	for seed := range uint64(testsize.N(10, 500)) {
		for _, semantics := range []Semantics{Maybe, AtLeastOnce, AtMostOnce} {
			synctest.Test(t, func(t *testing.T) { overATransport(t, semantics, seed) })
		}
	}
}

func overATransport(t *testing.T, semantics Semantics, seed uint64) {
	network := transport.NewNetwork(transport.NetworkConfig{})
	near := &weather{Transport: network.Join("a"), rng: rand.New(rand.NewPCG(seed, 1))}
	far := &weather{Transport: network.Join("b"), rng: rand.New(rand.NewPCG(seed, 2))}
	executed := newTally()
	start := func() (*Server, *Endpoint) {
		s, err := NewServer(ServerConfig{})
		require.NoError(t, err)
		Handle(s, "do", executed.do)
		return s, NewEndpoint(far, s)
	}
	s, there := start()
	here := NewEndpoint(near, nil)
	c, err := NewClient(ClientConfig{Endpoint: here, Peer: "b", Options: Options{Semantics: semantics, TryTimeout: 5 * time.Second}, RetryRate: 1000})
	require.NoError(t, err)
	answered := make(map[string]bool)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for k := range 10 {
				id := fmt.Sprintf("%d/%d", i, k)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				if semantics == AtLeastOnce {
					ctx = t.Context()
				}
				got, err := Call[string, string](ctx, c, "do", id)
				cancel()
				mu.Lock()
				answered[id] = err == nil
				mu.Unlock()
				if err == nil {
					assert.Equal(t, "did "+id, got)
				}
			}
		})
	}
	for range 2 {
		time.Sleep(30 * time.Second)
		require.NoError(t, there.Close())
		require.NoError(t, s.Close())
		s, there = start()
	}
	for _, w := range []*weather{near, far} {
		w.mu.Lock()
		w.healed = true
		w.mu.Unlock()
	}
	wg.Wait()
	near.late.Wait()
	far.late.Wait()
	synctest.Wait()
	for id, ok := range answered {
		n := executed.of(id)
		if semantics != AtLeastOnce {
			require.LessOrEqual(t, n, 1, "%v, seed %d: call %s", semantics, seed, id)
		} else {
			require.True(t, ok, "seed %d: call %s is answered after healing", seed, id)
		}
		if ok {
			require.GreaterOrEqual(t, n, 1, "%v, seed %d: call %s has an answer", semantics, seed, id)
		}
	}
	require.NoError(t, c.Close())
	require.NoError(t, here.Close())
	require.NoError(t, there.Close())
	require.NoError(t, s.Close())
	require.NoError(t, near.Close())
	require.NoError(t, far.Close())
	far.late.Wait()
}

func TestEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transport.NewNetwork(transport.NetworkConfig{MaxPayload: 1000})
		a, b := network.Join("a"), network.Join("b")
		s, err := NewServer(ServerConfig{})
		require.NoError(t, err)
		ended := make(chan struct{}, 1)
		Handle(s, "who", func(ctx context.Context, _ int) (string, error) { return string(Peer(ctx)), nil })
		Handle(s, "big", func(_ context.Context, n int) ([]byte, error) { return make([]byte, n), nil })
		Handle(s, "hang", func(ctx context.Context, _ int) (int, error) {
			<-ctx.Done()
			ended <- struct{}{}
			return 0, ctx.Err()
		})
		there := NewEndpoint(b, s)
		here := NewEndpoint(a, nil)
		c, err := NewClient(ClientConfig{Endpoint: here, Peer: "b"})
		require.NoError(t, err)
		who, err := Call[int, string](t.Context(), c, "who", 1)
		require.NoError(t, err)
		require.Equal(t, "a", who)
		_, err = Call[int, []byte](t.Context(), c, "big", 2000)
		require.ErrorIs(t, err, ErrTooLarge)
		_, err = Open[int, int](t.Context(), c, "who")
		require.Error(t, err)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err = Call[int, int](ctx, c, "hang", 1)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		<-ended

		nobody, err := NewClient(ClientConfig{Endpoint: here, Peer: "nobody"})
		require.NoError(t, err)
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		_, err = Call[int, string](ctx, nobody, "who", 1)
		cancel()
		require.ErrorIs(t, err, ErrUnreachable)
		back, err := NewClient(ClientConfig{Endpoint: there, Peer: "a"})
		require.NoError(t, err)
		_, err = Call[int, string](t.Context(), back, "who", 1)
		require.ErrorIs(t, err, ErrUnknownMethod, "a node without a server says so")

		for _, garbage := range [][]byte{nil, {1}, {2, 3}, {1, 99, 0}, {1, kindRequest, 200}, {1, kindResponse, 1, 3, 200}, {1, kindCancel}} {
			before := there.Malformed()
			require.NoError(t, a.Send("b", garbage))
			synctest.Wait()
			require.Equal(t, before+1, there.Malformed(), "%x", garbage)
		}

		result := make(chan error, 2)
		for _, client := range []*Client{c, c} {
			go func() {
				_, err := Call[int, int](t.Context(), client, "hang", 1)
				result <- err
			}()
		}
		synctest.Wait()
		require.NoError(t, here.Close())
		for range 2 {
			err := <-result
			require.ErrorIs(t, err, coterie.ErrUnknownOutcome)
			require.ErrorIs(t, err, coterie.ErrClosed)
		}
		_, err = Call[int, string](t.Context(), c, "who", 1)
		require.ErrorIs(t, err, coterie.ErrClosed)
		go func() {
			<-ended
			<-ended
		}()
		require.NoError(t, s.Close())
		require.NoError(t, there.Close())
		require.NoError(t, errors.Join(c.Close(), back.Close(), nobody.Close(), a.Close(), b.Close()))
	})
}
