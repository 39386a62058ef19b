// Command collab is a page on which several people, and a robot, edit one text at once: each page has a replica of its
// own, which it may take offline and bring back, and sees the others' cursors. Without flags two clients and the robot
// edit over HTTP for some seconds, one of them offline for a while, and it exits with 1 if they do not end with equal
// texts. With -serve it stays up: open the page it prints in two windows.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sync/errgroup"
)

func main() {
	serve := flag.Bool("serve", false, "stay up for browsers")
	addr := flag.String("addr", "127.0.0.1:0", "where to listen")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *addr, *serve); err != nil {
		fmt.Fprintln(os.Stderr, "collab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, addr string, stay bool) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	h := newHub()
	server := &http.Server{Handler: h.handler(), ReadHeaderTimeout: 5 * time.Second}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group errgroup.Group
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	url := "http://" + listener.Addr().String()
	if stay {
		fmt.Println("open", url, "in two windows; interrupt to end")
		h.robot(ctx, 120*time.Millisecond, 0)
		<-ctx.Done()
	} else {
		err = script(ctx, h, url)
	}
	return errors.Join(err, server.Close(), group.Wait())
}
