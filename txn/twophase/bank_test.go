package twophase_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/coterie-go/coterie/txn"
)

// bank is one node's accounts: a resource with a lock for each account, which refuses whoever finds one locked. What is
// prepared and what is committed survive a crash; work that was not prepared does not.
type bank struct {
	mu       sync.Mutex
	balances map[string]int
	locks    map[string]txn.ID
	work     map[txn.ID]map[string]int // changes, by account; 0 for what was only read
	prepared map[txn.ID]bool
	over     map[txn.ID]bool // true: committed
	history  func(id txn.ID, committed bool)
}

var errLocked = errors.New("bank: an account is locked")

func newBank(balances map[string]int) *bank {
	return &bank{balances: balances, locks: map[string]txn.ID{}, work: map[txn.ID]map[string]int{}, prepared: map[txn.ID]bool{}, over: map[txn.ID]bool{}}
}

// Add changes an account by an amount within a transaction.
func (b *bank) Add(id txn.ID, account string, amount int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, over := b.over[id]; over || b.prepared[id] {
		return fmt.Errorf("bank: work after the end of %s", id)
	}
	if owner, locked := b.locks[account]; locked && owner != id {
		return errLocked
	}
	b.locks[account] = id
	if b.work[id] == nil {
		b.work[id] = map[string]int{}
	}
	b.work[id][account] += amount
	return nil
}

// Sum reads all accounts within a transaction.
func (b *bank) Sum(id txn.ID) (sum int, err error) {
	for _, account := range b.names() {
		if err := b.Add(id, account, 0); err != nil {
			return 0, err
		}
	}
	return b.total(), nil // all are locked
}

func (b *bank) names() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.balances))
}

// ends is what has become of the transactions that changed something.
func (b *bank) ends() map[txn.ID]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.over)
}

func (b *bank) Prepare(_ context.Context, id txn.ID) (txn.Vote, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.prepared[id] {
		return txn.Yes, nil
	}
	work, ok := b.work[id]
	if !ok {
		return txn.No, fmt.Errorf("bank: %w: %s", txn.ErrUnknown, id)
	}
	changes := false
	for account, amount := range work {
		changes = changes || amount != 0
		if b.balances[account]+amount < 0 {
			return txn.No, fmt.Errorf("bank: %q would be overdrawn", account)
		}
	}
	if !changes {
		b.release(id)
		return txn.ReadOnly, nil
	}
	b.prepared[id] = true
	return txn.Yes, nil
}

func (b *bank) Commit(_ context.Context, id txn.ID) error { return b.end(id, true) }
func (b *bank) Abort(_ context.Context, id txn.ID) error  { return b.end(id, false) }

func (b *bank) end(id txn.ID, commit bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.work[id]; !ok {
		return nil
	}
	if commit {
		for account, amount := range b.work[id] {
			b.balances[account] += amount
		}
	}
	b.over[id] = commit
	if b.history != nil {
		b.history(id, commit)
	}
	b.release(id)
	return nil
}

func (b *bank) release(id txn.ID) {
	delete(b.work, id)
	delete(b.prepared, id)
	maps.DeleteFunc(b.locks, func(_ string, owner txn.ID) bool { return owner == id })
}

func (b *bank) Prepared(context.Context) ([]txn.ID, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.prepared)), nil
}

// crash loses what was not prepared.
func (b *bank) crash() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.work {
		if !b.prepared[id] {
			b.release(id)
		}
	}
}

func (b *bank) held() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.work) + len(b.locks)
}

func (b *bank) total() (sum int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, v := range b.balances {
		sum += v
	}
	return sum
}
