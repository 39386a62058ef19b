package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
)

func newTestServer(t *testing.T, cfg ServerConfig) *Server {
	t.Helper()
	s, err := NewServer(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func newTestClient(t *testing.T, cfg ClientConfig) *Client {
	t.Helper()
	c, err := NewClient(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// mustListen serves on the loopback.
func mustListen(t *testing.T, s *Server) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

// wires is a network in memory: a listener, and the connections made to it, which can be cut.
type wires struct {
	incoming chan net.Conn
	closed   chan struct{}
	once     sync.Once

	mu    sync.Mutex
	conns []net.Conn
	down  bool
	// answers, if it is set, is asked for every write of a server: false loses it and cuts the connection.
	answers func() bool
}

func newWires() *wires {
	return &wires{incoming: make(chan net.Conn), closed: make(chan struct{})}
}

func (w *wires) Accept() (net.Conn, error) {
	select {
	case c := <-w.incoming:
		return c, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

func (w *wires) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

func (w *wires) Addr() net.Addr { return &net.UnixAddr{Name: "wires", Net: "memory"} }

func (w *wires) Dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	w.mu.Lock()
	down := w.down
	w.conns = append(w.conns, here)
	w.mu.Unlock()
	if down {
		return nil, errors.New("no route")
	}
	select {
	case w.incoming <- &lossy{there, w}:
		return here, nil
	case <-w.closed:
		return nil, errors.New("refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// cut breaks every connection.
func (w *wires) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

type lossy struct {
	net.Conn
	w *wires
}

func (l *lossy) Write(b []byte) (int, error) {
	l.w.mu.Lock()
	answers := l.w.answers
	l.w.mu.Unlock()
	if answers != nil && !answers() {
		_ = l.Close()
		return 0, net.ErrClosed
	}
	return l.Conn.Write(b)
}

// serveOn serves in the bubble, and joins when the server closes.
func serveOn(s *Server, w net.Listener) { go func() { _ = s.Serve(w) }() }

func echo(_ context.Context, req []byte) ([]byte, error) { return req, nil }

type point struct{ X, Y int }

func TestCallsOfEveryKindOfValue(t *testing.T) {
	s := newTestServer(t, ServerConfig{})
	Handle(s, "echo", echo)
	Handle(s, "upper", func(_ context.Context, req string) (string, error) { return strings.ToUpper(req), nil })
	Handle(s, "flip", func(_ context.Context, p point) (point, error) { return point{p.Y, p.X}, nil })
	Handle(s, "later", func(_ context.Context, at time.Time) (time.Time, error) { return at.Add(time.Hour), nil })
	c := newTestClient(t, ClientConfig{Addr: mustListen(t, s)})
	for _, size := range []int{0, 1, 100, 70_000, 4 << 20} {
		got, err := Call[[]byte, []byte](t.Context(), c, "echo", make([]byte, size))
		require.NoError(t, err)
		require.Len(t, got, size)
	}
	up, err := Call[string, string](t.Context(), c, "upper", "abc")
	require.NoError(t, err)
	require.Equal(t, "ABC", up)
	p, err := Call[point, point](t.Context(), c, "flip", point{1, 2})
	require.NoError(t, err)
	require.Equal(t, point{2, 1}, p)
	at := time.Unix(1000, 0).UTC()
	later, err := Call[time.Time, time.Time](t.Context(), c, "later", at)
	require.NoError(t, err)
	require.True(t, later.Equal(at.Add(time.Hour)))
	m := s.Metrics()
	require.Equal(t, uint64(5), m.Methods["echo"].Calls)
	require.Equal(t, 1, m.Connected)
	require.Equal(t, uint64(1), c.Metrics().Dials)
}

func TestManyCallersShareOneConnection(t *testing.T) {
	s := newTestServer(t, ServerConfig{})
	Handle(s, "echo", echo)
	c := newTestClient(t, ClientConfig{Addr: mustListen(t, s)})
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for k := range testsize.N(200, 20_000) {
				want := fmt.Sprintf("%d/%d", i, k)
				got, err := Call[[]byte, []byte](t.Context(), c, "echo", []byte(want))
				if !assert.NoError(t, err) || !assert.Equal(t, want, string(got)) {
					return
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, uint64(1), s.Metrics().Accepted)
}

func TestErrorsKeepTheirMeaning(t *testing.T) {
	s := newTestServer(t, ServerConfig{})
	var fail error
	Handle(s, "fail", func(context.Context, []byte) ([]byte, error) { return nil, fail })
	Handle(s, "panic", func(context.Context, []byte) ([]byte, error) { panic("bug") })
	Handle(s, "int", func(_ context.Context, n int) (int, error) { return n, nil })
	c := newTestClient(t, ClientConfig{Addr: mustListen(t, s)})
	call := func() error {
		_, err := Call[[]byte, []byte](t.Context(), c, "fail", nil)
		return err
	}
	for _, each := range sentinels {
		fail = fmt.Errorf("wrapped: %w", each.err)
		err := call()
		require.ErrorIs(t, err, each.err)
		require.Equal(t, each.code, CodeOf(err))
		require.ErrorContains(t, err, "wrapped")
	}
	fail = fmt.Errorf("wrapped: %w", &coterie.NotLeaderError{Leader: "n2"})
	var not *coterie.NotLeaderError
	require.ErrorAs(t, call(), &not)
	require.Equal(t, coterie.NodeID("n2"), not.Leader)
	fail = &Error{Code: FirstAppCode + 7, Message: "no such account", Detail: "42"}
	var e *Error
	require.ErrorAs(t, call(), &e)
	require.Equal(t, Error{Code: FirstAppCode + 7, Message: "no such account", Detail: "42"}, *e)
	fail = errors.New(strings.Repeat("x", 1<<20))
	require.Equal(t, Failed, CodeOf(call()))

	_, err := Call[[]byte, []byte](t.Context(), c, "panic", nil)
	require.Equal(t, Internal, CodeOf(err))
	_, err = Call[[]byte, []byte](t.Context(), c, "nothing", nil)
	require.ErrorIs(t, err, ErrUnknownMethod)
	_, err = Call[string, int](t.Context(), c, "int", "no number")
	require.ErrorIs(t, err, ErrBadRequest)
	_, err = Call[[]byte, []byte](t.Context(), c, "", nil)
	require.ErrorIs(t, err, ErrUnknownMethod)
	_, err = Call[[]byte, []byte](t.Context(), c, "fail", make([]byte, 4<<20+1))
	require.ErrorIs(t, err, ErrTooLarge)
	m := s.Metrics()
	require.Equal(t, uint64(1), m.Panics)
	require.Equal(t, uint64(1), m.UnknownMethods)
	require.Equal(t, m.Methods["fail"].Calls, m.Methods["fail"].Errors)
}

func TestAnswerOverTheLimit(t *testing.T) {
	s := newTestServer(t, ServerConfig{MaxMessage: 1000})
	Handle(s, "big", func(context.Context, []byte) ([]byte, error) { return make([]byte, 1001), nil })
	c := newTestClient(t, ClientConfig{Addr: mustListen(t, s)})
	_, err := Call[[]byte, []byte](t.Context(), c, "big", nil)
	require.ErrorIs(t, err, ErrTooLarge)
	_, err = Call[[]byte, []byte](t.Context(), c, "big", make([]byte, 1001))
	require.ErrorIs(t, err, ErrTooLarge)
	require.Equal(t, uint64(1), s.Metrics().TooLarge)
}

func TestCancelledCallFreesItsServerWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		s, err := NewServer(ServerConfig{})
		require.NoError(t, err)
		ended := make(chan error, 1)
		Handle(s, "hang", func(ctx context.Context, _ []byte) ([]byte, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		})
		serveOn(s, w)
		c, err := NewClient(ClientConfig{Dial: w.Dial})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			time.Sleep(time.Second)
			cancel()
		}()
		_, err = Call[[]byte, []byte](ctx, c, "hang", nil)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, coterie.ErrUnknownOutcome)
		require.ErrorIs(t, <-ended, context.Canceled)

		// The deadline travels, and is seen by the server's own clock.
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		_, err = Call[[]byte, []byte](ctx, c, "hang", nil)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		<-ended
		synctest.Wait()
		require.Zero(t, s.Metrics().Methods["hang"].Running)

		// A connection that breaks ends the calls that came by it.
		go func() {
			time.Sleep(time.Second)
			w.cut()
		}()
		_, err = Call[[]byte, []byte](t.Context(), c, "hang", nil)
		require.ErrorIs(t, err, coterie.ErrUnknownOutcome)
		require.ErrorIs(t, <-ended, context.Canceled)
		require.NoError(t, c.Close())
		require.NoError(t, s.Close())
	})
}

func TestNothingIsLeftOfTenThousandCancelledCalls(t *testing.T) {
	s := newTestServer(t, ServerConfig{MaxCalls: 20_000})
	Handle(s, "hang", func(ctx context.Context, _ []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	Handle(s, "echo", echo)
	c := newTestClient(t, ClientConfig{Addr: mustListen(t, s)})
	_, err := Call[[]byte, []byte](t.Context(), c, "echo", nil)
	require.NoError(t, err)
	before := runtime.NumGoroutine()
	n := testsize.N(10_000, 10_000)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			_, err := Call[[]byte, []byte](ctx, c, "hang", nil)
			assert.ErrorIs(t, err, context.Canceled)
		})
	}
	eventually(t, "all calls hang", func() bool { return s.Metrics().Methods["hang"].Running == int64(n) })
	cancel()
	wg.Wait()
	eventually(t, "all calls have ended", func() bool { return s.Metrics().Methods["hang"].Running == 0 })
	eventually(t, "the goroutines end, but for the idle", func() bool { return runtime.NumGoroutine() <= before+maxIdle })
	link := c.link.(*connLink)
	live := link.live.Load()
	live.mu.Lock()
	require.Empty(t, live.calls)
	live.mu.Unlock()
	require.Zero(t, live.sent.Load())
	for conn := range s.conns {
		conn.mu.Lock()
		require.Empty(t, conn.calls)
		conn.mu.Unlock()
	}
	_, err = Call[[]byte, []byte](t.Context(), c, "echo", nil)
	require.NoError(t, err)
	require.Equal(t, uint64(1), s.Metrics().Accepted, "the connection survives")
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !condition(); <-tick.C {
		require.True(t, time.Now().Before(end), what)
	}
}

func TestOverloadIsRefused(t *testing.T) {
	s := newTestServer(t, ServerConfig{MaxCalls: 2, MaxQueue: 3})
	release := make(chan struct{})
	Handle(s, "wait", func(context.Context, []byte) ([]byte, error) {
		<-release
		return nil, nil
	})
	c := newTestClient(t, ClientConfig{Addr: mustListen(t, s), MaxCalls: 20})
	results := make(chan error, 10)
	for range 10 {
		go func() {
			_, err := Call[[]byte, []byte](t.Context(), c, "wait", nil)
			results <- err
		}()
	}
	for range 5 {
		err := <-results
		require.ErrorIs(t, err, coterie.ErrOverloaded)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.True(t, e.NotRun)
	}
	close(release)
	for range 5 {
		require.NoError(t, <-results)
	}
	require.Equal(t, uint64(5), s.Metrics().Overloaded)
}

func TestClientBoundsItsCalls(t *testing.T) {
	s := newTestServer(t, ServerConfig{})
	Handle(s, "hang", func(ctx context.Context, _ []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	c := newTestClient(t, ClientConfig{Addr: mustListen(t, s), MaxCalls: 1})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = Call[[]byte, []byte](ctx, c, "hang", nil)
	}()
	eventually(t, "it runs", func() bool { return s.Metrics().Methods["hang"].Running == 1 })
	_, err := Call[[]byte, []byte](t.Context(), c, "hang", nil)
	require.ErrorIs(t, err, coterie.ErrOverloaded)
	cancel()
	<-done
}

func TestShutdownDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		s, err := NewServer(ServerConfig{})
		require.NoError(t, err)
		Handle(s, "slow", func(ctx context.Context, _ []byte) ([]byte, error) {
			select {
			case <-time.After(time.Minute):
			case <-ctx.Done():
			}
			return []byte("done"), ctx.Err()
		})
		serveOn(s, w)
		c, err := NewClient(ClientConfig{Dial: w.Dial})
		require.NoError(t, err)
		result := make(chan error, 1)
		go func() {
			_, err := Call[[]byte, []byte](t.Context(), c, "slow", nil)
			result <- err
		}()
		time.Sleep(time.Second)
		shut := make(chan error, 1)
		go func() { shut <- s.Shutdown(t.Context()) }()
		synctest.Wait()
		_, err = Call[[]byte, []byte](t.Context(), c, "slow", nil)
		require.ErrorIs(t, err, ErrUnreachable, "a new call goes to a new connection, and finds nobody")
		require.NoError(t, <-result, "the call under way is answered")
		require.NoError(t, <-shut)
		require.NoError(t, c.Close())
		_, err = Call[[]byte, []byte](t.Context(), c, "slow", nil)
		require.ErrorIs(t, err, coterie.ErrClosed)
		require.ErrorIs(t, s.Serve(newWires()), coterie.ErrClosed)
	})
}

func TestShutdownThatTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		s, err := NewServer(ServerConfig{})
		require.NoError(t, err)
		Handle(s, "hang", func(ctx context.Context, _ []byte) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		serveOn(s, w)
		c, err := NewClient(ClientConfig{Dial: w.Dial})
		require.NoError(t, err)
		go func() { _, _ = Call[[]byte, []byte](t.Context(), c, "hang", nil) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, s.Shutdown(ctx), context.DeadlineExceeded)
		require.NoError(t, c.Close())
	})
}

func TestDeadPeersAreNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		s, err := NewServer(ServerConfig{IdleTimeout: 8 * time.Second})
		require.NoError(t, err)
		Handle(s, "echo", echo)
		serveOn(s, w)
		c, err := NewClient(ClientConfig{Dial: w.Dial, IdleTimeout: 4 * time.Second})
		require.NoError(t, err)
		_, err = Call[[]byte, []byte](t.Context(), c, "echo", nil)
		require.NoError(t, err)
		time.Sleep(time.Hour)
		require.Zero(t, c.Metrics().Broken, "an idle connection is kept alive")
		require.Equal(t, 1, s.Metrics().Connected)

		// A server that reads and does not answer, as one does whose process is stopped.
		mute, err := NewClient(ClientConfig{IdleTimeout: 4 * time.Second, Dial: func(context.Context) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				_, _ = there.Read(make([]byte, 1000))
				_, _ = there.Write(welcomeFrame)
				_, _ = io.Copy(io.Discard, there)
			}()
			return here, nil
		}})
		require.NoError(t, err)
		_, err = Call[[]byte, []byte](t.Context(), mute, "echo", nil)
		require.ErrorIs(t, err, coterie.ErrUnknownOutcome)
		require.ErrorIs(t, err, errSilent)
		require.NoError(t, mute.Close())

		// A client that is connected and silent.
		conn, err := w.Dial(t.Context())
		require.NoError(t, err)
		go func() { _, _ = conn.Write(helloFrame) }()
		_, err = io.Copy(io.Discard, conn)
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, uint64(1), s.Metrics().IdleTimeouts)
		require.NoError(t, c.Close())
		require.NoError(t, s.Close())
	})
}

func TestTraceContextTravels(t *testing.T) {
	s := newTestServer(t, ServerConfig{})
	Handle(s, "trace", func(ctx context.Context, _ []byte) (string, error) {
		tr := TraceOf(ctx)
		return tr.Traceparent() + " " + tr.State, nil
	})
	c := newTestClient(t, ClientConfig{Addr: mustListen(t, s)})
	const header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	tr, err := ParseTraceparent(header)
	require.NoError(t, err)
	tr.State = "rojo=00f067aa0ba902b7"
	got, err := Call[[]byte, string](WithTrace(t.Context(), tr), c, "trace", nil)
	require.NoError(t, err)
	require.Equal(t, header+" rojo=00f067aa0ba902b7", got)
	got, err = Call[[]byte, string](t.Context(), c, "trace", nil)
	require.NoError(t, err)
	require.Equal(t, Trace{}.Traceparent()+" ", got)
}

func TestInterceptorsWrapBothSides(t *testing.T) {
	var mu sync.Mutex
	var log []string
	note := func(who string) Interceptor {
		return func(ctx context.Context, info Info, req any, next Next) (any, error) {
			mu.Lock()
			log = append(log, fmt.Sprintf("%s %s %v %v", who, info.Method, info.Stream, req))
			mu.Unlock()
			resp, err := next(ctx, req)
			if s, ok := resp.(string); ok {
				resp = s + " " + who
			}
			return resp, err
		}
	}
	s := newTestServer(t, ServerConfig{Intercept: []Interceptor{note("s1"), note("s2")}})
	Handle(s, "hello", func(_ context.Context, name string) (string, error) { return "hello " + name, nil })
	HandleServerStream(s, "count", func(_ context.Context, n int, send func(int) error) error { return send(n) })
	refuse := func(_ context.Context, _ Info, _ any, _ Next) (any, error) { return nil, errors.New("refused") }
	wrong := func(_ context.Context, _ Info, _ any, _ Next) (any, error) { return 3, nil }
	addr := mustListen(t, s)
	c := newTestClient(t, ClientConfig{Addr: addr, Intercept: []Interceptor{note("c1"), note("c2")}})
	got, err := Call[string, string](t.Context(), c, "hello", "you")
	require.NoError(t, err)
	require.Equal(t, "hello you s2 s1 c2 c1", got)
	for n, err := range CallServerStream[int, int](t.Context(), c, "count", 5) {
		require.NoError(t, err)
		require.Equal(t, 5, n)
	}
	require.Equal(t, []string{
		"c1 hello false you", "c2 hello false you", "s1 hello false you", "s2 hello false you",
		"c1 count true <nil>", "c2 count true <nil>", "s1 count true <nil>", "s2 count true <nil>",
	}, log)
	for _, bad := range []Interceptor{refuse, wrong} {
		c := newTestClient(t, ClientConfig{Addr: addr, Intercept: []Interceptor{bad}})
		_, err = Call[string, string](t.Context(), c, "hello", "you")
		require.Error(t, err)
		_, err := Open[int, int](t.Context(), c, "count")
		require.Error(t, err)
	}
}

func TestConfigsAreChecked(t *testing.T) {
	_, err := NewServer(ServerConfig{MaxCalls: -1, IdleTimeout: -1, MaxMessage: 1 << 30})
	for _, field := range []string{"MaxCalls", "IdleTimeout", "MaxMessage"} {
		require.ErrorContains(t, err, "ServerConfig."+field)
	}
	_, err = NewClient(ClientConfig{MaxCalls: -1, RetryRate: -1})
	for _, field := range []string{"Dial, Addr or Endpoint", "MaxCalls", "RetryRate"} {
		require.ErrorContains(t, err, field)
	}
	_, err = NewClient(ClientConfig{Addr: "x", Options: Options{Hedge: 1, MaxBackoff: 1, Semantics: 9}})
	for _, field := range []string{"Options.Hedge", "Options.MaxBackoff", "Options.Semantics"} {
		require.ErrorContains(t, err, field)
	}
	c := newTestClient(t, ClientConfig{Addr: "x"})
	_, err = c.With(Options{Backups: []*Client{nil}})
	require.ErrorContains(t, err, "Backups")
	s := newTestServer(t, ServerConfig{})
	Handle(s, "a", echo)
	require.Panics(t, func() { Handle(s, "a", echo) })
	require.Panics(t, func() { Handle(s, "", echo) })
}

func TestUnaryCallsAllocateLittle(t *testing.T) {
	if testsize.Race() {
		t.Skip("the race detector allocates")
	}
	s := newTestServer(t, ServerConfig{})
	Handle(s, "echo", echo)
	c := newTestClient(t, ClientConfig{Addr: mustListen(t, s)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	payload := make([]byte, 64)
	per := testing.AllocsPerRun(2000, func() {
		if _, err := Call[[]byte, []byte](ctx, c, "echo", payload); err != nil {
			t.Error(err)
		}
	})
	require.LessOrEqual(t, per, 8.0, "both ends")
}
