package mvcc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/replication/consistency"
	"github.com/coterie-go/coterie/replication/consistency/consistencytest"
	"github.com/coterie-go/coterie/transport/host"
	"github.com/coterie-go/coterie/txn"
)

// step is one thing that a transaction did, with what it saw.
type step struct {
	kind      string // get, scan, put, delete
	key, to   string
	value     string // written, or read; "-" for none
	readLimit int    // of a scan
}

// script is a transaction that is replayed against a model.
type script struct {
	tx    *Tx
	id    txn.ID
	steps []step
}

// do runs a step in the store and writes down what it saw.
func (s *script) do(t *rapid.T, p step) {
	switch p.kind {
	case "get":
		p.value = "-"
		if v, ok := s.tx.Get(p.key); ok {
			p.value = string(v)
		}
	case "put":
		require.NoError(t, s.tx.Put(p.key, []byte(p.value)))
	case "delete":
		require.NoError(t, s.tx.Delete(p.key))
	case "scan":
		var seen []string
		for k, v := range s.tx.Scan(p.key, p.to) {
			seen = append(seen, k+"="+string(v))
			if len(seen) == p.readLimit {
				break
			}
		}
		p.value = strings.Join(seen, " ")
	}
	s.steps = append(s.steps, p)
}

// agrees runs the steps on a model state and tells whether they see the same; the state is changed.
func (s *script) agrees(state map[string]string) bool {
	for _, p := range s.steps {
		switch p.kind {
		case "get":
			v, ok := state[p.key]
			if !ok {
				v = "-"
			}
			if v != p.value {
				return false
			}
		case "put":
			state[p.key] = p.value
		case "delete":
			delete(state, p.key)
		case "scan":
			if scanModel(state, p) != p.value {
				return false
			}
		}
	}
	return true
}

func scanModel(state map[string]string, p step) string {
	var seen []string
	for _, k := range slices.Sorted(maps.Keys(state)) {
		if k >= p.key && (p.to == "" || k < p.to) {
			seen = append(seen, k+"="+state[k])
			if len(seen) == p.readLimit {
				break
			}
		}
	}
	return strings.Join(seen, " ")
}

// serial finds an order of the transactions, one after another, in which all see what they saw and the last state is
// what is in the store: the definition, by trying.
func serial(state, last map[string]string, left []*script) bool {
	if len(left) == 0 {
		return maps.Equal(state, last)
	}
	for i, s := range left {
		next := maps.Clone(state)
		if s.agrees(next) && serial(next, last, slices.Concat(left[:i:i], left[i+1:])) {
			return true
		}
	}
	return false
}

func contents(t require.TestingT, s *Store) map[string]string {
	state := map[string]string{}
	require.NoError(t, s.View(context.Background(), func(tx *Tx) error {
		clear(state)
		for k, v := range tx.Scan("", "") {
			state[k] = string(v)
		}
		return nil
	}))
	return state
}

func drawStep(t *rapid.T, i int) step {
	key := rapid.SampledFrom([]string{"a", "b", "c", "d"})
	p := step{kind: rapid.SampledFrom([]string{"get", "get", "put", "put", "delete", "scan"}).Draw(t, "kind"), key: key.Draw(t, "key")}
	switch p.kind {
	case "put":
		p.value = fmt.Sprint(i)
	case "scan":
		p.to = rapid.SampledFrom([]string{"", "c", "e"}).Draw(t, "to")
		p.readLimit = rapid.IntRange(1, 3).Draw(t, "limit")
	}
	return p
}

// Transactions interleaved in any way, with scans, deletions, preparations and restarts between: what commits is
// serializable, by trying all orders.
func TestSerializableByDefinition(t *testing.T) {
	testsize.Checks(t, 3000, 200_000)
	rapid.Check(t, func(t *rapid.T) {
		interleave(t, Serializable, func(initial, last map[string]string, committed []*script) {
			if !serial(initial, last, committed) {
				var b strings.Builder
				for _, s := range committed {
					fmt.Fprintln(&b, s.steps)
				}
				t.Fatalf("no serial order, from %v to %v:\n%s", initial, last, b.String())
			}
		})
	})
}

// interleave runs up to five transactions step by step and judges those that committed.
func interleave(t *rapid.T, level Level, judge func(initial, last map[string]string, committed []*script)) {
	ctx := context.Background()
	journal := new(host.MemoryJournal)
	cfg := Config{Level: level}
	durable := rapid.Bool().Draw(t, "durable")
	if durable {
		cfg.Journal = journal
		cfg.CheckpointBytes = rapid.SampledFrom([]int{1, 1 << 20}).Draw(t, "checkpoint")
	}
	s, err := Open(cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	initial := map[string]string{"a": "a0", "b": "b0"}
	require.NoError(t, s.Update(ctx, func(tx *Tx) error {
		for k, v := range initial {
			_ = tx.Put(k, []byte(v))
		}
		return nil
	}))
	var open, prepared, committed []*script
	started := 0
	for i := 0; i < 60 && (started < 5 || len(open)+len(prepared) > 0); i++ {
		action := rapid.IntRange(0, 9).Draw(t, "action")
		switch {
		case started < 5 && (action == 0 || len(open)+len(prepared) == 0):
			started++
			sc := &script{id: txn.ID(fmt.Sprint("t", started))}
			sc.tx, err = s.Join(sc.id)
			require.NoError(t, err)
			open = append(open, sc)
		case len(prepared) > 0 && (action == 1 || len(open) == 0):
			sc := prepared[0]
			prepared = prepared[1:]
			if rapid.Bool().Draw(t, "abort prepared") {
				require.NoError(t, s.Abort(ctx, sc.id))
				continue
			}
			require.NoError(t, s.Commit(ctx, sc.id), "a promise is kept")
			committed = append(committed, sc)
		case len(open) == 0:
		case action == 2:
			sc := open[0]
			open = open[1:]
			if err := sc.tx.Commit(ctx, sc.id); !errors.Is(err, ErrConflict) {
				require.NoError(t, err)
				committed = append(committed, sc)
			}
		case action == 3:
			sc := open[len(open)-1]
			open = open[:len(open)-1]
			switch vote, err := s.Prepare(ctx, sc.id); vote {
			case txn.Yes:
				prepared = append(prepared, sc)
			case txn.ReadOnly:
				committed = append(committed, sc)
			case txn.No:
				require.ErrorIs(t, err, ErrConflict)
			}
		case action == 4 && durable && rapid.Bool().Draw(t, "crash"):
			s = reopen(t, s, cfg, prepared)
			open = nil
		default:
			rapid.SampledFrom(open).Draw(t, "who").do(t, drawStep(t, i))
		}
	}
	for _, sc := range prepared {
		require.NoError(t, s.Commit(ctx, sc.id))
		committed = append(committed, sc)
	}
	for _, sc := range open {
		require.NoError(t, s.Abort(ctx, sc.id))
	}
	judge(initial, contents(t, s), committed)
	require.NoError(t, s.Close()) // also ends a checkpoint, which is a transaction too
	m := s.Metrics()
	require.Zero(t, m.Active)
	require.Zero(t, m.Prepared)
}

// reopen is a crash and a restart: what was prepared is there, what was open is not.
func reopen(t *rapid.T, s *Store, cfg Config, prepared []*script) *Store {
	require.NoError(t, s.Close())
	before := contentsOf(s)
	again, err := Open(cfg)
	require.NoError(t, err)
	require.Equal(t, before, contentsOf(again))
	ids, err := again.Prepared(context.Background())
	require.NoError(t, err)
	var want []txn.ID
	for _, sc := range prepared {
		want = append(want, sc.id)
	}
	require.ElementsMatch(t, want, ids)
	return again
}

// contentsOf reads without a transaction, so that it works on a closed store.
func contentsOf(s *Store) map[string]string {
	state := map[string]string{}
	for r := s.index.first.next[0].Load(); r != nil; r = r.next[0].Load() {
		if v := r.at(s.visible.Load()); v != nil {
			state[r.key] = string(v.value)
		}
	}
	return state
}

// Concurrent clients on lists, judged by their dependency graph (Adya, 1999).
func TestHistoriesOfConcurrentClients(t *testing.T) {
	for level, want := range map[Level]consistency.Level{
		Serializable: consistency.Serializable, Snapshot: consistency.SnapshotIsolation,
	} {
		for _, durable := range []bool{false, true} {
			t.Run(fmt.Sprintf("level=%d/durable=%v", level, durable), func(t *testing.T) {
				cfg := Config{Level: level}
				if durable {
					cfg.Journal = new(host.MemoryJournal)
					cfg.CheckpointBytes = 1000
				}
				s, err := Open(cfg)
				require.NoError(t, err)
				defer s.Close()
				h := runClients(t, s, 8, testsize.N(100, 1000))
				consistencytest.RequireTxns(t, h, want, consistency.ListAppend)
			})
		}
	}
}

// runClients appends unique values to a few lists and reads others, from many goroutines.
func runClients(t *testing.T, s *Store, clients, each int) consistency.TxnHistory {
	t.Helper()
	var rec consistency.Recorder[[]consistency.TxnOp, consistency.TxnOut]
	done := make(chan struct{})
	for c := range clients {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range each {
				value := int64(c*each + i + 1)
				read, write := fmt.Sprint("k", (c+i)%5), fmt.Sprint("k", (c*3+i/2)%5)
				ops := []consistency.TxnOp{{Kind: consistency.Read, Key: read}, {Kind: consistency.Append, Key: write, Value: value}}
				op := rec.Invoke(c, ops)
				tx := s.Begin()
				seen := list(tx, read)
				if err := tx.Put(write, fmt.Appendf(nil, "%s %d", strings.Trim(fmt.Sprint(list(tx, write)), "[]"), value)); err != nil {
					t.Error(err)
				}
				err := tx.Commit(context.Background(), "")
				switch {
				case err == nil:
					rec.Return(op, consistency.TxnOut{Ops: []consistency.TxnOp{{Kind: consistency.Read, Key: read, List: seen}, ops[1]}})
				case errors.Is(err, ErrConflict):
					rec.Fail(op)
				default:
					t.Error(err)
				}
			}
		}()
	}
	for range clients {
		<-done
	}
	return rec.History()
}

func list(tx *Tx, key string) []int64 {
	v, _ := tx.Get(key)
	var values []int64
	for f := range strings.FieldsSeq(string(v)) {
		var n int64
		_, _ = fmt.Sscan(f, &n)
		values = append(values, n)
	}
	return values
}
