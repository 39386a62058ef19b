// Command bank moves money between the accounts of three branches in three ways, while branches crash and come back
// from their disks: by two-phase commit over all branches, by the transactions of one branch's store, and by sagas. It
// ends with a table; money that is created or lost, or a transaction that stays in doubt, is exit status 1.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	accounts = 20  // at each branch
	opening  = 100 // in each account
	clients  = 6
	each     = 60 // transfers of each client
	crashes  = 4
)

// tally is what came of the transfers of one variant.
type tally struct {
	committed, aborted, unsure int // unsure: the client was not told, because of a crash
	inDoubt                    int // transactions that nobody will ever decide
	before, after              int // the sum of all accounts
	crashes                    int
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bank:", err)
		os.Exit(1)
	}
}

func run() error {
	dir, err := os.MkdirTemp("", "bank")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	fmt.Printf("%-18s%10s%10s%10s%10s%10s%12s%12s\n", "", "committed", "aborted", "unsure", "in doubt", "crashes", "sum before", "sum after")
	for _, v := range []struct {
		name string
		run  func(ctx context.Context, dir string) (tally, error)
	}{
		{"two-phase commit", runTwoPhase},
		{"one store", runOneStore},
		{"sagas", runSagas},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
		t, err := v.run(ctx, filepath.Join(dir, v.name))
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		fmt.Printf("%-18s%10d%10d%10d%10d%10d%12d%12d\n", v.name, t.committed, t.aborted, t.unsure, t.inDoubt, t.crashes, t.before, t.after)
		if t.before != t.after || t.inDoubt > 0 {
			return fmt.Errorf("%s: sum %d before, %d after, %d in doubt", v.name, t.before, t.after, t.inDoubt)
		}
	}
	return nil
}
