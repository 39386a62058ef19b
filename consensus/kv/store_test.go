package kv

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/internal/wire"
)

// log applies commands to a Store as a replica does.
type log struct {
	t     require.TestingT
	s     *Store
	index uint64
	now   time.Time
}

func newLog(t require.TestingT, cfg Config) *log {
	s, err := New(cfg)
	require.NoError(t, err)
	return &log{t: t, s: s, now: time.Unix(1_000_000, 0)}
}

func (l *log) apply(command []byte) (wire.Reader, uint64, error) {
	l.index++
	a := l.s.Apply(coterie.Entry{Index: l.index, Time: l.now, Command: command})
	if len(command) == 0 {
		require.Nil(l.t, a)
		return wire.Reader{}, 0, nil
	}
	return readAnswer(a)
}

func (l *log) txn(txn Txn) (TxnResult, error) {
	r, revision, err := l.apply(txn.encode())
	if err != nil {
		return TxnResult{}, err
	}
	res, err := readTxnResult(&r, revision)
	require.NoError(l.t, err)
	return res, nil
}

func (l *log) do(ops ...Op) []Result {
	res, err := l.txn(Txn{Then: ops})
	require.NoError(l.t, err)
	return res.Results
}

func (l *log) put(key, value string) uint64 {
	l.do(Put{Key: key, Value: []byte(value)})
	return l.s.View().Revision()
}

func (l *log) grant(ttl time.Duration) uint64 {
	r, _, err := l.apply(wire.AppendVarint(start(cmdGrant), int64(ttl)))
	require.NoError(l.t, err)
	return r.Uvarint()
}

func (l *log) renew(id uint64) error {
	_, _, err := l.apply(wire.AppendUvarint(start(cmdKeepAlive), id))
	return err
}

func (l *log) query(q query) (wire.Reader, error) {
	a, err := l.s.Query(q.encode())
	require.NoError(l.t, err)
	r, _, err := readAnswer(a)
	return r, err
}

func (l *log) watch(span Span, from uint64) ([]Event, uint64, error) {
	r, err := l.query(query{kind: queryWatch, span: span, from: from})
	if err != nil {
		return nil, 0, err
	}
	return readWatch(&r)
}

// contents is the present state.
func (l *log) contents() map[string]string {
	m := map[string]string{}
	for k := range l.s.View().All(Prefix("")) {
		m[k.Key] = string(k.Value)
	}
	return m
}

// snapshot returns the bytes of a snapshot.
func (l *log) snapshot() []byte {
	write, err := l.s.Snapshot()
	require.NoError(l.t, err)
	var b bytes.Buffer
	require.NoError(l.t, write(&b))
	return b.Bytes()
}

func TestSpans(t *testing.T) {
	require.Equal(t, Span{"a/", "a0"}, Prefix("a/"))
	require.Equal(t, Span{"a\xff", "b"}, Prefix("a\xff"))
	require.Equal(t, Span{"\xff\xff", ""}, Prefix("\xff\xff"))
	require.True(t, Prefix("").Contains(""))
	require.True(t, Key("a").Contains("a"))
	require.False(t, Key("a").Contains("a\x00"))
	require.False(t, Prefix("a/").Contains("a0"))
}

func TestRevisionsCountChanges(t *testing.T) {
	l := newLog(t, Config{})
	require.EqualValues(t, 1, l.put("a", "1"))
	require.EqualValues(t, 2, l.put("b", "2"))
	l.do(Put{Key: "a", Value: []byte("3")}, Put{Key: "c", Value: []byte("4")})
	require.EqualValues(t, 3, l.s.View().Revision(), "a transaction makes one revision")
	l.do(Delete{Span: Key("nothing")})
	l.do(Get{Span: Prefix("")})
	_, _, err := l.apply(nil)
	require.NoError(t, err)
	require.EqualValues(t, 3, l.s.View().Revision(), "what changes nothing makes none")
	a, ok := l.s.View().Get("a")
	require.True(t, ok)
	require.Equal(t, KV{Key: "a", Value: []byte("3"), Create: 1, Mod: 3, Version: 2}, a)
	l.do(Delete{Span: Key("a")}, Put{Key: "a"})
	a, _ = l.s.View().Get("a")
	require.Equal(t, KV{Key: "a", Create: 4, Mod: 4, Version: 1}, a, "a key that was removed begins anew")
}

func TestTxnConditions(t *testing.T) {
	l := newLog(t, Config{})
	lease := l.grant(time.Minute)
	l.do(Put{Key: "k", Value: []byte("m"), Lease: lease})
	l.put("other", "")
	for _, c := range []struct {
		If   Compare
		want bool
	}{
		{Present("k"), true}, {Absent("k"), false}, {Absent("no"), true}, {Present("no"), false},
		{Unchanged("k", 1), true}, {Unchanged("k", 2), false}, {Unchanged("no", 0), true},
		{ValueIs("k", []byte("m")), true}, {ValueIs("k", []byte("n")), false}, {ValueIs("no", nil), false},
		{Compare{Key: "k", Field: FieldValue, Is: Greater, Bytes: []byte("a")}, true},
		{Compare{Key: "k", Field: FieldValue, Is: Less, Bytes: []byte("a")}, false},
		{Compare{Key: "no", Field: FieldValue, Is: NotEqual, Bytes: []byte("a")}, true},
		{Compare{Key: "k", Field: FieldLease, Is: Equal, Number: lease}, true},
		{Compare{Key: "k", Field: FieldCreate, Is: Less, Number: 2}, true},
		{Compare{Key: "k", Field: FieldVersion, Is: Greater, Number: 1}, false},
		{Compare{Span: Prefix(""), Field: FieldCount, Is: Equal, Number: 2}, true},
		{Compare{Span: Prefix("x"), Field: FieldCount, Is: Greater}, false},
	} {
		res, err := l.txn(Txn{If: []Compare{Present("k"), c.If}, Then: []Op{Get{}}, Else: []Op{Get{}, Get{}}})
		require.NoError(t, err)
		require.Equal(t, c.want, res.Succeeded, "%+v", c.If)
		require.Len(t, res.Results, map[bool]int{true: 1, false: 2}[c.want])
	}
}

func TestRefusedTxnChangesNothing(t *testing.T) {
	refuse := errors.New("odd number of keys")
	l := newLog(t, Config{MaxBytes: 1000, Validate: func(before, after View, changes []Event) error {
		if after.Len(Prefix("v/"))%2 == 1 && len(changes) > 0 && before.Revision() < after.Revision() {
			return refuse
		}
		return nil
	}})
	l.do(Put{Key: "v/1"}, Put{Key: "v/2"}, Put{Key: "x"})
	was := l.snapshot()
	for _, c := range []struct {
		last Op
		want error
	}{
		{Put{Key: "v/3"}, ErrInvalid},
		{Put{Key: "big", Value: make([]byte, 1000)}, ErrFull},
		{Put{Key: "k", Lease: 99}, ErrNoLease},
		{Rollback{Span: Prefix(""), Revision: 9}, ErrFuture},
		{Get{Revision: 9}, ErrFuture},
		{Rollback{}, ErrBadCommand},
		{Put{Key: string(make([]byte, MaxKeyBytes+1))}, ErrBadCommand},
	} {
		_, err := l.txn(Txn{Then: []Op{Put{Key: "a", Sequential: true}, Delete{Span: Key("x")}, c.last}})
		require.ErrorIs(t, err, c.want)
		require.Equal(t, was, l.snapshot(), "%v", err)
	}
	_, err := l.txn(Txn{Then: []Op{Delete{Span: Key("v/1")}}})
	require.ErrorContains(t, err, refuse.Error())
	l.do(Delete{Span: Prefix("v/")}) // two at once
}

func TestFullStoreLetsGo(t *testing.T) {
	l := newLog(t, Config{MaxBytes: 200})
	l.put("a", string(make([]byte, 100)))
	_, err := l.txn(Txn{Then: []Op{Put{Key: "b", Value: make([]byte, 100)}}})
	require.ErrorIs(t, err, ErrFull)
	l.s.cfg.MaxBytes = 10 // as after a restart with another Config
	l.put("a", "less")
	l.do(Delete{Span: Key("a")})
	require.Zero(t, l.s.bytes)
}

func TestSequentialKeysSortByOrderOfCreation(t *testing.T) {
	l := newLog(t, Config{})
	var keys []string
	for range 20 {
		for _, r := range l.do(Put{Key: "q/", Sequential: true}, Put{Key: "q/", Sequential: true}) {
			keys = append(keys, r.Key)
		}
		l.do(Delete{Span: Prefix("q/")})
		l.s.mu.Lock()
		require.Zero(t, l.s.root.len())
		l.s.mu.Unlock()
		require.NoError(t, l.s.Restore(bytes.NewReader(l.snapshot())))
	}
	require.True(t, slices.IsSorted(keys))
	require.Len(t, slices.Compact(slices.Clone(keys)), 40, "none is given twice")
	require.Equal(t, "q/0000000000000001", keys[0])
}

func TestReadsOfThePast(t *testing.T) {
	l := newLog(t, Config{})
	l.put("a", "1")
	l.put("b", "2")
	l.do(Delete{Span: Key("a")})
	res := l.do(Get{Span: Prefix(""), Revision: 2}, Put{Key: "c"}, Get{Span: Prefix(""), KeysOnly: true}, Get{Span: Prefix(""), CountOnly: true})
	require.Equal(t, []KV{{Key: "a", Value: []byte("1"), Create: 1, Mod: 1, Version: 1}, {Key: "b", Value: []byte("2"), Create: 2, Mod: 2, Version: 1}}, res[0].KVs)
	require.Len(t, res[2].KVs, 2, "a Get sees what was done before it")
	require.Nil(t, res[2].KVs[0].Value)
	require.Equal(t, Result{Count: 2}, res[3])
	last := l.do(Get{Span: Prefix(""), Limit: 1, Descending: true})[0]
	require.True(t, last.More)
	require.Equal(t, "c", last.KVs[0].Key)
	require.Equal(t, 2, last.Count)
}

// Histories are bounded, by number and by bytes, and a reader of what has gone is told.
func TestCompaction(t *testing.T) {
	l := newLog(t, Config{HistorySize: 3})
	for i := range 10 {
		l.put("k", fmt.Sprint(i))
	}
	require.EqualValues(t, 7, l.s.oldest())
	_, _, err := l.watch(Prefix(""), 7)
	require.ErrorIs(t, err, ErrCompacted)
	compacted := (*CompactedError)(nil)
	require.ErrorAs(t, err, &compacted)
	require.EqualValues(t, 7, compacted.Oldest)
	events, next, err := l.watch(Prefix(""), 8)
	require.NoError(t, err)
	require.EqualValues(t, 11, next)
	require.Len(t, events, 3)
	_, err = l.query(query{kind: queryGet, get: Get{Revision: 6}})
	require.ErrorIs(t, err, ErrCompacted)
	_, _, err = l.apply(wire.AppendUvarint(start(cmdCompact), 9))
	require.NoError(t, err)
	require.EqualValues(t, 9, l.s.oldest())
	_, _, err = l.apply(wire.AppendUvarint(start(cmdCompact), 11))
	require.ErrorIs(t, err, ErrFuture)

	l = newLog(t, Config{HistoryBytes: 1000})
	for range 10 {
		l.put("k", string(make([]byte, 235)))
	}
	require.EqualValues(t, 10-3, l.s.oldest())
	require.EqualValues(t, 900, l.s.past)
}

func TestRollback(t *testing.T) {
	l := newLog(t, Config{})
	short, long := l.grant(time.Second), l.grant(time.Hour)
	l.put("c/kept", "1")
	l.put("c/changed", "1")
	l.put("c/removed", "1")
	l.do(Put{Key: "c/short", Lease: short}, Put{Key: "c/long", Lease: long}, Put{Key: "other", Value: []byte("1")})
	good := l.s.View().Revision()
	l.put("c/changed", "2")
	l.put("c/added", "2")
	l.put("other", "2")
	l.do(Delete{Span: Key("c/removed")}, Delete{Span: Key("c/long")})
	l.now = l.now.Add(time.Minute)
	n := l.do(Rollback{Span: Prefix("c/"), Revision: good})[0].Count
	require.Equal(t, 4, n)
	require.Equal(t, map[string]string{"c/kept": "1", "c/changed": "1", "c/removed": "1", "c/long": "", "other": "2"}, l.contents())
	k, _ := l.s.View().Get("c/kept")
	require.EqualValues(t, 1, k.Version, "what is the same is not written")
	require.Zero(t, l.do(Rollback{Span: Prefix("c/"), Revision: good})[0].Count)
}

func TestLeasesEndByTheLogsClock(t *testing.T) {
	l := newLog(t, Config{})
	require.True(t, l.s.Deadline().IsZero())
	a, b := l.grant(10*time.Second), l.grant(20*time.Second)
	l.do(Put{Key: "a1", Lease: a}, Put{Key: "a2", Lease: a}, Put{Key: "b", Lease: b}, Put{Key: "moves", Lease: a}, Put{Key: "stays", Lease: a})
	l.do(Put{Key: "moves", Lease: b}, Put{Key: "stays"})
	require.Equal(t, l.now.Add(10*time.Second), l.s.Deadline())
	l.now = l.now.Add(9 * time.Second)
	require.NoError(t, l.renew(a))
	l.now = l.now.Add(9 * time.Second)
	require.NoError(t, l.renew(a))
	require.Equal(t, map[string]string{"a1": "", "a2": "", "b": "", "moves": "", "stays": ""}, l.contents())
	l.now = l.now.Add(2 * time.Second) // 20 s: b
	before := l.s.View().Revision()
	_, _, _ = l.apply(nil)
	require.Equal(t, map[string]string{"a1": "", "a2": "", "stays": ""}, l.contents())
	require.Equal(t, before+1, l.s.View().Revision(), "the keys of a lease go at one revision")
	require.ErrorIs(t, l.renew(b), ErrNoLease)
	events, _, err := l.watch(Prefix(""), before+1)
	require.NoError(t, err)
	require.Equal(t, []Event{{KV{Key: "b", Mod: before + 1}}, {KV{Key: "moves", Mod: before + 1}}}, events)
	require.True(t, events[0].Deleted())
	_, _, err = l.apply(wire.AppendUvarint(start(cmdRevoke), a))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"stays": ""}, l.contents())
	_, _, err = l.apply(wire.AppendUvarint(start(cmdRevoke), a))
	require.ErrorIs(t, err, ErrNoLease)
	require.True(t, l.s.Deadline().IsZero())
}

// lateRenewal renews a lease by the very entry that comes when it has ended.
func lateRenewal(t *testing.T, plant bug) error {
	l := newLog(t, Config{})
	l.s.bug = plant
	id := l.grant(10 * time.Second)
	l.now = l.now.Add(10 * time.Second)
	return l.renew(id)
}

func TestLeaseIsNotRenewedAfterItsEnd(t *testing.T) {
	require.ErrorIs(t, lateRenewal(t, 0), ErrNoLease)
	require.NoError(t, lateRenewal(t, bugLateRenewal), "the planted bug is not seen")
}

func TestSnapshotHoldsEverything(t *testing.T) {
	testsize.Checks(t, 100, 5000)
	rapid.Check(t, func(t *rapid.T) {
		l := newLog(t, Config{HistorySize: 5})
		runCommands(t, l, nil)
		other := newLog(t, Config{HistorySize: 5})
		require.NoError(t, other.s.Restore(bytes.NewReader(l.snapshot())))
		other.index, other.now = l.index, l.now
		require.Equal(t, l.snapshot(), other.snapshot())
		require.Equal(t, l.s.bytes, other.s.bytes)
		require.Equal(t, l.s.past, other.s.past)
		require.True(t, l.s.Deadline().Equal(other.s.Deadline()))
		// They go on alike.
		for _, step := range rapid.SliceOfN(drawCommand(), 1, 10).Draw(t, "more") {
			l.now = l.now.Add(step.wait)
			other.now = l.now
			l.index++
			e := coterie.Entry{Index: l.index, Time: l.now, Command: step.command}
			require.Equal(t, l.s.Apply(e), other.s.Apply(e))
		}
		require.Equal(t, l.snapshot(), other.snapshot())
	})
}

func TestRestoreRefusesWhatIsNoSnapshot(t *testing.T) {
	l := newLog(t, Config{})
	l.put("a", "1")
	l.do(Put{Key: "b", Lease: l.grant(time.Second)})
	good := l.snapshot()
	for cut := range len(good) {
		require.Error(t, l.s.Restore(bytes.NewReader(good[:cut])), "cut at %d", cut)
	}
	require.Error(t, l.s.Restore(bytes.NewReader(append(slices.Clone(good), 0))))
	newer := (*coterie.FormatError)(nil)
	require.ErrorAs(t, l.s.Restore(bytes.NewReader([]byte{snapshotFormat + 1})), &newer)
	require.Equal(t, good, l.snapshot(), "an error changes nothing")
}

// step is one command and the time that passes before it.
type step struct {
	wait    time.Duration
	command []byte
}

func drawKey() *rapid.Generator[string] {
	return rapid.SampledFrom([]string{"a", "b", "ba", "bb", "c/1", "c/2", "\xff"})
}

func drawSpan() *rapid.Generator[Span] {
	return rapid.OneOf(
		rapid.Map(drawKey(), Key), rapid.Map(rapid.SampledFrom([]string{"", "b", "c/", "\xff"}), Prefix),
		rapid.Custom(func(t *rapid.T) Span { return Span{drawKey().Draw(t, "from"), drawKey().Draw(t, "to")} }),
	)
}

func drawOp() *rapid.Generator[Op] {
	return rapid.Custom(func(t *rapid.T) Op {
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0, 1:
			return Put{
				Key: drawKey().Draw(t, "key"), Value: rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "value"),
				Lease: rapid.SampledFrom([]uint64{0, 0, 0, 1, 2, 3, 5}).Draw(t, "lease"), Sequential: rapid.IntRange(0, 4).Draw(t, "sequential") == 0,
			}
		case 2:
			return Delete{Span: drawSpan().Draw(t, "span")}
		case 3:
			return Rollback{Span: drawSpan().Draw(t, "span"), Revision: rapid.Uint64Range(1, 12).Draw(t, "revision")}
		}
		return Get{
			Span: drawSpan().Draw(t, "span"), Revision: rapid.Uint64Range(0, 10).Draw(t, "revision"), Limit: rapid.IntRange(0, 2).Draw(t, "limit"),
			Descending: rapid.Bool().Draw(t, "descending"), CountOnly: rapid.Bool().Draw(t, "count"),
		}
	})
}

func drawCompare() *rapid.Generator[Compare] {
	return rapid.Custom(func(t *rapid.T) Compare {
		return Compare{
			Key: drawKey().Draw(t, "key"), Span: drawSpan().Draw(t, "span"), Field: Field(rapid.IntRange(1, 6).Draw(t, "field")),
			Is: Relation(rapid.IntRange(1, 4).Draw(t, "is")), Number: rapid.Uint64Range(0, 5).Draw(t, "number"),
			Bytes: rapid.SliceOfN(rapid.Byte(), 0, 2).Draw(t, "bytes"),
		}
	})
}

func drawCommand() *rapid.Generator[step] {
	return rapid.Custom(func(t *rapid.T) step {
		s := step{wait: time.Duration(rapid.IntRange(0, 3).Draw(t, "seconds")) * time.Second}
		switch rapid.IntRange(0, 9).Draw(t, "command") {
		case 0:
			s.command = wire.AppendVarint(start(cmdGrant), int64(rapid.IntRange(1, 10).Draw(t, "ttl"))*int64(time.Second))
		case 1:
			s.command = wire.AppendUvarint(start(cmdKeepAlive), rapid.Uint64Range(0, 5).Draw(t, "lease"))
		case 2:
			s.command = wire.AppendUvarint(start(cmdRevoke), rapid.Uint64Range(0, 5).Draw(t, "lease"))
		case 3:
			s.command = wire.AppendUvarint(start(cmdCompact), rapid.Uint64Range(0, 9).Draw(t, "revision"))
		case 4:
		default:
			txn := Txn{
				If:   rapid.SliceOfN(drawCompare(), 0, 1).Draw(t, "if"),
				Then: rapid.SliceOfN(drawOp(), 0, 4).Draw(t, "then"), Else: rapid.SliceOfN(drawOp(), 0, 2).Draw(t, "else"),
			}
			s.command = txn.encode()
		}
		return s
	})
}

// runCommands applies drawn commands and calls check after each.
func runCommands(t *rapid.T, l *log, check func(command []byte, answer []byte)) {
	for _, s := range rapid.SliceOfN(drawCommand(), 8, 40).Draw(t, "commands") {
		l.now = l.now.Add(s.wait)
		l.index++
		a := l.s.Apply(coterie.Entry{Index: l.index, Time: l.now, Command: s.command})
		if check != nil {
			check(s.command, a)
		}
	}
}

// The store agrees with its slow and obvious definition: maps that are copied for each revision, and lists.
func TestStoreAgreesWithModel(t *testing.T) {
	testsize.Checks(t, 500, 20000)
	rapid.Check(t, func(t *rapid.T) {
		l := newLog(t, Config{})
		m := newModel()
		runCommands(t, l, func(command, a []byte) {
			want := m.apply(l.index, l.now, command)
			_, revision, err := readAnswer(a)
			if command == nil {
				err, revision = nil, m.revision()
			}
			require.Equal(t, want == nil, err == nil, "%v, %v", want, err)
			if want != nil {
				require.ErrorIs(t, err, want)
			}
			require.Equal(t, m.revision(), revision)
			require.Equal(t, m.oldest, l.s.oldest())
			for r := max(l.s.oldest(), 1); r <= l.s.revision; r++ { // 0 means the newest
				v, err := l.s.at(r)
				require.NoError(t, err)
				require.Equal(t, m.past[r], maps.Collect(byKey(v)), "revision %d", r)
			}
			require.Equal(t, m.deadline(), l.s.Deadline())
		})
		// A watcher that begins at any revision and applies what it is told has the present state.
		from := rapid.Uint64Range(l.s.oldest(), l.s.revision).Draw(t, "from")
		span := drawSpan().Draw(t, "span")
		is := maps.Clone(m.past[from])
		events, next, err := l.watch(span, from+1)
		require.NoError(t, err)
		require.Equal(t, l.s.revision+1, next)
		for _, e := range events {
			if delete(is, e.KV.Key); !e.Deleted() {
				is[e.KV.Key] = fmt.Sprintf("%+v", e.KV)
			}
		}
		want := maps.Clone(m.past[l.s.revision])
		outside := func(key, _ string) bool { return !span.Contains(key) }
		maps.DeleteFunc(is, outside)
		maps.DeleteFunc(want, outside)
		require.Equal(t, want, is)
	})
}

func byKey(v View) func(func(string, string) bool) {
	return func(yield func(string, string) bool) {
		for k := range v.All(Prefix("")) {
			if len(k.Value) == 0 {
				k.Value = nil
			}
			if !yield(k.Key, fmt.Sprintf("%+v", k)) {
				return
			}
		}
	}
}

func TestTurn(t *testing.T) {
	l := newLog(t, Config{})
	ahead := func(key string, below int) (bool, []string) {
		return l.s.ahead(&Turn{Key: key, Spans: []Span{{"q/", key}}, Below: below})
	}
	for _, key := range []string{"q/1", "q/2", "q/3", "q/4"} {
		l.put(key, "")
	}
	there, blockers := ahead("q/4", 1)
	require.True(t, there)
	require.Equal(t, []string{"q/3"}, blockers, "the nearest alone")
	_, blockers = ahead("q/4", 2)
	require.Equal(t, []string{"q/3", "q/2"}, blockers)
	_, blockers = ahead("q/2", 2)
	require.Empty(t, blockers)
	_, blockers = ahead("q/1", 1)
	require.Empty(t, blockers)
	there, _ = ahead("q/5", 1)
	require.False(t, there)
}

// A replica that lags behind does not know a key that another one has acknowledged: it must not say that it has gone.
func TestTurnOnAReplicaThatLags(t *testing.T) {
	l := newLog(t, Config{})
	l.put("q/1", "")
	q := query{kind: queryTurn, turn: Turn{Key: "q/2", Spans: []Span{{"q/", "q/2"}}, Revision: 2}, wait: time.Minute}
	_, ok := l.s.wait(t.Context(), &q)
	require.False(t, ok, "the replica itself is to be asked")
	r, err := l.query(q)
	require.NoError(t, err)
	require.True(t, r.Bool(), "there")
	require.False(t, r.Bool(), "turn")
	l.do(Delete{Span: Key("q/1")})
	r, err = l.query(q)
	require.NoError(t, err)
	require.False(t, r.Bool(), "now it is known to have gone")
}
