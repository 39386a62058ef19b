package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/replication/wal"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/txn"
	"github.com/coterie-go/coterie/txn/mvcc"
	"github.com/coterie-go/coterie/txn/saga"
)

// transfer is one movement of money.
type transfer struct {
	from, to *branch
	amount   int
	a, b     int // accounts
}

// drive lets clients make transfers while branches crash, and counts what came of them.
func drive(ctx context.Context, branches []*branch, t *tally, try func(ctx context.Context, n int, tr transfer) error) error {
	for _, b := range branches {
		if err := b.open(ctx); err != nil {
			return err
		}
		t.before += accounts * opening
	}
	var mu sync.Mutex // guards t
	var load errgroup.Group
	done := make(chan struct{})
	for c := range clients {
		load.Go(func() error {
			rng := rand.New(rand.NewPCG(uint64(c), 1))
			for i := range each {
				tr := transfer{
					from: branches[rng.IntN(len(branches))], to: branches[rng.IntN(len(branches))],
					amount: rng.IntN(50), a: rng.IntN(accounts), b: rng.IntN(accounts),
				}
				err := try(ctx, c*each+i, tr)
				mu.Lock()
				switch {
				case err == nil:
					t.committed++
				case errors.Is(err, txn.ErrAborted), errors.Is(err, saga.ErrCompensated), errors.Is(err, errOverdrawn):
					t.aborted++
				default:
					t.unsure++
				}
				mu.Unlock()
			}
			return ctx.Err()
		})
	}
	var chaos errgroup.Group
	chaos.Go(func() error {
		rng := rand.New(rand.NewPCG(2, 2))
		for range crashes {
			select {
			case <-done:
				return nil
			case <-time.After(40 * time.Millisecond): // the clients have work for longer
			}
			if err := branches[rng.IntN(len(branches))].crash(); err != nil {
				return err
			}
			t.crashes++
		}
		return nil
	})
	err := load.Wait()
	close(done)
	return errors.Join(err, chaos.Wait())
}

// finish counts what is left and closes the branches.
func finish(ctx context.Context, branches []*branch, t *tally) error {
	var failed error
	for _, b := range branches {
		ids, err := b.store.Prepared(ctx)
		sum, err2 := b.sum(ctx)
		t.inDoubt += len(ids)
		t.after += sum
		failed = errors.Join(failed, err, err2, b.stop())
	}
	return failed
}

// runTwoPhase moves money between branches, at both or at none.
func runTwoPhase(ctx context.Context, dir string) (t tally, err error) {
	network := transport.NewNetwork(transport.NetworkConfig{})
	var branches []*branch
	for _, id := range []coterie.NodeID{"lima", "oslo", "pune"} {
		b, err := newBranch(id, dir, network)
		if err != nil {
			return t, err
		}
		branches = append(branches, b)
	}
	err = drive(ctx, branches, &t, func(ctx context.Context, _ int, tr transfer) error {
		if tr.from == tr.to {
			tr.to = branches[0]
			if tr.from == tr.to {
				tr.to = branches[1]
			}
		}
		tr.from.mu.RLock() // the coordinator's branch; a crash waits until its Run has failed
		defer tr.from.mu.RUnlock()
		return tr.from.node.Run(ctx, []coterie.NodeID{tr.from.id, tr.to.id}, func(_ context.Context, id txn.ID) error {
			return errors.Join(work(tr.from.store, id, account(tr.a), -tr.amount), tr.to.work(id, account(tr.b), tr.amount))
		})
	})
	if err != nil {
		return t, err
	}
	for _, b := range branches { // what crashes left open is settled by the nodes themselves
		if err := b.node.Settle(ctx); err != nil {
			return t, err
		}
	}
	for _, b := range branches {
		for {
			ids, err := b.store.Prepared(ctx)
			if err != nil {
				return t, err
			}
			if len(ids) == 0 {
				break
			}
			select {
			case <-ctx.Done():
				return t, fmt.Errorf("%s still waits for %v", b.id, ids)
			case <-time.After(10 * time.Millisecond): // a store tells of decisions to no one: look again
			}
		}
	}
	return t, finish(ctx, branches, &t)
}

// work does one branch's part of a transaction.
func (b *branch) work(id txn.ID, name string, amount int) error {
	if !b.mu.TryRLock() {
		return errDown
	}
	defer b.mu.RUnlock()
	return work(b.store, id, name, amount)
}

func work(s *mvcc.Store, id txn.ID, name string, amount int) error {
	tx, err := s.Join(id)
	if err != nil {
		return err
	}
	return add(tx, name, amount)
}

// runOneStore moves money within one branch by its store's own transactions.
func runOneStore(ctx context.Context, dir string) (t tally, err error) {
	b, err := newBranch("alone", dir, nil)
	if err != nil {
		return t, err
	}
	branches := []*branch{b}
	err = drive(ctx, branches, &t, func(ctx context.Context, _ int, tr transfer) error {
		b.mu.RLock()
		defer b.mu.RUnlock()
		return b.store.Update(ctx, func(tx *mvcc.Tx) error {
			return errors.Join(add(tx, account(tr.a), -tr.amount), add(tx, account(tr.b), tr.amount))
		})
	})
	if err != nil {
		return t, err
	}
	return t, finish(ctx, branches, &t)
}

// once keeps the marks of saga.Once in the transaction that does the work.
type once struct{ tx *mvcc.Tx }

func (o once) Insert(_ context.Context, key string) (bool, error) {
	key = "once/" + key
	if _, there := o.tx.Get(key); there {
		return false, nil
	}
	return true, o.tx.Put(key, nil)
}

// runSagas moves money in two steps, each of which commits at once: the debit is given back if the credit fails. Every
// third account to credit is closed, so that some do.
func runSagas(ctx context.Context, dir string) (t tally, err error) {
	var branches []*branch
	for _, id := range []coterie.NodeID{"lima", "oslo"} {
		b, err := newBranch(id, dir, nil)
		if err != nil {
			return t, err
		}
		branches = append(branches, b)
	}
	log, err := wal.Open(wal.Config{Dir: filepath.Join(dir, "engine"), Owner: "engine"})
	if err != nil {
		return t, err
	}
	defer func() { _ = log.Close() }()
	engine, err := saga.Start(saga.Config{Journal: log, Owner: "engine", Definitions: []saga.Definition{transferSaga(branches)}})
	if err != nil {
		return t, err
	}
	err = drive(ctx, branches, &t, func(ctx context.Context, n int, tr transfer) error {
		from, to := 0, 1
		if tr.from == branches[1] {
			from, to = 1, 0
		}
		input := fmt.Sprintf("%d %d %d %d %d", from, tr.a, to, tr.b, tr.amount)
		return engine.Run(ctx, "transfer", fmt.Sprint("transfer-", n), []byte(input))
	})
	t.inDoubt = len(engine.Unfinished())
	if err = errors.Join(err, engine.Close()); err != nil {
		return t, err
	}
	return t, finish(ctx, branches, &t)
}

var errClosedAccount = errors.New("account is closed")

// transferSaga is debit, then credit.
func transferSaga(branches []*branch) saga.Definition {
	// at changes a balance at a branch, once for all tries of the call.
	at := func(ctx context.Context, call saga.Call, which, acc, amount int) error {
		b := branches[which]
		b.mu.RLock()
		defer b.mu.RUnlock()
		return b.store.Update(ctx, func(tx *mvcc.Tx) error {
			return saga.Once(ctx, once{tx}, call, func(context.Context) error { return add(tx, account(acc), amount) })
		})
	}
	parse := func(call saga.Call) (from, a, to, b, amount int) {
		_, _ = fmt.Sscan(string(call.Input), &from, &a, &to, &b, &amount)
		return from, a, to, b, amount
	}
	return saga.Definition{Name: "transfer", Steps: []saga.Step{
		{
			Name: "debit", Attempts: 10, Backoff: 10 * time.Millisecond,
			Do: func(ctx context.Context, call saga.Call) ([]byte, error) {
				from, a, _, _, amount := parse(call)
				err := at(ctx, call, from, a, -amount)
				if errors.Is(err, errOverdrawn) {
					err = saga.Refuse(err)
				}
				return nil, err
			},
			Undo: func(ctx context.Context, call saga.Call) error {
				from, a, _, _, amount := parse(call)
				return at(ctx, call, from, a, amount)
			},
		},
		{
			Name: "credit", Attempts: 10, Backoff: 10 * time.Millisecond,
			Do: func(ctx context.Context, call saga.Call) ([]byte, error) {
				_, _, to, b, amount := parse(call)
				if b%3 == 0 {
					return nil, saga.Refuse(errClosedAccount)
				}
				return nil, at(ctx, call, to, b, amount)
			},
			Undo: func(ctx context.Context, call saga.Call) error {
				_, _, to, b, amount := parse(call)
				return at(ctx, call, to, b, -amount)
			},
		},
	}}
}
