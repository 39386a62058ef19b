// Command lock shows why a lock needs a fence: five worker processes increment one counter in a file, each time by
// reading it and writing one more, under a lock that three replicas keep. One worker is stopped (SIGSTOP) in the middle,
// for longer than its lease. The others go on. When it wakes up it writes what it had in mind, not knowing, and the
// fence at the file refuses that: the count is exact.
//
//	go run ./examples/lock             show it
//	go run ./examples/lock -no-fence   the same without the fence: an increment is lost
//
// Copy worker.go for how a lock is used, and resource.go for how what it protects is guarded.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	workers = 5
	ttl     = 2 * time.Second // of leases: short, so that nobody has to wait long for the one that is stopped
)

func main() {
	increments := flag.Int("increments", 6, "how many each worker makes")
	noFence := flag.Bool("no-fence", false, "let stale writes pass")
	var w worker
	flag.StringVar(&w.id, "worker", "", "be the worker of this name; the arguments are the replicas, name=host:port")
	flag.StringVar(&w.resource, "resource", "", "URL of the counter")
	flag.BoolVar(&w.victim, "victim", false, "say when it is a good time to be stopped")
	flag.Parse()
	w.increments = *increments

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var err error
	if w.id != "" {
		err = w.run(ctx, flag.Args())
	} else {
		err = demonstrate(ctx, *increments, !*noFence)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lock:", err)
		os.Exit(1)
	}
}

// demonstrate runs the replicas, the counter and the workers, and compares the count.
func demonstrate(ctx context.Context, increments int, fenced bool) (err error) {
	dir, err := os.MkdirTemp("", "lock-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c, err := startCluster(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	r, err := openResource(dir, fenced)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := runWorkers(ctx, c, r, increments); err != nil {
		return err
	}
	got, refused := r.result()
	expected := workers * increments
	fmt.Printf("expected %d, got %d, stale writes refused %d\n", expected, got, refused)
	if fenced && (got != expected || refused == 0 && canStop) {
		return errors.New("the fence did not do its work")
	}
	return nil
}
