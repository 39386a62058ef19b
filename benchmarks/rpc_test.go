package benchmarks

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	netrpc "net/rpc"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"storj.io/drpc"
	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcserver"

	"github.com/coterie-go/coterie/transport/rpc"
)

// rpcCall makes one call and returns the size of the answer.
type rpcCall func(ctx context.Context, payload []byte) (int, error)

// rpcImpl starts a server on the loopback and returns the calls of so many callers, by one connection if the peer can
// have several calls under way on one.
type rpcImpl struct {
	name string
	open func(b *testing.B, callers int) []rpcCall
}

// BenchmarkEcho makes calls whose answer is their request, both ends in this process, over the loopback. Every caller
// has a context with a deadline, and the libraries that know contexts are given it: with a deadline that can come and
// be waited for. mux is what a program without any library would write, without deadlines, errors, methods or
// goroutines for handlers: frames of a number and a payload, and a server that answers in the loop that reads.
func BenchmarkEcho(b *testing.B) {
	impls := []rpcImpl{
		{"coterie", rpcCoterie},
		{"netrpc", rpcNetRPC},
		{"grpc-unary", rpcGRPCUnary},
		{"grpc-stream", rpcGRPCStream},
		{"nats", rpcNATS},
		{"drpc", rpcDRPC},
		{"mux", rpcMux},
	}
	for _, size := range []int{64, 4096} {
		for _, callers := range []int{1, 64, 512} {
			for _, impl := range impls {
				b.Run(fmt.Sprintf("size=%d/callers=%d/impl=%s", size, callers, impl.name), func(b *testing.B) {
					rpcEcho(b, impl.open(b, callers), make([]byte, size))
				})
			}
		}
	}
}

// rpcEcho has the callers share b.N calls.
func rpcEcho(b *testing.B, calls []rpcCall, payload []byte) {
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
	defer cancel()
	for range 20 { // connect and warm up
		rpcRun(b, ctx, calls, payload, int64(len(calls)), nil)
	}
	samples := make([][]time.Duration, len(calls))
	b.ReportAllocs()
	b.ResetTimer()
	rpcRun(b, ctx, calls, payload, int64(b.N), samples)
	b.StopTimer()
	all := slices.Concat(samples...)
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	if len(all) > 0 {
		b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1e3, "p50-us")
	}
}

func rpcRun(b *testing.B, ctx context.Context, calls []rpcCall, payload []byte, n int64, samples [][]time.Duration) {
	var left atomic.Int64
	left.Store(n)
	var wg sync.WaitGroup
	for i, call := range calls {
		wg.Go(func() {
			for k := 0; left.Add(-1) >= 0; k++ {
				begin := time.Now()
				got, err := call(ctx, payload)
				if err != nil || got != len(payload) {
					b.Errorf("answer of %d bytes, %v", got, err)
					return
				}
				if samples != nil && k%4 == 0 {
					samples[i] = append(samples[i], time.Since(begin))
				}
			}
		})
	}
	wg.Wait()
}

func rpcListen(b *testing.B) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	return l
}

func rpcSame(callers int, call rpcCall) []rpcCall {
	return slices.Repeat([]rpcCall{call}, callers)
}

func rpcCoterie(b *testing.B, callers int) []rpcCall {
	s, err := rpc.NewServer(rpc.ServerConfig{})
	if err != nil {
		b.Fatal(err)
	}
	rpc.Handle(s, "echo", func(_ context.Context, req []byte) ([]byte, error) { return req, nil })
	l := rpcListen(b)
	go func() { _ = s.Serve(l) }()
	c, err := rpc.NewClient(rpc.ClientConfig{Addr: l.Addr().String()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _, _ = c.Close(), s.Close() })
	return rpcSame(callers, func(ctx context.Context, p []byte) (int, error) {
		got, err := rpc.Call[[]byte, []byte](ctx, c, "echo", p)
		return len(got), err
	})
}

// RPCEcho is the service of net/rpc, which wants an exported type.
type RPCEcho struct{}

// Echo answers with the request.
func (RPCEcho) Echo(req []byte, resp *[]byte) error {
	*resp = req
	return nil
}

func rpcNetRPC(b *testing.B, callers int) []rpcCall {
	s := netrpc.NewServer()
	if err := s.Register(RPCEcho{}); err != nil {
		b.Fatal(err)
	}
	l := rpcListen(b)
	go func() { // as Accept does, which logs that the listener is closed
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.ServeConn(conn)
		}
	}()
	c, err := netrpc.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return rpcSame(callers, func(ctx context.Context, p []byte) (int, error) {
		var resp []byte
		call := c.Go("RPCEcho.Echo", p, &resp, make(chan *netrpc.Call, 1))
		select {
		case <-call.Done:
			return len(resp), call.Error
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	})
}

// rpcRawCodec spares gRPC protobuf.
type rpcRawCodec struct{}

func (rpcRawCodec) Name() string { return "raw" }

func (rpcRawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rpcRawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func rpcGRPC(b *testing.B) *grpc.ClientConn {
	s := grpc.NewServer(grpc.ForceServerCodecV2(rpcRawCodec{}))
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "Echo", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Echo", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var p []byte
			err := decode(&p)
			return &p, err
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Stream", ServerStreams: true, ClientStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
			for {
				var p []byte
				if err := stream.RecvMsg(&p); err != nil {
					return nil
				}
				if err := stream.SendMsg(&p); err != nil {
					return err
				}
			}
		}}},
	}, struct{}{})
	l := rpcListen(b)
	go func() { _ = s.Serve(l) }()
	c, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rpcRawCodec{})))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = c.Close()
		s.Stop()
	})
	return c
}

func rpcGRPCUnary(b *testing.B, callers int) []rpcCall {
	c := rpcGRPC(b)
	return rpcSame(callers, func(ctx context.Context, p []byte) (int, error) {
		var resp []byte
		err := c.Invoke(ctx, "/Echo/Echo", &p, &resp)
		return len(resp), err
	})
}

func rpcGRPCStream(b *testing.B, callers int) []rpcCall {
	c := rpcGRPC(b)
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
	b.Cleanup(cancel)
	var calls []rpcCall
	for range callers {
		stream, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/Echo/Stream")
		if err != nil {
			b.Fatal(err)
		}
		calls = append(calls, func(_ context.Context, p []byte) (int, error) {
			if err := stream.SendMsg(&p); err != nil {
				return 0, err
			}
			var resp []byte
			err := stream.RecvMsg(&resp)
			return len(resp), err
		})
	}
	return calls
}

func rpcNATS(b *testing.B, callers int) []rpcCall {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true})
	if err != nil {
		b.Fatal(err)
	}
	s.Start()
	b.Cleanup(s.Shutdown)
	if !s.ReadyForConnections(10 * time.Second) {
		b.Fatal("nats does not start")
	}
	connect := func() *nats.Conn {
		c, err := nats.Connect(s.ClientURL())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(c.Close)
		return c
	}
	service, client := connect(), connect()
	if _, err := service.Subscribe("echo", func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		b.Fatal(err)
	}
	if err := service.Flush(); err != nil {
		b.Fatal(err)
	}
	return rpcSame(callers, func(ctx context.Context, p []byte) (int, error) {
		m, err := client.RequestWithContext(ctx, "echo", p)
		if err != nil {
			return 0, err
		}
		return len(m.Data), nil
	})
}

type rpcDRPCRaw struct{}

func (rpcDRPCRaw) Marshal(m drpc.Message) ([]byte, error) { return *m.(*[]byte), nil }

func (rpcDRPCRaw) Unmarshal(b []byte, m drpc.Message) error {
	*m.(*[]byte) = append([]byte(nil), b...)
	return nil
}

type rpcDRPCEcho struct{}

func (rpcDRPCEcho) HandleRPC(stream drpc.Stream, _ string) error {
	var p []byte
	if err := stream.MsgRecv(&p, rpcDRPCRaw{}); err != nil {
		return err
	}
	return stream.MsgSend(&p, rpcDRPCRaw{})
}

// rpcDRPC gives each caller a connection, for a connection of drpc has one call at a time.
func rpcDRPC(b *testing.B, callers int) []rpcCall {
	l := rpcListen(b)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- drpcserver.New(rpcDRPCEcho{}).Serve(ctx, l) }()
	b.Cleanup(func() {
		cancel()
		<-done
	})
	var calls []rpcCall
	for range callers {
		raw, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		c := drpcconn.New(raw)
		b.Cleanup(func() { _ = c.Close() })
		calls = append(calls, func(ctx context.Context, p []byte) (int, error) {
			var resp []byte
			err := c.Invoke(ctx, "/Echo/Echo", rpcDRPCRaw{}, &p, &resp)
			return len(resp), err
		})
	}
	return calls
}

// rpcBare is a multiplexer without anything around it.
type rpcBare struct {
	conn net.Conn
	wake chan struct{}

	mu      sync.Mutex
	buf     []byte
	next    uint64
	pending map[uint64]chan int
}

func rpcMux(b *testing.B, callers int) []rpcCall {
	l := rpcListen(b)
	done := make(chan error, 3)
	go func() { done <- rpcMuxServe(l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	m := &rpcBare{conn: conn, wake: make(chan struct{}, 1), pending: make(map[uint64]chan int)}
	go func() { done <- m.read() }()
	go func() { done <- m.write() }()
	b.Cleanup(func() {
		_ = conn.Close()
		close(m.wake)
		for range 3 {
			<-done
		}
	})
	var calls []rpcCall
	for range callers {
		answer := make(chan int, 1)
		calls = append(calls, func(ctx context.Context, p []byte) (int, error) {
			m.mu.Lock()
			m.next++
			m.pending[m.next] = answer
			m.buf = binary.BigEndian.AppendUint32(m.buf, uint32(len(p)))
			m.buf = binary.BigEndian.AppendUint64(m.buf, m.next)
			m.buf = append(m.buf, p...)
			m.mu.Unlock()
			select {
			case m.wake <- struct{}{}:
			default:
			}
			select {
			case n := <-answer:
				return n, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		})
	}
	return calls
}

func (m *rpcBare) write() error {
	var b []byte
	for range m.wake {
		m.mu.Lock()
		b, m.buf = m.buf, b[:0]
		m.mu.Unlock()
		if _, err := m.conn.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func (m *rpcBare) read() error {
	r := bufio.NewReaderSize(m.conn, 64<<10)
	var header [12]byte
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return err
		}
		p := make([]byte, binary.BigEndian.Uint32(header[:]))
		if _, err := io.ReadFull(r, p); err != nil {
			return err
		}
		id := binary.BigEndian.Uint64(header[4:])
		m.mu.Lock()
		answer := m.pending[id]
		delete(m.pending, id)
		m.mu.Unlock()
		if answer == nil {
			return errors.New("no such call")
		}
		answer <- len(p)
	}
}

func rpcMuxServe(l net.Listener) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	r, w := bufio.NewReaderSize(conn, 64<<10), bufio.NewWriterSize(conn, 64<<10)
	b := make([]byte, 12+64<<10)
	for {
		if _, err := io.ReadFull(r, b[:12]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(b)
		if _, err := io.ReadFull(r, b[12:12+n]); err != nil {
			return err
		}
		if _, err := w.Write(b[:12+n]); err != nil {
			return err
		}
		if r.Buffered() == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
}
