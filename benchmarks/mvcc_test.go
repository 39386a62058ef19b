package benchmarks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/coterie-go/coterie/txn/mvcc"
)

const mvccCallers = 16

// mvccKey is one of a caller's own keys, or one of those that all share.
func mvccKey(disjoint bool, caller, i int) string {
	if disjoint {
		return fmt.Sprintf("key-%02d-%03d", caller, i%500)
	}
	return fmt.Sprintf("key-%03d", i%500)
}

// mvccRun spreads b.N operations over the callers.
func mvccRun(b *testing.B, f func(caller, i int) error) {
	b.Helper()
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	var wg sync.WaitGroup
	for c := range mvccCallers {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > b.N {
					return
				}
				if err := f(c, i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "txns/s")
}

// BenchmarkMVCC runs transactions of two reads and two writes, and single reads, by 16 callers in memory. Badger is v4 in
// memory mode, with conflict detection. impl=shardmap is a map of 256 locked shards, which has no transactions.
func BenchmarkMVCC(b *testing.B) {
	ctx := context.Background()
	value := make([]byte, 16)
	for _, keys := range []string{"disjoint", "same"} {
		disjoint := keys == "disjoint"
		b.Run(fmt.Sprintf("op=txn/keys=%s/impl=coterie", keys), func(b *testing.B) {
			s := mvccStore(b, disjoint)
			mvccRun(b, func(c, i int) error {
				return s.Update(ctx, func(tx *mvcc.Tx) error {
					for j := range 2 {
						key := mvccKey(disjoint, c, 7*i+j)
						tx.Get(key)
						if err := tx.Put(key, value); err != nil {
							return err
						}
					}
					return nil
				})
			})
		})
		b.Run(fmt.Sprintf("op=txn/keys=%s/impl=badger", keys), func(b *testing.B) {
			db := mvccBadger(b, disjoint)
			mvccRun(b, func(c, i int) error {
				for {
					err := db.Update(func(tx *badger.Txn) error {
						for j := range 2 {
							key := []byte(mvccKey(disjoint, c, 7*i+j))
							if _, err := tx.Get(key); err != nil {
								return err
							}
							if err := tx.Set(key, value); err != nil {
								return err
							}
						}
						return nil
					})
					if !errors.Is(err, badger.ErrConflict) {
						return err
					}
				}
			})
		})
		all := mvccAll(disjoint)
		b.Run(fmt.Sprintf("op=read/keys=%s/impl=coterie", keys), func(b *testing.B) {
			s := mvccStore(b, disjoint)
			mvccRun(b, func(_, i int) error {
				if _, ok := s.Get(all[i%len(all)]); !ok {
					return errors.New("not found")
				}
				return nil
			})
		})
		b.Run(fmt.Sprintf("op=read/keys=%s/impl=badger", keys), func(b *testing.B) {
			db := mvccBadger(b, disjoint)
			mvccRun(b, func(_, i int) error {
				return db.View(func(tx *badger.Txn) error {
					_, err := tx.Get([]byte(all[i%len(all)]))
					return err
				})
			})
		})
		b.Run(fmt.Sprintf("op=read/keys=%s/impl=shardmap", keys), func(b *testing.B) {
			var m mvccShards
			for _, key := range all {
				m.put(key, value)
			}
			mvccRun(b, func(_, i int) error {
				if _, ok := m.get(all[i%len(all)]); !ok {
					return errors.New("not found")
				}
				return nil
			})
		})
	}
}

func mvccAll(disjoint bool) (keys []string) {
	callers := 1
	if disjoint {
		callers = mvccCallers
	}
	for c := range callers {
		for i := range 500 {
			keys = append(keys, mvccKey(disjoint, c, i))
		}
	}
	return keys
}

func mvccStore(b *testing.B, disjoint bool) *mvcc.Store {
	b.Helper()
	s, err := mvcc.Open(mvcc.Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	err = s.Update(context.Background(), func(tx *mvcc.Tx) error {
		for _, key := range mvccAll(disjoint) {
			if err := tx.Put(key, make([]byte, 16)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func mvccBadger(b *testing.B, disjoint bool) *badger.DB {
	b.Helper()
	db, err := badger.Open(badger.DefaultOptions("").WithInMemory(true).WithLogger(nil))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	batch := db.NewWriteBatch()
	for _, key := range mvccAll(disjoint) {
		if err := batch.Set([]byte(key), make([]byte, 16)); err != nil {
			b.Fatal(err)
		}
	}
	if err := batch.Flush(); err != nil {
		b.Fatal(err)
	}
	return db
}

// mvccShards is the map that many would write.
type mvccShards [256]struct {
	mu   sync.RWMutex
	data map[string][]byte
}

func (m *mvccShards) shard(key string) int {
	h := uint32(2166136261)
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * 16777619
	}
	return int(h >> 24)
}

func (m *mvccShards) get(key string) ([]byte, bool) {
	s := &m[m.shard(key)]
	s.mu.RLock()
	defer s.mu.RUnlock()
	v, ok := s.data[key]
	return v, ok
}

func (m *mvccShards) put(key string, value []byte) {
	s := &m[m.shard(key)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.data == nil {
		s.data = map[string][]byte{}
	}
	s.data[key] = value
}
