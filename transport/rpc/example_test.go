package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"net"
	"slices"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/rpc"
)

// pair starts a server on the loopback and a client of it.
func pair(register func(*rpc.Server), options rpc.Options) (*rpc.Client, func()) {
	server, err := rpc.NewServer(rpc.ServerConfig{})
	if err != nil {
		log.Fatal(err)
	}
	register(server)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	client, err := rpc.NewClient(rpc.ClientConfig{Addr: listener.Addr().String(), Options: options})
	if err != nil {
		log.Fatal(err)
	}
	return client, func() { _, _ = client.Close(), server.Close() }
}

func Example() {
	server, err := rpc.NewServer(rpc.ServerConfig{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	rpc.Handle(server, "greet", func(_ context.Context, name string) (string, error) {
		return "hello, " + name, nil
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()

	client, err := rpc.NewClient(rpc.ClientConfig{Addr: listener.Addr().String()})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	answer, err := rpc.Call[string, string](ctx, client, "greet", "world")
	fmt.Println(answer, err)
	// Output: hello, world <nil>
}

func ExampleCall() {
	type transfer struct{ From, To, Amount int }
	client, stop := pair(func(s *rpc.Server) {
		rpc.Handle(s, "pay", func(_ context.Context, t transfer) (int, error) {
			if t.Amount > 100 {
				return 0, &rpc.Error{Code: rpc.FirstAppCode, Message: "not enough money"}
			}
			return 100 - t.Amount, nil
		})
	}, rpc.Options{Semantics: rpc.AtMostOnce})
	defer stop()
	left, err := rpc.Call[transfer, int](context.Background(), client, "pay", transfer{1, 2, 30})
	fmt.Println(left, err)
	_, err = rpc.Call[transfer, int](context.Background(), client, "pay", transfer{1, 2, 300})
	fmt.Println(rpc.CodeOf(err) == rpc.FirstAppCode, err)
	_, err = rpc.Call[transfer, int](context.Background(), client, "steal", transfer{1, 2, 300})
	fmt.Println(errors.Is(err, rpc.ErrUnknownMethod))
	// Output:
	// 70 <nil>
	// true not enough money
	// true
}

func ExampleOpen() {
	client, stop := pair(func(s *rpc.Server) {
		rpc.HandleStream(s, "square", func(_ context.Context, stream *rpc.Stream[int, int]) error {
			for {
				n, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				if err := stream.Send(n * n); err != nil {
					return err
				}
			}
		})
	}, rpc.Options{})
	defer stop()
	stream, err := rpc.Open[int, int](context.Background(), client, "square")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	for n := range 3 {
		_ = stream.Send(n) // Recv tells why, if it fails
		square, err := stream.Recv()
		fmt.Println(square, err)
	}
	stream.CloseSend()
	_, err = stream.Recv()
	fmt.Println(err)
	// Output:
	// 0 <nil>
	// 1 <nil>
	// 4 <nil>
	// EOF
}

func ExampleCallServerStream() {
	client, stop := pair(func(s *rpc.Server) {
		rpc.HandleServerStream(s, "countdown", func(_ context.Context, n int, send func(int) error) error {
			for ; n > 0; n-- {
				if err := send(n); err != nil {
					return err
				}
			}
			return nil
		})
	}, rpc.Options{})
	defer stop()
	for n, err := range rpc.CallServerStream[int, int](context.Background(), client, "countdown", 3) {
		fmt.Println(n, err)
	}
	// Output:
	// 3 <nil>
	// 2 <nil>
	// 1 <nil>
}

func ExampleCallClientStream() {
	client, stop := pair(func(s *rpc.Server) {
		rpc.HandleClientStream(s, "sum", func(_ context.Context, numbers iter.Seq2[int, error]) (sum int, err error) {
			for n, err := range numbers {
				if err != nil {
					return 0, err
				}
				sum += n
			}
			return sum, nil
		})
	}, rpc.Options{})
	defer stop()
	fmt.Println(rpc.CallClientStream[int, int](context.Background(), client, "sum", slices.Values([]int{1, 2, 3})))
	// Output: 6 <nil>
}

func ExampleNewEndpoint() {
	network := transport.NewNetwork(transport.NetworkConfig{})
	a, b := network.Join("a"), network.Join("b")
	server, err := rpc.NewServer(rpc.ServerConfig{})
	if err != nil {
		log.Fatal(err)
	}
	rpc.Handle(server, "who", func(ctx context.Context, _ string) (coterie.NodeID, error) { return rpc.Peer(ctx), nil })
	there, here := rpc.NewEndpoint(b, server), rpc.NewEndpoint(a, nil)
	client, err := rpc.NewClient(rpc.ClientConfig{Endpoint: here, Peer: "b", Options: rpc.Options{Semantics: rpc.AtLeastOnce}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(rpc.Call[string, coterie.NodeID](context.Background(), client, "who", ""))
	_, _, _, _ = client.Close(), here.Close(), server.Close(), there.Close()
	// Output: a <nil>
}
