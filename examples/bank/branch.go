package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/replication/wal"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/txn/mvcc"
	"github.com/coterie-go/coterie/txn/twophase"
)

var errDown = errors.New("branch is down")

// branch is one node of the bank: a log on disk, a store in one of its streams, and a part in transactions across
// branches in another.
type branch struct {
	id      coterie.NodeID
	dir     string
	network *transport.Network // nil for a branch that is alone

	mu    sync.RWMutex // held for reading by whoever uses what follows
	power *atomic.Bool // off is a crash: nothing is written any more
	log   *wal.Log
	store *mvcc.Store
	wire  coterie.Transport
	node  *twophase.Node
}

// journal is a stream of the log that dies with the branch.
type journal struct {
	coterie.Journal
	power *atomic.Bool
}

func (j journal) Append(records ...[]byte) error {
	if !j.power.Load() {
		return errDown
	}
	err := j.Journal.Append(records...)
	if !j.power.Load() {
		return errDown // written, but nobody is told
	}
	return err
}

func newBranch(id coterie.NodeID, dir string, network *transport.Network) (*branch, error) {
	b := &branch{id: id, dir: filepath.Join(dir, string(id)), network: network}
	return b, b.start()
}

// start takes up what the disk holds. The caller holds mu, or nobody else has the branch yet.
func (b *branch) start() (err error) {
	b.power = new(atomic.Bool)
	b.power.Store(true)
	if b.log, err = wal.Open(wal.Config{Dir: b.dir, Owner: b.id}); err != nil {
		return err
	}
	if b.store, err = mvcc.Open(mvcc.Config{Journal: journal{b.log.Stream("store"), b.power}}); err != nil {
		return err
	}
	if b.network == nil {
		return nil
	}
	b.wire = b.network.Join(b.id)
	b.node, err = twophase.Start(twophase.Config{
		ID: b.id, Transport: b.wire, Journal: journal{b.log.Stream("twophase"), b.power}, Resource: b.store,
	})
	return err
}

// stop closes all; what it says of a branch without power does not matter.
func (b *branch) stop() error {
	var err error
	if b.node != nil {
		err = errors.Join(b.node.Close(), b.wire.Close())
	}
	return errors.Join(err, b.store.Close(), b.log.Close())
}

// crash cuts the power in the middle of whatever goes on, and starts the branch anew.
func (b *branch) crash() error {
	b.power.Store(false)
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.stop()
	return b.start()
}

func account(i int) string { return fmt.Sprintf("account/%03d", i) }

func (b *branch) open(ctx context.Context) error {
	return b.store.Update(ctx, func(tx *mvcc.Tx) error {
		for i := range accounts {
			if err := tx.Put(account(i), []byte(strconv.Itoa(opening))); err != nil {
				return err
			}
		}
		return nil
	})
}

// add changes a balance, which must not become negative.
func add(tx *mvcc.Tx, name string, amount int) error {
	value, _ := tx.Get(name)
	balance, err := strconv.Atoi(string(value))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if balance += amount; balance < 0 {
		return fmt.Errorf("%s: %w", name, errOverdrawn)
	}
	return tx.Put(name, []byte(strconv.Itoa(balance)))
}

var errOverdrawn = errors.New("would be overdrawn")

// sum adds up the accounts, all as of one moment.
func (b *branch) sum(ctx context.Context) (total int, err error) {
	err = b.store.View(ctx, func(tx *mvcc.Tx) error {
		total = 0
		for name, value := range tx.Scan("account/", "account0") {
			balance, err := strconv.Atoi(string(value))
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			total += balance
		}
		return nil
	})
	return total, err
}
