// Rpc shows what becomes of calls when connections are killed: a client pays bills at two servers over connections that
// are cut now and then, some before a request has gone, some before its answer has come. For each semantics it prints
// how many payments were made once, twice or not at all, and what the client knows of them. Then it measures calls in
// the clear beside mutual TLS.
//
//	go run ./examples/rpc
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/rpc"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := errors.Join(killed(ctx), measured(ctx)); err != nil {
		fmt.Fprintln(os.Stderr, "rpc:", err)
		os.Exit(1)
	}
}

const payments = 300 // at each of the two servers

// bank is a server that counts how often each payment was made.
type bank struct {
	server *rpc.Server
	addr   string

	mu   sync.Mutex
	made map[int]int
}

func openBank(cfg rpc.ServerConfig) (*bank, error) {
	b := &bank{made: make(map[int]int)}
	var err error
	if b.server, err = rpc.NewServer(cfg); err != nil {
		return nil, err
	}
	rpc.Handle(b.server, "pay", func(_ context.Context, payment int) (string, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.made[payment]++
		return fmt.Sprintf("paid %d", payment), nil
	})
	rpc.Handle(b.server, "echo", func(_ context.Context, p []byte) ([]byte, error) { return p, nil })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b.addr = l.Addr().String()
	go func() { _ = b.server.Serve(l) }() // until Close
	return b, nil
}

// fragile is a connection that is killed after some writes: before what is written has gone, or when the answer to it
// comes. In the second case the server has done what it was asked, and nobody learns of it.
type fragile struct {
	net.Conn
	left   int  // writes
	answer bool // kill the answer, not the request
	killed atomic.Bool
}

var errKilled = errors.New("killed")

func (f *fragile) Write(b []byte) (int, error) {
	if f.left--; f.left > 0 {
		return f.Conn.Write(b)
	}
	f.killed.Store(true)
	if f.answer {
		return f.Conn.Write(b)
	}
	_ = f.Close()
	return 0, errKilled
}

func (f *fragile) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	if f.killed.Load() {
		_ = f.Close()
		return 0, errKilled
	}
	return n, err
}

// result is what was seen under one semantics.
type result struct{ answered, unknown, refused, none, once, more int }

func killed(ctx context.Context) error {
	fmt.Printf("%d payments at each of two servers, whose connections are killed every few calls:\n\n", payments)
	fmt.Printf("%-15s %9s %8s %9s | %8s %6s %6s\n", "semantics", "answered", "unknown", "not done", "not made", "once", "twice+")
	for _, semantics := range []rpc.Semantics{rpc.Maybe, rpc.AtLeastOnce, rpc.AtMostOnce} {
		var sum result
		for range 2 {
			if err := pay(ctx, semantics, &sum); err != nil {
				return err
			}
		}
		fmt.Printf("%-15v %9d %8d %9d | %8d %6d %6d\n", semantics, sum.answered, sum.unknown, sum.refused, sum.none, sum.once, sum.more)
		if semantics != rpc.AtLeastOnce && sum.more > 0 {
			return fmt.Errorf("%v: %d payments were made twice", semantics, sum.more)
		}
		if semantics == rpc.AtLeastOnce && sum.none > 0 {
			return fmt.Errorf("%v: %d payments were not made", semantics, sum.none)
		}
		if semantics == rpc.AtMostOnce && sum.once != 2*payments {
			return fmt.Errorf("%v: %d payments were made once", semantics, sum.once)
		}
	}
	return nil
}

// pay makes all the payments at a server of its own.
func pay(ctx context.Context, semantics rpc.Semantics, sum *result) error {
	b, err := openBank(rpc.ServerConfig{})
	if err != nil {
		return err
	}
	defer func() { _ = b.server.Close() }()
	dials := 0
	client, err := rpc.NewClient(rpc.ClientConfig{
		Options: rpc.Options{Semantics: semantics},
		Dial: func(context.Context) (net.Conn, error) {
			raw, err := net.Dial("tcp", b.addr)
			dials++
			return &fragile{Conn: raw, left: 4 + dials%5, answer: dials%2 == 0}, err
		},
		RetryRate: 1000, // half of the calls fail at first: retries need more than the usual budget
	})
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	answers := make([]error, payments)
	for i := range payments {
		_, answers[i] = rpc.Call[int, string](ctx, client, "pay", i)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, err := range answers {
		switch {
		case err == nil:
			sum.answered++
		case errors.Is(err, coterie.ErrUnknownOutcome):
			sum.unknown++
		default:
			sum.refused++
		}
		switch b.made[i] {
		case 0:
			sum.none++
		case 1:
			sum.once++
		default:
			sum.more++
		}
	}
	return nil
}

// measured compares plain connections and mutual TLS.
func measured(ctx context.Context) error {
	ca, err := transport.NewThrowawayCA()
	if err != nil {
		return err
	}
	server, err := ca.Identity("bank")
	if err != nil {
		return err
	}
	customer, err := ca.Identity("customer")
	if err != nil {
		return err
	}
	fmt.Printf("\necho of 64 bytes:\n\n%-12s %14s %20s\n", "connection", "1 caller, p50", "64 callers, calls/s")
	for _, c := range []struct {
		name           string
		server, client *transport.Identity
	}{{"plain", nil, nil}, {"mutual TLS", server, customer}} {
		b, err := openBank(rpc.ServerConfig{ID: "bank", Identity: c.server})
		if err != nil {
			return err
		}
		client, err := rpc.NewClient(rpc.ClientConfig{Addr: b.addr, ID: "customer", Peer: "bank", Identity: c.client})
		if err != nil {
			return err
		}
		alone, _, err1 := load(ctx, client, 1)
		_, together, err2 := load(ctx, client, 64)
		if err := errors.Join(err1, err2, client.Close(), b.server.Close()); err != nil {
			return err
		}
		fmt.Printf("%-12s %14v %20.0f\n", c.name, alone.Round(100*time.Nanosecond), together)
	}
	return nil
}

// load calls for a second from so many goroutines, and returns the median of what a call took, and the calls a second.
func load(ctx context.Context, client *rpc.Client, callers int) (p50 time.Duration, rate float64, err error) {
	payload := make([]byte, 64)
	if _, err := rpc.Call[[]byte, []byte](ctx, client, "echo", payload); err != nil { // connects
		return 0, 0, err
	}
	took := make([][]time.Duration, callers)
	g, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	for i := range callers {
		g.Go(func() error {
			for start := time.Now(); start.Sub(begin) < time.Second; {
				if _, err := rpc.Call[[]byte, []byte](ctx, client, "echo", payload); err != nil {
					return err
				}
				now := time.Now()
				took[i] = append(took[i], now.Sub(start))
				start = now
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, 0, err
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	return all[len(all)/2], float64(len(all)) / time.Since(begin).Seconds(), nil
}
