// Command consensus runs every consensus protocol of this library on the same simulated networks, and for real in this
// process, and prints what each costs: messages, bytes and round trips per commit, latency, throughput, and the time
// that a crash of the leader takes away.
//
//	go run ./examples/consensus                                 the table
//	go run ./examples/consensus -html out.html                  and a page with plots
//	go run ./examples/consensus -protocol raft -trace out.html  the space-time diagram of a commit and a change of leader
//
// All but commits per second follows from -seed; with -real 0 that is left out, and the same seed gives the same bytes.
// It ends by itself, with status 1 if anything went wrong.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	var o options
	flag.Uint64Var(&o.seed, "seed", 1, "of the simulated networks and of everything drawn")
	flag.StringVar(&o.html, "html", "", "write the comparison to this file, as a page with plots")
	flag.StringVar(&o.only, "protocol", "", "only this protocol")
	flag.StringVar(&o.trace, "trace", "", "write a diagram of one commit and one change of leader of -protocol to this file")
	flag.DurationVar(&o.real, "real", 300*time.Millisecond, "how long to run real replicas for commits per second; 0 leaves it out")
	flag.Parse()
	if err := run(os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "consensus:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	seed  uint64
	html  string
	only  string
	trace string
	real  time.Duration
}

func run(out io.Writer, o options) error {
	if o.seed == 0 {
		return errors.New("-seed is 0")
	}
	chosen := protocols()
	if o.only != "" {
		p, err := find(o.only)
		if err != nil {
			return err
		}
		chosen = []protocol{p}
	}
	if o.trace != "" {
		if o.only == "" {
			return errors.New("-trace needs -protocol")
		}
		return diagram(out, chosen[0], o.seed, o.trace)
	}
	rows, err := compare(chosen, o)
	if err != nil {
		return err
	}
	if err := table(out, rows, o); err != nil {
		return err
	}
	if o.html == "" {
		return nil
	}
	return toFile(o.html, func(w io.Writer) error { return page(w, rows, o) })
}

func find(name string) (protocol, error) {
	var names []string
	for _, p := range protocols() {
		if p.name == name {
			return p, nil
		}
		names = append(names, p.name)
	}
	return protocol{}, fmt.Errorf("no protocol %q; there are %s", name, strings.Join(names, ", "))
}

func toFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// columns are the table's, and the page's: what stands above, and what each row has there.
var columns = []struct {
	title string
	help  string
	cell  func(row) string
}{
	{"protocol", "", func(r row) string { return r.protocol }},
	{"network", "LAN: 0.2 to 0.4 ms one way; WAN: 30 to 50 ms", func(r row) string { return r.network }},
	{"replicas", "", func(r row) string { return fmt.Sprint(r.nodes) }},
	{"survives", "so many faulty replicas", func(r row) string { return r.survives }},
	{"messages/commit", "one client, what an idle cluster sends taken off", func(r row) string { return fmt.Sprintf("%.1f", r.messages) }},
	{"bytes/commit", "of payloads, for commands of 16 bytes", func(r row) string { return fmt.Sprintf("%.0f", r.bytes) }},
	{"round trips", "of a commit at the leader, on a network that does nothing else", func(r row) string { return fmt.Sprintf("%.1f", r.roundTrips) }},
	{"p50 ms", "of a commit, 16 clients at the leader", func(r row) string { return milliseconds(r.p50) }},
	{"p99 ms", "", func(r row) string { return milliseconds(r.p99) }},
	{"recovery ms", "from a crash of the leader to the next commit, the median of 5", func(r row) string { return milliseconds(r.recovery) }},
	{"commits/s", "real replicas in this process, 64 proposers, journals in memory; the one number that a seed does not fix", func(r row) string {
		if r.rate == 0 {
			return "-"
		}
		return fmt.Sprintf("%.0f", r.rate)
	}},
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond))
}

func table(out io.Writer, rows []row, o options) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(cell func(i int) string) {
		for i := range columns {
			_, _ = fmt.Fprint(w, cell(i), "\t")
		}
		_, _ = fmt.Fprintln(w)
	}
	line(func(i int) string { return columns[i].title })
	for _, r := range rows {
		line(func(i int) string { return columns[i].cell(r) })
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\nseed %d; the simulated clusters commit %d commands each\n", o.seed, commandsPerRow)
	return err
}
