// Judge tells what a store promises from what its clients saw. Without flags it runs a small replicated register with
// one bug after the other, and a small database with one kind of isolation after the other; of each history it prints
// the strongest model that it satisfies and the fewest operations that violate the next stronger one, and draws the
// history on a page.
//
//	go run ./examples/judge [-bug name] [-seed 2] [-out folder]
//	go run ./examples/judge -file history.edn -format jepsen    judges a published history instead
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coterie-go/coterie/replication/consistency"
)

func main() {
	var j judge
	bug := flag.String("bug", "", "run only this store or database")
	seed := flag.Uint64("seed", 2, "what the runs are drawn from")
	file := flag.String("file", "", "judge this history instead")
	format := flag.String("format", "json", "of the file: json (text values), jepsen, jepsen-txn or porcupine")
	flag.StringVar(&j.out, "out", filepath.Join(os.TempDir(), "coterie-judge"), "folder for the pages")
	flag.DurationVar(&j.patience, "patience", 20*time.Second, "how long to search in one history")
	flag.Parse()
	var err error
	if *file != "" {
		err = j.file(*file, *format)
	} else {
		err = j.runs(*bug, *seed)
	}
	fmt.Print(j.text.String())
	if err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		os.Exit(1)
	}
}

// judge collects verdicts as text and writes pages.
type judge struct {
	text     strings.Builder
	out      string        // folder for the pages
	patience time.Duration // for one history
}

// runs judges the stores and databases, or the one that is named.
func (j *judge) runs(bug string, seed uint64) error {
	known := false
	for _, r := range stores {
		if bug != "" && bug != r.name {
			continue
		}
		known = true
		fmt.Fprintf(&j.text, "%s: %s\n", r.name, r.about)
		if err := j.registers(r.name, runStore(r, seed, 80), consistency.Register("")); err != nil {
			return err
		}
	}
	for _, d := range databases {
		if bug != "" && bug != d.name {
			continue
		}
		known = true
		fmt.Fprintf(&j.text, "%s: %s\n", d.name, d.about)
		if err := j.txns(d.name, runDatabase(d, seed, 40)); err != nil {
			return err
		}
	}
	if !known {
		return fmt.Errorf("no store or database %q; there are %v", bug, names())
	}
	return nil
}

func names() (all []string) {
	for _, r := range stores {
		all = append(all, r.name)
	}
	for _, d := range databases {
		all = append(all, d.name)
	}
	return all
}

// file judges a history from a file.
func (j *judge) file(path, format string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	name := filepath.Base(path)
	var h history
	switch format {
	case "json":
		h, err = consistency.ReadJSON[access, answer](f)
	case "jepsen":
		h, err = consistency.ReadJepsenRegisters(f)
	case "porcupine":
		h, err = consistency.ReadPorcupineLog(f)
	case "jepsen-txn":
		var txns consistency.TxnHistory
		if txns, err = consistency.ReadJepsenTxns(f); err != nil {
			return err
		}
		return j.txns(name, txns)
	default:
		return fmt.Errorf("unknown format %q", format)
	}
	if err != nil {
		return err
	}
	return j.registers(name, h, consistency.KV()) // the register model with most operations
}

// registers judges a history of registers.
func (j *judge) registers(name string, h history, m model) error {
	ctx, cancel := context.WithTimeout(context.Background(), j.patience)
	defer cancel()
	v, err := place(ctx, h, m)
	if err != nil {
		return err
	}
	fmt.Fprintf(&j.text, "  %d operations; strongest: %s\n", len(h), v.strongest)
	if len(v.undecided) > 0 {
		fmt.Fprintf(&j.text, "  undecided: %s\n", strings.Join(v.undecided, ", "))
	}
	if v.broken.Reason != "" {
		fmt.Fprintf(&j.text, "  not %s: %s\n%s", v.broken.Model, v.broken.Reason, indent(consistency.Lines(h, v.broken.Ops, m)))
	}
	shown := v.broken
	if shown.Model == "" {
		shown = consistency.Result{Model: v.strongest, Verdict: consistency.Holds}
	}
	return j.page(name, consistency.Draw(h, m, shown))
}

// txns judges a history of transactions.
func (j *judge) txns(name string, h consistency.TxnHistory) error {
	ctx, cancel := context.WithTimeout(context.Background(), j.patience)
	defer cancel()
	result, kept, err := consistency.ShrinkTxns(ctx, h, consistency.ListAppend)
	if errors.Is(err, consistency.ErrHistory) { // perhaps they are registers
		result, kept, err = consistency.ShrinkTxns(ctx, h, consistency.ReadWrite)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(&j.text, "  %d transactions; strongest: %v\n", len(h), result.Strongest)
	for _, a := range result.Anomalies {
		if a.Forbids != result.Strongest+1 {
			continue
		}
		fmt.Fprintf(&j.text, "  not %v: %s: %s\n", a.Forbids, a.Kind, a.Reason)
		for _, t := range kept {
			fmt.Fprintf(&j.text, "  %6d  client %d: %v\n", t, h[t].Client, h[t].In)
		}
		break
	}
	return j.page(name, consistency.DrawTxns(h, result))
}

// page writes a picture and says where.
func (j *judge) page(name string, d consistency.Drawing) (err error) {
	if err := os.MkdirAll(j.out, 0o755); err != nil {
		return err
	}
	path := filepath.Join(j.out, name+".html")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fmt.Fprintf(&j.text, "  picture: %s\n\n", path)
	return d.WriteHTML(f)
}
