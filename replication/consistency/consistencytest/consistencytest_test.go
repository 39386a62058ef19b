package consistencytest_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/coterie-go/coterie/replication/consistency"
	"github.com/coterie-go/coterie/replication/consistency/consistencytest"
)

type (
	access  = consistency.Access[int]
	answer  = consistency.Answer[int]
	history = consistency.History[access, answer]
)

// fakeT takes down how a test failed.
type fakeT struct {
	*testing.T
	message string
}

func (t *fakeT) Fatalf(format string, args ...any) { t.message = fmt.Sprintf(format, args...) }

var (
	_ consistencytest.TB = (*testing.T)(nil)
	_ consistencytest.TB = (*testing.B)(nil)
	_ consistencytest.TB = (*rapid.T)(nil)
)

// pageOf returns the page that a failure names.
func pageOf(t *testing.T, message string) string {
	t.Helper()
	_, path, ok := strings.Cut(message, "picture: ")
	require.True(t, ok, message)
	page, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(page)
}

func stale() history {
	return history{
		{Client: 1, In: access{Kind: consistency.Write, Key: "y", Value: 9}, Call: 0, Return: 1},
		{Client: 1, In: access{Kind: consistency.Write, Key: "x", Value: 1}, Call: 1, Return: 2},
		{Client: 1, In: access{Kind: consistency.Write, Key: "x", Value: 2}, Call: 3, Return: 4},
		{Client: 1, In: access{Key: "x"}, Out: answer{Value: 2}, Call: 5, Return: 6},
		{Client: 2, In: access{Key: "x"}, Out: answer{Value: 2}, Call: 5, Return: 6},
		{Client: 2, In: access{Key: "x"}, Out: answer{Value: 1}, Call: 7, Return: 8},
	}
}

func TestRequireLinearizable(t *testing.T) {
	f := &fakeT{T: t}
	consistencytest.RequireLinearizable(f, stale()[:5], consistency.Register(0))
	require.Empty(t, f.message)

	consistencytest.RequireLinearizable(f, stale(), consistency.Register(0))
	require.Contains(t, f.message, "linearizable register: violated: read 5 (client 2) returned x=1 after")
	require.Contains(t, f.message, "     5  client 2   7ns to 8ns: read x=1\n")
	require.NotContains(t, f.message, "y=9", "only what shows the violation")
	require.Contains(t, pageOf(t, f.message), "linearizable register: violated")

	f.message = ""
	consistencytest.RequireLinearizable(f, history{{Call: 2, Return: 1}}, consistency.Register(0))
	require.Contains(t, f.message, "malformed history")
}

func TestRequireSequential(t *testing.T) {
	f := &fakeT{T: t}
	consistencytest.RequireSequential(f, stale()[:5], consistency.Register(0))
	require.Empty(t, f.message)
	consistencytest.RequireSequential(f, stale(), consistency.Register(0))
	require.Contains(t, f.message, "sequential register: violated")
}

func TestRequireRegisters(t *testing.T) {
	f := &fakeT{T: t}
	consistencytest.RequireRegisters(f, stale(), 0, consistency.ReadYourWrites[int])
	require.Empty(t, f.message)
	consistencytest.RequireRegisters(f, stale(), 0, consistency.MonotonicReads[int])
	require.Contains(t, f.message, "monotonic reads: violated: client 2 cannot have seen the writes in one order")
	require.Equal(t, 5, strings.Count(f.message, "\n"), "two writes, two reads and the picture:\n%s", f.message)
	require.Contains(t, pageOf(t, f.message), "monotonic reads: violated")
}

func TestRequireTxns(t *testing.T) {
	lost := func(client int, value int64) consistency.Operation[[]consistency.TxnOp, consistency.TxnOut] {
		ops := []consistency.TxnOp{{Key: "x", List: []int64{}}, {Kind: consistency.Append, Key: "x", Value: value}}
		return consistency.Operation[[]consistency.TxnOp, consistency.TxnOut]{
			Client: client, In: ops, Out: consistency.TxnOut{Ops: ops}, Return: 10,
		}
	}
	h := consistency.TxnHistory{lost(1, 1), lost(2, 2)}
	f := &fakeT{T: t}
	consistencytest.RequireTxns(f, h, consistency.ReadCommitted, consistency.ListAppend)
	require.Empty(t, f.message)
	consistencytest.RequireTxns(f, h, consistency.SnapshotIsolation, consistency.ListAppend)
	require.Contains(t, f.message, "not snapshot isolation, but at most read committed\nlost update: ")
	require.Contains(t, pageOf(t, f.message), "read x [] append x 2")

	f.message = ""
	consistencytest.RequireTxns(f, append(h, h[0]), consistency.Serializable, consistency.ListAppend)
	require.Contains(t, f.message, "malformed history")
}
