package benchmarks

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/replication/wal"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/txn"
	"github.com/coterie-go/coterie/txn/saga"
	"github.com/coterie-go/coterie/txn/twophase"
)

// txnParticipants is how many nodes take part in each transaction.
const txnParticipants = 4

// txnCell is a resource in memory: each transaction reads and writes one counter of its client's.
type txnCell struct {
	mu      sync.Mutex
	values  map[int]uint64
	pending map[txn.ID]int
	redo    coterie.Journal // if not nil, Prepare notes its writes there
}

func (c *txnCell) Add(id txn.ID, key int) {
	c.mu.Lock()
	c.pending[id] = key
	c.mu.Unlock()
}

func (c *txnCell) Prepare(_ context.Context, id txn.ID) (txn.Vote, error) {
	c.mu.Lock()
	key, ok := c.pending[id]
	value := c.values[key] + 1
	c.mu.Unlock()
	if !ok {
		return txn.No, txn.ErrUnknown
	}
	if c.redo != nil {
		record := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64([]byte(id), uint64(key)), value)
		if err := c.redo.Append(record); err != nil {
			return txn.No, err
		}
	}
	return txn.Yes, nil
}

func (c *txnCell) Commit(_ context.Context, id txn.ID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if key, ok := c.pending[id]; ok {
		c.values[key]++
		delete(c.pending, id)
	}
	return nil
}

func (c *txnCell) Abort(_ context.Context, id txn.ID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, id)
	return nil
}

// txnOpenLog opens a log of its own for a node.
func txnOpenLog(b *testing.B, dir string) *wal.Log {
	b.Helper()
	log, err := wal.Open(wal.Config{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = log.Close() })
	return log
}

// txnCoterie is a coordinator and four participants, each with a log of its own. With redo the resources note their writes
// in a stream of their node's log before they vote; else they are in memory, and what is durable is votes and decisions.
func txnCoterie(redo bool) func(b *testing.B) func(client int) error {
	return func(b *testing.B) func(client int) error {
		net := transport.NewNetwork(transport.NetworkConfig{Direct: true})
		dir := b.TempDir()
		var members []coterie.NodeID
		var cells []*txnCell
		for i := range txnParticipants {
			id := coterie.NodeID("p" + strconv.Itoa(i))
			log := txnOpenLog(b, filepath.Join(dir, string(id)))
			cell := &txnCell{values: map[int]uint64{}, pending: map[txn.ID]int{}}
			if redo {
				cell.redo = log.Stream("redo")
			}
			n, err := twophase.Start(twophase.Config{ID: id, Transport: net.Join(id), Journal: log.Stream("votes"), Resource: cell})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = n.Close() })
			members, cells = append(members, id), append(cells, cell)
		}
		c, err := twophase.Start(twophase.Config{ID: "c", Transport: net.Join("c"), Journal: txnOpenLog(b, filepath.Join(dir, "c"))})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close() })
		return func(client int) error {
			return c.Run(context.Background(), members, func(_ context.Context, id txn.ID) error {
				for _, cell := range cells {
					cell.Add(id, client)
				}
				return nil
			})
		}
	}
}

// txnDisk writes records of 64 bytes into a file whose blocks are there, and syncs once for all that wait.
type txnDisk struct{ requests chan chan error }

func txnNewDisk(b *testing.B, name string) *txnDisk {
	b.Helper()
	const size = 8 << 20
	f, err := os.Create(name)
	if err == nil {
		_, err = f.Write(make([]byte, size))
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		b.Fatal(err)
	}
	d := &txnDisk{make(chan chan error, 1024)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var batch []chan error
		at := int64(0)
		for first := range d.requests {
			batch = append(batch[:0], first)
			for len(d.requests) > 0 {
				batch = append(batch, <-d.requests)
			}
			out := make([]byte, 64*len(batch))
			if at+int64(len(out)) > size {
				at = 0
			}
			_, err := f.WriteAt(out, at)
			at += int64(len(out))
			if err == nil {
				err = f.Sync()
			}
			for _, reply := range batch {
				reply <- err
			}
		}
	}()
	b.Cleanup(func() {
		close(d.requests)
		<-done
		_ = f.Close()
	})
	return d
}

// txnFloor is what any two-phase commit must do and nothing else: a message to each of four participants, each of which
// syncs and answers, then a sync at the coordinator. Nothing is checked, nothing can be recovered.
func txnFloor(b *testing.B) func(client int) error {
	dir := b.TempDir()
	disks := make([]*txnDisk, txnParticipants+1)
	for i := range disks {
		disks[i] = txnNewDisk(b, filepath.Join(dir, strconv.Itoa(i)))
	}
	return func(int) error {
		votes := make(chan error, txnParticipants)
		for _, d := range disks[1:] {
			d.requests <- votes
		}
		for range txnParticipants {
			if err := <-votes; err != nil {
				return err
			}
		}
		decided := make(chan error, 1)
		disks[0].requests <- decided
		return <-decided
	}
}

// txnBadger is one store on one disk: two reads and two writes in a transaction, synced.
func txnBadger(b *testing.B) func(client int) error {
	db, err := badger.Open(badger.DefaultOptions(b.TempDir()).WithSyncWrites(true).WithLogger(nil))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	return func(client int) error {
		return db.Update(func(tx *badger.Txn) error {
			for k := range 2 {
				key := binary.BigEndian.AppendUint64(nil, uint64(2*client+k))
				if _, err := tx.Get(key); err != nil && err != badger.ErrKeyNotFound {
					return err
				}
				if err := tx.Set(key, make([]byte, 8)); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// txnRun makes b.N calls from so many clients, and reports how many a second and how long the median took.
func txnRun(b *testing.B, clients int, unit string, each int, call func(client, n int) error) {
	b.Helper()
	var next atomic.Int64
	took := make([][]time.Duration, clients)
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	begun := time.Now()
	for client := range clients {
		wg.Go(func() {
			for {
				n := int(next.Add(1))
				if n > b.N {
					return
				}
				at := time.Now()
				if err := call(client, n); err != nil {
					b.Error(err)
					return
				}
				took[client] = append(took[client], time.Since(at))
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(begun)
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(b.N*each)/elapsed.Seconds(), unit)
	b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1e3, "p50-us")
}

// BenchmarkTwoPhase commits transactions over four participants and a coordinator, each with a synced log of its own:
// "coterie" is the protocol with resources in memory, as "floor" is, "coterie-redo" has each resource note its writes too;
// "badger" is one store on one node.
func BenchmarkTwoPhase(b *testing.B) {
	impls := []struct {
		name  string
		start func(b *testing.B) func(client int) error
	}{
		{"coterie", txnCoterie(false)}, {"coterie-redo", txnCoterie(true)}, {"floor", txnFloor}, {"badger", txnBadger},
	}
	for _, clients := range []int{1, 16, 512} {
		for _, impl := range impls {
			b.Run(fmt.Sprintf("clients=%d/impl=%s", clients, impl.name), func(b *testing.B) {
				commit := impl.start(b)
				txnRun(b, clients, "commits/s", 1, func(client, _ int) error { return commit(client) })
			})
		}
	}
}

// BenchmarkSaga runs sagas of four steps that do nothing, each step durable before the next begins: five forced writes a
// saga, shared by the sagas that run at the same time.
func BenchmarkSaga(b *testing.B) {
	const steps = 4
	definition := saga.Definition{Name: "bench"}
	for i := range steps {
		definition.Steps = append(definition.Steps, saga.Step{
			Name: strconv.Itoa(i),
			Do:   func(context.Context, saga.Call) ([]byte, error) { return nil, nil },
			Undo: func(context.Context, saga.Call) error { return nil },
		})
	}
	for _, clients := range []int{1, 16, 512} {
		b.Run(fmt.Sprintf("clients=%d/impl=coterie", clients), func(b *testing.B) {
			e, err := saga.Start(saga.Config{Journal: txnOpenLog(b, b.TempDir()), Definitions: []saga.Definition{definition}})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = e.Close() })
			txnRun(b, clients, "steps/s", steps, func(_, n int) error {
				return e.Run(context.Background(), "bench", strconv.Itoa(n), nil)
			})
			b.ReportMetric(float64(e.Metrics().Syncs)/float64(b.N), "syncs/op")
		})
	}
}
