package crdt_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-go/coterie/clock"
	. "github.com/coterie-go/coterie/crdt" //nolint:revive // the laws are of its types, and read better without the name
	"github.com/coterie-go/coterie/internal/testsize"
)

// The script of basho/riak_dt#82: a removed element came back, or an added one was lost, after a merge with a replica
// that had seen an add and no more.
func TestORSetRemoveAfterReplication(t *testing.T) {
	var a, b, c ORSet[string]
	a.Add("a", "x")
	b.Add("b", "x")
	c.Merge(a)
	a.Remove("x")
	a.Merge(b)
	require.True(t, a.Contains("x"), "b's add was not seen by a's remove")
	b.Remove("x")
	for _, s := range []*ORSet[string]{&a, &b, &c} {
		for _, o := range []ORSet[string]{a, b, c} {
			s.Merge(o)
		}
	}
	for _, s := range []ORSet[string]{a, b, c} {
		require.False(t, s.Contains("x"))
		require.Zero(t, s.Len())
	}
}

// What was added concurrently under a removed key survives, alone; what was there stays away (riak_dt#99, #113).
func TestORMapResetRemove(t *testing.T) {
	var a, b ORMap[string, ORSet[string]]
	add := func(m *ORMap[string, ORSet[string]], by id, e string) {
		m.Update("k", func(v *ORSet[string]) ORSet[string] { return v.Add(by, e) })
	}
	add(&a, "a", "old")
	b.Merge(a)
	a.Remove("k")
	add(&b, "b", "new")
	a.Merge(b)
	b.Merge(a)
	for _, m := range []ORMap[string, ORSet[string]]{a, b} {
		v, found := m.Get("k")
		require.True(t, found)
		require.Equal(t, []string{"new"}, sorted(v.All()))
	}
}

// Adding one element again and again leaves the size what it was (aalpar/crdt grows to 360 kB).
func TestAddingAgainTakesNoMemory(t *testing.T) {
	var s, o ORSet[string]
	o.Merge(s.Add("a", "x"))
	o.Merge(s.Add("a", "x"))
	before, err := s.MarshalBinary()
	require.NoError(t, err)
	for range 20_000 {
		o.Merge(s.Add("a", "x"))
	}
	for _, set := range []ORSet[string]{s, o} {
		after, err := set.MarshalBinary()
		require.NoError(t, err)
		require.LessOrEqual(t, len(after), len(before)+4) // numbers are longer
		require.True(t, set.Context().IsContiguous())
	}
}

// A replica that is cut off holds collection up: what it adds meanwhile loses to the remove when it is back. Only an
// eviction lets the others go on, and then it is told apart (basho/riak_kv#1754; Cassandra's zombies).
func TestNothingIsCollectedTooEarly(t *testing.T) {
	var a, b RWSet[string]
	var s Stability
	s.Join("b")
	a.Add("a", "x")
	b.Merge(a)
	s.Ack("b", b.Context().Vector())
	a.Remove("a", "x")
	b.Add("b", "x") // b is cut off
	require.Zero(t, a.Stable(s.Frontier(a.Context().Vector())), "b has not seen the remove")
	b.Merge(a)
	s.Ack("b", b.Context().Vector())
	require.Zero(t, a.Stable(s.Frontier(a.Context().Vector())), "b's add is still to come")
	a.Merge(b)
	require.False(t, a.Contains("x"))
	require.Equal(t, 1, a.Stable(s.Frontier(a.Context().Vector())))
	b.Merge(a) // what a has collected goes at b too
	require.False(t, b.Contains("x"))
	require.Zero(t, b.Stable(b.Context().Vector()))

	s.Evict("b")
	require.True(t, s.Evicted("b"))
	require.False(t, s.Join("b"))
	require.Equal(t, a.Context().Vector(), s.Frontier(a.Context().Vector()))
}

// The frontier of a last-writer-wins map counts times; a write that its clock puts before a collected deletion is refused.
func TestLWWMapCollects(t *testing.T) {
	var m LWWMap[string, int]
	m.Put(clock.Timestamp{Time: 5, Node: "a"}, "k", 1)
	m.Delete(clock.Timestamp{Time: 7, Node: "a"}, "k")
	var f clock.Vector
	f.Set("a", 6)
	require.Zero(t, m.Stable(f))
	f.Set("a", 7)
	require.Equal(t, 1, m.Stable(f))
	late := m.Put(clock.Timestamp{Time: 6, Node: "b"}, "k", 2)
	require.Zero(t, late.Len())
	_, found := m.Get("k")
	require.False(t, found)
	m.Put(clock.Timestamp{Time: 8, Node: "b"}, "k", 3)
	v, _ := m.Get("k")
	require.Equal(t, 3, v)
}

// Replicas that sell by their rights never sell more than there is, whatever is delivered when.
func TestBoundedCounterNeverOversells(t *testing.T) {
	for seed := range testsize.N(200, 20_000) {
		rng := newRand(uint64(seed))
		var s [3]BoundedCounter
		names := []id{"a", "b", "c"}
		sold, made := uint64(0), uint64(0)
		var deltas []BoundedCounter
		for range 100 {
			i, n := rng.IntN(3), uint64(rng.IntN(4))
			switch rng.IntN(4) {
			case 0:
				made += n
				deltas = append(deltas, s[i].Inc(names[i], n))
			case 1:
				if d, err := s[i].Dec(names[i], n); err == nil {
					sold += n
					deltas = append(deltas, d)
				} else {
					require.ErrorIs(t, err, ErrRights)
				}
			case 2:
				if d, err := s[i].Transfer(names[i], names[rng.IntN(3)], n); err == nil {
					deltas = append(deltas, d)
				}
			case 3:
				if len(deltas) > 0 {
					s[i].Merge(deltas[rng.IntN(len(deltas))])
				}
			}
			require.LessOrEqual(t, sold, made)
		}
		for i := range s {
			for _, d := range deltas {
				s[i].Merge(d)
			}
			require.Equal(t, made-sold, s[i].Value(), "seed %d", seed)
		}
	}
}

func TestAllocations(t *testing.T) {
	if testsize.Race() {
		t.Skip("the race detector allocates")
	}
	var c, o GCounter
	for i := range 16 {
		o.Inc(id(fmt.Sprint("r", i)), 1)
	}
	c.Merge(o)
	require.Zero(t, testing.AllocsPerRun(100, func() { keepCounter = c.Inc("r5", 1) }))
	require.Zero(t, testing.AllocsPerRun(100, func() { c.Merge(o) }))
	var s ORSet[int]
	n := 0
	require.LessOrEqual(t, testing.AllocsPerRun(1000, func() { keepSet = s.Add("a", n); n++ }), 3.0)
}

var (
	keepCounter GCounter
	keepSet     ORSet[int]
)

func TestDeltaLog(t *testing.T) {
	l := DeltaLog{MaxBytes: 10}
	l.Add("b")
	l.Add("c")
	for i := range 3 {
		require.EqualValues(t, i+1, l.Append([]byte("abc")))
	}
	first, deltas, complete := l.Since("b")
	require.True(t, complete)
	require.EqualValues(t, 1, first)
	require.Len(t, deltas, 3)
	l.Ack("b", 2)
	l.Ack("b", 99) // never sent: of another incarnation
	require.EqualValues(t, 2, l.Acked("b"))
	l.Append([]byte("abc")) // the first goes, though c has not got it
	_, _, complete = l.Since("c")
	require.False(t, complete)
	first, deltas, complete = l.Since("b")
	require.True(t, complete)
	require.EqualValues(t, 3, first)
	require.Len(t, deltas, 2)

	_, ok := l.Accept("b", 2, 1)
	require.False(t, ok, "number 1 is missing")
	skip, ok := l.Accept("b", 1, 2)
	require.True(t, ok)
	require.Zero(t, skip)
	l.Taken("b", 2)
	skip, ok = l.Accept("b", 1, 4)
	require.True(t, ok)
	require.Equal(t, 2, skip)
	require.EqualValues(t, 2, l.Have("b"))
	l.Forget("b")
	require.Zero(t, l.Have("b"))
}
