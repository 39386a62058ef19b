package mvcc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport/host"
	"github.com/coterie-go/coterie/txn"
)

var ctx = context.Background()

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func put(t *testing.T, s *Store, pairs ...string) {
	t.Helper()
	require.NoError(t, s.Update(ctx, func(tx *Tx) error {
		for i := 0; i < len(pairs); i += 2 {
			if err := tx.Put(pairs[i], []byte(pairs[i+1])); err != nil {
				return err
			}
		}
		return nil
	}))
}

func get(tx *Tx, key string) string {
	v, ok := tx.Get(key)
	if !ok {
		return "-"
	}
	return string(v)
}

// Write skew (Berenson et al., 1995, A5B): each of two doctors goes off call because the other is on. Snapshot isolation
// accepts it, serializable refuses one.
func TestWriteSkew(t *testing.T) {
	for level, refused := range map[Level]bool{Snapshot: false, Serializable: true} {
		s := open(t, Config{Level: level})
		put(t, s, "alice", "on", "bob", "on")
		a, b := s.Begin(), s.Begin()
		require.Equal(t, "on", get(a, "bob"))
		require.Equal(t, "on", get(b, "alice"))
		require.NoError(t, a.Put("alice", []byte("off")))
		require.NoError(t, b.Put("bob", []byte("off")))
		require.NoError(t, a.Commit(ctx, ""))
		err := b.Commit(ctx, "")
		require.Equal(t, refused, errors.Is(err, ErrConflict), "%v", err)
		require.Equal(t, refused, errors.Is(err, txn.ErrAborted))
	}
}

// Write skew through a predicate: each books a room because a scan finds the slot empty (dgraph-io/badger#2057).
func TestWriteSkewThroughARange(t *testing.T) {
	for level, refused := range map[Level]bool{Snapshot: false, Serializable: true} {
		s := open(t, Config{Level: level})
		book := func(tx *Tx, key string) {
			for range tx.Scan("room/", "room0") {
				t.Error("the room is empty")
			}
			require.NoError(t, tx.Put(key, []byte("booked")))
		}
		a, b := s.Begin(), s.Begin()
		book(a, "room/09:00-10:00")
		book(b, "room/09:30-11:00")
		require.NoError(t, a.Commit(ctx, ""))
		require.Equal(t, refused, errors.Is(b.Commit(ctx, ""), ErrConflict))
	}
}

// A key that was looked for and not found is a read too.
func TestWriteSkewThroughAMissingKey(t *testing.T) {
	s := open(t, Config{})
	a, b := s.Begin(), s.Begin()
	require.Equal(t, "-", get(a, "x"))
	require.Equal(t, "-", get(b, "y"))
	require.NoError(t, a.Put("y", nil))
	require.NoError(t, b.Put("x", nil))
	require.NoError(t, a.Commit(ctx, ""))
	require.ErrorIs(t, b.Commit(ctx, ""), ErrConflict)
}

// A read-only transaction can be what makes an execution not serializable (Fekete, O'Neil and O'Neil, 2004): it sees a
// deposit but not the withdrawal that, by the fee it paid, came before.
func TestReadOnlyAnomaly(t *testing.T) {
	s := open(t, Config{})
	put(t, s, "checking", "0", "saving", "0")
	withdraw := s.Begin()
	require.Equal(t, "0", get(withdraw, "checking"))
	require.Equal(t, "0", get(withdraw, "saving"))
	deposit := s.Begin()
	require.Equal(t, "0", get(deposit, "saving"))
	require.NoError(t, deposit.Put("saving", []byte("20")))
	require.NoError(t, deposit.Commit(ctx, ""))
	require.NoError(t, s.View(ctx, func(tx *Tx) error {
		require.Equal(t, "0", get(tx, "checking"))
		require.Equal(t, "20", get(tx, "saving"))
		return nil
	}))
	require.NoError(t, withdraw.Put("checking", []byte("-11")))
	require.ErrorIs(t, withdraw.Commit(ctx, ""), ErrConflict)
}

// The same, but the read-only transaction is the last to end: then it is the one that must go.
func TestReadOnlyAnomalyThatEndsLast(t *testing.T) {
	s := open(t, Config{})
	put(t, s, "checking", "0", "saving", "0")
	withdraw := s.Begin()
	require.Equal(t, "0", get(withdraw, "checking"))
	require.Equal(t, "0", get(withdraw, "saving"))
	put(t, s, "saving", "20")
	report := s.Begin()
	require.Equal(t, "20", get(report, "saving"))
	require.NoError(t, withdraw.Put("checking", []byte("-11")))
	require.NoError(t, withdraw.Commit(ctx, ""))
	require.Equal(t, "0", get(report, "checking"))
	require.ErrorIs(t, report.Commit(ctx, ""), ErrConflict)
}

func TestFirstCommitterWins(t *testing.T) {
	s := open(t, Config{Level: Snapshot})
	put(t, s, "n", "1")
	a, b := s.Begin(), s.Begin()
	require.NoError(t, a.Put("n", []byte("2")))
	require.NoError(t, b.Put("n", []byte("3")))
	require.NoError(t, b.Commit(ctx, ""))
	require.ErrorIs(t, a.Commit(ctx, ""), ErrConflict)
	require.ErrorIs(t, a.Commit(ctx, ""), ErrEnded)
	require.ErrorIs(t, a.Put("n", nil), ErrEnded)
	v, ok := s.Get("n")
	require.True(t, ok)
	require.Equal(t, "3", string(v))
	require.Equal(t, uint64(1), s.Metrics().Conflicts)
}

func TestSnapshotStaysWhileOthersCommit(t *testing.T) {
	s := open(t, Config{Level: Snapshot})
	put(t, s, "a", "1", "b", "1")
	tx := s.Begin()
	for i := range 100 {
		put(t, s, "a", fmt.Sprint(i), "c", fmt.Sprint(i))
		require.NoError(t, s.Update(ctx, func(tx *Tx) error { return tx.Delete("b") }))
		put(t, s, "b", "again")
	}
	require.Equal(t, "1 1 -", get(tx, "a")+" "+get(tx, "b")+" "+get(tx, "c"))
	var keys []string
	for k := range tx.Scan("", "") {
		keys = append(keys, k)
	}
	require.Equal(t, []string{"a", "b"}, keys)
	require.NoError(t, tx.Abort(ctx, ""))
}

// versions is how many versions of a key are held.
func versions(s *Store, key string) (n int) {
	if r := s.index.find(key); r != nil {
		for v := r.head.Load(); v != nil; v = v.next.Load() {
			n++
		}
	}
	return n
}

func TestOldVersionsGo(t *testing.T) {
	s := open(t, Config{})
	reader := s.Begin()
	for i := range 1000 {
		put(t, s, "k", fmt.Sprint(i), fmt.Sprint("new-", i%10), "x")
		require.NoError(t, s.Update(ctx, func(tx *Tx) error { return tx.Delete(fmt.Sprint("new-", i%10)) }))
	}
	require.Equal(t, 1000, versions(s, "k"))
	require.NoError(t, reader.Abort(ctx, ""))
	put(t, s, "k", "a")
	put(t, s, "k", "b")
	require.LessOrEqual(t, versions(s, "k"), 2)
	m := s.Metrics()
	require.LessOrEqual(t, m.Keys, 2, "deleted keys are gone")
	require.LessOrEqual(t, m.Remembered, 2)
	require.Zero(t, m.Active)
}

func TestScanSeesOwnWrites(t *testing.T) {
	s := open(t, Config{})
	put(t, s, "a", "1", "c", "1", "e", "1", "g", "1")
	tx := s.Begin()
	for k, v := range map[string]string{"b": "2", "c": "2", "f": "2", "z": "2"} {
		require.NoError(t, tx.Put(k, []byte(v)))
	}
	require.NoError(t, tx.Delete("e"))
	var got []string
	for k, v := range tx.Scan("b", "g") {
		got = append(got, k+string(v))
	}
	require.Equal(t, []string{"b2", "c2", "f2"}, got)
	for range tx.Scan("g", "b") {
		t.Error("an empty range")
	}
	require.NoError(t, tx.Abort(ctx, ""))
}

func TestViewIsReadOnly(t *testing.T) {
	s := open(t, Config{})
	require.ErrorIs(t, s.View(ctx, func(tx *Tx) error { return tx.Put("a", nil) }), ErrReadOnly)
	require.ErrorIs(t, s.View(ctx, func(tx *Tx) error { return tx.Delete("a") }), ErrReadOnly)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, s.View(ended, func(*Tx) error { return nil }), context.Canceled)
	require.ErrorIs(t, s.Update(ended, func(*Tx) error { return nil }), context.Canceled)
	boom := errors.New("boom")
	require.ErrorIs(t, s.Update(ctx, func(tx *Tx) error { _ = tx.Put("a", nil); return boom }), boom)
	_, ok := s.Get("a")
	require.False(t, ok)
}

// A prepared transaction holds its keys, survives a restart, and commits whatever comes between.
func TestPreparedKeepsItsPromise(t *testing.T) {
	journal := new(host.MemoryJournal)
	s := open(t, Config{Journal: journal})
	put(t, s, "x", "0", "y", "0")
	tx, err := s.Join("t1")
	require.NoError(t, err)
	require.Equal(t, "0", get(tx, "y"))
	require.NoError(t, tx.Put("x", []byte("1")))
	for range 2 { // again, as after a lost answer
		vote, err := tx.Prepare(ctx, "t1")
		require.NoError(t, err)
		require.Equal(t, txn.Yes, vote)
	}
	require.ErrorIs(t, tx.Put("x", nil), ErrPrepared)
	_, err = s.Join("t1")
	require.ErrorIs(t, err, ErrPrepared)
	for round := range 2 {
		other := s.Begin()
		require.NoError(t, other.Put("x", []byte("9")))
		require.ErrorIs(t, other.Commit(ctx, ""), ErrConflict)
		skew := s.Begin() // reads what the prepared one writes, and writes what it read
		require.Equal(t, "0", get(skew, "x"))
		require.NoError(t, skew.Put("y", []byte("9")))
		require.ErrorIs(t, skew.Commit(ctx, ""), ErrConflict)
		if round == 0 {
			require.NoError(t, s.Close())
			s = open(t, Config{Journal: journal})
			ids, err := s.Prepared(ctx)
			require.NoError(t, err)
			require.Equal(t, []txn.ID{"t1"}, ids)
		}
	}
	v, _ := s.Get("x")
	require.Equal(t, "0", string(v))
	for range 2 {
		require.NoError(t, s.Commit(ctx, "t1"))
	}
	v, _ = s.Get("x")
	require.Equal(t, "1", string(v))
	require.NoError(t, s.Abort(ctx, "t1"), "late, and without effect")
	v, _ = s.Get("x")
	require.Equal(t, "1", string(v))
}

func TestUnknownAndImpossible(t *testing.T) {
	s := open(t, Config{})
	vote, err := s.Prepare(ctx, "nobody")
	require.Equal(t, txn.No, vote)
	require.ErrorIs(t, err, txn.ErrUnknown)
	require.NoError(t, s.Commit(ctx, "nobody"))
	require.NoError(t, s.Abort(ctx, "nobody"))
	_, err = s.Join("")
	require.Error(t, err)
	tx, err := s.Join("t")
	require.NoError(t, err)
	require.ErrorIs(t, tx.Commit(ctx, "other"), txn.ErrUnknown)
	require.ErrorIs(t, s.Commit(ctx, "t"), txn.ErrContradiction)
	vote, err = s.Prepare(ctx, "t")
	require.NoError(t, err)
	require.Equal(t, txn.ReadOnly, vote)
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Update(ctx, func(tx *Tx) error { return tx.Put("a", nil) }), coterie.ErrClosed)
	_, err = s.Join("u")
	require.ErrorIs(t, err, coterie.ErrClosed)
	require.NoError(t, s.Close())
	_, err = Open(Config{Level: 9})
	require.ErrorContains(t, err, "Config.Level")
	_, err = Open(Config{CheckpointBytes: -1})
	require.ErrorContains(t, err, "Config.CheckpointBytes")
}

// A snapshot never sees half a transaction, whatever runs beside it: the sum of all accounts stays.
func TestTransfersKeepTheSum(t *testing.T) {
	for _, journal := range []coterie.Journal{nil, new(host.MemoryJournal)} {
		s := open(t, Config{Journal: journal, CheckpointBytes: 10_000})
		const accounts = 10
		for i := range accounts {
			put(t, s, fmt.Sprint("account-", i), "100")
		}
		var wg sync.WaitGroup
		for c := range 4 {
			wg.Go(func() {
				for i := range 200 {
					from, to := fmt.Sprint("account-", (c+i)%accounts), fmt.Sprint("account-", (c*i+1)%accounts)
					if from == to {
						continue
					}
					err := s.Update(ctx, func(tx *Tx) error {
						var a, b int
						_, _ = fmt.Sscan(get(tx, from), &a)
						_, _ = fmt.Sscan(get(tx, to), &b)
						_ = tx.Put(from, fmt.Append(nil, a-1))
						return tx.Put(to, fmt.Append(nil, b+1))
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Go(func() {
			for range 100 {
				_ = s.View(ctx, func(tx *Tx) error {
					sum, n := 0, 0
					for _, v := range tx.Scan("account-", "account.") {
						var x int
						_, _ = fmt.Sscan(string(v), &x)
						sum += x
						n++
					}
					if sum != 100*accounts || n != accounts {
						t.Errorf("%d accounts hold %d", n, sum)
					}
					return nil
				})
			}
		})
		wg.Wait()
	}
}

// failing is a journal whose Append waits, and then fails if told.
type failing struct {
	host.MemoryJournal
	gate chan error
}

func (f *failing) Append(records ...[]byte) error {
	if err := <-f.gate; err != nil {
		return err
	}
	return f.MemoryJournal.Append(records...)
}

// Nothing is seen or acknowledged before the journal has it; and an error of the journal is the end.
func TestNothingIsSeenBeforeItIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &failing{gate: make(chan error)}
		s, err := Open(Config{Journal: j})
		require.NoError(t, err)
		update := func(value string) chan error {
			done := make(chan error, 1)
			go func() { done <- s.Update(ctx, func(tx *Tx) error { return tx.Put("k", []byte(value)) }) }()
			return done
		}
		first := update("1")
		synctest.Wait()
		_, ok := s.Get("k")
		require.False(t, ok)
		require.Empty(t, first)
		j.gate <- nil
		require.NoError(t, <-first)
		v, _ := s.Get("k")
		require.Equal(t, "1", string(v))
		second := update("2")
		synctest.Wait()
		noSpace := errors.New("no space left on device")
		j.gate <- noSpace
		require.ErrorIs(t, <-second, noSpace)
		require.ErrorIs(t, <-update("3"), noSpace)
		require.ErrorIs(t, s.Err(), noSpace)
		v, _ = s.Get("k")
		require.Equal(t, "1", string(v))
		require.ErrorIs(t, s.Close(), noSpace)
	})
}

func TestCanceledWaitIsAnUnknownOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &failing{gate: make(chan error)}
		s, err := Open(Config{Journal: j})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- s.Update(ctx, func(tx *Tx) error { return tx.Put("k", []byte("1")) }) }()
		synctest.Wait()
		cancel()
		err = <-done
		require.ErrorIs(t, err, coterie.ErrUnknownOutcome)
		require.ErrorIs(t, err, context.Canceled)
		close(j.gate)
		synctest.Wait()
		_, ok := s.Get("k")
		require.True(t, ok)
		require.NoError(t, s.Close())
	})
}

// Whatever prefix of the journal survives a crash, and whether or not Keep has been heeded, the store is as it was after
// some commit, and no older than what was acknowledged.
func TestEveryPrefixOfTheJournal(t *testing.T) {
	var records [][]byte
	var kept []int // how many were kept at each Keep, by the number of records then
	j := &tape{records: &records, kept: &kept}
	s, err := Open(Config{Journal: j, CheckpointBytes: 300})
	require.NoError(t, err)
	states := []map[string]string{{}}
	at := []int{0} // how many records there were when the state was acknowledged
	for i := range 60 {
		switch i % 6 {
		case 3:
			tx, err := s.Join(txn.ID(fmt.Sprint("t", i)))
			require.NoError(t, err)
			require.NoError(t, tx.Put("p", fmt.Append(nil, i)))
			_, err = tx.Prepare(ctx, tx.ID())
			require.NoError(t, err)
			require.NoError(t, s.Commit(ctx, tx.ID()))
		case 4:
			require.NoError(t, s.Update(ctx, func(tx *Tx) error { return tx.Delete(fmt.Sprint("k", (i-1)%7)) }))
		default:
			put(t, s, fmt.Sprint("k", i%7), fmt.Sprint(i), "n", fmt.Sprint(i))
		}
		states = append(states, contentsOf(s))
		at = append(at, j.len())
	}
	require.NoError(t, s.Close())
	require.NotEmpty(t, kept, "there were checkpoints")
	for n := range len(records) + 1 {
		for _, from := range []int{0, j.keptAt(n)} {
			again, err := Open(Config{Journal: &tape{records: new(records[from:n]), kept: new([]int)}})
			require.NoError(t, err)
			got := contentsOf(again)
			acknowledged := 0
			for i := range at {
				if at[i] <= n {
					acknowledged = i
				}
			}
			require.True(t, slices.ContainsFunc(states[acknowledged:], func(s map[string]string) bool { return fmt.Sprint(s) == fmt.Sprint(got) }),
				"%d records from %d: %v", n, from, got)
			require.NoError(t, again.Close())
		}
	}
}

// tape is a journal that remembers all, and what it might have forgotten.
type tape struct {
	mu      sync.Mutex
	records *[][]byte
	kept    *[]int // pairs: number of records, number that must be kept
}

func (t *tape) Replay(f func([]byte) error) error {
	for _, r := range *t.records {
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

func (t *tape) Append(records ...[]byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	*t.records = append(*t.records, records...)
	return nil
}

func (t *tape) Keep(n int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	*t.kept = append(*t.kept, len(*t.records), n)
	return nil
}

func (t *tape) Close() error { return nil }
func (t *tape) len() int     { t.mu.Lock(); defer t.mu.Unlock(); return len(*t.records) }

// keptAt is the first record that is sure to be there when n were written.
func (t *tape) keptAt(n int) (from int) {
	for i := 0; i < len(*t.kept); i += 2 {
		if (*t.kept)[i] <= n {
			from = (*t.kept)[i] - (*t.kept)[i+1]
		}
	}
	return from
}

func TestGetAllocatesNothing(t *testing.T) {
	s := open(t, Config{})
	for i := range 1000 {
		put(t, s, fmt.Sprint("key-", i), "value")
	}
	require.Zero(t, testing.AllocsPerRun(100, func() { s.Get("key-500") }))
}

func FuzzReplay(f *testing.F) {
	tx := &Tx{id: "t", writes: map[string]write{"a": {value: []byte("1")}}, ranges: []span{{from: "a", to: "b"}}}
	f.Add(encodeCommit(7, map[string]write{"a": {value: []byte("1")}, "b": {deleted: true}}), encodeDecided("t", 9))
	f.Add(encodePrepared(tx), encodeDecided("t", 9))
	f.Add([]byte{format, kindState, 1, 'a', 5, 1, 'v'}, []byte{format + 1})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		s, err := Open(Config{})
		require.NoError(t, err)
		for _, record := range [][]byte{a, b} {
			before := fmt.Sprint(contentsAt(s))
			if s.replay(record) != nil {
				require.Equal(t, before, fmt.Sprint(contentsAt(s)), "an error changes nothing")
			}
		}
	})
}

// contentsAt is all that is held, prepared or committed.
func contentsAt(s *Store) (state []string) {
	for r := s.index.first.next[0].Load(); r != nil; r = r.next[0].Load() {
		state = append(state, fmt.Sprintf("%s %v %v", r.key, r.at(1<<63), r.prepared != nil))
	}
	return state
}
