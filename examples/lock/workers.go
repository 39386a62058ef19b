package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sync/errgroup"
)

// runWorkers starts this program once more for each worker and waits for them. The first one begins alone. It is
// stopped when it says that it holds the lock, then the others begin, and it goes on when one of them has written.
func runWorkers(ctx context.Context, c *cluster, r *resource, increments int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	stopped := make(chan struct{})
	if !canStop {
		close(stopped)
	}
	for i := range workers {
		args := []string{"-worker", fmt.Sprint("worker ", i+1), "-resource", r.url, "-increments", fmt.Sprint(increments)}
		victim := i == 0 && canStop
		if victim {
			args = append(args, "-victim")
		}
		cmd := exec.CommandContext(ctx, self, append(args, c.addrs...)...)
		cmd.Stderr = os.Stderr
		g.Go(func() error {
			if victim {
				return runVictim(ctx, cmd, r, stopped)
			}
			select {
			case <-stopped:
				return cmd.Run()
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}
	return g.Wait()
}

// runVictim runs a worker that prints the token that it holds when it is a good time to stop it.
func runVictim(ctx context.Context, cmd *exec.Cmd, r *resource, stopped chan<- struct{}) error {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var token uint64
		if _, err := fmt.Sscanf(lines.Text(), "ready %d", &token); err != nil {
			continue
		}
		if err := stopProcess(cmd.Process); err != nil {
			return err
		}
		r.say("worker 1, token %d: STOPPED while it holds the lock, leased for %v", token, ttl)
		close(stopped)
		if err := r.overtaken(ctx, token); err != nil {
			return err
		}
		r.say("worker 1 goes on where it was")
		if err := continueProcess(cmd.Process); err != nil {
			return err
		}
	}
	return cmd.Wait()
}
