// Command quorum chooses a quorum system for six unequal nodes and a workload of 90% reads, shows what the choice costs
// and how the load falls, and then runs atomic registers on it while a node is killed.
//
// Without flags it ends by itself, with status 1 if anything went wrong; with -serve it goes on until interrupted.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/quorum"
	"github.com/coterie-go/coterie/quorum/abd"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
)

func main() {
	serve := flag.Bool("serve", false, "go on until interrupted")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, printer{os.Stdout}, *serve); err != nil {
		fmt.Fprintln(os.Stderr, "quorum:", err)
		os.Exit(1)
	}
}

// printer is where the output goes; that it cannot be written is nobody's concern.
type printer struct{ io.Writer }

func (p printer) printf(format string, args ...any) { _, _ = fmt.Fprintf(p, format, args...) }

var nodes = []coterie.NodeID{"a", "b", "c", "d", "e", "f"}

// model is the workload and what each node can do: three large machines and three small ones.
func model() quorum.Model {
	m := quorum.Model{ReadFraction: 0.9, Nodes: map[coterie.NodeID]quorum.Profile{}}
	for i, id := range nodes {
		capacity := []float64{4000, 2000}[i%2]
		m.Nodes[id] = quorum.Profile{Reads: capacity, Writes: capacity / 2, Latency: time.Duration(1+i) * time.Millisecond}
	}
	return m
}

func run(ctx context.Context, out printer, serve bool) error {
	best, err := choose(ctx, out)
	if err != nil {
		return err
	}
	return registers(ctx, out, best.System, serve)
}

// choose compares some systems and looks for the best one that survives any one failure.
func choose(ctx context.Context, out printer) (quorum.Found, error) {
	m := model()
	majority, err := quorum.Symmetric(quorum.Majority(nodes...))
	if err != nil {
		return quorum.Found{}, err
	}
	grid, err := quorum.Grid(nodes[:2], nodes[2:4], nodes[4:])
	if err != nil {
		return quorum.Found{}, err
	}
	tree, err := quorum.Symmetric(quorum.Tree(nodes...))
	if err != nil {
		return quorum.Found{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	found, err := quorum.Search(ctx, quorum.SearchConfig{Nodes: nodes, Model: m, Resilience: 1})
	if err != nil {
		return quorum.Found{}, err
	}
	out.printf("90%% reads on six nodes; a, c, e serve 4000 reads or 2000 writes a second, b, d, f half of that\n")
	out.printf("\n%-10s %-12s %-12s %-11s %-13s %s\n", "system", "load", "capacity", "resilience", "nodes/request", "latency")
	for _, row := range []struct {
		name string
		rw   quorum.ReadWrite
	}{{"majority", majority}, {"grid 3x2", grid}, {"tree", tree}, {"searched", found.System}} {
		_, r, err := row.rw.Analyse(m)
		if err != nil {
			return quorum.Found{}, fmt.Errorf("analyse %s: %w", row.name, err)
		}
		out.printf("%-10s %-12s %-12s %-11d %-13.2f %v\n", row.name, fmt.Sprintf("%.3f ms", 1000*r.Load),
			fmt.Sprintf("%.0f/s", r.Capacity), row.rw.Resilience(), r.Network, r.Latency.Round(10*time.Microsecond))
	}
	out.printf("\nthe best of %d: %v\n\n", found.Tried, found.System)
	draw(out, found)
	return found, nil
}

// draw shows the strategy as bars: how often each quorum is asked, and how busy each node is at full capacity.
func draw(out printer, found quorum.Found) {
	bar := func(label string, share float64) {
		out.printf("  %-16s %5.1f%% %s\n", label, 100*share, strings.Repeat("█", int(40*share+0.5)))
	}
	for _, part := range []struct {
		name    string
		choices []quorum.Choice
	}{{"reads ask", found.Strategy.Reads()}, {"writes ask", found.Strategy.Writes()}} {
		out.printf("%s\n", part.name)
		for _, c := range part.choices {
			bar(fmt.Sprint(found.System.IDs(c.Set)), c.Probability)
		}
	}
	out.printf("busy at full capacity\n")
	for _, id := range found.System.Nodes() {
		bar(string(id), found.Report.Nodes[id]/found.Report.Load)
	}
}

// registers runs a register on the system, with a reader and a writer that notice when a read goes back in time, and
// kills a node in the middle.
func registers(ctx context.Context, out printer, system quorum.ReadWrite, serve bool) error {
	network := transport.NewNetwork(transport.NetworkConfig{})
	running := map[coterie.NodeID]*abd.Node{}
	defer func() {
		for _, node := range running {
			_ = node.Close() // an error has been seen by the clients before
		}
	}()
	for _, id := range system.Nodes() {
		node, err := abd.Start(abd.Config{ID: id, System: system, Transport: network.Join(id), Journal: new(host.MemoryJournal)})
		if err != nil {
			return err
		}
		running[id] = node
	}
	ids := system.Nodes()
	victim, client := ids[0], ids[len(ids)-1]
	clients := startClients(ctx, running[client], running[ids[1]])
	defer func() { _ = clients.stop() }()

	out.printf("\nan atomic register on it, written at %s, read at %s\n", client, ids[1])
	if err := clients.progress(ctx, out, "all nodes up"); err != nil {
		return err
	}
	if err := running[victim].Close(); err != nil {
		return err
	}
	delete(running, victim)
	if err := clients.progress(ctx, out, fmt.Sprintf("%s is dead", victim)); err != nil {
		return err
	}
	for serve && ctx.Err() == nil {
		if err := clients.progress(ctx, out, fmt.Sprintf("%s is dead", victim)); err != nil && ctx.Err() == nil {
			return err
		}
	}
	if err := clients.stop(); err != nil {
		return err
	}
	out.printf("no read ever returned an older value than one before it\n")
	return nil
}

// clients write numbers that count up, and read them.
type clients struct {
	cancel        context.CancelFunc
	wg            sync.WaitGroup
	reads, writes atomic.Uint64
	failed        chan error
}

func startClients(ctx context.Context, writer, reader *abd.Node) *clients {
	ctx, cancel := context.WithCancel(ctx)
	c := &clients{cancel: cancel, failed: make(chan error, 2)}
	c.wg.Go(func() {
		for n := uint64(1); ; n++ {
			if err := writer.Write(ctx, "number", binary.BigEndian.AppendUint64(nil, n)); err != nil {
				c.fail(ctx, err)
				return
			}
			c.writes.Store(n)
		}
	})
	c.wg.Go(func() {
		last := uint64(0)
		for {
			written := c.writes.Load() // a read that starts now must return this one at least
			value, err := reader.Read(ctx, "number")
			if err != nil {
				c.fail(ctx, err)
				return
			}
			n := uint64(0)
			if value != nil {
				n = binary.BigEndian.Uint64(value)
			}
			if n < max(last, written) {
				c.fail(ctx, fmt.Errorf("read %d after %d was read and %d was written", n, last, written))
				return
			}
			last = n
			c.reads.Add(1)
		}
	})
	return c
}

func (c *clients) fail(ctx context.Context, err error) {
	if ctx.Err() == nil {
		c.failed <- err
	}
}

// progress waits for 1000 more reads and writes and says how long they took. It fails when nothing moves any more.
func (c *clients) progress(ctx context.Context, out printer, when string) error {
	began, reads, writes := time.Now(), c.reads.Load(), c.writes.Load()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	seen, moved := uint64(0), began
	for c.reads.Load() < reads+1000 || c.writes.Load() < writes+1000 {
		if n := c.reads.Load() + c.writes.Load(); n > seen {
			seen, moved = n, time.Now()
		}
		select {
		case err := <-c.failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if time.Since(moved) > 10*time.Second {
				return errors.New("no progress for 10 s")
			}
		}
	}
	out.printf("  %-13s %d reads and %d writes in %v\n", when+":", c.reads.Load()-reads, c.writes.Load()-writes,
		time.Since(began).Round(time.Millisecond))
	return nil
}

// stop ends the clients and returns what went wrong. Stopping twice is harmless.
func (c *clients) stop() error {
	c.cancel()
	c.wg.Wait()
	select {
	case err := <-c.failed:
		return err
	default:
		return nil
	}
}
