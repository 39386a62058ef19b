// Package consistencytest fails tests whose histories are not consistent, and shows why.
//
// Use it in tests of anything that clients call concurrently: record what they see with a consistency.Recorder, then
// require a model of the history. A failure prints the fewest operations that show it and writes a page with the
// picture: into the test's artifact folder under go test -artifacts, else into the system's folder for temporary
// files, under the test's name. A history that holds costs nothing but its check, so that loops of many seeds may call
// it. Its verdicts are those of package consistency, no more and no less: it judges what clients saw, and tells
// nothing of what they did not look at.
package consistencytest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coterie-go/coterie/replication/consistency"
)

// Patience is how long a check may search before it fails as undecided, and then how long to look for fewer
// operations that show the violation.
const Patience = time.Minute

// TB is the part of testing.TB that the helpers need; a *rapid.T has it too.
type TB interface {
	Helper()
	Name() string
	Fatalf(format string, args ...any)
}

// RequireLinearizable fails the test unless the history is linearizable by the model, or if that cannot be decided
// within Patience.
func RequireLinearizable[S, In, Out any](t TB, h consistency.History[In, Out], m consistency.Model[S, In, Out]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	result, err := consistency.Shrink(ctx, h, m)
	require(t, h, m, result, err)
}

// RequireSequential fails the test unless the history is sequentially consistent by the model, or if that cannot be
// decided within Patience.
func RequireSequential[S, In, Out any](t TB, h consistency.History[In, Out], m consistency.Model[S, In, Out]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	result, err := consistency.Sequential(ctx, h, m)
	require(t, h, m, result, err)
}

// RequireRegisters fails the test unless the history of registers, which start as initial, passes the check:
// consistency.Causal, PRAM, ReadYourWrites and so on.
func RequireRegisters[V comparable](t TB, h consistency.History[consistency.Access[V], consistency.Answer[V]], initial V, check consistency.Check[V]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	result, err := consistency.ShrinkAccesses(ctx, h, initial, check)
	require(t, h, consistency.CASRegister(initial), result, err)
}

// RequireTxns fails the test unless the history of transactions shows nothing against a level; judge is
// consistency.ListAppend or ReadWrite.
func RequireTxns(t TB, h consistency.TxnHistory, level consistency.Level,
	judge func(context.Context, consistency.TxnHistory) (consistency.TxnResult, error),
) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	result, err := judge(ctx, h)
	switch {
	case err != nil:
		t.Fatalf("%v", err)
	case result.Verdict == consistency.Unknown:
		t.Fatalf("%v", result)
	case !result.Allows(level):
		result, kept, err := consistency.ShrinkTxns(ctx, h, judge)
		if err != nil {
			t.Fatalf("%v", err)
		}
		var lines strings.Builder
		for _, i := range kept {
			fmt.Fprintf(&lines, "%6d  client %-3d %v\n", i, h[i].Client, h[i].In)
		}
		t.Fatalf("not %v, but %v\n%spicture: %s", level, result, &lines, writePage(t, consistency.DrawTxns(h, result)))
	}
}

// require fails the test unless the result holds.
func require[S, In, Out any](t TB, h consistency.History[In, Out], m consistency.Model[S, In, Out], r consistency.Result, err error) {
	t.Helper()
	switch {
	case err != nil:
		t.Fatalf("%v", err)
	case r.Verdict == consistency.Unknown:
		t.Fatalf("%v", r)
	case r.Verdict == consistency.Violated:
		t.Fatalf("%v\n%spicture: %s", r, consistency.Lines(h, r.Ops, m), writePage(t, consistency.Draw(h, m, r)))
	}
}

// writePage writes the picture to a file named for the test and returns its path, or why it could not. One test has
// one file, however often it fails: rapid fails a test hundreds of times while it shrinks its input.
func writePage(t TB, d consistency.Drawing) string {
	dir := filepath.Join(os.TempDir(), "coterie-consistency")
	if a, ok := t.(interface{ ArtifactDir() string }); ok {
		if f := flag.Lookup("test.artifacts"); f != nil && f.Value.String() == "true" {
			dir = a.ArtifactDir() // without the flag it would be gone after the test
		}
	}
	name := strings.Map(func(r rune) rune {
		if strings.ContainsRune(`/\:*?"<>| `, r) {
			return '_'
		}
		return r
	}, t.Name())
	path := filepath.Join(dir, name+".html")
	if err := writeFile(path, d); err != nil {
		return fmt.Sprintf("none: %v", err)
	}
	return path
}

func writeFile(path string, d consistency.Drawing) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
	}()
	return d.WriteHTML(f)
}
