package rpc

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
)

func TestStreamKinds(t *testing.T) {
	s := newTestServer(t, ServerConfig{Window: 1000})
	HandleServerStream(s, "count", func(_ context.Context, n int, send func(int) error) error {
		for i := range n {
			if err := send(i); err != nil {
				return err
			}
		}
		if n == 13 {
			return coterie.ErrNoQuorum
		}
		return nil
	})
	HandleClientStream(s, "sum", func(_ context.Context, reqs iter.Seq2[int, error]) (int, error) {
		sum := 0
		for n, err := range reqs {
			if err != nil {
				return 0, err
			}
			if sum += n; n < 0 {
				break
			}
		}
		return sum, nil
	})
	HandleStream(s, "double", func(_ context.Context, stream *Stream[int, int]) error {
		for {
			n, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := stream.Send(2 * n); err != nil {
				return err
			}
		}
	})
	Handle(s, "echo", echo)
	c := newTestClient(t, ClientConfig{Addr: mustListen(t, s), Window: 700})
	for _, n := range []int{0, 1, 1000, 13} {
		got := 0
		var last error
		for v, err := range CallServerStream[int, int](t.Context(), c, "count", n) {
			if err != nil {
				last = err
				break
			}
			require.Equal(t, got, v)
			got++
		}
		require.Equal(t, n, got)
		require.Equal(t, n == 13, errors.Is(last, coterie.ErrNoQuorum))
	}
	numbers := func(n int) iter.Seq[int] {
		return func(yield func(int) bool) {
			for i := range n {
				if !yield(i) {
					return
				}
			}
		}
	}
	sum, err := CallClientStream[int, int](t.Context(), c, "sum", numbers(1000))
	require.NoError(t, err)
	require.Equal(t, 999*1000/2, sum)
	sum, err = CallClientStream[int, int](t.Context(), c, "sum", func(yield func(int) bool) {
		for yield(-1) {
			continue
		}
	})
	require.NoError(t, err, "a handler that answers early stops the sender")
	require.Equal(t, -1, sum)

	stream, err := Open[int, int](t.Context(), c, "double")
	require.NoError(t, err)
	for i := range 500 {
		require.NoError(t, stream.Send(i))
		got, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, 2*i, got)
	}
	stream.CloseSend()
	require.ErrorIs(t, stream.Send(1), io.ErrClosedPipe)
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, stream.Close())
	require.NoError(t, stream.Close())

	for _, method := range []string{"nothing", "echo"} {
		stream, err := Open[int, int](t.Context(), c, method)
		require.NoError(t, err)
		_, err = stream.Recv()
		require.ErrorIs(t, err, ErrUnknownMethod)
		require.NoError(t, stream.Close())
	}
	_, err = Call[int, int](t.Context(), c, "double", 1)
	require.ErrorIs(t, err, ErrUnknownMethod)
	require.Zero(t, s.Metrics().BadFrames)
}

// One stream that nobody receives from, or sends without end to a handler that does not receive, stalls no other, and
// no call.
func TestSlowStreamStallsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		s, err := NewServer(ServerConfig{Window: 10_000})
		require.NoError(t, err)
		var sent atomic.Int64
		HandleServerStream(s, "flood", func(_ context.Context, _ int, send func([]byte) error) error {
			for {
				if err := send(make([]byte, 100)); err != nil {
					return err
				}
				sent.Add(1)
			}
		})
		HandleStream(s, "deaf", func(ctx context.Context, _ *Stream[[]byte, []byte]) error {
			<-ctx.Done()
			return ctx.Err()
		})
		Handle(s, "echo", echo)
		serveOn(s, w)
		c, err := NewClient(ClientConfig{Dial: w.Dial, Window: 10_000})
		require.NoError(t, err)
		flood, err := Open[int, []byte](t.Context(), c, "flood")
		require.NoError(t, err)
		require.NoError(t, flood.Send(1))
		deaf, err := Open[[]byte, []byte](t.Context(), c, "deaf")
		require.NoError(t, err)
		over := make(chan error, 1)
		pushed := 0
		go func() {
			for ; ; pushed++ {
				if err := deaf.Send(make([]byte, 1000)); err != nil {
					over <- err
					return
				}
			}
		}()
		synctest.Wait() // both are stopped by their credit
		require.LessOrEqual(t, sent.Load(), int64(10_000/(100+messageOverhead)))
		require.Positive(t, sent.Load())
		for range 10 {
			got, err := Call[[]byte, []byte](t.Context(), c, "echo", []byte("through"))
			require.NoError(t, err)
			require.Equal(t, "through", string(got))
		}
		require.NoError(t, deaf.Close())
		require.ErrorIs(t, <-over, context.Canceled)
		require.LessOrEqual(t, pushed, 10)
		require.NoError(t, flood.Close())
		synctest.Wait()
		require.Zero(t, s.Metrics().Methods["flood"].Running)
		require.Zero(t, s.Metrics().Methods["deaf"].Running)
		require.NoError(t, c.Close())
		require.NoError(t, s.Close())
	})
}

func TestStreamEndsWithItsContextAndItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		s, err := NewServer(ServerConfig{})
		require.NoError(t, err)
		HandleStream(s, "wait", func(_ context.Context, in *Stream[int, int]) error {
			_, err := in.Recv()
			return err
		})
		serveOn(s, w)
		c, err := NewClient(ClientConfig{Dial: w.Dial})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		in, err := Open[int, int](ctx, c, "wait")
		require.NoError(t, err)
		_, err = in.Recv()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, in.Close())
		synctest.Wait()
		require.Zero(t, s.Metrics().Methods["wait"].Running)

		in, err = Open[int, int](t.Context(), c, "wait")
		require.NoError(t, err)
		synctest.Wait()
		w.cut()
		_, err = in.Recv()
		require.ErrorIs(t, err, coterie.ErrUnknownOutcome)
		require.NoError(t, in.Close())
		synctest.Wait()
		require.Zero(t, s.Metrics().Methods["wait"].Running)
		require.NoError(t, c.Close())
		require.NoError(t, s.Close())
	})
}
