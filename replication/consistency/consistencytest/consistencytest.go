// Package consistencytest fails tests whose histories are not consistent, and shows why.
//
// Use it in tests of anything that clients call concurrently: record what they see with a consistency.Recorder, then
// require a model of the history. A failure prints the fewest operations that show it and writes a page with the
// picture. It may be called from one goroutine at a time, also with a *rapid.T; in a loop of many seeds too, for a
// history that holds costs nothing but its check. Its verdicts are those of package consistency, no more and no less.
package consistencytest

import (
	"context"
	"time"

	"github.com/coterie-go/coterie/replication/consistency"
)

// Patience is how long a check may search before it fails as undecided.
const Patience = time.Minute

// TB is the part of testing.TB that the helpers need; a *rapid.T has it too.
type TB interface {
	Helper()
	Name() string
	Fatalf(format string, args ...any)
}

// RequireLinearizable fails the test unless the history is linearizable by the model, or if that cannot be decided
// within Patience. It prints the fewest operations that show the violation.
func RequireLinearizable[S, In, Out any](t TB, h consistency.History[In, Out], m consistency.Model[S, In, Out]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	result, err := consistency.Linearizable(ctx, h, m)
	if err != nil {
		t.Fatalf("%v", err)
		return
	}
	if result.Verdict == consistency.Holds {
		return
	}
	t.Fatalf("%v", result)
}
