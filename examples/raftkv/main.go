// Command raftkv is a replicated key-value store, and the proof that it keeps what it acknowledged: three replicas on
// Raft, each a process of its own with its own disk, talk over TCP with mutual TLS and serve clients over HTTP.
//
//	go run ./examples/raftkv                  load it, kill its leader twice meanwhile, and check every replica
//	go run ./examples/raftkv -serve           the same, then stay up for curl
//	go run ./examples/raftkv -reconfigure     load it while it grows from three replicas to five and shrinks to three others
//	go run ./examples/raftkv -soak 60s        load it so long, and kill, pause and depose replicas at random
//	go run ./examples/raftkv -trace out.html  such a run on the simulator, as a space-time diagram
//
// Copy store.go and replica.go to begin a service of your own: the first is the application, the second is all that it
// takes to replicate it. The rest is the demonstration.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	serve := flag.Bool("serve", false, "keep the cluster up for curl")
	trace := flag.String("trace", "", "run on the simulator and write its diagram to this `file`")
	reconfigure := flag.Bool("reconfigure", false, "go from 3 to 5 to 3 replicas under load")
	soak := flag.Duration("soak", 0, "how long to kill, pause and depose replicas at random under load")
	keys := flag.Int("keys", 10_000, "how many identifiers to load at most")
	var r replica
	flag.StringVar(&r.id, "id", "", "run one replica of this name; the arguments are all of them, name=host:port")
	flag.StringVar(&r.dir, "dir", "", "the replica's folder, with its cert.pem, key.pem and roots.pem")
	flag.StringVar(&r.http, "http", "", "where the replica serves clients, host:port")
	flag.StringVar(&r.listen, "listen", "", "where the replica meets the others, host:port, if the arguments do not say it")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case r.id != "":
		err = r.run(ctx, flag.Args())
	case *trace != "":
		err = simulate(*trace)
	default:
		err = demonstrate(ctx, plan{keys: *keys, serve: *serve, reconfigure: *reconfigure, soak: *soak})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "raftkv:", err)
		os.Exit(1)
	}
}
