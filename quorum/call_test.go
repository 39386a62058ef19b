package quorum_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/testsize"
	"github.com/coterie-go/coterie/quorum"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var errRefused = errors.New("refused")

// replica is how one node behaves: it answers after a delay, with an error or a value.
type replica struct {
	delay time.Duration
	value int
	err   error
}

// cluster counts the calls under way.
type cluster struct {
	replicas map[coterie.NodeID]replica
	asked    atomic.Int32
	under    atomic.Int32
}

func (c *cluster) call(ctx context.Context, id coterie.NodeID) (int, error) {
	c.asked.Add(1)
	c.under.Add(1)
	defer c.under.Add(-1)
	r := c.replicas[id]
	select {
	case <-time.After(r.delay):
		return r.value, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

const ms = time.Millisecond

func TestCallEndsAtTheFirstQuorumAndCancelsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{replicas: map[coterie.NodeID]replica{"a": {delay: 30 * ms}, "b": {delay: 10 * ms}, "c": {delay: time.Hour}}}
		began := time.Now()
		var order []coterie.NodeID
		r := quorum.Call(t.Context(), quorum.Majority("a", "b", "c"), nil, c.call)
		for id, res := range r.All() {
			require.NoError(t, res.Err)
			order = append(order, id)
		}
		require.NoError(t, r.Err())
		require.Equal(t, []coterie.NodeID{"b", "a"}, order)
		require.Equal(t, 30*ms, time.Since(began))
		require.Zero(t, c.under.Load(), "all calls have returned")
	})
}

func TestCallIsLostAsSoonAsItIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{replicas: map[coterie.NodeID]replica{"a": {delay: 10 * ms, err: errRefused}, "b": {delay: 20 * ms, err: errRefused}, "c": {delay: time.Hour}}}
		began := time.Now()
		_, err := quorum.Call(t.Context(), quorum.Majority("a", "b", "c"), nil, c.call).Wait()
		require.Equal(t, 20*ms, time.Since(began))
		require.ErrorIs(t, err, coterie.ErrNoQuorum)
		require.ErrorIs(t, err, errRefused)
		var none *quorum.NoQuorumError
		require.ErrorAs(t, err, &none)
		require.Equal(t, coterie.NodeID("a"), none.Failed[0].Node)
		require.Zero(t, c.under.Load())
	})
}

func TestCallEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{replicas: map[coterie.NodeID]replica{"a": {delay: 10 * ms}, "b": {delay: time.Hour}, "c": {delay: time.Hour}}}
		ctx, cancel := context.WithTimeout(t.Context(), 50*ms)
		defer cancel()
		_, err := quorum.Call(ctx, quorum.Majority("a", "b", "c"), nil, c.call).Wait()
		require.ErrorIs(t, err, coterie.ErrNoQuorum)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var none *quorum.NoQuorumError
		require.ErrorAs(t, err, &none)
		require.Equal(t, []coterie.NodeID{"a"}, none.Answered)
		require.Zero(t, c.under.Load())

		asked := c.asked.Load()
		_, err = quorum.Call(ctx, quorum.Majority("a", "b", "c"), nil, c.call).Wait()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, asked, c.asked.Load(), "nobody is asked when the context has ended")
	})
}

func TestLeavingTheLoopEndsTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{replicas: map[coterie.NodeID]replica{"a": {delay: 10 * ms}, "b": {delay: time.Hour}, "c": {delay: time.Hour}}}
		r := quorum.Call(t.Context(), quorum.Majority("a", "b", "c"), nil, c.call)
		for range r.All() {
			break
		}
		require.NoError(t, r.Err())
		require.Zero(t, c.under.Load())
		for range r.All() {
			t.Error("a call is made once")
		}
		require.Error(t, r.Err())
	})
}

func TestHedgingAsksMoreOnlyWhenItTakesTooLong(t *testing.T) {
	ids := names(5)
	for _, tc := range []struct {
		name     string
		replicas map[coterie.NodeID]replica
		asked    int32
		took     time.Duration
	}{
		{"in time", map[coterie.NodeID]replica{}, 3, 0},
		{"one is slow", map[coterie.NodeID]replica{ids[1]: {delay: time.Hour}}, 4, 100 * ms},
		{"two are slow", map[coterie.NodeID]replica{ids[1]: {delay: time.Hour}, ids[2]: {delay: time.Hour}}, 5, 200 * ms},
		{"one fails", map[coterie.NodeID]replica{ids[0]: {delay: 5 * ms, err: errRefused}}, 4, 5 * ms},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &cluster{replicas: tc.replicas}
				began := time.Now()
				_, err := quorum.CallWith(t.Context(), quorum.CallConfig{Hedge: 100 * ms}, quorum.Majority(ids...), nil, c.call).Wait()
				require.NoError(t, err)
				require.Equal(t, tc.asked, c.asked.Load())
				require.Equal(t, tc.took, time.Since(began))
			})
		})
	}
}

func TestCallChecksItsArguments(t *testing.T) {
	c := &cluster{}
	maj := quorum.Majority("a", "b", "c")
	for name, r := range map[string]quorum.Responses[int]{
		"no system":    quorum.Call(t.Context(), quorum.System{}, nil, c.call),
		"a stranger":   quorum.Call(t.Context(), maj, []coterie.NodeID{"a", "b", "x"}, c.call),
		"too few":      quorum.Call(t.Context(), maj, []coterie.NodeID{"a", "a"}, c.call),
		"no function":  quorum.Call[int](t.Context(), maj, nil, nil),
		"zero":         {},
		"nodes, empty": quorum.Call(t.Context(), maj, []coterie.NodeID{}, c.call),
	} {
		_, err := r.Wait()
		require.Error(t, err, name)
	}
	_, err := quorum.MajorityValue(quorum.Responses[int]{})
	require.Error(t, err)
	require.Zero(t, c.asked.Load())
	values, err := quorum.Call(t.Context(), maj, []coterie.NodeID{"c", "b", "c"}, c.call).Wait()
	require.NoError(t, err)
	require.Len(t, values, 2)
	_, err = quorum.Call(t.Context(), quorum.Node("a"), nil, func(context.Context, coterie.NodeID) (int, error) {
		runtime.Goexit()
		return 0, nil
	}).Wait()
	require.ErrorContains(t, err, "ended its goroutine")
}

func TestCombinators(t *testing.T) {
	ids := names(5)
	maj := quorum.Majority(ids...)
	at := func(values ...int) *cluster {
		c := &cluster{replicas: map[coterie.NodeID]replica{}}
		for i, v := range values {
			c.replicas[ids[i]] = replica{delay: time.Duration(i) * ms, value: v}
			if v < 0 {
				c.replicas[ids[i]] = replica{delay: time.Duration(i) * ms, err: errRefused}
			}
		}
		return c
	}
	synctest.Test(t, func(t *testing.T) {
		call := func(c *cluster) quorum.Responses[int] { return quorum.Call(t.Context(), maj, nil, c.call) }
		got, err := quorum.Newest(call(at(4, -1, 7, 5, 9)), cmp.Compare)
		require.NoError(t, err)
		require.Equal(t, 7, got)
		_, err = quorum.Newest(call(at(4, -1, -1, -1, 9)), cmp.Compare)
		require.ErrorIs(t, err, coterie.ErrNoQuorum)

		got, err = quorum.MajorityValue(call(at(4, 5, 4, -1, 4)))
		require.NoError(t, err)
		require.Equal(t, 4, got)
		for _, c := range []*cluster{at(4, 5, 4, 5, -1), at(1, 2, 3, 4, 5)} {
			_, err = quorum.MajorityValue(call(c))
			require.ErrorIs(t, err, coterie.ErrNoQuorum)
		}
		began := time.Now()
		_, err = quorum.MajorityValue(call(at(1, 2, 1, 2, 3)))
		require.ErrorIs(t, err, coterie.ErrNoQuorum)
		require.Equal(t, 4*ms, time.Since(began), "until the last, no sooner")
		began = time.Now()
		_, err = quorum.MajorityValue(call(at(1, 2, 3, 3, 3)))
		require.NoError(t, err)
		require.Equal(t, 4*ms, time.Since(began))
		c := at(1, 2, 2, 2, 9)
		got, err = quorum.MajorityValue(quorum.CallWith(t.Context(), quorum.CallConfig{Hedge: time.Hour}, maj, nil, c.call))
		require.NoError(t, err)
		require.Equal(t, 2, got)
		require.Equal(t, int32(4), c.asked.Load(), "one more, because the first differs")
	})
}

// The schedule of scylladb/scylladb#6299: a value that one of three nodes holds is read through it, and then read
// through the other two. A read that repairs leaves the value at a quorum, so that the second finds it.
func TestReadRepairLeavesNoOlderValueToRead(t *testing.T) {
	maj := quorum.Majority("a", "b", "c")
	stored := map[coterie.NodeID]int{"a": 2, "b": 1, "c": 1}
	read := func(nodes ...coterie.NodeID) quorum.Responses[int] {
		return quorum.Call(t.Context(), maj, nodes, func(_ context.Context, id coterie.NodeID) (int, error) { return stored[id], nil })
	}
	var repaired atomic.Int32
	var down coterie.NodeID
	done := make(chan coterie.NodeID, 9)
	repair := func(_ context.Context, id coterie.NodeID, _ int) error {
		if id == down {
			return errRefused
		}
		repaired.Add(1)
		done <- id
		return nil
	}
	settle := func(v int) {
		for len(done) > 0 {
			stored[<-done] = v
		}
	}
	got, err := quorum.ReadRepair(t.Context(), read("a", "b"), maj, cmp.Compare, repair)
	settle(got)
	require.NoError(t, err)
	require.Equal(t, 2, got)
	require.Positive(t, repaired.Load())
	got, err = quorum.ReadRepair(t.Context(), read("b", "c"), maj, cmp.Compare, repair)
	settle(got)
	require.NoError(t, err)
	require.Equal(t, 2, got, "never the older value after the newer one")

	stored = map[coterie.NodeID]int{"a": 3, "b": 3, "c": 1}
	repaired.Store(0)
	got, err = quorum.ReadRepair(t.Context(), read("a", "b"), maj, cmp.Compare, repair)
	require.NoError(t, err)
	require.Equal(t, 3, got)
	require.Zero(t, repaired.Load(), "a quorum holds it: nothing to repair")

	stored, down = map[coterie.NodeID]int{"a": 4, "b": 3, "c": 3}, "b"
	got, err = quorum.ReadRepair(t.Context(), read("a", "c"), quorum.And(maj, quorum.Node("b")), cmp.Compare, repair)
	require.ErrorIs(t, err, coterie.ErrNoQuorum)
	require.ErrorIs(t, err, errRefused)
	require.Equal(t, 4, got)
}

// Whatever the nodes do, the call ends as the System says, as soon as it is known.
func TestCallAgreesWithItsSystem(t *testing.T) {
	testsize.Checks(t, 100, 2000)
	rapid.Check(t, func(rt *rapid.T) {
		f := drawFormula(rt, names(rapid.IntRange(1, 6).Draw(rt, "n")), 2)
		c := &cluster{replicas: map[coterie.NodeID]replica{}}
		for _, id := range f.sys.Nodes() {
			c.replicas[id] = replica{delay: time.Duration(rapid.IntRange(0, 5).Draw(rt, "delay")) * ms}
			if rapid.Bool().Draw(rt, "fails") {
				c.replicas[id] = replica{err: errRefused}
			}
		}
		hedge := time.Duration(rapid.IntRange(0, 3).Draw(rt, "hedge")) * ms
		var values map[coterie.NodeID]int
		var err error
		synctest.Test(t, func(*testing.T) {
			values, err = quorum.CallWith(context.Background(), quorum.CallConfig{Hedge: hedge}, f.sys, nil, c.call).Wait()
		})
		alive := map[coterie.NodeID]bool{}
		for id, r := range c.replicas {
			alive[id] = r.err == nil
		}
		if f.holds(alive) != (err == nil) {
			rt.Fatalf("%v with %v gave %v", f.sys, c.replicas, err)
		}
		answered := map[coterie.NodeID]bool{}
		for id := range values {
			answered[id] = true
		}
		if err == nil && !f.holds(answered) || c.under.Load() != 0 {
			rt.Fatalf("answered %v, %d under way", answered, c.under.Load())
		}
	})
}

func ExampleCall() {
	versions := map[coterie.NodeID]int{"a": 3, "b": 4, "c": 4}
	get := func(_ context.Context, id coterie.NodeID) (int, error) { return versions[id], nil }

	nodes := quorum.Majority("a", "b", "c")
	newest, err := quorum.Newest(quorum.Call(context.Background(), nodes, nil, get), cmp.Compare)
	fmt.Println(newest, err)

	down := func(context.Context, coterie.NodeID) (int, error) { return 0, errors.New("connection refused") }
	_, err = quorum.Call(context.Background(), nodes, []coterie.NodeID{"a", "b"}, down).Wait()
	fmt.Println(errors.Is(err, coterie.ErrNoQuorum))
	// Output:
	// 4 <nil>
	// true
}

func ExampleResponses_All() {
	square := func(_ context.Context, id coterie.NodeID) (int, error) { return len(id) * len(id), nil }
	var got []string
	for id, res := range quorum.Call(context.Background(), quorum.Threshold(2, "ab", "abc"), nil, square).All() {
		got = append(got, fmt.Sprint(id, " ", res.Value))
	}
	slices.Sort(got) // they come in any order
	fmt.Println(got)
	// Output: [ab 4 abc 9]
}
