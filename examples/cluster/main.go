// Command cluster shows membership at work: eight members on loopback find each other, are killed, paused, cut off from
// each other and healed, and a table shows what each of them holds of each other, and how long it took to know.
//
//	go run ./examples/cluster           the whole story, in about 20 seconds
//	go run ./examples/cluster -serve    a web page with buttons to do the same by hand, until interrupted
//
// Each member is a swim.Node over UDP, with TCP for what does not fit a datagram; beside it, over the same sockets, a
// heartbeat goes to all, from whose arrival a phi-accrual detector computes phi. Networks are cut and processes are
// paused by a filter between the protocols and the sockets.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	serve := flag.Bool("serve", false, "serve a web page, until interrupted")
	listen := flag.String("listen", "127.0.0.1:8080", "where to serve it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *serve {
		err = serveCluster(ctx, *listen)
	} else {
		err = tell(ctx, os.Stdout, isTerminal(os.Stdout), 800*time.Millisecond)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// isTerminal reports whether a file is one that can be redrawn in place.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}
